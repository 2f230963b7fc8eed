"""Which networks are in a file, and which of them are raw weights and which an average (EMA, SWA), by their names.

Trainers put words before a network's own names: `model_ema1.net.`, `ema.shadow_params.`, `online_model.`. The words
decide, not a list of trainers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..families import FAMILIES, Family

# Words of an average
AVERAGE = frozenset(
    "ema emas averaged average averages averaging avg swa target shadow polyak smoothed smooth lookahead".split()
)
# Words of the weights that are trained, even within something that is called an average
TRAINED = frozenset("raw online current live student nonema noema".split())
# Before an average's word: not one
_NOT = frozenset("non no not without".split())
# Words of something else than the network that generates images
OTHER = frozenset(
    "critic discriminator disc d teacher fake real reference ref backup collected optimizer optimizers optim opt adam "
    "exp sq momentum grad grads gradient gradients variance scheduler initial init lpips perceptual".split()
)
# Words that say nothing
PLAIN = frozenset(
    "model models module modules net nets network networks state states dict dicts sd core denoiser denoise diffusion "
    "transformer dit pixeldit pixel pixelhdm pixdit xpred backbone unet unwrapped base generator gen weights weight "
    "params param parameters parameter pl lightning checkpoint checkpoints ckpt trainer training train learner main "
    "app g best last latest final step epoch decay callback callbacks inner flow velocity image images text class "
    "torch data value values copy fp bf float orig mod compiled ddp fsdp full t i x c to".split()
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CURRENT = "current_model_state."  # Lightning's WeightAveraging: beside it, `state_dict` is the average


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
    groups = _compare(groups, keys)
    if declared and len(groups) == 1 and groups[0].role == "raw" and not TRAINED & set(words_of(groups[0].prefix)):
        groups = [replace(groups[0], role=declared)]
    return sorted(groups, key=lambda group: group.role in ("unknown", "other"))


def role_of(prefix: str) -> str:
    """The role of the network whose names start with `prefix`, by its words; as in `Group`."""
    words = words_of(prefix)
    if OTHER & set(words):
        return "other"
    if TRAINED & set(words):
        return "raw"
    averages = [index for index, word in enumerate(words) if word in AVERAGE]
    if averages:
        negated = all(index and words[index - 1] in _NOT for index in averages)
        return "raw" if negated else "ema"
    return "raw" if set(words) <= PLAIN else "unknown"


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
    prefer = known[0].family.prefers_ema if weights == "auto" else weights == "ema"
    if preferred := [group for group in known if group.ema == prefer]:
        return preferred[0]
    if weights == "auto":
        return known[0]
    available = ", ".join(sorted({group.weights for group in known}))
    raise ValueError(f'{name} has no {weights} weights, only {available}. Choose "auto".')


def _only_one(groups: list[Group], name: str) -> list[Group]:
    """The only network whose words say nothing of its role."""
    unknown = [group for group in groups if group.role == "unknown"]
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


def _compare(groups: list[Group], keys: Mapping[str, None]) -> list[Group]:
    """Roles that only the other content of a file tells."""
    current = any(group.prefix.startswith(_CURRENT) for group in groups)
    compared = []
    for group in groups:
        beside = (current and not group.prefix.startswith(_CURRENT)) or _is_averaged_model(group.prefix, keys)
        if group.role == "raw" and beside:
            group = replace(group, role="ema")
        elif group.role == "ema" and any(_is_inner(other.prefix, group.prefix) for other in groups):
            group = replace(group, role="raw")
        compared.append(group)
    return compared


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
