"""What PixelDiT Edit does: an image and conditions in, an image out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...pixeldit_core.sizes import advise
from ...pixeldit_core.spec import ModelSpec
from .conditions import num_rows, unknown_conditioning
from .edit import EditSettings, edit
from .inputs import check_conditioning
from .pixels import ALPHA, hand_out, receive, repeat, to_channels, to_image, to_latent
from .request import check_patch, null_condition
from .spec import find_spec


def edit_image(
    model: Any, image: Tensor, target: list, source: list | None, negative: list | None, settings: EditSettings
) -> tuple[Tensor, str]:
    """The edited IMAGE, and the settings with notes on them.

    Raises:
        ValueError: a MODEL that is no PixelDiT; inputs or settings that do not fit; a result that is not finite.
    """
    spec = find_spec(model)
    if spec is None:
        raise ValueError(
            f"this model ({type(model.model).__name__}) is not a PixelDiT. Connect the MODEL of PixelDiT Loader."
        )
    image = receive(image, "image")
    size = (image.shape[1], image.shape[2])
    check_patch(spec, *size)
    negative = null_condition(spec, target, settings.cfg) if negative is None else negative
    source = _unknown(spec) if source is None else source
    for name, conditioning in (("positive", target), ("negative", negative), ("source", source)):
        check_conditioning(conditioning, name)
    count = max(len(image), num_rows(target), num_rows(source))
    latent = to_latent(repeat(to_channels(image, spec.params.in_channels), count))
    edited = to_image(edit(model, latent, source, target, negative, settings), spec.family)
    notes = [_describe(settings, size)]
    if image.shape[-1] == 4:
        notes.append(ALPHA)
    if advice := advise(size, spec.trained_sizes):
        notes.append(advice)
    return hand_out(edited), "\nnote: ".join(notes)


def _unknown(spec: ModelSpec) -> list:
    """CONDITIONING in place of a source that is not connected.

    Raises:
        ValueError: a family of text.
    """
    unknown = unknown_conditioning(spec)
    if unknown is None:
        raise ValueError(
            f"the source input is not connected, and {spec.source} needs it: describe the image in a PixelDiT Text "
            "Prompt, and connect its positive output."
        )
    return unknown


def _describe(settings: EditSettings, size: tuple[int, int]) -> str:
    return (
        f"{settings.steps} steps, cfg {settings.cfg:g}, source {settings.source_cfg:g}, from {settings.start:g} to "
        f"{settings.end:g}, {size[1]} x {size[0]}"
    )
