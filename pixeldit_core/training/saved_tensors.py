"""What a forward pass keeps for its backward pass, counted on the "meta" device: no memory, no GPU, no data.

The rules of autocast are written out here, for autocast itself knows no "meta" device. They are those of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

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


@dataclass
class Saved:
    """Bytes that stay until the backward pass, each storage once, without parameters; and the forward's work."""

    outside: dict[int, Tensor] = field(default_factory=dict)  #  of the blocks: by storage, kept alive for its address
    inputs: dict[int, Tensor] = field(default_factory=dict)  #   of the blocks
    blocks: list[dict[int, Tensor]] = field(default_factory=list)
    copies: int = 0  #  bytes of bfloat16 parameters
    flops: int = 0

    @property
    def all_bytes(self) -> int:
        """Of everything."""
        return _bytes(self.outside, *self.blocks)

    @property
    def checkpointed_bytes(self) -> int:
        """Of the blocks' inputs and one block at a time, the largest."""
        kept = {**self.outside, **self.inputs}
        return _bytes(kept) + max((_bytes(kept, block) - _bytes(kept) for block in self.blocks), default=0)


def count_saved(network: nn.Module, forward: Callable[[], Tensor], *, bf16: bool) -> Saved:
    """Run `forward`, which calls the network, and count; the result has a graph of its own."""
    saved, autocast = Saved(), Autocast()
    counter = FlopCounterMode(display=False, custom_mapping={_FLASH: _flash_flops})
    with ExitStack() as stack:
        current = stack.enter_context(_recording(network, saved))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(current, lambda tensor: tensor))
        stack.enter_context(counter)
        if bf16:
            stack.enter_context(autocast)
        result = forward()
    copies = {_storage(copy): copy for copy in autocast.copies.values()}
    kept: set[int] = set()  # biases are copied, too, and not kept
    for found in (saved.outside, saved.inputs, *saved.blocks):
        kept |= copies.keys() & found.keys()
        for key in {*copies, *map(_storage, network.parameters())} & found.keys():
            del found[key]
    saved.copies = _bytes({key: copies[key] for key in kept})
    saved.flops = counter.get_total_flops()
    del result
    return saved


@contextmanager
def _recording(network: nn.Module, saved: Saved) -> Iterator[Callable[[Tensor], Tensor]]:
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


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(*groups: dict[int, Tensor]) -> int:
    union: dict[int, Tensor] = {}
    for group in groups:
        union |= group
    return sum(tensor.untyped_storage().nbytes() for tensor in union.values())


def _flash_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)
