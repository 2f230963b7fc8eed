"""The path between noise and image, as sampling and training share it."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.flow.path import FlowPath

IMAGE, NOISE = (torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
T = torch.tensor([0.0, 0.3, 0.9])


@pytest.mark.parametrize("noise_scale", [1.0, 2.0])
@pytest.mark.parametrize("predicts", ["velocity", "negative_velocity", "image"])
def test_a_perfect_prediction_gives_the_velocity_of_the_path(predicts, noise_scale):
    path = FlowPath(predicts, noise_scale=noise_scale)
    x = path.interpolate(IMAGE, NOISE, T)
    velocity = path.velocity(path.target(IMAGE, NOISE), x, T)
    torch.testing.assert_close(velocity, IMAGE - noise_scale * NOISE, atol=1e-5, rtol=0)


def test_the_path_starts_at_the_noise_and_ends_at_the_image():
    path = FlowPath(noise_scale=2.0)
    ends = path.interpolate(IMAGE[:2], NOISE[:2], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.stack([2 * NOISE[0], IMAGE[1]]))


def test_an_image_prediction_at_the_end_is_finite():
    path = FlowPath("image")
    v = path.velocity(IMAGE, NOISE, torch.ones(3))
    torch.testing.assert_close(v, (IMAGE - NOISE) / 1e-5)


@pytest.mark.parametrize(
    "name, t, expected",
    [
        ("pixeldit", 0.3, 0.3),
        ("pixeldit_t2i", 0.3, 700.0),
        ("pixeldit_t2i", 1.0, 0.0),
        ("xpred_pixeldit", 0.3, 0.3),
        ("pixeldit2", 0.3, 0.3),
        ("pixelhdm", 0.3, 0.3),
        ("pixelhdm", 0.0, 0.05),
        ("pixelhdm", 1.0, 0.95),
    ],
)
def test_times_of_the_families(name, t, expected):
    path = pc.FAMILIES[name].path(None)
    assert path.network_time(torch.tensor([t])).item() == pytest.approx(expected, rel=1e-6)


def test_predictions_of_the_families():
    predicts = {name: family.path(None).predicts for name, family in pc.FAMILIES.items()}
    images = {name: "image" for name in predicts if name.startswith("xpred_")}
    images["pixeldit2"] = "image"
    assert predicts == {"pixeldit": "velocity", "pixeldit_t2i": "negative_velocity", "pixelhdm": "velocity"} | images
