"""Reading images and bringing them to a size."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pixeldit_core.resize import cover, upright
from pixeldit_core.training.data.files import UNKNOWN, header_size, open_image
from pixeldit_core.training.data.transforms import Transform

RNG = np.random.default_rng(0)


def noise(height, width, channels=3):
    pixels = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def read_image(file, channels=3):
    return upright(open_image(file), channels)


def test_bucketed_preprocessing_is_the_reference_s(golden, draw):
    case = golden("52_dataset_preprocess", "pixelhdm")
    outputs = load_file(case.folder / "outputs.safetensors")
    for number, item in enumerate(case.case["items"]):
        width, height = item["target_wh"]
        pixels = Transform(3, buckets=True)(open_image(case.folder / f"in{number}.png"), draw(size=(height, width)))
        (expected,) = (value for name, value in outputs.items() if name.startswith(f"out{number}"))
        assert torch.equal(pixels / 255 * 2 - 1, expected)


def test_imagenet_preprocessing_halves_then_scales():
    image = noise(70, 100)
    halved = image.resize((50, 35), Image.Resampling.BOX).resize((25, 17), Image.Resampling.BOX)
    expected = halved.resize((24, 16), Image.Resampling.BICUBIC)  # round(25 * 16 / 17)
    assert np.array_equal(np.array(cover(image, (16, 16))), np.array(expected))


@pytest.mark.parametrize("buckets", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (33, 20), (5, 9), (200, 17), (1, 1)])
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_any_image_is_brought_to_any_size(shape, size, buckets, draw):
    for channels in (1, 3):
        pixels = Transform(channels, "random", True, buckets)(noise(*shape, channels), draw(size=size))
        assert pixels.shape == (channels, *size) and pixels.dtype == torch.uint8


@pytest.mark.parametrize("buckets", [False, True])
def test_an_image_of_the_right_size_stays_as_it_is(buckets, draw):
    image = noise(12, 20)
    pixels = Transform(3, buckets=buckets)(image, draw(size=(12, 20)))
    assert np.array_equal(pixels.movedim(0, -1).numpy(), np.array(image))


def test_crop_and_flip_follow_the_seed_of_the_draw(draw):
    row = Image.fromarray(np.arange(40, dtype=np.uint8)[None].repeat(10, 0))
    view = Transform(1, crop="random", flip=True)
    seen = [view(row, draw(size=(10, 10), seed=seed))[0, 0] for seed in range(200)]
    assert all(torch.equal(view(row, draw(size=(10, 10), seed=seed))[0, 0], seen[seed]) for seed in range(20))
    starts = {int(pixels.min()) for pixels in seen}
    assert min(starts) == 0 and max(starts) == 30 and len(starts) > 25
    flipped = sum(int(pixels[0] > pixels[-1]) for pixels in seen)
    assert 70 < flipped < 130
    assert Transform(1)(row, draw(size=(10, 10)))[0, 0].tolist() == list(range(15, 25))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_turned_upright_whatever_their_file(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (32, 16), "white")
    image.paste("black", (0, 0, 8, 16))
    file = encoded(image, kind, exif=exif)
    assert header_size(file) == ((32, 16) if orientation in (6, 8) else (16, 32))
    file.seek(0)
    pixels = np.array(read_image(file, 1), dtype=np.float32)
    dark = {1: pixels[:, :6], 3: pixels[:, -6:], 6: pixels[:6], 8: pixels[-6:]}[orientation]
    assert pixels.shape == header_size(file) and dark.mean() < 20 and pixels.mean() > 180


def test_transparency_is_over_white():
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert read_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(encoded(Image.new("LA", (2, 2), (0, 128))), 1).getpixel((0, 0)) == 127
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([200, 10, 10, 0, 255, 0])
    assert read_image(encoded(palette)).getpixel((0, 0)) == (200, 10, 10)
    assert read_image(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1", "I;16", "I"])
def test_images_of_every_mode_are_read(mode, channels, draw):
    levels = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)
    if mode.startswith("I"):
        image = Image.fromarray(levels.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(levels).convert("RGB").convert(mode)
    assert image.mode == mode
    pixels = Transform(channels)(open_image(encoded(image, "TIFF")), draw())
    assert pixels.shape == (channels, 8, 8) and pixels.dtype == torch.uint8
    assert pixels[0, 0, 0] < 10 and pixels[0, 7, 7] > 245


def test_sixteen_bits_are_scaled_not_cut():
    deep = Image.fromarray(np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16))
    assert np.array(read_image(encoded(deep), 1)).tolist() == [[0, 0, 1, 128, 255]]
    dark = Image.fromarray(np.full((2, 2), 200, dtype=np.uint16))
    assert np.unique(read_image(encoded(dark), 1)).tolist() == [1]


def test_numbers_without_a_fixed_range_are_refused():
    for image in (Image.new("F", (2, 2)), Image.new("I", (2, 2), 70_000), Image.new("I", (2, 2), -1)):
        with pytest.raises(ValueError, match=r"numbers has no fixed range; save it with 8 or 16 bits"):
            upright(image, 3)


def test_headers_of_broken_images_are_unknown(tmp_path, monkeypatch):
    assert header_size(io.BytesIO(b"no image")) == header_size(tmp_path / "nowhere.png") == UNKNOWN
    file = encoded(noise(40, 40))
    assert header_size(file) == (40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert header_size(file) == UNKNOWN
