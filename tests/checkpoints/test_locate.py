"""Checkpoints of more than one file: diffusers folders, sharded ones, and what a config beside them declares."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.settings import SETTINGS

INDEX = "diffusion_pytorch_model.safetensors.index.json"
# golden case of a folder, its family, and what its files declare of the sampling
FOLDERS = {
    "bili-c2i": ("pixeldit", {"timeshift": 1.0, "size": (32, 32)}),
    "bili-c2i-legacy": ("pixeldit", {"timeshift": 2.0}),
    "bili-t2i": ("pixeldit_t2i", {"size": (32, 32)}),
    "bili-t2i-nrope": ("pixeldit_t2i", {"timeshift": 2.0, "size": (32, 32)}),
    "madtune-t2i": ("pixeldit_t2i", None),
    "madtune-t2i-modelst": ("pixeldit_t2i", None),
    "modular-t2i": ("pixeldit_t2i", None),
}


def outputs_of(case):
    """(arguments of the network, what the program's own network gave, tolerance)."""
    given = case.inputs
    time = given["timesteps"] if "timesteps" in given else given["t"]
    condition = next(given[name] for name in ("context", "class_labels", "y", "labels") if name in given)
    expected = case.outputs["velocity"] if "velocity" in case.outputs else case.outputs["output"]
    check = case.case.get("fp64_check", case.case)
    return (given["x"], time, condition), expected, check["suggested_atol_velocity"]


def shard(folder, tensors, count=3, name="diffusion_pytorch_model"):
    """The tensors as `count` shards with their index, as transformers and diffusers write them; -> index."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{name}-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    keys = sorted(tensors)
    parts = {file: keys[number::count] for number, file in enumerate(files)}
    for file, part in parts.items():
        save_file({key: tensors[key] for key in part}, folder / file)
    weight_map = {key: file for file, part in parts.items() for key in part}
    index = folder / f"{name}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), encoding="utf-8")
    return index


def equal(a, b):
    state, other = a.network.state_dict(), b.network.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def with_config(folder, model, name="config.json", **values):
    """A file of a model, and a config beside it; -> the file."""
    path = pc.save_checkpoint(model, folder / "model.safetensors")
    save_file(load_file(path), path)  # without the metadata of our own
    (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_diffusers_folder_loads_as_its_program_reads_it(golden, name):
    case = golden(name, "peers")
    family, sampling = FOLDERS[name]
    for path in (case.folder / "model", case.folder / "model" / "transformer"):
        model = pc.load_checkpoint(path)
        config = case.case["config"]
        known = {key: value for key, value in vars(model.params).items() if key in config}
        assert known == {key: config[key] for key in known}, "no params were given: the config beside it was read"
        assert model.family.name == family and model.spec.source == path.name
        (x, time, condition), expected, tolerance = outputs_of(case)
        torch.testing.assert_close(model.network(x, time, condition), expected, atol=tolerance, rtol=0)
        info = pc.inspect_checkpoint(path)
        assert info.refused is None and info.params == model.params and info.settings == model.settings
        if sampling is None:
            assert model.settings is None, "nothing but what is published for the family"
        else:
            assert {key: getattr(model.settings, key) for key in sampling} == sampling


def test_labels_of_a_folder_name_its_classes(golden):
    model = pc.load_checkpoint(golden("bili-c2i", "peers").folder / "model")
    assert model.class_names[:3] == (
        ("tench", "Tinca tinca"),
        ("goldfish", "Carassius auratus"),
        ("great white shark",),
    )
    assert model.class_names[3:] == tuple((f"class {index}",) for index in range(3, 7))
    assert pc.class_condition(model, ["carassius auratus"]).tolist() == [1]


def test_shards_load_as_one_file_does(tiny, tmp_path):
    whole = pc.load_checkpoint(pc.save_checkpoint(tiny(), tmp_path / "whole.safetensors"))
    index = shard(tmp_path / "folder" / "transformer", whole.network.state_dict())
    for path in (index, index.parent, tmp_path / "folder"):
        assert equal(pc.load_checkpoint(path), whole)
        info = pc.inspect_checkpoint(path)
        assert info.refused is None and info.count == sum(p.numel() for p in whole.network.parameters())
        tensors, _ = pc.read_checkpoint(path)
        assert tensors.keys() == whole.network.state_dict().keys()


def test_shards_that_do_not_make_up_their_index(tiny, tmp_path):
    state = tiny().network.state_dict()

    def fails(index, *texts):
        for function in (pc.load_checkpoint, pc.inspect_checkpoint, pc.read_checkpoint):
            with pytest.raises(ValueError) as error:
                function(index)
            assert all(text in str(error.value) for text in (index.name, *texts)), error.value

    index = shard(tmp_path / "a", state)
    (index.parent / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    fails(index, "its shard diffusion_pytorch_model-00002-of-00003.safetensors is not there")

    index = shard(tmp_path / "b", state)
    save_file(state, index.parent / "diffusion_pytorch_model-00002-of-00003.safetensors")
    fails(index, "and another shard both have")

    index = shard(tmp_path / "c", state)
    save_file({"x": torch.zeros(1)}, index.parent / "diffusion_pytorch_model-00003-of-00003.safetensors")
    fails(index, "does not have", "get them again")


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "C:x.safetensors", "run.bin", ""],
)
def test_an_index_does_not_lead_out_of_its_folder(tiny, tmp_path, file):
    save_file(tiny().network.state_dict(), tmp_path / "secret.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": file}}), encoding="utf-8")
    with pytest.raises(ValueError, match="names the file .*; only .safetensors files beside it are read"):
        pc.load_checkpoint(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"x": 1}}', '{"weight_map": []}', "[" * 100_000]
)
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    for path in (tmp_path, tmp_path / INDEX):
        with pytest.raises(ValueError, match=r"(?s)index\.json (is not|is empty|has no|holds)"):
            pc.inspect_checkpoint(path)


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        pc.load_checkpoint(tmp_path / INDEX)


def test_pickled_weights_of_a_folder(tiny, tmp_path):
    folder = tmp_path / "transformer"
    folder.mkdir()
    torch.save(dict(tiny().network.state_dict()), folder / "diffusion_pytorch_model.bin")
    assert equal(pc.load_checkpoint(tmp_path), tiny())


def test_a_config_beside_a_file_tells_what_shapes_do_not(tiny_t2i, tmp_path):
    path = with_config(
        tmp_path,
        tiny_t2i(),
        architectures=["PixDiT_T2I"],
        model_type="pixeldit",
        scheduler={"flow_shift": 2.5},
        use_text_rope=False,
        text_rope_theta=500,
        use_pixel_abs_pos=None,
    )
    model = pc.load_checkpoint(path)
    assert (model.params.use_text_rope, model.params.text_rope_theta) == (False, 500)
    assert model.params.use_pixel_abs_pos is True
    assert model.settings.timeshift == 2.5 and model.settings.steps == SETTINGS["t2i-1024"].steps
    declared = pc.load_checkpoint(path, params={"use_text_rope": True})
    assert declared.params.use_text_rope is True, "the caller knows best"


def test_the_file_s_own_metadata_wins_over_a_config(tiny_t2i, tmp_path):
    model = tiny_t2i()
    path = pc.save_checkpoint(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "pixeldit", "use_text_rope": False, "flow_shift": 9}), encoding="utf-8"
    )
    loaded = pc.load_checkpoint(path)
    assert loaded.params == model.params and loaded.settings == model.settings


def test_settings_of_the_sampling_in_a_config(tiny_t2i, tmp_path):
    values = {"model_type": "pixeldit", "image_size": 512, "flow_shift": 6, "default_steps": 12, "default_cfg_scale": 4}
    settings = pc.load_checkpoint(with_config(tmp_path, tiny_t2i(), **values)).settings
    assert (settings.steps, settings.cfg, settings.timeshift, settings.size) == (12, 4, 6.0, (512, 512))


def test_the_trained_size_of_a_class_model(tiny, tmp_path):
    values = {"_class_name": "PixelDiTTransformer2DModel", "sample_size": 512}
    assert pc.load_checkpoint(with_config(tmp_path, tiny(), **values)).settings == SETTINGS["imagenet512"]


def test_a_config_that_lies_there_by_chance(tiny, tmp_path):
    for values in ({"_class_name": "FluxTransformer2DModel", "hidden_size": 7}, {"architectures": 3}, {}):
        assert pc.load_checkpoint(with_config(tmp_path, tiny(), **values)).settings is None
    other = {"_class_name": "PixelDiTModel", "hidden_size": 1536, "use_pixel_abs_pos": False}
    model = pc.load_checkpoint(with_config(tmp_path, tiny(), **other))
    assert model.params.use_pixel_abs_pos is True, "of another checkpoint in the same folder"
    (tmp_path / "config.json").write_bytes(b"\xff not JSON")
    assert equal(pc.load_checkpoint(tmp_path / "model.safetensors"), tiny())


def test_a_pipeline_s_config_must_fit(golden, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(golden("bili-c2i", "peers").folder / "model", folder)
    config = folder / "transformer" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))

    def fails(text, **changed):
        config.write_text(json.dumps(values | changed), encoding="utf-8")
        with pytest.raises(ValueError, match=text):
            pc.load_checkpoint(folder)
        assert pc.inspect_checkpoint(folder).refused

    fails("pipeline: config.json.* says hidden_size = 64, its tensors say 32", hidden_size=64)
    fails("use_pixel_abs_pos is 'yes', expected a value like True", use_pixel_abs_pos="yes")
    fails("flow_shift is 'much', expected a number above 0", flow_shift="much")
    fails("flow_shift is 0, expected a number above 0", flow_shift=0)
    fails("pipeline: in config.json default_steps is 'many', expected a number", default_steps="many")
    fails("default_cfg_scale is inf", default_cfg_scale=float("inf"))
    config.write_bytes(b"{")
    with pytest.raises(ValueError, match="config.json is not readable as JSON"):
        pc.load_checkpoint(folder)
