"""The network that a file is for, on "meta": its names and shapes, nothing to compute with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.init
from torch import nn
from torch.overrides import TorchFunctionMode

from ..families import build_network
from .weight_sets import Group


def build_on_meta(group: Group, params: Any, name: str, **factory_kwargs: Any) -> nn.Module:
    """The network of these params on "meta".

    Args:
        name: of the file, for messages.
        factory_kwargs: of the network: operations, attention, dtype.

    Raises:
        ValueError: sizes beyond any tensor; shapes with a 0 in them can lead to such.
    """
    inspect.signature(group.family.network).bind(params, **factory_kwargs)  # a caller's TypeError is not the file's
    try:
        with _WithoutInitialization():
            return build_network(group.family, params, **factory_kwargs)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: its tensor shapes give a network of impossible size. Get the file again.") from error


class _WithoutInitialization(TorchFunctionMode):
    """Leaves out what torch.nn's layers fill their weights with.

    Nothing is there to fill; and for the normal distribution on "meta", torch imports its compiler, which takes longer
    than everything else about a header.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
