"""Optimizers and learning rates."""

import copy
import math

import pytest
import torch
from helpers import find_golden

import pixeldit_core as pc
from pixeldit_core.training.config import OptimConfig
from pixeldit_core.training.initialize import initialize
from pixeldit_core.training.optim import build_optimizers, split_parameters
from pixeldit_core.training.schedule import learning_rate_at


@pytest.fixture
def network():
    params = pc.PixelDiTParams(24, 2, 1, 1, patch_size=8, pixel_hidden_size=4, num_classes=12)
    model = pc.build_model("pixeldit", params, device="cpu")
    initialize(model)
    return model.network.requires_grad_(True)


def test_the_bundled_models_rate_rises_and_falls():
    config = OptimConfig(learning_rate=1.0, warmup=10, schedule="linear", decay=0.4)
    rates = [learning_rate_at(step, config, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0


def test_a_cosine_falls_to_its_lowest_rate_and_a_constant_does_not():
    config = OptimConfig(learning_rate=1e-3, schedule="cosine", min_learning_rate=1e-4)
    rates = [learning_rate_at(step, config, 10) for step in range(11)]
    assert rates[0] == 1e-3 and rates[5] == pytest.approx(5.5e-4) and rates[10] == pytest.approx(1e-4)
    assert {learning_rate_at(step, OptimConfig(learning_rate=2.0), 10) for step in range(10)} == {2.0}
    assert learning_rate_at(0, OptimConfig(learning_rate=2.0, warmup=4), 10) == 0.5


def test_a_fall_starts_after_the_warm_up():
    config = OptimConfig(learning_rate=1.0, schedule="linear", warmup=4)
    assert [learning_rate_at(step, config, 8) for step in range(9)] == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25, 0]
    assert learning_rate_at(7, OptimConfig(learning_rate=1.0, schedule="cosine", warmup=8), 8) == 1
    assert learning_rate_at(7, OptimConfig(learning_rate=1.0, schedule="linear", decay=0.0), 8) == 1


def test_the_bundled_models_rate_bit_for_bit():
    config = OptimConfig(learning_rate=3e-3, schedule="linear", warmup=50, decay=0.4)
    for step in range(3401):
        rate = 3e-3 * max(0.0, min(1.0, (step + 1) / 50, (3400 - step) / (0.4 * 3400)))
        assert learning_rate_at(step, config, 3400) == rate


@pytest.mark.golden
def test_rates_are_those_of_the_reference_program():
    """Without its quirks: the first step is not warmed up, so that the warm-up comes one step late and the plateau at
    its end is a step shorter; and after the end, the cosine rises again."""
    warm, plain, *_, constant = find_golden("60_schedules", "pixelhdm").case["lr"]
    assert warm["spec"]["warmup_steps"] == 4 and plain["spec"]["warmup_steps"] == 0
    config = OptimConfig(learning_rate=1e-3, schedule="cosine", warmup=4, min_learning_rate=1e-5)
    found = [learning_rate_at(step, config, 10) for step in range(14)]
    expected = warm["lr_used_at_each_optimizer_step"]
    assert expected[1:5] == pytest.approx(found[:4], abs=1e-12) and found[4] == 1e-3
    assert expected[5:11] == pytest.approx(found[5:11], abs=1e-12) and found[10:] == [1e-5] * 4
    config = OptimConfig(learning_rate=1e-3, schedule="cosine")
    found = [learning_rate_at(step, config, 10) for step in range(11)]
    assert plain["lr_used_at_each_optimizer_step"][:11] == pytest.approx(found, abs=1e-12)
    assert constant["spec"]["lr_scheduler"] == "constant"
    found = [learning_rate_at(step, OptimConfig(learning_rate=2e-4), 4) for step in range(4)]
    assert constant["lr_used_at_each_optimizer_step"] == found


def test_only_matrices_of_blocks_are_muons(network):
    matrices, others = split_parameters(network.named_parameters())
    assert len(matrices) == 6 + 7 and all(p.ndim == 2 for _, p in matrices)
    assert len(matrices) + len(others) == len(list(network.parameters()))
    muon, adamw = build_optimizers(network, OptimConfig(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)


def test_weight_decay_is_for_matrices_unless_asked_for_everything(network):
    (adamw,) = build_optimizers(network, OptimConfig(weight_decay=0.01))
    names = {id(p): name for name, p in network.named_parameters()}
    kept = {names[id(p)] for p in adamw.param_groups[1]["params"]}
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.01, 0.0]
    assert "y_embedder.embedding_table.weight" in kept and "final_layer.linear.bias" in kept
    assert all("norm" in name or name.endswith("bias") for name in kept - {"y_embedder.embedding_table.weight"})
    (adamw,) = build_optimizers(network, OptimConfig(weight_decay=0.01, decay_norms=True))
    assert len(adamw.param_groups) == 1 and len(adamw.param_groups[0]["params"]) == len(names)


@pytest.mark.parametrize(
    "variant, kept, decayed",
    [
        ("PixelDiT-T2I", ["y_pos_embedding"], ["pixel_embedder.proj.weight", "y_embedder.proj.weight"]),
        ("PixelHDM-small", [], ["patch_embed.proj_down.weight", "time_embed.mlp.0.weight"]),
        ("mmpixeldit-tiny/4-mnist", ["class_registers", "pixel_pos_embedding"], ["to_pixel_patch.0.weight"]),
        ("pixeldit-tiny/4-mnist", ["class_embed.weight"], ["up_conv.weight", "time_mlp.1.weight"]),
    ],
)
def test_tables_do_not_decay_and_layers_named_after_embeddings_do(variant, kept, decayed):
    network = pc.build_model(pc.VARIANTS[variant].family, variant).network.requires_grad_(True)
    (adamw,) = build_optimizers(network, OptimConfig(weight_decay=0.01))
    names = {id(p): name for name, p in network.named_parameters()}
    for group, expected in zip(adamw.param_groups, (decayed, kept), strict=True):
        assert {names[id(p)] for p in group["params"]} >= set(expected)
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(names)


def test_the_bundled_models_optimizers_bit_for_bit(network):
    """Three steps against the optimizers that the two bundled models were trained with."""
    trained = copy.deepcopy(network)
    matrices, others = [], []
    for name, parameter in trained.named_parameters():
        (matrices if parameter.ndim == 2 and "_blocks." in name else others).append(parameter)
    expected = [
        torch.optim.Muon(matrices, 3e-3, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, 3e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    ]
    actual = build_optimizers(network, OptimConfig(optimizer="muon", learning_rate=3e-3, betas=(0.9, 0.99)))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for a, b in zip(network.parameters(), trained.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in (*actual, *expected):
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), trained.parameters(), strict=True))


