"""From images of any kind to pixels."""

import numpy as np
import pytest
import torch
from helpers import find_golden
from PIL import Image

from pixeldit_core.training.data.order import Draw
from pixeldit_core.training.data.transforms import Transform, cover


def draw(size, seed=0):
    return Draw(0, seed, 1.0, size)


def gradient(width, height, mode="RGB"):
    values = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.golden
def test_bucket_images_are_prepared_as_by_the_reference_program():
    case = find_golden("52_dataset_preprocess", "pixelhdm")
    for index, item in enumerate(case.case["items"]):
        width, height = item["target_wh"]
        pixels = Transform(3, buckets=True)(Image.open(case.folder / f"in{index}.png"), draw((height, width)))
        expected = next(value for name, value in case.outputs.items() if name.endswith(str(index)))
        torch.testing.assert_close(pixels / 255 * 2 - 1, expected.view(3, height, width), atol=1.001 / 255 * 2, rtol=0)


def test_an_image_of_the_right_size_is_not_touched():
    image = gradient(12, 8)
    pixels = Transform(3)(image, draw((8, 12)))
    assert torch.equal(pixels, torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert cover(image, (8, 12)) is image


def test_large_images_are_halved_first_and_cropped_in_the_center():
    image = Image.new("RGB", (100, 64), "red")
    image.paste("blue", (18, 0, 82, 64))
    assert cover(image, (16, 16)).size == (25, 16)
    pixels = Transform(3)(image, draw((16, 16)))
    assert pixels[2].float().mean() > 245 and pixels[0].float().mean() < 10


def test_crop_and_flip_are_decided_by_the_seed():
    image, transform = gradient(40, 16), Transform(3, crop="random", flip=True)
    first = [transform(image, draw((16, 16), seed)) for seed in range(20)]
    again = [transform(image, draw((16, 16), seed)) for seed in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(pixels.flatten().tolist()) for pixels in first}) > 10
    rising = [bool(pixels[0, 8, -1] > pixels[0, 8, 0]) for pixels in first]
    assert 3 < sum(rising) < 17


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_mode_are_read(mode, channels):
    if mode == "I;16":
        image = Image.fromarray((np.arange(64).reshape(8, 8) * 1000).astype(np.uint16))
    else:
        image = gradient(8, 8, "RGB").convert("P" if mode == "P" else mode if mode in ("CMYK", "1", "L") else "L")
        image = image if mode in ("P", "CMYK", "1", "L") else image.convert(mode)
    pixels = Transform(channels)(image, draw((8, 8)))
    assert pixels.shape == (channels, 8, 8) and pixels.dtype == torch.uint8
    assert pixels[0, 7, 7] > pixels[0, 0, 0]


def test_transparency_is_white_and_exif_turns():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert Transform(3)(clear, draw((8, 8))).min() == 255
    image = Image.new("RGB", (8, 4), "white")
    image.paste("black", (0, 0, 2, 4))
    image.getexif()[0x0112] = 6  # to be turned clockwise
    pixels = Transform(1)(image, draw((8, 4)))
    assert pixels[0, 0].max() == 0 and pixels[0, 7].min() == 255
