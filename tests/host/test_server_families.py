"""A real server: bundled digits, their animation, and mistakes with files and conditions of other families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host.comfyui import NO_HOST, find_hosts
from host.server import Server, error_of, prompt, running
from PIL import Image

import pixeldit_core as pc

HOSTS = find_hosts()
pytestmark = [pytest.mark.host, pytest.mark.skipif(not HOSTS, reason=NO_HOST)]
DIGITS = "xpred-digits-28.safetensors"
SIZES = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "in_channels": 1, "image_size": 12}
TINY_HDM = {
    "hidden_dim": 16, "pixel_dim": 4, "patch_size": 4, "patch_layers": 1, "pixel_layers": 1, "num_heads": 2,
    "num_kv_heads": 1, "mrope_text_dim": 4, "mrope_img_h_dim": 2, "mrope_img_w_dim": 2, "time_embed_dim": 8,
}  # fmt: skip


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("comfyui") / "base") as running_server:
        write_models(running_server.base / "models" / "diffusion_models")
        yield running_server


def write_models(folder: Path) -> None:
    """A trainer's file as it should be, one that contradicts itself, and a PixelHDM."""
    model = pc.build_model("xpred_dit", pc.FAMILIES["xpred_dit"].params(**SIZES), device="cpu")
    hdm = pc.build_model("pixelhdm", pc.FAMILIES["pixelhdm"].params(**TINY_HDM), device="cpu")
    for network in (model.network, hdm.network):
        for name, parameter in network.named_parameters():
            parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.1)
    dataset = {"name": "mnist", "image_size": 12, "in_channels": 1, "normalize_mean": (0.5,), "normalize_std": (0.5,)}
    sizes = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "patch_size": 4, "mlp_ratio": 4.0, "qk_norm": None}
    for name, dim in (("dit_mnist_epoch_1.pt", 16), ("contradicts.pt", 128)):
        config = {"model": {**sizes, "dim": dim}, "dataset": dataset, "training": {"lr": 1e-4}}
        stored = {"epoch": 1, "model_state_dict": model.network.state_dict(), "model_type": "dit", "config": config}
        torch.save(stored, folder / name)
    torch.save({"model": hdm.network.state_dict(), "config": TINY_HDM}, folder / "checkpoint_completed.pt")


def digits(checkpoint: str = DIGITS, **settings: Any) -> dict[str, Any]:
    settings = {"label": {"class_name": "7: 7"}, "width": 0, "height": 0, **settings}
    return prompt(checkpoint=checkpoint, **settings)


def files_of(server: Server, entry: dict[str, Any]) -> list[Path]:
    assert entry["status"]["status_str"] == "success", error_of(entry)
    saved = [image for output in entry["outputs"].values() for image in output.get("images", [])]
    return [server.base / "output" / image["subfolder"] / image["filename"] for image in saved]


def test_a_digit_is_saved_in_its_own_size(server: Server) -> None:
    (path,) = files_of(server, server.run(digits(steps=8)))
    made = np.asarray(Image.open(path))
    assert made.shape == (28, 28, 3) and (made[..., 0] == made[..., 2]).all()
    assert made[:3].max() < 60 < 180 < made.max()  # a black edge, white ink


def test_an_animation_is_saved(server: Server) -> None:
    graph = digits(label={"classes": "0-3"}, steps=6, trajectory_frames=4)
    graph["4"] = {
        "class_type": "SaveAnimatedWEBP",
        "inputs": {
            "images": ["3", 1], "filename_prefix": "states", "fps": 8.0, "lossless": True, "quality": 80,
            "method": "default",
        },
    }  # fmt: skip
    (path,) = files_of(server, server.run(graph))
    movie = Image.open(path)
    assert movie.n_frames == 4 and movie.size == (56, 56)
    first, last = (np.asarray((movie.seek(index), movie.convert("L"))[1], dtype=float) for index in (0, 3))
    assert first[:3].std() > 50 > 20 > last[:3].std()  # from noise to a black edge


def test_a_trainer_s_file_works_as_it_is_and_by_both_rules(server: Server) -> None:
    for convention in ("standard", "reference"):
        graph = digits("dit_mnist_epoch_1.pt", convention=convention, settings="xpred", steps=3)
        (path,) = files_of(server, server.run(graph))
        assert Image.open(path).size == (12, 12)


def hdm(**settings: Any) -> dict[str, Any]:
    """PixelHDM with a class label of another model in place of a prompt."""
    graph = digits("checkpoint_completed.pt", width=16, height=16, **settings)
    graph["6"] = {"class_type": "PixelDiTLoader", "inputs": digits()["1"]["inputs"]}
    graph["2"]["inputs"]["model"] = ["6", 0]
    return graph


@pytest.mark.parametrize(
    "graph, words",
    [
        (lambda: digits("contradicts.pt"), "the config inside of it says dim = 128, its tensors say 16"),
        (lambda: digits(width=30), "nearest that does is"),
        (lambda: digits(label={"class_name": "11"}), "10 classes"),
        (hdm, "contains a class label. Load Qwen3-0.6B"),
        (lambda: hdm(steps=1, negative=None), "needs at least 2"),
    ],
)
def test_mistakes_are_reported_and_the_server_goes_on(server: Server, graph: Any, words: str) -> None:
    made = graph()
    if made["3"]["inputs"]["negative"] is None:
        made["3"]["inputs"].pop("negative")
    assert words in error_of(server.run(made))
    assert server.run(digits(steps=2))["status"]["status_str"] == "success"
