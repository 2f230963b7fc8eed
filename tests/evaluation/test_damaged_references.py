"""Damaged and foreign references, weights of extractors, labels and prompts, and places that cannot be written to."""

import dataclasses
import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import torch_fidelity
from evaluation.extractors import NAME, Channels, channels, draw, write
from evaluation.runs import evaluate
from helpers import ROOT
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from pixeldit_core.evaluation.conditions import read_labels, read_prompts
from pixeldit_core.evaluation.extractor import load_extractor
from pixeldit_core.evaluation.reference import open_reference, save_reference
from pixeldit_core.training.encode import collect_captions

CPU = torch.device("cpu")
INCEPTION = dataclasses.replace(channels(), name="inception")  # by name only: nothing below runs it
WIDE = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
SPATIAL = {"mu_s": np.zeros(2023), "sigma_s": np.eye(2023)}


class Broken(Channels):
    """Gives what an extractor with damaged weights gives."""

    def forward(self, images):
        moments, logits = (found * 1.0 for found in super().forward(images))
        moments[0, 2] = float("inf")
        return moments, logits


if "broken" not in FEATURE_EXTRACTORS_REGISTRY:
    torch_fidelity.register_feature_extractor("broken", Broken)


@pytest.fixture
def samples(tmp_path):
    return write(draw(8, 1), tmp_path / "samples")


@pytest.fixture
def fails(capsys, samples):
    """The message of scoring against a reference that cannot be used; no score is written."""

    def run(reference, *options, extractor=NAME):
        assert evaluate("--score", samples, "--reference", reference, "--extractor", extractor, *options) == 2
        assert not (samples / "score.json").exists() and not list(samples.parent.rglob("*.part"))
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
        return message

    return run


@pytest.fixture
def saved(tmp_path):
    """Statistics of the extractor of the tests."""
    reference = open_reference(write(draw(9, 3), tmp_path / "images"), channels(), CPU, (8, 8))
    save_reference(reference, channels(), tmp_path / "saved.npz")
    return tmp_path / "saved.npz"


def adm(path, **arrays):
    """An ADM reference, opened for Inception."""
    np.savez(path, **arrays)
    return open_reference(path, INCEPTION, CPU, (8, 8))


# references


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"mu": np.zeros(6), "sigma": np.eye(6)}, "a mu of 6 features, and .* Inception network gives 2,048"),
        (WIDE | {"mu_s": np.zeros(9), "sigma_s": np.eye(9)}, "a mu_s of 9 features, and .* gives 2,023"),
        (WIDE | {"mu": np.full(2048, np.inf)}, "mu float64 .2048. and .* not finite"),
        (WIDE | {"sigma": np.zeros((2048, 9))}, "sigma float64 .2048, 9.* expected .D. and .D, D."),
        (WIDE | {"mu": np.array(["a"] * 2048)}, "mu <U1 .2048. and sigma"),
        (WIDE | {"mu": np.zeros(2048, complex)}, "mu complex128 .2048."),
        (WIDE | {"mu": np.float64(1)}, "mu float64 .. and sigma"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "mu float64 .0. and sigma"),
        ({"mu": np.zeros(2048)}, "has statistics of the ADM protocol|has no images that can be read .it has mu.npy"),
    ],
)
def test_adm_statistics_of_another_kind_are_named(tmp_path, arrays, words):
    with pytest.raises(ValueError, match=words) as caught:
        adm(tmp_path / "adm.npz", **arrays)
    assert str(tmp_path / "adm.npz") in str(caught.value)


def test_what_adm_statistics_lack_is_noted(tmp_path):
    whole = adm(tmp_path / "adm.npz", **WIDE, **SPATIAL)
    assert whole.deviations == ("the reference has no images: no precision and recall",) and whole.spatial is not None
    assert adm(tmp_path / "adm.npz", **WIDE).deviations[1:] == (
        "the reference has no spatial statistics (mu_s, sigma_s): no sFID",
    )
    images = adm(tmp_path / "adm.npz", **WIDE, **SPATIAL, arr_0=draw(5, 1))
    assert images.deviations == () and images.size == (8, 8) and images.features.shape == (5, 6)
    assert adm(tmp_path / "adm.npz", **{k: v.astype(np.float32) for k, v in WIDE.items()}).fid.mu.dtype == np.float64


