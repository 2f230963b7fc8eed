"""Class names: lookup by number or by name.

A table of names is a list with one entry per class, each the tuple of its names, the first being the one to show.
`data/imagenet.json` holds the 1,000 of ImageNet (WordNet lemmas in the order of the ILSVRC classes, as timm has
them); where two classes share their first name, a word in brackets tells them apart.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

Names = Sequence[tuple[str, ...]]

_IMAGENET = Path(__file__).parent / "data" / "imagenet.json"
# What is typed in lists: commas, semicolons and full stops also as Chinese, Japanese and Arabic keyboards give them;
# dashes also as word processors write them, the wave and the long vowel of Chinese and Japanese ranges, the words for
# "to" there, and dots. Digits of all scripts are in \d, full-width ones too.
_SEPARATORS = re.compile("[,;\n\r\uff0c\uff1b\u3001\u3002\uff61\uff64\ufe50\ufe51\ufe54\u060c\u061b]")
_DASH = "(?:[-~\u2010-\u2015\u2212\ufe58\ufe63\uff0d\u223c\u301c\uff5e\u30fc\u5230\u81f3\u2025\u2026]|\\.{2,3})"
_RANGE = re.compile(rf"(\d+)\s*{_DASH}\s*(\d+)")
_NUMBERS = re.compile(rf"{_RANGE.pattern}|\d+")
_NUMBERED = re.compile("(\\d+)(?:\\.0+)?\\s*(?:[:\uff1a]\\s*(.*))?", re.DOTALL)  # 5.0: a number from another program
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff]")  # copied along with texts


@functools.cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """The names of the 1,000 ImageNet classes, first name first."""
    return tuple(tuple(names) for names in json.loads(_IMAGENET.read_text(encoding="utf-8")))


def numbered(names: Names) -> list[str]:
    """Entries of a list: "207: golden retriever"."""
    return [f"{index}: {entry[0]}" for index, entry in enumerate(names)]


def find_class(query: int | str, num_classes: int, names: Names | None = None) -> int:
    """Index of a class from its number (207), its name ("tabby cat") or both ("207: golden retriever").

    `num_classes` itself, the index of no class, is allowed.

    Raises:
        ValueError: number out of range; name unknown (tells the nearest) or shared by several classes (tells them).
    """
    text = str(query).strip()
    if match := _NUMBERED.fullmatch(text):
        index, name = int(match[1]), (match[2] or "").strip()
        _check_range(index, num_classes)
        if name and names and index < num_classes and name.lower() not in _lowered(names[index]):
            raise ValueError(
                f'class "{text}": in this checkpoint class {index} is "{names[index][0]}". '
                "Choose from its own list, or write the number alone."
            )
        return index
    if not names:
        raise ValueError(
            f'class "{text}": this checkpoint has no class names. Write a number from 0 to {num_classes - 1} '
            f"({num_classes} is no class)."
        )
    found = [index for index, entry in enumerate(names) if text.lower() in _lowered(entry)]
    shown = [index for index in found if names[index][0].lower() == text.lower()]
    found = shown if len(shown) == 1 else found  # one class's first name, another's synonym: partridge
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f'"{index}: {names[index][0]}"' for index in found)
        raise ValueError(f'class "{text}" is the name of several classes. Choose one of {choices}.')
    raise ValueError(f'class "{text}" is not known. {_nearest(text, names)}')


def parse_classes(text: str, num_classes: int, names: Names | None = None) -> list[int]:
    """Indices from a list such as "1, 207, 250-253, tabby cat".

    Commas, semicolons or new lines are between entries, also those of Chinese and other scripts; between numbers,
    spaces will do. Ranges have any dash.

    Raises:
        ValueError: an empty list, a range that runs backwards, or what `find_class` raises.
    """
    indices: list[int] = []
    for entry in _entries(_INVISIBLE.sub("", text)):
        if match := _RANGE.fullmatch(entry):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise ValueError(f'class range "{entry}" runs backwards. Write "{last}-{first}".')
            _check_range(last, num_classes)
            indices.extend(range(first, last + 1))
        else:
            indices.append(find_class(entry, num_classes, names))
    if not indices:
        raise ValueError('the list of classes is empty. Write numbers, ranges or names, such as "1, 207, 250-253".')
    return indices


def _entries(text: str) -> Iterator[str]:
    for entry in filter(None, (part.strip() for part in _SEPARATORS.split(text))):
        numbers = [match[0] for match in _NUMBERS.finditer(entry)]
        if "".join("".join(numbers).split()) == "".join(entry.split()):
            yield from numbers
        else:
            yield entry


def _check_range(index: int, num_classes: int) -> None:
    if not 0 <= index <= num_classes:
        raise ValueError(
            f"class {index} is out of range: this checkpoint has {num_classes} classes, 0 to {num_classes - 1} "
            f"({num_classes} is no class)."
        )


def _lowered(entry: Sequence[str]) -> list[str]:
    return [name.lower() for name in entry]


def _nearest(text: str, names: Names) -> str:
    every = {name.lower(): index for index, entry in reversed(list(enumerate(names))) for name in entry}
    near = difflib.get_close_matches(text.lower(), every, n=3, cutoff=0.5)
    near += [name for name in every if text.lower() in name and name not in near][: 3 - len(near)]
    if not near:
        return f'The first are "{names[0][0]}" and "{names[min(1, len(names) - 1)][0]}"; the loader lists them all.'
    hints = ", ".join(dict.fromkeys(f'"{every[name]}: {names[every[name]][0]}"' for name in near))
    return f"Did you mean {hints}?"
