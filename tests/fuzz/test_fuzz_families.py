"""Well-formed files of the x-prediction networks and of PixelHDM with something else inside than should be."""

import json
import random
import tracemalloc
from dataclasses import replace

import pytest
import torch
from fuzz import families as other_families
from safetensors.torch import save_file

import pixeldit_core as pc

pytestmark = pytest.mark.fuzz

HUGE = 10**400  # beyond any float


def xpred_file(path, dataset=None, model=None, **sizes):
    """A trainer's file of a small network, with other values in its configuration."""
    sizes = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "patch_size": 2, "image_size": 8} | sizes
    params = pc.FAMILIES["xpred_dit"].params(**sizes)
    config = other_families.xpred_config(params)
    config["dataset"] |= dataset or {}
    config["model"] |= model or {}
    state = other_families.weights_of("xpred_dit", params, random.Random(0))
    torch.save({"model_state_dict": state, "config": config}, path)
    return path


def refused(path, *words):
    """Both readers refuse, in the same few words, the file's name among them."""
    with pytest.raises(ValueError, match=path.name) as caught:
        pc.load_checkpoint(path)
    assert pc.inspect_checkpoint(path).refused == str(caught.value)
    assert len(str(caught.value)) < 1500
    for text in words:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [pytest.param(HUGE, id="huge"), 2**31, 1e300, float("nan"), float("inf"), True, "32", "3" * 10**6, [8], 8.5],
)
def test_a_size_that_is_no_number_of_a_network(tmp_path, value):
    refused(
        xpred_file(tmp_path / "odd.pt", {"image_size": value}, use_abs_pe=False),
        "image_size",
        "expected a value like 32",
    )


@pytest.mark.parametrize("value", [0.5, 7, "gray", {"a": 1}, [[0.5]], [None], ["0.5"], [HUGE], [True, True, True]])
def test_a_mean_that_is_no_row_of_numbers(tmp_path, value):
    refused(xpred_file(tmp_path / "odd.pt", {"normalize_mean": value}), "image_mean")


def test_whole_numbers_may_be_written_as_others(tmp_path):
    path = xpred_file(tmp_path / "float.pt", {"image_size": 8.0}, {"heads": 2.0}, use_abs_pe=False)
    params = pc.load_checkpoint(path).params
    assert (type(params.image_size), type(params.heads)) == (int, int)


@pytest.mark.parametrize("part, key, value", [
    ("params", "image_size", "é" * 10**6), ("params", "image_size", 8.5), ("params", "image_mean", 7),
    ("params", "é" * 10**6, 1), ("params", "depth", "9" * 10**6), (None, "family", "x" * 10**6),
    (None, "settings", "x" * 10**6),
])  # fmt: skip
def test_values_of_our_own_metadata_are_checked_and_not_told_at_length(tmp_path, part, key, value):
    model = pc.load_checkpoint(xpred_file(tmp_path / "sound.pt", use_abs_pe=False))
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=2, cfg=1.0))
    path = pc.save_checkpoint(model, tmp_path / "odd.safetensors")
    about = json.loads(other_families.write_metadata(model.spec)["pixeldit"])
    (about[part] if part else about)[key] = value
    save_file(dict(model.network.state_dict()), path, {"pixeldit": json.dumps(about)})
    refused(path)


def pixelhdm_file(path, config=None, **sizes):
    """The same of a PixelHDM."""
    sizes = {"hidden_dim": 8, "num_heads": 2, "num_kv_heads": 1, "pixel_dim": 2, "patch_size": 2} | sizes
    sizes |= {"patch_layers": 1, "pixel_layers": 1, "mrope_text_dim": 4, "mrope_img_h_dim": 0, "mrope_img_w_dim": 0}
    params = pc.FAMILIES["pixelhdm"].params(**sizes)
    state = other_families.weights_of("pixelhdm", params, random.Random(0))
    stored = {
        "model": other_families.with_aliases(state),
        "config": other_families.pixelhdm_config(params) | (config or {}),
    }
    torch.save(stored, path)
    return path


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_pictures_of_any_number_of_channels(tmp_path, channels):
    sizes = {"in_channels": channels, "out_channels": channels}
    model = pc.load_checkpoint(pixelhdm_file(tmp_path / "many.pt", **sizes))
    condition = pc.text_condition(model, torch.zeros(1, 2, 8))
    pixels = pc.to_uint8(model, pc.sample(model, condition, size=(4, 4), steps=2))
    assert pixels.shape == (1, 4, 4, channels) and pc.from_image(model, pixels).shape == (1, channels, 4, 4)
    assert model.params.image_mean == (0.5,) * channels


def test_a_mean_for_other_channels_is_refused(tmp_path):
    refused(pixelhdm_file(tmp_path / "odd.pt", {"image_mean": [0.5, 0.5]}), "image_mean is [0.5, 0.5]", "each of 3")
    refused(pixelhdm_file(tmp_path / "std.pt", {"image_std": [0.0]}), "image_std is [0.0, 0.0, 0.0]")


