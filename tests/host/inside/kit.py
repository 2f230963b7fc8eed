"""What the checks share: nodes by id, tiny checkpoints, golden data, the core."""

import asyncio
import inspect
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

PACK = OUT = Path()  # set by the runner


def out_of(name):
    """A folder of this run: models, output, temp."""
    return OUT / name


def require(value, message="expected a true value"):
    if not value:
        raise AssertionError(message)


def node(node_id):
    import nodes

    return nodes.NODE_CLASS_MAPPINGS[node_id]


def run(node_id, **inputs):
    """Execute a node, whether of the old or the new kind; missing widgets take their defaults. -> tuple of outputs."""
    kind = node(node_id)
    if hasattr(kind, "define_schema"):
        info = kind.GET_NODE_INFO_V1()["input"]
        for group in ("required", "optional"):
            for name, spec in info.get(group, {}).items():
                options = spec[1] if len(spec) > 1 else {}
                if name not in inputs and "default" in options:
                    inputs[name] = options["default"]
        result = kind.PREPARE_CLASS_CLONE({}).execute(**inputs)
    else:
        result = getattr(kind(), kind.FUNCTION)(**inputs)
    if inspect.isawaitable(result):
        result = asyncio.run(result)
    if hasattr(result, "result"):
        result = result.result
    return result.get("result") if isinstance(result, dict) else result


def core():
    """The pack's own copy of pixeldit_core."""
    return module("pixeldit_core")


def module(name):
    """A module of the pack by its dotted name inside, such as "nodes.host.model"."""
    return next(
        value
        for key, value in sys.modules.items()
        if key.endswith("." + name) and hasattr(value, "__file__") and str(PACK) in str(value.__file__)
    )


def golden(case):
    folder = PACK / "tests" / "golden" / "official" / case
    return (
        json.loads((folder / "case.json").read_text()),
        load_file(folder / "inputs.safetensors"),
        load_file(folder / "outputs.safetensors"),
    )


def sampler_net():
    return PACK / "tests" / "golden" / "official" / "c2i_sampler_net" / "checkpoint.ckpt"


def put(source, name):
    """Copy a checkpoint into models/diffusion_models under a name; -> the name."""
    target = OUT / "models" / "diffusion_models" / name
    target.write_bytes(Path(source).read_bytes())
    import folder_paths

    folder_paths.filename_list_cache.clear()
    return name


def load_tiny(**options):
    """The golden sampler network (4-pixel patches, 10 classes, EMA) as a MODEL."""
    options = {"weight_dtype": "fp32", **options}
    return run("PixelDiTLoader", checkpoint=put(sampler_net(), "sampler-net.ckpt"), **options)[0]


def empty(shape):
    return {"samples": torch.zeros(shape)}


def record_calls(model):
    """A clone of a MODEL, and the list that its network calls will fill: x and sigma of each."""
    calls = []

    def wrapper(apply_model, arguments):
        calls.append({"x": arguments["input"].clone(), "sigma": arguments["timestep"].clone()})
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model, calls


def labels(ids):
    return [[torch.zeros(1, 1, 1), {"pixeldit_class": torch.tensor(ids)}]]


def raises(kind, text, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        require(text.lower() in str(error).lower(), f"expected {text!r} in the error, got {error}")
        return
    raise AssertionError(f"no {kind.__name__} with {text!r}")


def close(a, b, atol):
    difference = (a.float() - b.float()).abs().max().item()
    require(a.shape == b.shape and difference <= atol, f"{tuple(a.shape)} {tuple(b.shape)}: max abs {difference}")
