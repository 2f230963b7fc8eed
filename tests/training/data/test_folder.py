"""Image folders: class = folder."""

import logging
import os

import pytest
import torch
from PIL import Image

from pixeldit_core.training.data.folder import FolderData, class_files, class_folders
from pixeldit_core.training.data.packed import PackedStrings
from pixeldit_core.training.data.transforms import Transform


def open_folder(folder, names=None, channels=3):
    names = names or class_folders(folder)
    files = class_files(folder, {name: label for label, name in enumerate(names)})
    return FolderData(files, [(8, 8)] * len(files), Transform(channels))


def test_labels_are_the_sorted_folders_or_the_given_order(tmp_path, write_classes, draw):
    data = open_folder(write_classes(tmp_path, ("b", "a")))
    assert class_folders(tmp_path) == ["a", "b"] and len(data) == len(data.sizes()) == 4
    assert [data[draw(index)].label for index in range(4)] == [0, 0, 1, 1]
    assert [int(data[draw(index)].pixels[0, 0, 0]) for index in range(4)] == [10, 11, 0, 1]
    example = open_folder(tmp_path, ("b", "a"), channels=1)[draw(3)]
    assert example.label == 1 and example.pixels.shape == (1, 8, 8) and example.pixels.dtype == torch.uint8
    assert example.caption is None and example.broken == () and example.draw == draw(3)


def test_folders_in_a_class_belong_to_it_and_clutter_to_none(tmp_path, write_classes, caplog):
    write_classes(tmp_path)
    (tmp_path / "a" / "deeper" / "still").mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "a" / "deeper" / "still" / "more.JPEG")
    for clutter in ("Thumbs.db", "a/Thumbs.db", "a/.hidden.png", "a/._0.png", "b/readme.txt"):
        (tmp_path / clutter).write_bytes(b"no image")
    for clutter in (".ipynb_checkpoints", "__MACOSX", "a/.ipynb_checkpoints"):
        (tmp_path / clutter).mkdir()
        Image.new("RGB", (3, 3)).save(tmp_path / clutter / "0.png")
    assert class_folders(tmp_path) == ["a", "b"] and len(open_folder(tmp_path)) == 5
    assert not caplog.records
    Image.new("RGB", (3, 3)).save(tmp_path / "sheet.png")
    with caplog.at_level(logging.WARNING):
        assert len(open_folder(tmp_path)) == 5
    assert "1 images outside of the class folders are left out (sheet.png)" in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path, write_classes):
    write_classes(tmp_path / "real", ("x",))
    folder = write_classes(tmp_path / "data")
    (folder / "c").symlink_to(tmp_path / "real" / "x")
    (folder / "b" / "more").symlink_to(tmp_path / "real")
    (folder / "a" / "up").symlink_to(folder / "a")
    data = open_folder(folder)
    assert [data.name(index)[len(str(folder)) :] for index in range(len(data))] == [
        "/a/0.png", "/a/1.png", "/b/0.png", "/b/1.png", "/b/more/x/0.png", "/b/more/x/1.png", "/c/0.png", "/c/1.png",
    ]  # fmt: skip
    (folder / "d").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data has links to files that are not there: d\. Remove or mend"):
        open_folder(folder)


@pytest.mark.parametrize(
    "names, message", [("abc", "lacks class folders: c"), ("a", "has unexpected class folders: b")]
)
def test_other_classes_are_refused(tmp_path, write_classes, names, message):
    with pytest.raises(ValueError, match=message):
        open_folder(write_classes(tmp_path), list(names))


def test_folders_without_images_are_refused(tmp_path, write_classes):
    with pytest.raises(ValueError, match="nowhere is not there; name a folder"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; name a folder"):
        open_folder(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"link is a link to .*gone, which is not there"):
        open_folder(tmp_path / "link")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no class folders. Put the images of each class"):
        open_folder(tmp_path / "empty")
    write_classes(tmp_path / "data", ("a",))
    with pytest.raises(ValueError, match="has 2 images, but no class folders"):
        open_folder(tmp_path / "data" / "a")
    for name in ("void", "blank"):
        (tmp_path / "data" / name).mkdir()
    with pytest.raises(ValueError, match=r"without images .*: blank, void. Fill or remove"):
        open_folder(tmp_path / "data")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, write_classes, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ValueError, match=r"b cannot be read \(Permission denied\)"):
        open_folder(write_classes(tmp_path))


def test_packed_strings_are_the_strings():
    strings = ["", "a", "caf\u00e9", "x" * 1000, os.fsdecode(b"\xff.png"), ""]
    packed = PackedStrings(strings)
    assert list(packed) == strings and len(packed) == 6 and packed[2] == "caf\u00e9"
    assert list(PackedStrings([])) == []
