"""Other owners of this pack's node ids: a second copy of the pack, or another pack with a node of the same id."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io
from server import PromptServer

log = logging.getLogger(__name__)

ROOT = Path(os.path.abspath(__file__)).parents[2]  # not resolved: the folder in custom_nodes may be a link
_OWN = Path("pixeldit_core") / "__init__.py"  # every copy of this pack has it


def find_copy(nodes: Iterable[type[io.ComfyNode]]) -> Path | None:
    """The folder of another copy of this pack that ComfyUI has loaded already."""
    folders = (_folder_of(_registered().get(_id_of(node))) for node in nodes)
    return next((folder for folder in folders if folder and folder != ROOT and (folder / _OWN).is_file()), None)


def warn_of_copy(folder: Path) -> None:
    """One line for two copies; the one that was loaded first works."""
    log.warning(
        "ComfyUI-PixelDiT is there twice: %s is used, %s is not. Move one of the two out of custom_nodes.", folder, ROOT
    )


def watch(nodes: Iterable[type[io.ComfyNode]]) -> None:
    """Compare the owners of our ids now, and again when ComfyUI has loaded every pack and starts to listen."""
    nodes = list(nodes)
    _warn_of_replaced(nodes)
    server = getattr(PromptServer, "instance", None)  # absent when a script drives the nodes
    if server is None or server.app.frozen:
        return

    async def compare(_: Any) -> None:
        _warn_of_lost(nodes)

    server.app.on_startup.append(compare)


def _warn_of_replaced(nodes: list[type[io.ComfyNode]]) -> None:
    """Nodes of other packs that ours take the place of."""
    for node in nodes:
        folder = _folder_of(_registered().get(_id_of(node)))
        if folder and folder != ROOT:
            _warn(node, folder, ROOT)


def _warn_of_lost(nodes: list[type[io.ComfyNode]]) -> None:
    """Nodes of ours that those of other packs have taken the place of."""
    for node in nodes:
        owner = _registered().get(_id_of(node))
        folder = _folder_of(owner)
        if owner is not node and folder and folder != ROOT:
            _warn(node, ROOT, folder)


def _warn(node: type[io.ComfyNode], loses: Path, wins: Path) -> None:
    log.warning(
        "Two packs have a node %s: that of %s is used, that of %s is not, and workflows made with it do not run. "
        "Disable one of the two packs, or move it out of custom_nodes.",
        _id_of(node), wins, loses,
    )  # fmt: skip


def _registered() -> dict[str, Any]:
    import nodes  # ComfyUI's own module

    return nodes.NODE_CLASS_MAPPINGS


def _id_of(node: type[io.ComfyNode]) -> str:
    return node.define_schema().node_id


def _folder_of(owner: Any) -> Path | None:
    """The pack in custom_nodes that a node's class is from: a folder, or a file that is one by itself."""
    try:
        file = Path(os.path.abspath(inspect.getfile(owner)))
    except (TypeError, OSError):  # of no class, or of one that was made while running
        return _loaded_from(owner)
    if file.parent.name == "custom_nodes":
        return file
    inside = (folder for folder in file.parents if folder.parent.name == "custom_nodes" or (folder / _OWN).is_file())
    return next(inside, None) or _loaded_from(owner) or file.parent


def _loaded_from(owner: Any) -> Path | None:
    """The same by the name under which ComfyUI loaded the pack; its class may be from a library."""
    parent, _, name = getattr(owner, "RELATIVE_PYTHON_MODULE", "").partition(".")
    if parent != "custom_nodes":
        return None
    return next((path for root in folder_paths.get_folder_paths(parent) if (path := Path(root, name)).exists()), None)
