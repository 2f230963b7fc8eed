"""Power-function averages, and the profiles of sums of them."""

import math

import numpy as np
import pytest

from pixeldit_core.training.power_ema import beta, fit, gamma_of, inner_product, length_of, reachable_lengths

STEPS = 4000


@pytest.fixture(scope="module")
def weight():
    """One weight after each step: noise summed up, on a curve."""
    generator = np.random.default_rng(0)
    return 0.05 * generator.normal(size=STEPS).cumsum() + np.log1p(np.arange(STEPS))


def tracked(weight, length):
    """Its power-function average after each step."""
    gamma, average, seen = gamma_of(length), weight[0], []
    for step, value in enumerate(weight, 1):
        average += (value - average) * (1 - beta(gamma, step))
        seen.append(average)
    return np.array(seen)


def test_lengths_and_exponents_are_the_papers():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)  # table in section 3
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    for length in (0.01, 0.05, 0.1, 0.25):
        assert length_of(gamma_of(length)) == pytest.approx(length, rel=1e-9)
    for length in (0, -0.1, 0.28, 0.5, math.nan):
        with pytest.raises(ValueError, match="above 0 and below 0.28"):
            gamma_of(length)


def test_an_average_weighs_steps_by_the_power_of_their_time(weight):
    gamma = gamma_of(0.1)
    share = np.arange(1, STEPS + 1) ** (gamma + 1)
    share = np.diff(share, prepend=0) / share[-1]  # the integral of the profile over each step
    assert tracked(weight, 0.1)[-1] == pytest.approx((share * weight).sum(), rel=1e-9)


def test_inner_products_are_integrals():
    time = np.linspace(0, 1, 2_000_001)[1:]
    for a, gamma_a, b, gamma_b in ((1.0, 6.94, 0.6, 16.97), (0.5, 3.0, 0.5, 3.0), (0.3, 20.0, 0.9, 1.0)):
        profile_a = np.where(time <= a, (gamma_a + 1) * (time / a) ** gamma_a / a, 0)
        profile_b = np.where(time <= b, (gamma_b + 1) * (time / b) ** gamma_b / b, 0)
        assert inner_product(a, gamma_a, b, gamma_b) == pytest.approx((profile_a * profile_b).mean(), rel=1e-4)
    assert math.isfinite(inner_product(1e7, 500.0, 2e7, 300.0))


def profiles(every, last=STEPS, lengths=(0.05, 0.1)):
    """Times and exponents of a run's snapshots."""
    times = list(range(every, last + 1, every))
    return times * len(lengths), [gamma_of(length) for length in lengths for _ in times]


@pytest.mark.parametrize(
    "every, length, error", [(100, 0.07, 1e-3), (100, 0.15, 1e-3), (250, 0.07, 2e-3), (250, 0.15, 5e-3)]
)
def test_snapshots_of_two_lengths_make_any_other(weight, every, length, error):
    shares, left = fit(*profiles(every), STEPS, gamma_of(length))
    kept = np.concatenate([tracked(weight, each)[every - 1 :: every] for each in (0.05, 0.1)])
    assert abs(np.dot(shares, kept) - tracked(weight, length)[-1]) < error
    assert left < 0.01 and sum(shares) == pytest.approx(1, abs=1e-3)


# from 40 snapshots: length, error of its profile, and of the average in standard deviations of the weight
REACHED = [(0.03, 0.008, 7e-4), (0.07, 7e-4, 4e-5), (0.15, 0.0016, 3e-5), (0.2, 0.0043, 2e-4), (0.25, 0.027, 5e-3)]


@pytest.mark.parametrize("length, profile_error, error", REACHED)
@pytest.mark.parametrize("last", [STEPS, 2000])
def test_the_error_of_the_profile_bounds_that_of_the_average(weight, length, profile_error, error, last):
    times, gammas = profiles(100, last)
    shares, left = fit(times, gammas, last, gamma_of(length))
    kept = np.concatenate([tracked(weight, each)[99:last:100] for each in (0.05, 0.1)])
    expected = tracked(weight, length)[last - 1]
    distance, seen = abs(np.dot(shares, kept) - expected), weight[:last]
    # the bound of Cauchy and Schwarz: nothing on top of it for steps that are discrete
    norm = inner_product(last, gamma_of(length), last, gamma_of(length)) ** 0.5
    assert distance <= left * norm * np.linalg.norm(seen - seen.mean())
    if last == STEPS:
        assert left < profile_error and distance < error * weight.std()


@pytest.mark.parametrize("count", [1, 2, 4, 40])
@pytest.mark.parametrize("length", [0.04, 0.07, 0.15, 0.25])
def test_weights_that_never_moved_keep_their_size(count, length):
    assert sum(fit(*profiles(STEPS // count), STEPS, gamma_of(length))[0]) == pytest.approx(1, abs=1e-11)


def test_a_stored_average_is_itself():
    times, gammas = profiles(100)
    shares, error = fit(times, gammas, times[-1], gammas[-1])
    assert shares[-1] == pytest.approx(1) and np.abs(shares[:-1]).max() < 1e-8 and error < 1e-6


def test_a_thousand_snapshots_are_no_trouble():
    shares, error = fit(*profiles(2000, 1_000_000), 1_000_000, gamma_of(0.07))
    assert len(shares) == 1000 and error < 1e-5 and np.linalg.norm(shares) < 1


def test_more_snapshots_reach_more_lengths():
    short, long = reachable_lengths(*profiles(STEPS), STEPS, 0.1)
    assert 0.03 < short < 0.05 and 0.1 < long < 0.13
    shorter, longer = reachable_lengths(*profiles(100), STEPS, 0.1)
    assert shorter < 0.02 and longer > 0.25
    for length in (shorter, longer):
        assert fit(*profiles(100), STEPS, gamma_of(length))[1] <= 0.1
    assert reachable_lengths([STEPS / 2], [gamma_of(0.1)], STEPS, 0.1) is None


def test_too_few_snapshots_are_told_by_the_error_of_the_profile():
    assert fit([500, 1000], [gamma_of(0.1)] * 2, 1000, gamma_of(0.2))[1] > 0.1
    assert fit([1000], [gamma_of(0.1)], 1000, gamma_of(0.1))[1] < 1e-6
