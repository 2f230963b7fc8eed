"""What the loader's list shows for the files of a model folder, without asking the disk for each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

import folder_paths

from ...pixeldit_core.checkpoints.folder import SHARD, TRANSFORMER, list_entry
from ...pixeldit_core.checkpoints.locate import PIPELINES

_kept: dict[str, tuple[tuple, list[str]]] = {}  # folder -> what its entries follow from, its entries


def list_entries(folder: str) -> list[str]:
    """Entries for the files of one of ComfyUI's model folders.

    ComfyUI wants the list several times for each prompt and compares the dates of the folders, no more; so entries are
    kept as long as it finds these dates unchanged, which every file or folder that comes or goes changes.
    """
    names = folder_paths.get_filename_list(folder)
    dates = getattr(folder_paths, "filename_list_cache", {}).get(folder)
    if dates is None:
        return _Entries(folder).of(names)
    state = (tuple(folder_paths.get_folder_paths(folder)), dict(dates[1]), names)
    if folder not in _kept or _kept[folder][0] != state:
        _kept[folder] = (state, _Entries(folder).of(names))
    return list(_kept[folder][1])


class _Entries:
    """Entries of files by their names; looks into each of their folders once."""

    def __init__(self, folder: str) -> None:
        self.roots = folder_paths.get_folder_paths(folder)
        self.listings: dict[str, frozenset[str]] = {}
        self.pipelines: dict[tuple[str, PurePath], str | None] = {}

    def of(self, names: Sequence[str]) -> list[str]:
        return [self._entry(name) for name in names]

    def _entry(self, name: str) -> str:
        """What the list shows for a file: itself, or the folder or index that it belongs to."""
        path = PurePath(name)
        is_shard = SHARD.fullmatch(path.name) is not None
        if not is_shard and len(path.parts) == 1:
            return name
        root = next((root for root in self.roots if path.name in self._list(os.path.join(root, path.parent))), None)
        if root is None:
            return name
        if pipeline := self._pipeline(root, path.parent):
            return name if pipeline == _INDEX_ONLY else pipeline
        if not is_shard:
            return name
        return name.removesuffix(path.name) + list_entry(path.name, sorted(self._list(os.path.join(root, path.parent))))

    def _pipeline(self, root: str, folder: PurePath) -> str | None:
        """The entry of the diffusers folder that a folder is, or lies in; None = there is none."""
        if not folder.name:
            return None
        if (root, folder) not in self.pipelines:
            if self._list(os.path.join(root, folder)).isdisjoint(PIPELINES):
                found = self._pipeline(root, folder.parent)
            else:
                complete = os.path.isdir(os.path.join(root, folder, TRANSFORMER))
                found = f"{folder.as_posix()}/" if complete else _INDEX_ONLY
            self.pipelines[root, folder] = found
        return self.pipelines[root, folder]

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self.listings:
            try:
                self.listings[folder] = frozenset(os.listdir(folder))
            except OSError:  # gone, or may not be read: choosing a file of it says so
                self.listings[folder] = frozenset()
        return self.listings[folder]


_INDEX_ONLY = "."  # a diffusers folder without its network: its files are entries of their own
