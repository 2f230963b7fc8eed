"""Image to image and inpainting in pixels: what lies outside of the mask stays bit for bit, in both families."""

import pytest
import text_model
import tiny_t2i
import torch
from class_model import pixeldit
from kit import close, core, labels, load_tiny, module, run, sampler_net, texts
from pixeldit2 import core_model, pixeldit2


def photograph(height=32, width=48, channels=3):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (1, height, width, channels), generator=generator).float() / 255


def hole(height=32, width=48):
    """White in the middle, with a soft edge on one side."""
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    mask[:, height // 4 : height // 2, width // 2] = 0.5
    return mask


def levels(image):
    """The uint8 that SaveImage writes (it truncates)."""
    return (255 * image).clamp(0, 255).byte()


def original(image):
    return (255 * image).round().byte()


def edit(model, **options):
    """Our sampler node, for a MODEL of either family."""
    if model.model.pixeldit.family.condition == "class":
        return pixeldit(model, **{"positive": labels([3]), "steps": 4, **options})
    return text_model.sampler(model, **{"batch_size": 1, "steps": 4, **options})


def sample(model, **options):
    """KSampler and PixelDiT Decode."""
    if model.model.pixeldit.family.condition == "class":
        options = {"positive": labels([3]), "negative": labels([10]), **options}
    return run("PixelDiTDecode", samples={"samples": text_model.ksampler(model, **options)})[0]


def models():
    return load_tiny(), tiny_t2i.ours(), pixeldit2(num_classes=10, noise_scale=2.0)


def test_outside_of_the_mask_every_pixel_stays():
    image, mask = photograph(), hole()
    outside = mask[0] == 0
    for model in models():
        for solver in core().SOLVERS:
            for denoise in (1.0, 0.5):
                result = edit(model, image=image, mask=mask, width=0, height=0, solver=solver, denoise=denoise)
                assert torch.equal(levels(result)[0][outside], original(image)[0][outside]), f"{solver} {denoise}"
                assert (levels(result)[0][~outside] != original(image)[0][~outside]).any(), "inside is generated"


def test_ksampler_keeps_every_pixel_too():
    image, mask = photograph(), hole()
    outside = mask[0] == 0
    for model in models():
        latent = run("PixelDiTEncode", pixels=image, mask=mask)[0]
        for name in ("euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde", "uni_pc", "lcm"):
            result = sample(model, sampler_name=name, latent_image=latent, denoise=0.6)
            if (
                name == "uni_pc" and model.model.pixeldit.family.name == "pixeldit2"
            ):  # it ends at sigma 0.001, of noise 2
                close(levels(result)[0][outside].float(), original(image)[0][outside].float(), 1.0)
                continue
            assert torch.equal(levels(result)[0][outside], original(image)[0][outside]), name


def test_a_soft_mask_blends_as_documented():
    """Where the mask is between black and white, each estimate of the picture is mixed with the photograph."""
    image, mask = photograph(), torch.full((1, 32, 48), 0.5)
    second = core_model(num_classes=10, noise_scale=2.0)
    networks = (core().load_checkpoint(sampler_net()), tiny_t2i.core_model(), second)
    for model, network in zip(models(), networks, strict=True):
        result = edit(model, image=image, mask=mask, width=0, height=0, solver="euler", timeshift=2.0)
        text = network.family.condition == "text"
        conditions = (texts(seed=1)[0][0], texts(seed=2)[0][0]) if text else (torch.tensor([3]),)
        x = core().sample(
            network,
            *conditions,
            noise=text_model.noise((1, 3, 32, 48)),
            image=core().from_image(network, image),
            mask=mask[:, None],
            steps=4,
            solver="euler",
            cfg=2.75 if text else 2.5,
            timeshift=2.0,
            cfg_interval=(0.0, 1.0) if text else (0.1, 0.9),
        )
        close(result, core().to_uint8(network, x).float() / 255, 1.01 / 255)


def test_denoise_decides_how_much_is_new():
    image = photograph()
    for model in models():
        little, much = (edit(model, image=image, width=0, height=0, denoise=denoise) for denoise in (0.1, 0.9))
        assert (little - image).abs().mean() < (much - image).abs().mean()


def test_a_size_of_its_own_is_kept_and_another_is_fitted():
    """0 = the image's own size, also one that is no multiple of a patch; else it covers the size and is cropped."""
    for model in models():
        odd = photograph(37, 51)
        mask = hole(37, 51)
        result = edit(model, image=odd, mask=mask, width=0, height=0)
        assert result.shape == odd.shape
        assert torch.equal(levels(result)[0][mask[0] == 0], original(odd)[0][mask[0] == 0])
        fitted = edit(model, image=photograph(64, 32), mask=hole(64, 32), width=32, height=32)
        expected = module("nodes.host.pixels").fit(photograph(64, 32), 32, 32)
        kept = module("nodes.host.pixels").fit(hole(64, 32)[..., None], 32, 32)[0, ..., 0] == 0
        assert torch.equal(levels(fitted)[0][kept], levels(expected)[0][kept]) and kept.any()


def test_a_mask_of_another_size():
    image, model = photograph(), tiny_t2i.ours()
    small = torch.nn.functional.interpolate(hole()[None], size=(16, 24))[0]
    result = edit(model, image=image, mask=small, width=0, height=0)
    large = module("nodes.host.pixels").to_mask(small, image)[0, ..., 0] == 0
    assert torch.equal(levels(result)[0][large], original(image)[0][large]), "a smaller mask of the same picture fits"
    for wrong in (torch.ones(1, 64, 64), torch.ones(32, 32)):
        with pytest.raises(ValueError, match="their aspect ratios differ"):
            edit(model, image=image, mask=wrong)
        with pytest.raises(ValueError, match="their aspect ratios differ"):
            run("PixelDiTEncode", pixels=image, mask=wrong)
    empty = torch.zeros(1, 64, 64)  # what Load Image gives for a picture without transparency
    with pytest.raises(ValueError, match="black everywhere"):
        edit(model, image=image, mask=empty)
    with pytest.raises(ValueError, match="black everywhere"):
        run("PixelDiTEncode", pixels=image, mask=empty)
    with pytest.raises(ValueError, match="no image"):
        edit(model, mask=hole())


def test_transparency_is_dropped_with_a_note():
    image, model = photograph(channels=4), tiny_t2i.ours()
    plain = image[..., :3]
    result = edit(model, image=image, width=0, height=0, denoise=0.5)
    assert torch.equal(result, edit(model, image=plain, width=0, height=0, denoise=0.5))
    with_alpha, without = (run("PixelDiTEncode", pixels=pixels)[0]["samples"] for pixels in (image, plain))
    assert torch.equal(with_alpha, without)
    note = module("nodes.host.pixels").ALPHA
    assert "transparency" in note and "dropped" in note
    gray = photograph(channels=1)
    assert torch.equal(run("PixelDiTEncode", pixels=gray)[0]["samples"][:, 0], gray[..., 0] * 2 - 1)


def test_several_images_and_masks_each_keep_their_own():
    images = torch.cat([photograph(), photograph().flip(1)])
    masks = torch.cat([hole(), hole().flip(2)])
    result = edit(tiny_t2i.ours(), image=images, mask=masks, width=0, height=0, batch_size=2)
    for index in range(2):
        outside = masks[index] == 0
        assert torch.equal(levels(result)[index][outside], original(images)[index][outside])


def test_sizes_of_the_size_node():
    def size(**options):
        width, height, latent = run("PixelDiTSize", **options)
        assert tuple(latent["samples"].shape[-2:]) == (height, width) and not latent["samples"].any()
        return width, height

    assert size() == (1024, 1024) and size(resolution="512") == (512, 512)
    assert size(aspect_ratio="16:9 (1.75:1)") == (1344, 768)
    assert size(aspect_ratio="16:9 (1.75:1)", orientation="portrait") == (768, 1344)
    assert size(aspect_ratio="21:9 (2.4:1)", resolution="512") == (768, 320)
    aspects = module("nodes.pixels").ASPECTS
    trained = {(width, height) for height, width in core().FAMILIES["pixeldit_t2i"].trained_sizes(None)}
    wide = {size(aspect_ratio=name) for name in aspects}
    tall = {size(aspect_ratio=name, orientation="portrait", resolution="512") for name in aspects}
    assert len(wide) == 19 and len(tall) == 15 and wide | tall <= trained, f"{len(wide)} {len(tall)}"
    latent = run("PixelDiTSize", batch_size=3)[2]["samples"]
    assert tuple(latent.shape) == (3, 3, 1024, 1024)
