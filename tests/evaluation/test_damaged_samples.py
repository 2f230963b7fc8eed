"""Damaged and hostile samples: images, archives and records of a run. Each is refused by name, or read as meant."""

import io
import json
import os
import random
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from evaluation.extractors import NAME, draw, write
from evaluation.runs import contents, evaluate
from PIL import Image

from pixeldit_core.evaluation import save_classifier
from pixeldit_core.evaluation.archive import write_archive
from pixeldit_core.evaluation.classifier import Classifier
from pixeldit_core.evaluation.image_folder import ImageFolder
from pixeldit_core.evaluation.image_source import FolderSource, archive_shape, find_images, open_images
from pixeldit_core.evaluation.run_record import open_run, read_run
from pixeldit_core.evaluation.score import open_samples
from pixeldit_core.images import write_png

SQUARES = "\u00b2" * 6  # str.isdigit holds, int() fails
COUNT = ("--count", 12, "--batch-size", 12, "--device", "cpu")
SCORED = {"shape": [8, 8, 3], "classes": 3, "class_names": ["a", "b", "c"]}


@pytest.fixture
def reference(tmp_path):
    return write(draw(8, 2), tmp_path / "reference")


@pytest.fixture
def fails(capsys):
    """The message of a command that a user can mend; it is one line, and nothing half written is left."""

    def run(*arguments, folder=None):
        assert evaluate(*arguments) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1 and text.count("error: ") == 1
        assert folder is None or not list(folder.rglob("*.part"))
        return text

    return run


@pytest.fixture
def score(fails, reference, tmp_path):
    """The message of scoring a path that cannot be."""

    def run(path, extractor=NAME):
        message = fails("--score", path, "--reference", reference, "--extractor", extractor, folder=tmp_path)
        assert not list(tmp_path.rglob("*score.json"))
        return message

    return run


@pytest.fixture
def finished(tiny_file, tmp_path):
    """A run of 12 images."""
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "run") == 0
    return tmp_path / "run"


def run_folder(path, **record):
    """A run as if it were generated: six images with their classes, and run.json."""
    for index, pixels in enumerate(draw(6, 1)):
        write_png(Image.fromarray(pixels), ImageFolder(path, (8, 8, 3)).file(index), {"entry": index % 3})
    (path / "run.json").write_text(json.dumps({"count": 6, **SCORED, **record}))
    return path


# images of a run


def test_no_changed_byte_and_no_missing_end_passes_as_whole(tmp_path):
    folder = ImageFolder(tmp_path, (3, 4, 3))
    path = folder.file(0)
    write_png(Image.fromarray(draw(1, 1)[0, :3, :4]), path, {"entry": 1})
    data = path.read_bytes()
    assert folder.is_whole(0)
    for place in range(len(data)):
        for bit in (1, 32, 128):
            path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            assert not folder.is_whole(0), (place, bit)
        path.write_bytes(data[:place])
        assert not folder.is_whole(0), place
    path.write_bytes(data + b"\0")
    assert not folder.is_whole(0)


def bomb(file):
    """A PNG file with right checksums that says it is 60,000 x 60,000."""
    data = file.read_bytes()
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zipfile.crc32(header).to_bytes(4, "big") + data[33:]


def saved(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_whatever_has_the_place_of_an_image_is_replaced(tiny_file, finished):
    before = contents(finished)
    own = finished / "images" / "notes.txt"
    own.write_text("mine")
    files = [finished / f"images/000/{index:06d}.png" for index in range(5)]
    image = Image.open(files[0]).convert("RGB")
    files[0].write_bytes(saved(image, "JPEG"))
    files[1].write_bytes(saved(image.resize((9, 16)), "PNG"))
    files[2].write_bytes(saved(image.convert("L"), "PNG"))
    files[3].write_bytes(bomb(files[3]))
    files[4].unlink()
    files[4].symlink_to("nowhere.png")
    (finished / f"images/000/{SQUARES}.png").write_bytes(b"")
    assert evaluate(tiny_file, *COUNT, "--out", finished) == 0
    found = contents(finished)
    assert found.pop("images/notes.txt") == b"mine" and found.pop(f"images/000/{SQUARES}.png") == b""
    assert found == before


def test_a_folder_or_file_in_the_way_is_named_and_kept(fails, tiny_file, finished):
    file = finished / "images/000/000005.png"
    data = file.read_bytes()
    file.unlink()
    file.mkdir()
    (file / "mine.txt").write_text("mine")
    command = (tiny_file, *COUNT, "--out", finished)
    assert f"{file} is a folder, and image 5 belongs there. Move it away" in fails(*command, folder=finished)
    assert (file / "mine.txt").read_text() == "mine"
    (file / "mine.txt").unlink()
    file.rmdir()
    assert evaluate(*command) == 0 and file.read_bytes() == data
    (finished / "images").rename(finished / "kept")
    (finished / "images").write_text("mine")
    assert f"{finished / 'images'} is a file, and image 0 belongs there. Move it away" in fails(*command)
    assert (finished / "images").read_text() == "mine"


def test_an_archive_is_not_written_from_other_images(finished, tmp_path):
    folder = ImageFolder(finished, (16, 16, 3))
    broken = folder.file(3)
    for data, words in (
        (saved(Image.new("RGB", (12, 16)), "PNG"), "is 12 x 16 RGB; expected 16 x 16 RGB. The command that made it"),
        (saved(Image.new("P", (16, 16)), "PNG"), "is 16 x 16 P; expected"),
        (bomb(folder.file(4)), "000003.png is broken"),
        (b"", "000003.png is broken"),
    ):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=words):
            write_archive(folder, 12, tmp_path / "all.npz")
        assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob(".*.part"))


