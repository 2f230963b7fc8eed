"""Losses against golden data, time sampling, the average, initialization and a tiny run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pixeldit_core import PixelDiT, PixelDiTParams
from pixeldit_core.flow.times import shift_time
from pixeldit_core.training.drawings import draw_many
from pixeldit_core.training.initialize import initialize
from pixeldit_core.training.losses import drop_labels, flow_matching_loss, logit_normal_times, noisy_sample
from pixeldit_core.training.trainer import Ema, TrainingSettings, learning_rate_at, train

CASE = Path(__file__).parents[1] / "golden" / "official" / "c2i_training_loss"
TINY = PixelDiTParams(
    hidden_size=24, num_groups=2, patch_depth=1, pixel_depth=1, patch_size=8, pixel_hidden_size=4, num_classes=12
)


def tiny_network(seed=0):
    torch.manual_seed(seed)
    network = PixelDiT(TINY)
    initialize(network)
    return network


def test_loss_reproduces_the_published_trainer():
    if not CASE.exists():
        pytest.skip(f"golden data is not here: {CASE}")
    inputs, outputs = load_file(CASE / "inputs.safetensors"), load_file(CASE / "outputs.safetensors")
    network = PixelDiT(
        PixelDiTParams(
            hidden_size=24,
            num_groups=2,
            patch_depth=2,
            pixel_depth=1,
            patch_size=4,
            pixel_hidden_size=4,
            num_classes=10,
        )
    )
    weights = load_file(CASE / "checkpoint.safetensors")
    network.load_state_dict({k.removeprefix("denoiser."): v for k, v in weights.items() if k.startswith("denoiser.")})
    times = logit_normal_times(inputs["normal_for_t"], timeshift=1.0)
    torch.testing.assert_close(times, outputs["t"], atol=1e-6, rtol=0)
    x_t = noisy_sample(inputs["image"], inputs["noise"], times)
    torch.testing.assert_close(x_t, outputs["x_t"], atol=1e-6, rtol=0)
    velocity = network(x_t, times, inputs["labels_after_dropout"])
    loss = flow_matching_loss(velocity, inputs["image"], inputs["noise"])
    torch.testing.assert_close(loss, outputs["fm_loss"], atol=2e-5, rtol=0)


def test_times_are_logit_normal():
    times = logit_normal_times(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert 0 < times.min() and times.max() < 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.003)
    assert times.std().item() == pytest.approx(0.2083, abs=0.003)  # of sigmoid(N(0,1))
    assert (times < 1 / (1 + math.e)).float().mean().item() == pytest.approx(0.1587, abs=0.005)  # one sigma


def test_timeshift_moves_towards_noise_and_keeps_the_ends():
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shift_time(t, 3.0), torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(shift_time(t, 1.0), t)


def test_the_path_ends_in_noise_and_image_and_its_slope_has_no_loss():
    image, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    ends = noisy_sample(image, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(ends[0], noise[0]) and torch.equal(ends[1], image[1])
    assert flow_matching_loss(image - noise, image, noise) == 0


def test_labels_drop_to_the_null_class():
    labels = drop_labels(torch.arange(4), torch.tensor([0.05, 0.1, 0.5, 0.09]), 0.1, 12)
    assert labels.tolist() == [12, 1, 2, 12]


def test_initial_network_predicts_zero_and_only_the_right_tensors_are_zero():
    network = tiny_network()
    zero = {name for name, p in network.named_parameters() if not p.any()}
    expected = {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    assert zero == expected
    assert not network(torch.randn(1, 3, 16, 16), torch.rand(1), torch.tensor([12])).any()


def test_initialize_fills_unfilled_memory_the_same_way_each_time():
    first = tiny_network(3)
    with torch.no_grad():
        second = PixelDiT(TINY)
        for parameter in second.parameters():
            parameter.fill_(float("nan"))
    torch.manual_seed(3)
    PixelDiT(TINY)  # what building draws must not matter once the seed is set again
    torch.manual_seed(3)
    initialize(second)
    torch.manual_seed(3)
    initialize(first)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    table = torch.cat([tiny_network(s).y_embedder.embedding_table.weight.flatten() for s in range(8)])
    assert table.std().item() == pytest.approx(0.02, rel=0.1)


def test_average_is_exponential_after_its_warm_up():
    network = torch.nn.Linear(1, 1)
    ema = Ema(network, decay=0.9)
    average, start = network.weight.item(), network.weight.item()
    for step in range(200):
        with torch.no_grad():
            network.weight.fill_(start + step)
        ema.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * (start + step)
    assert ema.state["weight"].item() == pytest.approx(average, rel=1e-5)
    assert ema.state["weight"].item() == pytest.approx(start + 199 - 9, abs=0.01)  # lags decay/(1-decay) steps


def test_learning_rate_rises_and_falls():
    settings = TrainingSettings(steps=100, warmup=10, decay=0.4, learning_rate=1.0)
    rates = [learning_rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0


def test_twenty_steps_lower_the_loss_and_repeat_exactly():
    pictures, labels = draw_many(48, seed=0)
    settings = TrainingSettings(steps=20, batch=16, warmup=2, learning_rate=1e-2, compile=False, bfloat16=False)

    def run():
        network, losses = tiny_network(), []
        ema = train(network, pictures, labels, settings, lambda step, loss, _: losses.append(loss))
        return losses, ema

    losses, ema = run()
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    again, same = run()
    assert losses == again
    assert all(torch.equal(ema.state[name], same.state[name]) for name in ema.state)


def test_too_few_pictures_are_refused():
    pictures, labels = draw_many(12)
    with pytest.raises(ValueError, match="12 pictures"):
        train(tiny_network(), pictures, labels, TrainingSettings(steps=1, batch=16, compile=False))
