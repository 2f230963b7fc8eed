"""PixelHDM's files: layouts, configurations, aliases and LoRAs."""

import dataclasses
import json
import shutil

import pytest
import torch
from helpers import relative_l2
from pixelhdm_cases import find, first, tolerance
from safetensors.torch import save_file

import pixeldit_core as pc

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("layout, weights", [("01_trainer_checkpoint", "ema"), ("01_trainer_checkpoint", "raw")])
def test_a_trainer_s_checkpoint(layout, weights):
    case = find(layout)
    model = pc.load_checkpoint(case.checkpoint, weights=weights)
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
def test_every_layout_is_detected_and_saved_again(tmp_path, name, layout, weights):
    case = find(name)
    info = pc.inspect_checkpoint(case.checkpoint)
    assert (info.family, info.layout, info.weights, info.refused) == ("pixelhdm", layout, weights, None)
    names = {field.name for field in dataclasses.fields(info.params)} - {"mlp_ratio", "bottleneck_dim"}
    declared = {key: value for key, value in case.case["config"].items() if key in names}
    assert {key: getattr(info.params, key) for key in declared} == declared
    model = pc.load_checkpoint(case.checkpoint)
    for form in ("canonical", "comfyui"):
        again = pc.load_checkpoint(pc.save_checkpoint(case.checkpoint, tmp_path / f"{form}.safetensors", form))
        assert again.params == model.params
        state = again.network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


def test_a_config_that_contradicts_its_tensors_is_an_error(tmp_path):
    case = find("02_forward_square_masked")
    stored = torch.load(case.checkpoint, weights_only=True)
    stored["config"] = stored["config"] | {"num_heads": 99}
    torch.save(stored, tmp_path / "edited.pt")
    with pytest.raises(ValueError, match=r"edited.pt: the config inside of it says num_heads = 99, its tensors say"):
        pc.load_checkpoint(tmp_path / "edited.pt")


@pytest.mark.parametrize("value", ["many", [1], {"a": 1}, None, 1e400, True, -3])
@pytest.mark.parametrize("key", ["num_heads", "time_eps", "gate_type", "mrope_theta", "text_max_length", "mlp_ratio"])
def test_absurd_values_of_a_config_are_rejected(tmp_path, key, value):
    stored = torch.load(find("05_forward_odd_masks").checkpoint, weights_only=True)
    stored["config"] = stored["config"] | {key: value}
    torch.save(stored, tmp_path / "edited.pt")
    info = pc.inspect_checkpoint(tmp_path / "edited.pt")
    assert "edited.pt" in (info.refused or "") or value is None


def test_an_alias_that_disagrees_wins_as_in_the_authors_program(tmp_path):
    stored = torch.load(find("02_forward_square_masked").checkpoint, weights_only=True)
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
def test_a_lora_by_either_name(tmp_path, named):
    model = pc.load_checkpoint(find("10_sampler_euler_cfg").checkpoint)
    key = "patch_blocks.0.attention.qkv_proj.q_proj.weight"
    before = model.network.state_dict()[key].clone()
    up, down = torch.ones(before.shape[0], 1), torch.ones(1, before.shape[1])
    module = f"base_model.model.patch_blocks.0.attention.{named}"
    pair = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    save_file(pair, tmp_path / "lora.safetensors")
    assert pc.apply_lora(model, tmp_path / "lora.safetensors", 0.5) == 1
    assert torch.allclose(model.network.state_dict()[key], before + 0.5)


def test_a_config_beside_a_bare_state_dict_is_read(tmp_path):
    case = find("07_forward_patch16_raw")
    shutil.copy(case.checkpoint, tmp_path / "bare.pt")
    config = json.loads((case.folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"time_eps": 0.1}), encoding="utf-8")
    assert pc.load_checkpoint(tmp_path / "bare.pt").params.time_eps == 0.1
