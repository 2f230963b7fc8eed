"""Files of the x-prediction networks: detection, configurations, normalization."""

import dataclasses

import pytest
import torch
from PIL import Image
from xpred_cases import FILES, case_params, family_of, find, preset_params

import pixeldit_core as pc

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("name", FILES)
def test_everything_is_detected_from_a_file(name, tmp_path):
    case = find(name)
    info = pc.inspect_checkpoint(case.checkpoint)
    params = case_params(case.case)
    assert info.family == family_of(params).name and info.refused is None
    assert set(info.weights) == ({"ema", "raw"} if case.case["checkpoint"]["has_ema"] else {"raw"})
    same = {field.name for field in dataclasses.fields(params)}
    assert {key: getattr(info.params, key) for key in same} == {
        key: getattr(params, key) or {"pixel_mlp_hidden_dim": None}.get(key, getattr(params, key)) for key in same
    }
    model = pc.load_checkpoint(case.checkpoint)
    assert model.spec.settings_for(None).size == model.spec.default_size == (params.image_size,) * 2
    assert model.spec.trained_sizes == ((params.image_size,) * 2,)
    if info.params.num_classes == 10 and case.case["dataset_config"]["name"] == "mnist":
        assert [names[0] for names in info.class_names] == list("0123456789")
    for form in ("canonical", "comfyui"):
        again = pc.load_checkpoint(pc.save_checkpoint(case.checkpoint, tmp_path / f"{form}.safetensors", form))
        assert again.params == model.params and again.class_names == model.class_names
        state = again.network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


def test_networks_of_the_reference_s_names():
    """Its tensors decide, not its name: patch 16 under a plain name of the later revision."""
    case, count = find("name-table"), 0
    for row in (*case.case["models_R1_scripts_path"], *case.case["models_R2"]):
        if "error" in row:
            continue
        kind = row["class"].lower()
        params = preset_params(f"{'legacy-' if row['patch'] == 16 else ''}{kind}-tiny-4", row["dataset"])
        model = pc.build_model(f"xpred_{kind}", params)
        shapes = {key: tuple(value.shape) for key, value in model.network.state_dict().items()}
        assert sum(weight.numel() for weight in model.network.parameters()) == row["param_count"]
        params_of_shapes = model.family.params_from(shapes) | model.family.default_params(shapes)
        assert model.family.params(**params_of_shapes) == dataclasses.replace(
            params, image_mean=model.family.params(**params_of_shapes).image_mean
        )
        if (preset := pc.VARIANTS.get(f"{kind}-tiny/4-{row['dataset']}")) and row["patch"] == 4:
            built = pc.build_model(preset.family, preset.params).network.state_dict()
            assert {key: tuple(value.shape) for key, value in built.items()} == shapes
        count += 1
    assert count == 31


def edited(tmp_path, name, **changes):
    """A case's file with other values in its configuration."""
    stored = torch.load(find(name).checkpoint, weights_only=True)
    for part, values in changes.items():
        stored["config"][part] = {**stored["config"].get(part, {}), **values}
    path = tmp_path / "edited.pt"
    torch.save(stored, path)
    return path


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("dit-r1", {"model": {"dim": 999}}, "the config inside of it says dim = 999, its tensors say"),
        ("dit-r1", {"model": {"depth": 9}}, "the config inside of it says depth = 9"),
        ("pixeldit-r1", {"model": {"pit_dim": 99}}, "says pixel_dim = 99"),
        ("mmdit-r1", {"model": {"num_registers": 9}}, "says num_registers = 9"),
        ("mmpixeldit-r1", {"model": {"compress_ratio": 3}}, "says compress_ratio = 3"),
        ("dit-r1", {"model": {"qk_norm": "layernorm"}}, "qk_norm = 'layernorm'"),
        ("dit-r1", {"model": {"mlp_ratio": "wide"}}, "not readable"),
        ("dit-r1", {"model": {"mlp_ratio": 1e400}}, "not readable"),
        ("dit-r1", {"dataset": {"in_channels": 4}}, "says in_channels = 4"),
        ("dit-r1", {"dataset": {"normalize_std": [0.0, 0.5, 0.5]}}, "image_std"),
        ("dit-r1", {"dataset": {"normalize_mean": "gray"}}, "image_mean"),
        ("dit-r1", {"dataset": {"image_size": 400}}, "pos_embedding is"),
        ("dit-r1", {"dataset": {"image_size": "big"}}, "image_size"),
    ],
)
def test_a_configuration_that_contradicts_its_tensors_is_an_error(tmp_path, name, changes, words):
    path = edited(tmp_path, name, **changes)
    with pytest.raises(ValueError, match="edited.pt") as caught:
        pc.load_checkpoint(path)
    assert words in str(caught.value)


def test_heads_that_no_file_declares_are_requested(tmp_path):
    stored = torch.load(find("dit-r1-layernorm-noape").checkpoint, weights_only=True)
    heads = stored["config"].pop("model")
    weights = {
        key: value for key, value in stored["model_state_dict"].items() if "attn." not in key or "_norm." not in key
    }
    torch.save({"model_state_dict": weights}, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="bare.pt: heads and dim_head of this .* cannot be determined"):
        pc.load_checkpoint(tmp_path / "bare.pt")
    declared = {name: heads[name] for name in ("heads", "dim_head")}
    model = pc.load_checkpoint(tmp_path / "bare.pt", params=declared | {"image_size": 16})
    assert (model.params.heads, model.params.dim_head, model.params.image_size) == (*declared.values(), 16)


def test_mean_and_std_are_those_of_the_file(tmp_path):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model = pc.load_checkpoint(edited(tmp_path, "dit-r1", dataset={"normalize_mean": mean, "normalize_std": std}))
    assert model.params.image_mean == tuple(mean) and model.params.image_std == tuple(std)
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = pc.from_image(model, pixels)
    assert state.amax() < 2.7 and torch.equal(pc.to_uint8(model, state), pixels)


def test_memory_in_terms_of_the_official_networks():
    """Measured at 256 x 256, batch 2, float32: 253 MiB with a pixel path, 53 without; factor 1 holds 157."""
    memory = {name: pc.FAMILIES[pc.VARIANTS[name].family].memory(pc.VARIANTS[name].params) for name in pc.VARIANTS}
    assert 1.6 < memory["mmpixeldit-tiny/4-cifar10"] == memory["pixeldit-tiny/4-cifar10"] < 2.2
    others = {name: value for name, value in memory.items() if "pixeldit-tiny" not in name}
    assert {value for name, value in others.items() if pc.VARIANTS[name].family != "pixeldit2"} == {1.0}
    assert 0.1 < others["PixelDiT2-H/32"] < others["PixelDiT2-B/16"] < others["PixelDiT2-H/16"] < 0.5


def test_gray_from_rgb():
    model = pc.build_model("xpred_dit", "dit-tiny/4-mnist")
    image = Image.new("RGB", (28, 28), (255, 0, 0))
    state = pc.from_image(model, image)
    assert state.shape == (1, 1, 28, 28) and pc.to_uint8(model, state).unique().tolist() == [76]
