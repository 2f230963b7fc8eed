"""What a forward pass keeps for its backward pass, counted on the "meta" device: no memory, no GPU, no data.

The rules of autocast are written out here, for autocast itself knows no "meta" device. They are those of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..layers.tables import KeptTables

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # the one that every build has for "meta"
_LOWER = {F.linear, F.conv2d, torch.matmul, Tensor.matmul, _FLASH}
_FLOAT32 = {F.rms_norm, F.layer_norm, torch.exp, torch.rsqrt, torch.sum, Tensor.sum, F.softmax, F.mse_loss}
_WIDEST = {torch.addcmul}


def flash_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """An attention function that keeps no matrix of L x L weights, as fused kernels do."""
    return _FLASH(q, k, v, attn_mask=mask)[0].transpose(1, 2).flatten(2)


class Autocast(TorchFunctionMode):
    """What a GPU's autocast to bfloat16 does to the operations of our networks.

    `copies`: bfloat16 copies of float32 parameters, each made once and kept to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        dtype = self._dtype(func, args)
        if dtype is None:
            return func(*args, **kwargs)
        cast = {name: self._cast(value, dtype) for name, value in kwargs.items()}
        return func(*(self._cast(value, dtype) for value in args), **cast)

    def _dtype(self, func: Callable[..., Any], args: tuple[Any, ...]) -> torch.dtype | None:
        """That an operation's arguments are cast to; None = it takes them as they are."""
        if func in _LOWER:
            return torch.bfloat16
        if func in _FLOAT32:
            return torch.float32
        if func in _WIDEST:
            found = {value.dtype for value in args if isinstance(value, Tensor)}
            return torch.float32 if len(found) > 1 else None
        return None

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if dtype is torch.float32 or not isinstance(value, nn.Parameter):
            return value.to(dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(dtype)
        return self.copies[id(value)]


class Counts(NamedTuple):
    """Bytes that stay until the backward pass, tables that networks keep included; and the work of the forward pass."""

    everything: int
    checkpointed: int  # where blocks keep their inputs only, and one of them at a time, the largest, the rest
    copies: int  #        of parameters in bfloat16, in neither of the two
    flops: int

    def bytes(self, checkpointing: bool) -> int:
        """With activation checkpointing or without."""
        return self.checkpointed if checkpointing else self.everything


Tensors = dict[int, Tensor]  # by storage, so that each counts once; kept alive, for addresses are given out again


@dataclass
class _Saved:
    """Where tensors are kept."""

    outside: Tensors = field(default_factory=dict)
    inputs: Tensors = field(default_factory=dict)  # of the blocks
    blocks: list[Tensors] = field(default_factory=list)

    def remove(self, keys: Iterable[int]) -> int:
        """Leave out some storages; their bytes."""
        removed: Tensors = {}
        keys = set(keys)
        for found in (self.outside, self.inputs, *self.blocks):
            removed |= {key: found.pop(key) for key in found.keys() & keys}
        return _bytes(removed)

    def count(self) -> tuple[int, int]:
        """Bytes of everything, and with activation checkpointing."""
        kept = {**self.outside, **self.inputs}
        largest = max((_bytes({**kept, **block}) - _bytes(kept) for block in self.blocks), default=0)
        return _bytes(self.outside, *self.blocks), _bytes(kept) + largest


def count_saved(network: nn.Module, forward: Callable[[], Tensor], *, bf16: bool, flops: bool = True) -> Counts:
    """Run `forward`, which calls the network, and count what its graph keeps; without `flops`, not its work."""
    saved, autocast = _Saved(), Autocast()
    counter = FlopCounterMode(display=False, custom_mapping={_FLASH: _flash_flops})
    with ExitStack() as stack:
        hook = stack.enter_context(_recording(network, saved))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(hook, lambda tensor: tensor))
        if flops:
            stack.enter_context(counter)
        if bf16:
            stack.enter_context(autocast)
        result = forward()
    saved.outside.update((_storage(table), table) for table in _kept_tables(network))
    saved.remove(map(_storage, network.parameters()))
    copies = saved.remove(map(_storage, autocast.copies.values()))  # those of biases are not kept
    del result
    return Counts(*saved.count(), copies, counter.get_total_flops())


@contextmanager
def _recording(network: nn.Module, saved: _Saved) -> Iterator[Callable[[Tensor], Tensor]]:
    """A hook that puts each tensor where it is saved: outside of the blocks, or inside of one."""
    places = [saved.outside]

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                saved.inputs[_storage(value)] = value
        saved.blocks.append({})
        places.append(saved.blocks[-1])

    def leave(*_: Any) -> None:
        places.pop()

    def hook(tensor: Tensor) -> Tensor:
        places[-1][_storage(tensor)] = tensor
        return tensor

    blocks = [block for module in network.modules() if isinstance(module, nn.ModuleList) for block in module]
    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        yield hook
    finally:
        for handle in handles:
            handle.remove()


def _kept_tables(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        tables = getattr(module, "tables", None)
        if isinstance(tables, KeptTables):
            yield from tables


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(*groups: Tensors) -> int:
    union: Tensors = {}
    for group in groups:
        union |= group
    return sum(tensor.untyped_storage().nbytes() for tensor in union.values())


def _flash_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)
