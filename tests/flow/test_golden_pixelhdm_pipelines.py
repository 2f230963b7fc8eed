"""PixelHDM's text-to-image and image-to-image pipelines against recorded runs."""

import pytest
import torch
from helpers import relative_l2
from PIL import Image
from pixelhdm_cases import OUTPUT, SOLVERS, check_sensitivity, find, first, tolerance, trajectory

import pixeldit_core as pc

pytestmark = pytest.mark.golden


def prompt(model, inputs, *indices, mask_of=None):
    """The stored encodings of prompts; `mask_of`: with the mask of that prompt instead of theirs."""
    parts = []
    for name in ("embed", "mask", "pooled"):
        owners = [mask_of] * len(indices) if name == "mask" and mask_of is not None else indices
        parts.append(torch.stack([inputs[f"prompt{index}.{name}"] for index in owners]))
    return pc.text_condition(model, *parts)


def text_run(case, change=lambda noise: noise, **part):
    """The recorded run of the text-to-image pipeline again, or another `part` of it: noise and times."""
    model, call = pc.load_checkpoint(case.checkpoint), case.case["call"]
    cond, null = prompt(model, case.inputs, 0, 0, 1, 1), prompt(model, case.inputs, 3, 3, 3, 3)
    settings = {"noise": change(first(case.outputs["z_0"])), "steps": call["num_steps"]} | part
    return trajectory(model, cond, null, solver="heun_exact", cfg=call["guidance_scale"], **settings)


def check_uint8(model, final, expected):
    difference = pc.to_uint8(model, final, "reference").int() - expected.int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01


def test_text_to_image_pipeline():
    case = find("30_pipeline_t2i")
    model, call, outputs = pc.load_checkpoint(case.checkpoint), case.case["call"], case.outputs
    generator = torch.Generator().manual_seed(call["seed"])
    drawn = torch.randn(outputs["z_0"].shape, generator=generator)
    torch.testing.assert_close(drawn, outputs["z_0"], atol=2e-6, rtol=0)  # the last bit of log and cos is a processor's
    final, states, _ = text_run(case)
    assert relative_l2(final, first(outputs["raw"])) < tolerance(case)
    assert relative_l2(states, first(outputs["intermediates"])) < tolerance(case)
    assert relative_l2(final.clamp(-1, 1), first(outputs["tensor"])) < tolerance(case)
    assert relative_l2((final.clamp(-1, 1) + 1) / 2, first(outputs["numpy"])) < tolerance(case)
    check_uint8(model, final, outputs["uint8"])


def test_every_step_of_the_text_to_image_pipeline():
    """Its outputs are not recorded: a step from each recorded state to the next, of two evaluations, holds them."""
    case = find("30_pipeline_t2i")
    states = first(torch.cat([case.outputs["z_0"][None], case.outputs["intermediates"]]))
    times = pc.time_grid(pc.load_checkpoint(case.checkpoint), case.case["call"]["num_steps"], convention="reference")
    for i in range(len(states) - 1):
        after, _, rows = text_run(case, noise=states[i], times=times[i : i + 2])
        assert rows == [2 * len(after)] * 2
        assert relative_l2(after, states[i + 1]) < OUTPUT


def image_run(case, change=lambda noise: noise):
    """A recorded run of an image-to-image pipeline again.

    The authors' null branch gets the prompt's mask: the test hands that over; the library uses the null's.
    """
    model, call = pc.load_checkpoint(case.checkpoint), case.case["call"]
    negative = 1 if call["negative_prompt"] is None else 2
    cond, null = prompt(model, case.inputs, 0), prompt(model, case.inputs, negative, mask_of=0)
    return trajectory(
        model,
        cond,
        null,
        image=image_of(model, case),
        noise=change(first(case.inputs["noise"])),
        times=case.outputs["timesteps"],
        solver=SOLVERS[call["sampler_method"]],
        cfg=call["guidance_scale"],
    )


def image_of(model, case):
    width, height = case.outputs["image_tensor"].shape[2], case.outputs["image_tensor"].shape[1]
    image = Image.fromarray(case.inputs["image_uint8"].numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return pc.from_image(model, image)


@pytest.mark.parametrize("name", ["31_pipeline_img2img", "32_pipeline_img2img_strong"])
def test_image_to_image_pipelines(name):
    case = find(name)
    model = pc.load_checkpoint(case.checkpoint)
    assert torch.allclose(image_of(model, case), first(case.outputs["image_tensor"]), atol=1e-6)
    final, _, _ = image_run(case)
    assert relative_l2(final, first(case.outputs["raw"])) < tolerance(case)
    check_uint8(model, final, case.outputs["uint8"])


@pytest.mark.parametrize("name, run", [
    ("30_pipeline_t2i", text_run),
    ("31_pipeline_img2img", image_run),
    ("32_pipeline_img2img_strong", image_run),
])  # fmt: skip
def test_sensitivity(name, run):
    """The numbers that the tolerances of whole trajectories follow from."""
    check_sensitivity(name, run)


def test_images_are_cut_as_published_and_rounded_otherwise():
    case = find("33_image_io")
    model, x = pc.build_model("pixelhdm", "PixelHDM-small"), first(case.inputs["post_in"])
    cut, rounded = pc.to_uint8(model, x, "reference"), pc.to_uint8(model, x)
    assert torch.equal(cut, case.outputs["post_uint8"])
    assert torch.equal(rounded, ((x.clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor().byte().movedim(1, -1))
    assert not torch.equal(cut, rounded)
