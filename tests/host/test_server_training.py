"""A real server: the template that trains a LoRA, a folder of images as a data set, and a run that is interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.comfyui import NO_HOST, ROOT, find_hosts
from host.server import FORMS, Server, as_prompt, error_of, prompt, running, titles
from PIL import Image

HOSTS = find_hosts()
pytestmark = [pytest.mark.host, pytest.mark.skipif(not HOSTS, reason=NO_HOST)]


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("comfyui") / "base") as running_server:
        yield running_server


@pytest.fixture(scope="module")
def template(server: Server) -> dict[str, Any]:
    """The template for this ComfyUI as a prompt, with a few steps."""
    found = set(titles(server)) & set(FORMS)
    if not found:
        pytest.skip("no template is for the training nodes of this ComfyUI (those are for 0.3 and for 0.19 and newer)")
    (title,) = found
    graph = json.loads((ROOT / "workflows" / f"{title}.json").read_text(encoding="utf-8"))
    nodes = as_prompt(server, graph)
    find(nodes, "TrainLoraNode")["inputs"]["steps"] = 6
    for node in nodes.values():
        if node["class_type"] == "PixelDiTSampler":
            node["inputs"] |= {"settings": "custom", "steps": 4}
    return nodes


def find(nodes: dict[str, Any], kind: str) -> dict[str, Any]:
    (node,) = (node for node in nodes.values() if node["class_type"] == kind)
    return node


def images_of(server: Server, entry: dict[str, Any], name: str) -> np.ndarray:
    assert entry["status"]["status_str"] == "success", error_of(entry)
    saved = [image for output in entry["outputs"].values() for image in output.get("images", [])]
    names = [image["filename"] for image in saved if image["filename"].startswith(name)]
    return np.stack([np.asarray(Image.open(server.base / "output" / "PixelDiT" / file)) for file in names])


def test_the_template_trains_and_changes_the_images(server: Server, template: dict[str, Any]) -> None:
    entry = server.run(template)
    before, after = (images_of(server, entry, f"train-lora-{name}").astype(float) for name in ("before", "after"))
    assert before.shape == after.shape == (12, 288, 288, 3)
    assert 2 < abs(before - after).mean() < 60
    (lora,) = (server.base / "output" / "loras").glob("pixeldit-two-colors_6_steps_*.safetensors")
    assert len(list((server.base / "temp").rglob("*.png"))) == 37  # the images to learn from, and the loss
    (server.base / "models" / "loras").mkdir(exist_ok=True)
    lora.rename(server.base / "models" / "loras" / lora.name)
    *_, shown = (node for node in template.values() if node["class_type"] == "PixelDiTClassLabel")
    graph = prompt(
        label={"classes": shown["inputs"]["classes"]}, seed=1, cfg=2.0, cfg_interval_start=0.0, cfg_interval_end=0.7
    )
    graph["3"]["inputs"]["model"] = ["6", 0]
    graph["6"] = {
        "class_type": "PixelDiTLoRA",
        "inputs": {"model": ["1", 0], "lora_name": lora.name, "strength_model": 1.0},
    }
    again = images_of(server, server.run(graph), "test").astype(float)
    wanted = after.reshape(12, 96, 3, 96, 3, 3)[:, :, 1, :, 1]
    assert abs(again - wanted).mean() < 4  # but for the enlargement


def test_an_interrupt_in_training_leaves_the_model_as_it_was(server: Server, template: dict[str, Any]) -> None:
    before = images_of(server, server.run(prompt(seed=7)), "test")
    long = json.loads(json.dumps(template))
    find(long, "TrainLoraNode")["inputs"] |= {"steps": 100_000, "seed": 1}
    _, answer = server.post("/prompt", {"prompt": long})
    for _ in range(600):
        if server.log.rfind("Training LoRA") > server.log.rfind("got prompt"):
            break
        time.sleep(0.1)
    time.sleep(2)  # well into the loop
    server.post("/interrupt", {})
    kinds = [kind for kind, _ in server.wait(answer["prompt_id"], 60)["status"]["messages"]]
    assert "execution_interrupted" in kinds, kinds
    again = prompt(seed=7)
    again["4"]["inputs"]["filename_prefix"] = "PixelDiT/again"
    again["3"]["inputs"]["denoise"] = 0.9999999  # sampled again, not taken from the cache
    assert np.array_equal(images_of(server, server.run(again), "again"), before)


def test_a_folder_of_images_is_a_data_set(server: Server, template: dict[str, Any]) -> None:
    """Of two sizes, where this ComfyUI takes them one by one; for one class, positive is trained."""
    lists = find(template, "TrainLoraNode")["inputs"].get("bucket_mode") is not None
    folder = server.base / "input" / "own"
    write_images(folder, 3, [(96, 96), (96, 96), (120, 96) if lists else (96, 96)])
    graph = json.loads(json.dumps(template))
    (encode,) = (key for key, node in graph.items() if node["class_type"] == "PixelDiTEncode")
    kind = "LoadImageDataSetFromFolder" if lists else "LoadImageSetFromFolderNode"
    graph["100"] = {"class_type": kind, "inputs": {"folder": "own"} | ({} if lists else {"resize_method": "None"})}
    graph[encode]["inputs"]["pixels"] = ["100", 0]
    graph["101"] = {
        "class_type": "PixelDiTClassLabel",
        "inputs": {"model": ["1", 0], "class_name": "108: fox", "classes": ""},
    }
    find(graph, "TrainLoraNode")["inputs"]["positive"] = ["101", 0]
    entry = server.run(graph)
    before, after = (images_of(server, entry, f"train-lora-{name}").astype(float) for name in ("before", "after"))
    assert abs(before - after).mean() > 1
    find(graph, "TrainLoraNode")["inputs"]["positive"] = ["2", 0]  # the twelve classes of the samples
    assert "cannot tell which image has which" in error_of(server.run(graph))


def write_images(folder: Path, count: int, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = sizes[number]
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
