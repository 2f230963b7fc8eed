"""Newer forms of ComfyUI's Train LoRA, and its nodes for data sets, on our MODELs: skipped where they are not there."""

import pytest
import tiny_gemma
import tiny_t2i
from kit import classes_of, close, out_of, run
from training import STILL, Subject, is_newer, mean, only_with, subjects, target, train


def only_newer():
    if not is_newer():
        pytest.skip("this ComfyUI's Train LoRA takes one batch of images of one size (0.5 and newer take lists)")


def learns(subject, latents=None, positive=None, **options):
    untrained, trained = (
        train(subject, latents, positive, **options, **rate) for rate in ({"learning_rate": STILL}, {})
    )
    assert mean(trained.losses[-5:]) < 0.8 * mean(untrained.losses[-5:]), (trained.losses, untrained.losses)
    return trained


def test_every_way_to_save_memory_gives_the_same_losses():
    only_with("checkpoint_depth", "offloading")
    for name in ("class", "text", "pixelhdm", "gray"):
        subject = subjects()[name]()
        options = {"learning_rate": 1e-3, "steps": 3}
        train(subject, steps=1)  # the first call of a process may choose other kernels
        plain = train(subject, **options).losses
        for depth, offloading in ((2, False), (3, True)):
            kept = {"gradient_checkpointing": True, "checkpoint_depth": depth, "offloading": offloading}
            assert train(subject, **options, **kept).losses == pytest.approx(plain, rel=1e-3), (name, kept)
        assert train(subject, **options, training_dtype="none").losses == pytest.approx(plain, rel=2e-2), name


def test_bypass_mode_trains_text_families():
    """Class families have a table, and ComfyUI multiplies an adapter with whatever a module is called with."""
    only_with("bypass_mode")
    for name in ("text", "pixelhdm"):
        subject = subjects()[name]()
        plain, bypass = (train(subject, learning_rate=1e-3, steps=3, bypass_mode=on).losses for on in (False, True))
        assert bypass == pytest.approx(plain, rel=1e-3)


def test_images_of_several_sizes():
    only_newer()
    for name in ("class", "pixelhdm"):
        subject = subjects()[name]()
        sets = [target(subject, 2), target(subject, 3, (3, 24, 16))]
        trained = learns(subject, sets)  # shown one by one
        assert trained.steps == 16
        batches, positives = run(
            "ResolutionBucket",
            latents=[{"samples": row[None]} for part in sets for row in part["samples"]],
            conditioning=[subject.positive] * 5,
        )
        assert [tuple(batch["samples"].shape) for batch in batches] == [(2, 3, 16, 16), (3, 3, 24, 16)]
        learns(subject, batches, positives, bucket_mode=True)


def png(folder, count, size):
    from PIL import Image

    (out_of("input") / folder).mkdir(exist_ok=True)
    for number in range(count):
        image = Image.new("RGB", size, (200, 150 + 10 * number, 90))
        image.save(out_of("input") / folder / f"{number}.png")
        (out_of("input") / folder / f"{number}.txt").write_text("a cat")


def test_a_folder_of_images_with_captions():
    only_newer()
    png("captioned", 3, (16, 16))
    images, captions = run("LoadImageTextDataSetFromFolder", folder="captioned")
    clip = tiny_gemma.load()
    vae = run("VAELoader", vae_name="pixel_space")[0]
    latents, positives = run("MakeTrainingDataset", images=images, texts=captions, vae=[vae], clip=[clip])
    assert len(latents) == len(positives) == 3 and latents[0]["samples"].shape == (1, 3, 16, 16)
    subject = Subject(tiny_t2i.ours(), (3, 16, 16), positives, 3e-2)
    learns(subject, latents, positives)


def test_a_data_set_is_kept_with_its_classes():
    only_newer()
    subject = subjects()["class"]()
    latents = [{"samples": row[None]} for row in target(subject, 3)["samples"]]
    run(
        "SaveTrainingDataset",
        latents=latents,
        conditioning=[subject.positive] * 3,
        folder_name=["kept"],
        shard_size=[2],
    )
    found, positives = run("LoadTrainingDataset", folder_name="kept")
    assert [classes_of(positive) for positive in positives] == [[3]] * 3
    for latent, wanted in zip(found, latents, strict=True):
        close(latent["samples"], wanted["samples"], 0.0)
    learns(subject, found, positives)


def test_a_folder_of_images():
    png("plain", 2, (16, 16))
    folder = "LoadImageDataSetFromFolder" if is_newer() else "LoadImageSetFromFolderNode"
    images = run(folder, folder="plain", **({} if is_newer() else {"resize_method": "None"}))[0]
    subject = subjects()["class"]()
    encoded = [run("PixelDiTEncode", pixels=image)[0] for image in (images if is_newer() else [images])]
    assert sum(len(latent["samples"]) for latent in encoded) == 2
    learns(subject, encoded)
