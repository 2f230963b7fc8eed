"""`encode`: captions of a data set, once."""

import json
import sys
from dataclasses import replace

import pytest
import tiny_encoders
import torch
from helpers import close, file_names
from PIL import Image

from pixeldit_core.cli import main
from pixeldit_core.families import find_family
from pixeldit_core.text_states.shards import StatesInfo, read_index, read_states
from pixeldit_core.training.encode import collect_captions, encode_captions
from pixeldit_core.training.text_encoder import TextState, load_text_encoder

CAPTIONS = ["a red square", "a blue circle", "green circle on white", "blue", "a red square", "low quality"]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return tiny_encoders.write_qwen(tmp_path_factory.mktemp("qwen") / "tiny-qwen", 16)


@pytest.fixture(scope="module")
def encoder(qwen):
    return load_text_encoder(str(qwen), find_family("pixelhdm"), dtype=torch.float32)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, caption in enumerate(CAPTIONS):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption + "\n", encoding="utf-8")
    return folder


INFO = StatesInfo("pixelhdm", "tiny-qwen", "float32", 16, 511)


class Stopping:
    """An encoder that is interrupted at its `calls`-th batch, and counts captions."""

    def __init__(self, encoder, calls=None):
        self.encoder, self.calls, self.seen = encoder, calls, []

    def __call__(self, captions):
        if self.calls == 0:
            raise KeyboardInterrupt
        if self.calls is not None:
            self.calls -= 1
        self.seen += captions
        return self.encoder(captions)


def check(folder, encoder, captions):
    index = read_index(folder)
    assert len(index.places) == len(captions) + 1
    for caption in ("", *captions):
        embeds, pooled = read_states(folder, index.place(caption))
        (expected,) = encoder([caption])
        close(embeds, expected.embeds, 1e-6)
        close(pooled, expected.pooled, 1e-6)


def test_every_caption_is_encoded_once(encoder, tmp_path):
    counting = Stopping(encoder)
    assert encode_captions(counting, CAPTIONS, tmp_path, INFO, batch_size=2, shard_size=4) == 6
    assert counting.seen == ["", *dict.fromkeys(CAPTIONS)]
    assert file_names(tmp_path) == ["index.json", "states-00000.safetensors", "states-00001.safetensors"]
    check(tmp_path, encoder, set(CAPTIONS))


def test_only_new_captions_are_encoded(encoder, tmp_path):
    encode_captions(encoder, CAPTIONS, tmp_path, INFO)
    before = (tmp_path / "states-00000.safetensors").read_bytes()
    counting = Stopping(encoder)
    assert encode_captions(counting, [*CAPTIONS, "a green square"], tmp_path, INFO) == 1
    assert counting.seen == ["a green square"]
    assert (tmp_path / "states-00000.safetensors").read_bytes() == before
    check(tmp_path, encoder, {*CAPTIONS, "a green square"})


def test_an_interrupt_keeps_what_is_encoded(encoder, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="the same command encodes the rest"):
        encode_captions(Stopping(encoder, 2), CAPTIONS, tmp_path, INFO, batch_size=2)
    assert len(read_index(tmp_path).places) == 4
    counting = Stopping(encoder)
    encode_captions(counting, CAPTIONS, tmp_path, INFO)
    assert counting.seen == ["blue", "low quality"]
    check(tmp_path, encoder, set(CAPTIONS))


def test_a_killed_process_keeps_its_complete_shards(encoder, tmp_path):
    class Killed(Exception):
        pass

    def killed(captions):
        if "blue" in captions:
            raise Killed
        return encoder(captions)

    with pytest.raises(Killed):
        encode_captions(killed, CAPTIONS, tmp_path, INFO, batch_size=1, shard_size=2)
    assert read_index(tmp_path).places == {}
    counting = Stopping(encoder)
    encode_captions(counting, CAPTIONS, tmp_path, INFO, shard_size=2)
    assert counting.seen == ["blue", "low quality"]
    check(tmp_path, encoder, set(CAPTIONS))


