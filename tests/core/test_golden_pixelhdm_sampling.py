"""PixelHDM as a family: files, samplers and pipelines against the reference program's data, and the correct walk."""

import dataclasses
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.families.pixelhdm.sizes import pixelhdm_buckets
from pixeldit_core.sizes import advise

SAMPLERS = (
    "10_sampler_euler_cfg",
    "11_sampler_heun_cfg",
    "13_sampler_full_heun_cfg",
    "14_sampler_euler_nocfg",
    "15_sampler_heun_tstart",
)
SOLVERS = {"euler": "euler", "heun": "heun_exact"}  # its Heun evaluates anew at the start of every step


def find(golden, name):
    case = golden(name, "pixelhdm")
    case.path = case.folder / "checkpoint.pt"
    return case


def off(actual, expected):
    """Relative L2 distance."""
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).item()


def tolerance(case):
    found = case.case["recommended_tolerance"]
    return found.get("rel_l2", found.get("forward_rel_l2"))


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


def walk(model, cond, null, **settings):
    """The states of a published walk, the first one included, and how many rows each call had."""
    states, rows = [], []
    hook = model.network.register_forward_hook(lambda _, arguments, output: rows.append(len(output)))
    settings.setdefault("convention", "reference")
    final = pc.sample(model, cond, null, on_step=lambda i, t, x, v: states.append(x.clone()), **settings)
    hook.remove()
    return final, torch.stack(states), rows


@pytest.mark.parametrize("name", SAMPLERS)
def test_published_samplers(golden, name):
    case = find(golden, name)
    model, settings = pc.load_checkpoint(case.path), case.case["sampler"]
    times = case.outputs["timesteps"]
    null = condition(model, case.inputs, "null_") if "null_text_embed" in case.inputs else None
    if settings["t_start"] is None:
        assert torch.equal(pc.time_grid(model, settings["num_steps"], convention="reference"), times)
    final, states, rows = walk(
        model,
        condition(model, case.inputs),
        null,
        noise=first(case.inputs["z_0"]),
        times=times,
        solver=SOLVERS[settings["method"]],
        cfg=settings["guidance_scale"],
    )
    assert off(final, first(case.outputs["final"])) < tolerance(case)
    assert off(states, first(case.outputs["trajectory"][1:])) < tolerance(case)
    assert sum(rows) == len(case.outputs["call_t"]) * len(final)  # ours has both branches in one call


def test_the_wrong_solver_of_the_authors_is_not_offered(golden):
    """Their dpm_pp walks away from its estimate; with the roles of t and 1 - t put right it is flow_dpmpp_2m."""
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
    assert off(z, first(case.outputs["final"])) < tolerance(case)
    assert (theirs - 0.5).abs().min() > 20 and (ours - 0.5).abs().max() < 0.1
    right = pc.SOLVERS["flow_dpmpp_2m"](
        lambda x, t: (image - x) / (1 - t), torch.full_like(z, 2.0), torch.tensor(times)
    )
    assert torch.allclose(right, ours, atol=1e-5)
    assert "dpm_pp" not in pc.SOLVERS


def logit(t, eps):
    t = torch.tensor(min(max(t, eps), 1 - eps), dtype=torch.float64)
    return torch.logit(t).item()


def test_text_to_image_pipeline(golden):
    case = find(golden, "30_pipeline_t2i")
    model, call, outputs = pc.load_checkpoint(case.path), case.case["call"], case.outputs
    cond, null = prompt(model, case.inputs, 0, 0, 1, 1), prompt(model, case.inputs, 3, 3, 3, 3)
    generator = torch.Generator().manual_seed(call["seed"])
    assert torch.equal(torch.randn(outputs["z_0"].shape, generator=generator), outputs["z_0"])
    settings = {"steps": call["num_steps"], "solver": "heun_exact", "cfg": call["guidance_scale"]}
    final, states, _ = walk(model, cond, null, noise=first(outputs["z_0"]), **settings)
    assert off(final, first(outputs["raw"])) < tolerance(case)
    assert off(states, first(outputs["intermediates"])) < tolerance(case)
    assert off(final.clamp(-1, 1), first(outputs["tensor"])) < tolerance(case)
    assert off((final.clamp(-1, 1) + 1) / 2, first(outputs["numpy"])) < tolerance(case)
    difference = pc.to_uint8(model, final, "reference").int() - outputs["uint8"].int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01


@pytest.mark.parametrize("name", ["31_pipeline_img2img", "32_pipeline_img2img_strong"])
def test_image_to_image_pipelines(golden, name):
    """The authors' null branch gets the prompt's mask: the test hands that over; the product gives it its own."""
    case = find(golden, name)
    model, call, outputs = pc.load_checkpoint(case.path), case.case["call"], case.outputs
    negative = 1 if call["negative_prompt"] is None else 2
    cond, null = prompt(model, case.inputs, 0), prompt(model, case.inputs, negative, mask_of=0)
    width, height = outputs["image_tensor"].shape[2], outputs["image_tensor"].shape[1]
    picture = Image.fromarray(case.inputs["image_uint8"].numpy()).resize((width, height), Image.Resampling.LANCZOS)
    image = pc.from_image(model, picture)
    assert torch.allclose(image, first(outputs["image_tensor"]), atol=1e-6)
    final, _, _ = walk(
        model,
        cond,
        null,
        image=image,
        noise=first(case.inputs["noise"]),
        times=outputs["timesteps"],
        solver=SOLVERS[call["sampler_method"]],
        cfg=call["guidance_scale"],
    )
    assert off(final, first(outputs["raw"])) < tolerance(case)
    difference = pc.to_uint8(model, final, "reference").int() - outputs["uint8"].int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01


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
    assert off(v, case.outputs[f"v_{weights}"]) < tolerance(case)
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


def test_the_correct_walk_ends_on_the_image(golden):
    """The house goes on from the last trained time to the image, where the published walk leaves 5 % of the noise."""
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
