"""A network together with its spec, and the common language above all families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .families import VARIANTS, Family, build_network, find_family
from .labels import Names
from .settings import SamplingSettings
from .spec import ModelSpec, default_class_names

Condition = Tensor | tuple[Tensor | None, ...]  # one row per image, or one for all


@dataclass(eq=False)
class Model:
    """A loaded or built model."""

    spec: ModelSpec
    network: nn.Module

    @property
    def family(self) -> Family:
        return self.spec.family

    @property
    def params(self) -> Any:
        return self.spec.params

    @property
    def class_names(self) -> Names | None:
        return self.spec.class_names

    @property
    def settings(self) -> SamplingSettings | None:
        """The checkpoint's own."""
        return self.spec.settings

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def velocity(self, x: Tensor, t: float | Tensor, condition: Condition, **options: Any) -> Tensor:
        """dx/dt at the state `x` and time `t` (0 = noise, 1 = image), in the dtype of `x`.

        Args:
            x: [B, C, H, W] in the model's own range.
            t: a number, or a tensor of no dimension or [B].
            condition: of B rows, or of one row for all; a tensor or a tuple of tensors.
            options: passed to the attention function.

        Raises:
            ValueError: a condition of another number of rows.
        """
        batch, dtype = x.shape[0], self.dtype
        if isinstance(t, Tensor):
            time = t.to(x.device, torch.float32).expand(batch)
        else:
            time = torch.full((batch,), t, device=x.device)
        parts = condition if isinstance(condition, tuple) else (condition,)
        rows = tuple(_rows(part, batch, x.device) for part in parts)

        def network(x: Tensor, *rest: Any, **options: Any) -> Tensor:
            return self.network(x.to(dtype), *rest, **options)

        return self.family.velocity(network, self.params, x, time, rows, **options).to(x.dtype)


def _rows(part: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    if part is None:
        return None
    if part.shape[0] not in (1, batch):
        raise ValueError(
            f"the condition has {part.shape[0]} rows for {batch} images; give one for each, or one for all."
        )
    return part.to(device).expand(batch, *part.shape[1:])


def build_model(
    family: str | Family, params: Any, *, device: torch.device | str = "meta", **factory_kwargs: Any
) -> Model:
    """A model without weights: on "meta" for shapes and counts, elsewhere with unfilled memory.

    Args:
        family: its name or record.
        params: the name of a variant ("PixelDiT-XL"), or a params object of the family.
        factory_kwargs: operations, attention, dtype.

    Raises:
        ValueError: unknown family or variant, or params of another family.
    """
    record = find_family(family) if isinstance(family, str) else family
    if isinstance(params, str):
        if params not in VARIANTS or VARIANTS[params].family != record.name:
            known = ", ".join(name for name, variant in VARIANTS.items() if variant.family == record.name)
            raise ValueError(f'variant "{params}" is not known for {record.name}; there are {known}.')
        params = VARIANTS[params].params
    if not isinstance(params, record.params):
        raise ValueError(f"{record.name} takes {record.params.__name__}, not {type(params).__name__}.")
    network = build_network(record, params, device=device, **factory_kwargs)
    return Model(ModelSpec(record, params, default_class_names(record, params)), network)
