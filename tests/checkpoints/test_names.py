"""Names that wrappers of modules change, tensors that are no weights, and names that mean another network."""

import re

import pytest
import torch
from checkpoints.files import fails, prefixed, same
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors
from pixeldit_core.checkpoints.layouts import is_counter
from pixeldit_core.checkpoints.wrappers import WRAPPERS, plain_names, unwrap


def write_both(folder, state):
    """The state dict in a safetensors file and in a pickled one."""
    state = {key: value.contiguous().clone() for key, value in state.items()}
    save_file(state, folder / "file.safetensors")
    torch.save({"model": state}, folder / "file.pt")
    return folder / "file.safetensors", folder / "file.pt"


def wrap(state, pieces, what=r"(patch_blocks\.\d+\.)"):
    return {re.sub(what, rf"\1{pieces}.", key): value for key, value in state.items()}


@pytest.mark.parametrize(
    "pieces", [*WRAPPERS, "_orig_mod._checkpoint_wrapped_module", "_fsdp_wrapped_module._orig_mod"]
)
@pytest.mark.parametrize(
    "what", [r"(patch_blocks\.\d+\.)", r"(pixel_blocks\.0\.)", r"(attn\.)", r"(mlp\.w1\.)", r"^()"]
)
def test_pieces_of_wrappers(tiny, tmp_path, pieces, what):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, prefixed("net.", wrap(state, pieces, what))):
        assert same(pc.load_checkpoint(path), state)
        info = pc.inspect_checkpoint(path)
        assert info.refused is None and info.params == tiny().params


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("prefix", ["", "core.", "model.diffusion_model."])
def test_pieces_of_wrappers_in_text_to_image(tiny_t2i, tmp_path, prefix, split):
    state = tiny_t2i().network.state_dict()
    stored = split_tensors(state) if split else state
    for path in write_both(tmp_path, wrap(prefixed(prefix, stored), "_orig_mod", r"(p\w+_blocks\.\d+\.)")):
        assert same(pc.load_checkpoint(path), state)


def test_two_tensors_that_get_one_name(tiny, tmp_path):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, state | wrap(state, "_orig_mod")):
        fails(path, "two tensors for ", "patch_blocks.0._orig_mod.", "Save one alone.")


def test_unwrap():
    assert unwrap("a._orig_mod.b._fsdp_wrapped_module.weight") == "a.b.weight"
    assert unwrap("a.my_orig_mod.weight") == "a.my_orig_mod.weight"
    assert plain_names(["_orig_mod.x", "y"], "file") == {"x": "_orig_mod.x", "y": "y"}


COUNTERS = {
    "step": torch.tensor(900),
    "global_step": torch.tensor([900.0]),
    "__x0__": torch.zeros(1),
    "__v_pred__": torch.zeros(0),
    "patch_blocks.1.mlp.w1._extra_state": torch.zeros(8, dtype=torch.uint8),
    "pixel_blocks.0.attn.comfy_attention.config": torch.zeros(40, dtype=torch.uint8),
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "ema_denoiser."])
@pytest.mark.parametrize("key", COUNTERS)
def test_tensors_that_are_no_weights(tiny, tmp_path, prefix, key):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, prefixed(prefix, state) | {prefix + key: COUNTERS[key]}):
        assert same(pc.load_checkpoint(path), state)
        assert pc.inspect_checkpoint(path).refused is None


@pytest.mark.parametrize("key, value", [
    ("step", torch.zeros(2)),  # more than a counter
    ("gain", torch.zeros(1)),  # a weight of another network
    ("patch_blocks.0.step", torch.tensor(1.0)),  # of a block
    ("patch_blocks.0.attn.scale", torch.tensor(1.0)),
    ("_extra", torch.zeros(1)),
])  # fmt: skip
def test_tensors_that_may_be_weights_are_not_stepped_over(tiny, tmp_path, key, value):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, prefixed("net.", state) | {f"net.{key}": value}):
        fails(path, "1 tensors do not belong", key, "another variant")


def test_counters_are_beside_a_network():
    assert is_counter("ema.n_averaged", (), ["ema.module.core."])
    assert is_counter("n_averaged", (), ["module."]) and is_counter("step", (1,), [""])
    assert not is_counter("vae.step", (), ["core."]) and not is_counter("core.step", (1, 2), ["core."])


