"""A real server: a photograph edited through PNG files, text-to-image errors, templates that run without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.comfyui import NO_HOST, ROOT, find_hosts
from host.server import Server, error_of, prompt, running
from PIL import Image

import pixeldit_core as pc

HOSTS = find_hosts()
pytestmark = [pytest.mark.host, pytest.mark.skipif(not HOSTS, reason=NO_HOST)]
TEXT = pc.PixelDiTT2IParams(32, 2, 1, 1, 24, 3, patch_size=8, pixel_hidden_size=4, txt_embed_dim=20, txt_max_length=12)
BUNDLED_MODELS = {path.name for path in (ROOT / "models").glob("*.safetensors")}
HIDDEN = (slice(16, 48), slice(20, 60))  # rows and columns of the photograph that are generated


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("comfyui") / "base") as running_server:
        write_text_model(running_server.base / "models" / "diffusion_models" / "tiny-t2i.safetensors")
        write_photograph(running_server.base / "input" / "photograph.png")
        yield running_server


def write_text_model(path: Path) -> None:
    model = pc.build_model("pixeldit_t2i", TEXT, device="cpu")
    for name, parameter in model.network.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.1)
    pc.save_checkpoint(model, path, layout="comfyui")


def write_photograph(path: Path) -> None:
    """Noise, 70 x 85, with a transparent hole: ComfyUI's Load Image makes a white mask of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 85, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[HIDDEN][..., 3] = 0
    Image.fromarray(pixels).save(path)


def editing(**settings: Any) -> dict[str, Any]:
    graph = prompt(**{"width": 0, "height": 0, "image": ["5", 0], "mask": ["5", 1], "steps": 3, **settings})
    graph["5"] = {"class_type": "LoadImage", "inputs": {"image": "photograph.png"}}
    return graph


def pictures_of(server: Server, entry: dict[str, Any]) -> list[np.ndarray]:
    assert entry["status"]["status_str"] == "success", error_of(entry)
    saved = [image for output in entry["outputs"].values() for image in output.get("images", [])]
    folder = server.base / "output"
    return [np.asarray(Image.open(folder / image["subfolder"] / image["filename"])) for image in saved]


def test_the_saved_png_is_the_photograph_outside_of_the_mask(server: Server) -> None:
    (made,) = pictures_of(server, server.run(editing()))
    photograph = np.asarray(Image.open(server.base / "input" / "photograph.png"))[..., :3]
    assert made.shape == photograph.shape
    changed = (made != photograph).any(-1)
    inside = np.zeros(changed.shape, bool)
    inside[HIDDEN] = True
    assert not changed[~inside].any() and changed[inside].mean() > 0.9


def test_ksampler_keeps_the_photograph_too(server: Server) -> None:
    graph = editing()
    graph["3"] = {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 1], "latent_image": ["6", 0], "seed": 1,
            "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.7,
        },
    }  # fmt: skip
    graph["6"] = {"class_type": "PixelDiTEncode", "inputs": {"pixels": ["5", 0], "mask": ["5", 1]}}
    graph["7"] = {"class_type": "PixelDiTDecode", "inputs": {"samples": ["3", 0]}}
    graph["4"]["inputs"]["images"] = ["7", 0]
    (made,) = pictures_of(server, server.run(graph))
    photograph = np.asarray(Image.open(server.base / "input" / "photograph.png"))[..., :3]
    changed = (made != photograph).any(-1)
    changed[HIDDEN] = False
    assert not changed.any()


def text_prompt() -> dict[str, Any]:
    """Text to image with a class label in place of a prompt."""
    graph = prompt(checkpoint="tiny-t2i.safetensors", solver="flow_dpmpp_2m")
    graph["6"] = {"class_type": "PixelDiTLoader", "inputs": prompt()["1"]["inputs"]}
    graph["2"]["inputs"]["model"] = ["6", 0]
    return graph


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda graph: None, "contains a class label. Load gemma_2_2b_it_elm with Load CLIP, type pixeldit"),
        (lambda graph: graph["3"]["inputs"].pop("negative"), "PixelDiT Text Prompt has one"),
        (lambda graph: graph["3"]["inputs"].update(steps=1), "needs at least 2"),
        (lambda graph: graph["3"]["inputs"].update(width=60), "nearest that does is 64 x 96"),
        (lambda graph: graph["2"]["inputs"].update(model=["1", 0]), "has no classes"),
    ],
)
def test_text_to_image_mistakes_are_reported_and_the_server_goes_on(server: Server, change: Any, words: str) -> None:
    graph = text_prompt()
    change(graph)
    assert words in error_of(server.run(graph))
    assert server.run(prompt())["status"]["status_str"] == "success"


def test_masks_that_do_not_fit_are_reported(server: Server) -> None:
    graph = editing(mask=["6", 0])
    graph["6"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    assert "their aspect ratios differ" in error_of(server.run(graph))
    graph["6"]["inputs"]["value"] = 0.0
    assert "black everywhere" in error_of(server.run(graph))
    graph = editing()
    del graph["3"]["inputs"]["image"]
    assert "no image" in error_of(server.run(graph))


def test_sizes_travel_over_links(server: Server) -> None:
    graph = prompt(width=["6", 0], height=["6", 1], steps=1, settings="custom")
    graph["6"] = {
        "class_type": "PixelDiTSize",
        "inputs": {"resolution": "512", "aspect_ratio": "3:1", "orientation": "portrait", "batch_size": 1},
    }
    (made,) = pictures_of(server, server.run(graph))
    assert made.shape == (864, 288, 3)


def test_every_template_names_what_it_needs(server: Server) -> None:
    """Loaders of files that are not in the pack carry a link and a folder for the page's dialog."""
    for path in sorted((ROOT / "workflows").glob("*.json")):
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            if node["type"] in ("PixelDiTLoader", "CLIPLoader") and node["widgets_values"][0] not in BUNDLED_MODELS:
                if node["widgets_values"][0] == "checkpoint_completed.pt":
                    continue  # of PixelHDM nothing is published
                model, *encoders = node["properties"]["models"]
                assert model["name"] == node["widgets_values"][0]
                assert model["directory"] in ("diffusion_models", "text_encoders")
                assert len(encoders) == ("PixelDiT2" in path.stem)
                assert all(encoder["directory"] == "clip_vision" for encoder in encoders)
                assert all(entry["url"].startswith("https://huggingface.co/") for entry in (model, *encoders))
