"""Files written in the background: exact, a bounded number at a time, and no failure is lost."""

import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from pixeldit_core.evaluation import ImageFolder, Writer

MODULE = "pixeldit_core.evaluation.writer"
IMAGE = torch.full((4, 4, 3), 7, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_and_values_come_back_exactly(tmp_path, channels):
    folder, random = ImageFolder(tmp_path, (9, 14, channels)), torch.Generator().manual_seed(0)
    flat = torch.full((9, 14, channels), 7, dtype=torch.uint8)
    noise = torch.randint(0, 256, flat.shape, dtype=torch.uint8, generator=random)
    with Writer() as writer:
        for index, image in enumerate((flat, noise)):
            writer.put(image, folder.file(index), {"index": index})
    for index, image in enumerate((flat, noise)):
        assert np.array_equal(folder.read(index), image.numpy())
        with Image.open(folder.file(index)) as file:
            assert json.loads(file.text["pixeldit"]) == {"index": index}
    assert folder.missing(range(3)) == [2]


def test_a_disk_slower_than_the_network_makes_the_network_wait(monkeypatch, tmp_path):
    """So that images do not fill the memory."""
    gate, accepted = threading.Event(), []
    monkeypatch.setattr(f"{MODULE}.write_png", lambda *arguments: gate.wait(10))
    monkeypatch.setattr(f"{MODULE}._WAITING", 6)

    def put_all():
        with Writer() as writer:
            for index in range(20):
                writer.put(IMAGE, tmp_path / f"{index}.png", {})
                accepted.append(index)

    thread = threading.Thread(target=put_all)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and len(accepted) == 6
    gate.set()
    thread.join(10)
    assert not thread.is_alive() and len(accepted) == 20


@pytest.mark.parametrize("failing", [0, 9])
def test_a_file_that_cannot_be_written_is_an_error_of_the_run(monkeypatch, tmp_path, failing):
    """Of an early one at the next image, of the last one at the end."""

    def write(image, path, values):
        if path.stem == str(failing):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{MODULE}.write_png", write)
    monkeypatch.setattr(f"{MODULE}._WAITING", 2)
    number = 0
    with pytest.raises(OSError, match="No space left"), Writer() as writer:  # noqa: PT012
        for number in range(10):
            writer.put(IMAGE, tmp_path / f"{number}.png", {})
    assert number == 9 if failing == 9 else number <= 2


def test_an_interrupted_run_writes_the_images_it_has(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer() as writer:  # noqa: PT012
        for index in range(8):
            writer.put(IMAGE, tmp_path / f"{index}.png", {})
        raise KeyboardInterrupt
    assert len(list(tmp_path.glob("*.png"))) == 8