def test_other_files_are_no_references(fails, tmp_path, samples):
    np.save(tmp_path / "mu.npy", np.zeros(6))
    assert f"the reference {tmp_path / 'mu.npy'} is not an .npz file that can be read" in fails(tmp_path / "mu.npy")
    torch.save({"mu": torch.zeros(6)}, tmp_path / "s.pt")
    assert "s.pt has no images that can be read (it has s/data.pkl" in fails(tmp_path / "s.pt")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(samples / "0000.png", "0000.png")
    assert "images.zip has no images that can be read (it has 0000.png); expected arr_0" in fails(
        tmp_path / "images.zip"
    )
    assert "is not an .npz file that can be read" in fails(samples / "0000.png")
    np.savez(tmp_path / "other.npz", x=np.zeros(6))
    assert "other.npz has no images that can be read (it has x.npy)" in fails(tmp_path / "other.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    assert "empty.npz is not an .npz file that can be read" in fails(tmp_path / "empty.npz")
    assert f"{tmp_path / 'one'}: statistics need at least 2 images" in fails(write(draw(1, 1), tmp_path / "one"))
    (tmp_path / "none").mkdir()
    assert "none has no images" in fails(tmp_path / "none")


NOTES = [
    {"extractor": 3},
    {"weights": [1]},
    {"weights": {"a": 1}},
    {"count": "9"},
    {"size": 8},
    {"size": [8, "8"]},
    {"size": [8]},
    {"about": 3},
    {"deviations": [1]},
    {"deviations": None},
    "[",
    "[]",
    "null",
    "[" * 100_000,
]


def test_damaged_notes_of_saved_statistics_are_named(fails, saved):
    stored = dict(np.load(saved))
    note = json.loads(str(stored["pixeldit"]))
    for change in NOTES:
        text = json.dumps(note | change) if isinstance(change, dict) else change
        np.savez(saved, **(stored | {"pixeldit": np.array(text)}))
        assert f"{saved}: the note of --save-statistics is damaged" in fails(saved), change
    np.savez(saved, **(stored | {"pixeldit": np.zeros(3)}))
    assert "note of --save-statistics is damaged" in fails(saved)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"features": np.zeros((9, 5), np.float32)}, "features float32 [9, 5]"),
        ({"features": np.zeros((9, 6))}, "features float64 [9, 6], or values that are not finite; expected float32"),
        ({"features": np.full((9, 6), np.nan, np.float32)}, "features float32 [9, 6], or values that are not finite"),
        ({"mu": None}, "lacks mu or sigma, which --save-statistics writes. Save them again"),
        ({"mu": np.zeros(5), "sigma": np.eye(5), "features": None}, "statistics of 5 features, and the extractor"),
    ],
)  # fmt: skip
def test_damaged_arrays_of_saved_statistics_are_named(fails, saved, change, words):
    stored = dict(np.load(saved)) | change
    np.savez(saved, **{name: value for name, value in stored.items() if value is not None})
    message = fails(saved)
    assert words in message and str(saved) in message


def test_weights_of_another_name_are_the_same_weights(saved):
    extractor = dataclasses.replace(channels(), weights={"a.pth": "12"})
    save_reference(open_reference(saved.parent / "images", extractor, CPU, (8, 8)), extractor, saved)
    renamed = dataclasses.replace(extractor, weights={"b.pth": "12"})
    assert open_reference(saved, renamed, CPU, (8, 8)).count == 9
    with pytest.raises(
        ValueError, match=r'"channels" a.pth 12, and this is "channels" b.pth 34: the same network with'
    ):
        open_reference(saved, dataclasses.replace(extractor, weights={"b.pth": "34"}), CPU, (8, 8))


@pytest.mark.fuzz
def test_damaged_statistics_are_read_or_named(saved):
    rng, data, extractor = random.Random(0), saved.read_bytes(), channels()
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3))):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        saved.write_bytes(changed[: rng.randrange(len(data))] if rng.random() < 0.2 else changed)
        try:
            reference = open_reference(saved, extractor, CPU, (8, 8))
        except ValueError as error:
            if str(saved) not in str(error):
                raise
        else:
            assert reference.fid.mu.shape == (6,)


# extractors


def test_numbers_that_are_not_finite_are_refused(fails, samples, tmp_path):
    message = fails(write(draw(5, 2), tmp_path / "reference"), extractor="broken")
    assert f'the extractor "broken" gives numbers for {tmp_path / "reference"} that are not finite' in message


