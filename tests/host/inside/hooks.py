"""A MODEL of each family through ComfyUI's KSampler, and patches as other nodes make them."""

import asyncio
import contextlib
import logging
from pathlib import Path

import tiny_t2i
import torch
from kit import empty, golden, labels, module, run, texts
from other_families import HDM, pixelhdm, text, xpred
from pixeldit2 import pixeldit2

LARGE = ("pixeldit_t2i", "pixelhdm", "pixeldit2")  # whose own size is too large for a test
FAMILIES = ("class", "text", "dit-r1", "mmdit-r1", "pixeldit-r1", "mmpixeldit-r1", "pixelhdm", "pixeldit2")


def load_nodes(*names):
    """Load files of comfy_extras, as far as this ComfyUI has them."""
    import comfy

    import nodes

    for name in names:
        path = Path(comfy.__path__[0]).parent / "comfy_extras" / f"nodes_{name}.py"
        if path.exists():
            asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))


def has(node_id):
    import nodes

    return node_id in nodes.NODE_CLASS_MAPPINGS


def bundled():
    return run("PixelDiTLoader", checkpoint="pixeldit-emoji-96.safetensors", weight_dtype="fp32")[0]


def model_of(family):
    if family == "class":
        return bundled()
    if family == "text":
        return tiny_t2i.ours(patch_depth=4)
    others = {"pixelhdm": pixelhdm, "pixeldit2": pixeldit2}
    return others[family]() if family in others else xpred(family)


def sample(model, **options):
    """Two steps in a small size, guided, with KSampler."""
    spec = module("nodes.host.spec").find_spec(model)
    if spec.family.condition == "class":
        classes = spec.params.num_classes
        conditions = [labels([1], classes), labels([classes], classes)]
    elif spec.family.name == "pixelhdm":
        _, inputs, _ = golden(HDM, "pixelhdm")
        conditions = [text(inputs, prefix, slice(1)) for prefix in ("", "null_")]
    else:
        conditions = [texts(seed=1), texts(seed=2)]
    size = (32, 48) if spec.family.name in LARGE else spec.default_size
    inputs = {
        "model": model,
        "seed": 5,
        "steps": 2,
        "cfg": 2.5,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": conditions[0],
        "negative": conditions[1],
        "latent_image": empty((1, spec.params.in_channels, *size)),
        "denoise": 1.0,
        **options,
    }
    return run("KSampler", **inputs)[0]["samples"]


def patch_blocks(model):
    """The patch blocks of a MODEL's network."""
    network = model.model.diffusion_model
    lists = (getattr(network, name, None) for name in ("patch_blocks", "dit_blocks", "blocks"))
    return next(blocks for blocks in lists if blocks is not None)


def replaced(model, indices, replace):
    """A clone of a MODEL with some of its patch blocks replaced."""
    model = model.clone()
    for index in indices:
        model.set_model_patch_replace(replace, "dit", "double_block", index)
    return model


def skip(arguments, extra):
    return arguments


def call_original(arguments, extra):
    return extra["original_block"](arguments)


@contextlib.contextmanager
def without_block(model, index):
    """The network without one of its blocks, inside of this context."""
    blocks, params = patch_blocks(model), model.model.diffusion_model.params
    removed, moved = blocks[index], int(hasattr(params, "in_context_start"))
    del blocks[index]
    if moved:  # PixelDiT2 counts the blocks before its context tokens
        params.in_context_start -= 1
    try:
        yield
    finally:
        blocks.insert(index, removed)
        if moved:
            params.in_context_start += 1


@contextlib.contextmanager
def warnings():
    """What the pack warns of inside of this context."""
    lines = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger(module("nodes.host.no_effect").__name__)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def differ(a, b):
    return (a - b).abs().max().item()


def equal(a, b, what):
    assert torch.equal(a, b), f"{what}: max abs {differ(a, b)}"
