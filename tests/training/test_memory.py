"""Estimates of memory and work against what a run really holds."""

import dataclasses
import math

import pytest
import torch
from factories import TINY, TINY_T2I
from pixeldit2_cases import TINY as TINY_PIXELDIT2
from torch.profiler import ProfilerActivity, profile

import pixeldit_core as pc
from pixeldit_core.layers import chunking
from pixeldit_core.training import saved_tensors
from pixeldit_core.training.frozen import set_trainable
from pixeldit_core.training.memory import estimate
from pixeldit_core.training.optim import build_optimizers
from pixeldit_core.training.recipe import from_values

TINY_HDM = pc.PixelHDMParams(
    hidden_dim=32, patch_layers=2, pixel_layers=1, num_heads=2, num_kv_heads=1, patch_size=4, pixel_dim=4,
    mrope_text_dim=4, mrope_img_h_dim=6, mrope_img_w_dim=6, text_max_length=5,
)  # fmt: skip
SIZE = (32, 32)
FAMILIES = {
    "pixeldit": TINY, "pixeldit_t2i": TINY_T2I, "xpred_dit": None, "pixelhdm": TINY_HDM, "pixeldit2": TINY_PIXELDIT2,
}  # fmt: skip


def spec_of(family):
    params = FAMILIES[family] or pc.XPredParams(
        dim=16, depth=2, in_channels=3, heads=2, dim_head=8, image_size=32, qk_norm="rmsnorm"
    )
    return pc.build_model(family, params).spec


def config_of(**sections):
    return from_values({"model": {"family": "pixeldit"}, **sections}, "test")


def condition_of(spec, batch):
    if spec.family.condition == "class":
        return (torch.zeros(batch, dtype=torch.int64),)
    length, width = spec.params.txt_max_length, spec.params.txt_embed_dim
    shapes = {"embeds": (batch, length, width), "mask": (batch, length), "pooled": (batch, width)}
    return tuple(torch.ones(shapes[part]) for part in spec.family.text_parts)


