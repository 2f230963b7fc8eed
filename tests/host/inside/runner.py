"""Runs inside of a ComfyUI process: loads the pack as ComfyUI does, then every check, and reports as JSON lines.

    python runner.py PACK OUT [NAME ...]

A check is a function `check_*` in one of the `checks_*.py` beside this file; it passes if it returns.
"""

import asyncio
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent


def start_host(base: Path):
    """What main.py does before it starts a server, on the CPU, with folders of our own."""
    sys.argv = [sys.argv[0]]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths
    import utils.extra_config  # noqa: F401 - before `nodes` puts comfy/ first on the path

    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.models_dir = str(base / "models")
    folder_paths.folder_names_and_paths["diffusion_models"][0].insert(0, str(base / "models" / "diffusion_models"))
    import nodes

    return nodes


def load_checks():
    sys.path.insert(0, str(HERE))
    for path in sorted(HERE.glob("checks_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in vars(module).items():
            if name.startswith("check_") and function.__module__ == path.stem:
                yield f"{path.stem}.{name}", function


def main(pack: Path, out: Path, wanted: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "models" / "diffusion_models").mkdir(parents=True, exist_ok=True)
    nodes = start_host(out)
    import comfy

    extras = Path(comfy.__path__[0]).parent / "comfy_extras"
    for name in ("nodes_custom_sampler", "nodes_model_advanced", "nodes_model_merging", "nodes_chroma_radiance"):
        asyncio.run(nodes.load_custom_node(str(extras / f"{name}.py"), module_parent="comfy_extras"))
    loaded = asyncio.run(nodes.load_custom_node(str(pack)))
    import kit

    kit.PACK, kit.OUT = pack, out
    with (out / "report.jsonl").open("w", encoding="utf-8") as report:
        for name, check in [("pack.check_loads", lambda: kit.require(loaded)), *load_checks()]:
            if wanted and name not in wanted:
                continue
            begin, error = time.perf_counter(), None
            try:
                check()
            except BaseException:  # an interrupt is one, too
                error = traceback.format_exc()
            line = {"name": name, "error": error, "seconds": round(time.perf_counter() - begin, 2)}
            report.write(json.dumps(line) + "\n")
            report.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
