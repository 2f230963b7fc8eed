"""Who may import whom (docs/architecture.md), and what users of the core may rely on."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest
from helpers import ROOT

import pixeldit_core as pc

CORE, NODES = ROOT / "pixeldit_core", ROOT / "nodes"
STDLIB = set(sys.stdlib_module_names)
CORE_PACKAGES = {"torch", "einops", "safetensors", "numpy", "PIL", "tqdm"}
EXTRAS = {  # packages of an extra, by the room that may import them
    "training": {"accelerate", "peft", "webdataset", "transformers", "timm", "tensorboard"},
    "evaluation": {"accelerate", "torch_fidelity", "matplotlib"},
}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes", "execution"}

# inside the core: a room, and the rooms that it may import
_LEAVES = {"settings", "labels", "sizes", "atomic", "dtypes", "text", "extras", "resize", "lazy"}
_MODEL = {"families", "flow", "spec", "model"}
ROOMS = {
    "layers": set(),
    "encoders": {"layers"},
    "flow": set(),
    "settings": set(),
    "labels": set(),
    "sizes": set(),
    "atomic": set(),
    "dtypes": set(),
    "text": set(),
    "extras": set(),
    "resize": set(),
    "lazy": set(),
    "families": {"layers", "encoders", "flow", "labels", "settings", "sizes"},
    "spec": {"families", "settings", "labels", "sizes"},
    "model": {"families", "settings", "labels", "spec"},
    "conditions": {"model", "labels"},
    "compiled": {"model"},
    "sampling": {*_MODEL, "conditions", "compiled", "sizes"},
    "editing": {*_MODEL, "conditions", "sampling"},
    "images": {*_MODEL, "atomic"},
    "text_states": {*_MODEL, "atomic"},
    "checkpoints": {*_MODEL, "encoders", "labels", "settings", "atomic", "dtypes", "text"},
    "training": {"", *_MODEL, *_LEAVES, "layers", "conditions", "sampling", "images", "checkpoints", "text_states"},
    "evaluation": {"", *_MODEL, *_LEAVES, "conditions", "sampling", "images", "checkpoints", "text_states"},
    "cli": {
        *_MODEL,
        *_LEAVES,
        "conditions",
        "compiled",
        "sampling",
        "images",
        "checkpoints",
        "text_states",
        "training",
        "evaluation",
    },
    "__main__": {"cli"},
}


def imports(path):
    """What a file imports: (level of relative import, dotted name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module
            else:
                yield from ((node.level, alias.name) for alias in node.names)


def room_of(target, root):
    """The first part of a path below `root`; "" is the root's __init__."""
    parts = target.relative_to(root).parts
    return parts[0] if parts else ""


def resolve(path, level, name):
    """Where a relative import points to, as a path without suffix."""
    return path.parents[level - 1].joinpath(*name.split("."))


FILES = {root: sorted(root.rglob("*.py")) for root in (CORE, NODES)}


@pytest.mark.parametrize("path", FILES[CORE], ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_only_its_packages_and_allowed_rooms(path):
    room = path.relative_to(CORE).parts[0].removesuffix(".py")
    for level, name in imports(path):
        top = name.split(".")[0]
        if level == 0:
            allowed = STDLIB | CORE_PACKAGES | EXTRAS.get(room, set())
            assert top in allowed, f"{path.name} imports {name}"
            continue
        target = resolve(path, level, name)
        assert target.is_relative_to(CORE), f"{path.name} imports {name} from outside of the core"
        other = room_of(target, CORE)
        if room == "__init__":
            continue
        if other and not (CORE / other).exists() and not (CORE / f"{other}.py").exists():
            other = ""  # a name of the core's __init__
        assert other == room or other in ROOMS[room], f"{room} ({path.name}) imports {other or 'pixeldit_core'}"


def test_the_core_s_rooms_are_all_on_the_map():
    rooms = {entry.stem for entry in CORE.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", FILES[NODES], ids=lambda path: str(path.relative_to(NODES)))
def test_only_nodes_host_imports_comfyui(path):
    inside = "host" in path.relative_to(NODES).parts[:-1]
    for level, name in imports(path):
        top = name.split(".")[0]
        if level == 0:
            if not inside:
                assert top == "comfy_api" or top not in HOST, f"{path.name} imports {name}: only nodes/host may"
            continue
        target = resolve(path, level, name)
        if target.is_relative_to(CORE):
            assert room_of(target, CORE) not in ("cli", "training", "evaluation"), f"{path.name} imports {name}"
            continue
        assert target.is_relative_to(NODES)
        if inside:
            assert target.is_relative_to(NODES / "host"), f"nodes/host ({path.name}) imports {name} of nodes"


def test_one_file_of_training_and_one_of_evaluation_know_accelerate():
    known = re.compile(r"(import|from|require\()\W*accelerate")
    users = [path for path in FILES[CORE] if known.search(path.read_text(encoding="utf-8"))]
    assert [str(path.relative_to(CORE)) for path in users] == ["evaluation/processes.py", "training/engine.py"]


def test_importing_the_core_brings_no_comfyui_and_nothing_unexpected():
    code = (
        "import sys\n"
        "import torch, numpy, PIL.Image, safetensors.torch; before = set(sys.modules)\n"
        "import pixeldit_core, pixeldit_core.cli, pixeldit_core.evaluation\n"
        "pixeldit_core.evaluation.load_classifier\n"
        "print('\\n'.join(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= STDLIB | CORE_PACKAGES | {"pixeldit_core"}


PUBLIC = """
    read_checkpoint inspect_checkpoint load_checkpoint build_model save_checkpoint class_condition null_condition
    text_condition apply_lora sample time_grid is_guided unit_noise SOLVERS to_uint8 from_image VARIANTS SETTINGS
""".split()  # what docs promise
XPRED = ("dit", "mmdit", "pixeldit", "mmpixeldit")


def test_the_public_names_are_there():
    for name in PUBLIC:
        assert name in pc.__all__ and hasattr(pc, name), name
    assert all(hasattr(pc, name) for name in pc.__all__)
    assert set(pc.SOLVERS) == {"euler", "heun", "heun_exact", "ab2", "flow_dpmpp_2m"}
    assert set(pc.VARIANTS) == {
        "PixelDiT-B", "PixelDiT-L", "PixelDiT-XL", "PixelDiT-T2I", "PixelDiT2-B/16", "PixelDiT2-L/16",
        "PixelDiT2-H/16", "PixelDiT2-H/16-512", "PixelDiT2-H/32", "PixelDiT2-G/32",
        "PixelHDM", "PixelHDM-small", "PixelHDM-large",
        *(f"{kind}-tiny/4-{data}" for kind in XPRED for data in ("mnist", "cifar10")),
    }  # fmt: skip
    assert set(pc.FAMILIES) == {
        "pixeldit", "pixeldit_t2i", "pixeldit2", "pixelhdm", *(f"xpred_{kind}" for kind in XPRED),
    }  # fmt: skip
    assert set(pc.SETTINGS) == {
        "imagenet256-epoch80", "imagenet256-epoch160", "imagenet256-epoch320", "imagenet512",
        "t2i-1024", "t2i-1024-fast", "t2i-512", "xpred", "pixelhdm", "pixeldit2-256", "pixeldit2-512",
    }  # fmt: skip


def parameters(function):
    return {
        name: "" if value.default is value.empty else value.default
        for name, value in inspect.signature(function).parameters.items()
    }


def test_signatures_are_the_promised_ones():
    import torch

    assert parameters(pc.load_checkpoint) == {
        "path": "", "device": "cpu", "dtype": torch.float32, "weights": "auto", "params": None, "encoder": None,
        "factory_kwargs": "",
    }  # fmt: skip
    assert list(parameters(pc.save_checkpoint))[:4] == ["model_or_path", "path", "layout", "dtype"]
    assert parameters(pc.save_checkpoint)["layout"] == "canonical"
    assert parameters(pc.sample) == {
        "model": "", "cond": "", "null": None, "noise": None, "seeds": None, "size": None, "steps": None,
        "solver": None, "cfg": None, "timeshift": None, "cfg_interval": None, "last_step": None, "times": None,
        "convention": "standard", "image": None, "mask": None, "denoise": 1.0, "compile": False,
        "on_step": None,
    }  # fmt: skip
    assert list(parameters(pc.time_grid)) == ["model_or_family", "steps", "timeshift", "last_step", "convention"]
    assert list(parameters(pc.unit_noise)) == ["model", "seeds", "height", "width"]
    assert list(parameters(pc.is_guided)) == ["t", "interval"]
    for solve in pc.SOLVERS.values():
        assert list(parameters(solve))[:4] == ["velocity", "x", "times", "on_step"]


def modules():
    for module in pkgutil.walk_packages(pc.__path__, "pixeldit_core."):
        if not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def test_everything_public_is_documented():
    bare = []
    for module in modules():
        if not module.__doc__:
            bare.append(module.__name__)
        for name, thing in vars(module).items():
            defined_here = getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
            if defined_here and (inspect.isfunction(thing) or inspect.isclass(thing)) and not thing.__doc__:
                bare.append(f"{module.__name__}.{name}")
    assert not bare


def test_the_code_is_ascii():
    for path in FILES[CORE] + FILES[NODES]:
        assert path.read_bytes().isascii(), path
