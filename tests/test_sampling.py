"""Behaviour of sampling: cost, batches, precision, image to image, masks, mistakes."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import close

import pixeldit_core as pc
from pixeldit_core.flow.guidance import guided_velocity
from pixeldit_core.flow.solvers import SOLVERS
from pixeldit_core.flow.times import sigma_grid
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
def test_a_picture_costs_no_evaluation_too_many(tiny, calls, settings, evaluations):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SETTINGS[settings])
    made = calls(model)
    pc.sample(model, pc.class_condition(model, 3), seeds=0, size=(4, 4))
    assert len(made) == 100 and rows(made) == evaluations


@pytest.mark.parametrize(
    "solver, evaluations", [("euler", 12), ("ab2", 12), ("heun", 12), ("heun_exact", 23), ("flow_dpmpp_2m", 12)]
)
def test_evaluations_of_a_solver(tiny, calls, solver, evaluations):
    model = tiny()
    made = calls(model)
    pc.sample(model, pc.class_condition(model, 3), steps=12, solver=solver, cfg=1)
    assert rows(made) == len(made) == evaluations


def test_no_guidance_without_a_reason(tiny, calls):
    model = tiny()
    made = calls(model)
    pc.sample(model, pc.class_condition(model, [1, 2]), cfg=1, cfg_interval=(0.0, 1.0))
    assert {call.rows for call in made} == {2}


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"flow_dpmpp_2m"}))
def test_solvers_converge_to_the_exact_solution(solver):
    """dx/dt = x, from 1: e at t = 1; the error of second order falls with the square of the steps."""

    def error(steps):
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        x = torch.ones(1, dtype=torch.float64)
        return abs(float(SOLVERS[solver](lambda x, t: x, x, times)) - torch.e)

    order = torch.log2(torch.tensor(error(128) / error(256)))
    # heun's last step is Euler's (locally of second order), so it keeps the order
    assert order == pytest.approx(1 if solver == "euler" else 2, abs=0.2)


def error_on_the_sigma_grid(solver, steps, slope, exact):
    """Of dx/dt = slope(t) * x, whose solution is exact(t)."""
    times = sigma_grid(steps).double()
    start = torch.tensor([exact(float(times[0]))], dtype=torch.float64)
    return abs(float(SOLVERS[solver](lambda x, t: slope(t) * x, start, times)) - exact(1.0))


def test_the_text_solver_converges_though_its_last_steps_are_infinitely_long():
    """In ln(t / (1 - t)) the grid's spacing grows without end towards the image, so dx/dt = x loses half an order."""
    errors = [error_on_the_sigma_grid("flow_dpmpp_2m", steps, lambda t: 1.0, math.exp) for steps in (512, 1024)]
    assert errors[1] < 5e-6 and math.log2(errors[0] / errors[1]) == pytest.approx(1.5, abs=0.2)
    assert error_on_the_sigma_grid("euler", 1024, lambda t: 1.0, math.exp) > 100 * errors[1]


def test_the_text_solver_is_nearly_of_second_order_on_the_flow_to_a_gaussian():
    """Towards images of variance 1/4, the state's deviation at t is sqrt(t^2 / 4 + (1 - t)^2)."""

    def variance(t):
        return t**2 / 4 + (1 - t) ** 2

    errors = [
        error_on_the_sigma_grid(
            "flow_dpmpp_2m", steps, lambda t: (t / 4 - (1 - t)) / variance(t), lambda t: math.sqrt(variance(t))
        )
        for steps in (512, 1024)
    ]
    assert errors[1] < 1e-5 and math.log2(errors[0] / errors[1]) == pytest.approx(1.8, abs=0.1)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_solvers_leave_their_input_alone_and_report_each_step(solver):
    start = torch.ones(2)
    times = torch.tensor([0.0, 0.25, 0.5, 1.0])
    steps = []
    end = SOLVERS[solver](lambda x, t: x, start, times, lambda *step: steps.append(step))
    assert torch.equal(start, torch.ones(2))
    assert [step[0] for step in steps] == [0, 1, 2] and [step[1] for step in steps] == [0.25, 0.5, 1.0]
    assert torch.equal(steps[-1][2], end)
    states = [start] + [step[2] for step in steps]
    assert not any(torch.equal(a, b) for a, b in zip(states, states[1:], strict=False))


