"""The way through a network's patch blocks: one place, so that a program around the network can act on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .rope import Rope

ALL = slice(None)

Streams = tuple[Tensor, ...]  # sequences of tokens [B, L, D] that the blocks of a network update together


class PatchBlocks:
    """Mixed into networks. Override `run_blocks` to replace blocks, or to see what they return."""

    def run_blocks(
        self,
        blocks: Iterable[nn.Module],
        streams: Streams,
        condition: Tensor,
        rope: Rope,
        image: slice,
        part: slice = ALL,
        **options: Any,
    ) -> Streams:
        """The streams after the blocks.

        Args:
            streams: what each block takes and returns; the first has the patches.
            condition: of all blocks, [B, 1, D] or [B, D]; or, over one stream, of each token, [B, L, D].
            rope: rotary table of all tokens that attend to each other.
            image: which tokens of the first stream are patches.
            part: which of the blocks to run, where the tokens change on the way; it is called once for each part.
            options: passed to the attention function.
        """
        for block in list(blocks)[part]:
            streams = as_streams(block(*streams, condition, rope, **options))
        return streams


def as_streams(result: Tensor | Streams) -> Streams:
    """What a block returned: blocks over one stream return a tensor."""
    return result if isinstance(result, tuple) else (result,)
