"""A call on a GPU stays a matter of few kernels, and waits for nothing from the CPU (benchmarks/launches.py)."""

import pytest
import torch

from benchmarks.launches import count, guided_call


@pytest.mark.parametrize("preset, size, limit", [("PixelDiT-XL", 256, 660), ("PixelDiT-T2I", 1024, 635)])
def test_launches_of_a_guided_call(preset, size, limit):
    counts = count(guided_call(preset, size))
    assert limit - 30 < counts.total <= limit, "if it is fewer now, lower the limit"
    assert counts.copies == 0


def test_the_counter_counts():
    weight, host = torch.empty(3, 3, device="meta"), torch.ones(3)

    def call():
        x = (torch.empty(2, 3, device="meta") @ weight).t().reshape(2, 3) + host.to("meta")
        return torch.nn.functional.rms_norm(x, (3,)).view(6)

    counts = count(call)
    assert counts.kernels == {"mm": 1, "clone": 1, "_to_copy": 1, "add": 1, "rms_norm": 1}
    assert (counts.total, counts.copies) == (5, 1)
    assert counts.bytes == 4 * ((6 + 9 + 6) + (6 + 6) + (3 + 3) + (6 + 3 + 6) + (6 + 6))
