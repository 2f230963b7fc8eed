"""The patch blocks as other nodes act on them: replaced, skipped, or followed by a patch, as in ComfyUI's own networks.

Each patch block is a "double_block" of that index: `img` are the tokens of patches [B, L, D], `txt` those of the text
or, in x-prediction networks, the registers of the class; None without either. `vec` is the condition, `pe` the rotary
table, to be passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...pixeldit_core.layers.blocks import ALL, PatchBlocks, Streams, as_streams
from ...pixeldit_core.layers.rope import Rope
from .no_effect import maker_name, report_once

INPUT = "pixeldit_input"  # of transformer_options: the padded noisy image


class Tokens(NamedTuple):
    """Patches, and the tokens beside them, if any."""

    img: Tensor
    txt: Tensor | None


class HookedBlocks(PatchBlocks):
    """Mixed into networks in front of the core's own way through the blocks."""

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
        blocks = list(blocks)
        # a copy: that of the pixel blocks has no block_index, so patches of attention leave them alone
        hooks = dict(options["transformer_options"], total_blocks=len(blocks), block_type="double")
        if (place := _image_slice(streams, image)) is not None:
            hooks["img_slice"] = place
        options["transformer_options"] = hooks
        replacements = hooks.get("patches_replace", {}).get("dit", {})
        patches = hooks.get("patches", {}).get("double_block", ())
        if replacements:
            _report_missing(hooks, replacements, len(blocks))
        for index, block in list(enumerate(blocks))[part]:
            hooks["block_index"] = index
            replace = replacements.get(("double_block", index))
            if replace is None:
                streams = as_streams(block(*streams, condition, rope, **options))
            else:
                streams = _replaced(replace, block, streams, condition, rope, image, options)
            for patch in patches:
                streams = _patched(patch, streams, condition, rope, image, hooks)
        return streams


def _replaced(
    replace: Callable[..., dict[str, Any]],
    block: nn.Module,
    streams: Streams,
    condition: Tensor,
    rope: Rope,
    image: slice,
    options: dict[str, Any],
) -> Streams:
    """What a replacement of a block returns; it may call the block itself."""

    def original_block(arguments: dict[str, Any]) -> dict[str, Any]:
        own = dict(options, transformer_options=arguments.get("transformer_options", options["transformer_options"]))
        if arguments.get("attn_mask") is not None:
            own["mask"] = arguments["attn_mask"]
        entered = _join(Tokens(arguments["img"], arguments.get("txt")), streams, image)
        pe = arguments.get("pe", rope)
        return _split(as_streams(block(*entered, arguments["vec"], pe, **own)), image)._asdict()

    arguments = {
        **_split(streams, image)._asdict(),
        "vec": condition,
        "pe": rope,
        "attn_mask": options.get("mask"),
        "transformer_options": options["transformer_options"],
    }
    out = replace(arguments, {"original_block": original_block})
    return _join(Tokens(out["img"], out.get("txt", arguments["txt"])), streams, image)


def _patched(
    patch: Callable[..., dict[str, Any]],
    streams: Streams,
    condition: Tensor,
    rope: Rope,
    image: slice,
    hooks: dict[str, Any],
) -> Streams:
    """The streams after a patch that other nodes have after each block."""
    tokens = _split(streams, image)
    out = patch(
        {
            **tokens._asdict(),
            "vec": condition,
            "pe": rope,
            "x": hooks.get(INPUT),
            "block_index": hooks["block_index"],
            "transformer_options": hooks,
        }
    )
    return _join(Tokens(out.get("img", tokens.img), out.get("txt", tokens.txt)), streams, image)


def _split(streams: Streams, image: slice) -> Tokens:
    """Patches and other tokens, of two streams or of one sequence of both."""
    first = streams[0]
    if len(streams) > 1:
        return Tokens(first, streams[1])
    start, stop, _ = image.indices(first.shape[1])
    if (start, stop) == (0, first.shape[1]):
        return Tokens(first, None)
    return Tokens(first[:, image], first[:, :start] if start else first[:, stop:])


def _join(tokens: Tokens, streams: Streams, image: slice) -> Streams:
    """The inverse of `_split`, in the layout of `streams`."""
    if len(streams) > 1:
        assert tokens.txt is not None
        return tokens.img, tokens.txt
    if tokens.txt is None:
        return (tokens.img,)
    start = image.indices(streams[0].shape[1])[0]
    return (torch.cat([tokens.txt, tokens.img] if start else [tokens.img, tokens.txt], dim=1),)


def _image_slice(streams: Streams, image: slice) -> list[int] | None:
    """Where the patches are in what attention sees; None where it sees nothing else.

    Two streams are one sequence there, with the second, the text, before the patches.
    """
    length = streams[0].shape[1]
    if len(streams) > 1:
        text = streams[1].shape[1]
        return [text, text + length]
    start, stop, _ = image.indices(length)
    return None if (start, stop) == (0, length) else [start, stop]


def _report_missing(hooks: dict[str, Any], replacements: dict[Any, Any], count: int) -> None:
    """Say once which blocks a node replaces that this network does not have."""
    doubles = {key[1] for key in replacements if key[0] == "double_block"}
    missing = sorted(index for index in doubles if index >= count)
    if doubles and not missing:
        return
    node = maker_name(next(iter(replacements.values())))
    numbers = ", ".join(map(str, missing)) or "single blocks only"
    effect = "no effect" if len(missing) == len(doubles) else "less effect than asked for"
    report_once(
        hooks,
        node,
        f"has {effect} on this model: it replaces blocks that do not exist here ({numbers}). The model has {count} "
        f'patch blocks, which are "double" layers 0 to {count - 1}',
    )
