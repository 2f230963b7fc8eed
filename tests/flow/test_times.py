"""Times are the same on every processor, to the last bit."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.flow.times import even_times


@pytest.mark.parametrize("start, end", [(0.0, 1.0), (1.0, 0.001), (0.05, 0.95)])
@pytest.mark.parametrize("count", [1, 2, 3, 30, 31, 51, 101, 1000])
def test_even_times_are_those_of_torch_within_a_bit(start, end, count):
    times = even_times(start, end, count)
    assert times.shape == (count,) and times.dtype == torch.float32
    torch.testing.assert_close(times, torch.linspace(start, end, count), atol=6e-8, rtol=1.2e-7)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="this processor rounds linspace otherwise"
)
@pytest.mark.parametrize("start, end", [(0.0, 1.0), (1.0, 0.001), (0.05, 0.95)])
def test_even_times_are_those_of_the_published_programs_processors(start, end):
    for count in range(2, 300):
        assert torch.equal(even_times(start, end, count), torch.linspace(start, end, count)), count


def test_the_last_bit_of_a_time_on_a_guidance_limit():
    """The published program's grid of 30 steps is just below one half in the middle; no processor changes that."""
    assert pc.time_grid(pc.FAMILIES["pixeldit2"], 30, convention="reference")[15].item() == 0.5 - 2**-25
