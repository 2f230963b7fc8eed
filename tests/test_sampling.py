"""Behavior of sampling: cost, batches, precision, guidance, mistakes, settings."""

from dataclasses import replace

import pytest
import torch
from helpers import close

import pixeldit_core as pc
from pixeldit_core.flow.guidance import guided_velocity
from pixeldit_core.sampling import condition_velocities


def rows(calls):
    return sum(call.rows for call in calls)


@pytest.mark.parametrize(
    "settings, evaluations",
    [
        ("imagenet256-epoch320", 179),
        ("imagenet256-epoch160", 189),
        ("imagenet256-epoch80", 189),
        ("imagenet512", 181),
    ],
)
def test_an_image_costs_no_evaluation_too_many(tiny, calls, settings, evaluations):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SETTINGS[settings])
    network_calls = calls(model)
    pc.sample(model, pc.class_condition(model, 3), seeds=0, size=(4, 4))
    assert len(network_calls) == 100 and rows(network_calls) == evaluations


@pytest.mark.parametrize(
    "solver, evaluations", [("euler", 12), ("ab2", 12), ("heun", 12), ("heun_exact", 23), ("flow_dpmpp_2m", 12)]
)
def test_evaluations_of_a_solver(tiny, calls, solver, evaluations):
    model = tiny()
    network_calls = calls(model)
    pc.sample(model, pc.class_condition(model, 3), steps=12, solver=solver, cfg=1)
    assert rows(network_calls) == len(network_calls) == evaluations


def test_no_guidance_without_a_reason(tiny, calls):
    model = tiny()
    network_calls = calls(model)
    pc.sample(model, pc.class_condition(model, [1, 2]), cfg=1, cfg_interval=(0.0, 1.0))
    assert {call.rows for call in network_calls} == {2}


def test_the_same_image_alone_and_in_a_batch(tiny):
    model = tiny()
    labels, seeds = [3, 12, 7, 0, 3], [11, 5, 11, 2**63, 0]
    together = pc.sample(model, pc.class_condition(model, labels), seeds=seeds, steps=6)
    for index, (label, seed) in enumerate(zip(labels, seeds, strict=True)):
        alone = pc.sample(model, pc.class_condition(model, label), seeds=seed, steps=6)
        close(alone[0], together[index])
        assert torch.equal(pc.to_uint8(model, alone)[0], pc.to_uint8(model, together)[index])
    assert torch.equal(together, pc.sample(model, pc.class_condition(model, labels), seeds=seeds, steps=6))


def test_noise_belongs_to_its_seed(tiny):
    model = tiny()
    batch = pc.unit_noise(model, [4, 5], 8, 12)
    assert batch.shape == (2, 3, 8, 12) and batch.dtype == torch.float32
    assert torch.equal(batch[1:], pc.unit_noise(model, 5, 8, 12))
    expected = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(4))
    assert torch.equal(batch[0], expected)


def test_one_condition_serves_many_seeds_and_no_seeds_are_the_first_ones(tiny):
    model = tiny()
    one = pc.class_condition(model, "star")
    many = pc.sample(model, one, seeds=[0, 1, 2])
    close(pc.sample(model, one.expand(3)), many)
    assert many.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_samples_are_finite_and_near(tiny, dtype):
    model, exact = tiny(dtype=dtype), tiny()
    x = pc.sample(model, pc.class_condition(model, [1, 2]), seeds=[0, 1], steps=10)
    assert x.dtype == torch.float32 and torch.isfinite(x).all()
    reference = pc.sample(exact, pc.class_condition(exact, [1, 2]), seeds=[0, 1], steps=10)
    assert (x - reference).abs().mean() < 0.05 * reference.abs().mean()


def test_velocity_and_state_stay_float32_with_low_precision_weights(tiny):
    model = tiny(dtype=torch.bfloat16)
    dtypes = []
    pc.sample(model, pc.class_condition(model, 1), on_step=lambda i, t, x, v: dtypes.extend([x.dtype, v.dtype]))
    assert set(dtypes) == {torch.float32}