# the record of a run


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"count": -6},
        {"count": 10**30},
        {"count": True},
        {"count": 6.0},
        {"shape": [8, 8]},
        {"shape": [8, 8, 4]},
        {"shape": [0, 8, 3]},
        {"shape": [10**9, 8, 3]},
        {"shape": "883"},
        {"shape": None},
        {"class_names": 3},
        {"class_names": [1, 2, 3]},
        {"classes": "3"},
        "text",
        b"\xff\xfe\x00",
        DEEP,
        "9" * 5000,
    ],
    ids=lambda change: str(change)[:30],
)
def test_a_record_with_values_of_another_kind_is_named(score, tiny_file, fails, tmp_path, change):
    folder = run_folder(tmp_path / "run", **(change if isinstance(change, dict) else {}))
    if not isinstance(change, dict):
        (folder / "run.json").write_bytes(change if isinstance(change, bytes) else change.encode())
    before = (folder / "run.json").read_bytes()
    for message in (score(folder), fails(tiny_file, *COUNT, "--out", folder, folder=folder)):
        assert f"{folder / 'run.json'} is not a record of a run" in message and "Restore it, or move" in message
    assert (folder / "run.json").read_bytes() == before and len(contents(folder)) == 6


def test_a_record_without_a_value_or_that_is_a_folder_is_named(score, tmp_path):
    for name in ("count", "shape", "classes", "class_names"):
        folder = run_folder(tmp_path / name)
        record = json.loads((folder / "run.json").read_text())
        del record[name]
        (folder / "run.json").write_text(json.dumps(record))
        assert f"not a record of a run (KeyError('{name}'))" in score(folder)
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    assert "run.json is not a record of a run" in score(folder)


def test_a_record_of_four_billion_images_costs_no_time(score, tmp_path):
    assert "lacks 4294967290 of its 4294967296 images" in score(run_folder(tmp_path / "run", count=2**32))


def test_a_folder_without_hard_links_has_its_record_too(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    identity = {**SCORED, "a": 1}
    for _ in range(2):
        open_run(tmp_path, identity, {"count": 3})
    assert read_run(tmp_path)["a"] == 1 and [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(ValueError, match="a is 1 there, and 2 here"):
        open_run(tmp_path, {**identity, "a": 2}, {"count": 3})


def test_a_run_is_scored_as_its_record_says(score, tmp_path):
    folder = run_folder(tmp_path / "run")
    file = folder / "images/000/000002.png"
    data = file.read_bytes()
    file.write_bytes(saved(Image.open(file), "JPEG"))
    assert f"{file} is not a readable image" in score(folder)
    file.write_bytes(data)
    for other in folder.rglob("*.png"):
        other.write_bytes(saved(Image.open(other).resize((9, 8)), "PNG"))
    assert "images of 9 x 8 pixels, and run.json says 8 x 8" in score(folder)


def test_the_archive_of_a_run_has_as_many_images_as_its_record(score, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"count": 6, **SCORED}))
    for count in (4, 9):
        np.savez(tmp_path / "run" / "samples.npz", draw(count, 1))
        assert f"lacks {abs(6 - count)} of its 6 images" in score(tmp_path / "run")
    np.savez(tmp_path / "run" / "samples.npz", draw(6, 1, size=9))
    assert "images of 9 x 9 pixels, and run.json says 8 x 8" in score(tmp_path / "run")
    np.savez(tmp_path / "run" / "samples.npz", draw(6, 1))
    source, run = open_samples(tmp_path / "run")
    assert source.count == run["count"] == 6


