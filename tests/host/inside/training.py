"""ComfyUI's Train LoRA in either of its forms, and something to train: a tiny MODEL of each family."""

from typing import NamedTuple

import other_families
import pytest
import tiny_t2i
import torch
from kit import core, empty, golden, labels, load, load_tiny, node, out_of, run, texts
from loras import put
from pixeldit2 import pixeldit2

SETTINGS = {
    "batch_size": 1,
    "grad_accumulation_steps": 1,
    "steps": 16,
    "rank": 4,
    "optimizer": "AdamW",
    "loss_function": "MSE",
    "seed": 0,
    "training_dtype": "fp32",
    "lora_dtype": "fp32",
    "algorithm": "LoRA",
    "gradient_checkpointing": False,
    "existing_lora": "[None]",
}
NEWER_SETTINGS = {
    "quantized_backward": False,
    "checkpoint_depth": 1,
    "offloading": False,
    "bucket_mode": False,
    "bypass_mode": False,
}
GRAY = {
    "dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "in_channels": 1, "image_size": 12,
    "pixel_dim": 4, "pixel_depth": 1, "compress_ratio": 2, "pixel_mlp_hidden_dim": 10,
}  # fmt: skip
STILL = 1e-9  # a learning rate at which nothing is learned: the loss of what came in


class Trained(NamedTuple):
    lora: dict
    losses: list
    steps: int


class Subject(NamedTuple):
    """A MODEL, its latent's [C,H,W] and a CONDITIONING for it."""

    model: object
    shape: tuple
    positive: list
    learning_rate: float = 1e-2


def is_newer():
    """Whether this ComfyUI's Train LoRA takes lists: buckets, several sizes, one conditioning per image."""
    return hasattr(node("TrainLoraNode"), "define_schema")


def only_with(*names):
    """Skip where Train LoRA has no inputs of these names: they came one after the other."""
    known = {entry.id for entry in node("TrainLoraNode").define_schema().inputs} if is_newer() else set()
    if missing := [name for name in names if name not in known]:
        pytest.skip(f"this ComfyUI's Train LoRA has no {', '.join(missing)}")


def train(subject, latents=None, positive=None, **options):
    """As ComfyUI executes the node: in inference mode, which it leaves by itself."""
    torch.manual_seed(0)  # the node takes the LoRA's first weights from torch's own generator
    settings = SETTINGS | {"learning_rate": subject.learning_rate} | options
    latents = [latents or target(subject)] if not isinstance(latents, list) else latents
    positive = positive or subject.positive
    kind = node("TrainLoraNode")
    with torch.inference_mode():
        if not is_newer():
            _, *rest = kind().train(model=subject.model, latents=latents[0], positive=positive, **settings)
        else:
            known = {entry.id for entry in kind.define_schema().inputs}
            newer = {name: value for name, value in NEWER_SETTINGS.items() if name in known}
            lists = {name: [value] for name, value in (newer | settings).items()}
            positive = positive if isinstance(positive[0][0], list) else [positive]
            result = kind.PREPARE_CLASS_CLONE({}).execute(
                model=[subject.model], latents=latents, positive=positive, **lists
            )
            rest = result.result[-3:]  # at first, a MODEL came before them
    lora, losses, steps = rest
    return Trained(lora, losses["loss"], steps)


def target(subject, count=2, shape=None):
    """Nearly plain images, brighter than anything that random weights make."""
    shape = (count, *(shape or subject.shape))
    return {"samples": 0.6 + 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(9))}


def sampled(subject, model=None, steps=2):
    """A latent that the subject, or its changed MODEL, makes."""
    positive = subject.positive
    with torch.inference_mode():
        return run(
            "KSampler",
            model=model or subject.model,
            seed=5,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            positive=positive,
            negative=positive,
            latent_image=empty((1, *subject.shape)),
            denoise=1.0,
        )[0]["samples"]


def mean(values):
    return sum(values) / len(values)


def as_file(name, lora):
    """What Save LoRA would write, in models/loras; -> its name."""
    return put(name, {key: value.detach().clone().contiguous() for key, value in lora.items()})


def subjects():
    """Constructors by name. As in ComfyUI, a loader runs in inference mode, too."""
    xpred = {name: _xpred(name) for name in ("dit-r1-layernorm-noape", "mmdit-r2", "mmpixeldit-r2")}
    return {"class": _class, "text": _text, "pixelhdm": _pixelhdm, "gray": _gray, "pixeldit2": _pixeldit2, **xpred}


@torch.inference_mode()
def _class():
    return Subject(load_tiny(), (3, 16, 16), labels([3]))


@torch.inference_mode()
def _text():
    return Subject(tiny_t2i.ours(), (3, 16, 16), texts(), 3e-2)


@torch.inference_mode()
def _pixelhdm():
    _, inputs, _ = golden(other_families.HDM, "pixelhdm")
    return Subject(other_families.pixelhdm(), (3, 16, 16), other_families.text(inputs, rows=slice(0, 1)))


@torch.inference_mode()
def _pixeldit2():
    return Subject(pixeldit2(noise_scale=2.0), (3, 16, 16), labels([3], 5))


def _gray():
    """A one-channel x-prediction PixelDiT, which has convolutions."""
    pc = core()
    model = pc.build_model("xpred_pixeldit", pc.FAMILIES["xpred_pixeldit"].params(**GRAY), device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.network.named_parameters():
        around = 1.0 if "norm" in name else 0.0
        parameter.data.copy_(around + 0.1 * torch.randn(parameter.shape, generator=generator))
    path = pc.save_checkpoint(model, out_of("files") / "gray-pixeldit.safetensors")
    with torch.inference_mode():
        return Subject(load(path), (1, 12, 12), labels([3]))


def _xpred(name):
    @torch.inference_mode()
    def make():
        model = other_families.xpred(name)
        spec = model.model.pixeldit
        return Subject(model, (spec.params.in_channels, *spec.default_size), labels([3]))

    return make