def test_nothing_to_train_is_refused_and_muon_may_have_no_matrix(network):
    with pytest.raises(ValueError, match=r"no weight of the network is to be trained; check lora.targets"):
        build_optimizers(network.requires_grad_(False), OptimConfig())
    network.final_layer.requires_grad_(True)
    (adamw,) = build_optimizers(network, OptimConfig(optimizer="muon"))
    assert isinstance(adamw, torch.optim.AdamW)
    network.requires_grad_(False)
    network.patch_blocks[0].attn.qkv.weight.requires_grad_(True)
    (muon,) = build_optimizers(network, OptimConfig(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"learning_rate": -1e-3}, "learning_rate is at least"),
        ({"learning_rate": math.nan}, "learning_rate is at least"),
        ({"learning_rate": math.inf}, "learning_rate is at least"),
        ({"learning_rate": 1e-4, "min_learning_rate": 1e-3}, "learning_rate is at least min_learning_rate"),
        ({"decay": 1.5}, "decay is a share of the run"),
        ({"warmup": -1}, "warmup a number of steps"),
    ],
)
def test_rates_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**values)


def test_parameters_that_are_not_trained_have_no_optimizer(network):
    network.requires_grad_(False)
    network.final_layer.linear.weight.requires_grad_(True)
    (adamw,) = build_optimizers(network, OptimConfig())
    assert sum(len(group["params"]) for group in adamw.param_groups) == 1


def test_an_older_torch_is_refused_by_its_version(network, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match="Muon needs torch 2.9"):
        build_optimizers(network, OptimConfig(optimizer="muon"))


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_muon_takes_nesterov_steps_of_adamws_size(shape):
    """Momentum, five Newton-Schulz iterations (arXiv 2502.16982), and a size that does not depend on the gradient."""
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([torch.nn.Linear(shape[1], shape[0], bias=False)])
    weight = module.blocks[0].weight
    muon = build_optimizers(module, OptimConfig(optimizer="muon", learning_rate=0.1))[0]
    average, expected = torch.zeros(shape).double(), weight.detach().double().clone()
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        gradient = weight.grad.double()
        average.lerp_(gradient, 0.05)
        x = gradient.lerp(average, 0.95)
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        expected -= 0.1 * 0.2 * math.sqrt(max(shape)) * x
        before = weight.detach().clone()
        muon.step()
        size = (weight.detach() - before).square().mean().sqrt()
        assert 0.1 < size / 0.1 < 0.25
    assert (weight.detach() - expected).norm() < 0.02 * (3 * size * weight.numel() ** 0.5)
