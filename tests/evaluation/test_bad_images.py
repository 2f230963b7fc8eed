"""Samples that cannot be generated into, or scored: each is refused by name, and nothing of a user is touched."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from evaluation.extractors import NAME, draw, write
from evaluation.runs import contents, evaluate, start
from helpers import MODELS, ROOT
from PIL import Image

import pixeldit_core as pc

COUNT = ("--count", 24, "--batch-size", 8, "--device", "cpu")


@pytest.fixture
def reference(tmp_path):
    return write(draw(20, 2), tmp_path / "reference")


@pytest.fixture
def fails(capsys, reference):
    """The message of a command that a user can mend."""

    def run(*arguments):
        assert evaluate(*arguments) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "Traceback" not in text
        return text

    return run


@pytest.fixture
def score(fails, reference):
    """The message of scoring a path that cannot be."""
    return lambda path: fails("--score", path, "--reference", reference, "--extractor", NAME)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--cfg", "3"], "settings.cfg is 2.0 there, and 3.0 here"),
        (["--first-seed", "1"], "plan.first_seed is 0 there, and 1 here"),
        (["--dtype", "bf16"], 'dtype is "float32" there, and "bfloat16" here'),
        (["--classes", "1"], "plan.entries is 12 there"),
        (["--size", "32"], "settings.size.* there"),
    ],
)
def test_images_of_another_run_are_never_mixed(fails, tiny_file, tmp_path, options, words):
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "run") == 0
    before = contents(tmp_path / "run")
    message = fails(tiny_file, *COUNT, "--out", tmp_path / "run", *options)
    assert "has images of another run" in message and re.search(words, message), message
    assert contents(tmp_path / "run") == before


def test_another_checkpoint_of_the_same_name_is_another_run(fails, tiny, tiny_file, tmp_path):
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "run") == 0
    pc.save_checkpoint(tiny(seed=1), tiny_file)
    assert "checkpoint.files.tiny.safetensors is" in fails(tiny_file, *COUNT, "--out", tmp_path / "run")


def test_a_folder_of_other_images_is_not_written_to(fails, tiny_file, tmp_path):
    write(draw(3, 1), tmp_path / "mine" / "images")
    message = fails(tiny_file, *COUNT, "--out", tmp_path / "mine")
    assert "has images and no run.json, so nothing is known" in message
    (tmp_path / "file").write_text("mine")
    assert "cannot be written to" in fails(tiny_file, *COUNT, "--out", tmp_path / "file")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"count": "6", "shape": [1, 2, 3]}', '{"count": 6}', "null"])
def test_a_damaged_record_is_named(fails, score, tiny_file, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    for message in (fails(tiny_file, *COUNT, "--out", tmp_path / "run"), score(tmp_path / "run")):
        assert "run.json is not a record of a run" in message


def test_an_incomplete_run_is_not_scored(score, tiny_file, tmp_path):
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "run") == 0
    (tmp_path / "run/images/000/000007.png").unlink()
    assert "lacks 1 of its 24 images" in score(tmp_path / "run")


DAMAGES = {
    "cut": lambda data: data[:-30],
    "empty": lambda data: b"",
    "text": lambda data: b"not an image",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_broken_image_is_named(score, tmp_path, name):
    folder = write(draw(6, 1), tmp_path / "samples")
    (folder / "0003.png").write_bytes(DAMAGES[name]((folder / "0003.png").read_bytes()))
    assert "0003.png is not a readable image" in score(folder)


def test_images_of_several_sizes_are_named(score, tmp_path):
    folder = write(draw(6, 1), tmp_path / "samples")
    Image.new("RGB", (9, 8)).save(folder / "0004.png")
    assert "images of several sizes: 0004.png is 9 x 8, 0000.png is 8 x 8" in score(folder)


def test_a_header_that_asks_for_gigabytes_is_refused(score, tmp_path):
    folder = write(draw(6, 1), tmp_path / "samples")
    data = bytearray((folder / "0002.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    (folder / "0002.png").write_bytes(data)
    assert "0002.png is not a readable image" in score(folder)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16", "1"])
def test_other_kinds_of_pixels_are_converted(reference, tmp_path, mode, capsys):
    folder = write(draw(6, 1), tmp_path / "samples")
    image = Image.open(folder / "0000.png")
    gray = np.array(image.convert("L"))
    made = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    made.save(folder / ("0000.tiff" if mode == "CMYK" else "0000.png"))
    assert evaluate("--score", folder, "--reference", reference, "--extractor", NAME) == 0
    assert "nothing is known of how the samples were made" in capsys.readouterr().out


ARRAYS = {
    "no arr_0": {"images": draw(4, 1)},
    "floats": {"arr_0": draw(4, 1).astype(np.float32)},
    "objects": {"arr_0": np.array([{"a": 1}], dtype=object)},
    "three axes": {"arr_0": draw(4, 1)[..., 0]},
    "no images": {"arr_0": draw(4, 1)[:0]},
    "Fortran order": {"arr_0": np.asfortranarray(draw(4, 1))},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_archive_without_images_is_refused(score, tmp_path, name):
    np.savez(tmp_path / "samples.npz", **ARRAYS[name])
    assert "samples.npz has no images" in score(tmp_path / "samples.npz")


def test_a_damaged_archive_is_refused(score, tmp_path, reference):
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=draw(40, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "samples.npz has no images" in score(path)
    path.write_bytes(whole[:3000] + bytes(100) + whole[3100:])
    assert "samples.npz is damaged after" in score(path)
    np.savez(path, arr_0=draw(1, 1))
    assert "at least 2 images; there is 1" in score(path)
    assert "is not there" in score(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no images" in score(tmp_path / "empty")
    np.savez(path, arr_0=draw(9, 1)[..., :1])
    assert evaluate("--score", path, "--reference", reference, "--extractor", NAME) == 0
    assert json.loads(path.with_suffix(".score.json").read_text("utf-8"))["count"] == 9


def test_options_that_contradict_are_refused(fails, tiny_file, tmp_path, reference):
    out = ("--out", tmp_path / "run")
    assert "--out DIR is missing" in fails(tiny_file)
    assert "name a checkpoint" in fails()
    assert "not both" in fails(tiny_file, "--score", tmp_path)
    assert "--score needs --reference" in fails("--score", reference)
    assert "do not divide into 12" in fails(tiny_file, "--count", 25, *out)
    assert "takes classes" in fails(tiny_file, *COUNT, *out, "--prompts", tmp_path / "x.txt")
    assert "out of range" in fails(tiny_file, *COUNT, *out, "--classes", "99")
    assert "--sweep" in fails(tiny_file, *COUNT, *out, "--sweep", "cfg=2", "--reference", reference, "--shard", "1/2")
    assert not (tmp_path / "run").exists()


def test_labels_are_read_and_checked(fails, tiny_file, tmp_path):
    path = tmp_path / "labels.txt"
    arguments = (tiny_file, *COUNT, "--out", tmp_path / "run", "--labels", path)
    assert "labels.txt cannot be read as text" in fails(*arguments)
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert "labels.txt cannot be read as text" in fails(*arguments)
    path.write_text("\n\n")
    assert "has no labels" in fails(*arguments)
    path.write_text("1\r\n2\r\n\r\n77\r\n")
    assert "labels.txt, line 4: class 77 is out of range" in fails(*arguments)
    assert not (tmp_path / "run").exists()


def test_a_text_model_says_what_it_needs(fails, tiny_t2i, tmp_path):
    path = pc.save_checkpoint(tiny_t2i(), tmp_path / "text.safetensors")
    arguments = (path, *COUNT, "--out", tmp_path / "run")
    message = fails(*arguments)
    assert "needs prompts and their text states" in message and "--prompts prompts.txt --text-states states" in message
    assert "takes prompts: use --prompts" in fails(*arguments, "--classes", "1")
    prompts = tmp_path / "mine.txt"
    prompts.write_text("a cat\n")
    assert "has no index.json" in fails(*arguments, "--prompts", prompts, "--text-states", tmp_path / "states")


FULL = """
import resource, sys
from pixeldit_core.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
@pytest.mark.parametrize("limit, extra, words", [
    (2000, (), "could not be written to"), (30000, ("--npz",), "samples.npz could not be written"),
])  # fmt: skip
def test_a_full_disk_leaves_whole_images_and_the_same_command_continues(tmp_path, limit, extra, words):
    """A limit of the size of files is reported where a full disk is; PNG files of noise have 3 to 12 kB."""
    model = MODELS / "pixeldit-emoji-96.safetensors"
    arguments = [model, "--count", 12, "--classes", "0-11", "--size", 48, "--steps", 1, "--device", "cpu"]
    arguments += ["--out", tmp_path / "run", *extra]
    command = [sys.executable, "-c", FULL, str(limit), "evaluate", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 2 and words in run.stderr and "Traceback" not in run.stderr, run.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".npz"))]
    assert evaluate(*arguments) == 0
    assert len(contents(tmp_path / "run")) == 12


def test_two_commands_at_once_share_or_refuse_a_folder(tiny_file, tmp_path):
    arguments = (tiny_file, "--count", 120, "--batch-size", 4, "--device", "cpu", "--out", tmp_path / "run")
    same, also, other = start(*arguments), start(*arguments), start(*arguments, "--cfg", 3)
    outputs = [run.communicate(timeout=300)[0] for run in (same, also, other)]
    codes = [run.returncode for run in (same, also, other)]
    assert codes in ([0, 0, 2], [2, 2, 0]), outputs
    assert all(("another run" in out) == (code == 2) for out, code in zip(outputs, codes, strict=True)), outputs
    cfg = (3,) if codes[2] == 0 else (2,)
    assert evaluate(*arguments[:-1], tmp_path / "alone", "--cfg", *cfg) == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")
