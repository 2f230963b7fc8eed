"""DoRA (arXiv 2402.09353): a weight as magnitude times direction, where an adapter changes the direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor


class Decomposed(WeightAdapterBase):
    """m * (W + delta) / |W + delta|, norms by row for m [out, 1] and by column for m [1, in].

    Not by ComfyUI's `dora_scale`: for norms by row it divides by those of W alone, before the change.
    """

    name = "dora"

    def __init__(self, loaded_keys: set[str], weights: tuple[WeightAdapterBase, Tensor]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    @classmethod
    def around(cls, adapter: WeightAdapterBase, magnitude: Tensor, shape: tuple[int, ...]) -> Decomposed:
        """An adapter with a magnitude for a weight of this shape. PEFT's magnitude [out] has no second dimension."""
        if magnitude.ndim == 1:
            magnitude = magnitude[:, None] if len(magnitude) == shape[0] else magnitude[None]
        return cls(set(), (adapter, magnitude))

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """The weight with its share of strength; as ComfyUI calls it, `weight` is changed in place, too."""
        adapter, magnitude = self.weights
        start = weight.to(intermediate_dtype)
        merged = adapter.calculate_weight(
            start.clone(), key, 1.0, 1.0, None, lambda delta: delta, intermediate_dtype, original_weight
        )
        magnitude = magnitude.to(weight.device, intermediate_dtype)
        norm = merged.norm(dim=1 if magnitude.shape[1] == 1 else 0, keepdim=True)
        decomposed = magnitude * merged / (norm + torch.finfo(intermediate_dtype).eps)
        weight += function((strength * (decomposed - start)).to(weight.dtype))
        return weight
