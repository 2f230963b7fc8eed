"""LoRA files for PixelDiT2, of its own trainer (`pixeldit2-lora-v1`) and of others, and files for the wrong network."""

import json
import logging

import pytest
import torch
from checkpoints.lora_files import STYLES, agree, expected, fails, pairs_for, random_pair, saved, shapes_of, written
from helpers import close
from pixeldit2_cases import tiny as tiny2
from safetensors.torch import load_file

import pixeldit_core as pc

PATHS = ("patch_blocks.0.attn.qkv", "patch_blocks.1.mlp.w2", "patch_blocks.2.adaLN_modulation.1", "t_embedder.mlp.0",
         "s_embedder.proj", "final_layer.linear", "dino_conditioner.dino_proj.input_proj",
         "dino_conditioner.dino_proj.blocks.0.mlp.w2", "dino_conditioner.dino_proj.t_embedder.mlp.2")  # fmt: skip
RANK = 3


def own(pairs, prefix=""):
    """Tensors as the trainer writes them."""
    halves = (
        (f"{prefix}{path}.lora_{half}", value)
        for path, pair in pairs.items()
        for half, value in zip("BA", pair, strict=True)
    )
    return {name: value.clone() for name, value in halves}


def header(pairs, alpha=6.0, **changed):
    """Its header."""
    modules = [{"name": path, "rank": len(pair[1]), "alpha": alpha, "dropout": 0.0} for path, pair in pairs.items()]
    return {"format": "pixeldit2-lora-v1", "modules": json.dumps(modules), "global_step": "20000"} | changed


def pairs_of(model, paths=PATHS):
    return pairs_for(shapes_of(model), paths)


@pytest.mark.parametrize("file", ["default", "wide"])
def test_recorded_adapters(golden, file):
    case = golden("lora_adapter", "pixeldit2")
    config = case.case["config"]
    given = {name: config[name] for name in ("single_silu_cond", "in_context_start")}
    model = pc.load_checkpoint(case.checkpoint, params=given | {"encoder_num_heads": 2})
    x, t, labels = (case.inputs[name] for name in ("x", "t", "labels"))
    null = torch.full_like(labels, model.params.num_classes)
    close(model.network(x, t, labels), case.outputs["x_pred_base"], 2e-5)
    modules = case.case["files"][f"{file}.safetensors"]["modules"]
    assert pc.apply_lora(model, case.folder / f"{file}.safetensors") == len(modules)
    close(model.network(x, t, labels), case.outputs[f"x_pred_{file}"], 2e-5)
    close(model.network(x, t, null), case.outputs[f"x_pred_null_skip_{file}"], 2e-5)


def test_the_adapter_of_a_peer(golden):
    case = golden("pixeldit2-c2i", "peers")
    given = {"encoder_num_heads": 2, "in_context_start": 2, "single_silu_cond": False}
    model = pc.load_checkpoint(
        case.folder / "checkpoint.ckpt", encoder=case.folder / "encoder_timm.safetensors", params=given
    )
    assert pc.apply_lora(model, case.folder / "lora_adapter.safetensors") == 20
    x, t, labels = (case.inputs[part] for part in ("x", "t", "y"))
    found = model.network(x, t, labels, torch.zeros(len(x), dtype=torch.bool))
    close(found, case.outputs["x_pred_lora"], case.case["fp64_check"]["suggested_atol"])


@pytest.mark.parametrize("prefix", ["", "ema_denoiser.", "model.diffusion_model.", "_orig_mod."])
def test_alpha_of_each_module_is_in_the_header(tmp_path, prefix):
    model = tiny2()
    pairs = pairs_of(model)
    state = expected(model, pairs, 6.0 / RANK)
    names = {prefix.replace("_orig_mod.", "") + path: pair for path, pair in pairs.items()}
    path = saved(tmp_path / "own.safetensors", own(pairs, prefix), header(names))
    assert pc.apply_lora(model, path) == len(pairs)
    agree(model, state)


def test_without_a_header_alpha_is_the_rank(tmp_path, caplog):
    for name, metadata in (("a", None), ("b", {"format": "pixeldit2-lora-v1"})):
        model = tiny2()
        pairs = pairs_of(model)
        state = expected(model, pairs, 1.0)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            pc.apply_lora(model, saved(tmp_path / f"{name}.safetensors", own(pairs), metadata))
        assert "alpha is unknown: it is taken as the rank" in caplog.text
        agree(model, state)


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_key_styles_of_other_programs(tmp_path, style):
    model = tiny2()
    pairs = pairs_of(model)
    state = expected(model, pairs)
    assert pc.apply_lora(model, saved(tmp_path / "lora.safetensors", written(pairs, **style))) == len(pairs)
    agree(model, state)


def test_a_lora_is_merged_into_a_file(tmp_path):
    model = tiny2()
    pairs = pairs_of(model)
    lora = saved(tmp_path / "own.safetensors", own(pairs), header(pairs))
    path = pc.save_checkpoint(model, tmp_path / "base.safetensors")
    merged = pc.load_checkpoint(pc.save_checkpoint(path, tmp_path / "merged.safetensors", loras=[(lora, 0.5)]))
    agree(merged, expected(model, pairs, 0.5 * 6.0 / RANK))


