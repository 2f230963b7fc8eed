"""What is sampled from: NaN and infinity are named at their input; images and areas of less than a patch."""

import math

import pytest
import tiny_t2i
import torch
from class_model import SHAPE, ksampler, pixeldit
from foreign import foreign_model
from kit import close, empty, has_native, labels, load_tiny, record_calls, run, texts
from other_families import xpred
from pixeldit2 import pixeldit2

BROKEN = "is not finite: 1 of its [0-9,]+ values are NaN or infinity. Look at what made it"


def broken(*shape, value=math.nan):
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


def fails(words, function, *args, **options):
    with pytest.raises(ValueError, match=words):
        function(*args, **options)


def test_images_and_masks_that_are_not_finite():
    model, image, mask = load_tiny(), torch.rand(1, 16, 16, 3), torch.ones(1, 16, 16)
    for value in (math.nan, math.inf, -math.inf):
        bad_image, bad_mask = broken(1, 16, 16, 3, value=value), broken(1, 16, 16, value=value)
        fails(f"the image {BROKEN}", pixeldit, model, image=bad_image, denoise=0.5)
        fails(f"the mask {BROKEN}", pixeldit, model, image=image, mask=bad_mask, denoise=0.5)
        fails(rf"the image \(pixels\) {BROKEN}", run, "PixelDiTEncode", pixels=bad_image, mask=mask)
        fails(f"the mask {BROKEN}", run, "PixelDiTEncode", pixels=image, mask=bad_mask)
    fails(f"the image {BROKEN}", pixeldit, model, image=broken(1, 16, 16, 3).half(), denoise=0.5)
    fails(f"the image {BROKEN}", pixeldit, foreign_model(), positive=texts(), image=broken(1, 16, 16, 3), cfg=1.0)
    assert torch.isfinite(pixeldit(model, image=image, mask=mask, denoise=0.5)).all(), "the next run works"


def test_latents_that_are_not_finite():
    model = load_tiny()
    samples = broken(*SHAPE)
    fails(f"the latent {BROKEN}", ksampler, model, latent_image={"samples": samples}, denoise=0.5)
    latent = {"samples": torch.zeros(SHAPE), "noise_mask": broken(2, 1, 16, 16)}
    fails("the mask of the latent is not finite", ksampler, model, latent_image=latent, denoise=0.5)
    fails("the latent", ksampler, xpred("pixeldit-r1"), latent_image={"samples": broken(1, 3, 16, 16)}, denoise=0.5)
    assert torch.isfinite(ksampler(model)).all(), "the next run works"


def test_conditionings_that_are_not_finite():
    text, model = texts(seed=1), tiny_t2i.ours()
    bad = [[broken(1, 12, 20), text[0][1]]]
    options = {"width": 32, "height": 32, "steps": 2, "seed": 1}
    for name, conditions in (("positive", (bad, text)), ("negative", (text, bad))):
        inputs = dict(zip(("positive", "negative"), conditions, strict=True))
        words = rf"the conditioning \({name}\) {BROKEN}"
        fails(words, run, "PixelDiTSampler", model=model, **inputs, **options)
        fails(words, ksampler, model, latent_image=empty((1, 3, 32, 32)), **inputs)
        if has_native():
            fails(words, run, "PixelDiTSampler", model=tiny_t2i.native(), **inputs, **options)
    weights = labels([3])
    weights[0][0][0, 0, 2] = math.inf
    fails(r"the conditioning \(positive\)", pixeldit, load_tiny(), positive=weights)
    fails(r"the conditioning \(positive\)", ksampler, load_tiny(), positive=weights)


def test_weights_that_are_not_finite_are_still_blamed():
    model = load_tiny()
    with torch.no_grad():
        model.model.diffusion_model.final_layer.linear.weight.fill_(math.nan)
    fails("the sampled image is not finite .* weights are damaged", pixeldit, model, image=torch.rand(1, 16, 16, 3))


def test_images_smaller_than_a_patch():
    """Patches of 4 (and of 8): an image of 2 x 3 is continued around; one of less than half a patch is refused."""
    model = load_tiny()
    options = {"width": 0, "height": 0, "denoise": 0.5, "steps": 2}
    for height, width in ((2, 3), (3, 2), (2, 2), (5, 3)):
        made = pixeldit(model, image=torch.rand(1, height, width, 3), **options)
        assert made.shape[1:3] == (height, width) and torch.isfinite(made).all()
    words = r"the image is 3 x 1 pixels \(width x height\), less than half a patch of the model \(4 x 4\). Set width"
    fails(words, pixeldit, model, image=torch.rand(1, 1, 3, 3), **options)
    assert pixeldit(model, image=torch.rand(1, 1, 3, 3), width=16, height=16, denoise=0.5).shape[1:3] == (16, 16)
    if has_native():
        inputs = {"positive": texts(seed=1), "negative": texts(seed=2), "seed": 1, **options}
        fails("less than half a patch of the model .8 x 8.", run, "PixelDiTSampler", model=tiny_t2i.native(),
              image=torch.rand(1, 2, 3, 3), **inputs)  # fmt: skip


def test_latents_and_areas_smaller_than_a_patch():
    for model, classes in ((load_tiny(), 10), (xpred("pixeldit-r1"), 5), (pixeldit2(), 5)):
        options = {"positive": labels([3], classes), "negative": labels([classes], classes), "steps": 2}
        for height, width in ((1, 1), (1, 3), (3, 9)):
            made = ksampler(model, latent_image=empty((2, 3, height, width)), **options)
            assert made.shape[-2:] == (height, width) and torch.isfinite(made).all()
        recorded, calls = record_calls(model)
        for size in (8, 16):  # ComfyUI's node counts in eighths
            area = run(
                "ConditioningSetArea",
                conditioning=labels([3], classes), width=size, height=size, x=8, y=8, strength=1.0,
            )[0]  # fmt: skip
            joined = run("ConditioningCombine", conditioning_1=area, conditioning_2=labels([2], classes))[0]
            assert torch.isfinite(ksampler(recorded, **{**options, "positive": joined})).all()
        assert {1, 2} <= {call["x"].shape[-1] for call in calls}, "the areas were sampled"


def test_padding_goes_around():
    """An image that is smaller than a patch is sampled as the one that continues it."""
    from kit import module

    padding = module("nodes.host.padding")
    x = torch.arange(6.0).view(1, 1, 2, 3)
    padded = padding.pad(x, (8, 8))
    rows, columns = torch.arange(8) % 2, torch.arange(8) % 3
    close(padded, x[..., rows[:, None], columns[None]], 0.0)
    one = torch.rand(1, 1, 6, 6)
    close(padding.pad(one, (8, 8)), torch.cat([one, one], 2)[:, :, :8].repeat(1, 1, 1, 2)[..., :8], 0.0)


def test_an_area_outside_of_the_image():
    area = run("ConditioningSetArea", conditioning=labels([3]), width=64, height=64, x=1024, y=0, strength=1.0)[0]
    words = r"the area of a conditioning is 8 x 8 pixels at 128, 0 .* the image is 16 x 16. Conditioning .Set Area. div"
    fails(words, ksampler, load_tiny(), positive=area)
    assert torch.isfinite(ksampler(load_tiny())).all(), "the next run works"
