"""MNIST and CIFAR-10 in the files as published."""

import gzip
import struct

import numpy as np
import pytest

from pixeldit_core.training.data.arrays import ArrayData, read_cifar10, read_mnist
from pixeldit_core.training.data.transforms import Transform

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_mnist(folder, dash="-", packed=False, images=None, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("images", idx(PIXELS) if images is None else images), ("labels", labels or idx(LABELS))):
        path = folder / f"train-{name}{dash}idx{3 if name == 'images' else 1}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dash", "-.")
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_mnist_is_read_as_published(tmp_path, draw, packed, dash, below):
    write_mnist(tmp_path / below, dash, packed)
    (tmp_path / below / "t10k-images-idx3-ubyte").write_bytes(b"not read")
    pixels, labels = read_mnist(tmp_path)
    assert np.array_equal(pixels, PIXELS) and np.array_equal(labels, LABELS)
    for channels in (1, 3):
        data = ArrayData(pixels, labels, [(28, 28)] * 6, Transform(channels))
        example = data[draw(4, size=(28, 28))]
        assert example.label == 4 and example.pixels.shape == (channels, 28, 28)
        assert np.array_equal(example.pixels[0].numpy(), PIXELS[4])
    assert data[draw(4, size=(32, 32))].pixels.shape == (3, 32, 32)


DAMAGE = [
    ({"images": idx(PIXELS)[:-1]}, r"train-images-idx3-ubyte has 4703 of 4704 bytes: get it again"),
    ({"images": b""}, "is no IDX file of images"),
    ({"images": idx(PIXELS)[:10]}, "is no IDX file of images"),
    ({"images": idx(LABELS)}, "is no IDX file of images"),
    ({"labels": idx(PIXELS)}, "is no IDX file of labels"),
    ({"labels": idx(LABELS[:5])}, "has 6 images and train-labels-idx1-ubyte 5 labels"),
    ({"labels": idx(LABELS + 5)}, "has label 10; expected are ten classes"),
    ({"images": idx(PIXELS[:0]), "labels": idx(LABELS[:0])}, "is empty; expected are ten classes"),
]


@pytest.mark.parametrize("files, message", DAMAGE)
def test_damaged_mnist_is_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        read_mnist(write_mnist(tmp_path, **files))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"x" * 9999, mtime=0)[:30], gzip.compress(b"x" * 999, mtime=0)[:-9] + b"junk-junk"],
)
def test_damaged_archives_are_refused(tmp_path, content):
    write_mnist(tmp_path, packed=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz cannot be read \(.*\): get it again"):
        read_mnist(tmp_path)


def test_missing_and_ambiguous_mnist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no file train-images-idx"):
        read_mnist(tmp_path)
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    write_mnist(tmp_path / "MNIST" / "raw")
    with pytest.raises(ValueError, match=r"train-images in several folders: set data.path to one, such as .*Fashion"):
        read_mnist(tmp_path)


@pytest.fixture
def cifar(tmp_path):
    """Ten images in five files."""
    for number in range(1, 6):
        records = RNG.integers(0, 256, (2, 3073), dtype=np.uint8)
        records[:, 0] = [number, 2 * number - 1]
        records.tofile(tmp_path / f"data_batch_{number}.bin")
    return tmp_path


def test_cifar10_is_read_as_published(cifar, draw):
    images, labels = read_cifar10(cifar)
    assert images.shape == (10, 32, 32, 3) and labels.tolist() == [1, 1, 2, 3, 3, 5, 4, 7, 5, 9]
    raw = np.fromfile(cifar / "data_batch_2.bin", np.uint8).reshape(2, 3073)[1, 1:].reshape(3, 32, 32)
    data = ArrayData(images, labels, [(32, 32)] * 10, Transform(3))
    assert np.array_equal(data[draw(3, size=(32, 32))].pixels.numpy(), raw)
    assert ArrayData(images, labels, [], Transform(1))[draw(3, size=(32, 32))].pixels.shape == (1, 32, 32)
    inner = cifar / "cifar-10-batches-bin"
    inner.mkdir()
    for file in cifar.glob("*.bin"):
        file.rename(inner / file.name)
    assert np.array_equal(read_cifar10(cifar)[0], images)


def test_damaged_cifar10_is_refused(cifar):
    (cifar / "data_batch_4.bin").write_bytes(b"x" * 3072)
    with pytest.raises(ValueError, match=r"data_batch_4.bin has 3072 bytes, no multiple of 3073"):
        read_cifar10(cifar)
    (cifar / "data_batch_4.bin").write_bytes(b"\x0a" + b"x" * 3072)
    with pytest.raises(ValueError, match="has label 10; expected are ten classes"):
        read_cifar10(cifar)
    (cifar / "data_batch_4.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks data_batch_4.bin: get CIFAR-10's binary version"):
        read_cifar10(cifar)


def test_the_pickled_cifar10_is_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"version for Python, whose pickles are not read: get .*binary version"):
        read_cifar10(tmp_path)
