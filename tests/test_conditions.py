"""Text conditions, and sampling from them: cost, guidance, batches, image to image, masks, mistakes."""

from dataclasses import replace

import pytest
import torch
from helpers import close

import pixeldit_core as pc
from pixeldit_core.conditions import concatenate
from pixeldit_core.flow.solvers import SOLVERS


def states(rows=1, length=6, seed=0, width=12):
    """What a text encoder might give."""
    return torch.randn(rows, length, width, generator=torch.Generator().manual_seed(seed))


def random_image(rows=1, seed=1):
    return torch.rand(rows, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_conditions_of_two_devices_are_joined_on_the_second_ones():
    for one in (torch.zeros(2, dtype=torch.int64), (torch.zeros(2, 3, 4), torch.ones(2, 3), None)):
        other = one.to("meta") if isinstance(one, torch.Tensor) else (*(part.to("meta") for part in one[:2]), None)
        joined = concatenate(one, other)
        for part in joined if isinstance(joined, tuple) else (joined,):
            assert part is None or (part.device.type == "meta" and len(part) == 4)


def test_a_condition_is_the_states_and_nothing_else(tiny_t2i):
    model, text = tiny_t2i(), states(2, 4)
    mask, pooled = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), torch.ones(2, 7)
    for given in (text, text[:, None]):
        for rest in ({}, {"mask": mask}, {"pooled": pooled}, {"mask": mask, "pooled": pooled}):
            assert torch.equal(pc.text_condition(model, given, **rest), text)


