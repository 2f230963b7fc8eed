"""What ComfyUI is to sample from, checked before: later, NaN and infinity would look like damaged weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...pixeldit_core.sampling import check_input

# Of what ComfyUI hands to a model before it samples, by the names of users; its noise it draws itself
_INPUTS = {"latent_image": "latent", "denoise_mask": "mask of the latent", "mask": "mask of the conditioning"}


def check_conditioning(conditioning: list, name: str) -> None:
    """Raises ValueError for NaN or infinity in a CONDITIONING, at the input of that name."""
    for tensor, entries in conditioning:
        for value in (tensor, entries.get("pooled_output"), entries.get("mask")):
            check_input(_tensor(value), f"conditioning ({name})")


def check_given(given: dict[str, Any]) -> None:
    """What `extra_conds` of a model gets for one conditioning: once in a run of sampling, not in each step.

    Raises:
        ValueError: NaN or infinity; an area outside of the image.
    """
    kind = given.get("prompt_type", "")
    for key in ("cross_attn", "pooled_output"):
        check_input(_tensor(given.get(key)), f"conditioning ({kind})" if kind else "conditioning")
    for key, name in _INPUTS.items():
        check_input(_tensor(given.get(key)), name)
    _check_area(given)


def _check_area(given: dict[str, Any]) -> None:
    """Raises ValueError if the area of a conditioning holds no pixel; ComfyUI would end in PyTorch's words."""
    area, noise = given.get("area"), given.get("noise")
    if area is None or noise is None or len(area) != 4:
        return
    (rows, columns, top, left), (height, width) = area, noise.shape[-2:]
    if top >= height or left >= width or not rows or not columns:
        raise ValueError(
            f"the area of a conditioning is {columns} x {rows} pixels at {left}, {top} (from the left and the top); "
            f"the image is {width} x {height}. Conditioning (Set Area) divides its values by 8, for models with a VAE: "
            "use Conditioning (Set Area with Percentage) or Conditioning (Set Mask)."
        )


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None
