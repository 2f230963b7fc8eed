"""Checkpointed and compiled blocks next to what else looks into a network: hooks, LoRA, averages in sample sheets."""

import pytest
import torch
from factories import tiny_model
from training_runs import config_of, state_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.training import blocks
from pixeldit_core.training.blocks import apply_engine_config, transformer_blocks
from pixeldit_core.training.capture import Captured
from pixeldit_core.training.config import EngineConfig

WAYS = {
    "checkpointing": {"activation_checkpointing": True},
    "whole": {"compile": "whole"},
    "both": {"compile": "blocks", "activation_checkpointing": True},
}
CLASS = (torch.tensor([0.2, 0.7]), torch.tensor([1, 5]))


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    """A way to compute blocks, compiled by nothing but the tracer."""
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def aligned(way):
    """A loss of what a hook sees of the first block, recorded twice; gradients and outputs."""
    network = tiny_model().network.requires_grad_(True)
    first = next(iter(transformer_blocks(network).values()))
    captured = Captured([first])
    apply_engine_config(network, EngineConfig(**way), backend="eager")
    seen = []
    for _ in range(2):
        with captured.recording():
            output = network(image(), *CLASS)
        (tokens,) = captured.take()
        (output.square().mean() + tokens.square().mean()).backward()
        seen.append(tokens.detach())
    network(image(), *CLASS)
    assert captured.take() == []
    return seen, {name: p.grad for name, p in network.named_parameters()}


def test_hooks_see_blocks_and_gradients_pass_through_them(way):
    expected, expected_gradients = aligned({})
    found, found_gradients = aligned(way)
    for number in range(2):
        torch.testing.assert_close(found[number], expected[number], atol=1e-6, rtol=1e-5)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-6, rtol=1e-5)


def test_sampling_computes_nothing_again(monkeypatch):
    network = tiny_model().network.requires_grad_(True)
    apply_engine_config(network, EngineConfig(activation_checkpointing=True))
    calls = []
    original = blocks.checkpoint
    monkeypatch.setattr(blocks, "checkpoint", lambda *a, **o: calls.append(1) or original(*a, **o))
    with torch.no_grad():
        network(image(), *CLASS)
    assert not calls
    network(image(), *CLASS)
    assert len(calls) == 3


def test_a_compiled_lora_run_is_the_run(tmp_path, monkeypatch):
    """And its sheets sample with the average, though the network in training is compiled."""
    torch._dynamo.reset()
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend="eager"))
    images = write_images(tmp_path / "images", names=("circle", "square", "tabby"))
    start = pc.save_checkpoint(tiny_model(), tmp_path / "start.safetensors")
    sections = {
        "model": {"start": str(start), "family": None, "params": {}},
        "lora": {"rank": 2, "alpha": 4.0, "targets": ["qkv"]},
        "sample": {"every": 2, "count": 1, "steps": 1},
    }
    engine = {"steps": 2, "batch_size": 8, "save_every": 1000, "log_every": 1, "seed": 5}
    runs = [
        train(config_of(images, **sections, engine=engine | {"compile": kind}), tmp_path / kind)
        for kind in ("none", "whole")
    ]
    plain, traced = (state_of(run, 2) for run in runs)
    assert plain.keys() == traced.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(traced[name], tensor, atol=1e-5, rtol=1e-4)
    assert runs[1].sample_sheet(2).is_file()
    torch._dynamo.reset()
