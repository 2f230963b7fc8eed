"""References and extractors that cannot be used: each is refused by name."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from evaluation.extractors import NAME, channels, draw, write
from evaluation.runs import evaluate
from PIL import Image

from pixeldit_core.evaluation.reference import open_reference, save_reference


@pytest.fixture
def samples(tmp_path):
    return write(draw(20, 1), tmp_path / "samples")


@pytest.fixture
def fails(capsys, samples):
    """The message of scoring against a reference that cannot be used."""

    def run(reference, *options, extractor=NAME):
        assert evaluate("--score", samples, "--reference", reference, "--extractor", extractor, *options) == 2
        assert not (samples / "score.json").exists()
        return capsys.readouterr().err

    return run


def test_another_size_is_refused_and_cropped_if_asked_for(fails, samples, tmp_path, capsys):
    folder = write(draw(9, 2, size=16), tmp_path / "reference")
    assert "has images of 16 x 16 pixels (width x height), the samples 8 x 8" in fails(folder)
    Image.new("RGB", (40, 21), "red").save(folder / "wide.jpg")
    assert "images of several sizes" in fails(folder)
    arguments = ("--score", samples, "--reference", folder, "--extractor", NAME, "--crop-reference")
    assert evaluate(*arguments) == 0
    out = capsys.readouterr().out
    assert "scaled and center-cropped to 8 x 8" in out and "JPEG or WebP" in out
    notes = json.loads((samples / "score.json").read_text("utf-8"))["deviations"]
    assert all(f"  * {note}\n" in out for note in notes) and len(notes) >= 6


def test_what_is_no_reference_is_named(fails, tmp_path):
    assert "nowhere is not there" in fails(tmp_path / "nowhere")
    path = tmp_path / "reference.npz"
    path.write_text("text")
    assert "is not an .npz file that can be read" in fails(path)
    torch.save({"mu": torch.zeros(6)}, tmp_path / "statistics.pt")
    assert "statistics.pt" in fails(tmp_path / "statistics.pt")
    np.savez(path, mu=np.array([{}], dtype=object))
    assert "is not an .npz file that can be read" in fails(path)
    np.savez(path, mu=np.zeros(6), sigma=np.eye(6))
    assert 'statistics of the ADM protocol\'s Inception network and no images, and the extractor is "channels"' in (
        fails(path)
    )


def test_statistics_of_another_extractor_are_refused(fails, tmp_path):
    extractor = channels()
    reference = open_reference(write(draw(9, 3), tmp_path / "images"), extractor, torch.device("cpu"), (8, 8))
    path = tmp_path / "saved.npz"
    save_reference(reference, extractor, path)
    stored = dict(np.load(path))
    note = json.loads(str(stored["pixeldit"]))
    for change, words in (
        ({"extractor": "other"}, "another network"),
        ({"weights": {"a.pth": "0" * 64}}, "the same network with other weights"),
    ):
        np.savez(path, **{**stored, "pixeldit": np.array(json.dumps({**note, **change}))})
        assert words in fails(path)
    np.savez(path, **{**stored, "mu": np.full(6, np.nan)})
    assert "not finite" in fails(path)
    np.savez(path, **{**stored, "sigma": np.eye(5)})
    assert "expected [D] and [D, D]" in fails(path)
    np.savez(path, **{**stored, "pixeldit": np.array("[]")})
    assert "note of --save-statistics is damaged" in fails(path)


def test_save_statistics_is_a_command_of_its_own(samples, tmp_path, capsys):
    folder, path = write(draw(9, 3), tmp_path / "images"), tmp_path / "new" / "saved.npz"
    assert evaluate("--reference", folder, "--save-statistics", path, "--extractor", NAME) == 0
    assert evaluate("--score", samples, "--reference", path, "--extractor", NAME) == 0
    direct, through = json.loads((samples / "score.json").read_text("utf-8")), None
    assert evaluate("--score", samples, "--reference", folder, "--extractor", NAME) == 0
    through = json.loads((samples / "score.json").read_text("utf-8"))
    assert {**direct, "reference": 0} == {**through, "reference": 0}
    capsys.readouterr()
    assert evaluate("--reference", folder, "--save-statistics", tmp_path / "saved.pt", "--extractor", NAME) == 2
    assert "statistics are written as .npz" in capsys.readouterr().err


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_of_an_extractor_are_checked_before_they_are_used(fails, samples, tiny_file, tmp_path):
    reference, weights = write(draw(9, 3), tmp_path / "images"), tmp_path / "weights.pth"

    def message():
        return fails(reference, "--extractor-weights", weights, extractor="inception")

    assert "weights.pth is not there" in message()
    weights.write_bytes(pickle.dumps({"a": Hostile(tmp_path / "ran")}))
    assert "has no weights of the extractor" in message()
    torch.save({"a": Hostile(tmp_path / "ran")}, weights)
    assert "has no weights of the extractor" in message()
    assert not (tmp_path / "ran").exists()
    torch.save({"a": 1}, weights)
    assert "does not hold tensors by name" in message()
    torch.save({"a": torch.zeros(2)}, weights)
    assert "has no weights of the extractor" in message()
    weights.write_bytes(b"")
    assert "has no weights of the extractor" in message()


def test_what_will_not_be_scored_is_refused_before_the_first_image(tiny_file, tmp_path, capsys):
    reference, out = write(draw(9, 3, size=16), tmp_path / "images"), tmp_path / "run"
    command = (tiny_file, "--count", 12, "--device", "cpu", "--out", out, "--extractor")
    for words, message in (
        ((NAME, "--reference", tmp_path / "nowhere"), "nowhere is not there"),
        (("inception", "--reference", reference), "nothing is downloaded here"),
        (("x", "--reference", reference, "--sweep", "cfg=1,2"), 'extractor "x" is not known'),
    ):
        assert evaluate(*command, *words) == 2
        assert message in capsys.readouterr().err and not out.exists()
    assert evaluate(*command, NAME, "--reference", reference) == 0
    assert "FID" in capsys.readouterr().out and (out / "score.json").exists()


def test_extractors_without_weights_or_of_no_name_say_what_to_do(fails, tmp_path):
    reference = write(draw(9, 3), tmp_path / "images")
    assert "nothing is downloaded here. Get https://" in fails(reference, extractor="inception")
    assert "toy_data/classifier.py writes" in fails(reference, extractor="classifier")
    assert 'extractor "inceptoin" is not known; there are' in fails(reference, extractor="inceptoin")
    assert "which is code" in fails(reference, extractor="clip-vit-b-32")
    assert "only downloads" in fails(reference, extractor="dinov2-vit-s-14")
