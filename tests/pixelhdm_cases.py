"""Golden cases of PixelHDM: params and weights of a file of any layout, conditions, trajectories."""

import dataclasses

import torch
from helpers import find_golden, relative_l2
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc
from pixeldit_core import PixelHDM, PixelHDMParams

# What a start moved by 1e-6 changes, relative L2: the larger of all states together and the last alone. From
# `check_sensitivity`, the largest of AVX-512, AVX2 and plain kernels. `sensitivity.py` says what follows from it.
MEASURED = {
    "10_sampler_euler_cfg": 1.6e-5,
    "11_sampler_heun_cfg": 8.9e-5,
    "13_sampler_full_heun_cfg": 2.7e-6,
    "14_sampler_euler_nocfg": 2.9e-6,
    "15_sampler_heun_tstart": 4.1e-6,
    "30_pipeline_t2i": 3.7e-6,
    "31_pipeline_img2img": 7.3e-6,
    "32_pipeline_img2img_strong": 5.5e-6,
}
OUTPUT = 2e-5  # a network output, or a step, on a recorded state: relative L2, 3e-6 is the most that any was off
SOLVERS = {"euler": "euler", "heun": "heun_exact"}  # its Heun evaluates again at the start of every step


def find(name):
    """A golden case."""
    case = find_golden(name, "pixelhdm")
    case.checkpoint = case.folder / "checkpoint.pt"
    return case


def tolerance(case):
    """Of a whole trajectory; of one call of the network where there is none."""
    recommended = case.case["recommended_tolerance"]
    suggested = recommended.get("rel_l2", recommended.get("forward_rel_l2"))
    return allowed(MEASURED[case.folder.name], suggested) if case.folder.name in MEASURED else suggested


def params_of(config):
    names = {field.name for field in dataclasses.fields(PixelHDMParams)}
    return PixelHDMParams(**{key: value for key, value in config.items() if key in names})


def is_alias(key):
    """Attention's projections under their second name, which files hold too."""
    path, _, name = key.rpartition("attention.")
    return bool(path) and name.split(".")[0] in ("q_proj", "k_proj", "v_proj", "out_proj", "gate_proj")


def canonical(tensors):
    return {key: value for key, value in tensors.items() if not is_alias(key) and not key.startswith("_dino_")}


def weights_of(stored, ema=True):
    """The weights of a file of any layout."""
    if ema and "ema" in stored:
        return canonical(stored["ema"].get("shadow", stored["ema"]))
    return canonical(stored.get("model", stored))


def load(case, ema=True, **factory_kwargs):
    weights = weights_of(torch.load(case.checkpoint, weights_only=True), ema)
    network = PixelHDM(params_of(case.case["config"]), **factory_kwargs)
    network.load_state_dict({key: value.to(factory_kwargs.get("dtype")) for key, value in weights.items()})
    return network.eval().requires_grad_(False)


def first(x):
    """[..., H, W, C] -> [..., C, H, W]."""
    return x.movedim(-1, -3)


def condition(model, inputs, prefix=""):
    names = ("text_embed", "text_mask", "pooled_text_embed")
    return pc.text_condition(model, *(inputs.get(prefix + name) for name in names))


def trajectory(model, cond, null, **settings):
    """The states of a published run, the first one included, and how many rows each call had."""
    states, rows = [], []
    hook = model.network.register_forward_hook(lambda _, arguments, output: rows.append(len(output)))
    settings.setdefault("convention", "reference")
    final = pc.sample(model, cond, null, on_step=lambda i, t, x, v: states.append(x.clone()), **settings)
    hook.remove()
    return final, torch.stack(states), rows


def check_sensitivity(name, run):
    """What `run(case, change)` makes of a changed start agrees with the measured number."""
    case = find(name)
    final, states, _ = run(case)
    distances = []
    for seed in range(3):
        other, others, _ = run(case, lambda noise, seed=seed: moved(noise, seed))
        distances.append(max(relative_l2(other, final), relative_l2(others, states)))
    check_measured(max(distances), MEASURED[name])
