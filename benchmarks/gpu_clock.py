"""Times and memory of calls on a GPU, or for a try on the CPU: with events, warmed up, by turns, as medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], Any]
MIB = 2**20
_LEAST = 0.02  # seconds of one measurement: a shorter call is repeated


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def once(call: Call, device: str, repeat: int = 1) -> float:
    """Seconds of a call, from `repeat` of them in a row; on CUDA those between two events on the GPU."""
    if device != "cuda":
        begin = time.perf_counter()
        for _ in range(repeat):
            call()
        return (time.perf_counter() - begin) / repeat
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeat):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / repeat


def medians(calls: dict[str, Call], device: str, rounds: int) -> dict[str, float]:
    """Seconds of each call, all of them by turns in both orders, so that they see the same clocks and temperature.

    They are called three times before: a CUDA graph is recorded by the second call.
    """
    repeats = {}
    for name, call in calls.items():
        for _ in range(2):
            call()
        repeats[name] = max(1, min(50, round(_LEAST / max(once(call, device), 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 else -1]:
            found[name].append(once(calls[name], device, repeats[name]))
    return {name: statistics.median(times) for name, times in found.items()}


def peak(call: Call, device: str) -> float | None:
    """MiB that a call needs beyond what was allocated before it; None on a CPU, where nothing counts it."""
    if device != "cuda":
        call()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def operations(call: Call) -> int:
    """Floating-point operations of the matrix products, convolutions and attention of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def product(device: str, dtype: torch.dtype, side: int) -> tuple[Call, int]:
    """A plain matrix product, and its operations: the rate that all else is a fraction of."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * side**3


def describe(error: BaseException) -> str:
    """Why a row has no numbers, in one line."""
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower():
        return "out of memory"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def release(device: str) -> None:
    """Give back what a failed or finished row kept."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