def test_states_of_another_encoder_are_not_mixed(encoder, tmp_path):
    encode_captions(encoder, CAPTIONS[:1], tmp_path, INFO)
    other = replace(INFO, encoder="other")
    with pytest.raises(ValueError, match=r"has other text states \(encoder 'tiny-qwen', not 'other'\)"):
        encode_captions(encoder, CAPTIONS, tmp_path, other)


def test_the_place_of_an_encoder_does_not_matter(encoder, tmp_path):
    encode_captions(encoder, CAPTIONS, tmp_path, INFO)
    assert encode_captions(encoder, CAPTIONS, tmp_path, replace(INFO, encoder="models/tiny-qwen")) == 0


def test_states_that_are_not_finite_are_an_error(encoder, tmp_path):
    def broken(captions):
        return [TextState(state.embeds, state.pooled * torch.inf) for state in encoder(captions)]

    with pytest.raises(ValueError, match="not finite"):
        encode_captions(broken, CAPTIONS, tmp_path, INFO)
    assert file_names(tmp_path) == ["index.json"]


def test_an_index_that_is_lost_is_made_again(encoder, tmp_path):
    encode_captions(encoder, CAPTIONS, tmp_path, INFO, shard_size=2)
    (tmp_path / "index.json").unlink()
    with pytest.raises(ValueError, match=r"states-00000\.safetensors has other text states \(encoder"):
        encode_captions(encoder, CAPTIONS, tmp_path, replace(INFO, encoder="other"))
    (tmp_path / "index.json").unlink(missing_ok=True)
    assert encode_captions(encoder, CAPTIONS, tmp_path, INFO, shard_size=2) == 0
    check(tmp_path, encoder, set(CAPTIONS))


def test_captions_come_from_images_and_lines(photos, tmp_path):
    (tmp_path / "more.txt").write_text("white\n\nblue\n", encoding="utf-8")
    expected = [*dict.fromkeys(CAPTIONS), "white"]
    assert collect_captions([photos, tmp_path / "more.txt"], None) == expected
    (photos / "0.txt").unlink()
    with pytest.raises(ValueError, match=r"no caption.*0\.png"):
        collect_captions([photos], None)
    assert collect_captions([photos], "on white")[0] == "on white"


def run(photos, qwen, out, *options, family="pixelhdm"):
    options = [str(option) for option in options]
    return main(["encode", str(photos), "--encoder", str(qwen), "--family", family, "--out", str(out), *options])


def test_the_command(photos, qwen, tmp_path, capsys):
    out = tmp_path / "states"
    assert run(photos, qwen, out, "--device", "cpu") == 0
    assert "states of 6 captions, the empty one included; 6 encoded now" in capsys.readouterr().out
    index = json.loads((out / "index.json").read_text("utf-8"))
    expected = {
        "family": "pixelhdm", "encoder": str(qwen), "dtype": "bfloat16", "width": 16, "max_tokens": 511,
        "instruction": "", "version": 1,
    }  # fmt: skip
    assert {name: value for name, value in index.items() if name != "captions"} == expected
    assert run(photos, qwen, out, "--device", "cpu") == 0
    assert "0 encoded now" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda photos: [path.unlink() for path in photos.iterdir()], [], "has no images (.avif, "),
        (lambda photos: None, ["--dtype", "fp32"], "dtype 'bfloat16', not 'float32'"),
        (lambda photos: None, ["--family", "pixeldit_t2i"], "--instruction is missing"),
        (lambda photos: None, ["--family", "pixeldit_t2i", "--instruction", "none"], "is a qwen3"),
        (lambda photos: None, ["--instruction", "text.txt"], "pixelhdm takes captions as they are"),
        (lambda photos: None, ["--encoder", "no/such/folder"], "no/such/folder cannot be used"),
    ],
    ids=["no captions", "another dtype", "instruction missing", "another kind", "needless instruction", "no encoder"],
)
def test_errors_of_the_command(photos, qwen, tmp_path, capsys, change, options, message):
    run(photos, qwen, tmp_path / "states", "--device", "cpu")
    change(photos)
    assert run(photos, qwen, tmp_path / "states", "--device", "cpu", *options) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_says_what_to_install(photos, qwen, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run(photos, qwen, tmp_path / "states", "--device", "cpu") == 2
    assert 'pip install -e ".[train]"' in capsys.readouterr().err
    assert not (tmp_path / "states").exists()
