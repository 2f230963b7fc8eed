"""Reading image folders."""

import pytest
import torch
from PIL import Image

from pixeldit_core.training.image_folder import read_image_folder


def write_folder(folder, names, size=8, mode="RGB"):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new(mode, (size, size), (label,) * len(mode)).save(folder / name / f"{number}.png")


def test_an_image_folder_is_read_class_by_class(tmp_path):
    write_folder(tmp_path, ["b", "a"])
    images, labels = read_image_folder(tmp_path, ["b", "a"])
    assert images.shape == (4, 8, 8, 3) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1] and images[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert read_image_folder(tmp_path, ["b", "a"], channels=1)[0].shape == (4, 8, 8, 1)


@pytest.mark.parametrize(
    "names, message",
    [
        (["a", "b", "c"], "lacks class folders: c"),
        (["a"], "has unexpected class folders: b"),
    ],
)
def test_an_image_folder_of_other_classes_is_refused(tmp_path, names, message):
    write_folder(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match=message):
        read_image_folder(tmp_path, names)


def test_an_image_folder_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_image_folder(tmp_path / "nowhere", ["a"])
    write_folder(tmp_path, ["a"])
    Image.new("RGB", (9, 8)).save(tmp_path / "a" / "odd.png")
    with pytest.raises(ValueError, match="several sizes .8 x 8, 9 x 8"):
        read_image_folder(tmp_path, ["a"])
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="has no images"):
        read_image_folder(tmp_path, ["a"])