@pytest.mark.parametrize("text, reason", [
    ("", "is not readable"), ("{", "is not readable"), ("[1]", "is not readable"), ('[{"name": "a"}]', "not readable"),
    ("null", "is not readable"), ("[" * 100_000, "is not readable"), ('[{"alpha": 1}]', "is not readable"),
    ('[{"name": "patch_blocks.9.attn.qkv", "rank": 3, "alpha": 1}]', "is in its list, and not in it"),
    ('[{"name": "t_embedder.mlp.0", "rank": 4, "alpha": 1}]', "rank 4 and alpha 1 for t_embedder.mlp.0"),
    ('[{"name": "t_embedder.mlp.0", "rank": "3", "alpha": 1}]', "whose first matrix is [3, 256]"),
    ('[{"name": "t_embedder.mlp.0", "rank": 3, "alpha": NaN}]', "alpha nan"),
    ('[{"name": "t_embedder.mlp.0", "rank": 3, "alpha": 1e999}]', "alpha inf"),
    ('[{"name": "t_embedder.mlp.0", "rank": 3, "alpha": "16"}]', "alpha '16'"),
    ('[{"name": "t_embedder.mlp.0", "rank": 3, "alpha": true}]', "alpha True"),
    (f'[{{"name": "t_embedder.mlp.0", "rank": 3, "alpha": {"9" * 400}}}]', "alpha 9999"),
])  # fmt: skip
def test_a_header_that_is_damaged(tmp_path, text, reason):
    model = tiny2()
    path = saved(tmp_path / "own.safetensors", own(pairs_of(model)), header({}, modules=text))
    fails(model, path, "own.safetensors", reason, "again")


def test_half_a_pair_and_other_sizes(tmp_path):
    model = tiny2()
    tensors = own(pairs_of(model))
    del tensors["s_embedder.proj.lora_B"]
    fails(model, saved(tmp_path / "half.safetensors", tensors), "s_embedder.proj.weight has no up matrix", "again")
    wide = own({"patch_blocks.0.attn.qkv": random_pair(72, 24)})
    fails(model, saved(tmp_path / "wide.safetensors", wide), "1 of 1 pairs do not fit", "[48, 16]")
    scalars = own({"patch_blocks.0.attn.qkv": [torch.ones(()), torch.ones(())]})
    fails(model, saved(tmp_path / "scalars.safetensors", scalars), "1 of 1 pairs do not fit")
    scalar = saved(tmp_path / "scalar.safetensors", own({"patch_blocks.0.attn.qkv": [torch.ones(()), torch.ones(())]}),
                   header({}, modules='[{"name": "patch_blocks.0.attn.qkv", "rank": 1, "alpha": 1}]'))  # fmt: skip
    fails(model, scalar, "scalar.safetensors", "again")


@pytest.mark.parametrize("metadata", [None, {"format": "pixeldit2-lora-v1"}])
def test_for_the_first_pixeldit_it_is_refused(tiny, tiny_t2i, tmp_path, metadata):
    """Blocks of both class-conditional networks have matrices of the same names."""
    pairs = {"patch_blocks.0.attn.qkv": random_pair(72, 24)}
    path = saved(tmp_path / "own.safetensors", own(pairs), metadata)
    for model in (tiny(), tiny_t2i()):
        fails(model, path, "is a LoRA of PixelDiT2, another network of that name", "Choose one for this model")
    second = pairs | {"patch_blocks.1.adaLN_modulation.1": random_pair(144, 24)}
    for style in (STYLES[0], STYLES[3], STYLES[11]):
        fails(tiny(), saved(tmp_path / "other.safetensors", written(second, **style)), "is a LoRA of PixelDiT2")


@pytest.mark.parametrize("style", [STYLES[0], STYLES[3], STYLES[11], STYLES[16]], ids=str)
def test_one_of_the_first_pixeldit_is_refused(tmp_path, style):
    pairs = {"patch_blocks.0.attn.qkv": random_pair(48, 16), "pixel_blocks.0.attn.proj": random_pair(16, 16)}
    fails(tiny2(), saved(tmp_path / "first.safetensors", written(pairs, **style)), "is a LoRA of the first PixelDiT")
    pairs = {"patch_blocks.0.attn.qkv_x": random_pair(48, 16)}
    fails(tiny2(), saved(tmp_path / "text.safetensors", written(pairs, **style)), "made for PixelDiT, text-to-image")


@pytest.mark.parametrize("tensors, metadata", [
    ({"source_gates": torch.zeros(2)}, None), ({"source_final_gate": torch.zeros(2)}, None),
    ({"source_dino_proj.input_proj.weight": torch.zeros(2, 2)}, None), ({}, {"format": "pixeldit2-edit-adapter-v1"}),
])  # fmt: skip
def test_an_adapter_for_editing_is_refused(tmp_path, tensors, metadata):
    model = tiny2()
    path = saved(tmp_path / "edit.safetensors", own(pairs_of(model)) | tensors, metadata)
    fails(model, path, "edit.safetensors is an adapter for editing of PixelDiT2", "second input", "Choose a LoRA")
    if tensors:
        with pytest.raises(ValueError, match="edit.safetensors is an adapter for editing"):
            pc.load_checkpoint(path)


def test_other_formats_of_the_trainer_are_refused(tmp_path):
    path = saved(tmp_path / "new.safetensors", own(pairs_of(tiny2())), {"format": "pixeldit2-lora-v2"})
    fails(tiny2(), path, "pixeldit2-lora-v2, which is not known", "newer version")


def test_a_checkpoint_of_a_lora_training_is_no_lora(tmp_path):
    state = tiny2().network.state_dict()
    path = saved(tmp_path / "run.pt", {f"{key[:-7]}.base_layer.weight" if "qkv.weight" in key else key: value
                                       for key, value in state.items()})  # fmt: skip
    fails(tiny2(), path, "is a whole model with a LoRA in it", "Save the LoRA alone")
    assert load_file(pc.save_checkpoint(tiny2(), tmp_path / "whole.safetensors"))
    fails(tiny2(), tmp_path / "whole.safetensors", "is a whole checkpoint (PixelDiT2), not a LoRA")
