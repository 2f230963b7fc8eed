"""A real server: the bundled workflows, errors that do not stop it, interrupt, pages for people."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from host.comfyui import NO_HOST, ROOT, find_hosts
from host.server import (
    BUNDLED,
    FORMS,
    PACK,
    TITLES,
    Server,
    as_prompt,
    error_of,
    prompt,
    reports_cached_nodes,
    running,
    titles,
)
from PIL import Image

HOSTS = find_hosts()
pytestmark = [pytest.mark.host, pytest.mark.skipif(not HOSTS, reason=NO_HOST)]


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("comfyui") / "base") as running_server:
        yield running_server


def pictures(server: Server) -> set[str]:
    return {path.name for path in (server.base / "output").rglob("*.png")}


def test_a_picture_is_saved(server: Server) -> None:
    before = pictures(server)
    entry = server.run(prompt())
    assert entry["status"]["status_str"] == "success", error_of(entry)
    assert len(pictures(server) - before) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"width": 100}, "nearest that does is 96 x 96"),
        ({"cfg_interval_start": 0.9, "cfg_interval_end": 0.2}, "guidance interval"),
        ({"label": {"classes": "blimp, fox"}}, '"blimp" is not known'),
        ({"label": {"classes": "raccon"}}, "201: raccoon"),
        ({"label": {"classes": "400"}}, "294 classes"),
    ],
)
def test_bad_input_is_reported_and_the_server_goes_on(server: Server, change: dict[str, Any], words: str) -> None:
    before = pictures(server)
    entry = server.run(prompt(**change))
    assert words in error_of(entry)
    assert pictures(server) == before, "no partial picture"
    assert server.run(prompt(seed=time.time_ns()))["status"]["status_str"] == "success"


def test_texts_and_settings_of_nodes(server: Server) -> None:
    graph = prompt(seed=11)
    graph["1"]["inputs"]["weight_dtype"] = "fp32"  # no other test has filled the cache
    graph["4"]["inputs"]["filename_prefix"] = ["3", 3]
    graph["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 3]}}
    words = "4 steps ab2, cfg 2, timeshift 1, interval 0.1 to 0.9, 96 x 96"
    for _ in range(2 if reports_cached_nodes(server) else 1):  # the second time, every node is cached
        outputs = server.run(graph)["outputs"]
        assert outputs["3"]["text"] == outputs["5"]["text"] == [words]
        assert "294 classes" in outputs["1"]["text"][0] and outputs["2"]["text"] == ["108: fox (of 294 classes)"]
    assert outputs["4"]["images"][0]["filename"].startswith(words)


def test_values_out_of_range_are_refused_when_queued(server: Server) -> None:
    assert "refused" in server.run(prompt(steps=0))


def test_a_missing_file_is_reported(server: Server) -> None:
    answer = server.run(prompt(checkpoint="missing.safetensors"))  # newer hosts refuse it when it is queued
    assert "refused" in answer or "is not in models/" in error_of(answer)


def test_a_damaged_file_is_reported(server: Server) -> None:
    folder = server.base / "models" / "diffusion_models"
    (folder / "notes.ckpt").write_text("not a checkpoint", encoding="utf-8")
    (folder / "cut.safetensors").write_bytes((ROOT / "models" / BUNDLED).read_bytes()[:100000])
    assert "notes.ckpt is not a checkpoint" in error_of(server.run(prompt(checkpoint="notes.ckpt")))
    assert "damaged or truncated" in error_of(server.run(prompt(checkpoint="cut.safetensors")))


def test_interrupt_leaves_the_server_ready(server: Server) -> None:
    before = pictures(server)
    _, answer = server.post("/prompt", {"prompt": prompt(steps=5000, seed=3)})
    for _ in range(600):
        if server.get("/queue")["queue_running"]:
            break
        time.sleep(0.1)
    time.sleep(3)  # well into the loop
    server.post("/interrupt", {})
    entry = server.wait(answer["prompt_id"], 60)
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds, kinds
    assert pictures(server) == before
    assert server.run(prompt(seed=4))["status"]["status_str"] == "success"


def test_the_pack_loads_without_a_complaint(server: Server) -> None:
    assert "IMPORT FAILED" not in server.log
    assert "pixeldit-emoji-96" not in server.log or "unet missing" not in server.log


def test_templates_with_thumbnails(server: Server) -> None:
    assert sorted(server.get("/workflow_templates")[PACK]) == TITLES
    for title in TITLES:
        address = f"{server.url}/api/workflow_templates/{PACK}/{title.replace(' ', '%20')}.jpg"
        import urllib.request

        with urllib.request.urlopen(address) as answer:
            assert answer.read(3) == b"\xff\xd8\xff", title


def test_the_mix_lies_between_its_classes_from_the_same_noise(server: Server) -> None:
    graph = as_prompt(server, json.loads((ROOT / "workflows" / "PixelDiT mix two classes.json").read_text("utf-8")))
    samplers = [node["inputs"] for node in graph.values() if node["class_type"] == "PixelDiTSampler"]
    (average,) = (node["inputs"] for node in graph.values() if node["class_type"] == "ConditioningAverage")
    for inputs in samplers:
        inputs |= {"settings": "custom", "steps": 4}

    def rows(strength: float) -> np.ndarray:
        average["conditioning_to_strength"] = strength
        entry = server.run(graph)
        assert entry["status"]["status_str"] == "success", error_of(entry)
        outputs = sorted(entry["outputs"].items(), key=lambda output: int(output[0]))
        saved = [image for _, output in outputs for image in output.get("images", ())]
        folder = server.base / "output" / "PixelDiT"
        return np.stack([np.asarray(Image.open(folder / image["filename"])) for image in saved]).reshape(3, 4, -1)

    first, mix, second = rows(0.5).astype(float)
    assert len(samplers) == 3 and first.shape == (4, 288 * 288 * 3)
    assert min(abs(mix - first).mean(), abs(mix - second).mean()) > 2
    assert max(abs(mix - first).mean(), abs(mix - second).mean()) < abs(first - second).mean()
    assert np.array_equal(*rows(1.0)[:2]) and np.array_equal(*rows(0.0)[1:])


def test_help_pages_and_locales_are_served(server: Server) -> None:
    import urllib.request

    for node_id in json.loads((ROOT / "tests" / "host" / "schema.json").read_text(encoding="utf-8")):
        for page in (f"{node_id}.md", f"{node_id}/zh.md"):
            with urllib.request.urlopen(f"{server.url}/extensions/{PACK}/docs/{page}") as answer:
                assert answer.read().startswith(b"#"), page
    texts = server.get("/i18n")
    assert "PixelDiTSampler" in texts["en"]["nodeDefs"] and "PixelDiTSampler" in texts["zh"]["nodeDefs"]


def test_class_names_for_the_browser(server: Server) -> None:
    names = server.get(f"/pixeldit/classes?checkpoint={BUNDLED}")
    assert names[108] == "108: fox" and len(names) == 294
    assert server.get("/pixeldit/classes?checkpoint=../../secret") == []


def test_workflow_files_name_only_nodes_of_this_host(server: Server) -> None:
    known = set(server.get("/object_info"))
    trains = server.get("/object_info/TrainLoraNode")["TrainLoraNode"]["input"]["required"]
    between = "SaveLoRA" in known and "quantized_backward" not in trains
    assert len(set(titles(server)) & set(FORMS)) == (0 if between else 1)  # Train LoRA, in one form
    for title in titles(server):
        graph = json.loads((ROOT / "workflows" / f"{title}.json").read_text(encoding="utf-8"))
        used = {node["type"] for node in graph["nodes"]} - {"MarkdownNote"}  # drawn by the page alone
        assert used <= known, used - known
