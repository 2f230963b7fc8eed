"""The golden networks of the other families, as MODELs."""

import torch
from kit import (
    core,
    golden_folder,
    load,
    module,
)

XPRED = {
    "dit-r1": "x-prediction DiT",
    "dit-r1-layernorm-noape": "x-prediction DiT",
    "dit-r2": "x-prediction DiT",
    "mmdit-r1": "x-prediction MM-DiT",
    "mmdit-r2": "x-prediction MM-DiT",
    "pixeldit-r1": "x-prediction PixelDiT",
    "pixeldit-r2": "x-prediction PixelDiT",
    "mmpixeldit-r1": "x-prediction MM-PixelDiT",
    "mmpixeldit-r2": "x-prediction MM-PixelDiT",
}


GRAY = "mmpixeldit-r1"  # 12 x 12, one channel


HDM = "10_sampler_euler_cfg"


def checkpoint(name, system="xpred"):
    return golden_folder(name, system) / "checkpoint.pt"


def xpred(name, **options):
    return load(checkpoint(name), f"{name}.pt", **options)


def pixelhdm(name=HDM, **options):
    return load(checkpoint(name, "pixelhdm"), f"{name}.pt", **options)


def text(inputs, prefix="", rows=slice(None)):
    """CONDITIONING as PixelDiT Text Prompt gives it for PixelHDM."""
    states, mask, pooled = (
        inputs[f"{prefix}{name}"][rows] for name in ("text_embed", "text_mask", "pooled_text_embed")
    )
    return [[states, {"attention_mask": mask, "pooled_output": pooled}]]


def sampled(model, positive, negative, noise, convention="standard", **settings):
    """What PixelDiT Sampler does, from given noise, in the model's range."""
    sampling, times = module("nodes.host.sampling"), module("nodes.host.times")
    settings, spec = core().SamplingSettings(**settings), model.model.pixeldit
    convention = times.find_convention(spec, convention)
    plan = sampling.Plan(settings, convention, times.make_times(spec, convention, settings.steps, settings.timeshift))
    start = sampling.Start(torch.zeros_like(noise), noise / (1 - plan.times[0]), seed=0)
    return model.model.process_latent_in(sampling.sample(model, positive, negative, start, plan))


def sampler_inputs(model, known, **options):
    size = known.default_size
    return {
        "model": model,
        "seed": 3,
        "steps": 5,
        "solver": "ab2",
        "cfg": 2.0,
        "width": size[1],
        "height": size[0],
        "batch_size": 3,
        **options,
    }


def core_image(path, condition, null, noise, **settings):
    model = core().load_checkpoint(path)
    x = core().sample(model, condition(model), null and null(model), noise=noise, **settings)
    return model, x


def within(picture, model, x):
    """Whether an IMAGE has the core's levels, where states agree to 1e-4."""
    saved = (picture * 255).round().byte()
    signed = module("pixeldit_core.images").to_signed(model.params, x)
    low, high = (model.family.to_uint8(signed + shift).movedim(1, -1).cpu() for shift in (-2e-4, 2e-4))
    low, high = (level.expand(*level.shape[:-1], 3) for level in (low, high))
    assert picture.shape[-1] == 3 and ((low <= saved) & (saved <= high)).all(), "pictures differ"


def unit(count, params, size, seed=3):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(count, params.in_channels, *size), seed)
