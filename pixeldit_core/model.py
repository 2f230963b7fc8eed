"""A network together with what is known of it, and the common language above all families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .families import PRESETS, Family, build_network, find_family
from .labels import Names, find_class, imagenet_names
from .recipes import Recipe
from .sizes import Size


class Trained:
    """What follows from a `family`, its `params` and a checkpoint's own `recipe`; sizes are (height, width)."""

    family: Family
    params: Any
    recipe: Recipe | None

    @property
    def trained_sizes(self) -> tuple[Size, ...]:
        """Those of the checkpoint's own recipe, else of the family."""
        return (self.recipe.size,) if self.recipe and self.recipe.size else self.family.trained_sizes(self.params)

    def recipe_for(self, size: Size | None = None) -> Recipe:
        """The checkpoint's own recipe, else the family's for this size."""
        return self.recipe or self.family.default_recipe(self.params, size)

    @property
    def own_size(self) -> Size:
        """What to make where nothing else is asked for."""
        return self.recipe_for(None).size or self.family.default_recipe(self.params, None).size


@dataclass(eq=False)
class Model(Trained):
    """A loaded or built model."""

    family: Family
    params: Any
    network: nn.Module
    class_names: Names | None = None
    recipe: Recipe | None = None  #  the checkpoint's own
    source: str = ""  #              file name, for messages
    weights: str = ""  #             of the file: "ema" or "raw"

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def velocity(self, x: Tensor, t: float | Tensor, condition: Any, **options: Any) -> Tensor:
        """dx/dt at the state `x` and time `t` (0 = noise, 1 = image), in the dtype of `x`.

        Args:
            x: [B, C, H, W] in the model's own range.
            t: a number, or a tensor of no dimension or [B].
            condition: of B rows, or of one row for all; a tensor or a tuple of tensors.
            options: handed to the attention function.
        """
        batch = x.shape[0]
        if isinstance(t, Tensor):
            time = t.to(x.device, torch.float32).expand(batch)
        else:
            time = torch.full((batch,), t, device=x.device)
        arguments = condition if isinstance(condition, tuple) else (condition,)
        arguments = tuple(_rows(part, batch, x.device) for part in arguments)
        dtype = self.dtype

        def network(x: Tensor, *rest: Any, **options: Any) -> Tensor:
            return self.network(x.to(dtype), *rest, **options)

        return self.family.velocity(network, self.params, x, time, arguments, **options).to(x.dtype)


def _rows(part: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    if part is None:
        return None
    if part.shape[0] not in (1, batch):
        raise ValueError(
            f"the condition has {part.shape[0]} rows for {batch} images; give one for each, or one for all."
        )
    return part.to(device).expand(batch, *part.shape[1:])


def default_class_names(family: Family, params: Any) -> Names | None:
    """ImageNet's names for a network of 1,000 classes; others have those of their file, or none."""
    if family.condition == "class" and params.num_classes == len(imagenet_names()):
        return imagenet_names()
    return None


def build(family: str | Family, params: Any, *, device: torch.device | str = "meta", **kit: Any) -> Model:
    """A model without weights: on "meta" for shapes and counts, elsewhere with unfilled memory.

    Args:
        family: its name or record.
        params: the name of a preset ("PixelDiT-XL"), or a params object of the family.
        kit: operations, attention, dtype.

    Raises:
        ValueError: unknown family or preset, or params of another family.
    """
    record = find_family(family) if isinstance(family, str) else family
    if isinstance(params, str):
        if params not in PRESETS or PRESETS[params].family != record.name:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.family == record.name)
            raise ValueError(f'preset "{params}" is not known for {record.name}; there are {known}.')
        params = PRESETS[params].params
    if not isinstance(params, record.params):
        raise ValueError(f"{record.name} takes {record.params.__name__}, not {type(params).__name__}.")
    network = build_network(record, params, device=device, **kit)
    return Model(record, params, network, default_class_names(record, params))


def class_condition(model: Model, classes: Any) -> Tensor:
    """Classes as numbers, names or "207: golden retriever" -> int64 [n]. The index of no class is allowed.

    Raises:
        ValueError: a family without classes; a class out of range, unknown or ambiguous.
    """
    _require_classes(model)
    entries = [classes] if isinstance(classes, int | str) else list(classes)
    count = model.params.num_classes
    return torch.tensor([find_class(_plain(entry), count, model.class_names) for entry in entries], dtype=torch.int64)


def null_condition(model: Model, n: int) -> Tensor:
    """No class, n times: int64 [n], the last row of the table.

    Raises:
        ValueError: a family of text: encode the negative prompt instead.
    """
    _require_classes(model)
    return model.family.null(model.params, n)


def text_condition(model: Model, embeds: Tensor, mask: Tensor | None = None, pooled: Tensor | None = None) -> Any:
    """The states of a text encoder, as the network takes them: what its family ignores is dropped.

    Args:
        embeds: [B, T, C] or [B, 1, T, C].
        mask: [B, T], 1 = a token of the text, 0 = padding, None = no padding; dropped for the official text-to-image
            network, to which padding belongs.
        pooled: [B, C], one vector for the whole text.

    Raises:
        ValueError: a family of classes; states of another width, or not of that shape.
    """
    if model.family.condition != "text":
        raise ValueError(f"{model.family.title} is conditioned on classes, not on text: use class_condition.")
    if embeds.ndim == 4 and embeds.shape[1] == 1:
        embeds = embeds[:, 0]
    width = model.params.txt_embed_dim
    if embeds.ndim != 3 or embeds.shape[-1] != width:
        raise ValueError(
            f"the text has shape {list(embeds.shape)}; expected [B, T, {width}]: the states of the text encoder that "
            "the model was trained with."
        )
    if mask is None and "mask" in model.family.text_parts:
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    parts = {"embeds": embeds, "mask": mask, "pooled": pooled}
    taken = tuple(parts[name] for name in model.family.text_parts)
    return taken[0] if len(taken) == 1 else taken


def _plain(entry: Any) -> int | str:
    return int(entry) if isinstance(entry, Tensor) else entry


def _require_classes(model: Model) -> None:
    if model.family.condition != "class":
        raise ValueError(
            f"{model.family.title} is conditioned on text, not on classes: encode a prompt, "
            'and "" or a negative prompt for no condition.'
        )
