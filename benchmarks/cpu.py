"""What the CPU's own forms of a few layers gain over straightforward ones, on more than one kind of CPU.

    python benchmarks/cpu.py                         PixelDiT-B at 256 x 256, float32: eight cases, a few minutes
    python benchmarks/cpu.py --preset PixelDiT-XL --repeat 3

The straightforward network has the same weights; its pixel blocks process all pixels at once, with maps as their
projection leaves them, and it rotates every second channel with the one after. Both are called by turns, and the ratio
is of the fastest calls. Each case is a process of its own: one or two threads; the kernels that torch has for this CPU
or those for AVX2; idle, or beside a process that keeps the cores as busy (the ratio is then of medians).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pixeldit_core as pc

HEAD = ("threads", "kernels", "beside it", "straightforward", "ours", "ratio")
BUSY = "import torch\ntorch.set_num_threads({})\nx = torch.randn(1024, 1024)\nwhile True: x = (x @ x).clamp(-1, 1)"


def plain_attention(self: Any, x: Tensor, rope: Tensor, **options: Any) -> Tensor:
    """Self-attention with the real form of the rotation."""
    cos, sin = (part[:, None] for part in rope.unbind(-1))

    def rotated(part: Tensor) -> Tensor:
        a, b = part.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(part.dtype)

    q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
    q, k, v = (part.transpose(1, 2) for part in (rotated(self.q_norm(q)), rotated(self.k_norm(k)), v))
    return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def plain_pixel_block(self: Any, z: Tensor, s_cond: Tensor, batch: int, rope: Tensor, **options: Any) -> Tensor:
    """A pixel block over all pixels at once."""
    maps = self.adaLN_modulation(s_cond).view(*z.shape[:2], 6, -1)
    shift1, scale1, gate1, shift2, scale2, gate2 = maps.unbind(2)
    mixed = self.attend(torch.addcmul(shift1, self.norm1(z), scale1 + 1), batch, rope)
    z = torch.addcmul(z, gate1, mixed)
    return torch.addcmul(z, gate2, self.mlp(torch.addcmul(shift2, self.norm2(z), scale2 + 1)))


def make_plain(network: Any) -> None:
    """Replace what has a form of its own for CPUs."""
    for block in (*network.patch_blocks, *network.pixel_blocks):
        block.attn.forward = MethodType(plain_attention, block.attn)
    for block in network.pixel_blocks:
        block.forward = MethodType(plain_pixel_block, block)


def build(preset: str, dtype: torch.dtype) -> Any:
    network: Any = pc.build_model("pixeldit", preset, device="cpu", dtype=dtype).network
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0.0, 0.02, generator=generator)
    return network.requires_grad_(False)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(preset: str, size: int, dtype: torch.dtype, repeat: int, busy: bool) -> tuple[float, float]:
    """Seconds of a guided call: straightforward, and ours."""
    ours, plain = build(preset, dtype), build(preset, dtype)
    plain.load_state_dict(ours.state_dict(), assign=True)
    make_plain(plain)
    inputs = (torch.randn(2, 3, size, size).to(dtype), torch.tensor([0.3, 0.3]), torch.tensor([7, 1000]))
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(ours(*inputs), plain(*inputs), rtol=tolerance, atol=tolerance)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat):
        for index in (0, 1) if turn % 2 else (1, 0):
            times[index].append(seconds(lambda index=index: (plain, ours)[index](*inputs)))
    summary = statistics.median if busy else min
    return summary(times[0]), summary(times[1])


def run_case(options: argparse.Namespace, threads: int, kernels: str, busy: bool) -> tuple[float, float]:
    """One case in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if kernels != "own":
        environment["ATEN_CPU_CAPABILITY"] = kernels
    other = subprocess.Popen([sys.executable, "-c", BUSY.format(threads)]) if busy else None
    arguments = ["--preset", options.preset, "--size", str(options.size), "--dtype", options.dtype]
    arguments += ["--repeat", str(options.repeat), "--case", *(["--busy"] if busy else [])]
    try:
        out = subprocess.check_output([sys.executable, __file__, *arguments], env=environment, text=True)
    finally:
        if other is not None:
            other.kill()
    first, second = out.split()
    return float(first), float(second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="PixelDiT-B")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    if options.case:
        with torch.inference_mode():
            plain, ours = compare(options.preset, options.size, dtype, options.repeat, options.busy)
        sys.stdout.write(f"{plain} {ours}\n")
        return
    sys.stdout.write(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n")
    for kernels, busy, threads in product(("own", "avx2"), (False, True), (1, 2)):
        plain, ours = run_case(options, threads, kernels, busy)
        beside = f"{threads} busy" if busy else "idle"
        sys.stdout.write(f"| {threads} | {kernels} | {beside} | {plain:.3f} s | {ours:.3f} s | {ours / plain:.2f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
