"""WebDataset shards, as its own writer makes them."""

import io
import json
import os
import tarfile

import pytest
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from pixeldit_core.training.data.batch import collate
from pixeldit_core.training.data.order import GlobalBatchSampler
from pixeldit_core.training.data.shard_index import list_samples
from pixeldit_core.training.data.shards import (
    ShardData,
    captions_of,
    check_labels,
    find_shards,
    image_sizes,
    read_shards,
)
from pixeldit_core.training.data.transforms import Transform


def encoded(level, kind="PNG", size=(8, 8), **options):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (level,) * 3).save(file, kind, **options)
    return file.getvalue()


def write_shard(path, *samples):
    """A shard of dictionaries such as {"png": bytes, "cls": 3}."""
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:04d}", **sample})
    return path


@pytest.fixture
def shards(tmp_path):
    """The pattern of three shards of 5, 3 and 4 images of brightness 0 to 11; the class is the brightness % 3."""
    level = 0
    for number, count in enumerate((5, 3, 4)):
        samples = [{"png": encoded(i), "cls": i % 3, "txt": f"level {i}"} for i in range(level, level + count)]
        write_shard(tmp_path / f"train-{number:04d}.tar", *samples)
        level += count
    return f"{tmp_path}/train-{{0000..0002}}.tar"


def open_shards(pattern, **options):
    found = read_shards(pattern)
    return ShardData(found, [(8, 8)] * len(image_sizes(found)), Transform(3), **options)


def test_every_sample_is_reached_by_its_number(shards, draw, tmp_path):
    data = open_shards(shards)
    assert len(data) == 12 and data.groups == [5, 3, 4]
    examples = [data[draw(index)] for index in range(12)]
    assert [int(example.pixels[0, 0, 0]) for example in examples] == list(range(12))
    assert [example.label for example in examples] == [index % 3 for index in range(12)]
    assert [example.caption for example in examples] == data.captions() == [f"level {index}" for index in range(12)]
    assert data.name(6) == f"{tmp_path}/train-0001.tar/0001"
    assert find_shards(str(tmp_path)) == find_shards(shards)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_share_an_epoch(shards, workers):
    data, seen = open_shards(shards), []
    for rank in range(2):
        sampler = GlobalBatchSampler(data.sizes(), 4, 7, rank=rank, world_size=2, groups=data.groups)
        batches = [sampler.batch(step) for step in range(1, 3)]  # resumed after the first of three
        for batch in DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=collate):
            seen += batch.pixels[:, 0, 0, 0].tolist()
    first = GlobalBatchSampler(data.sizes(), 4, 7, groups=data.groups).batch(0)
    assert sorted([*seen, *(draw.index for draw in first)]) == list(range(12))


def test_the_list_of_a_shard_is_kept_until_it_changes(tmp_path, monkeypatch):
    path = write_shard(tmp_path / "a.tar", {"png": encoded(1), "cls": 1})
    first, index = list_samples(path), tmp_path / "a.tar.index.json"
    assert json.loads(index.read_text())["samples"] == [list(first[0])]
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_: pytest.fail("listed again"))
        assert list_samples(path) == first
    for content in ("", "{", "[]", "null", '{"stamp": 1}', index.read_text()[:-20]):
        index.write_text(content)
        assert list_samples(path) == first
    write_shard(path, {"png": encoded(1), "cls": 2}, {"png": encoded(2), "cls": 0})
    os.utime(path, ns=(1, 1))
    assert [sample.label for sample in list_samples(path)] == [2, 0]


def test_the_list_of_a_shard_in_a_read_only_folder_is_in_the_cache(tmp_path, monkeypatch, draw, caplog):
    path = write_shard(tmp_path / "a.tar", {"png": encoded(1), "cls": 1})
    (tmp_path / "a.tar.index.json").mkdir()  # in place of the file: root may write to every folder
    cache = tmp_path / "cache"
    cache.touch()  # cannot be written to, either
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert open_shards(str(path))[draw(0)].label == 1 and "cannot be kept" in caplog.text
    cache.unlink()
    first = list_samples(path)
    assert [file.name.rpartition("-")[0] for file in cache.rglob("*.json")] == ["a.tar"]
    monkeypatch.setattr(tarfile, "open", lambda *_: pytest.fail("listed again"))
    assert list_samples(path) == first and not (tmp_path / "a.tar.index.json").is_file()