def experts(state):
    routed = {}
    for key, value in state.items():
        parts = (
            ("routed_experts.0", "routed_experts.1", "shared_expert") if key.startswith("patch_blocks.1.mlp.") else ()
        )
        for part in parts:
            routed[key.replace("mlp.", f"mlp.{part}.")] = value
        if not parts:
            routed[key] = value
    return routed | {"patch_blocks.1.mlp.prototypes": torch.zeros(2, 24)}


def unmerged(state, part):
    layer = next(key for key in state if part in key and key.endswith(".weight")).removesuffix(".weight")
    wrapped = {key.replace(f"{layer}.", f"{layer}.base_layer."): value for key, value in state.items()}
    rows, columns = state[f"{layer}.weight"].shape
    pair = {"A": torch.zeros(2, columns), "B": torch.zeros(rows, 2)}
    return wrapped | {f"{layer}.lora_{side}.default.weight": value for side, value in pair.items()}


def beside(state, *names):
    return state | {f"patch_blocks.0.attn.qkv.{name}": torch.zeros(2, 24) for name in names}


def renamed(state, layer, piece):
    return {key.replace(layer, f"{layer}{piece}"): value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "ema_denoiser.", "base_model.model."])
@pytest.mark.parametrize("make, words", [
    (experts, ("is a mixture of experts", "PixelDiT-ProMoE")),
    (lambda state: {key.replace("mlp.", "mlp.experts.0."): of for key, of in state.items()}, ("mixture of experts",)),
    (lambda state: unmerged(state, "attn.qkv"), ("not merged", "merge_and_unload()", "PixelDiT LoRA")),
    (lambda state: unmerged(state, "pixel_blocks.0.mlp"), ("not merged",)),
    (lambda state: beside(state, "lora_A.default.weight", "lora_B.default.weight"), ("not merged", "PixelDiT LoRA")),
    (lambda state: beside(state, "lora_A", "lora_B"), ("not merged",)),
    (lambda state: beside(state, "lora_down.weight", "lora_up.weight"), ("not merged",)),
    (lambda state: beside(state, "lora_magnitude_vector.default.weight"), ("not merged",)),
    (lambda state: beside(state, "hada_w1_a"), ("not merged",)),
    (lambda state: renamed(state, "patch_blocks.0.mlp.", "expert_0."), ("mixture of experts",)),
    (lambda state: beside(state, "_weight_qdata", "_weight_scale"), ("quantized by torchao",)),
    (lambda state: beside(state, "W_q", "scale", "zero"), ("packed by HQQ",)),
    (lambda state: beside(state, "weight_scale_inv"), ("float8 with a scale for each block",)),
    (lambda state: beside(state, "parametrizations.weight.original0"), ("parametrizations",)),
])  # fmt: skip
def test_networks_with_more_in_them_are_refused_by_name(tiny, tmp_path, prefix, make, words):
    for path in write_both(tmp_path, prefixed(prefix, make(tiny().network.state_dict()))):
        assert "get it again" not in fails(path, *words)


def test_an_unmerged_lora_of_text_to_image(tiny_t2i, tmp_path):
    for path in write_both(tmp_path, unmerged(tiny_t2i().network.state_dict(), "qkv_x")):
        fails(path, "not merged")


@pytest.mark.parametrize("piece", ["module", "mod", "_fpw_module"])
def test_blocks_in_wrappers_without_a_name_of_their_own(tiny, tmp_path, piece):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, prefixed("net.", wrap(state, piece))):
        assert same(pc.load_checkpoint(path), state)


@pytest.mark.parametrize("key, belongs", [
    ("net.lpips.lin0.weight", True), ("net.discriminator.0.weight", True), ("net.core.discriminator.weight", False),
    ("lpips.lin0.weight", False), ("net.projector.weight", False), ("net.reference.weight", False),
])  # fmt: skip
def test_modules_that_judge_the_output(tiny, tmp_path, key, belongs):
    state = tiny().network.state_dict()
    for path in write_both(tmp_path, prefixed("net.core.", state) | {key: torch.zeros(2, 2)}):
        if belongs:
            assert same(pc.load_checkpoint(path), state)
        else:
            fails(path, "1 tensors do not belong")


def test_empty_and_flat_tensors_of_sharded_trainings(tiny, tmp_path):
    for path in write_both(tmp_path, {key: torch.zeros(0) for key in tiny().network.state_dict()}):
        fails(path, "its tensors are empty", "ZeRO 3", "gather")
    for path in write_both(tmp_path, {"patch_blocks.0._fsdp_wrapped_module._flat_param": torch.zeros(99)}):
        fails(path, "FSDP", "gather")
