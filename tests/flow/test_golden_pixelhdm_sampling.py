"""PixelHDM as a family: files, samplers and pipelines against the reference data, and a correct trajectory."""

import dataclasses
import json
import shutil

import pytest
import torch
from helpers import relative_l2
from PIL import Image
from safetensors.torch import save_file
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc
from pixeldit_core.families.pixelhdm.sizes import pixelhdm_buckets
from pixeldit_core.sizes import advise

pytestmark = pytest.mark.golden

SAMPLERS = (
    "10_sampler_euler_cfg",
    "11_sampler_heun_cfg",
    "13_sampler_full_heun_cfg",
    "14_sampler_euler_nocfg",
    "15_sampler_heun_tstart",
)
# What a start moved by 1e-6 changes, relative L2: the larger of all states together and the last alone. From
# `test_sensitivity`, the largest of AVX-512, AVX2 and plain kernels. `sensitivity.py` says what follows from it.
MEASURED = {
    "10_sampler_euler_cfg": 1.6e-5,
    "11_sampler_heun_cfg": 8.9e-5,
    "13_sampler_full_heun_cfg": 2.7e-6,
    "14_sampler_euler_nocfg": 2.9e-6,
    "15_sampler_heun_tstart": 4.1e-6,
    "30_pipeline_t2i": 3.7e-6,
    "31_pipeline_img2img": 7.3e-6,
    "32_pipeline_img2img_strong": 5.5e-6,
}
OUTPUT = 2e-5  # a network output, or a step, on a recorded state: relative L2, 3e-6 is the most that any was off
SOLVERS = {"euler": "euler", "heun": "heun_exact"}  # its Heun evaluates anew at the start of every step


def find(golden, name):
    case = golden(name, "pixelhdm")
    case.path = case.folder / "checkpoint.pt"
    return case


def tolerance(case):
    """Of a whole trajectory; of one call of the network where there is none."""
    found = case.case["recommended_tolerance"]
    suggested = found.get("rel_l2", found.get("forward_rel_l2"))
    return allowed(MEASURED[case.folder.name], suggested) if case.folder.name in MEASURED else suggested


def first(x):
    """[..., H, W, C] -> [..., C, H, W]."""
    return x.movedim(-1, -3)


def condition(model, inputs, prefix=""):
    names = ("text_embed", "text_mask", "pooled_text_embed")
    return pc.text_condition(model, *(inputs.get(prefix + name) for name in names))


def prompt(model, inputs, *indices, mask_of=None):
    """The stored encodings of prompts; `mask_of`: with that one's mask in the place of their own."""
    parts = []
    for name in ("embed", "mask", "pooled"):
        owners = [mask_of] * len(indices) if name == "mask" and mask_of is not None else indices
        parts.append(torch.stack([inputs[f"prompt{index}.{name}"] for index in owners]))
    return pc.text_condition(model, *parts)


def trajectory(model, cond, null, **settings):
    """The states of a published run, the first one included, and how many rows each call had."""
    states, rows = [], []
    hook = model.network.register_forward_hook(lambda _, arguments, output: rows.append(len(output)))
    settings.setdefault("convention", "reference")
    final = pc.sample(model, cond, null, on_step=lambda i, t, x, v: states.append(x.clone()), **settings)
    hook.remove()
    return final, torch.stack(states), rows


