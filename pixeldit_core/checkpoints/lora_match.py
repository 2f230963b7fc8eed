"""Which weight of a network each module of a LoRA file is for, whatever the names of its writer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..families import Shapes
from .layouts import PREFIXES, other_names
from .lora_delta import MAPS, WHOLE
from .lora_names import plain_module, split_name
from .lora_text import is_text_encoder
from .weight_sets import role_of

# What writers put before a module's path in the network, any number of times
_DOTTED = ("base_model.", "unet.", *PREFIXES)
_FLAT = ("lora_unet", "lora_transformer", "lycoris")
_CONTAINERS = ("lora.", "lora_state_dict.", "lora_weights.", "adapter.", "network.")  # in pickled files
_PREFIXES = (
    *_CONTAINERS,
    *(start + end for start in _FLAT for end in "_."),
    *_DOTTED,
    *(piece.replace(".", "_") for piece in _DOTTED),
)
_WORDS = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*[._]")  # before a module's path: no number of a block
_LORA = re.compile(r"(?:^|(?<=[._]))(?:lora|loras|lycoris|adapter|prior|pipe|unet|trainable)(?=[._])")  # says nothing
_OTHERS = re.compile(r"control|refiner|encoder|decoder|vae|upscal|embed", re.IGNORECASE)  # networks beside ours
_SAVED = re.compile(r"\.modules_to_save\.[^.]+(?=\.)")  # PEFT's place of a whole module, with the adapter's name


@dataclass(frozen=True)
class Matched:
    """Which weight of a network each module of a LoRA file is for."""

    modules: dict[str, str] = field(default_factory=dict)  # module as the file calls it -> canonical name of its weight
    unknown: list[str] = field(default_factory=list)  #      modules, and tensors of none, that fit no weight

    @property
    def total(self) -> int:
        return len(self.modules) + len(self.unknown)


def match_modules(keys: Iterable[str], shapes: Shapes, source: str) -> Matched:
    """Match a file's modules to a network by name alone, whatever kind of adapter it is (LoRA, LoHa, LoKr, OFT, ...).

    Args:
        keys: names of the file's tensors, in any of the key styles that `read_lora` reads.
        shapes: of the network's weights by canonical name. Names of ComfyUI's halves of a pixel modulation match, too:
            "pixel_blocks.0.adaLN_modulation_msa.weight", which is not among `shapes`.
        source: file name, for messages.

    Raises:
        ValueError: two modules for one weight.
    """
    return match_paths(dict.fromkeys(split_name(key)[0] for key in keys), shapes, source)


def match_paths(modules: Iterable[str], shapes: Shapes, source: str) -> Matched:
    """`match_modules`, of modules in place of tensors."""
    paths = {path.removesuffix(".weight"): name for name in find_sizes(shapes) for path in (*other_names(name), name)}
    paths |= {path.replace(".", "_"): name for path, name in paths.items()}  # as kohya writes them; no two become equal
    matched, owners = Matched(), {}
    plain = {module: plain_module(module) for module in modules}
    words = _learn_words((path for path in plain.values() if _find(path, paths) is None), paths)
    for module, path in plain.items():
        after = (path[len(start) :] for start in words if path.startswith(start))
        name = _find(path, paths) or next((paths[rest] for rest in after if rest in paths), None)
        if name is None:
            matched.unknown.append(module)
            continue
        if name in owners:
            raise ValueError(f"{source} has two modules for {name}: {owners[name]} and {module}. Save one alone.")
        owners[name] = module
        matched.modules[module] = name
    return matched


def find_sizes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights, and of ComfyUI's halves of those of the pixel modulation that have six maps."""
    sizes = {name: tuple(shape) for name, shape in shapes.items() if name.endswith(".weight")}
    for name, shape in tuple(sizes.items()):
        if match := WHOLE.fullmatch(name):
            width, channels = sizes["pixel_embedder.proj.weight"]
            if shape[0] == 6 * width * sizes["s_embedder.proj.weight"][1] // channels:
                sizes |= {f"{match['block']}_{half}.weight": (shape[0] // 2, *shape[1:]) for half in MAPS}
    return sizes


def find_whole(names: Iterable[str], shapes: Shapes) -> list[str]:
    """Those of a file's tensors that are whole ones of the network (PEFT's `modules_to_save` and `bias`)."""
    paths = {path: name for name in shapes for path in (*other_names(name), name)}
    return [name for name in names if _find(plain_module(_SAVED.sub("", name)), paths)]


def is_flat(module: str) -> bool:
    """Whether a module is named as kohya and LyCORIS do, which know nothing of PEFT's settings."""
    return module.startswith(_FLAT)


def _find(path: str, paths: dict[str, str]) -> str | None:
    """The weight of a path after any number of prefixes."""
    while path not in paths and (piece := next((piece for piece in _PREFIXES if path.startswith(piece)), None)):
        path = path[len(piece) :]
    return paths.get(path)


def _learn_words(modules: Iterable[str], paths: dict[str, str]) -> list[str]:
    """Other words that a file has before the paths of blocks: how its trainer calls what holds the network.

    Before a dot any words will do but those of another network; in kohya's names, where "_" may be within a word, all
    of them have to be words of the tables, so that the blocks of other models do not look like ours.
    """
    learned = {}
    for module in modules:
        for at in (found.end() for found in re.finditer(r"[._]", module)):
            words, rest = module[:at], module[at:]
            if words not in learned and rest in paths and re.search(r"\d", rest):
                learned[words] = _is_of_network(words) and not is_text_encoder(module)
    return [words for words, taken in learned.items() if taken]


def _is_of_network(words: str) -> bool:
    role = role_of(_LORA.sub("", words))
    if role == "other" or _OTHERS.search(words) or not _WORDS.fullmatch(words):
        return False
    return words.endswith(".") or role != "unknown"
