"""The x-prediction networks as MODELs."""

import pytest
import torch
from kit import (
    classes_of,
    close,
    core,
    empty,
    golden,
    labels,
    load,
    module,
    out_of,
    run,
)
from other_families import GRAY, XPRED, checkpoint, core_image, sampled, sampler_inputs, unit, within, xpred


def test_reference_trajectories():
    for name, title in XPRED.items():
        case, inputs, outputs = golden(name, "xpred")
        if case["dataset_config"]["normalize_mean"][0] != 0.5:
            continue  # an empty latent is not zero in its range, and only our sampler from an image starts elsewhere
        model = xpred(name)
        assert module("nodes.host.spec").find_spec(model).family.title == title
        for test in case["tests"]:
            if test["kind"] != "sample" or test["inputs"].get("y") is None or test["weights"] != "ema":
                continue
            settings, noise = test["settings"], inputs[test["inputs"]["noise"]]
            null = case["dataset_config"]["num_classes"]
            x = sampled(
                model,
                labels(inputs[test["inputs"]["y"]].tolist(), null),
                labels([null], null),
                noise,
                steps=settings["steps"],
                solver="euler",
                cfg=settings["cfg_scale"],
                cfg_interval=tuple(settings["cfg_interval"]),
                timeshift=settings["shift"],
                convention="reference",
            )
            expected = outputs[test["outputs"].get("final", test["outputs"].get("traj"))]
            close(x, expected[-1] if expected.ndim == 5 else expected, 1e-4)


def test_ksampler_generates_gray_digits():
    model = xpred(GRAY)
    spec = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, class_name="3")
    assert classes_of(label[0]) == [3]
    settings = {"model": model, "seed": 1, "steps": 4, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple"}
    settings |= {"positive": label[0], "negative": label[1], "denoise": 1.0}
    latent = run("KSampler", latent_image=empty((2, 3, 12, 12)), **settings)[0]  # any empty pixels will do
    assert latent["samples"].shape == (2, 1, 12, 12)
    picture = run("PixelDiTDecode", samples=latent)[0]
    assert picture.shape == (2, 12, 12, 3) and torch.equal(picture[..., 0], picture[..., 2]), "a gray picture in RGB"
    color = torch.rand(1, 12, 12, 3, generator=torch.Generator().manual_seed(0))
    encoded = run("PixelDiTEncode", pixels=color, model=model)[0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    close(encoded["samples"], ((color * weights).sum(-1) * 2 - 1)[:, None], 1e-6)
    back = run("PixelDiTDecode", samples=encoded)[0]
    close(back[..., 0], (color * weights).sum(-1), 0.51 / 255)
    again = run("KSampler", latent_image=encoded, **{**settings, "denoise": 0.5})[0]["samples"]
    assert again.shape == (1, 1, 12, 12) and torch.isfinite(again).all()
    with pytest.raises(ValueError, match="needs 1 channels"):
        run("KSampler", latent_image={"samples": torch.ones(1, 3, 12, 12)}, **settings)
    touched = run("PixelDiTSampler", **sampler_inputs(model, spec, positive=label[0], image=color, denoise=0.3))[0]
    assert touched.shape == (3, 12, 12, 3)


def test_mean_and_std_of_a_file_stay_inside_of_the_model():
    stored = torch.load(checkpoint("dit-r1"), weights_only=True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    stored["config"]["dataset"] |= {"normalize_mean": mean, "normalize_std": std}
    out_of("files").mkdir(exist_ok=True)
    torch.save(stored, out_of("files") / "imagenet-mean.pt")
    model = load(out_of("files") / "imagenet-mean.pt")
    spec = module("nodes.host.spec").find_spec(model)
    assert spec.params.image_mean == mean
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    inside = model.model.process_latent_in(pixels)
    expected = ((pixels + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    close(inside, expected, 1e-5)
    close(model.model.process_latent_out(inside), pixels, 1e-5)
    size = spec.default_size
    label = run("PixelDiTClassLabel", model=model, classes="1")
    picture = run("PixelDiTSampler", **sampler_inputs(model, spec, positive=label[0], batch_size=1))[0]
    core_model, x = core_image(
        out_of("files") / "imagenet-mean.pt",
        lambda model: core().class_condition(model, [1]),
        None,
        unit(1, spec.params, size),
        steps=5,
        solver="ab2",
        cfg=2.0,
        cfg_interval=(0.1, 0.9),
    )
    within(picture, core_model, x)
    preview = torch.tensor(model.model.latent_format.latent_rgb_factors)
    bias = torch.tensor(model.model.latent_format.latent_rgb_factors_bias)
    shown = torch.nn.functional.linear(inside[0].movedim(0, -1), preview.T, bias)
    close(shown, pixels[0].movedim(0, -1), 1e-5)


def test_a_cfg_schedule_follows_the_integration_time_in_both_conventions():
    """In the reference convention the network is given another time than that of the integration."""
    pc, path, settings = core(), checkpoint(GRAY), {"steps": 6, "solver": "euler", "timeshift": 2.0}
    scheduled = run("PixelDiTCFGSchedule", model=xpred(GRAY), curve="linear", end_cfg=4.0)[0]
    spec = scheduled.model.pixeldit
    start, null = unit(2, spec.params, spec.default_size), spec.params.num_classes
    for convention in ("standard", "reference"):
        cfg = pc.cfg_function(pc.cfg_schedule("linear", 2.0, 4.0))
        expected = pc.sample(
            pc.load_checkpoint(path), torch.tensor([1, 4]), noise=start, cfg=cfg, convention=convention,
            cfg_interval=(0.0, 1.0), **settings,
        )  # fmt: skip
        plan = {"cfg": 2.0, "convention": convention, **settings}
        close(sampled(scheduled, labels([1, 4], null), labels([null], null), start, **plan), expected, 1e-4)
