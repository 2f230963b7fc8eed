"""Trained sizes: the published buckets, the nearest of them, and what depends on them."""

import math
from dataclasses import replace

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.families.pixeldit.sizes import BUCKETS, bucket
from pixeldit_core.sizes import FAR, advise, distance, nearest

EVERY = [(resolution, size) for resolution, sizes in BUCKETS.items() for size in sizes]


@pytest.mark.parametrize("resolution", [512, 1024])
def test_buckets_are_the_published_ones(golden, resolution):
    table = golden("tables_prompt").case[f"buckets_{resolution}"]
    assert len(table) == 33
    published = [
        (int(height), int(width)) for _, (height, width) in sorted(table.items(), key=lambda row: float(row[0]))
    ]
    assert list(BUCKETS[resolution]) == published


@pytest.mark.parametrize("resolution, size", EVERY)
def test_every_bucket_can_be_generated_and_is_that_of_its_aspect(resolution, size):
    height, width = size
    assert height % 16 == width % 16 == 0
    assert 0.85 < height * width / resolution**2 <= 1.0
    assert bucket(resolution, width / height) == size


def test_buckets_run_from_wide_to_tall_and_each_is_there_once():
    for sizes in BUCKETS.values():
        assert list(sizes) == sorted(set(sizes), key=lambda size: size[0] / size[1])


@pytest.mark.parametrize("resolution, aspect, size", [
    (1024, 1, (1024, 1024)),
    (1024, 16 / 9, (768, 1344)),
    (1024, 9 / 16, (1344, 768)),
    (1024, 4, (512, 2048)),
    (1024, 100, (512, 2048)),
    (1024, 0.01, (2048, 512)),
    (1024, 1.001, (1024, 1024)),
    (512, 1, (512, 512)),
    (512, 16 / 9, (384, 672)),
    (512, 9 / 16, (672, 384)),
])  # fmt: skip
def test_the_bucket_of_an_aspect(resolution, aspect, size):
    assert bucket(resolution, aspect) == size


@pytest.mark.parametrize("arguments, message", [
    ((768, 1.0), "resolution is 768; there are 512, 1024"),
    ((1024, 0), "the aspect .width / height. is 0; it must be above 0"),
    ((1024, -1.5), "is -1.5"),
    ((1024, float("nan")), "is nan"),
])  # fmt: skip
def test_what_has_no_bucket(arguments, message):
    with pytest.raises(ValueError, match=message):
        bucket(*arguments)


def test_distance_is_that_of_logarithms():
    assert distance((512, 512), (512, 512)) == 0
    assert distance((640, 512), (512, 512)) == distance((512, 640), (512, 512)) == pytest.approx(math.log(1.25))
    assert distance((512, 512), (1024, 1024)) == distance((1024, 1024), (512, 512)) == pytest.approx(0.98, abs=0.01)
    assert nearest((500, 520), [(256, 256), (512, 512)]) == (512, 512)
    assert nearest((512, 512), [(256, 512), (512, 256)]) == (256, 512)


@pytest.mark.parametrize("size", [size for _, size in EVERY] + [(1000, 1040), (1024, 1152), (528, 496), (1280, 720)])
def test_sizes_near_a_trained_one_need_no_advice(size):
    assert advise(size, pc.FAMILIES["pixeldit_t2i"].trained_sizes(None)) is None


@pytest.mark.parametrize("size, messages", [
    ((768, 768), ("768 x 768 is far", "the nearest is 1024 x 960")),
    ((2048, 2048), ("2048 x 2048 is far", "the nearest is 1024 x 1024")),
    ((256, 256), ("256 x 256 is far", "the nearest is 512 x 480")),
    ((512, 4096), ("4096 x 512 is far", "the nearest is 2048 x 512")),  # width first, as people say it
])  # fmt: skip
def test_sizes_far_from_every_trained_one_are_reported_with_the_nearest(size, messages):
    advice = advise(size, pc.FAMILIES["pixeldit_t2i"].trained_sizes(None))
    assert all(text in advice for text in messages), advice


def test_far_is_about_a_quarter():
    assert advise((512, int(512 * math.exp(FAR))), [(512, 512)]) is None
    assert advise((512, int(512 * math.exp(FAR)) + 1), [(512, 512)]).startswith("658 x 512 is far")


@pytest.mark.parametrize("resolution, size", EVERY)
def test_every_bucket_has_the_settings_of_its_resolution(resolution, size):
    model = pc.build_model("pixeldit_t2i", SMALL)
    name = {1024: "t2i-1024", 512: "t2i-512"}[resolution]
    assert model.spec.settings_for(size) == pc.SETTINGS[name]
    assert model.spec.settings_for(size).timeshift == {1024: 4.0, 512: 3.0}[resolution]


SMALL = pc.PixelDiTT2IParams(24, 2, 1, 1, 16, 2, patch_size=4, pixel_hidden_size=4, txt_embed_dim=12, txt_max_length=6)


def test_without_a_size_the_settings_are_those_of_the_published_checkpoint():
    model = pc.build_model("pixeldit_t2i", "PixelDiT-T2I")
    assert model.spec.settings_for() == pc.SETTINGS["t2i-1024"]
    assert torch.equal(pc.time_grid(model, 10), pc.time_grid(model, 10, 4.0))


def test_trained_sizes_are_the_family_s_or_the_checkpoint_s_own():
    model = pc.build_model("pixeldit_t2i", SMALL)
    assert model.spec.trained_sizes == BUCKETS[1024] + BUCKETS[512]
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0, size=(64, 48)))
    assert model.spec.trained_sizes == ((64, 48),)
    assert model.spec.settings_for((1024, 1024)) is model.settings
    assert advise((1024, 1024), model.spec.trained_sizes).endswith("the nearest is 48 x 64")
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0))
    assert model.spec.trained_sizes == BUCKETS[1024] + BUCKETS[512]
    classes = pc.build_model("pixeldit", "PixelDiT-B")
    assert (
        classes.spec.trained_sizes == ((256, 256), (512, 512))
        and advise((256, 288), classes.spec.trained_sizes) is None
    )


def test_a_size_of_the_checkpoint_goes_with_its_file(tiny_t2i, tmp_path):
    model = tiny_t2i()
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0, size=(64, 48)))
    for layout in ("canonical", "comfyui"):
        again = pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / f"{layout}.safetensors", layout))
        assert again.spec.trained_sizes == ((64, 48),) and again.settings == model.settings


def test_settings_without_a_size_sample_a_square(tiny_t2i):
    model = tiny_t2i()
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=2, cfg=1.0, solver="flow_dpmpp_2m"))
    asked = []

    class Stop(Exception):
        pass

    def note(_, arguments):
        asked.append(tuple(arguments[0].shape[-2:]))
        raise Stop

    model.network.register_forward_pre_hook(note)
    with pytest.raises(Stop):
        pc.sample(model, torch.zeros(1, 6, 12))
    assert asked == [(1024, 1024)]
