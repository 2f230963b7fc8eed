"""How many kernels a GPU would launch for one call of a network, and what it would copy from the CPU: without a GPU.

python benchmarks/launches.py

At a batch of one or two, a large GPU spends more time on launching kernels than on arithmetic: an eager call takes
about 4 microseconds for each, whatever it computes. So the number of launches is the time. Traffic is what all kernels
read and write, the least time of a call that is bound by memory.

The network is called on PyTorch's "meta" device, which computes shapes alone. Attention and RMSNorm count as one launch
each, as their CUDA kernels are; views count nothing. The second call is counted: tables of positions are kept.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pixeldit_core as pc

NO_LAUNCH = frozenset(
    "_reshape_alias _unsafe_view alias as_strided chunk detach diagonal empty empty_like empty_strided expand "
    "lift_fresh movedim narrow new_empty permute reshape select slice split split_with_sizes squeeze t transpose "
    "unbind unfold unsqueeze view view_as_complex view_as_real".split()
)


@dataclass
class Launches:
    """What one call launched."""

    kernels: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes: int = 0
    copies: int = 0  # from the CPU: a GPU waits for each, and none may be in a CUDA graph

    @property
    def total(self) -> int:
        return self.kernels.total()


class _Counter(TorchDispatchMode):
    def __init__(self, counts: Launches) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name in NO_LAUNCH or not any(leaf.device.type == "meta" for leaf in made):
            return result
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.counts.kernels[name] += 1
        self.counts.bytes += sum(leaf.numel() * leaf.element_size() for leaf in (*read, *made))
        self.counts.copies += any(leaf.device.type == "cpu" and leaf.ndim for leaf in read)
        return result


@contextmanager
def _fused(counts: Launches) -> Iterator[None]:
    """Attention and RMSNorm as one launch each, with results laid out as their CUDA kernels lay them out."""

    def attention(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        counts.kernels["attention"] += 1
        counts.bytes += sum(part.numel() * part.element_size() for part in (q, k, v, q))
        return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)

    def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
        counts.kernels["rms_norm"] += 1
        counts.bytes += 2 * x.numel() * x.element_size()
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    with patch.object(F, "scaled_dot_product_attention", attention), patch.object(F, "rms_norm", rms_norm):
        yield


def count(call: Callable[[], object]) -> Launches:
    """What `call` launches when it is called the second time."""
    call()
    counts = Launches()
    with torch.no_grad(), _fused(counts), _Counter(counts):
        call()
    return counts


def guided_call(preset: str, size: int, dtype: torch.dtype = torch.bfloat16) -> Callable[[], object]:
    """A network's call for one guided image of the size: two rows."""
    model = pc.build_model(pc.VARIANTS[preset].family, preset, device="meta", dtype=dtype)
    x = torch.empty(2, model.params.in_channels, size, size, device="meta", dtype=dtype)
    time = torch.empty(2, device="meta")
    if model.family.condition == "text":
        params = model.params
        condition = torch.empty(2, params.txt_max_length, params.txt_embed_dim, device="meta", dtype=dtype)
    else:
        condition = torch.empty(2, device="meta", dtype=torch.int64)
    return lambda: model.network(x, time, condition)


CALLS = (("PixelDiT-XL", 256), ("PixelDiT-XL", 512), ("PixelDiT-T2I", 512), ("PixelDiT-T2I", 1024))


HEAD = ("network", "size", "launches", "traffic, GB", "copies from the CPU", "most of them")


def main() -> None:
    sys.stdout.write(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n")
    for preset, size in CALLS:
        counts = count(guided_call(preset, size))
        most = ", ".join(f"{name} {number}" for name, number in counts.kernels.most_common(6))
        row = (preset, str(size), str(counts.total), f"{counts.bytes / 1e9:.1f}", str(counts.copies), most)
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
