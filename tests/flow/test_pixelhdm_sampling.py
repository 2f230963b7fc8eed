"""PixelHDM under the standard convention: times, texts of different length, trained sizes."""

import pytest
import torch
from pixelhdm_cases import condition, find, first

import pixeldit_core as pc
from pixeldit_core.families.pixelhdm.sizes import pixelhdm_buckets
from pixeldit_core.flow.times import even_times
from pixeldit_core.sizes import advise

pytestmark = pytest.mark.golden


def test_the_correct_trajectory_ends_on_the_image():
    """The standard convention ends at the image; the reference leaves 5 % of the noise."""
    model = pc.load_checkpoint(find("10_sampler_euler_cfg").checkpoint)
    noise = pc.unit_noise(model, range(2), 8, 8)
    image = torch.linspace(-1, 1, noise.numel()).view_as(noise)
    for steps in (2, 5, 20):
        times = pc.time_grid(model, steps)
        assert len(times) == steps + 1 and times[-1] == 1
        assert torch.equal(times[:-1], even_times(0.05, 0.95, steps))
        ends = {}
        for convention in ("standard", "reference"):
            grid = pc.time_grid(model, steps, convention=convention)
            x = noise
            for t, t_next in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
                x = x + (image - x) / (1 - t) * (t_next - t)
            ends[convention] = (x - image).abs().max()
        assert ends["standard"] < 1e-6 and ends["reference"] > 0.05


def test_times_beyond_training_never_reach_the_network(calls):
    case = find("10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.checkpoint)
    seen = calls(model)
    pc.sample(model, condition(model, case.inputs), noise=first(case.inputs["z_0"]), times=torch.linspace(0, 1, 4))
    assert min(call.time.min() for call in seen) >= 0.05 and max(call.time.max() for call in seen) <= 0.95


def test_texts_of_different_length_are_padded_into_one_call(calls):
    case = find("10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.checkpoint)
    cond, null = condition(model, case.inputs), condition(model, case.inputs, "null_")
    cut = int(cond[1].sum(dim=1).max())  # padding after the longest text is not needed
    short = (cond[0][:, :cut], cond[1][:, :cut], cond[2])
    settings = {"noise": first(case.inputs["z_0"]), "steps": 3, "cfg": 3.0}
    seen = calls(model)
    whole = pc.sample(model, cond, null, **settings)
    assert torch.allclose(pc.sample(model, short, null, **settings), whole, atol=1e-5)
    assert {call.rows for call in seen} == {4} and len({len(call.labels) for call in seen}) == 1


def test_a_text_of_padding_alone_is_no_text():
    case = find("10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.checkpoint)
    x, pooled = first(case.inputs["z_0"]), case.inputs["pooled_text_embed"]
    empty = pc.text_condition(model, case.inputs["text_embed"], torch.zeros(2, 6), pooled)
    with torch.inference_mode():
        assert torch.allclose(model.velocity(x, 0.5, empty), model.velocity(x, 0.5, (None, None, pooled)), atol=1e-5)


def test_an_embedding_of_another_width_is_refused():
    model = pc.load_checkpoint(find("10_sampler_euler_cfg").checkpoint)
    with pytest.raises(ValueError, match=r"the text has shape \[1, 4, 31\]; expected \[B, T, 32\]"):
        pc.text_condition(model, torch.zeros(1, 4, 31))
    with pytest.raises(ValueError, match="pooled text has shape"):
        pc.sample(model, pc.text_condition(model, torch.zeros(1, 4, 32), None, torch.zeros(1, 31)), size=(8, 8))


def test_buckets(golden):
    for table in golden("50_buckets", "pixelhdm").case["tables"]:
        params = table["params"]
        most = min(params.get("max_resolution", 1024), params.get("bucket_max_resolution", 1024))
        buckets = pixelhdm_buckets(
            params.get("min_resolution", 256), most, params.get("patch_size", 16), params.get("max_aspect_ratio", 2.0)
        )
        assert [(width, height) for height, width in buckets] == [tuple(size) for size in table["buckets_wh"]]
    model = pc.build_model("pixelhdm", "PixelHDM")
    assert advise((512, 512), model.spec.trained_sizes) is None and advise((512, 2048), model.spec.trained_sizes)
