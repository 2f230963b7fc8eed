"""Starts ComfyUI in this process, on the CPU, with the pack loaded as ComfyUI loads it.

Run with ComfyUI's own Python and folder: see ../test_inside.py.
"""

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kit")

EXTRAS = (
    "nodes_custom_sampler",
    "nodes_model_advanced",
    "nodes_model_merging",
    "nodes_chroma_radiance",
    "nodes_mask",
    "nodes_train",
)
NEWER_EXTRAS = ("nodes_dataset",)


def pytest_addoption(parser):
    parser.addoption("--pack", type=Path, required=True, help="folder of the node pack")
    parser.addoption("--out", type=Path, required=True, help="an empty folder: models, output, temp")
    parser.addoption("--report", type=Path, help="file for results as JSON lines, written as they come")


def pytest_configure(config):
    import kit

    kit.PACK, kit.OUT = config.getoption("pack"), config.getoption("out")
    for folder in ("models/diffusion_models", "temp", "input"):
        (kit.OUT / folder).mkdir(parents=True, exist_ok=True)
    nodes = start_comfyui(kit.OUT)
    import comfy

    extras = Path(comfy.__path__[0]).parent / "comfy_extras"
    for name in (*EXTRAS, *(name for name in NEWER_EXTRAS if (extras / f"{name}.py").exists())):
        asyncio.run(nodes.load_custom_node(str(extras / f"{name}.py"), module_parent="comfy_extras"))
    kit.LOADED = asyncio.run(nodes.load_custom_node(str(kit.PACK)))


def start_comfyui(base):
    """What main.py does before it starts a server."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths
    import utils.extra_config  # noqa: F401 - before `nodes` puts comfy/ first on the path

    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.models_dir = str(base / "models")
    folder_paths.folder_names_and_paths["diffusion_models"][0].insert(0, str(base / "models" / "diffusion_models"))
    import nodes

    sys.argv = arguments
    return nodes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """One line for each test, at once: a process that dies leaves those before it."""
    report = yield
    path = item.config.getoption("report")
    if path is not None and (report.when == "call" or report.outcome != "passed"):
        reason = report.longrepr[2] if report.skipped else report.longreprtext
        line = {"test": f"{item.path.stem}.{item.name}", "outcome": report.outcome, "reason": reason}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
