"""Files of the text-to-image model as many programs write them."""

import dataclasses
import json
import pickle
import shutil
import struct

import pytest
import torch
from checkpoints.files import golden_weights, prefixed, same
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors

PROJECTOR = {
    f"_repa_projector.{number}.{kind}": torch.zeros(3, 3) for number in (0, 2, 4) for kind in ("weight", "bias")
}

NOT_IN_SHAPES = {"use_text_rope", "text_rope_theta", "use_pixel_abs_pos", "image_mean", "image_std"}


def tolerance(case):
    return case.case.get("fp64_check", case.case).get("suggested_atol_velocity", 2e-5)


def velocity_of(case):
    """(x, network time, text) and what the program's own network gave: the velocity towards the noise."""
    given = {name: value for name, value in case.inputs.items() if name in ("timesteps", "t", "context", "y")}
    time, text = (
        next(given[name] for name in names if name in given) for names in (("timesteps", "t"), "context y".split())
    )
    return (case.inputs["x"], time, text), case.outputs.get("velocity", case.outputs.get("output"))


# system, case, and what its header declares: prefix, weights, split pixel blocks
WRITTEN = [
    ("official", "t2i_forward_p8_24x32_ddp", "core.", ("ema", "raw"), False),
    ("official", "t2i_forward_p16_32x32_fsdp", "core.", ("raw",), False),
    ("official", "t2i_forward_p4_16x12_longtext", "core.", ("raw",), False),
    ("peers", "comfy-t2i-core", "core.", ("raw",), False),
    ("peers", "comfy-t2i-longtext", "core.", ("raw",), False),
    ("peers", "comfy-t2i-split-bare", "canonical", ("raw",), True),
    ("peers", "comfy-t2i-split-saved", "model.diffusion_model.", ("raw",), True),
    ("peers", "comfy-t2i-img2img", "canonical", ("raw",), False),
    ("peers", "comfy-t2i-img2img-inpaint", "core.", ("raw",), True),
    ("peers", "comfy-t2i-fp8-plain", "core.", ("raw",), False),
    ("peers", "bili-t2i", "canonical", ("raw",), False),
    ("peers", "bili-t2i-nrope", "canonical", ("raw",), False),
    ("peers", "madtune-t2i", "model.", ("raw",), False),
    ("peers", "madtune-t2i-modelst", "model.", ("raw",), False),
    ("peers", "modular-t2i", "core.", ("raw",), False),
]


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("system, name, layout, weights, split", WRITTEN)
def test_a_file_of_another_program_gives_its_velocity(golden, system, name, layout, weights, split):
    case = golden(name, system)
    path, config = golden_weights(case), case.case["config"]
    declared = {key: value for key, value in config.items() if key in NOT_IN_SHAPES}
    model = pc.load_checkpoint(path, params=declared)
    stored, _ = pc.read_checkpoint(path)
    assert any("_modulation_msa." in key for key in stored) == split

    known = vars(model.params)
    assert {key: known[key] for key in config if key in known} == {k: v for k, v in config.items() if k in known}
    assert model.family.name == "pixeldit_t2i" and model.spec.weights == "raw"
    arguments, expected = velocity_of(case)
    torch.testing.assert_close(model.network(*arguments), expected, atol=tolerance(case), rtol=0)

    info = pc.inspect_checkpoint(path)
    assert (info.family, info.title, info.layout) == ("pixeldit_t2i", "PixelDiT, text-to-image", layout)
    assert (info.weights, info.refused, info.class_names) == (weights, None, None)
    assert info.params == dataclasses.replace(model.params, **{k: getattr(info.params, k) for k in NOT_IN_SHAPES})
    assert info.count == sum(parameter.numel() for parameter in model.network.parameters())
    assert info.quantization == ("fp8" if name.endswith("fp8-plain") else None)


def test_params_that_shapes_do_not_show_change_the_output(golden, tmp_path):
    case = golden("bili-t2i-nrope", "peers")
    config = json.loads(next(case.folder.glob("model/transformer/config.json")).read_text(encoding="utf-8"))
    assert config["use_text_rope"] is False
    path = tmp_path / "alone.safetensors"  # away from its config
    shutil.copy(golden_weights(case), path)
    model = pc.load_checkpoint(path)
    assert model.params.use_text_rope is True
    arguments, expected = velocity_of(case)
    assert (model.network(*arguments) - expected).abs().max() > 0.1
    with pytest.raises(ValueError, match='params has "num_text_blocks", which is not a parameter of PixelDiT, text'):
        pc.load_checkpoint(path, params={"num_text_blocks": 4})
    with pytest.raises(ValueError, match="params says txt_max_length = 300, its tensors say 8"):
        pc.load_checkpoint(path, params={"txt_max_length": 300})


def test_the_trainer_s_random_state_loads_without_running_code(golden):
    path = golden_weights(golden("t2i_forward_p8_24x32_ddp"))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    stored, about = pc.read_checkpoint(path)
    assert all(isinstance(value, torch.Tensor) for value in stored.values())
    assert not any("rng" in key or "optimizer" in key for key in stored)
    assert any("_repa_projector." in key for key in stored) and about["epoch"] == "3"


def test_a_sharded_trainer_s_file_has_no_averaged_weights(golden):
    path = golden_weights(golden("t2i_forward_p16_32x32_fsdp"))
    with pytest.raises(ValueError, match="has no ema weights, only raw"):
        pc.load_checkpoint(path, weights="ema")


