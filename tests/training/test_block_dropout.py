"""Dropout inside of patch blocks: where, when, and how much."""

import dataclasses

import pytest
import torch
from factories import tiny_model
from helpers import randn
from pixeldit2_cases import TINY, tiny

import pixeldit_core as pc
from pixeldit_core.training.block_dropout import add_block_dropout
from pixeldit_core.training.blocks import apply_engine_config
from pixeldit_core.training.config import EngineConfig, LoraConfig, ModelConfig
from pixeldit_core.training.lora import add_lora

DEEP = dataclasses.replace(TINY, depth=8)


def called(model):
    """Shares of zeros that each block's attention returns and its last matrix takes, in one call."""
    found = {}
    for number, block in enumerate(model.network.patch_blocks):
        block.attn.register_forward_hook(lambda _, __, result, n=number: found.update({(n, "attn"): zeros(result)}))
        block.mlp.w2.register_forward_pre_hook(
            lambda _, arguments, n=number: found.update({(n, "mlp"): zeros(arguments[0])})
        )
    torch.manual_seed(0)
    model.network(randn(8, 3, 32, 32), torch.full((8,), 0.5), torch.arange(8) % 5)
    return found


def zeros(values):
    return (values == 0).float().mean().item()


def test_the_middle_half_drops_as_many_values_as_asked_while_it_trains():
    model = tiny(DEEP)
    add_block_dropout(model, 0.2)
    model.network.train()
    for (number, _), share in called(model).items():
        assert share == (pytest.approx(0.2, abs=0.02) if 2 <= number < 6 else 0.0), number
    model.network.eval()
    assert not any(called(model).values())


def test_kept_values_grow_so_that_the_mean_stays():
    model = tiny(DEEP)
    before = []
    model.network.patch_blocks[3].attn.proj.register_forward_hook(lambda _, __, result: before.append(result))
    add_block_dropout(model, 0.25)
    after = []
    model.network.patch_blocks[3].attn.register_forward_hook(lambda _, __, result: after.append(result))
    model.network.train()(randn(1, 3, 8, 8), torch.zeros(1), torch.tensor([5]))
    kept = after[0] != 0
    torch.testing.assert_close(after[0][kept], before[0][kept] / 0.75)


def test_recomputed_blocks_drop_the_same_values():
    gradients = []
    for checkpointing in (False, True):
        model = tiny(DEEP)
        model.network.requires_grad_(True).train()
        add_block_dropout(model, 0.5)
        apply_engine_config(model.network, EngineConfig(activation_checkpointing=checkpointing))
        torch.manual_seed(3)
        model.network(randn(1, 3, 8, 8), torch.zeros(1), torch.tensor([5])).square().sum().backward()
        gradients.append(model.network.patch_blocks[3].mlp.w1.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_lora_s_update_is_dropped_with_what_it_is_added_to():
    model = tiny(DEEP)
    add_lora(model, LoraConfig(rank=2))
    add_block_dropout(model, 0.2)
    model.network.train()
    assert called(model)[3, "attn"] == pytest.approx(0.2, abs=0.02)


def test_other_blocks_and_other_numbers_are_refused():
    model = pc.build_model(
        "xpred_dit", pc.XPredParams(dim=16, depth=4, in_channels=3, heads=2, dim_head=8, image_size=8)
    )
    with pytest.raises(ValueError, match="model.block_dropout is 0.1, and the patch blocks of .* other layers"):
        add_block_dropout(model, 0.1)
    add_block_dropout(tiny_model(), 0.1)  # of two blocks there is no middle half
    with pytest.raises(ValueError, match="block_dropout is a probability"):
        ModelConfig(block_dropout=1.0)
