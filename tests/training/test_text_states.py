"""Encoded captions as a network takes them, from the command to the loss."""

from dataclasses import replace

import pytest
import tiny_encoders
import torch
from factories import fill, tiny_t2i_model
from helpers import close
from PIL import Image

import pixeldit_core as pc
from pixeldit_core.cli import main
from pixeldit_core.text_states.shards import StatesInfo, shard_path
from pixeldit_core.training.config import DataConfig, ObjectiveConfig
from pixeldit_core.training.data.text_states import open_text_states
from pixeldit_core.training.draws import draw
from pixeldit_core.training.encode import encode_captions
from pixeldit_core.training.loss import Batch, Loss
from pixeldit_core.training.text_encoder import load_text_encoder

CAPTIONS = ["a red square", "a blue circle", "green circle on white", "blue", "", "a red square"]
HDM = pc.PixelHDMParams(
    hidden_dim=16, pixel_dim=4, patch_size=4, patch_layers=1, pixel_layers=1, num_heads=2, num_kv_heads=1,
    mrope_text_dim=2, mrope_img_h_dim=2, mrope_img_w_dim=4, time_embed_dim=8,
)  # fmt: skip


class Data:
    """Images with these captions."""

    def __init__(self, captions=CAPTIONS):
        self._captions = captions

    def captions(self):
        return self._captions


def model_of(family):
    if family == "pixeldit_t2i":
        return tiny_t2i_model()
    model = pc.build_model("pixelhdm", HDM, device="cpu")
    fill(model.network)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """States of both families."""
    root, folders = tmp_path_factory.mktemp("states"), {}
    for family, write, width, length in (
        ("pixeldit_t2i", tiny_encoders.write_gemma, 12, 6),
        ("pixelhdm", tiny_encoders.write_qwen, 16, 511),
    ):
        instruction = tiny_encoders.INSTRUCTION if family == "pixeldit_t2i" else ""
        encoder = load_text_encoder(
            str(write(root / f"{family}-encoder", width)), pc.FAMILIES[family], instruction=instruction,
            max_tokens=length, dtype=torch.float32,
        )  # fmt: skip
        folders[family] = root / family
        info = StatesInfo(family, "tiny", "float32", width, length, instruction)
        encode_captions(encoder, CAPTIONS, folders[family], info, batch_size=2, shard_size=3)
    return folders


@pytest.fixture
def opened(folders):
    """A function (family) -> states and model."""

    def open_(family):
        model = model_of(family)
        return open_text_states(DataConfig(text_states=str(folders[family])), model, Data()), model

    return open_


BOTH = pytest.mark.parametrize("family", ["pixeldit_t2i", "pixelhdm"])


def test_texts_of_a_network_without_mask_have_one_length(opened):
    states, _ = opened("pixeldit_t2i")
    (embeds,) = states.batch(CAPTIONS)
    assert embeds.shape == (6, 6, 12) and embeds.dtype == torch.float32
    assert states.null[0].shape == (1, 6, 12)
    close(embeds[4:5], states.null[0], 0)
    close(embeds[0], embeds[5], 0)


def test_texts_of_a_network_with_a_mask_are_padded_to_the_longest(opened):
    states, _ = opened("pixelhdm")
    embeds, mask, pooled = states.batch(CAPTIONS)
    assert embeds.shape == (6, 4, 16) and pooled.shape == (6, 16) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [3, 3, 4, 1, 0, 3]
    assert not embeds[~mask].any()
    close(pooled[0], embeds[0, 2], 0)
    null = states.null
    assert [tuple(part.shape) for part in null] == [(1, 1, 16), (1, 1), (1, 16)] and not null[1].any()
    close(null[2][0], pooled[4], 0)


@BOTH
def test_conditions_are_what_networks_take(opened, family):
    states, model = opened(family)
    for condition in (states.batch(CAPTIONS), states.null):
        checked = pc.text_condition(model, *condition)
        assert len(condition) == (len(checked) if isinstance(checked, tuple) else 1)
    x = pc.sample(model, states.batch(["a red square"]), states.null, seeds=[0], size=(16, 16), steps=2, cfg=2.0)
    assert x.isfinite().all()


@BOTH
@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_losses_of_encoded_captions_are_finite(opened, family, dropout):
    states, model = opened(family)
    loss = Loss(model, ObjectiveConfig(dropout=dropout))
    image = torch.linspace(-1, 1, 6 * 3 * 16 * 16).view(6, 3, 16, 16)
    draws = draw(torch.arange(6), (3, 16, 16), torch.device("cpu"))
    flow = loss(Batch(image, states.batch(CAPTIONS), states.null, torch.ones(6)), draws)["flow"]
    assert flow.shape == (6,) and flow.isfinite().all()
    if dropout == 1.0:  # a caption does not matter
        other = loss(Batch(image, states.batch(["blue"] * 6), states.null, torch.ones(6)), draws)["flow"]
        close(other, flow, 1e-5)


