"""A second device for machines that have one: tensors in memory that say they lie on cuda:0, and mix with no others."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)


class OnGPU(torch.Tensor):
    """Says that it lies on the GPU."""


def to_gpu(tensor):
    return tensor.as_subclass(OnGPU)


def _plain(value):
    return value.as_subclass(torch.Tensor) if isinstance(value, OnGPU) else value


def _on(device, value):
    """The same numbers, on a device of the two."""
    if not isinstance(value, torch.Tensor):
        return value
    return to_gpu(_plain(value)) if device.type == "cuda" else _plain(value)


class TwoDevices(TorchFunctionMode):
    """Within it, operations on tensors of both devices raise what PyTorch raises; `to` and `cpu` move them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = GPU if any(isinstance(tensor, OnGPU) for tensor in tensors) else torch.device("cpu")
        with torch._C.DisableTorchFunctionSubclass():
            if function == torch.Tensor.device.__get__:
                return here if here.type == "cuda" else function(*args)
            if function == torch.Tensor.is_cuda.__get__:
                return here.type == "cuda"
            if name in ("to", "cpu"):
                return self._move(function, name, here, args, kwargs)
            if name in ("numpy", "__array__") and here.type == "cuda":
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            if kwargs.get("device") is not None:
                here = torch.device(kwargs.pop("device"))
            elif here.type == "cuda" and name not in ("copy_", "__set__"):
                others = [tensor for tensor in tensors if tensor.ndim and not isinstance(tensor, OnGPU)]
                if others:
                    raise RuntimeError(f"Expected all tensors to be on the same device ({name})")
            result = function(*tree_map(_plain, args), **tree_map(_plain, kwargs))
            return tree_map(lambda value: _on(here, value), result)

    @staticmethod
    def _move(function, name, here, args, kwargs):
        if name == "cpu":
            return _plain(args[0]).clone()
        target, rest = kwargs.pop("device", None), []
        for value in args[1:]:
            if isinstance(value, torch.Tensor):
                target, value = (GPU if isinstance(value, OnGPU) else torch.device("cpu")), value.dtype
            if isinstance(value, str | torch.device):
                target = value
            elif value is not None:
                rest.append(value)
        rest = [value for value in rest if isinstance(value, torch.dtype)]
        kwargs.pop("non_blocking", None)
        moved = function(_plain(args[0]), *rest, **kwargs) if rest or kwargs else _plain(args[0])
        return _on(here if target is None else torch.device(target), moved)
