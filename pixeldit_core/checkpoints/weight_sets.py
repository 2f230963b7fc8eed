"""Which networks are in a file, and which of them are raw weights and which an average (EMA, SWA), by their names.

Trainers put words before a network's own names: `model_ema1.net.`, `ema.shadow_params.`, `online_model.`. The words
decide, not a list of trainers.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..families import FAMILIES, Family

# Words of an average
AVERAGE = frozenset(
    "ema emas phema averaged average averages averaging avg ma swa target shadow polyak smoothed smooth "
    "lookahead".split()
)
# Of them, those that also say it in the name of a file
_IN_FILE_NAMES = AVERAGE - frozenset("target shadow smoothed smooth lookahead ma".split())
# Words of the weights that are trained, even within something that is called an average
TRAINED = frozenset("raw online current live nonema noema".split())
# Before an average's word: not one
_NOT = frozenset("non no not without wo".split())
# Words of something else than the network that generates images
OTHER = frozenset(
    "critic discriminator disc d teacher fake real reference ref backup collected optimizer optimizers optim opt adam "
    "exp sq momentum grad grads gradient gradients variance scheduler initial init lpips perceptual".split()
)
# Of them, those of something that may keep an average of the weights: NeMo's optimizers do
_KEEPERS = frozenset("optimizer optimizers optim opt".split())
# Words that say nothing
PLAIN = frozenset(
    "model models module modules net nets network networks state states dict dicts sd core denoiser denoise diffusion "
    "transformer dit pixeldit pixel pixelhdm pixdit xpred backbone unet unwrapped base generator gen weights weight "
    "params param parameters parameter pl lightning checkpoint checkpoints ckpt trainer training train learner main "
    "app student runner engine g best only last latest final step epoch decay callback callbacks inner flow "
    "velocity image images text class torch data value values copy fp bf float orig mod compiled ddp fsdp full t i x c "
    "to".split()
)
MOST_NETWORKS = 16  # in one file that is loaded
_FEWEST = 8  #    tensors that are a part of an average, and no counters
_DEEPEST = 12  #  words before a name
_WORD = re.compile(r"\d[dD](?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_DIMENSIONS = re.compile(r"\d[dD]")  # as in "dit2d": no word
# Where a trainer exchanges what its names say: beside these raw weights, those that are called raw are the average
_CURRENT = re.compile(r"(?:.*\.)?current_model_state\..*")  # Lightning's WeightAveraging
_SWAPPED = "ema_state_dict.module."  #                         mmengine's EMAHook, which has `steps` beside `module.`


@dataclass(frozen=True)
class Group:
    """One set of weights of a network inside of a file: the keys that start with `prefix`.

    `role` is "ema" (any average), "raw", "unknown" (a word before its names is not in the tables) or "other" (a
    critic, a teacher, the moments of an optimizer).
    """

    family: Family
    prefix: str
    role: str = "raw"

    @property
    def ema(self) -> bool:
        return self.role == "ema"

    @property
    def weights(self) -> str:
        return "ema" if self.ema else "raw"

    @property
    def name(self) -> str:
        """To choose it by, where a file has several."""
        return self.prefix.removesuffix(".") or "(no prefix)"


def find_groups(keys: Iterable[str], declared: str = "") -> list[Group]:
    """Every complete network in a file, whatever its prefix: averages and raw weights first, in the file's order.

    Args:
        keys: names without the pieces of wrappers (`wrappers.unwrap`).
        declared: "ema" or "raw", by the file's metadata or name: of its only network, where the keys do not say it.
    """
    keys = dict.fromkeys(keys)
    groups = []
    for family in FAMILIES.values():
        first = family.markers[0]
        for prefix in (key[: -len(first)] for key in keys if key.endswith(first)):
            if prefix and not prefix.endswith("."):
                continue
            if any(prefix + marker in keys for marker in family.excluded_markers):
                continue
            if all(prefix + marker in keys for marker in family.markers):
                groups.append(Group(family, prefix, role_of(prefix)))
    if len(groups) <= MOST_NETWORKS:
        groups = _compare(groups, keys)
    alone = [group for group in groups if group.role != "other"]
    if declared and len(alone) == 1 and alone[0].role == "raw" and not TRAINED & set(words_of(alone[0].prefix)):
        groups = [replace(group, role=declared) if group is alone[0] else group for group in groups]
    return sorted(groups, key=lambda group: group.role in ("unknown", "other"))


def role_of(prefix: str, strict: bool = False) -> str:
    """The role of the network whose names start with `prefix`, by its words; as in `Group`.

    Of several words about averages the last one decides: "ema.online_model." is raw, "online_ema." is not.

    Args:
        strict: "unknown" with any word that is not in the tables.
    """
    words = words_of(prefix)
    others = OTHER & set(words)
    if others and not (others <= _KEEPERS and AVERAGE & set(words_of(prefix.removesuffix(".").rpartition(".")[2]))):
        return "other"
    if strict and not set(words) <= PLAIN | AVERAGE | TRAINED | _NOT:
        return "unknown"
    said = [_said_by(words, index) for index, word in enumerate(words) if word in AVERAGE or word in TRAINED]
    if said:
        return said[-1]
    return "raw" if set(words) <= PLAIN else "unknown"


def _said_by(words: list[str], index: int) -> str:
    """Which weights a word of `AVERAGE` or `TRAINED` means, after the word before it."""
    negated = index > 0 and words[index - 1] in _NOT
    return "ema" if words[index] in AVERAGE and not negated else "raw"


def said_by_file_name(name: str) -> str | None:
    """Which weights the name of a file or folder says: "ema"; empty for others; None = it says nothing of it."""
    words = set(words_of(name))
    if not words & (_IN_FILE_NAMES | TRAINED):
        return None
    return "ema" if words & _IN_FILE_NAMES and role_of(name) == "ema" else ""


def choose_group(groups: Iterable[Group], weights: str, name: str) -> Group:
    """The network to load.

    Args:
        weights: "ema", "raw", "auto" (what the authors' own inference takes, where the file has both), or the name of
            a group.
        name: of the file, for messages.

    Raises:
        ValueError: not there, or not clear which it is.
    """
    groups = list(groups)
    if named := [group for group in groups if group.name == weights]:
        return named[0]
    names = ", ".join(group.name for group in groups)
    if weights not in ("auto", "ema", "raw"):
        raise ValueError(f'weights "{weights}" is not a choice; take "auto", "ema" or "raw", or one of {names}.')
    known = [group for group in groups if group.role in ("ema", "raw")]
    if not known:
        known = _only_one(groups, name)
    elif weights == "raw" and all(group.ema for group in known) and (unknown := _of_role(groups, "unknown")):
        known = [*known, *_only_one(unknown, name)]
    prefer = known[0].family.prefers_ema if weights == "auto" else weights == "ema"
    if preferred := [group for group in known if group.ema == prefer]:
        return preferred[0]
    if weights == "auto":
        return known[0]
    available = ", ".join(sorted({group.weights for group in known}))
    raise ValueError(f'{name} has no {weights} weights, only {available}. Choose "auto".')


def _only_one(groups: list[Group], name: str) -> list[Group]:
    """The only network whose words say nothing of its role."""
    unknown = _of_role(groups, "unknown")
    if len(unknown) == 1:
        return unknown
    names = ", ".join(group.name for group in groups[:16])
    if unknown:
        raise ValueError(
            f"{name} holds {len(unknown)} networks, {names}, and their names do not say which one generates images. "
            'In Python or on the command line choose one by its name (weights="..."), and save it alone.'
        )
    raise ValueError(
        f"{name} holds no weights to generate images with, only those of a training's other networks or of its "
        f"optimizer: {names}. Choose the file with the model itself."
    )


def incomplete_averages(groups: Iterable[Group], keys: Iterable[str]) -> dict[str, int]:
    """Averages of which a file has only a part, as of the trained parameters: the number of tensors by prefix."""
    keys, groups = list(keys), list(groups)
    others = tuple(group.prefix for group in groups if group.prefix)
    raw = tuple(group.prefix for group in groups if group.role == "raw")
    names = {key[len(prefix) :] for prefix in raw for key in keys if key.startswith(prefix)}
    counts: Counter[str] = Counter()
    for key in keys:
        pieces = key.split(".", _DEEPEST) if not key.startswith(others) else ()
        for count in range(1, min(len(pieces), _DEEPEST)):
            if ".".join(pieces[count:]) in names:
                counts[".".join(pieces[:count]) + "."] += 1
                break
    return {place: count for place, count in counts.items() if count >= _FEWEST and role_of(place) == "ema"}


def _of_role(groups: list[Group], role: str) -> list[Group]:
    return [group for group in groups if group.role == role]


def _compare(groups: list[Group], keys: Mapping[str, None]) -> list[Group]:
    """Roles that only the other content of a file tells."""
    raws = [group.prefix for group in groups if _CURRENT.fullmatch(group.prefix) or _is_swapped(group.prefix, keys)]
    averaged = [_without_average(group.prefix) for group in groups if group.role == "ema"]
    shared = _shared_place([group.prefix for group in groups])
    compared = []
    for group in groups:
        role = role_of(group.prefix[len(shared) :]) if group.role == "unknown" else group.role
        if role == "unknown" and words_of(group.prefix) in averaged:
            role = "raw"
        if role == "raw" and (bool(raws) or _is_averaged_model(group.prefix, keys)) and group.prefix not in raws:
            role = "ema"
        elif role == "ema" and (
            _is_swapped(group.prefix, keys) or any(_is_inner(other.prefix, group.prefix) for other in groups)
        ):
            role = "raw"
        compared.append(replace(group, role=role))
    return compared


def _shared_place(prefixes: list[str]) -> str:
    """The containers that all networks of a file are in, of several networks."""
    parts = [prefix.split(".")[:-1] for prefix in prefixes] if len(prefixes) > 1 else []
    shared = list(itertools.takewhile(lambda of: len(set(of)) == 1, zip(*parts, strict=False)))
    return "".join(f"{part[0]}." for part in shared)


def _without_average(prefix: str) -> list[str]:
    return [word for word in words_of(prefix) if word not in AVERAGE]


def _is_swapped(prefix: str, keys: Mapping[str, None]) -> bool:
    """Whether these are the raw weights of mmengine's EMAHook, which it exchanges with the average as it saves."""
    place, swapped, _ = prefix.partition(_SWAPPED)
    return bool(swapped) and f"{place}ema_state_dict.steps" in keys


def _is_averaged_model(prefix: str, keys: Mapping[str, None]) -> bool:
    """Whether a network is in torch's AveragedModel: below `module.`, with the number of averaged steps beside it."""
    place, module, _ = f".{prefix}".partition(".module.")
    return bool(module) and f"{place}.n_averaged".removeprefix(".") in keys


def _is_inner(other: str, prefix: str) -> bool:
    """Whether `other` is the average, and `prefix` not, of one module that holds both: ema.ema_model., ema.model."""
    container, _, rest = prefix.partition(".")
    start, _, inner = other.partition(".")
    return start == container and role_of(inner) == "ema" and bool(rest) and role_of(rest) == "raw"


def words_of(prefix: str) -> list[str]:
    """The words of a prefix, in lower case: "EMACallback.net_ema1." gives ema, callback, net, ema, as "netema" does."""
    words = []
    for word in map(str.lower, _WORD.findall(prefix)):
        if _DIMENSIONS.fullmatch(word):
            continue
        start, end = word.removeprefix("ema"), word.removesuffix("ema")
        if word in TRAINED or word in PLAIN or word in AVERAGE:
            words.append(word)
        elif start != word and start in PLAIN:
            words += ["ema", start]
        elif end != word and end in PLAIN:
            words += [end, "ema"]
        else:
            words.append(word)
    return words