def test_labels_and_captions_are_read_from_json_too(tmp_path, draw):
    path = write_shard(
        tmp_path / "a.tar",
        {"jpg": encoded(9, "JPEG"), "json": {"label": 3, "caption": " one "}},
        {"webp": encoded(9, "WEBP"), "json": {"cls": 4, "text": "two"}},
    )
    data = open_shards(str(path))
    assert [(data[draw(i)].label, data[draw(i)].caption) for i in range(2)] == [(3, "one"), (4, "two")]


def test_sizes_are_those_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = [{"jpg": encoded(9, "JPEG", size=(10, 30), exif=exif)}, {"png": encoded(1, size=(5, 7))}, {"png": b"no"}]
    assert image_sizes(read_shards(str(write_shard(tmp_path / "a.tar", *samples)))) == [(30, 10), (5, 7), (0, 0)]


def test_a_broken_image_is_replaced(tmp_path, draw):
    path = write_shard(tmp_path / "a.tar", {"png": encoded(1)[:45], "cls": 0}, {"png": encoded(7), "cls": 1})
    example = open_shards(str(path))[draw(0)]
    assert example.label == 1 and int(example.pixels[0, 0, 0]) == 7
    assert len(example.broken) == 1 and example.broken[0].startswith(f"{path}/0000: ")


def test_samples_without_class_or_caption_are_counted(tmp_path, draw):
    shards = read_shards(
        str(write_shard(tmp_path / "a.tar", {"png": encoded(1), "cls": 5}, {"png": encoded(2), "txt": "two"}))
    )
    with pytest.raises(ValueError, match=r"1 of 2 samples have no class: .*a.tar/0001. Each needs a number in a .cls"):
        check_labels(shards, 10)
    with pytest.raises(ValueError, match=r"1 of 2 samples have no caption: .*a.tar/0000"):
        captions_of(shards)
    assert captions_of(shards, "") == ["", "two"]
    data = ShardData(shards, [(8, 8)] * 2, Transform(3), "a photo")
    assert data[draw(0)].caption == "a photo" and data[draw(0)].label is None
    with pytest.raises(ValueError, match=r"1 of 1 samples have a class outside of the network's 0 to 4: .*0000 \(5\)"):
        check_labels([(tmp_path, [shards[0][1][0]])], 5)


@pytest.mark.parametrize(
    "sample, message",
    [
        ({"cls": b"cat"}, r"the class or caption of 0000 cannot be read \(invalid literal"),
        ({"json": b"{"}, "the class or caption of 0000 cannot be read"),
        ({"json": b"[1]"}, "is not an object"),
        ({"json": b'{"label": "cat"}'}, "label 'cat' is not a whole number"),
        ({"txt": b"caf\xe9"}, "cannot be read .*utf-8"),
    ],
)
def test_unreadable_classes_and_captions_are_refused(tmp_path, sample, message):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for extension, content in {"png": encoded(1), **sample}.items():
            entry = tarfile.TarInfo(f"0000.{extension}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match=rf"a\.tar.*{message}"):
        read_shards(str(path))


def test_shards_that_cannot_be_used_are_refused(tmp_path, shards):
    with pytest.raises(ValueError, match=r"1 of 4 are not there, such as .*train-0003.tar"):
        find_shards(shards.replace("0002", "0003"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="none are there"):
        find_shards(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is not on a disk: images are read in any order. Download the shards"):
        find_shards("https://example.org/train-{0000..0009}.tar")
    (tmp_path / "text.tar").write_text("no tar file " * 100)
    with pytest.raises(ValueError, match=r"text.tar is not an uncompressed tar file"):
        read_shards(str(tmp_path / "text.tar"))
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(tmp_path / "train-0000.tar", "0.png")
    with pytest.raises(ValueError, match=r"packed.tar is not an uncompressed tar file"):
        read_shards(str(tmp_path / "packed.tar"))
    write_shard(tmp_path / "bare.tar", {"cls": 1})
    with pytest.raises(ValueError, match=r"bare.tar has no images"):
        read_shards(str(tmp_path / "bare.tar"))


@pytest.mark.parametrize("blocks", [1, 2, 3, 6, 7, 12])
def test_a_shard_that_is_cut_off_is_refused(tmp_path, shards, blocks):
    path = tmp_path / "train-0001.tar"
    path.write_bytes(path.read_bytes()[: 512 * blocks])
    with pytest.raises(ValueError, match=r"train-0001.tar is not an uncompressed tar file .*Get it again"):
        read_shards(shards)
