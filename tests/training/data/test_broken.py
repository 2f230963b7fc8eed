"""Images that cannot be read are reported, replaced and never fatal."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pixeldit_core.training.data.batch import collate
from pixeldit_core.training.data.folder import FolderData, class_files
from pixeldit_core.training.data.order import Draw, GlobalBatchSampler
from pixeldit_core.training.data.transforms import Transform


def open_folder(folder, **options):
    files = class_files(folder, {"a": 0, "b": 1})
    return FolderData(files, [(8, 8)] * len(files), Transform(3, **options))


def truncate(path):
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:500])


DAMAGE = {
    "truncated": truncate,
    "text": lambda path: path.write_text("no image"),
    "empty": lambda path: path.write_bytes(b""),
    "vanished": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_image_is_replaced_by_another_one(tmp_path, write_classes, draw, damage):
    data = open_folder(write_classes(tmp_path, count=3))
    DAMAGE[damage](tmp_path / "a" / "1.png")
    example = data[draw(1)]
    assert len(example.broken) == 1 and example.broken[0].startswith(str(tmp_path / "a" / "1.png") + ": ")
    again = data[draw(1)]
    assert torch.equal(example.pixels, again.pixels) and example.label == again.label
    label, number = divmod(int(example.pixels[0, 0, 0]), 10)
    assert example.label == label and (label, number) != (0, 1)


def test_decompression_bombs_are_left_to_pillow_s_limit(tmp_path, write_classes, draw, monkeypatch):
    data = open_folder(write_classes(tmp_path))
    Image.new("L", (300, 300)).save(tmp_path / "a" / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "decompression bomb" in data[draw(0)].broken[0]


def test_every_readable_image_is_found_and_none_is_an_error(tmp_path, write_classes, draw):
    data = open_folder(write_classes(tmp_path, count=4))
    files = [Path(data.name(index)) for index in range(8)]
    for path in files[:-1]:
        path.write_bytes(b"x")
    assert all(data[draw(index)].label == 1 for index in range(8))
    files[-1].write_bytes(b"x")
    with pytest.raises(ValueError, match=r"none of 8 images can be read, such as .*0.png: cannot identify image"):
        data[draw(0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches_with_any_number_of_workers(tmp_path, write_classes, workers):
    data = open_folder(write_classes(tmp_path, count=5), flip=True)
    (tmp_path / "b" / "2.png").write_bytes(b"x")
    sampler = GlobalBatchSampler(data.sizes(), 4, 3, drop_last=False)
    batches = [sampler.batch(step) for step in range(2, 7)]
    loader = iter(DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=collate))
    for step in range(2, 7):
        batch, expected = next(loader), collate([data[draw] for draw in sampler.batch(step)])
        for name in ("pixels", "labels", "seeds", "weights"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))
        assert batch.broken == expected.broken and batch.captions is None
        assert batch.pixels.shape == (4 if step % 3 < 2 else 2, 3, 8, 8)


def test_a_row_that_only_fills_up_reports_nothing(tmp_path, write_classes):
    data = open_folder(write_classes(tmp_path))
    (tmp_path / "a" / "0.png").write_bytes(b"")
    loaded = collate([data[Draw(0, 1, weight, (8, 8))] for weight in (1, 0)])
    assert len(loaded.broken) == 1 and loaded.weights.tolist() == [1, 0] and loaded.weights.dtype == torch.float32
