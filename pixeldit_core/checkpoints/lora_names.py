"""Names of the tensors in LoRA files: the module that each belongs to, and which part of the change to it.

A name is `<module>.<part>`. The part starts at the first piece that only adapters have, so that whatever follows, such
as a user's name of a PEFT adapter (with dots, blanks, any letters), never becomes a part of the module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..text import shorten_list
from .lora_difference import PARTS
from .wrappers import WRAPPERS, unwrap

# Where a tensor's name goes on after its module's, in any file that ComfyUI can add to a model.
_PART = re.compile(
    r"\.(?:lora_(?!unet_|transformer_|te\d*_)|lora\.(?:up|down)\.|hada_|lokr_|oft_|[ab][12]\.weight$"
    r"|[wb]_norm$|diff$|diff_b$|alpha$|dora_scale$|rescale$|set_weight$|reshape_weight$)"
)
# Parts that are read here: PEFT's names (A = down, B = up), and those of ComfyUI, kohya and diffusers. All of them call
# alpha the same. The name of the adapter may follow. A difference: ComfyUI's names. Without "weight": PixelDiT2's.
_READ = re.compile(
    r"(?:lora_(?P<peft>[AB])|lora(?:_linear_layer)?[._](?P<role>up|down))(?:\.(?P<adapter>.+))?\.weight"
    r"|lora_(?P<bare>[AB])|lora_(?P<bias>B)(?:\.(?P<named>.+))?\.bias|(?P<same>alpha|diff|diff_b)",
    re.DOTALL,
)
_SHOWN = 5  # names of adapters in a message


@dataclass(frozen=True)
class Part:
    """What a tensor is for its module."""

    role: str  #            "up", "down", "bias" (of up), "alpha", "diff" or "diff_b"
    peft: bool = False  #   in PEFT's names, so PEFT's settings are about it
    adapter: str | None = None  #  PEFT's name of the adapter, where the file has it


@dataclass
class Module:
    """The tensors of one module, by role."""

    path: str  # as the file calls it
    parts: dict[str, Tensor] = field(default_factory=dict)
    peft: bool = False
    adapters: set[str | None] = field(default_factory=set)  # names that its matrices have

    def add(self, part: Part, value: Tensor, source: str) -> None:
        """One more tensor.

        Raises:
            ValueError: there is one for this part.
        """
        if part.role not in ("alpha", *PARTS):
            self.peft |= part.peft
            self.adapters.add(part.adapter)
        if part.role in self.parts:
            check_adapters(self.adapters, source)
            raise ValueError(f"{source} has two {part.role} tensors for {self.path}. Save one adapter alone.")
        self.parts[part.role] = value


def split_name(name: str) -> tuple[str, str | None]:
    """Module and part; without a part, all of it is the module."""
    found = _PART.search(name)
    return (name[: found.start()], name[found.start() + 1 :]) if found else (name, None)


def read_part(part: str) -> Part | None:
    """What a part means; None = another kind of adapter, or nothing that is read."""
    if not (found := _READ.fullmatch(part)):
        return None
    if found["bias"]:
        return Part("bias", True, found["named"])
    if found["same"]:
        return Part(found["same"])
    if found["bare"]:
        return Part({"A": "down", "B": "up"}[found["bare"]])
    return Part(found["role"] or {"A": "down", "B": "up"}[found["peft"]], bool(found["peft"]), found["adapter"])


def plain_module(module: str) -> str:
    """A module's name without the pieces of wrappers, also where "_" stands for "." as kohya writes it."""
    module = unwrap(module)
    for piece in WRAPPERS:  # no name of a network has one
        module = module.replace(f"{piece}_", "").removesuffix(f"_{piece}")
    return module


def group_parts(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, Module], list[str]]:
    """Tensors by module, and the names of those that are no part of a LoRA.

    Raises:
        ValueError: two tensors for one part.
    """
    modules, others = {}, []
    for name, value in tensors.items():
        path, rest = split_name(name)
        part = read_part(rest) if rest is not None and path else None
        if part is None:
            others.append(name)
            continue
        modules.setdefault(path, Module(path)).add(part, value, source)
    return modules, others


def check_adapters(names: Iterable[str | None], source: str) -> None:
    """Make sure that at most one adapter is named.

    Raises:
        ValueError: there are more, which nobody can tell how to add up.
    """
    named = sorted({name for name in names if name is not None})
    if len(named) > 1:
        shown = shorten_list([f'"{name[:80]}"' for name in named], _SHOWN)
        raise ValueError(f"{source} has {len(named)} adapters: {shown}. Save the one that you want alone.")
