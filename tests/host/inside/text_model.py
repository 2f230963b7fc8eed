"""A tiny text-to-image network, through every way to sample."""

import tiny_t2i
import torch
from kit import (
    core,
    empty,
    run,
    texts,
)

SHAPE = (2, 3, 32, 48)


SETTINGS = {"steps": 6, "cfg": 2.75}


def noise(shape=SHAPE, seed=5):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(shape), seed)


def ksampler(model, **options):
    inputs = {
        "model": model,
        "seed": 5,
        **SETTINGS,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": texts(seed=1),
        "negative": texts(seed=2),
        "latent_image": empty(SHAPE),
        "denoise": 1.0,
        **options,
    }
    return run("KSampler", **inputs)[0]["samples"]


def custom(model, solver, start, sigmas=None, **options):
    """SamplerCustomAdvanced from given noise, with our solver and grid."""

    class Noise:
        seed = 0

        def generate_noise(self, latent):
            return start

    inputs = {"positive": texts(seed=1), "negative": texts(seed=2), "cfg": SETTINGS["cfg"], **options}
    return run(
        "SamplerCustomAdvanced",
        noise=Noise(),
        guider=run("CFGGuider", model=model, **inputs)[0],
        sampler=run("PixelDiTSolver", solver=solver)[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=SETTINGS["steps"])[0] if sigmas is None else sigmas,
        latent_image=empty(tuple(start.shape)),
    )[0]["samples"]


def sampler(model, **options):
    inputs = {
        "model": model,
        "positive": texts(seed=1),
        "negative": texts(seed=2),
        "seed": 5,
        "solver": "flow_dpmpp_2m",
        "cfg_interval_start": 0.0,
        "cfg_interval_end": 1.0,
        "width": SHAPE[3],
        "height": SHAPE[2],
        "batch_size": SHAPE[0],
        **SETTINGS,
        **options,
    }
    return run("PixelDiTSampler", **inputs)[0]


def core_run(solver="flow_dpmpp_2m", start=None, **options):
    model = tiny_t2i.core_model()
    conditions = [core().text_condition(model, texts(seed=seed)[0][0]) for seed in (1, 2)]
    options = {"noise": noise() if start is None else start, "cfg_interval": (0.0, 1.0), **SETTINGS, **options}
    return model, core().sample(model, *conditions, solver=solver, **options)


def apply(model, **options):
    """One network call of a MODEL, loaded as asked: -> x and what the host's apply_model gives."""
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    model.patch_model(torch.device("cpu"), **options)
    try:
        return x, model.model.apply_model(x, torch.full((2,), 0.6), c_crossattn=texts(rows=2)[0][0])
    finally:
        model.unpatch_model(torch.device("cpu"))