def test_a_straight_flow_is_exact_with_every_solver():
    image, start = torch.randn(2, 3), torch.randn(2, 3)
    for solve in SOLVERS.values():
        close(solve(lambda x, t: image - start, start, torch.linspace(0, 1, 5)), image, 1e-6)


def test_the_same_picture_alone_and_in_a_batch(tiny):
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

    own = pc.sample(model, cond, cfg=combine, steps=8, cfg_interval=(0.2, 0.8))
    close(own, pc.sample(model, cond, cfg=3.0, steps=8, cfg_interval=(0.2, 0.8)))
    assert times == [0.25, 0.375, 0.5, 0.625, 0.75]


def test_null_may_be_another_class(tiny, calls):
    model = tiny()
    made = calls(model)
    pc.sample(model, pc.class_condition(model, [1, 2]), pc.class_condition(model, 5), cfg_interval=(0, 1))
    assert made[1].labels.tolist() == [5, 5, 1, 2]


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


def test_times_of_ones_own(tiny):
    model = tiny()
    cond = pc.class_condition(model, 3)
    times = pc.time_grid(model, 7, 2.0)
    close(pc.sample(model, cond, times=times), pc.sample(model, cond, steps=7, timeshift=2.0), 0)
    end = []
    pc.sample(model, cond, times=torch.tensor([0.0, 0.1, 0.3]), on_step=lambda i, t, x, v: end.append(t))
    close(torch.tensor(end), torch.tensor([0.1, 0.3]))


def test_image_to_image_walks_the_last_part_of_the_way(tiny, calls):
    model = tiny()
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    made = calls(model)
    start = pc.unit_noise(model, 3, 16, 16)
    x = pc.sample(model, pc.class_condition(model, 2), seeds=3, image=image, denoise=0.5, steps=4, cfg=1)
    grid = pc.time_grid(model, 8)[4:]
    assert [float(call.time[0]) for call in made] == grid[:-1].tolist()
    walked = pc.SOLVERS["ab2"](
        lambda x, t: model.velocity(x, t, torch.tensor([2])), torch.lerp(start, image, 0.5), grid
    )
    close(x, walked)
    little = pc.sample(model, pc.class_condition(model, 2), seeds=3, image=image, denoise=0.05, steps=4, cfg=1)
    assert (little - image).abs().mean() < (x - image).abs().mean()


def test_full_denoise_does_not_see_the_image(tiny):
    model = tiny()
    cond = pc.class_condition(model, 2)
    close(pc.sample(model, cond, image=torch.ones(1, 3, 16, 16)), pc.sample(model, cond, size=(16, 16)), 0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("denoise", [1.0, 0.6])
def test_a_mask_keeps_the_rest_bit_for_bit(tiny, solver, denoise):
    model = tiny()
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 6:10] = 1
    x = pc.sample(
        model, pc.class_condition(model, [2, 3]), image=image, mask=mask, solver=solver, denoise=denoise, steps=5
    )
    inside = mask.bool().expand_as(x)
    assert torch.equal(x[~inside], image[~inside])
    assert not torch.isclose(x[inside], image[inside]).any()
    unseen = pc.sample(model, pc.class_condition(model, [2, 3]), solver=solver, denoise=denoise, steps=5, image=image)
    everything = pc.sample(
        model,
        pc.class_condition(model, [2, 3]),
        image=image,
        mask=torch.ones(1, 1, 16, 16),
        solver=solver,
        denoise=denoise,
        steps=5,
    )
    close(everything, unseen, 2e-4)


