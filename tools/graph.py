"""A workflow in ComfyUI's own format: a graph of nodes, and the nodes that several templates share."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "workflows"
OWN = {"cnr_id": "pixeldit", "ver": "0.1.0"}
CORE = {"cnr_id": "comfy-core", "ver": "0.3.64"}
HUB = "https://huggingface.co/nvidia"
LICENSE = "The published weights are under NVIDIA's NSCLv1: **research and evaluation only, no commercial use**."
EMOJI = "pixeldit-emoji-96.safetensors"
# classes of that model: the dozen that templates show, as in pixeldit_core/cli/sample.py; entries of the label's list
SHOWCASE = "fox, raccoon, panda, penguin, frog, snail, strawberry, doughnut, cupcake, castle, robot, rocket"
SETTINGS = [20, "ab2", 2.0, 0.0, 0.0, 0.7]  # those in its file, as the sampler's widgets; timeshift 0: the file's
CUPCAKE, FOX, RACCOON = "80: cupcake", "108: fox", "201: raccoon"
ON_A_CUPCAKE = "frog, strawberry, panda, cactus, rainbow"  # what is put on it, in the template and the figure
DIGITS = "xpred-digits-28.safetensors"
# rows below the loader, a class label and a sampler: these nodes grow by what they show after a run
UNDER_LOADER, UNDER_LABEL, UNDER_SAMPLER = 320, 600, 880


@dataclass
class Node:
    kind: str
    pos: tuple[int, int]
    size: tuple[int, int]
    inputs: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    widgets: list[Any] = field(default_factory=list)
    properties: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    linked: dict[str, str] = field(default_factory=dict)  # widgets that a link may feed, and their types


class Graph:
    """Collects nodes and links in ComfyUI's own workflow format."""

    def __init__(self) -> None:
        self.nodes: list[dict] = []
        self.links: list[list] = []
        self.scale = 0.8

    def add(self, node: Node, **sources: tuple[dict, int]) -> dict:
        number = len(self.nodes) + 1
        inputs = [{"name": name, "type": kind, "link": None} for name, kind in node.inputs]
        inputs += [
            {"name": name, "type": kind, "widget": {"name": name}, "link": None}
            for name, kind in node.linked.items()
            if name in sources
        ]
        entry = {
            "id": number,
            "type": node.kind,
            "pos": list(node.pos),
            "size": list(node.size),
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": [{"name": name, "type": kind, "links": []} for name, kind in node.outputs],
            "properties": {"Node name for S&R": node.kind, **(OWN if "PixelDiT" in node.kind else CORE)}
            | node.properties,
            "widgets_values": node.widgets,
        }
        if node.title:
            entry["title"] = node.title
        if node.kind == "MarkdownNote":
            entry |= {"properties": {}, "color": "#432", "bgcolor": "#653"}
        for slot, target in enumerate(entry["inputs"]):
            if target["name"] in sources:
                source, out = sources[target["name"]]
                link = len(self.links) + 1
                self.links.append([link, source["id"], out, number, slot, target["type"]])
                target["link"] = link
                source["outputs"][out]["links"].append(link)
        self.nodes.append(entry)
        return entry

    def save(self, name: str) -> None:
        workflow = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"pixeldit/{name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {"ds": {"scale": self.scale, "offset": [130, round(120 / self.scale)]}},
            "version": 0.4,
        }
        (OUT / f"{name}.json").write_text(json.dumps(workflow, indent=2) + "\n", encoding="utf-8")


def needs(name: str, url: str, directory: str, *more: dict[str, str]) -> dict[str, Any]:
    """The property that ComfyUI's dialog for missing models reads."""
    return {"models": [{"name": name, "url": url, "directory": directory}, *more]} if url else {}


def loader(checkpoint: str = EMOJI, url: str = "", pos: tuple[int, int] = (0, 0), *more: dict[str, str]) -> Node:
    return Node(
        "PixelDiTLoader",
        pos,
        (340, 160),
        outputs=[("MODEL", "MODEL")],
        widgets=[checkpoint, "auto", "default", "auto"],
        properties=needs(checkpoint, url, "diffusion_models", *more),
    )


def label(class_name: str, classes: str, pos: tuple[int, int]) -> Node:
    return Node(
        "PixelDiTClassLabel",
        pos,
        (340, 180),
        inputs=[("model", "MODEL")],
        outputs=[("positive", "CONDITIONING"), ("null", "CONDITIONING")],
        widgets=[class_name, classes],
    )


def sampler(
    seed: int, name: str, settings: list[Any], pos: tuple[int, int], denoise: float = 1.0, frames: int = 0
) -> Node:
    inputs = [
        ("model", "MODEL"),
        ("positive", "CONDITIONING"),
        ("negative", "CONDITIONING"),
        ("image", "IMAGE"),
        ("mask", "MASK"),
    ]
    # after `seed` comes the widget control_after_generate
    widgets = [seed, "fixed", name, *settings, denoise, "standard", frames]
    linked = {"seed": "INT", "width": "INT", "height": "INT"}
    outputs = [("IMAGE", "IMAGE"), ("states", "IMAGE"), ("estimates", "IMAGE"), ("settings", "STRING")]
    return Node("PixelDiTSampler", pos, (340, 540), inputs, outputs, widgets, linked=linked)


def enlarge(pos: tuple[int, int], times: float = 3.0, size: int = 96, method: str = "lanczos") -> Node:
    title = f"Enlarge {times:g}x (the model generates {size} x {size})"
    sockets = [("image", "IMAGE")], [("IMAGE", "IMAGE")]
    return Node("ImageScaleBy", pos, (300, 90), *sockets, [method, times], title=title)


def save_animation(prefix: str, title: str, pos: tuple[int, int], size: tuple[int, int] = (420, 420)) -> Node:
    widgets = [prefix, 8.0, True, 80, "default"]
    return Node("SaveAnimatedWEBP", pos, size, inputs=[("images", "IMAGE")], widgets=widgets, title=title)


def save_image(prefix: str, pos: tuple[int, int], size: tuple[int, int] = (420, 460)) -> Node:
    return Node("SaveImage", pos, size, inputs=[("images", "IMAGE")], widgets=[prefix])


def note(text: str, pos: tuple[int, int], size: tuple[int, int], title: str = "Note") -> Node:
    return Node("MarkdownNote", pos, size, widgets=[text], title=title)
