"""IMAGE and LATENT: image to image, masks, sizes."""

import pytest
import torch
from class_model import guided, ksampler, noise, picture, pixeldit
from kit import close, core, empty, labels, load_tiny, module, run, sampler_net


def test_image_to_image():
    start = picture()
    latent = run("PixelDiTEncode", pixels=start)[0]
    by_host = ksampler(guided(load_tiny()), denoise=0.5, latent_image=latent, steps=5, positive=labels([3]))
    single = core().sample(
        core().load_checkpoint(sampler_net()),
        torch.tensor([3]),
        noise=noise(shape=(1, 3, 16, 16)),
        steps=5,
        cfg=2.5,
        solver="euler",
        timeshift=1.0,
        cfg_interval=(0.1, 0.9),
        image=latent["samples"],
        denoise=0.5,
    )
    close(by_host, single, 1e-4)
    ours = pixeldit(load_tiny(), solver="euler", steps=5, denoise=0.5, image=start, positive=labels([3]))
    close(ours, run("PixelDiTDecode", samples={"samples": by_host})[0], 1.1 / 255)


def test_mask_keeps_the_outside_exactly():
    start = picture()
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1
    made = pixeldit(load_tiny(), image=start, mask=mask, positive=labels([3]))
    outside = (mask == 0)[0]
    assert torch.equal((made[0][outside] * 255).byte(), (start[0][outside] * 255).round().byte())
    assert not torch.equal(made[0][~outside], start[0][~outside]), "inside is generated"
    latent = run("PixelDiTEncode", pixels=start, mask=mask)[0]
    by_host = run(
        "PixelDiTDecode", samples={"samples": ksampler(load_tiny(), latent_image=latent, positive=labels([3]))}
    )
    assert torch.equal((by_host[0][0][outside] * 255).byte(), (start[0][outside] * 255).round().byte())


def test_encode_and_decode_are_exact_and_drop_transparency():
    start = picture(8, 12)
    back = run("PixelDiTDecode", samples=run("PixelDiTEncode", pixels=start)[0])[0]
    assert torch.equal((back * 255).byte(), (start * 255).round().byte())
    rgba = torch.cat([start, torch.ones(1, 8, 12, 1)], dim=-1)
    close(run("PixelDiTEncode", pixels=rgba)[0]["samples"], run("PixelDiTEncode", pixels=start)[0]["samples"], 0)
    with pytest.raises(ValueError, match="VAE Decode"):
        run("PixelDiTDecode", samples=empty((1, 4, 8, 8)))


def test_odd_sizes_are_padded_and_cropped_by_the_ksampler_path():
    result = ksampler(load_tiny(), latent_image=empty((1, 3, 18, 13)), positive=labels([3]))
    assert tuple(result.shape) == (1, 3, 18, 13) and torch.isfinite(result).all()


def test_image_and_mask_of_another_size_are_fitted_together():
    start, mask = picture(40, 24), torch.zeros(1, 40, 24)
    mask[:, 16:24, 6:18] = 1
    made = pixeldit(load_tiny(), image=start, mask=mask, positive=labels([3]))
    fitted = module("nodes.host.pixels").fit(start, 16, 16)
    kept = module("nodes.host.pixels").fit(mask[..., None], 16, 16)[0, ..., 0] == 0
    assert tuple(made.shape) == (1, 16, 16, 3) and 0 < kept.sum() < 256
    assert torch.equal((made[0][kept] * 255).byte(), (fitted[0][kept] * 255).byte()), "outside stays"
