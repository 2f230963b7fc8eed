"""--gpu-only, --fp16-intermediates, and several masks: where results lie, and that no pixel outside of a mask moves."""

import torch
from class_model import ksampler, pixeldit
from kit import labels, load_tiny, run, texts
from other_families import xpred
from test_editing import edit, hole, levels, models, original, photograph, sample
from two_devices import GPU, OnGPU, TwoDevices, to_gpu


def on_gpu_only(monkeypatch):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "intermediate_device", lambda: GPU)


def test_gpu_only_gives_the_same_pixels_on_the_gpu(monkeypatch):
    image, mask = photograph(), hole()
    for model in models():
        expected = edit(model, image=image, mask=mask, width=0, height=0, denoise=0.6)
        plain = edit(model)
        with monkeypatch.context() as patch, TwoDevices():
            on_gpu_only(patch)
            for one, other in ((to_gpu(image), to_gpu(mask)), (to_gpu(image), mask), (image, to_gpu(mask))):
                made = edit(model, image=one, mask=other, width=0, height=0, denoise=0.6)
                assert isinstance(made, OnGPU) and torch.equal(made.cpu(), expected)
            assert torch.equal(edit(model).cpu(), plain)


def test_gpu_only_gives_the_same_frames_and_plain_images(monkeypatch):
    image = photograph()
    for model in models():
        for options in (
            {"image": image, "mask": hole(), "denoise": 0.6, "trajectory_frames": 3, "width": 0, "height": 0},
            {"image": torch.cat([image, image.flip(2)]), "denoise": 0.6, "width": 0, "height": 0},
            {"trajectory_frames": 2},
        ):
            inputs = {**inputs_of(model), "seed": 1, "steps": 3, "width": 32, "height": 32, **options}
            expected = run("PixelDiTSampler", model=model, **inputs)[:3]
            with monkeypatch.context() as patch, TwoDevices():
                on_gpu_only(patch)
                given = {key: to_gpu(value) if key == "image" else value for key, value in inputs.items()}
                made = run("PixelDiTSampler", model=model, **given)[:3]
            for one, other in zip(made, expected, strict=True):
                assert isinstance(one, OnGPU) and torch.equal(one.cpu(), other)


def inputs_of(model):
    if model.model.pixeldit.family.condition == "class":
        return {"positive": labels([3]), "negative": labels([10])}
    return {"positive": texts(seed=1), "negative": texts(seed=2)}


def test_gpu_only_with_the_pixel_nodes(monkeypatch):
    image, mask = photograph(), hole()
    expected = run("PixelDiTEncode", pixels=image, mask=mask)[0]
    decoded = run("PixelDiTDecode", samples=expected)[0]
    with monkeypatch.context() as patch, TwoDevices():
        on_gpu_only(patch)
        latent = run("PixelDiTEncode", pixels=to_gpu(image), mask=mask)[0]
        assert all(isinstance(latent[key], OnGPU) and torch.equal(latent[key].cpu(), expected[key]) for key in expected)
        made = run("PixelDiTDecode", samples=latent)[0]
        assert isinstance(made, OnGPU) and torch.equal(made.cpu(), decoded)


def test_half_precision_images_keep_every_level():
    ramp = (torch.arange(256).float() / 255).view(1, 8, 32, 1).expand(1, 8, 32, 3)
    mask = torch.zeros(1, 8, 32)
    mask[:, :1] = 1
    outside = mask[0] == 0
    for model in models():
        made = edit(model, image=ramp.half(), mask=mask.half(), width=0, height=0, denoise=0.6)
        assert torch.equal(levels(made)[0][outside], original(ramp)[0][outside]) and made.dtype == torch.float32
        latent = run("PixelDiTEncode", pixels=ramp.half(), mask=mask.half())[0]
        assert latent["samples"].dtype == torch.float32 and latent["noise_mask"].dtype == torch.float32
        made = sample(model, latent_image=latent, denoise=0.6)
        assert torch.equal(levels(made)[0][outside], original(ramp)[0][outside])


def test_a_gray_model_keeps_every_level_of_gray():
    """A sum of weighted channels lies a little below some of them, where a saved PNG would have a level less."""
    ramp = (torch.arange(256).float() / 255).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    mask = torch.zeros(1, 16, 16)
    mask[:, :1] = 1
    model = xpred("mmpixeldit-r1")
    options = {"positive": labels([1]), "negative": labels([10]), "steps": 2}
    for kind in (torch.float32, torch.float16):
        image, hidden = ramp.to(kind), mask.to(kind)
        made = pixeldit(model, image=image, mask=hidden, width=0, height=0, denoise=0.6, **options)
        latent = run("PixelDiTEncode", pixels=image, mask=hidden, model=model)[0]
        sampled = ksampler(model, latent_image=latent, denoise=0.6, **options)
        for result in (made, run("PixelDiTDecode", samples={"samples": sampled})[0]):
            assert torch.equal(levels(result)[0, 1:], original(ramp)[0, 1:]), kind


def test_half_precision_changes_nothing_else():
    image, mask = photograph(), hole()
    for model in models():
        expected = edit(model, image=image, mask=mask, width=0, height=0, denoise=0.6, seed=5)
        made = edit(model, image=image.half(), mask=mask, width=0, height=0, denoise=0.6, seed=5)
        assert torch.equal(made, expected)


def halves(*which):
    """Masks of the upper or lower half, or of nothing."""
    masks = torch.zeros(len(which), 32, 48)
    for mask, half in zip(masks, which, strict=True):
        if half == "top":
            mask[:16] = 1
        elif half == "bottom":
            mask[16:] = 1
    return masks


def changed(made, image):
    """The halves of each image that are not the original's."""
    differs = levels(made) != original(image)
    return [tuple(name for name, rows in (("top", one[:16]), ("bottom", one[16:])) if rows.any()) for one in differs]


def test_an_image_for_each_mask():
    image = photograph()
    for which in (("top", "bottom"), ("none", "bottom"), ("top", "bottom", "top")):
        expected = [() if half == "none" else (half,) for half in which]
        for model in models():
            assert changed(edit(model, image=image, mask=halves(*which), width=0, height=0), image) == expected
        latent = run("PixelDiTEncode", pixels=image, mask=halves(*which))[0]
        assert len(latent["samples"]) == len(which) == len(latent["noise_mask"])
        made = sample(load_tiny(), latent_image=latent)
        assert changed(made, image) == expected


def test_masks_and_images_of_different_number():
    images = torch.cat([photograph(), photograph().flip(1)])
    model = load_tiny()
    made = edit(model, image=images, mask=halves("top", "bottom", "top"), width=0, height=0)
    assert changed(made, images[[0, 1, 0]]) == [("top",), ("bottom",), ("top",)]
    made = edit(model, image=images, mask=halves("bottom"), width=0, height=0)
    assert changed(made, images) == [("bottom",), ("bottom",)]
