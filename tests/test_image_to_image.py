"""Image to image, masks, and images as states."""

import pytest
import torch
from helpers import close

import pixeldit_core as pc
from pixeldit_core.flow.solvers import SOLVERS


def test_image_to_image_samples_the_last_part_of_the_trajectory(tiny, calls):
    model = tiny()
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    network_calls = calls(model)
    start = pc.unit_noise(model, 3, 16, 16)
    x = pc.sample(model, pc.class_condition(model, 2), seeds=3, image=image, denoise=0.5, steps=4, cfg=1)
    grid = pc.time_grid(model, 8)[4:]
    assert [float(call.time[0]) for call in network_calls] == grid[:-1].tolist()
    expected = pc.SOLVERS["ab2"](
        lambda x, t: model.velocity(x, t, torch.tensor([2])), torch.lerp(start, image, 0.5), grid
    )
    close(x, expected)
    little = pc.sample(model, pc.class_condition(model, 2), seeds=3, image=image, denoise=0.05, steps=4, cfg=1)
    assert (little - image).abs().mean() < (x - image).abs().mean()


def test_full_denoise_does_not_see_the_image(tiny):
    model = tiny()
    cond = pc.class_condition(model, 2)
    close(pc.sample(model, cond, image=torch.ones(1, 3, 16, 16)), pc.sample(model, cond, size=(16, 16)), 0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("denoise", [1.0, 0.6])
def test_a_mask_keeps_the_rest_bit_for_bit(tiny, solver, denoise):
    model = tiny()
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 6:10] = 1
    x = pc.sample(
        model, pc.class_condition(model, [2, 3]), image=image, mask=mask, solver=solver, denoise=denoise, steps=5
    )
    inside = mask.bool().expand_as(x)
    assert torch.equal(x[~inside], image[~inside])
    assert not torch.isclose(x[inside], image[inside]).any()
    unseen = pc.sample(model, pc.class_condition(model, [2, 3]), solver=solver, denoise=denoise, steps=5, image=image)
    everything = pc.sample(
        model,
        pc.class_condition(model, [2, 3]),
        image=image,
        mask=torch.ones(1, 1, 16, 16),
        solver=solver,
        denoise=denoise,
        steps=5,
    )
    close(everything, unseen, 2e-4)


def test_images_and_states_are_inverse(tiny):
    model = tiny()
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
    state = pc.from_image(model, pixels)
    assert state.shape == (2, 3, 16, 16) and state.min() == -1 and state.max() == 1
    assert torch.equal(pc.to_uint8(model, state), pixels)
    close(pc.from_image(model, pixels / 255), state, 1e-6)
    close(pc.from_image(model, pixels[0].numpy()), state[:1], 0)
    assert pc.contact_sheet(pixels, gap=2).size == (2 * 18 + 2, 18 + 2)
    with pytest.raises(ValueError, match=r"expected \[B, H, W, 3\]"):
        pc.from_image(model, torch.zeros(1, 16, 16, 4))