def test_a_network_that_paints_other_channels_than_it_sees_is_refused(tmp_path):
    path = pixelhdm_file(tmp_path / "odd.pt")
    stored = torch.load(path, weights_only=True)
    for part in ("weight", "bias"):
        stored["model"][f"output_proj.proj.{part}"] = stored["model"][f"output_proj.proj.{part}"][:2]
    stored["config"]["out_channels"] = 2
    torch.save(stored, path)
    refused(path, "out_channels is 2 and in_channels is 3")


@pytest.mark.parametrize("side", [2**14 + 1, 2**31 - 1])
def test_a_trained_size_beyond_any_picture_is_refused(tmp_path, side):
    path = xpred_file(tmp_path / "odd.pt", {"image_size": side}, use_abs_pe=False)
    refused(path, f"image_size is {side}", "at most 16384")


@pytest.mark.parametrize("beside", [
    {"sample_size": 10**30}, {"image_size": 2**15}, {"default_steps": 1e9}, {"default_steps": 10**300},
    {"default_cfg_scale": HUGE}, {"flow_shift": "é" * 10**5}, {"flow_shift": 1e300},
])  # fmt: skip
def test_a_config_beside_cannot_ask_for_a_picture_without_end(tmp_path, beside):
    path = pixelhdm_file(tmp_path / "odd.pt")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pixelhdm"} | beside), encoding="utf-8")
    refused(path, "config.json")


@pytest.mark.parametrize("settings", [
    {"steps": 10**9}, {"steps": "9" * 4000}, {"size": [10**9, 8]}, {"size": [0, 8]}, {"cfg": float("nan")},
    {"timeshift": float("nan")}, {"timeshift": float("inf")}, {"solver": "x" * 10**6, "steps": 0},
])  # fmt: skip
def test_a_recipe_that_no_sampling_can_follow_is_refused(tmp_path, settings):
    model = pc.load_checkpoint(xpred_file(tmp_path / "sound.pt"))
    about = {"family": "xpred_dit", "settings": {"steps": 2, "cfg": 1.0} | settings}
    state = dict(model.network.state_dict())
    save_file(state, tmp_path / "odd.safetensors", {"pixeldit": json.dumps(about)})
    refused(tmp_path / "odd.safetensors")


def test_classes_of_a_pipeline_without_a_number_or_a_name_are_passed_over(tmp_path):
    path = tmp_path / "transformer" / "model.safetensors"
    path.parent.mkdir()
    model = pc.load_checkpoint(xpred_file(tmp_path / "sound.pt", num_classes=3))
    save_file(dict(model.network.state_dict()), path)
    labels = {"1": "cat, tabby", "²": "squared", "0": ",", "9" * 5000: "far", "": "none", "-1": "below"}
    (tmp_path / "model_index.json").write_text(json.dumps({"id2label": labels}), encoding="utf-8")
    params = {"heads": 2, "dim_head": 8}
    assert pc.load_checkpoint(path, params=params).class_names == (("class 0",), ("cat", "tabby"), ("class 2",))


@pytest.mark.parametrize("zipped", [True, False])
def test_one_tensor_under_two_names_is_saved_twice(tmp_path, zipped):
    path = xpred_file(tmp_path / "tied.pt")
    stored = torch.load(path, weights_only=True)
    state = stored["model_state_dict"]
    state["blocks.0.norm1.weight"] = state["blocks.0.norm2.weight"]
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    saved = pc.load_checkpoint(pc.save_checkpoint(path, tmp_path / "apart.safetensors")).network.state_dict()
    assert all(torch.equal(saved[key], value) for key, value in state.items())


@pytest.mark.parametrize("alpha", [1e308, pytest.param(HUGE, id="huge"), "9" * 10**6, [1] * 10**5, float("nan"), True])
def test_an_alpha_that_is_no_number_leaves_a_model_as_it_was(tmp_path, alpha):
    model = pc.load_checkpoint(pixelhdm_file(tmp_path / "base.pt"))
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    names = [f"patch_blocks.0.attention.{part}_proj" for part in "qo"]
    pair = {"lora_A.weight": torch.ones(1, 8), "lora_B.weight": torch.ones(8, 1)}
    state = {
        f"{name.replace('o_proj', 'out_proj')}.{part}": value.clone() for name in names for part, value in pair.items()
    }
    settings = {"alpha_pattern": {"out_proj": alpha}, "lora_alpha": 1}
    save_file(state, tmp_path / "odd.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ValueError, match="odd.safetensors: alpha of") as caught:
        pc.apply_lora(model, tmp_path / "odd.safetensors")
    assert len(str(caught.value)) < 500
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


def test_a_ratio_that_is_a_text_is_not_multiplied(tmp_path):
    model = pc.load_checkpoint(xpred_file(tmp_path / "sound.pt", dim=256))
    config = {"model": {"mlp_ratio": "9" * 2**22}}
    save_file(dict(model.network.state_dict()), tmp_path / "odd.safetensors", {"config": json.dumps(config)})
    tracemalloc.start()
    refused(tmp_path / "odd.safetensors", "mlp_ratio is of type str")
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
