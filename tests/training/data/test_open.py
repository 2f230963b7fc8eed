"""From the data section of a recipe to a data set that fits the model, or an error before any work."""

import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

import pixeldit_core as pc
from pixeldit_core.training.config import BucketConfig, DataConfig
from pixeldit_core.training.data.open import are_imagenet, open_data, read_class_names
from pixeldit_core.training.data.order import GlobalBatchSampler

SIZE = (8, 16)
BUCKETS = BucketConfig(min_side=16, max_side=32)
BUCKETS_OF_96 = BucketConfig(min_side=32, max_side=96)


@pytest.fixture(scope="module")
def classes():
    params = pc.PixelDiTParams(24, 2, 1, 1, patch_size=8, pixel_hidden_size=4, num_classes=2)
    return pc.build_model("pixeldit", params)


@pytest.fixture(scope="module")
def texts():
    return pc.build_model("pixelhdm", "PixelHDM-small")


@pytest.fixture
def photos(tmp_path):
    """Images of several sizes: half of them captioned, one tiny, one broken."""
    for name, size in (("a", (40, 20)), ("b", (20, 40)), ("c", (33, 33)), ("tiny", (9, 40))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    return tmp_path


def config(path, **options):
    return DataConfig(path=str(path), **options)


def test_class_folders(tmp_path, write_classes, classes):
    recipe = config(write_classes(tmp_path), crop="random", flip=True)
    assert read_class_names(recipe) == ("a", "b")
    data = open_data(recipe, classes, SIZE, {"b": 0, "a": 1})
    examples = [data[draw] for draw in GlobalBatchSampler(data.sizes(), 4, 0).batch(0)]
    assert {tuple(example.pixels.shape) for example in examples} == {(3, *SIZE)}
    assert sorted((example.label, int(example.pixels[0, 0, 0]) // 10) for example in examples) == [
        (0, 1), (0, 1), (1, 0), (1, 0),
    ]  # fmt: skip
    assert data.transform.flip and data.transform.crop == "random" and not data.transform.buckets


def test_one_image_is_enough_for_short_batches(tmp_path, write_classes, classes):
    data = open_data(config(write_classes(tmp_path, ("a",), 1)), classes, SIZE, {"a": 0})
    with pytest.raises(ValueError, match="1 images, too few for a batch of 2"):
        GlobalBatchSampler(data.sizes(), 2, 0)
    assert len(GlobalBatchSampler(data.sizes(), 2, 0, drop_last=False).batch(3)) == 1


def test_captions_in_buckets(photos, texts, caplog):
    recipe = config(photos, kind="captions", buckets=BUCKETS, default_caption="", flip=True)
    with caplog.at_level(logging.WARNING):
        data = open_data(recipe, texts, SIZE, {})
    assert "1 images with a side below 16 are left out" in caplog.text and "tiny.png" in caplog.text
    assert data.sizes() == [(16, 32), (32, 16), (16, 16), (32, 32)] and data.transform.buckets
    assert data.captions() == ["a", "b", "", ""]
    sampler = GlobalBatchSampler(data.sizes(), 2, 0, drop_last=False)
    for step in range(sampler.steps_per_epoch):
        assert all(data[draw].pixels.shape[1:] == draw.size for draw in sampler.batch(step))


def test_buckets_of_a_model_s_trained_sizes(photos, texts):
    with pytest.raises(ValueError, match=r"data.buckets.area is 100, and PixelHDM.* has no trained sizes of that area"):
        open_data(config(photos, kind="captions", buckets=BucketConfig(area=100)), texts, SIZE, {})

    for name, size in (("wide", (460, 300)), ("tall", (300, 460))):
        Image.new("RGB", size).save(photos / f"{name}.png")
    model = pc.build_model("pixeldit_t2i", "PixelDiT-T2I")
    recipe = config(photos, kind="captions", buckets=BucketConfig(area=512**2), default_caption="")
    data = open_data(recipe, model, SIZE, {})
    sizes = {data.name(index)[len(str(photos)) + 1 :]: size for index, size in enumerate(data.sizes())}
    assert set(sizes.values()) <= set(model.family.trained_sizes(model.params))
    assert sizes["wide.png"][1] / sizes["wide.png"][0] == pytest.approx(46 / 30, rel=0.1)
    assert sizes["tall.png"][0] / sizes["tall.png"][1] == pytest.approx(46 / 30, rel=0.1)


def test_buckets_that_the_network_cannot_have_are_refused(photos):
    model = pc.build_model("pixelhdm", pc.PixelHDMParams(mrope_img_max_height=4, mrope_img_max_width=4))
    with pytest.raises(ValueError, match="size .* does not fit the model, which generates .* at most 64 x 64 pixels"):
        open_data(config(photos, kind="captions", buckets=BUCKETS_OF_96, default_caption=""), model, SIZE, {})


def test_images_that_are_too_small_for_buckets_are_refused(tmp_path, write_classes, classes):
    recipe = config(write_classes(tmp_path), buckets=BUCKETS)
    with pytest.raises(ValueError, match="all 4 images are smaller than the buckets, whose shortest side is 16: lower"):
        open_data(recipe, classes, SIZE, {"a": 0, "b": 1})


@pytest.mark.parametrize("kind", ["mnist", "cifar10"])
def test_sets_as_published(tmp_path, classes, kind):
    (np.arange(3073 * 4) % 10).astype(np.uint8).tofile(tmp_path / "data_batch_1.bin")
    for number in range(2, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes((tmp_path / "data_batch_1.bin").read_bytes())
    for name, header in (("images-idx3", [2051, 4, 28, 28]), ("labels-idx1", [2049, 4])):
        content = b"".join(value.to_bytes(4, "big") for value in header) + bytes(4 * (784 if len(header) > 2 else 1))
        (tmp_path / f"train-{name}-ubyte").write_bytes(content)
    recipe = config(tmp_path, kind=kind)
    assert len(read_class_names(recipe)) == 10
    data = open_data(recipe, classes, (32, 32), {})
    draw = GlobalBatchSampler(data.sizes(), 4, 0).batch(0)[0]
    assert data[draw].pixels.shape == (3, 32, 32)
    turned = open_data(
        recipe, classes, (32, 32), {name: 9 - label for label, name in enumerate(read_class_names(recipe))}
    )
    assert [turned.target(index)[0] for index in range(4)] == [9 - data.target(index)[0] for index in range(4)]
    with pytest.raises(ValueError, match="10 classes, and model.class_names has 1 names"):
        open_data(recipe, classes, (32, 32), {"a": 0})
    with pytest.raises(ValueError, match=f"{kind} has one: set data.size"):
        open_data(config(tmp_path, kind=kind, buckets=BUCKETS), classes, SIZE, {})


def test_shards_in_buckets(tmp_path, classes, texts):
    import webdataset

    with webdataset.TarWriter(f"{tmp_path}/a.tar") as writer:
        for number, size in enumerate(((40, 20), (9, 40), (20, 40))):
            sample = {"png": Image.new("RGB", size), "cls": number % 2, "txt": f"{number}"}
            writer.write({"__key__": f"{number}", **sample})
    recipe = config(tmp_path / "a.tar", kind="webdataset", buckets=BUCKETS)
    for model in (classes, texts):
        data = open_data(recipe, model, SIZE, {})
        assert data.sizes() == ([(16, 32), (32, 16)]) and data.groups == [2]
        assert data.captions() == ["0", "2"] and [data.target(index)[0] for index in range(2)] == [0, 0]
    assert read_class_names(recipe) is None


def test_kinds_that_do_not_fit_the_model_are_refused(photos, classes, texts):
    with pytest.raises(ValueError, match="needs data.kind captions or webdataset, not folder"):
        open_data(config(photos), texts, SIZE, {})
    with pytest.raises(ValueError, match="needs data.kind folder, mnist, cifar10 or webdataset, not captions"):
        open_data(config(photos, kind="captions"), classes, SIZE, {})
    mean = (0.5,) * 4
    params = dataclasses.replace(classes.params, in_channels=4, image_mean=mean, image_std=mean)
    with pytest.raises(ValueError, match="the model has 4 channels"):
        open_data(config(photos), pc.build_model("pixeldit", params), SIZE, {})
    with pytest.raises(ValueError, match=r"3 of 5 images in .* have no caption: broken.png, c.png, tiny.png"):
        open_data(config(photos, kind="captions"), texts, SIZE, {})


def test_imagenet_is_recognized_by_its_folders():
    names = [f"n{number:08d}" for number in range(1000)]
    assert are_imagenet(names) and not are_imagenet(names[:-1]) and not are_imagenet([*names[:-1], "cat"])


def test_a_path_that_is_not_set_is_not_the_current_folder(classes):
    with pytest.raises(ValueError, match="data.path is not set; name a folder of images"):
        read_class_names(DataConfig())
    for kind in ("folder", "mnist", "cifar10", "webdataset"):
        with pytest.raises(ValueError, match="data.path is not set"):
            open_data(DataConfig(kind=kind), classes, SIZE, {})
