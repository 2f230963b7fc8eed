"""PixelDiT2's checkpoints: recorded ones, any layout, LoRA trainings, and what is guessed of their params."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from checkpoints.encoder_files import PARAMS, PLACE, bare, saved
from checkpoints.files import prefixed, same
from helpers import close, randn
from pixeldit2_cases import TINY, tiny

import pixeldit_core as pc

MODEL = tiny()
STATE = MODEL.network.state_dict()
LAYERS = ("s_embedder.proj", "patch_blocks.0.attn.qkv", "patch_blocks.2.mlp.w2", "final_layer.adaLN_modulation.1",
          "dino_conditioner.dino_proj.input_proj", "dino_conditioner.dino_proj.blocks.0.mlp.w1")  # fmt: skip


def params_of(case):
    config = case.case["config"]
    names = ("single_silu_cond", "in_context_start")
    return {"encoder_num_heads": case.case["encoder_config"]["num_heads"], **{name: config[name] for name in names}}


@pytest.mark.parametrize("name, weights, encoder", [
    ("checkpoint_released", "auto", "encoder_timm.safetensors"),
    ("checkpoint_released", "ema", "encoder_transformers"),
    ("checkpoint_released", "auto", "encoder_transformers/model.safetensors"),
    ("checkpoint_released", "auto", "encoder_original.pth"),
    ("checkpoint_encoder_without_bias", "auto", "encoder_timm.safetensors"),
    ("checkpoint_training_run", "auto", None),
    ("checkpoint_training_run", "raw", None),
    ("checkpoint_lora_run", "auto", None),
])  # fmt: skip
def test_recorded_checkpoints(golden, tmp_path, name, weights, encoder):
    case = golden(name, "pixeldit2")
    given = case.folder / encoder if encoder else None
    model = pc.load_checkpoint(case.checkpoint, weights=weights, encoder=given, params=params_of(case))
    again = pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "own.safetensors"))
    assert again.params == model.params
    end, x, t, labels = ("_raw" if weights == "raw" else ""), *(case.inputs[name] for name in ("x", "t", "labels"))
    null = torch.full_like(labels, model.params.num_classes)
    for loaded in (model, again):
        close(loaded.network(x, t, labels), case.outputs[f"x_pred{end}"], 2e-5)
        close(loaded.network(x, t, null), case.outputs[f"x_pred_null_skip{end}"], 2e-5)


@pytest.mark.parametrize("name", ["pixeldit2-c2i", "pixeldit2-c2i-512style"])
@pytest.mark.parametrize("encoder", ["encoder_timm.safetensors", "encoder_transformers.safetensors", None])
def test_checkpoints_of_a_peer(golden, name, encoder):
    case = golden(name, "peers")
    path, given = case.folder / "checkpoint.ckpt", case.folder / encoder if encoder else None
    x, t, labels = (case.inputs[part] for part in ("x", "t", "y"))
    tolerance = case.case["fp64_check"]["suggested_atol"]
    if given is None and name == "pixeldit2-c2i":
        with pytest.raises(ValueError, match="2 encoders fit it"):
            pc.load_checkpoint(path, params=params_of(case))
        model = pc.load_checkpoint(path, encoder="none", params=params_of(case))
    else:
        model = pc.load_checkpoint(path, encoder=given, params=params_of(case))
        close(model.network(x, t, labels, torch.zeros(len(x), dtype=torch.bool)), case.outputs["x_pred"], tolerance)
    skip = torch.ones(len(x), dtype=torch.bool)
    close(model.network(x, t, labels, skip), case.outputs["x_pred_skip_grounding"], tolerance)
    if name.endswith("512style"):
        assert pc.inspect_checkpoint(path).params.single_silu_cond and model.params.noise_scale == 2


@pytest.mark.parametrize("prefix, weights", [
    ("", "raw"), ("denoiser.", "raw"), ("ema_denoiser.", "ema"), ("model.diffusion_model.", "raw"),
    ("ema_denoiser._orig_mod.", "ema"), ("module.denoiser.", "raw"), ("transformer.", "raw"), ("net_ema.", "ema"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_prefixes(tmp_path, prefix, weights, suffix):
    path = saved(tmp_path / f"file{suffix}", prefixed(prefix, STATE))
    model = pc.load_checkpoint(path, params=PARAMS)
    assert same(model, STATE) and model.spec.weights == weights and model.params == MODEL.params
    assert pc.inspect_checkpoint(path).title == "PixelDiT2"


def test_what_a_trainer_saves_beside(tmp_path):
    others = {f"diffusion_trainer.proj.{index}.weight": torch.zeros(2, 2) for index in (0, 2, 4)}
    stored = {"state_dict": prefixed("ema_denoiser.", STATE) | others, "global_step": 7, "optimizer_states": []}
    assert same(pc.load_checkpoint(saved(tmp_path / "run.ckpt", stored), params=PARAMS), STATE)


@pytest.mark.parametrize("missing", ["final_layer.norm.weight", "patch_blocks.1.mlp.w3.weight", "in_context_posemb"])
def test_a_tensor_that_is_missing(tmp_path, missing):
    """Without context tokens there is no table of theirs, so nothing tells that it is missing."""
    path = saved(tmp_path / "part.safetensors", {key: value for key, value in STATE.items() if key != missing})
    if missing == "in_context_posemb":
        assert pc.load_checkpoint(path, params=PARAMS).params.in_context_len == 0
    else:
        with pytest.raises(ValueError, match=f"part.safetensors: 1 of .* missing: {missing}"):
            pc.load_checkpoint(path)


@pytest.mark.parametrize("extra, reason", [
    ("pixel_blocks.0.attn.proj.weight", "do not belong to PixelDiT2"),
    ("source_dino_proj.input_proj.weight", "a PixelDiT2 with an adapter for editing"),
    ("source_final_gate", "a PixelDiT2 with an adapter for editing"),
    ("patch_blocks.0.experts.0.w1.weight", "a mixture of experts"),
    ("dino_conditioner.encoder.pos_embed", "do not belong to PixelDiT2"),
])  # fmt: skip
def test_more_than_a_network_has(tmp_path, extra, reason):
    path = saved(tmp_path / "more.safetensors", STATE | {extra: torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=f"more.safetensors.*{reason}"):
        pc.load_checkpoint(path)


def lora_run(layers=LAYERS, prefix="", rank=2):
    """A file of a LoRA training, and the weights that it should give with alpha = rank."""
    stored, merged = dict(STATE), dict(STATE)
    for seed, layer in enumerate(layers):
        weight = stored.pop(f"{layer}.weight")
        down, up = randn(rank, weight.shape[1], seed=seed), randn(len(weight), rank, seed=seed + 99)
        stored |= {f"{layer}.base_layer.weight": weight, f"{layer}.lora_A": down, f"{layer}.lora_B": up}
        if f"{layer}.bias" in stored:
            stored[f"{layer}.base_layer.bias"] = stored.pop(f"{layer}.bias")
        merged[f"{layer}.weight"] = weight + up @ down
    return prefixed(prefix, stored), merged


@pytest.mark.parametrize("prefix", ["", "ema_denoiser.", "ema_denoiser._orig_mod."])
def test_a_lora_training_is_merged_with_its_rank_as_alpha(tmp_path, caplog, prefix):
    stored, merged = lora_run(prefix=prefix)
    path = saved(tmp_path / "run.ckpt", {"state_dict": stored})
    with caplog.at_level(logging.INFO):
        model = pc.load_checkpoint(path, params=PARAMS)
    for key, value in model.network.state_dict().items():
        close(value, merged[key], 1e-5, key)
    assert (
        "run.ckpt: merged the LoRA in it (6 layers, rank 2) with alpha = rank; the file does not have it" in caplog.text
    )
    info = pc.inspect_checkpoint(path)
    assert (info.family, info.refused, info.encoder) == ("pixeldit2", None, True)
    model = pc.load_checkpoint(path, params=PARAMS | {"lora_alpha": 1})
    for layer in LAYERS:
        key = f"{layer}.weight"
        close(model.network.state_dict()[key], (STATE[key] + merged[key]) / 2, 1e-5, key)


def test_of_two_sets_of_a_lora_training_the_chosen_one_is_merged(tmp_path):
    (ema, merged), (raw, _) = lora_run(prefix="ema_denoiser."), lora_run(LAYERS[:2], "denoiser.")
    path = saved(tmp_path / "run.ckpt", {"state_dict": ema | raw})
    for key, value in pc.load_checkpoint(path, params=PARAMS).network.state_dict().items():
        close(value, merged[key], 1e-5, key)
    found = pc.load_checkpoint(path, params=PARAMS, weights="raw").network.state_dict()
    assert torch.equal(found["patch_blocks.2.mlp.w2.weight"], STATE["patch_blocks.2.mlp.w2.weight"])
    assert not torch.equal(found["s_embedder.proj.weight"], STATE["s_embedder.proj.weight"])


@pytest.mark.parametrize("change, reason", [
    (lambda run: run.pop("s_embedder.proj.lora_A"), "s_embedder.proj has no lora_A"),
    (lambda run: run.pop("s_embedder.proj.lora_B"), "s_embedder.proj has no lora_B"),
    (lambda run: run.update({"s_embedder.proj.lora_A": torch.ones(2, 3)}), "does not fit its weight"),
    (lambda run: run.update({"s_embedder.proj.lora_A": torch.ones(0, 48)}), "does not fit its weight"),
    (lambda run: run.update({"s_embedder.proj.lora_A": torch.ones(2)}), "does not fit its weight"),
    (lambda run: run.update({"s_embedder.proj.lora_B": torch.ones(())}), "does not fit its weight"),
    (lambda run: run.update({"patch_blocks.0.attn.proj.lora_A": torch.ones(2, 16)}), "LoRA was not merged"),
])  # fmt: skip
def test_a_damaged_lora_training(tmp_path, change, reason):
    stored, _ = lora_run()
    change(stored)
    path = saved(tmp_path / "run.safetensors", stored)
    with pytest.raises(ValueError, match=f"run.safetensors.*{reason}"):
        pc.load_checkpoint(path, params=PARAMS)
    assert reason in pc.inspect_checkpoint(path).refused


@pytest.mark.parametrize("alpha", ["16", float("nan"), True, [1]])
def test_an_alpha_that_is_no_number(tmp_path, alpha):
    path = saved(tmp_path / "run.safetensors", lora_run()[0])
    with pytest.raises(ValueError, match="run.safetensors: params has lora_alpha"):
        pc.load_checkpoint(path, params=PARAMS | {"lora_alpha": alpha})
    plain = saved(tmp_path / "plain.safetensors", STATE)
    with pytest.raises(ValueError, match='params has "lora_alpha", which is not a parameter of PixelDiT2'):
        pc.load_checkpoint(plain, params=PARAMS | {"lora_alpha": 1})


def test_guesses_are_in_the_log_once(tmp_path, caplog):
    path = saved(tmp_path / "bare.safetensors", STATE)
    with caplog.at_level(logging.INFO):
        pc.load_checkpoint(path)
    (line,) = [text for text in caplog.messages if "not in the file" in text]
    for text in ("in_context_start = 2", "encoder_num_heads = 1", "single_silu_cond = False", "noise_scale = 1.0"):
        assert text in line
    caplog.clear()
    with caplog.at_level(logging.INFO):
        pc.load_checkpoint(path, params=PARAMS)
        pc.load_checkpoint(path, encoder="none", params={key: PARAMS[key] for key in PARAMS if "encoder" not in key})
        pc.inspect_checkpoint(path)
    assert "not in the file" not in caplog.text


@pytest.mark.parametrize("sizes, expected", [
    ({}, (False, 1.0)), ({"mlp_hidden_size": 64}, (True, 2.0)), ({"encoder_dim": 768}, (True, 2.0)),
    ({"encoder_dim": 384}, (False, 1.0)),
])  # fmt: skip
def test_the_larger_of_both_published_networks_is_guessed_by_its_sizes(tmp_path, sizes, expected):
    path = saved(tmp_path / "bare.safetensors", bare(tiny(replace(TINY, encoder_depth=0, **sizes))))
    params = pc.inspect_checkpoint(path).params
    assert (params.single_silu_cond, params.noise_scale) == expected


@pytest.mark.parametrize("name, value, reason", [
    ("in_context_start", 3, "in_context_start is 3; it must be one of the 3 patch blocks, 0 to 2"),
    ("in_context_start", -1, "in_context_start is -1"), ("in_context_start", 0.5, "in_context_start is 0.5"),
    ("encoder_num_heads", 3, "encoder_num_heads is 3"), ("encoder_num_heads", 0, "encoder_num_heads is 0"),
    ("noise_scale", 0, "noise_scale is 0"), ("noise_scale", "2", "noise_scale is '2'"),
    ("single_silu_cond", 1, "single_silu_cond is 1"),
    ("grounding_proj_blocks", 2, "its tensors say 1"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["params", "its metadata"])
def test_params_that_no_network_can_have(tmp_path, name, value, reason, place):
    about = {"family": "pixeldit2", "params": PARAMS | ({name: value} if place != "params" else {})}
    path = saved(tmp_path / "odd.safetensors", STATE, {"pixeldit": json.dumps(about)})
    with pytest.raises(ValueError) as raised:
        pc.load_checkpoint(path, params={name: value} if place == "params" else None)
    for text in (path.name, reason, place):
        assert text in str(raised.value)
    assert "damaged" not in str(raised.value)


def test_the_depth_of_an_encoder_is_that_of_its_tensors(tmp_path):
    about = {"family": "pixeldit2", "params": PARAMS | {"encoder_depth": 12}}
    path = saved(tmp_path / "own.safetensors", STATE, {"pixeldit": json.dumps(about)})
    assert pc.load_checkpoint(path).params.encoder_depth == 2
    with pytest.raises(ValueError, match="says encoder_depth = 1, its tensors say 2"):
        pc.load_checkpoint(path, params={"encoder_depth": 1})


def test_a_file_of_shapes_that_fit_no_network_is_to_blame_itself(tmp_path):
    odd = STATE | {"patch_blocks.0.attn.q_norm.weight": torch.ones(7)}
    with pytest.raises(ValueError, match="odd.safetensors.*16 channels do not divide into heads of 7.*incomplete"):
        pc.load_checkpoint(saved(tmp_path / "odd.safetensors", odd), params=PARAMS)


def test_ours_and_comfyui_s_files_without_guesses(tmp_path, caplog):
    params = replace(TINY, single_silu_cond=True, in_context_start=0, noise_scale=1.5, encoder_num_heads=1)
    model = tiny(params)
    for layout in ("canonical", "comfyui"):
        path = pc.save_checkpoint(model, tmp_path / f"{layout}.safetensors", layout)
        with caplog.at_level(logging.INFO):
            again = pc.load_checkpoint(path)
        assert again.params == params and same(again, model.network.state_dict())
    assert "not in the file" not in caplog.text


def test_float8_and_back(tmp_path):
    path = pc.save_checkpoint(MODEL, tmp_path / "small.safetensors", dtype=torch.float8_e4m3fn)
    info = pc.inspect_checkpoint(path)
    assert (info.family, info.quantization, info.encoder, info.refused) == ("pixeldit2", "fp8", True, None)
    state = pc.load_checkpoint(path).network.state_dict()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE if key.startswith(PLACE))
    close(state["patch_blocks.0.attn.qkv.weight"], STATE["patch_blocks.0.attn.qkv.weight"], 0.05)
