"""The trainer: optimizers, schedule, batches, the average of the weights, and short runs."""

import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from pixeldit_core.training import trainer
from pixeldit_core.training.trainer import TrainingSettings, build_optimizers, learning_rate_at, split_parameters, train


def test_learning_rate_rises_and_falls():
    settings = TrainingSettings(steps=100, warmup=10, decay=0.4, learning_rate=1.0)
    rates = [learning_rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0


def test_only_matrices_of_blocks_are_muons(build_tiny):
    network = build_tiny().network
    matrices, others = split_parameters(network)
    assert len(matrices) == 6 + 7 and all(p.ndim == 2 for p in matrices)
    assert len(matrices) + len(others) == len(list(network.parameters()))


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (32, 32)])
def test_muon_takes_an_orthogonal_step_of_adamw_s_size(shape):
    """Three steps against the formulas in float64; torch iterates in bfloat16, which leaves up to 2 % of a step."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Module()
    network.patch_blocks = torch.nn.Linear(*reversed(shape))
    weight = network.patch_blocks.weight
    muon, _ = build_optimizers(network, TrainingSettings(learning_rate=0.1))
    average, expected = torch.zeros(shape).double(), weight.detach().double().clone()
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        gradient = weight.grad.double()
        average.lerp_(gradient, 0.05)
        x = gradient.lerp(average, 0.95)  # Nesterov
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        expected -= 0.1 * 0.2 * max(shape) ** 0.5 * x
        before = weight.detach().clone()
        muon.step()
        size = (weight.detach() - before).square().mean().sqrt()
        assert 0.1 < size / 0.1 < 0.25
    assert (weight.detach() - expected).norm() < 0.02 * (3 * size * weight.numel() ** 0.5)


def test_an_older_torch_is_refused_by_its_version(build_tiny, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match="torch>=2.9"):
        build_optimizers(build_tiny().network, TrainingSettings())


def test_twenty_steps_lower_the_loss_and_repeat_exactly(build_tiny, stripes):
    settings = TrainingSettings(steps=20, batch_size=16, warmup=2, learning_rate=1e-2, compile=False, bfloat16=False)

    def run():
        model, losses = build_tiny(), []
        average = train(model, *stripes(48), settings, lambda step, loss, _: losses.append(loss))
        return losses, average.module.state_dict()

    losses, average = run()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    again, same = run()
    assert losses == again
    assert all(torch.equal(average[name], same[name]) for name in average)


def test_the_average_is_exponential_from_the_first_step(build_tiny, stripes):
    model, seen = build_tiny(), []
    settings = TrainingSettings(steps=6, batch_size=4, warmup=1, ema_decay=0.8, compile=False, bfloat16=False)
    weight = model.network.final_layer.linear.weight
    average = train(model, *stripes(12), settings, lambda *_: seen.append(weight.detach().clone()))
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.8 * expected + 0.2 * value
    torch.testing.assert_close(average.module.final_layer.linear.weight, expected)


def test_a_few_steps_teach_an_x_prediction_network(build_tiny, stripes):
    model = build_tiny(0, "xpred_pixeldit")
    losses = []
    settings = TrainingSettings(steps=60, batch_size=16, warmup=2, flip=False, compile=False, bfloat16=False)
    train(model, *stripes(64, 28, 1, 10), settings, lambda step, loss, average: losses.append(loss))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_batches_are_in_the_model_s_range_and_epochs_complete(build_tiny, stripes):
    images, labels = stripes(12)
    settings = TrainingSettings(batch_size=4, label_dropout=0.5)
    batches = trainer._batches(build_tiny(), images, labels, settings)
    image, noise, t, label = next(batches)
    assert image.shape == noise.shape == (4, 3, 16, 16) and image.min() == -1 and image.max() <= 1
    assert t.shape == label.shape == (4,)
    brightness = [image[:, 0, 0, 0]] + [next(batches)[0][:, 0, 0, 0] for _ in range(2)]
    assert sorted(((torch.cat(brightness) + 1) * 127.5 / 20).round().int().tolist()) == list(range(12))


def test_too_few_images_are_refused(build_tiny, stripes):
    with pytest.raises(ValueError, match="12 images"):
        train(build_tiny(), *stripes(12), TrainingSettings(steps=1, batch_size=16, compile=False))


def test_sampling_does_not_import_training():
    code = "import sys, pixeldit_core.cli; print([name for name in sys.modules if 'training' in name])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