def test_cfg_may_be_a_function(tiny):
    model = tiny()
    cond = pc.class_condition(model, [1, 2])
    times = []

    def combine(v_cond, v_null, t):
        times.append(t)
        return v_null + 3.0 * (v_cond - v_null)

    combined = pc.sample(model, cond, cfg=combine, steps=8, cfg_interval=(0.2, 0.8))
    close(combined, pc.sample(model, cond, cfg=3.0, steps=8, cfg_interval=(0.2, 0.8)))
    assert times == [0.25, 0.375, 0.5, 0.625, 0.75]


def test_null_may_be_another_class(tiny, calls):
    model = tiny()
    network_calls = calls(model)
    pc.sample(model, pc.class_condition(model, [1, 2]), pc.class_condition(model, 5), cfg_interval=(0, 1))
    assert network_calls[1].labels.tolist() == [5, 5, 1, 2]


def test_guidance_takes_tuples_of_tensors_with_gaps():
    cond, null = (torch.ones(2, 3), None), (torch.zeros(2, 3), None)
    seen = []

    def velocity(x, t, condition):
        seen.append(condition)
        return condition[0]

    v = guided_velocity(*condition_velocities(velocity, cond, null), 2.0, (0, 1))(torch.zeros(2, 3), 0.5)
    assert seen[0][0].shape == (4, 3) and seen[0][1] is None
    close(v, torch.full((2, 3), 2.0))


def test_guidance_is_strictly_inside_of_its_interval():
    inside = {0.1: False, 0.10000000149: False, 0.1001: True, 0.5: True, 0.8999: True, 0.9: False, 0.95: False}
    for t, expected in inside.items():
        assert pc.is_guided(t, (0.1, 0.9)) is expected
        assert pc.is_guided(torch.tensor(t), (0.1, 0.9)) is expected
    assert not pc.is_guided(0.0, (0.0, 1.0))


def test_custom_times(tiny):
    model = tiny()
    cond = pc.class_condition(model, 3)
    times = pc.time_grid(model, 7, 2.0)
    close(pc.sample(model, cond, times=times), pc.sample(model, cond, steps=7, timeshift=2.0), 0)
    end = []
    pc.sample(model, cond, times=torch.tensor([0.0, 0.1, 0.3]), on_step=lambda i, t, x, v: end.append(t))
    close(torch.tensor(end), torch.tensor([0.1, 0.3]))


def test_time_grid_follows_the_settings_by_default(tiny):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SETTINGS["imagenet512"])
    assert torch.equal(pc.time_grid(model, 10), pc.time_grid(pc.FAMILIES["pixeldit"], 10, 2.0))
    assert torch.equal(pc.time_grid(pc.FAMILIES["pixeldit"], 10), pc.time_grid(model, 10, 1.0))
    grid = pc.time_grid(model, 10)
    assert grid.dtype == torch.float32 and grid.device.type == "cpu" and len(grid) == 11


def test_settings_without_a_size_sample_at_the_trained_one(tiny):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=1, cfg=1.0))
    assert pc.sample(model, pc.class_condition(model, 0)).shape == (1, 3, 256, 256)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps is 0; at least 1"),
        ({"steps": -3}, "steps is -3"),
        ({"timeshift": 0}, "timeshift is 0"),
        ({"timeshift": float("nan")}, "timeshift is nan"),
        ({"last_step": 0}, "last_step is 0"),
        ({"last_step": 1.5}, "last_step is 1.5"),
        ({"denoise": 0}, "denoise is 0"),
        ({"denoise": 1.2}, "denoise is 1.2"),
        ({"cfg_interval": (0.9, 0.1)}, "the guidance interval is 0.9 to 0.1; it needs 0 <= start < end <= 1"),
        ({"cfg_interval": (0.5, 0.5)}, "the guidance interval is 0.5 to 0.5"),
        ({"cfg_interval": (-0.1, 0.5)}, "the guidance interval is -0.1 to 0.5"),
        ({"solver": "dpm"}, 'solver "dpm" is not known; there are ab2, euler, heun, heun_exact, flow_dpmpp_2m'),
        ({"convention": "mine"}, 'convention "mine" is not known'),
        ({"size": (18, 16)}, "size 16 x 18 .width x height.*nearest that does is 16 x 16"),
        ({"size": (2, 16)}, "nearest that does is 16 x 4"),
        ({"noise": torch.zeros(1, 3, 15, 16)}, "nearest that does is 16 x 16"),
        ({"noise": torch.zeros(3, 3, 16, 16)}, "there are 2 conditions for 3 images"),
        ({"seeds": [1, 2, 3]}, "there are 2 conditions for 3 images"),
        ({"seeds": []}, "there is no image to sample: give at least one seed"),
        ({"image": torch.zeros(1, 3, 16, 16), "size": (8, 8)}, "the image is 16 x 16 pixels"),
        ({"times": torch.tensor([0.5])}, "times need at least two"),
        ({"times": torch.tensor([0.0, 1.5])}, "times need at least two.* 0 to 1"),
        ({"mask": torch.ones(1, 1, 16, 16)}, "mask needs an image"),
        ({"image": torch.zeros(1, 3, 16, 16), "mask": torch.ones(1, 1, 8, 8)}, "the mask has shape"),
        ({"image": torch.zeros(3, 3, 16, 16)}, "there are 3 images to start from for 2 images"),
        ({"denoise": 0.5}, "denoise is 0.5, and there is no image"),
    ],
)
def test_mistakes_are_named(tiny, calls, settings, message):
    model = tiny()
    network_calls = calls(model)
    with pytest.raises(ValueError, match=message):
        pc.sample(model, pc.class_condition(model, [1, 2]), **settings)
    assert not network_calls