def test_pictures_and_states_are_inverse(tiny):
    model = tiny()
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
    state = pc.from_image(model, pixels)
    assert state.shape == (2, 3, 16, 16) and state.min() == -1 and state.max() == 1
    assert torch.equal(pc.to_uint8(model, state), pixels)
    close(pc.from_image(model, pixels / 255), state, 1e-6)
    close(pc.from_image(model, pixels[0].numpy()), state[:1], 0)
    assert pc.contact_sheet(pixels, gap=2).size == (2 * 18 + 2, 18 + 2)
    with pytest.raises(ValueError, match=r"expected \[B, H, W, 3\]"):
        pc.from_image(model, torch.zeros(1, 16, 16, 4))


def test_time_grid_is_the_recipe_s_unless_told(tiny):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SETTINGS["imagenet512"])
    assert torch.equal(pc.time_grid(model, 10), pc.time_grid(pc.FAMILIES["pixeldit"], 10, 2.0))
    assert torch.equal(pc.time_grid(pc.FAMILIES["pixeldit"], 10), pc.time_grid(model, 10, 1.0))
    grid = pc.time_grid(model, 10)
    assert grid.dtype == torch.float32 and grid.device.type == "cpu" and len(grid) == 11


def test_a_recipe_without_a_size_samples_at_the_trained_one(tiny):
    model = tiny()
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=1, cfg=1.0))
    assert pc.sample(model, pc.class_condition(model, 0)).shape == (1, 3, 256, 256)


@pytest.mark.parametrize(
    "settings, told",
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
        ({"image": torch.zeros(1, 3, 16, 16), "size": (8, 8)}, "the image is 16 x 16 pixels"),
        ({"times": torch.tensor([0.5])}, "times need at least two"),
        ({"times": torch.tensor([0.0, 1.5])}, "times need at least two.* 0 to 1"),
        ({"mask": torch.ones(1, 1, 16, 16)}, "mask needs an image"),
        ({"image": torch.zeros(1, 3, 16, 16), "mask": torch.ones(1, 1, 8, 8)}, "the mask has shape"),
        ({"image": torch.zeros(3, 3, 16, 16)}, "there are 3 images to start from for 2 images"),
        ({"denoise": 0.5}, "denoise is 0.5, and there is no image"),
    ],
)
def test_mistakes_are_named(tiny, calls, settings, told):
    model = tiny()
    made = calls(model)
    with pytest.raises(ValueError, match=told):
        pc.sample(model, pc.class_condition(model, [1, 2]), **settings)
    assert not made


def test_weights_that_are_not_finite_are_told_once_after_sampling(tiny, calls):
    model = tiny()
    model.spec = replace(model.spec, source="broken.safetensors")
    model.network.final_layer.linear.bias.data[0] = float("inf")
    made = calls(model)
    with pytest.raises(ValueError, match="broken.safetensors: .* not finite .*float32 or bfloat16.*get the file again"):
        pc.sample(model, pc.class_condition(model, 1), steps=3, cfg=1)
    assert len(made) == 3


def test_recipes_are_the_published_ones():
    told = {name: (r.steps, r.cfg, r.timeshift, r.cfg_interval, r.solver, r.size) for name, r in pc.SETTINGS.items()}
    assert told == {
        "imagenet256-epoch80": (100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),
        "imagenet256-epoch160": (100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),
        "imagenet256-epoch320": (100, 2.75, 1.0, (0.1, 0.9), "ab2", (256, 256)),
        "imagenet512": (100, 3.5, 2.0, (0.1, 1.0), "ab2", (512, 512)),
        "t2i-1024": (50, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
        "t2i-1024-fast": (25, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
        "t2i-512": (50, 2.75, 3.0, (0.0, 1.0), "flow_dpmpp_2m", (512, 512)),
        "xpred": (100, 3.0, 1.0, (0.1, 1.0), "euler", None),
        "pixelhdm": (50, 7.5, 1.0, (0.0, 1.0), "heun_exact", (512, 512)),
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