@pytest.mark.parametrize(
    "shape", [(2, 4, 11), (2, 4, 2304), (4, 12), (12,), (2, 2, 4, 12), (1, 1, 1, 4, 12), (2, 12, 4)]
)
def test_states_of_another_encoder_are_an_error(tiny_t2i, shape):
    with pytest.raises(
        ValueError, match=r"expected \[B, T, 12\]: the states of the text encoder that the model was"
    ) as error:
        pc.text_condition(tiny_t2i(), torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


def test_a_model_of_text_takes_no_classes_and_the_other_way_round(tiny, tiny_t2i):
    for call in (pc.class_condition, pc.null_condition):
        with pytest.raises(ValueError, match='PixelDiT, text-to-image is conditioned on text.*encode a prompt, and ""'):
            call(tiny_t2i(), 1)
    with pytest.raises(ValueError, match="PixelDiT, class-conditional is conditioned on classes.*use class_condition"):
        pc.text_condition(tiny(), states())


def test_every_token_matters_and_so_does_its_place(tiny_t2i):
    model, text, x = tiny_t2i(), states(), random_image()
    before = model.velocity(x, 0.5, text)
    for token in range(6):
        changed = text.clone()
        changed[:, token] += 1
        assert (model.velocity(x, 0.5, changed) - before).abs().max() > 1e-3, token
    assert (model.velocity(x, 0.5, text.flip(1)) - before).abs().max() > 1e-3
    assert (model.velocity(x, 0.5, torch.cat([text[:, :5], text[:, 5:] * 0], 1)) - before).abs().max() > 1e-3


def test_a_long_text_is_cut_to_its_first_tokens(tiny_t2i):
    model, long = tiny_t2i(), states(1, 10)
    for length in (7, 10):
        assert torch.equal(
            model.velocity(random_image(), 0.5, long[:, :length]), model.velocity(random_image(), 0.5, long[:, :6])
        )
    assert not torch.allclose(
        model.velocity(random_image(), 0.5, long), model.velocity(random_image(), 0.5, long[:, 4:]), atol=1e-3
    )
    cond, null = states(1, 10), states(1, 8, seed=1)
    run = pc.sample(model, cond, null, seeds=3)
    close(run, pc.sample(model, cond[:, :6], null[:, :6], seeds=3), 5e-5)


def test_a_text_may_have_one_token(tiny_t2i):
    model = tiny_t2i()
    assert torch.isfinite(pc.sample(model, states(1, 1), states(1, 1, seed=1))).all()


def test_time_is_a_thousand_times_the_share_of_noise_and_the_sign_is_turned(tiny_t2i, calls):
    model, x, text = tiny_t2i(), random_image(2), states(2)
    network_calls = calls(model)
    velocity = model.velocity(x, torch.tensor([0.0, 0.75]), text)
    assert network_calls[0].time.tolist() == [1000.0, 250.0] and torch.equal(velocity, -network_calls[0].output)
    assert network_calls[0].time.dtype == torch.float32


def test_low_precision_keeps_time_and_state_in_float32(tiny_t2i, calls):
    model = tiny_t2i(dtype=torch.bfloat16)
    network_calls, dtypes = calls(model), []
    x = pc.sample(model, states(), states(seed=1), on_step=lambda i, t, x, v: dtypes.extend([x.dtype, v.dtype]))
    assert {call.time.dtype for call in network_calls} == set(dtypes) == {x.dtype} == {torch.float32}
    exact = pc.sample(tiny_t2i(), states(), states(seed=1))
    assert (x - exact).abs().mean() < 0.05 * exact.abs().mean()
    assert model.family.dtypes == (torch.bfloat16, torch.float32)


def test_without_a_null_there_is_no_guidance(tiny_t2i, calls):
    model = tiny_t2i()
    network_calls = calls(model)
    unguided = pc.sample(model, states(2), seeds=[1, 2], steps=5, cfg=4.0)
    assert [call.rows for call in network_calls] == [2] * 5
    assert torch.equal(unguided, pc.sample(model, states(2), states(seed=1), seeds=[1, 2], steps=5, cfg=1.0))


def test_guidance_is_one_call_of_null_and_text(tiny_t2i, calls):
    model, cond, null = tiny_t2i(), states(2), states(1, seed=1)
    network_calls = calls(model)
    pc.sample(model, cond, null, seeds=[1, 2], steps=5)
    assert [call.rows for call in network_calls] == [4] * 5  # the grid starts above 0, so every step is guided
    assert torch.equal(network_calls[0].labels, torch.cat([null, null, cond]))


@pytest.mark.parametrize("settings, evaluations", [("t2i-1024", 100), ("t2i-1024-fast", 50), ("t2i-512", 100)])
def test_an_image_costs_what_is_published(tiny_t2i, calls, settings, evaluations):
    model = tiny_t2i()
    model.spec = replace(model.spec, settings=pc.SETTINGS[settings])
    network_calls = calls(model)
    pc.sample(model, states(), states(seed=1), size=(4, 4))
    assert len(network_calls) == evaluations // 2 and sum(call.rows for call in network_calls) == evaluations


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_null_of_another_length_takes_two_calls(tiny_t2i, calls, solver):
    model, cond, null = tiny_t2i(), states(2, 6), states(1, 3, seed=1)
    start, times = pc.unit_noise(model, [1, 2], 16, 16), pc.time_grid(model, 5)

    def guided(x, t):
        v_null, v_cond = model.velocity(x, t, null), model.velocity(x, t, cond)
        return v_null + 2.5 * (v_cond - v_null)

    with torch.inference_mode():
        expected = SOLVERS[solver](guided, start, times)
    network_calls = calls(model)
    x = pc.sample(model, cond, null, noise=start, steps=5, cfg=2.5, solver=solver)
    close(x, expected, 5e-5)
    assert {call.rows for call in network_calls} == {2}
    assert [call.labels.shape[1] for call in network_calls] == [3, 6] * (len(network_calls) // 2)
    assert len(network_calls) == 2 * (9 if solver == "heun_exact" else 5)


def test_guidance_on_a_part_of_the_trajectory(tiny_t2i, calls):
    model = tiny_t2i()
    network_calls = calls(model)
    pc.sample(model, states(), states(1, 3, seed=1), steps=8, timeshift=1.0, cfg_interval=(0.3, 0.8))
    times = pc.time_grid(model, 8, 1.0)[:-1].tolist()
    assert len(network_calls) == sum(2 if 0.3 < t < 0.8 else 1 for t in times) == 12


def test_one_text_serves_many_seeds(tiny_t2i):
    model, cond, null = tiny_t2i(), states(), states(seed=1)
    many = pc.sample(model, cond, null, seeds=[3, 4, 5])
    close(many, pc.sample(model, cond.expand(3, -1, -1), null.expand(3, -1, -1), seeds=[3, 4, 5]), 5e-5)
    assert many.shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match="there are 2 conditions for 3 images"):
        pc.sample(model, states(2), null, seeds=[3, 4, 5])
    with pytest.raises(ValueError, match="there are 2 conditions for 3 images"):
        pc.sample(model, cond, states(2), seeds=[3, 4, 5])


@pytest.mark.parametrize("null_length", [6, 4])
def test_the_same_image_alone_and_in_a_batch(tiny_t2i, null_length):
    model, texts, null = tiny_t2i(), states(3), states(1, null_length, seed=1)
    seeds = [11, 2**63, 11]
    together = pc.sample(model, texts, null, seeds=seeds, steps=6)
    for index, seed in enumerate(seeds):
        alone = pc.sample(model, texts[index : index + 1], null, seeds=seed, steps=6)
        close(alone[0], together[index], 5e-5)
        difference = pc.to_uint8(model, alone)[0].int() - pc.to_uint8(model, together)[index].int()
        assert difference.abs().max() <= 1
    assert not torch.allclose(together[0], together[2], atol=1e-2)
    assert torch.equal(together, pc.sample(model, texts, null, seeds=seeds, steps=6))


def test_image_to_image_samples_the_last_part_of_the_trajectory(tiny_t2i, calls):
    model, cond, image = tiny_t2i(), states(), random_image()
    network_calls = calls(model)
    x = pc.sample(model, cond, seeds=3, image=image, denoise=0.5, steps=4)
    grid = pc.time_grid(model, 8)[4:]
    close(torch.stack([call.time[0] for call in network_calls]), 1000 * (1 - grid[:-1]), 1e-3)
    start = torch.lerp(pc.unit_noise(model, 3, 16, 16), image, float(grid[0]))
    with torch.inference_mode():
        close(x, SOLVERS["flow_dpmpp_2m"](lambda x, t: model.velocity(x, t, cond), start, grid), 5e-5)
    little = pc.sample(model, cond, seeds=3, image=image, denoise=0.1, steps=4)
    assert (little - image).abs().mean() < (x - image).abs().mean()


def test_one_step_is_enough_for_a_part_of_the_trajectory_only(tiny_t2i):
    model = tiny_t2i()
    assert torch.isfinite(pc.sample(model, states(), image=random_image(), denoise=0.5, steps=1)).all()
    with pytest.raises(ValueError, match="steps is 1; the text-to-image grid needs at least 2"):
        pc.sample(model, states(), steps=1)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("denoise", [1.0, 0.6])
@pytest.mark.parametrize("null_length", [6, 4])
def test_a_mask_keeps_the_rest_bit_for_bit(tiny_t2i, solver, denoise, null_length):
    model, image = tiny_t2i(), random_image(2)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 6:10] = 1
    how = {"image": image, "solver": solver, "denoise": denoise, "steps": 5, "seeds": [1, 2]}
    texts = states(2), states(1, null_length, seed=1)
    x = pc.sample(model, *texts, mask=mask, **how)
    inside = mask.bool().expand_as(x)
    assert torch.equal(x[~inside], image[~inside])
    assert not torch.isclose(x[inside], image[inside]).any()
    close(pc.sample(model, *texts, mask=torch.ones(1, 1, 16, 16), **how), pc.sample(model, *texts, **how), 2e-4)


