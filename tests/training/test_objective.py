"""Times, conditions and targets of the objective."""

import math

import pytest
import torch
from helpers import randn
from pixelhdm_cases import find

from pixeldit_core.flow.path import FlowPath
from pixeldit_core.flow.times import shift_time
from pixeldit_core.training.objective import (
    drop_condition,
    gamma_penalty,
    integer_table,
    integer_times,
    logit_normal_times,
    noisy,
    squared_error,
    uniform_times,
)


@pytest.mark.parametrize("predicts", ["velocity", "negative_velocity", "image"])
@pytest.mark.parametrize("min_noise_level", [0.05, 1e-5])
def test_the_loss_of_a_perfect_prediction_is_zero_at_all_times(predicts, min_noise_level):
    path = FlowPath(predicts, time_scale=1000.0, counts_noise=True, noise_scale=2.0, min_noise_level=min_noise_level)
    image, noise = torch.randn(2, 4, 3, 4, 4)
    t = torch.tensor([0.0, 0.5, 0.98, 1.0])
    x, target = noisy(path, image, noise, t)
    assert torch.equal(x[0], 2 * noise[0]) and torch.equal(x[3], image[3])
    torch.testing.assert_close(path.network_time(t), 1000 * (1 - t))
    prediction = path.target(image, noise)
    assert squared_error(path.velocity(prediction, x, t), target).tolist() == [0, 0, 0, 0]
    off_by_one = squared_error(path.velocity(prediction + 1, x, t), target)
    weight = 1 / (1 - t).clamp(min=min_noise_level) ** 2 if predicts == "image" else torch.ones(4)
    torch.testing.assert_close(off_by_one, weight, rtol=1e-2, atol=0)


def test_the_error_is_of_each_image():
    predicted, target = randn(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(squared_error(predicted, target), predicted.square().mean((1, 2, 3)))


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
    torch.testing.assert_close(uniform_times(t, 3.0), torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(logit_normal_times(torch.zeros(1), 3.0), torch.tensor([0.25]))


def test_times_stay_in_the_range_that_a_network_is_trained_on():
    within = (0.05, 0.95)
    assert logit_normal_times(torch.tensor([-50.0, 0.0, 50.0]), time_range=within).tolist() == pytest.approx(
        [0.05, 0.5, 0.95]
    )
    assert uniform_times(torch.tensor([0.0, 0.5]), time_range=within).tolist() == pytest.approx([0.05, 0.5])


def test_times_are_pixelhdm_s(golden):
    for case in find("60_schedules").case["time"]:
        within = (case["t_eps"], 1 - case["t_eps"])
        mean, std = case["p_mean"], case["p_std"]
        times = logit_normal_times(torch.tensor(case["u"]), mean=mean, std=std, time_range=within)
        torch.testing.assert_close(times, torch.tensor(case["t"]), rtol=1e-6, atol=0)


def test_integer_times_are_entries_of_a_table():
    sigmas, network_times = integer_table(3.0)
    assert sigmas[0] == 0 and sigmas[-1].item() == pytest.approx(2.997 / 2.998) and len(sigmas) == 1000
    assert network_times[[0, -1]].tolist() == [0, 999] and network_times.dtype == torch.int64
    t, time = integer_times(torch.tensor([-50.0, 0.0, 50.0]), 3.0)
    assert t.tolist() == pytest.approx([1, 0.25, 1 - 2.997 / 2.998], abs=1e-6) and time.tolist() == [0, 750, 999]
    other, _ = integer_times(torch.tensor([1.0]), mean=-1.0, std=0.5)
    assert other.item() == pytest.approx(1 - 0.377)  # trunc(1000 * sigmoid(-0.5)) / 1000


def test_labels_drop_to_the_null_class():
    dropped = torch.tensor([0.05, 0.1, 0.5, 0.09]) < 0.1
    (labels,) = drop_condition((torch.arange(4),), (torch.tensor([12]),), dropped)
    assert labels.tolist() == [12, 1, 2, 12]


@pytest.mark.parametrize("lengths", [(5, 3), (3, 5), (4, 4)])
def test_texts_drop_with_their_mask_and_pooled_vector(lengths):
    """Of whatever length the empty one is: every row keeps the tokens that its mask counts."""
    length, empty = lengths
    text = (randn(3, length, 2, seed=1), torch.ones(3, length, dtype=torch.bool), randn(3, 2, seed=2))
    null = (randn(1, empty, 2, seed=3), torch.tensor([[True] + [False] * (empty - 1)]), randn(1, 2, seed=4))
    states, mask, pooled = drop_condition(text, null, torch.tensor([False, True, False]))
    assert states.shape == (3, max(lengths), 2) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [length, 1, length]
    for row in (0, 2):
        assert torch.equal(states[row][mask[row]], text[0][row]) and torch.equal(pooled[row], text[2][row])
    assert torch.equal(states[1][:1], null[0][0, :1]) and torch.equal(pooled[1], null[2][0])


def test_texts_without_a_mask_keep_their_length():
    text, null = torch.zeros(2, 4, 3), torch.arange(18.0).view(1, 6, 3)
    (states,) = drop_condition((text,), (null,), torch.tensor([True, False]))
    assert torch.equal(states[0], null[0, :4]) and not states[1].any()
    with pytest.raises(ValueError, match="has 3 tokens and captions have 4"):
        drop_condition((text,), (null[:, :3],), torch.tensor([True, False]))


def test_parts_may_drop_on_their_own():
    """As a class and what a network sees of its own input do (spec: pixeldit2, 10)."""
    labels, skip = torch.tensor([1, 2, 3, 4]), torch.zeros(4, dtype=torch.bool)
    dropped = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    labels, skip = drop_condition((labels, skip), (torch.tensor([9]), torch.tensor([True])), dropped)
    assert labels.tolist() == [9, 2, 9, 4] and skip.tolist() == [False, True, True, False]


def test_the_gamma_penalty_is_of_the_scales_alone():
    maps = torch.zeros(2 * 3, 4, 6, 5)  # [B * L, P, 6, C]
    maps[:, :, [1, 2, 4, 5]] = 7.0  # beta and alpha
    maps[:3, :, 0], maps[3:, :, 3] = 2.0, 3.0
    penalty = gamma_penalty([maps.flatten(2), maps.flatten(2)], 2)
    assert penalty.tolist() == [2 * 4.0, 2 * 9.0]