def test_accuracy_is_of_classes_only(tmp_path, reference):
    """Not of the numbers of prompts, and not of images of no class."""
    weights = save_classifier(Classifier(3, 3, (8, 8)).eval(), tmp_path / "c.safetensors", ("a", "b", "c"))
    folder = run_folder(tmp_path / "run")

    def accuracy(**record):
        (folder / "run.json").write_text(json.dumps({"count": 6, **SCORED, **record}))
        arguments = ("--score", folder, "--reference", reference, "--extractor", "classifier")
        assert evaluate(*arguments, "--extractor-weights", weights) == 0
        return json.loads((folder / "score.json").read_text())["accuracy"]

    assert 0 <= accuracy() <= 1
    assert accuracy(classes=None, class_names=None) is None
    write_png(Image.fromarray(draw(1, 1)[0]), folder / "images/000/000001.png", {"entry": 3})
    assert accuracy() is None


# folders of images


def test_what_images_of_a_folder_are(tmp_path):
    folder = write(draw(3, 1), tmp_path / "a", ["1.PNG", "n/2.png", "named.png/3.png"])
    write(draw(4, 2), folder, [".hidden.png", ".cache/5.png", "__MACOSX/6.png", "__MACOSX/n/7.png"])
    (folder / "notes.txt").write_text("no image")
    linked = write(draw(1, 3), tmp_path / "elsewhere", ["4.jpeg"])
    (folder / "link").symlink_to(linked, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "n" / "up").symlink_to(folder / "n", target_is_directory=True)
    names = [str(path.relative_to(folder)) for path in find_images(folder)]
    assert names == ["1.PNG", "link/4.jpeg", "n/2.png", "named.png/3.png"]
    assert open_images(folder).count == 4


def test_a_link_to_nowhere_is_named(score, tmp_path):
    folder = write(draw(3, 1), tmp_path / "samples")
    (folder / "0001.png").unlink()
    (folder / "0001.png").symlink_to("nowhere")
    assert "0001.png is not a readable image" in score(folder)


def test_jpeg_is_noted_whatever_its_name(reference, tmp_path):
    folder = write(draw(6, 1), tmp_path / "samples")
    (folder / "0002.png").write_bytes(saved(Image.open(folder / "0002.png"), "JPEG"))
    assert evaluate("--score", folder, "--reference", reference, "--extractor", NAME) == 0
    notes = json.loads((folder / "score.json").read_text())["deviations"]
    assert "some samples are JPEG or WebP files, not the pixels that were generated" in notes


@pytest.mark.parametrize("text", ['{"entry": "cat"}', '{"entry": 1e400}', "[1]", "{", DEEP, '{"entry": [2]}',
                                  f'{{"entry": {10**30}}}', '{"entry": -1}', '{"entry": true}', "null"],
                         ids=lambda text: text[:20])  # fmt: skip
