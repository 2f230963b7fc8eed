"""Attention of other packages, which refuses some heads: those go to PyTorch's at once.

ComfyUI tries SageAttention or FlashAttention at each call, logs what that raised, and takes PyTorch's. Which heads are
refused differs between versions of these packages (SageAttention 1: all but 64, 96 and 128), so the first call tells.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as mm
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

log = logging.getLogger(__name__)

OVERRIDE = "optimized_attention_override"  # of one MODEL, by nodes that choose or change its attention
Case = tuple[int, bool, torch.dtype]  # size of a head, whether there is a mask, type
_taken: MutableMapping[Callable, dict[Case, bool]] = WeakKeyDictionary()  # by the function, whether it takes a case


def attend(
    function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> Tensor:
    """`function`, one of ComfyUI's, for [B, h, L, e] three times -> [B, L, h*e]; PyTorch's where it refused before.

    Args:
        options: ComfyUI's `transformer_options`.
    """
    backend = options.get(OVERRIDE, function)
    if backend is attention_pytorch or torch.compiler.is_compiling():
        return _call(function, q, k, v, mask, options)
    taken, case = _cases(backend), (q.shape[-1], mask is not None, q.dtype)
    if case not in taken:
        out, reason = _try(function, q, k, v, mask, options)
        taken[case] = reason is None
        if reason is not None:
            log.warning("attention: heads of %d are computed by PyTorch's own (%s)", q.shape[-1], reason)
        return out
    if taken[case]:
        return _call(function, q, k, v, mask, options)
    if OVERRIDE not in options:
        return _call(attention_pytorch, q, k, v, mask, options)
    with _Listening():  # it may change more than the back-end, so it is called, with PyTorch's to build on
        return _call(attention_pytorch, q, k, v, mask, options)


def _cases(backend: Callable) -> dict[Case, bool]:
    """What is known of a back-end; of an object that nothing can be kept for, nothing."""
    try:
        return _taken.setdefault(getattr(backend, "__func__", backend), {})
    except TypeError:
        return {}


def _try(
    function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor, str | None]:
    """The result, and why another attention than the chosen one made it."""
    with _Listening() as heard:
        try:
            out = _call(function, q, k, v, mask, options)
        except mm.OOM_EXCEPTION:
            raise
        except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if OVERRIDE in options:
                raise
            heard.reasons.append(_shortened(f"{type(error).__name__}: {error}"))
            out = _call(attention_pytorch, q, k, v, mask, options)
    return out, next(iter(heard.reasons), None)


def _call(
    function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> Tensor:
    return function(q, k, v, q.shape[1], mask=mask, skip_reshape=True, transformer_options=options)


class _Listening(logging.Filter):
    """Keeps what ComfyUI logs about an attention that failed, in place of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        words = text.lower()
        failed = "attention" in words and ("error" in words or "failed" in words) and "out of memory" not in words
        if record.levelno < logging.WARNING or record.thread != self.thread or not failed:
            return True
        self.reasons.append(_shortened(text))
        return False

    def __enter__(self) -> _Listening:
        logging.getLogger().addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeFilter(self)


def _shortened(text: str) -> str:
    return " ".join(text.split())[:200]
