"""Files that are complete or not there, under every name that a file may have, and the reason of each failure."""

import errno
import os
import signal

import pytest

from pixeldit_core.atomic import LONGEST_NAME, atomic_path, explain_write_error


def write(path, text="new"):
    with atomic_path(path) as part:
        assert part.parent == path.parent and part.name.startswith(".") and part.name.endswith(".part")
        part.write_text(text)


@pytest.mark.parametrize("name", [
    "a.txt",
    "\u753b" * 80 + ".safetensors",  # 252 bytes
    "\u753b" * 85,  # 255 bytes
    "x" * 240 + ".safetensors",
    "x" * LONGEST_NAME,
    "\U0001f600" * 63 + "abc",  # cut between characters, never inside of one
])  # fmt: skip
def test_names(tmp_path, name):
    path = tmp_path / name
    write(path, "old")
    write(path)
    assert path.read_text() == "new" and [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    with pytest.raises(TypeError), atomic_path(path) as part:
        part.write_text(1)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def fails(path, *words):
    began = []
    with pytest.raises((OSError, ValueError)) as raised, atomic_path(path) as part:
        began.append(part.write_bytes(b"0" * 100_000))
    reason, way_out = explain_write_error(raised.value, path)
    for word in words:
        assert word in reason, reason
    assert way_out.endswith(".") and not reason.endswith(".")
    return began


@pytest.mark.parametrize("letter, count", [("x", 300), ("\u753b", 100)])
def test_a_name_that_is_too_long_is_refused_before_anything_is_written(tmp_path, letter, count):
    size = len(letter.encode()) * count
    began = fails(tmp_path / (letter * count), f"its name has {count} characters ({size} bytes)", "255 bytes")
    assert not began and not list(tmp_path.iterdir())


def test_places_that_no_file_can_have(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    fails(tmp_path / "file" / "below", "a part of its path is a file, not a folder")
    assert not fails(tmp_path / "folder", "there is a folder of that name")
    fails(tmp_path / "circle" / "below", "")
    fails(tmp_path / ("d" * 200) / ("d" * 200) / ("x" * 300), "its name has 300 characters")
    fails(tmp_path.joinpath(*["d" * 250] * 20, "x"), "the path is too long")
    fails(tmp_path / "nul\0", "characters that this system cannot write")
    fails(tmp_path / "half\ud800", "characters that this system cannot write")


def test_a_limit_of_the_size_of_files(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        fails(tmp_path / "large", "the file is larger than this disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number, words", [
    (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "another program has the file open"),
    (errno.EROFS, "read-only"), (errno.EBUSY, "another program"), (errno.EIO, "error of its own"),
    (errno.EINVAL, "does not allow"), (errno.ENOENT, "not there"), (errno.EPERM, "not permitted"),
])  # fmt: skip
def test_numbers_of_the_system(tmp_path, monkeypatch, number, words):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    fails(tmp_path / "file", words)
    assert not list(tmp_path.iterdir())


def test_texts_with_a_number_and_without(tmp_path):
    class OfRust(Exception):
        pass

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert explain_write_error(OfRust(text), tmp_path)[0] == "the disk is full"
    assert explain_write_error(RuntimeError("a\nb"), tmp_path)[0] == "a b"

    class OfWindows(PermissionError):
        winerror = 32

    assert "another program" in explain_write_error(OfWindows(errno.EACCES, "x"), tmp_path)[0]
