"""A model's velocity through torch.compile: one graph for each size of image, dynamic over the batch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from .model import Condition, Model

LARGEST_NUMBER_OF_GRAPHS = 64  # of a process: one for each size and dtype, of one image and of several
_NO_COMPILER = ("BackendCompilerFailed", "InductorError", "TritonMissing", "GPUTooOldForTriton")
_STATIC = (1, 2, 3)  #           dimensions of an image: channels, height, width


class CompiledVelocity:
    """`Model.velocity` of one model, compiled at its first call.

    A graph has the whole call: the network, and the conversion of what it predicts. It serves every batch of two or
    more images of a size; a single image has a graph of its own, as everywhere in torch.compile, and so has another
    size. On CUDA each shape of call is also recorded once as a CUDA graph, which one launch replays.

    Numbers differ from those of `Model.velocity` by rounding.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.calls = self.first_calls = 0  #   of the network; those that compile or record
        self.seconds = self.first_seconds = 0.0  # of sampling, and of the first calls in it
        self._records = model.device.type == "cuda"
        self._velocity = torch.compile(
            model.predict_velocity, fullgraph=True, mode="reduce-overhead" if self._records else None
        )
        self._seen: dict[tuple[Any, ...], int] = {}

    @torch.inference_mode()
    def __call__(self, x: Tensor, t: float | Tensor, condition: Condition) -> Tensor:
        """As `Model.velocity`.

        Raises:
            ValueError: what torch.compile needs is not there.
        """
        given = self.model.arguments(x, t, condition)
        x, time = _uniform(x), _uniform(given.time)
        parts = tuple(None if part is None else _uniform(part) for part in given.condition)
        options = {name: _uniform(value) for name, value in given.options.items()}
        torch._dynamo.mark_static(x, list(_STATIC))
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in (x, *parts, *options.values()) if tensor is not None)
        started = perf_counter()
        v = self._call(x, time, parts, options)
        self._count(shapes, perf_counter() - started)
        return v

    def _call(self, x: Tensor, t: Tensor, condition: tuple[Tensor | None, ...], options: dict[str, Tensor]) -> Tensor:
        config: Any = torch._dynamo.config
        with config.patch(recompile_limit=LARGEST_NUMBER_OF_GRAPHS):
            if not self._records:
                return _explained(self._velocity, x, t, condition, **options)
            torch.compiler.cudagraph_mark_step_begin()
            # the next call overwrites what a CUDA graph returned, and solvers keep velocities of earlier steps
            return _explained(self._velocity, x, t, condition, **options).clone()

    def _count(self, shapes: tuple[Any, ...], seconds: float) -> None:
        self.calls += 1
        self._seen[shapes] = before = self._seen.get(shapes, 0) + 1
        if before <= 1 + self._records:  # the second call of a shape records
            self.first_calls += 1
            self.first_seconds += seconds

    def describe(self) -> str:
        """How long the first calls took, and a call after them."""
        others = self.calls - self.first_calls
        steady = f", then {(self.seconds - self.first_seconds) / others:.3g} s a call" if others else ""
        return f"{self.first_seconds:.1f} s for the first {self.first_calls} calls, which compile{steady}"


def compiled_velocity(model: Model) -> CompiledVelocity:
    """The compiled velocity of a model, which keeps it: a later sampling compiles nothing again."""
    if not isinstance(model.compiled, CompiledVelocity) or model.compiled.model is not model:  # so that of a copy
        model.compiled = CompiledVelocity(model)
    return model.compiled


def _uniform(rows: Tensor) -> Tensor:
    """A tensor [B, ...] with what a graph would be made again for as it should be: any B above 1, the usual strides,
    and made in inference mode, as the states of a sampling are after the first step."""
    rows = rows.contiguous() if rows.is_inference() else rows.clone(memory_format=torch.contiguous_format)
    if len(rows) > 1:
        torch._dynamo.mark_dynamic(rows, 0)
    return rows


def _explained(function: Callable[..., Tensor], *arguments: Any, **options: Any) -> Tensor:
    """The result; if torch.compile cannot work here, a ValueError that says what it needs."""
    try:
        return function(*arguments, **options)
    except RuntimeError as error:
        reason = getattr(error, "inner_exception", error)
        if isinstance(reason, torch.OutOfMemoryError) or type(error).__name__ not in _NO_COMPILER:
            raise
        name, first_line = type(reason).__name__, str(reason).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile does not work here ({name}: {first_line}). On a CPU it needs a C++ compiler (g++ or clang, "
            "on Windows Visual Studio's Build Tools), on a GPU Triton (part of torch on Linux; on Windows the package "
            "triton-windows). Install what is missing, or sample without compile."
        ) from error
