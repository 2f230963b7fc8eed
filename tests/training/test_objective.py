"""The flow-matching objective against golden data, and the sampling of times and labels."""

import math

import pytest
import torch
from safetensors.torch import load_file
from xpred_cases import case_params, weights_of

import pixeldit_core as pc
from pixeldit_core import PixelDiT, PixelDiTParams
from pixeldit_core.families.xpred.network import network_class
from pixeldit_core.flow.path import FlowPath
from pixeldit_core.flow.times import shift_time
from pixeldit_core.training.objective import drop_labels, flow_matching_loss, logit_normal_times


def test_loss_reproduces_the_published_trainer(golden):
    case = golden("c2i_training_loss")
    inputs, outputs = case.inputs, case.outputs
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
    weights = load_file(case.folder / "checkpoint.safetensors")
    network.load_state_dict({k.removeprefix("denoiser."): v for k, v in weights.items() if k.startswith("denoiser.")})
    path = pc.FAMILIES["pixeldit"].path(network.params)
    times = logit_normal_times(inputs["normal_for_t"], timeshift=1.0)
    torch.testing.assert_close(times, outputs["t"], atol=1e-6, rtol=0)
    x_t = path.interpolate(inputs["image"], inputs["noise"], times)
    torch.testing.assert_close(x_t, outputs["x_t"], atol=1e-6, rtol=0)
    loss = flow_matching_loss(network, path, inputs["image"], inputs["noise"], times, inputs["labels_after_dropout"])
    torch.testing.assert_close(loss, outputs["fm_loss"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["loss_a", "loss_b"])
def test_loss_reproduces_the_trainer_of_the_x_prediction_networks(golden, name):
    case = golden("flow-loss", "xpred")
    given, expected = (
        {key.removeprefix(f"{name}."): value for key, value in part.items()} for part in (case.inputs, case.outputs)
    )
    params = case_params(case.case)
    network = network_class(params)(params)
    network.load_state_dict(weights_of(case))
    path = FlowPath("image", min_noise_level=0.05)
    times, labels = (
        expected["t"],
        drop_labels(given["y"], (~given["drop_mask"].bool()).float(), 0.5, params.num_classes),
    )
    assert torch.equal(labels, expected["y_used"])
    loss = flow_matching_loss(network, path, given["x1"], given["x0"], times, labels)
    torch.testing.assert_close(loss, expected["loss"].squeeze(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("predicts", ["velocity", "negative_velocity", "image"])
def test_the_loss_of_a_perfect_prediction_is_zero_at_all_times(predicts):
    path = FlowPath(predicts, time_scale=1000.0, counts_noise=True, noise_scale=2.0, min_noise_level=0.05)
    image, noise = torch.randn(2, 4, 3, 4, 4)
    t = torch.tensor([0.0, 0.5, 0.98, 1.0])

    def perfect(x, time):
        assert torch.equal(x[0], 2 * noise[0]) and torch.equal(x[3], image[3])
        torch.testing.assert_close(time, 1000 * (1 - t))
        return path.target(image, noise)

    assert flow_matching_loss(perfect, path, image, noise, t) == 0
    assert flow_matching_loss(lambda *arguments: perfect(*arguments) + 1, path, image, noise, t) >= 1


def test_times_are_logit_normal():
    times = logit_normal_times(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert times.min() > 0 and times.max() < 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.003)
    assert times.std().item() == pytest.approx(0.2083, abs=0.003)  # of sigmoid(N(0,1))
    assert (times < 1 / (1 + math.e)).float().mean().item() == pytest.approx(0.1587, abs=0.005)  # one sigma


def test_timeshift_moves_towards_noise_and_keeps_the_ends():
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shift_time(t, 3.0), torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(shift_time(t, 1.0), t)


def test_labels_drop_to_the_null_class():
    labels = drop_labels(torch.arange(4), torch.tensor([0.05, 0.1, 0.5, 0.09]), 0.1, 12)
    assert labels.tolist() == [12, 1, 2, 12]
