"""Files that are complete or not there, under every name that a file may have, and the reason of each failure."""

import errno
import os
import signal

import pytest

from pixeldit_core import atomic
from pixeldit_core.atomic import LONGEST_NAME, WriteError, atomic_path, check_target, explain_write_error, printable


def write(path, text="new"):
    with atomic_path(path) as part:
        assert part.parent == path.parent and part.name.startswith(".") and part.name.endswith(".part")
        assert len(part.name) <= max(len(os.fsencode(path.name)), 14), "a name of this length may be impossible"
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
    assert isinstance(raised.value, WriteError) and reason in str(raised.value) and way_out in str(raised.value)
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
    fails(tmp_path / ("d" * 300) / "x", 'the name of the folder "dddddddddddddddddddd..." has 300 characters')
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
    (errno.EFBIG, "FAT32"), (errno.EINTR, "interrupted"), (errno.ELOOP, "leads to itself"),
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


def of_windows(winerror, number=errno.EINVAL):
    class Failure(OSError):
        pass

    error = Failure(number, f"[WinError {winerror}]")
    error.winerror = winerror
    return error


@pytest.mark.parametrize("error, words", [
    (of_windows(5, errno.EACCES), "another program has the file open"),
    (of_windows(32, errno.EACCES), "another program has the file open"),
    (of_windows(1224), "another program has the file open"),  # a model that ComfyUI has mapped
    (of_windows(112, errno.ENOSPC), "the disk is full"),
    (of_windows(39), "the disk is full"),
    (of_windows(223), "FAT32"),
    (of_windows(123), "characters"),
    (of_windows(206, errno.ENOENT), "too long"),
    (of_windows(3, errno.ENOENT), "drive or folder is not there"),
    (of_windows(21, errno.EACCES), "drive or folder is not there"),
    (of_windows(53, errno.ENOENT), "drive or folder is not there"),
    (of_windows(19, errno.EACCES), "read-only"),
    (of_windows(1117), "error of its own"),
    (of_windows(4242), "WinError 4242"),  # unknown: Python calls all of those a wrong value
])  # fmt: skip
def test_numbers_of_windows(tmp_path, error, words):
    assert words in explain_write_error(error, tmp_path / "file")[0]


@pytest.mark.parametrize("name, words", [
    ("a?b", "characters"), ("a:b", "characters"), ('a"b', "characters"), ("a|b", "characters"), ("a\tb", "characters"),
    ("NUL.safetensors", '"NUL.safetensors" is a name that Windows keeps'), ("con", "keeps for a device"),
    ("Com1.txt", "keeps for a device"),
])  # fmt: skip
def test_names_that_windows_does_not_have(tmp_path, monkeypatch, name, words):
    write(tmp_path / name)
    monkeypatch.setattr(atomic, "_IS_WINDOWS", True)
    assert not fails(tmp_path / name, words)
    assert not fails(tmp_path / name / "below", words) and (tmp_path / name).is_file()
    for possible in ("console", "nul-1", "com10", "common.con"):
        check_target(tmp_path / possible)


def test_paths_that_are_too_long_for_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_IS_WINDOWS", True)
    path = tmp_path / ("d" * 200) / ("e" * 100)
    reason, way_out = explain_write_error(of_windows(3, errno.ENOENT), path)
    assert f"its path has {len(str(path))} characters, more than Windows allows" in reason and "shorter" in way_out
    assert "has 300 characters" in explain_write_error(of_windows(3, errno.ENOENT), path / ("x" * 300))[0]


def test_errors_of_other_writers(tmp_path):
    """A number in the text of an error is one of the system; other errors are the block's own."""
    full = "file could not be written: the disk is full. Free space there"
    with pytest.raises(WriteError, match=full), atomic_path(tmp_path / "file"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="^other$"), atomic_path(tmp_path / "file"):
        raise RuntimeError("other")
    assert not list(tmp_path.iterdir())


def test_a_failure_within_another_is_explained_once(tmp_path):
    with pytest.raises(WriteError) as raised, atomic_path(tmp_path / "outer"), atomic_path(tmp_path / "inner"):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.path.name == "inner" and explain_write_error(raised.value, tmp_path)[0] == "the disk is full"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("an administrator may write anywhere")
    tmp_path.chmod(0o500)
    assert not fails(tmp_path / "file", "access is denied")
    tmp_path.chmod(0o700)


def test_a_full_device():
    """/dev is no place for files, but its device of no room is there on every Linux."""
    if not os.path.exists("/dev/full"):
        pytest.skip("not on this system")
    with pytest.raises(OSError, match="space") as raised, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"0")
    assert explain_write_error(raised.value, atomic.Path("file"))[0] == "the disk is full"


def test_paths_in_messages():
    assert printable("a\ud800\u753b") == "a\\ud800\u753b"
