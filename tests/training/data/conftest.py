"""Small data sets, draws and specs."""

import pytest
from PIL import Image

from pixeldit_core.training.data.order import Draw


@pytest.fixture
def draw():
    """A function (index, size, seed) -> Draw."""

    def build(index=0, size=(8, 8), seed=1):
        return Draw(index, seed, 1.0, size)

    return build


@pytest.fixture
def write_classes():
    """A function that writes a folder of `count` images per class, each filled with its label and number."""

    def write(folder, names=("a", "b"), count=2, size=(8, 8)):
        for label, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", size[::-1], (10 * label + number,) * 3).save(folder / name / f"{number}.png")
        return folder

    return write