class Named(dict):
    """A dictionary of a class that unpickling has to find."""


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_weights_that_are_something_else_are_named(tiny_file, tmp_path):
    scripted = io.BytesIO()
    with pytest.warns():
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), scripted)
    path = tmp_path / "weights.pth"
    for data in (
        tiny_file.read_bytes(),
        scripted.getvalue(),
        pickled([torch.zeros(2)]),
        pickled({3: torch.zeros(2)}),
        pickled({"state_dict": {"a": torch.zeros(2)}}),
        pickled(Named(a=torch.zeros(2))),
        pickled(torch.zeros(2)),
        pickled({"a": Hostile(tmp_path / "ran")}),
        pickle.dumps(Hostile(tmp_path / "ran"), protocol=0),
        pickled({"a": torch.zeros(50)})[:-40],
        b"PK\x03\x04",
        b"text",
    ):
        path.write_bytes(data)
        for name in ("inception", "vgg16", "inception-v3-compat"):
            with pytest.raises(ValueError, match=f'{path} has no weights of the extractor "{name}"'):
                load_extractor(name, path, CPU)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="is a PixelDiT checkpoint, not a classifier"):
        load_extractor("classifier", tiny_file, CPU)


def test_an_extractor_s_own_error_is_not_hidden():
    class Faulty(Channels):
        def __init__(self, name, features_list, **options):
            raise RuntimeError("of its own")

    torch_fidelity.register_feature_extractor("faulty", Faulty)
    with pytest.raises(RuntimeError, match="of its own"):
        load_extractor("faulty", None, CPU)
    del FEATURE_EXTRACTORS_REGISTRY["faulty"]

    class Empty(Channels):
        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            raise KeyError(metric)

    torch_fidelity.register_feature_extractor("clipless", Empty)
    with pytest.raises(ValueError, match='extractor "clipless" names no features for FID'):
        load_extractor("clipless", None, CPU)
    del FEATURE_EXTRACTORS_REGISTRY["clipless"]


# labels and prompts


def test_labels_of_windows_are_read_and_wrong_lines_numbered(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff3\r\n\r\ncat\r\n2: cat\r\n".encode())
    names = [("owl",), ("dog",), ("cat",), ("ant",)]
    assert read_labels(path, 4, names) == (3, 2, 2)
    for text, words in (
        ("1\n2\n\n5\n", "line 4: class 5 is out of range"),
        ("1\ncow\n", 'line 2: class "cow" is not known'),
        ("1\n-1\n", "line 2: "),
        ("1\n1.5\n", "line 2: "),
        ("1 2\n", "line 1: "),
        ("9" * 5000, "line 1: "),
        ("1\n\0\n", "line 2: "),
    ):
        path.write_text(text)
        with pytest.raises(ValueError) as caught:
            read_labels(path, 4, names)
        assert str(caught.value).startswith(f"{path}, {words}") and len(str(caught.value)) < 1000, text[:9]
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_labels(tmp_path, 4, names)


def test_prompts_are_those_that_encode_reads(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("a cat \r\n\r\n \tan owl\r\n a\u2028dog".encode())
    assert read_prompts(path) == list(collect_captions([path], None))
    path.write_bytes(b"\xef\xbb\xbfa cat\r\n")
    assert read_prompts(path) == ["a cat"]


# places that cannot be written to


FULL = """
import resource, sys
from torchvision_operators import define_missing_operators as define; define()
import evaluation.extractors
from pixeldit_core.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
common = ["evaluate", "--reference", sys.argv[1], "--extractor", "channels"]
sys.exit(10 * main([*common, "--score", sys.argv[2]]) + main([*common, "--save-statistics", sys.argv[3]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_keeps_earlier_scores_and_statistics(samples, saved, tmp_path):
    (samples / "score.json").write_text("earlier")
    before = saved.read_bytes()
    command = [sys.executable, "-c", FULL, str(tmp_path / "images"), str(samples), str(saved)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 22, run.stderr
    assert f"{samples / 'score.json'} could not be written: the file is larger than this disk" in run.stderr
    assert f"{saved} could not be written" in run.stderr and run.stderr.count("\n") == 2
    assert (samples / "score.json").read_text() == "earlier" and saved.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
