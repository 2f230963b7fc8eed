"""The PixelHDM network against the reference program's data, and what it refuses."""

import dataclasses

import pytest
import torch

from pixeldit_core.networks.layers import scaled_dot_product
from pixeldit_core.networks.pixelhdm import PixelHDM, PixelHDMParams

FORWARD = (
    "02_forward_square_masked",
    "03_forward_nonsquare_nomask",
    "04_forward_notext_bchw",
    "05_forward_odd_masks",
    "06_forward_gate_elementwise",
    "07_forward_patch16_raw",
)
PRESETS = ("default", "default-bottleneck256", "small", "large", "for_testing")
TINY = PixelHDMParams(
    hidden_dim=16,
    pixel_dim=4,
    patch_size=4,
    patch_layers=2,
    pixel_layers=1,
    num_heads=2,
    num_kv_heads=1,
    mlp_hidden_dim=24,
    pixel_mlp_hidden_dim=8,
    bottleneck_dim=6,
    time_embed_dim=8,
    mrope_text_dim=4,
    mrope_img_h_dim=2,
    mrope_img_w_dim=2,
    mrope_text_max_len=9,
    mrope_img_max_height=4,
    mrope_img_max_width=6,
)


def find(golden, name):
    return golden(name, "pixelhdm")


def params_of(config):
    known = {field.name for field in dataclasses.fields(PixelHDMParams)}
    return PixelHDMParams(**{key: value for key, value in config.items() if key in known})


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


def load(case, ema=True, **kit):
    weights = weights_of(torch.load(case.checkpoint or case.folder / "checkpoint.pt", weights_only=True), ema)
    network = PixelHDM(params_of(case.case["config"]), **kit)
    network.load_state_dict({key: value.to(kit.get("dtype")) for key, value in weights.items()})
    return network.eval().requires_grad_(False)


def arguments(inputs, prefix=""):
    names = ("x_t", "t", "text_embed", "text_mask", "pooled_text_embed")
    return [inputs.get(prefix + name) for name in names]


def off(actual, expected):
    """Relative L2 distance."""
    assert actual.numel() == expected.numel()
    return ((actual.reshape(expected.shape) - expected).norm() / expected.norm()).item()


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}

    def keep(module, name, take=lambda arguments, result: result):
        module.register_forward_hook(lambda _, arguments, result: seen.update({name: take(arguments, result)}))

    def keep_normed(attention, block):
        repeat = attention.group
        keep(attention.q_norm, f"{block}_q_normed", lambda _, result: result.transpose(1, 2))
        keep(
            attention.k_norm,
            f"{block}_k_normed_repeated",
            lambda _, result: result.transpose(1, 2).repeat_interleave(repeat, dim=1),
        )

    patch, pixel = network.patch_blocks[0], network.pixel_blocks[0]
    keep(network.patch_embed, "patch_embed")
    keep(network.time_embed, "time_embed")
    keep(network.pixel_embed, "pixel_embed")
    keep(patch.adaln, "patch0_adaln6", lambda _, result: torch.stack(result))
    keep(patch.pre_attn_norm, "patch0_pre_attn_norm")
    keep(patch.attention, "patch0_attn")
    keep(patch.mlp, "patch0_mlp")
    keep(pixel, "s_cond", lambda arguments, _: arguments[1])
    keep(pixel.adaln, "pixel0_adaln6", lambda _, result: torch.stack(result.chunk(6, dim=-1)))
    keep(pixel.compaction, "pixel0_compaction")
    keep(pixel.mlp, "pixel0_mlp")
    keep(network.output_norm, "output_norm")
    keep_normed(patch.attention, "patch0")
    keep_normed(pixel.compaction.attention, "pixel0")
    for kind, blocks in (("patch", network.patch_blocks), ("pixel", network.pixel_blocks)):
        for i, block in enumerate(blocks):
            keep(block, f"{kind}_block_{i}")
    return seen


def record_rotated(seen, patch_layers):
    """An attention function that keeps the queries and keys of the first block of each kind."""
    names = {0: "patch0", patch_layers: "pixel0"}
    calls = []

    def attention(q, k, v, **options):
        if len(calls) in names:
            seen[f"{names[len(calls)]}_q_rot"], seen[f"{names[len(calls)]}_k_rot"] = q, k
        calls.append(options)
        return scaled_dot_product(q, k, v, **options)

    return attention


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_every_intermediate(golden, name):
    case = find(golden, name)
    rotated, gammas = {}, []
    network = load(case, attention=record_rotated(rotated, case.case["config"]["patch_layers"]))
    found = record(network)
    for block in network.pixel_blocks:
        block.adaln.register_forward_hook(lambda *call: gammas.extend(call[2].chunk(6, dim=-1)[::3]))
    v = network(*arguments(case.inputs))

    tolerance = case.case["recommended_tolerance"]["rel_l2"]
    assert v.shape == case.outputs["v"].shape
    assert off(v, case.outputs["v"]) < tolerance
    intermediates = {key[4:]: value for key, value in case.outputs.items() if key.startswith("mid.")}
    assert set(found) | set(rotated) == {key for key in intermediates if not key.endswith("position_ids")}
    for key, value in (found | rotated).items():
        assert off(value, intermediates[key]) < tolerance, key
    length = found["patch_block_0"].shape[1] - found["patch_embed"].shape[1]
    features = found[f"patch_block_{case.case['config']['repa_align_layer'] - 1}"][:, length:]
    assert off(features, case.outputs["repa_features"]) < tolerance
    assert off(sum(gamma.square().mean() for gamma in gammas), case.outputs["gamma_l2"]) < tolerance