def test_images_and_states_are_inverse(tiny_t2i):
    model = tiny_t2i()
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
    state = pc.from_image(model, pixels)
    assert state.shape == (2, 3, 16, 16) and state.min() == -1 and state.max() == 1
    assert torch.equal(pc.to_uint8(model, state), pixels)
    assert torch.equal(pc.to_uint8(model, state * 3), pc.to_uint8(model, (state * 3).clamp(-1, 1)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"last_step": 0.1}, "the text-to-image grid has no last_step of its own"),
        ({"timeshift": -1.0}, "timeshift is -1.0"),
        ({"size": (18, 16)}, "nearest that does is 16 x 16"),
        ({"solver": "dpmpp_2m"}, 'solver "dpmpp_2m" is not known; there are .*flow_dpmpp_2m'),
        ({"convention": "mine"}, 'convention "mine" is not known; there are standard, reference'),
        ({"image": random_image(), "mask": torch.ones(1, 1, 8, 8)}, "the mask has shape"),
    ],
)
def test_invalid_settings_are_reported_before_the_network_runs(tiny_t2i, calls, settings, message):
    model = tiny_t2i()
    network_calls = calls(model)
    with pytest.raises(ValueError, match=message):
        pc.sample(model, states(), states(seed=1), **settings)
    assert not network_calls


@pytest.mark.parametrize("times", [[0.2, 0.4, 0.4, 0.4, 0.8], [0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]])
def test_a_time_given_twice_is_a_step_of_no_length(times):
    """The other solvers continue."""
    ends = {name: solve(lambda x, t: 1 - x, torch.zeros(2), torch.tensor(times)) for name, solve in SOLVERS.items()}
    assert all(torch.isfinite(end).all() for end in ends.values())