def test_weights_that_are_not_finite_are_reported_once_after_sampling(tiny, calls):
    model = tiny()
    model.spec = replace(model.spec, source="broken.safetensors")
    model.network.final_layer.linear.bias.data[0] = float("inf")
    network_calls = calls(model)
    with pytest.raises(ValueError, match="broken.safetensors: .* not finite .*float32 or bfloat16.*get the file again"):
        pc.sample(model, pc.class_condition(model, 1), steps=3, cfg=1)
    assert len(network_calls) == 3


def test_settings_are_the_published_ones():
    published = {
        name: (r.steps, r.cfg, r.timeshift, r.cfg_interval, r.solver, r.size) for name, r in pc.SETTINGS.items()
    }
    assert published == {
        "imagenet256-epoch80": (100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),
        "imagenet256-epoch160": (100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),
        "imagenet256-epoch320": (100, 2.75, 1.0, (0.1, 0.9), "ab2", (256, 256)),
        "imagenet512": (100, 3.5, 2.0, (0.1, 1.0), "ab2", (512, 512)),
        "t2i-1024": (50, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
        "t2i-1024-fast": (25, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
        "t2i-512": (50, 2.75, 3.0, (0.0, 1.0), "flow_dpmpp_2m", (512, 512)),
        "xpred": (100, 3.0, 1.0, (0.1, 1.0), "euler", None),
        "pixelhdm": (50, 7.5, 1.0, (0.0, 1.0), "heun_exact", (512, 512)),
        "pixeldit2-256": (50, 2.4, 1.0, (0.125, 0.9), "heun_exact", (256, 256)),
        "pixeldit2-512": (50, 2.1, 1.0, (0.1, 0.925), "heun_exact", (512, 512)),
    }
    for settings in pc.SETTINGS.values():
        assert pc.SamplingSettings.from_dict(settings.to_dict()) == settings
    model = pc.build_model("pixeldit", "PixelDiT-B")
    assert model.spec.settings_for((256, 256)) == model.spec.settings_for(None) == pc.SETTINGS["imagenet256-epoch320"]
    assert model.spec.settings_for((512, 512)) == pc.SETTINGS["imagenet512"]
    assert all(name.startswith("imagenet") for name in model.family.settings)
    assert set(pc.FAMILIES["pixeldit_t2i"].settings) == {"t2i-1024", "t2i-1024-fast", "t2i-512"}


def test_conditions(tiny):
    model = tiny()
    assert pc.class_condition(model, [3, "tabby cat", "5: crane", 12]).tolist() == [3, 2, 5, 12]
    assert pc.class_condition(model, "star").tolist() == [3]
    assert pc.class_condition(model, torch.tensor([1, 2])).dtype == torch.int64
    assert pc.null_condition(model, 3).tolist() == [12, 12, 12]
    with pytest.raises(ValueError, match="the condition has 3 rows for 2 images"):
        model.velocity(torch.zeros(2, 3, 8, 8), 0.5, torch.tensor([1, 2, 3]))
