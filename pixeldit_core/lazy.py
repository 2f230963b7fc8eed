"""Public names of a package whose modules are imported when a name of them is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        modules: names by the module below it that has them; no module may have the name of one of them.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"{package} has no {name}; it has {', '.join(sorted(home))}.")
        return getattr(importlib.import_module(f".{home[name]}", package), name)

    return get, lambda: sorted(home)
