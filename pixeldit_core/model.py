"""A network together with its spec, and the common language above all families."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .families import VARIANTS, Family, build_network, find_family
from .labels import Names
from .settings import SamplingSettings
from .spec import ModelSpec, default_class_names

Parts = tuple[Tensor | None, ...]
Condition = Tensor | Parts  # one row per image, or one for all


class Arguments(NamedTuple):
    """What a network call takes besides the states."""

    time: Tensor  # [B]
    condition: Parts  # of B rows each
    options: dict[str, Tensor]  # what depends on the condition's values: the family's `choose`


@dataclass(eq=False)
class Model:
    """A loaded or built model."""

    spec: ModelSpec
    network: nn.Module
    compiled: Any = field(default=None, init=False, repr=False)  # a `CompiledVelocity`, after its first use

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
        given = self.arguments(x, t, condition)
        return self.predict_velocity(x, given.time, given.condition, **given.options, **options)

    def arguments(self, x: Tensor, t: float | Tensor, condition: Condition) -> Arguments:
        """The other arguments of `predict_velocity`; as of `velocity`."""
        batch = x.shape[0]
        if isinstance(t, Tensor):
            time = t.to(x.device, torch.float32).expand(batch)
        else:
            time = torch.full((batch,), t, device=x.device)
        parts = tuple(_rows(part, batch) for part in (condition if isinstance(condition, tuple) else (condition,)))
        # before they move: of values on the CPU nothing waits for the device
        options = self.family.choose(self.params, parts) if self.family.choose else {}
        moved = tuple(None if part is None else part.to(x.device) for part in parts)
        return Arguments(time, moved, {name: value.to(x.device) for name, value in options.items()})

    def predict_velocity(self, x: Tensor, time: Tensor, condition: Parts, **options: Any) -> Tensor:
        """dx/dt at the states `x` [B, C, H, W] and times [B], from arguments on one device: the part to compile."""

        def network(x: Tensor, *rest: Any, **options: Any) -> Tensor:
            return self.network(x.to(self.dtype), *rest, **options)

        return self.family.velocity(network, self.params, x, time, condition, **options).to(x.dtype)


def _rows(part: Tensor | None, batch: int) -> Tensor | None:
    if part is None:
        return None
    if part.shape[0] not in (1, batch):
        raise ValueError(
            f"the condition has {part.shape[0]} rows for {batch} images; give one for each, or one for all."
        )
    return part.expand(batch, *part.shape[1:])


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