def test_texts_of_other_programs_are_no_labels(tmp_path, text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("pixeldit", text)
    Image.fromarray(draw(1, 1)[0]).save(tmp_path / "a.png", pnginfo=info)
    assert [image.label for image in open_images(tmp_path).images()] == [None]


def damaged(data, rng):
    """Bytes changed, mostly near the start, or the end cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data)) + 1]
        else:
            place = rng.randrange(min(len(data), 200) if rng.random() < 0.7 else len(data))
            data[place] = rng.randrange(256)
    return bytes(data)


def read_or(words, source):
    """The pixels of a source, or of a path; none if it is refused, with words."""
    try:
        return [image.pixels for image in (open_images(source) if isinstance(source, Path) else source).images()]
    except ValueError as error:
        if words not in str(error):
            raise
        return []


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_images_are_read_or_named(tmp_path, kind, capfd):
    rng, image = random.Random(kind), Image.fromarray(draw(1, 1)[0])
    path = tmp_path / f"a.{kind.lower().replace('jpeg', 'jpg')}"
    for mode in ("RGB", "L", "CMYK") if kind == "JPEG" else ("RGB", "P", "RGBA"):
        data = saved(image.convert(mode), kind)
        for _ in range(60):
            path.write_bytes(damaged(data, rng))
            for pixels in read_or(f"{path} is not a readable image", FolderSource(tmp_path, [path])):
                assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)


# archives


def stored(path, header, data=b"", compression=zipfile.ZIP_STORED):
    """An .npz file with a header of one's own."""
    text = header if isinstance(header, bytes) else repr(header).encode()
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + data
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("arr_0.npy", npy)
    return path


def header(shape, descr="|u1", fortran=False):
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


PIXELS = draw(5, 1).tobytes()


@pytest.mark.parametrize(
    "head, words",
    [
        (header((5, 8, 8, 3), "<f4"), "its arr_0 is float32 [5, 8, 8, 3]; expected arr_0, uint8 [N, H, W, 3]"),
        (header((5, 8, 8, 3), "|O"), "its arr_0 is object [5, 8, 8, 3]"),
        (header((5, 8, 8, 3), [("a", "|u1")]), "its arr_0 is [('a', 'u1')] [5, 8, 8, 3]"),
        (header((5, 8, 8, 3), fortran=True), "its arr_0 is uint8 in Fortran order [5, 8, 8, 3]"),
        (header((5, 8, 8, 4)), "its arr_0 is uint8 [5, 8, 8, 4]"),
        (header((5, 64, 3)), "its arr_0 is uint8 [5, 64, 3]"),
        (header((0, 8, 8, 3)), "its arr_0 is uint8 [0, 8, 8, 3]"),
        (header((5, 0, 8, 3)), "its arr_0 is uint8 [5, 0, 8, 3]"),
        (header((-5, 8, 8, 3)), "its arr_0 is uint8 [-5, 8, 8, 3]"),
        (header((1, 2**40, 2**40, 3)), f"its arr_0 is uint8 [1, {2**40}, {2**40}, 3]"),
        (header((6, 8, 8, 3)), "is damaged: its arr_0 is uint8 [6, 8, 8, 3], and 960 bytes are stored for it"),
        (header((4, 8, 8, 3)), "is damaged: its arr_0 is uint8 [4, 8, 8, 3], and 960 bytes"),
        (header((10**30, 8, 8, 3)), "is damaged"),
        (header("abc"), "has no images that can be read"),
        ({"a": 1}, "has no images that can be read"),
        (b"{[]: 1}", "has no images that can be read"),
        (b"__import__('os').mkdir('ran')", "has no images that can be read"),
        (b"(" * 5000, "has no images that can be read"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict | bytes) else "",
)
def test_an_archive_s_header_is_checked(score, tmp_path, head, words):
    assert words in score(stored(tmp_path / "a.npz", head, PIXELS))
    assert archive_shape(tmp_path / "a.npz") is None and not os.path.exists("ran")


def test_archives_of_other_kinds_are_named(score, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    assert f"{path} has no images that can be read (it has notes.txt); expected arr_0, uint8" in score(path)
    np.savez(path, draw(5, 1))
    whole = path.read_bytes()
    for place, value in ((6, b"\x01"), (8, b"\x63")):  # encrypted; an unknown compression
        data = bytearray(whole)
        data[place] = value[0]
        data[data.rindex(b"PK\x01\x02") + place + 2] = value[0]
        path.write_bytes(data)
        assert "has no images that can be read" in score(path)
    np.savez_compressed(path, draw(50, 1))
    data = bytearray(path.read_bytes())
    data[3000:3100] = bytes(100)
    path.write_bytes(data)
    assert f"{path} is damaged after" in score(path)
    np.save(tmp_path / "a.npy", draw(5, 1))
    assert "a.npy has no images that can be read (File is not a zip file)" in score(tmp_path / "a.npy")
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(draw(1, 1)[0]), "PNG"))
    assert "Name a folder of images, or an .npz file" in score(tmp_path / "a.png")


@pytest.mark.fuzz
def test_damaged_archives_are_read_or_named(tmp_path):
    rng, path, pixels = random.Random(0), tmp_path / "a.npz", draw(3, 1)
    for save in (np.savez, np.savez_compressed):
        save(path, pixels)
        data = path.read_bytes()
        for _ in range(300):
            end = data[:-150] + damaged(data[-150:], rng)  # the directory, at the end of a zip file
            path.write_bytes(damaged(data, rng) if rng.random() < 0.6 else end)
            read_or(str(path), path)


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_files_without_permission_are_named(score, tmp_path):
    folder = write(draw(3, 1), tmp_path / "samples")
    (folder / "0001.png").chmod(0)
    assert "0001.png is not a readable image" in score(folder)


def test_one_image_is_too_few(score, tmp_path):
    folder = write(draw(1, 1), tmp_path / "samples")
    assert f"{folder}: statistics need at least 2 images; there is 1. Name more of them" in score(folder)
