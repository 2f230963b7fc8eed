"""The golden class-conditional network, through every way to sample."""

import torch
from kit import core, empty, labels, run, sampler_net

SETTINGS = {"steps": 10, "cfg": 2.5}


SHAPE = (2, 3, 16, 16)


CLASSES = [3, 7]


def noise(seed=5, shape=SHAPE):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(shape), seed)


def core_run(solver, interval=(0.1, 0.9), timeshift=1.0, **options):
    """The core's final state and its states by step."""
    pc, states = core(), []
    model = pc.load_checkpoint(sampler_net())
    options = {"noise": noise(), **SETTINGS, **options}
    x = pc.sample(
        model,
        torch.tensor(CLASSES),
        solver=solver,
        timeshift=timeshift,
        cfg_interval=interval,
        on_step=lambda i, t, x, v: states.append(x.clone()),
        **options,
    )
    return model, x, states


def ksampler(model, **options):
    inputs = {
        "model": model,
        "seed": 5,
        **SETTINGS,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": labels(CLASSES),
        "negative": labels([10]),
        "latent_image": empty(SHAPE),
        "denoise": 1.0,
        **options,
    }
    return run("KSampler", **inputs)[0]["samples"]


def pixeldit(model, **options):
    inputs = {
        "model": model,
        "positive": labels(CLASSES),
        "negative": labels([10]),
        "seed": 5,
        "width": 16,
        "height": 16,
        **SETTINGS,
        **options,
    }
    return run("PixelDiTSampler", **inputs)[0]


def custom(model, solver="ab2", sigmas=None, latent=None, cfg=2.5):
    return run(
        "SamplerCustomAdvanced",
        noise=run("RandomNoise", noise_seed=5)[0],
        guider=run("CFGGuider", model=model, positive=labels(CLASSES), negative=labels([10]), cfg=cfg)[0],
        sampler=run("PixelDiTSolver", solver=solver)[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=10)[0] if sigmas is None else sigmas,
        latent_image=latent or empty(SHAPE),
    )[0]["samples"]


def guided(model, start=0.1, end=0.9):
    return run("PixelDiTCFGInterval", model=model, start=start, end=end)[0]


def by_hand(model, start, end):
    """The same ten Euler steps, written out."""
    x = noise()
    for step in range(10):
        sigma = 1 - step / 10
        v = model.model.diffusion_model.velocity(x, sigma, 0.0)
        if start < 1 - sigma < end:
            null = model.model.diffusion_model.velocity(x, sigma, 1.0)
            v = null + 2.5 * (v - null)
        x = x - 0.1 * v
    return x


def picture(height=16, width=16, channels=3):
    return (torch.arange(height * width * channels) % 256).reshape(1, height, width, channels).float() / 255