@BOTH
def test_from_captioned_images_to_losses(family, tmp_path):
    photos, is_t2i = tmp_path / "photos", family == "pixeldit_t2i"
    photos.mkdir()
    for number, caption in enumerate(CAPTIONS):
        Image.new("RGB", (16, 16), (40 * number, 0, 99)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(caption, encoding="utf-8")
    write, width = (tiny_encoders.write_gemma, 12) if is_t2i else (tiny_encoders.write_qwen, 16)
    (tmp_path / "instruction.txt").write_text(tiny_encoders.INSTRUCTION + "\n", encoding="utf-8")
    options = ["--instruction", str(tmp_path / "instruction.txt"), "--max-tokens", "6"] if is_t2i else []
    command = ["encode", str(photos), "--encoder", str(write(tmp_path / "encoder", width)), "--family", family]
    assert main([*command, "--out", str(tmp_path / "states"), "--device", "cpu", *options]) == 0

    model = model_of(family)
    states = open_text_states(DataConfig(text_states=str(tmp_path / "states")), model, Data())
    assert states.index.info.instruction == (tiny_encoders.INSTRUCTION if is_t2i else "")
    model.network.requires_grad_(True)
    images = [pc.from_image(model, Image.open(path)) for path in sorted(photos.glob("*.png"))]
    batch = Batch(torch.cat(images), states.batch(CAPTIONS), states.null, torch.ones(6))
    parts = Loss(model, ObjectiveConfig(dropout=0.5))(batch, draw(torch.arange(6), (3, 16, 16), torch.device("cpu")))
    assert parts["flow"].shape == (6,) and parts["flow"].isfinite().all()
    parts["flow"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.network.parameters())


@BOTH
def test_a_dropped_caption_is_the_empty_one(opened, family):
    states, model = opened(family)
    image, draws = torch.zeros(2, 3, 16, 16), draw(torch.arange(2), (3, 16, 16), torch.device("cpu"))

    def flow(captions, dropout):
        batch = Batch(image, states.batch(captions), states.null, torch.ones(2))
        return Loss(model, ObjectiveConfig(dropout=dropout))(batch, draws)["flow"]

    close(flow(["a red square", "blue"], 1.0), flow(["", ""], 0.0), 1e-5)
    assert (flow(["a red square", "blue"], 0.0) - flow(["", ""], 0.0)).abs().max() > 1e-5


def test_captions_for_sample_sheets_are_the_first_ones(opened):
    states, _ = opened("pixelhdm")
    assert states.first(3) == CAPTIONS[:3]
    assert states.first(7) == [*CAPTIONS[:5], *CAPTIONS[:2]]


def test_missing_captions_are_an_error_before_the_run(folders):
    config = DataConfig(text_states=str(folders["pixelhdm"]))
    with pytest.raises(ValueError, match=r'2 of 3 captions.*first: "new"') as error:
        open_text_states(config, model_of("pixelhdm"), Data(["new", "blue", "newer"]))
    command = f"python -m pixeldit_core encode DATA --encoder tiny --family pixelhdm --out {folders['pixelhdm']}"
    assert command in str(error.value)


def test_states_that_do_not_fit_are_an_error_before_the_run(folders, tmp_path):
    t2i = DataConfig(text_states=str(folders["pixeldit_t2i"]), path="photos")
    with pytest.raises(ValueError, match="text states for pixeldit_t2i, and the model is a pixelhdm"):
        open_text_states(t2i, model_of("pixelhdm"), Data())
    params = tiny_t2i_model().params
    with pytest.raises(ValueError, match=r"width 12 \(of tiny\), and the model takes 8"):
        open_text_states(t2i, tiny_t2i_model(replace(params, txt_embed_dim=8)), Data())
    with pytest.raises(ValueError, match=r"texts of 6 tokens, and the model reads 9.*--max-tokens 9"):
        open_text_states(t2i, tiny_t2i_model(replace(params, txt_max_length=9)), Data())
    with pytest.raises(ValueError, match="data.text_states is not set.*encode photos.*--instruction FILE"):
        open_text_states(replace(t2i, text_states=None), tiny_t2i_model(), Data())
    with pytest.raises(ValueError, match="no index.json"):
        open_text_states(replace(t2i, text_states=str(tmp_path)), tiny_t2i_model(), Data())
    (tmp_path / "index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="is not an index of text states"):
        open_text_states(replace(t2i, text_states=str(tmp_path)), tiny_t2i_model(), Data())


def test_missing_or_damaged_shards_are_an_error(folders, tmp_path):
    for path in folders["pixelhdm"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config, model = DataConfig(text_states=str(tmp_path)), model_of("pixelhdm")
    shard_path(tmp_path, 1).write_bytes(b"\0" * 20)
    states = open_text_states(config, model, Data())
    with pytest.raises(ValueError, match="states-00001.safetensors is missing or damaged"):
        states.batch(["blue"])
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(ValueError, match=r"1 of 2 shards.*states-00001"):
        open_text_states(config, model, Data())
