"""One route for the browser: the class names of a checkpoint, for the list of PixelDiT Class Label."""

from __future__ import annotations

import asyncio

from aiohttp import web
from server import PromptServer

from ...pixeldit_core import inspect_checkpoint
from ...pixeldit_core.labels import numbered
from .folders import find_checkpoint


def register() -> None:
    server = getattr(PromptServer, "instance", None)  # absent when a script drives the nodes
    if server is not None:
        server.routes.get("/pixeldit/classes")(classes)


async def classes(request: web.Request) -> web.Response:
    """["0: tench", ...] of ?checkpoint=NAME; an empty list for a file that has none or does not load."""
    name = request.query.get("checkpoint", "")
    return web.json_response(await asyncio.get_running_loop().run_in_executor(None, _class_list, name))


def _class_list(name: str) -> list[str]:
    try:
        info = inspect_checkpoint(find_checkpoint(name))
    except ValueError:
        return []
    if info.class_names:
        return numbered(info.class_names)
    return [str(index) for index in range(getattr(info.params, "num_classes", 0))]