def held_by(spec, batch, bf16):
    """Bytes that are allocated in a forward pass on the CPU and not freed by its end, as the profiler sees them."""
    model = pc.build_model(spec.family, spec.params, device="cpu")
    set_trainable(model)
    for parameter in model.network.parameters():
        parameter.data.normal_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        x, t = torch.randn(batch, spec.params.in_channels, *SIZE), torch.rand(batch)
        condition = condition_of(spec, batch)
        with torch.autocast("cpu", enabled=bf16):
            loss = (model.family.velocity(model.network, model.params, x, t, condition).float() - x).square()
            loss = loss.flatten(1).mean(1)
        del x, t, condition
    del loss
    return sum(event.self_cpu_memory_usage for event in profiled.key_averages())


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The operations of a GPU, on the CPU: no chunks for its cache."""
    monkeypatch.setattr(chunking, "runs_eagerly_on_cpu", lambda x: False)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_activations_are_those_of_a_real_forward_pass(family, precision, as_on_a_gpu, monkeypatch):
    # the CPU's autocast leaves norms in bfloat16 and copies nothing where dtypes meet, a GPU's does
    monkeypatch.setattr(saved_tensors, "_FLOAT32", saved_tensors._FLOAT32 - {torch.nn.functional.rms_norm})
    monkeypatch.setattr(saved_tensors, "_WIDEST", set())
    spec = spec_of(family)
    held = held_by(spec, 4, precision == "bf16")
    computed = estimate(spec, config_of(engine={"precision": precision}), SIZE)
    assert computed.tables + computed.casts + 4 * computed.activations == pytest.approx(held, rel=2e-3)


def test_activations_grow_with_the_batch_and_tables_do_not(as_on_a_gpu):
    spec = spec_of("pixeldit_t2i")
    computed = estimate(spec, config_of(), SIZE)
    two, five = held_by(spec, 2, False), held_by(spec, 5, False)
    assert computed.activations == pytest.approx((five - two) / 3, rel=1e-3)
    assert computed.tables == pytest.approx(two - 2 * (five - two) / 3, abs=2000) and computed.tables > 0


def test_a_gpu_s_autocast_norms_in_float32():
    x = torch.ones(2, 4, dtype=torch.bfloat16)
    with saved_tensors.Autocast() as autocast:
        layer = torch.nn.Linear(4, 4)
        assert layer(x.float()).dtype == torch.bfloat16
        assert torch.nn.functional.rms_norm(x, (4,)).dtype == torch.float32
        assert torch.addcmul(x, x, x).dtype == torch.bfloat16
        assert torch.addcmul(x.float(), x, x).dtype == torch.float32
        layer(x)
    assert len(autocast.copies) == 2  # the weight and the bias, once


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_state_is_what_optimizers_keep(optimizer):
    spec = spec_of("pixeldit")
    config = config_of(optim={"optimizer": optimizer})
    network = pc.build_model(spec.family, spec.params, device="cpu").network.requires_grad_(True)
    optimizers = build_optimizers(network, config.optim)
    for parameter in network.parameters():
        parameter.data.zero_()
        parameter.grad = torch.ones_like(parameter)
    kept = 0
    for each in optimizers:
        each.step()
        states = (value for state in each.state.values() for value in state.values())
        kept += sum(value.nbytes for value in states if torch.is_tensor(value) and value.ndim)
    assert estimate(spec, config, SIZE).optimizer == kept


def test_state_counts_every_copy_of_the_weights():
    spec = spec_of("pixeldit")
    found = estimate(spec, config_of(average={"decays": [0.9, 0.99], "power": [0.1]}), SIZE)
    weights = 4 * found.parameters
    assert (found.weights, found.gradients, found.optimizer) == (weights, weights, 2 * weights)
    assert (found.averages, found.buckets, found.casts) == (3 * weights, 0, 0)
    assert estimate(spec, config_of(), SIZE, processes=2).buckets == weights


def test_a_frozen_encoder_has_weights_and_nothing_else():
    spec = spec_of("pixeldit2")
    found = estimate(spec, config_of(average={"decays": [0.9, 0.99]}), SIZE)
    network = pc.build_model(spec.family, spec.params).network
    encoder = sum(p.numel() for p in network.dino_conditioner.encoder.parameters())
    rest = found.parameters - encoder
    assert (found.frozen, found.trained, found.weights) == (encoder, rest, 4 * found.parameters)
    assert (found.gradients, found.optimizer, found.averages) == (4 * rest, 8 * rest, 8 * rest)


def test_the_work_of_a_frozen_encoder_is_its_forward_pass():
    spec = spec_of("pixeldit2")
    deeper = dataclasses.replace(spec, params=dataclasses.replace(spec.params, encoder_depth=4))
    once = estimate(deeper, config_of(), SIZE).flops - estimate(spec, config_of(), SIZE).flops
    again = {"engine": {"activation_checkpointing": True}}
    assert once == estimate(deeper, config_of(**again), SIZE).flops - estimate(spec, config_of(**again), SIZE).flops
    tokens, width = (SIZE[0] // spec.params.patch_size) * (SIZE[1] // spec.params.patch_size) + 5, 16
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    assert once == 2 * block


def test_lora_trains_thin_matrices():
    spec = spec_of("pixeldit")
    full, lora = (estimate(spec, config_of(lora=lora), SIZE) for lora in (None, {"rank": 2}))
    width, hidden = TINY.hidden_size, TINY.mlp_hidden_size
    one = estimate(spec, config_of(lora={"rank": 2, "targets": ["mlp.w1"]}), SIZE)
    assert one.trained == 2 * (width + hidden) * TINY.patch_depth
    assert one.trained < lora.trained < full.trained == full.parameters


def test_checkpointing_keeps_one_block_and_costs_a_forward():
    spec = spec_of("pixeldit")
    plain, less = (
        estimate(spec, config_of(engine={"activation_checkpointing": value}), SIZE) for value in (False, True)
    )
    assert less.activations < plain.activations
    assert 3 * less.flops == 4 * plain.flops


def test_work_is_that_of_the_matrices():
    """Two operations for each weight and token of the patch blocks of PixelDiT-XL, which are nearly all of it."""
    spec = pc.build_model("pixeldit", "PixelDiT-XL").spec
    found = estimate(spec, config_of(engine={"precision": "bf16"}), (256, 256))
    width, hidden, tokens = 1152, spec.params.mlp_width, 256
    block = 2 * tokens * (4 * width**2 + 3 * width * hidden) + 4 * tokens**2 * width + 12 * width**2
    pixels = 2 * tokens * (6 * 256 * 16 * width + 2 * 256 * 16 * width + 4 * width**2 + 8 * 256 * 16**2)
    pixels += 4 * tokens**2 * width
    assert found.flops / 3 == pytest.approx(26 * block + 4 * pixels, rel=5e-3)


def test_largest_micro_batch_leaves_a_tenth():
    found = estimate(spec_of("pixeldit"), config_of(), SIZE)
    memory = math.ceil(found.total(7) / 0.9) + 10
    assert found.largest_micro_batch(memory) == 7
    assert found.largest_micro_batch(found.fixed) == 0
