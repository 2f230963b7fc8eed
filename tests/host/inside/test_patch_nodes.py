"""Every node of ComfyUI that takes and gives a MODEL, as docs/ecosystem.md describes it."""

import asyncio
import re

import kit
import pytest
import torch
from hooks import bundled, differ, has, load_nodes, sample, warnings
from kit import run
from pixeldit2 import pixeldit2

WINDOW = {"start_percent": 0.0, "end_percent": 1.0}
FILES = (
    "apg cfg tcfg mahiro eps fresca perpneg video_model latent easycache differential_diffusion context_windows "
    "slg sd3 nag pag rope lumina2 lt tomesd hypertile freelunch sag model_downscale attention_multiply nop flux"
).split()
ACTS = {
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.3},
    "CFGNorm": {"strength": 1.0},
    "CFGOverride": {"cfg": 7.0, **WINDOW},
    "CFGZeroStar": {},
    "Epsilon Scaling": {"scaling_factor": 1.1},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.5, "freq_cutoff": 4},
    "LTXVSpatioTemporalGuidance": {"scale": 2.0, "blocks": "0", **WINDOW},
    "LazyCache": {"reuse_threshold": 9.0, **WINDOW, "verbose": False},
    "EasyCache": {"reuse_threshold": 9.0, **WINDOW, "verbose": False},
    "Mahiro": {},
    "ModelMergeAdd": {"model2": None},
    "ModelNoiseScale": {"noise_scale": 0.5},
    "ModelSamplingAuraFlow": {"shift": 3.0},
    "ModelSamplingFlux": {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024},
    "ModelSamplingLTXV": {"max_shift": 2.05, "base_shift": 0.95},
    "ModelSamplingSD3": {"shift": 3.0},
    "NAGuidance": {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 1.0},
    "RescaleCFG": {"multiplier": 0.7},
    "ScaleROPE": {"scale_x": 2.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 0.0, "scale_t": 1.0, "shift_t": 0.0},
    "SkipLayerGuidanceDiT": {"double_layers": "0", "single_layers": "", **WINDOW, "scale": 3.0, "rescaling_scale": 0.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "0", "single_layers": "", **WINDOW},
    "SkipLayerGuidanceSD3": {"layers": "0", **WINDOW, "scale": 3.0},
    "TCFG": {},
    "TemporalScoreRescaling": {"tsr_k": 0.8, "tsr_sigma": 1.0},
    "VideoLinearCFGGuidance": {"min_cfg": 1.0},
}
NAMED = {  # no effect, said in the log
    "ChromaRadianceOptions": {"nerf_tile_size": 0},
    "FluxKVCache": {},
    "FreeU": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "HyperTile": {"tile_size": 256, "swap_size": 2, "max_depth": 0, "scale_depth": False},
    "LTXVModalityGuidance": {"modality_scale": 3.0, **WINDOW},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "TomePatchModel": {"ratio": 0.3},
}
SILENT = {  # no effect; nothing of them reaches the sampling
    "DifferentialDiffusion": {"strength": 1.0},  # without a mask
    "UNetCrossAttentionMultiply": {"q": 2.0, "k": 1.0, "v": 1.0, "out": 1.0},
    "UNetSelfAttentionMultiply": {"q": 2.0, "k": 1.0, "v": 1.0, "out": 1.0},
    "wanBlockSwap": {},
}


def test_nodes_act_or_are_named():
    load_nodes(*FILES)
    for model in (bundled(), pixeldit2(noise_scale=2.0)):
        check(model)


def check(model):
    plain = sample(model, steps=4)
    for node, options in {**ACTS, **NAMED, **SILENT}.items():
        if not has(node):
            continue
        models = {"model1": model, "model2": model} if "model2" in options else {"model": model}
        patched = run(node, **{**options, **models})[0]
        with warnings() as lines:
            image = sample(patched, steps=4)
        assert torch.isfinite(image).all(), node
        if node in ACTS:
            assert differ(image, plain) > 1e-4 and not lines, f"{node}: {differ(image, plain)}, {lines}"
        else:
            assert differ(image, plain) < 1e-4, f"{node}: {differ(image, plain)}"
            parts = (node in NAMED) + (node == "FluxKVCache")  # that one is a function and an object
            assert len(lines) == parts, f"{node}: {lines}"


def test_the_documentation_has_every_patch_node():
    import comfyui_version

    import nodes

    if comfyui_version.__version__ != "0.33.0":
        pytest.skip("the table is that of ComfyUI 0.33.0")
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    asyncio.run(nodes.init_builtin_extra_nodes())
    page = (kit.PACK / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    documented = {*re.findall(r"`([^`\n]+)`", page.split("## Patch nodes of ComfyUI")[1])}
    missing = [name for name in nodes.NODE_CLASS_MAPPINGS if patches_a_model(name) and name not in documented]
    nodes.NODE_CLASS_MAPPINGS.update(before)
    assert not missing, f"docs/ecosystem.md has no row for {missing}"


def patches_a_model(name):
    """Whether a node takes a MODEL and gives one; merges for one architecture have a row together."""
    from kit import node

    kind = node(name)
    if hasattr(kind, "define_schema"):
        info = kind.GET_NODE_INFO_V1()
        inputs, outputs = info["input"], info["output"]
    else:
        inputs, outputs = kind.INPUT_TYPES(), kind.RETURN_TYPES
    taken = [spec[0] for group in ("required", "optional") for spec in inputs.get(group, {}).values()]
    ours = name.startswith("PixelDiT")
    merge = kind.__module__.endswith("model_merging_model_specific")
    return "MODEL" in [entry for entry in taken if isinstance(entry, str)] and "MODEL" in outputs and not ours | merge


def test_a_wrapper_may_write_into_the_state_it_is_given():
    """As EasyCache does; without a copy, a sampler in float32 would go on from there."""
    import comfy.patcher_extension

    def write(executor, x, *arguments, **more):
        result = executor(x, *arguments, **more)
        x.add_(5.0)
        return result

    model = bundled()
    patched = model.clone()
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "write", write)
    assert torch.equal(sample(patched), sample(model))


def test_easy_cache_stays_close_to_the_image():
    load_nodes("easycache")
    if not has("EasyCache"):
        pytest.skip("this ComfyUI has no EasyCache")
    model = bundled()
    cached = run("EasyCache", model=model, reuse_threshold=0.2, **WINDOW, verbose=False)[0]
    options = {"steps": 20, "cfg": 1.0}  # guided, older versions add what they kept of both rows to each
    assert 0 < (sample(cached, **options) - sample(model, **options)).square().mean().sqrt() < 0.2  # of [-1, 1]