def sampler_run(case, change=lambda noise: noise):
    """A recorded run of a sampler again, from its noise or a `change` of it."""
    model, settings = pc.load_checkpoint(case.path), case.case["sampler"]
    times = case.outputs["timesteps"]
    if settings["t_start"] is None:
        assert torch.equal(pc.time_grid(model, settings["num_steps"], convention="reference"), times)
    return trajectory(
        model,
        condition(model, case.inputs),
        condition(model, case.inputs, "null_") if "null_text_embed" in case.inputs else None,
        noise=change(first(case.inputs["z_0"])),
        times=times,
        solver=SOLVERS[settings["method"]],
        cfg=settings["guidance_scale"],
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_published_samplers(golden, name):
    case = find(golden, name)
    final, states, rows = sampler_run(case)
    assert relative_l2(final, first(case.outputs["final"])) < tolerance(case)
    assert relative_l2(states, first(case.outputs["trajectory"][1:])) < tolerance(case)
    assert sum(rows) == len(case.outputs["call_t"]) * len(final)  # ours has both branches in one call


def recorded_calls(case):
    """(state, time, the guided velocity, outputs of each branch) of every evaluation, from what is recorded.

    Heun's predicted points are not: they follow from the state, the time and the outputs before, in float32.
    """
    outputs, settings = case.outputs, case.case["sampler"]
    times, branches = outputs["timesteps"], 1 if settings["guidance_scale"] == 1 else 2
    calls = list(zip(outputs["call_t"].split(branches), outputs["call_v"].split(branches), strict=True))
    slope = None
    per_step = len(calls) // (len(times) - 1)
    assert per_step == {"euler": 1, "heun": 2, "dpm_pp": 1}[settings["method"]]
    for index, (t, v) in enumerate(calls):
        i, second = divmod(index, per_step)
        x = outputs["trajectory"][i]
        if second:
            x = x + slope * (times[i + 1] - times[i])
        slope = torch.lerp(v[0], v[-1], settings["guidance_scale"]) if branches == 2 else v[0]
        yield x, t[0], slope, v


@pytest.mark.parametrize("name", [*SAMPLERS, "12_sampler_dpmpp_cfg"])
def test_every_call_on_the_reference_s_own_trajectory(golden, name):
    case = find(golden, name)
    model = pc.load_checkpoint(case.path)
    for x, t, _, outputs in recorded_calls(case):
        branches = [condition(model, case.inputs)]
        if len(outputs) == 2:
            branches.insert(0, condition(model, case.inputs, "null_"))
        for text, expected in zip(branches, outputs, strict=True):
            assert relative_l2(model.network(x, t, *text), expected) < OUTPUT


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_solver_on_the_reference_s_own_outputs(golden, name):
    """Recorded outputs in the place of a network: what is left to differ is the solver's arithmetic."""
    case = find(golden, name)
    calls, states = recorded_calls(case), []

    def velocity(x, t):
        _, expected, slope, _ = next(calls)
        assert t == pytest.approx(expected[0].item(), abs=1e-6)
        return slope

    solve = pc.SOLVERS[SOLVERS[case.case["sampler"]["method"]]]
    solve(velocity, case.inputs["z_0"], case.outputs["timesteps"], lambda i, t, x, v: states.append(x.clone()))
    assert next(calls, None) is None
    assert relative_l2(torch.stack(states), case.outputs["trajectory"][1:]) < 1e-6


@pytest.mark.parametrize("name", MEASURED)
def test_sensitivity(golden, name):
    """The numbers that the tolerances of whole trajectories follow from."""
    case, run = find(golden, name), next(run for start, run in RUNS.items() if name.startswith(start))
    final, states, _ = run(case)
    found = []
    for seed in range(3):
        other, others, _ = run(case, lambda noise, seed=seed: moved(noise, seed))
        found.append(max(relative_l2(other, final), relative_l2(others, states)))
    check_measured(max(found), MEASURED[name])


def test_the_wrong_solver_of_the_authors_is_not_offered(golden):
    """Their dpm_pp moves away from its estimate; with the roles of t and 1 - t put right it is flow_dpmpp_2m."""
    case = find(golden, "12_sampler_dpmpp_cfg")
    model, eps = pc.load_checkpoint(case.path), 0.05
    cond, null = condition(model, case.inputs), condition(model, case.inputs, "null_")
    z, before, lam_before = first(case.inputs["z_0"]), None, None
    times = case.outputs["timesteps"].tolist()
    scale = case.case["sampler"]["guidance_scale"]
    image = torch.full_like(z, 0.5)  # what a perfect network would see
    theirs = ours = torch.full_like(z, 2.0)
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        with torch.inference_mode():
            v_null, v_cond = model.velocity(z, t, null), model.velocity(z, t, cond)
        v = torch.lerp(v_null, v_cond, scale)
        x, lam, lam_next = z + (1 - t) * v, logit(t, eps), logit(t_next, eps)
        target = x
        if before is not None:
            r = (lam - lam_before) / (lam_next - lam + 1e-8)
            target = x + r / (1 + r) * (x - before)
        a, b = t_next / (t + 1e-8), (1 - t_next) - (1 - t) * t_next / (t + 1e-8)
        z, before, lam_before = a * z + b * target, x, lam
        theirs = a * theirs + b * image
        ours = (1 - t_next) / (1 - t) * ours + (t_next - t * (1 - t_next) / (1 - t)) * image
    assert relative_l2(z, first(case.outputs["final"])) < tolerance(case)
    assert (theirs - 0.5).abs().min() > 20 and (ours - 0.5).abs().max() < 0.1
    right = pc.SOLVERS["flow_dpmpp_2m"](
        lambda x, t: (image - x) / (1 - t), torch.full_like(z, 2.0), torch.tensor(times)
    )
    assert torch.allclose(right, ours, atol=1e-5)
    assert "dpm_pp" not in pc.SOLVERS


def logit(t, eps):
    t = torch.tensor(min(max(t, eps), 1 - eps), dtype=torch.float64)
    return torch.logit(t).item()


def text_run(case, change=lambda noise: noise, **part):
    """The recorded run of the text-to-image pipeline again, or another `part` of it: noise and times."""
    model, call = pc.load_checkpoint(case.path), case.case["call"]
    cond, null = prompt(model, case.inputs, 0, 0, 1, 1), prompt(model, case.inputs, 3, 3, 3, 3)
    settings = {"noise": change(first(case.outputs["z_0"])), "steps": call["num_steps"]} | part
    return trajectory(model, cond, null, solver="heun_exact", cfg=call["guidance_scale"], **settings)


def check_uint8(model, final, expected):
    difference = pc.to_uint8(model, final, "reference").int() - expected.int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01


def test_text_to_image_pipeline(golden):
    case = find(golden, "30_pipeline_t2i")
    model, call, outputs = pc.load_checkpoint(case.path), case.case["call"], case.outputs
    generator = torch.Generator().manual_seed(call["seed"])
    drawn = torch.randn(outputs["z_0"].shape, generator=generator)
    torch.testing.assert_close(drawn, outputs["z_0"], atol=2e-6, rtol=0)  # the last bit of log and cos is a processor's
    final, states, _ = text_run(case)
    assert relative_l2(final, first(outputs["raw"])) < tolerance(case)
    assert relative_l2(states, first(outputs["intermediates"])) < tolerance(case)
    assert relative_l2(final.clamp(-1, 1), first(outputs["tensor"])) < tolerance(case)
    assert relative_l2((final.clamp(-1, 1) + 1) / 2, first(outputs["numpy"])) < tolerance(case)
    check_uint8(model, final, outputs["uint8"])


def test_every_step_of_the_text_to_image_pipeline(golden):
    """Its outputs are not recorded: a step from each recorded state to the next, of two evaluations, holds them."""
    case = find(golden, "30_pipeline_t2i")
    states = first(torch.cat([case.outputs["z_0"][None], case.outputs["intermediates"]]))
    times = pc.time_grid(pc.load_checkpoint(case.path), case.case["call"]["num_steps"], convention="reference")
    for i in range(len(states) - 1):
        after, _, rows = text_run(case, noise=states[i], times=times[i : i + 2])
        assert rows == [2 * len(after)] * 2
        assert relative_l2(after, states[i + 1]) < OUTPUT


def image_run(case, change=lambda noise: noise):
    """A recorded run of an image-to-image pipeline again.

    The authors' null branch gets the prompt's mask: the test hands that over; the product gives it its own.
    """
    model, call = pc.load_checkpoint(case.path), case.case["call"]
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
    picture = Image.fromarray(case.inputs["image_uint8"].numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return pc.from_image(model, picture)


@pytest.mark.parametrize("name", ["31_pipeline_img2img", "32_pipeline_img2img_strong"])
def test_image_to_image_pipelines(golden, name):
    case = find(golden, name)
    model = pc.load_checkpoint(case.path)
    assert torch.allclose(image_of(model, case), first(case.outputs["image_tensor"]), atol=1e-6)
    final, _, _ = image_run(case)
    assert relative_l2(final, first(case.outputs["raw"])) < tolerance(case)
    check_uint8(model, final, case.outputs["uint8"])


RUNS = {"1": sampler_run, "30": text_run, "31": image_run, "32": image_run}


def test_pictures_are_cut_as_published_and_rounded_otherwise(golden):
    case = find(golden, "33_image_io")
    model, x = pc.build_model("pixelhdm", "PixelHDM-small"), first(case.inputs["post_in"])
    cut, rounded = pc.to_uint8(model, x, "reference"), pc.to_uint8(model, x)
    assert torch.equal(cut, case.outputs["post_uint8"])
    assert torch.equal(rounded, ((x.clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor().byte().movedim(1, -1))
    assert not torch.equal(cut, rounded)


@pytest.mark.parametrize("layout, weights", [("01_trainer_checkpoint", "ema"), ("01_trainer_checkpoint", "raw")])
def test_a_trainer_s_checkpoint(golden, layout, weights):
    case = find(golden, layout)
    model = pc.load_checkpoint(case.path, weights=weights)
    arguments = [case.inputs[f"fwd.{name}"] for name in ("t", "text_embed", "text_mask", "pooled_text_embed")]
    with torch.inference_mode():
        v = model.network(case.inputs["fwd.x_t"], *arguments)
        ours = model.velocity(first(case.inputs["fwd.x_t"]), arguments[0].clamp(0.05, 0.95), tuple(arguments[1:]))
    assert relative_l2(v, case.outputs[f"v_{weights}"]) < tolerance(case)
    inside = (arguments[0] >= 0.05) & (arguments[0] <= 0.95)
    assert torch.allclose(ours[inside], first(v)[inside], atol=1e-5)
    assert model.spec.weights == weights and model.params.mlp_ratio == 2.0 and model.params.text_max_length == 15


@pytest.mark.parametrize(
    "name, layout, weights",
    [
        ("01_trainer_checkpoint", "ema.shadow.", ("ema", "raw")),
        ("02_forward_square_masked", "model.", ("raw",)),
        ("03_forward_nonsquare_nomask", "ema.shadow.", ("ema",)),
        ("06_forward_gate_elementwise", "ema.", ("ema",)),
        ("07_forward_patch16_raw", "canonical", ("raw",)),
    ],
)
def test_every_layout_is_recognised_and_saved_again(golden, tmp_path, name, layout, weights):
    case = find(golden, name)
    info = pc.inspect_checkpoint(case.path)
    assert (info.family, info.layout, info.weights, info.refused) == ("pixelhdm", layout, weights, None)
    known = {field.name for field in dataclasses.fields(info.params)} - {"mlp_ratio", "bottleneck_dim"}
    told = {key: value for key, value in case.case["config"].items() if key in known}
    assert {key: getattr(info.params, key) for key in told} == told
    model = pc.load_checkpoint(case.path)
    for form in ("canonical", "comfyui"):
        again = pc.load_checkpoint(pc.save_checkpoint(case.path, tmp_path / f"{form}.safetensors", form))
        assert again.params == model.params
        state = again.network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


def test_a_config_that_contradicts_its_tensors_is_an_error(golden, tmp_path):
    case = find(golden, "02_forward_square_masked")
    stored = torch.load(case.path, weights_only=True)
    stored["config"] = stored["config"] | {"num_heads": 99}
    torch.save(stored, tmp_path / "edited.pt")
    with pytest.raises(ValueError, match=r"edited.pt: the config inside of it says num_heads = 99, its tensors say"):
        pc.load_checkpoint(tmp_path / "edited.pt")


@pytest.mark.parametrize("value", ["many", [1], {"a": 1}, None, 1e400, True, -3])
@pytest.mark.parametrize("key", ["num_heads", "time_eps", "gate_type", "mrope_theta", "text_max_length", "mlp_ratio"])
def test_absurd_values_of_a_config_are_told(golden, tmp_path, key, value):
    stored = torch.load(find(golden, "05_forward_odd_masks").path, weights_only=True)
    stored["config"] = stored["config"] | {key: value}
    torch.save(stored, tmp_path / "edited.pt")
    info = pc.inspect_checkpoint(tmp_path / "edited.pt")
    assert "edited.pt" in (info.refused or "") or value is None


def test_an_alias_that_disagrees_wins_as_in_the_authors_program(golden, tmp_path):
    stored = torch.load(find(golden, "02_forward_square_masked").path, weights_only=True)
    alias = "patch_blocks.0.attention.q_proj.weight"
    stored["model"][alias] = stored["model"][alias] + 1
    torch.save(stored, tmp_path / "edited.pt")
    state = pc.load_checkpoint(tmp_path / "edited.pt").network.state_dict()
    assert torch.equal(state["patch_blocks.0.attention.qkv_proj.q_proj.weight"], stored["model"][alias])
    stored["model"][alias] = stored["model"][alias][:-1]
    torch.save(stored, tmp_path / "cut.pt")
    with pytest.raises(ValueError, match="63 channels of queries"):
        pc.load_checkpoint(tmp_path / "cut.pt")


@pytest.mark.parametrize("named", ["qkv_proj.q_proj", "q_proj"])
def test_a_lora_by_either_name(golden, tmp_path, named):
    model = pc.load_checkpoint(find(golden, "10_sampler_euler_cfg").path)
    key = "patch_blocks.0.attention.qkv_proj.q_proj.weight"
    before = model.network.state_dict()[key].clone()
    up, down = torch.ones(before.shape[0], 1), torch.ones(1, before.shape[1])
    module = f"base_model.model.patch_blocks.0.attention.{named}"
    pair = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    save_file(pair, tmp_path / "lora.safetensors")
    assert pc.apply_lora(model, tmp_path / "lora.safetensors", 0.5) == 1
    assert torch.allclose(model.network.state_dict()[key], before + 0.5)


def test_a_config_beside_a_bare_state_dict_is_read(golden, tmp_path):
    case = find(golden, "07_forward_patch16_raw")
    shutil.copy(case.path, tmp_path / "bare.pt")
    config = json.loads((case.folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"time_eps": 0.1}), encoding="utf-8")
    assert pc.load_checkpoint(tmp_path / "bare.pt").params.time_eps == 0.1


def test_the_correct_trajectory_ends_on_the_image(golden):
    """The standard convention ends at the image; the reference leaves 5 % of the noise."""
    model = pc.load_checkpoint(find(golden, "10_sampler_euler_cfg").path)
    noise = pc.unit_noise(model, range(2), 8, 8)
    image = torch.linspace(-1, 1, noise.numel()).view_as(noise)
    for steps in (2, 5, 20):
        times = pc.time_grid(model, steps)
        assert len(times) == steps + 1 and times[-1] == 1
        assert torch.equal(times[:-1], torch.linspace(0.05, 0.95, steps))
        ends = {}
        for convention in ("standard", "reference"):
            grid = pc.time_grid(model, steps, convention=convention)
            x = noise
            for t, t_next in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
                x = x + (image - x) / (1 - t) * (t_next - t)
            ends[convention] = (x - image).abs().max()
        assert ends["standard"] < 1e-6 and ends["reference"] > 0.05


def test_times_beyond_training_are_never_told_to_the_network(golden, calls):
    case = find(golden, "10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.path)
    seen = calls(model)
    pc.sample(model, condition(model, case.inputs), noise=first(case.inputs["z_0"]), times=torch.linspace(0, 1, 4))
    assert min(call.time.min() for call in seen) >= 0.05 and max(call.time.max() for call in seen) <= 0.95


def test_texts_of_different_length_are_padded_into_one_call(golden, calls):
    case = find(golden, "10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.path)
    cond, null = condition(model, case.inputs), condition(model, case.inputs, "null_")
    cut = int(cond[1].sum(dim=1).max())  # padding behind the longest text is not needed
    short = (cond[0][:, :cut], cond[1][:, :cut], cond[2])
    settings = {"noise": first(case.inputs["z_0"]), "steps": 3, "cfg": 3.0}
    seen = calls(model)
    whole = pc.sample(model, cond, null, **settings)
    assert torch.allclose(pc.sample(model, short, null, **settings), whole, atol=1e-5)
    assert {call.rows for call in seen} == {4} and len({len(call.labels) for call in seen}) == 1


def test_a_text_of_padding_alone_is_no_text(golden):
    case = find(golden, "10_sampler_euler_cfg")
    model = pc.load_checkpoint(case.path)
    x, pooled = first(case.inputs["z_0"]), case.inputs["pooled_text_embed"]
    empty = pc.text_condition(model, case.inputs["text_embed"], torch.zeros(2, 6), pooled)
    with torch.inference_mode():
        assert torch.allclose(model.velocity(x, 0.5, empty), model.velocity(x, 0.5, (None, None, pooled)), atol=1e-5)


def test_an_embedding_of_another_width_is_refused(golden):
    model = pc.load_checkpoint(find(golden, "10_sampler_euler_cfg").path)
    with pytest.raises(ValueError, match=r"the text has shape \[1, 4, 31\]; expected \[B, T, 32\]"):
        pc.text_condition(model, torch.zeros(1, 4, 31))
    with pytest.raises(ValueError, match="pooled text has shape"):
        pc.sample(model, pc.text_condition(model, torch.zeros(1, 4, 32), None, torch.zeros(1, 31)), size=(8, 8))


def test_buckets(golden):
    for table in golden("50_buckets", "pixelhdm").case["tables"]:
        told = table["params"]
        most = min(told.get("max_resolution", 1024), told.get("bucket_max_resolution", 1024))
        found = pixelhdm_buckets(
            told.get("min_resolution", 256), most, told.get("patch_size", 16), told.get("max_aspect_ratio", 2.0)
        )
        assert [(width, height) for height, width in found] == [tuple(size) for size in table["buckets_wh"]]
    model = pc.build_model("pixelhdm", "PixelHDM")
    assert advise((512, 512), model.spec.trained_sizes) is None and advise((512, 2048), model.spec.trained_sizes)