@pytest.mark.parametrize("raw, ema", [("core.", "core."), ("module.core.", "module.core."), ("", "")])
def test_raw_weights_are_preferred(tiny_t2i, tmp_path, raw, ema):
    states = {"raw": tiny_t2i(seed=1).network.state_dict(), "ema": tiny_t2i(seed=2).network.state_dict()}
    path = tmp_path / "epoch_3.pth"
    torch.save(
        {
            "state_dict": prefixed(raw, states["raw"]) | PROJECTOR,
            "state_dict_ema": prefixed(ema, states["ema"]) | PROJECTOR,
            "optimizer": {"state": [torch.zeros(3)]},
            "epoch": 3,
        },
        path,
    )
    assert pc.inspect_checkpoint(path).weights == ("ema", "raw")
    for choice, expected in {"auto": "raw", "raw": "raw", "ema": "ema"}.items():
        model = pc.load_checkpoint(path, weights=choice)
        assert same(model, states[expected]) and model.spec.weights == expected
    saved = pc.save_checkpoint(path, tmp_path / "ema.safetensors", "comfyui", weights="ema")
    assert same(pc.load_checkpoint(saved), states["ema"])


def test_averaged_weights_beside_raw_ones_in_one_dictionary(tiny_t2i, tmp_path):
    states = {"raw": tiny_t2i(seed=1).network.state_dict(), "ema": tiny_t2i(seed=2).network.state_dict()}
    path = tmp_path / "net.safetensors"
    save_file(prefixed("net.", states["raw"]) | prefixed("net_ema.", states["ema"]), path)
    assert same(pc.load_checkpoint(path), states["raw"])
    assert same(pc.load_checkpoint(path, weights="ema"), states["ema"])
    save_file(prefixed("net_ema.", states["ema"]), path)
    model = pc.load_checkpoint(path)
    assert same(model, states["ema"]) and model.spec.weights == "ema"


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "core.",
        "model.",
        "module.core.",
        "net.",
        "net.core.",
        "model.diffusion_model.",
        "model.diffusion_model.core.",
        "diffusion_model.core.",
        "_orig_mod.core.",
        "module._orig_mod.core.",
        "transformer.core.",
    ],
)
def test_prefixes(tiny_t2i, tmp_path, prefix, split):
    state = tiny_t2i().network.state_dict()
    stored = prefixed(prefix, split_tensors(state) if split else state)
    beside = prefix.removesuffix("core.")  # the projector of the trainer is outside of the network
    paths = [tmp_path / "file.safetensors", tmp_path / "file.pth"]
    save_file(stored | prefixed(beside, PROJECTOR), paths[0])
    torch.save({"state_dict": stored | prefixed(beside, PROJECTOR)}, paths[1])
    for path in paths:
        model = pc.load_checkpoint(path)
        assert same(model, state) and model.params == tiny_t2i().params and model.spec.weights == "raw"
        info = pc.inspect_checkpoint(path)
        layout = prefix.replace("_orig_mod.", "") or "canonical"
        assert (info.layout, info.family, info.params) == (layout, "pixeldit_t2i", model.params)
        assert info.count == sum(value.numel() for value in state.values()) and info.dtype == torch.float32


def test_leftovers_of_trainers_are_ignored_and_nothing_else(tiny_t2i, tmp_path):
    state = prefixed("core.", tiny_t2i().network.state_dict())
    path = tmp_path / "published.safetensors"
    leftovers = ("pos_embed", "y_embedder.y_embedding", "_repa_projector.0.weight", "core.y_embedder.y_embedding")
    save_file(state | {key: torch.zeros(2) for key in leftovers}, path)
    assert same(pc.load_checkpoint(path), tiny_t2i().network.state_dict())
    for key in ("core.y_embedder.extra", "core.patch_blocks.0.attn.qkv_x.bias", "x_embedder.weight", "repa.0.weight"):
        save_file(state | {key: torch.zeros(2)}, path)
        with pytest.raises(ValueError, match=f"1 tensors do not belong to PixelDiT, text-to-image: {key}"):
            pc.load_checkpoint(path)
        assert key in pc.inspect_checkpoint(path).refused


def test_the_last_text_weights_have_no_effect_and_are_loaded_all_the_same(tiny_t2i, tmp_path):
    model = tiny_t2i()
    x, text = torch.randn(1, 3, 8, 8), torch.randn(1, 6, 12)
    before = model.velocity(x, 0.5, text)
    last = model.network.patch_blocks[-1]
    for module in (last.attn.q_norm_y, last.attn.proj_y, last.mlp_y, last.norm_y2):
        for parameter in module.parameters():
            parameter.add_(1.0)
    assert torch.equal(model.velocity(x, 0.5, text), before)
    again = pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "own.safetensors"))
    assert same(again, model.network.state_dict())
    last.attn.qkv_y.weight.add_(1.0)
    assert not torch.allclose(model.velocity(x, 0.5, text), before, atol=1e-3)


@pytest.mark.parametrize("name, layout", [
    ("pixeldit-t2i-1300m-core", "canonical"),
    ("pixeldit-t2i-1300m-wrapper", "core."),
    ("comfy-t2i-1300m-ondisk-core", "core."),
    ("comfy-t2i-1300m-split-saved", "model.diffusion_model."),
    ("bili-t2i-1300m", "canonical"),
    ("madtune-t2i-1300m", "model."),
])  # fmt: skip
def test_the_published_file_is_known_by_its_header_alone(published_keys, tmp_path, name, layout):
    """A file of gigabytes that has a header and a hole."""
    header, end = {}, 0
    for key, shape in published_keys(name)["keys"].items():
        size = 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path = tmp_path / "pixeldit_1300m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    info = pc.inspect_checkpoint(path)
    path.unlink()
    published = pc.VARIANTS["PixelDiT-T2I"].params
    assert info.params == dataclasses.replace(published, mlp_hidden_size=4096) and published.mlp_width == 4096
    assert (info.count, info.dtype, info.layout, info.refused) == (1_302_470_787, torch.bfloat16, layout, None)
