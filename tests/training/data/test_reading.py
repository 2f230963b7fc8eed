"""Data sets of every kind: what they give, and what is wrong with them before a run."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from factories import tiny_model, tiny_t2i_model
from PIL import Image
from training_runs import config_of, train, write_images

from pixeldit_core.training.config import BucketConfig, DataConfig
from pixeldit_core.training.data.batch import collate
from pixeldit_core.training.data.open import open_data, read_class_names
from pixeldit_core.training.data.order import Draw

SIZE = (16, 16)


def rows(data, *indices, size=SIZE):
    return collate([data[Draw(index, 7, 1.0, size)] for index in indices])


def opened(config, model=None):
    names = read_class_names(config) or ()
    return open_data(config, model or tiny_model(), SIZE, {name: index for index, name in enumerate(names)})


def png(value=128, size=(16, 16)):
    content = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(content, format="PNG")
    return content.getvalue()


# folders


def test_a_folder_is_a_class(tmp_path):
    write_images(tmp_path, 6, names=("a", "b"))
    (tmp_path / "a" / "deeper").mkdir()
    (tmp_path / "a" / "deeper" / "x.JPG").write_bytes(png())
    for junk in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (tmp_path / "a" / junk).write_bytes(b"junk")
    (tmp_path / "a" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "a" / ".ipynb_checkpoints" / "y.png").write_bytes(png())
    config = DataConfig(path=str(tmp_path))
    assert read_class_names(config) == ("a", "b")
    data = opened(config)
    assert len(data) == 7 and [data.target(i)[0] for i in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    loaded = rows(data, 0, 6)
    assert loaded.pixels.shape == (2, 3, 16, 16) and loaded.labels.tolist() == [0, 1] and loaded.captions is None
    parts = loaded.split(1)
    assert [part.labels.tolist() for part in parts] == [[0], [1]]
    ordered = open_data(config, tiny_model(), SIZE, {"b": 0, "a": 1})
    assert ordered.target(0)[0] == 0 and "b" in ordered.name(0)


def test_folders_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not there"):
        read_class_names(DataConfig(path=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="has no class folders. Put the images of each class"):
        read_class_names(DataConfig(path=str(tmp_path)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        read_class_names(DataConfig(path=str(tmp_path / "file")))
    write_images(tmp_path, 4, names=("a", "b"))
    config = DataConfig(path=str(tmp_path))
    with pytest.raises(ValueError, match="lacks class folders: c"):
        open_data(config, tiny_model(), SIZE, {"a": 0, "b": 1, "c": 2})
    with pytest.raises(ValueError, match="has unexpected class folders: b"):
        open_data(config, tiny_model(), SIZE, {"a": 0})
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match="class folders without images .*: c. Fill"):
        opened(config)


@pytest.mark.parametrize("content", [b"", b"no image", png()[:60]], ids=["empty", "text", "cut"])
def test_a_broken_image_is_reported_and_the_next_is_in_its_place(tmp_path, content):
    write_images(tmp_path, 6, names=("a", "b"))
    broken = tmp_path / "a" / "002.png"
    broken.write_bytes(content)
    data = opened(DataConfig(path=str(tmp_path)))
    index = next(i for i in range(6) if data.name(i) == str(broken))
    loaded = rows(data, index, 0)
    assert len(loaded.broken) == 1 and loaded.broken[0].startswith(f"{broken}: ")
    assert torch.equal(loaded.pixels[0], rows(data, index + 1).pixels[0])
    broken.unlink()  # vanished after the start
    assert len(rows(data, index).broken) == 1


def test_images_that_are_all_broken_end_the_run(tmp_path):
    write_images(tmp_path, 4, names=("a", "b"))
    data = opened(DataConfig(path=str(tmp_path)))
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of 4 images can be read"):
        rows(data, 0)


def test_a_run_goes_on_past_a_broken_image_and_counts_it(tmp_path):
    images = write_images(tmp_path / "images", 24)
    (images / "gray" / "003.png").write_bytes(b"no image")
    run = train(config_of(images, engine={"steps": 3, "batch_size": 8, "log_every": 1}), tmp_path / "run")
    rows = [line.split(",") for line in run.log.read_text("utf-8").splitlines()]
    assert rows[-1][rows[0].index("broken")] == "1"


# captions


def test_captions_are_beside_images_or_in_a_list(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    (tmp_path / "0.txt").write_bytes("\ufeff  a red \u00fc \n".encode())
    (tmp_path / "1.txt").write_text("", "utf-8")
    config = DataConfig(kind="captions", path=str(tmp_path))
    with pytest.raises(ValueError, match="1 of 3 images in .* have no caption: 2.png"):
        opened(config, tiny_t2i_model())
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "listed"}\n\n', "utf-8")
    data = opened(config, tiny_t2i_model())
    assert data.captions() == ["a red \u00fc", "", "listed"]
    loaded = rows(data, 2, 0)
    assert loaded.captions == ["listed", "a red \u00fc"] and loaded.labels is None
    (tmp_path / "metadata.jsonl").write_text("{oops\n", "utf-8")
    with pytest.raises(ValueError, match="line 1 of .*metadata.jsonl"):
        opened(config, tiny_t2i_model())
    (tmp_path / "metadata.jsonl").unlink()
    default = DataConfig(kind="captions", path=str(tmp_path), default_caption="a thing")
    assert opened(default, tiny_t2i_model()).captions()[2] == "a thing"


def test_data_of_another_kind_than_the_model_s_is_refused(tmp_path):
    write_images(tmp_path, 4, names=("a", "b"))
    with pytest.raises(ValueError, match="text-to-image needs data.kind captions or webdataset, not folder"):
        opened(DataConfig(path=str(tmp_path)), tiny_t2i_model())
    with pytest.raises(ValueError, match="class-conditional needs data.kind folder, mnist"):
        opened(DataConfig(kind="captions", path=str(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        opened(DataConfig(kind="captions", path=str(tmp_path / "empty")), tiny_t2i_model())


# files of published sets


def write_mnist(folder, count=5, suffix="-idx{0}-ubyte", zipped=False):
    folder.mkdir(exist_ok=True)
    images = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8)
    header = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28))
    labels = b"".join(number.to_bytes(4, "big") for number in (2049, count)) + bytes(range(count))
    for kind, dimensions, content in (("images", 3, header + images.tobytes()), ("labels", 1, labels)):
        name = f"train-{kind}{suffix.format(dimensions)}"
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize(
    "suffix, zipped", [("-idx{0}-ubyte", False), (".idx{0}-ubyte", False), ("-idx{0}-ubyte", True)]
)
def test_mnist_is_read_as_published(tmp_path, suffix, zipped):
    write_mnist(tmp_path, suffix=suffix, zipped=zipped)
    config = DataConfig(kind="mnist", path=str(tmp_path))
    assert read_class_names(config) == tuple("0123456789")
    data = open_data(config, tiny_model(), (28, 28), {})
    assert len(data) == 5 and [data.target(i)[0] for i in range(5)] == [0, 1, 2, 3, 4]
    loaded = rows(data, 1, size=(28, 28))
    assert loaded.pixels[0, 0, 0, :3].tolist() == [16, 17, 18]  # 784 modulo 256, and on


def test_damaged_files_of_mnist_are_named(tmp_path):
    config = DataConfig(kind="mnist", path=str(tmp_path))
    with pytest.raises(ValueError, match="has no file train-images-idx"):
        opened(config)
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content, message in ((whole[:-5], "get it again"), (b"other data", "is no IDX file of images")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            opened(config)
    path.write_bytes(whole)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes((2049).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\x01")
    with pytest.raises(ValueError, match="5 images and .* 1 labels"):
        opened(config)


def test_cifar10_s_binary_version_is_read_and_the_pickled_one_refused(tmp_path):
    config = DataConfig(kind="cifar10", path=str(tmp_path))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"pickled")
    with pytest.raises(ValueError, match="pickles are not read: get CIFAR-10's binary version"):
        opened(config)
    planes = np.stack([np.full((32, 32), value, np.uint8) for value in (10, 20, 30)])
    planes[0, 0, 1] = 99
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(bytes([7]) + planes.tobytes())
    data = open_data(config, tiny_model(), (32, 32), {})
    loaded = rows(data, 0, size=(32, 32))
    assert len(data) == 5 and loaded.labels.tolist() == [7] and loaded.pixels[0, :, 1, 1].tolist() == [10, 20, 30]
    assert loaded.pixels[0, 0, 0, 1] == 99
    (folder / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="data_batch_2.bin has 5 bytes"):
        opened(config)


# shards


def write_shard(path, samples):
    with tarfile.open(path, "w") as archive:
        for key, parts in samples:
            for suffix, content in parts.items():
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def test_shards_are_read_in_any_order_with_classes_or_captions(tmp_path):
    for shard in range(3):
        samples = [
            (f"{shard}/{index}", {"png": png(10 * shard + index), "cls": str(index % 12).encode(), "txt": b" a text "})
            for index in range(4)
        ]
        write_shard(tmp_path / f"train-{shard:02d}.tar", samples)
    config = DataConfig(kind="webdataset", path=str(tmp_path / "train-{00..02}.tar"))
    assert read_class_names(config) is None
    data = opened(config)
    assert len(data) == 12 and data.groups == [4, 4, 4]
    loaded = rows(data, 9, 2, 5)
    assert loaded.pixels[:, 0, 0, 0].tolist() == [21, 2, 11] and loaded.labels.tolist() == [1, 2, 1]
    assert rows(opened(config, tiny_t2i_model()), 0).captions == ["a text"]
    index = tmp_path / "train-00.tar.index.json"
    stamp = index.stat().st_mtime_ns
    assert len(opened(DataConfig(kind="webdataset", path=str(tmp_path)))) == 12
    assert index.stat().st_mtime_ns == stamp  # the list is made once
    write_shard(tmp_path / "train-00.tar", [("x", {"jpg": png(), "json": json.dumps({"label": 3}).encode()})])
    assert len(opened(config)) == 9 and opened(config).target(0)[0] == 3


def test_shards_that_do_not_fit_are_named(tmp_path):
    config = DataConfig(kind="webdataset", path=str(tmp_path / "a-{0..1}.tar"))
    with pytest.raises(ValueError, match="2 of 2 are not there"):
        opened(config)
    (tmp_path / "a-0.tar").write_bytes(b"no tar" * 200)
    write_shard(tmp_path / "a-1.tar", [("x", {"txt": b"no image"})])
    with pytest.raises(ValueError, match="a-0.tar is not an uncompressed tar file"):
        opened(config)
    write_shard(tmp_path / "a-0.tar", [("x", {"png": png(), "cls": b"99"})])
    with pytest.raises(ValueError, match="a-1.tar has no images"):
        opened(config)
    write_shard(tmp_path / "a-1.tar", [("y", {"png": png(), "cls": b"0"})])
    with pytest.raises(ValueError, match=r"outside of the network's 0 to 11: .*a-0.tar/x \(99\)"):
        opened(config)
    write_shard(tmp_path / "a-0.tar", [("x", {"png": png(), "cls": b"1"})])
    write_shard(tmp_path / "a-1.tar", [("y", {"png": png()})])
    with pytest.raises(ValueError, match=r"1 of 2 samples have no class: .*a-1.tar/y. Each needs a number in a .cls"):
        opened(config)


# buckets


def test_buckets_follow_the_images_and_a_broken_one_does_not_end_the_start(tmp_path):
    shapes = {"wide": (64, 32), "tall": (32, 64), "square": (48, 48)}
    for name, shape in shapes.items():
        (tmp_path / f"{name}.png").write_bytes(png(size=shape))
        (tmp_path / f"{name}.txt").write_text(name, "utf-8")
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "broken.txt").write_text("x", "utf-8")
    config = DataConfig(kind="captions", path=str(tmp_path), buckets=BucketConfig(min_side=16, max_side=64))
    data = opened(config, tiny_t2i_model())
    found = dict(zip([data.target(i)[1] for i in range(4)], data.sizes(), strict=True))
    assert found["wide"][1] == 2 * found["wide"][0] and found["tall"] == found["wide"][::-1]
    assert found["square"][0] == found["square"][1]
    assert rows(data, 3, size=found["wide"]).pixels.shape[-2:] == found["wide"]
    with pytest.raises(ValueError, match="has no trained sizes of that area"):
        opened(DataConfig(kind="captions", path=str(tmp_path), buckets=BucketConfig(area=100)), tiny_t2i_model())
    (tmp_path / "large.png").write_bytes(png(size=(700, 500)))
    (tmp_path / "large.txt").write_text("large", "utf-8")
    area = DataConfig(kind="captions", path=str(tmp_path), buckets=BucketConfig(area=512 * 512))
    data = opened(area, tiny_t2i_model())
    assert data.captions() == ["x", "large"] and all(200_000 < h * w < 400_000 for h, w in data.sizes())
