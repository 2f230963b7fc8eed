"""LoRA files whose names have pieces of wrappers or of a user: all are applied, and two for one weight are refused."""

import json
import logging
import time

import pytest
import torch
from checkpoints.lora_files import (
    ALPHA,
    PATHS,
    PEFT,
    RANK,
    UP_DOWN,
    agree,
    expected,
    fails,
    pairs_for,
    saved,
    shapes_of,
    written,
)

import pixeldit_core as pc
from pixeldit_core.checkpoints.lora import match_modules, read_lora
from pixeldit_core.checkpoints.lora_names import plain_module, read_part, split_name

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")
# Where training wraps a module: the whole, a block, a layer and its parts, and PEFT's own matrices
PLACES = {
    "whole": lambda path, piece: f"{piece}.{path}",
    "block": lambda path, piece: ".".join((*path.split(".")[:2], piece, *path.split(".")[2:])),
    "layer": lambda path, piece: f"{path}.{piece}",
    "two": lambda path, piece: f"_orig_mod.{'.'.join((path.split('.')[0], piece, *path.split('.')[1:]))}",
}


@pytest.mark.parametrize("end", [".safetensors", ".pt"])
@pytest.mark.parametrize("style", [dict(before="base_model.model.", **PEFT), dict(before="lora_unet_", **UP_DOWN)])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("piece", WRAPPERS)
def test_wrapped_modules_are_applied(tiny_t2i, tmp_path, piece, place, style, end):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    wrapped = {PLACES[place](path, piece): pair for path, pair in list(pairs.items())[:4]} | dict(
        list(pairs.items())[4:]  # plain ones beside them
    )
    tensors = written(wrapped, flat=style["before"] == "lora_unet_", **style)
    path = saved(tmp_path / f"lora{end}", tensors)
    assert read_lora(path, shapes_of(model)).unknown == ()
    assert pc.apply_lora(model, path) == len(PATHS)
    agree(model, state)


@pytest.mark.parametrize("piece", WRAPPERS)
def test_wrapped_matrices_of_peft_are_applied(tiny_t2i, tmp_path, piece):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    names = {"up": f"lora_B.default.{piece}.weight", "down": f"lora_A.default.{piece}.weight"}
    assert pc.apply_lora(model, saved(tmp_path / "l.pt", written(pairs, f"{piece}.base_model.model.", **names))) == 7
    agree(model, state)


@pytest.mark.parametrize("part", ["hada_w1_a", "lokr_w1", "oft_blocks", "lora_magnitude_vector", "diff"])
@pytest.mark.parametrize("name", [
    "patch_blocks.0._orig_mod.attn.qkv_x", "lora_unet_patch_blocks_0__orig_mod_attn_qkv_x",
    "lycoris__fsdp_wrapped_module_patch_blocks_0__checkpoint_wrapped_module_attn_qkv_x__orig_mod",
])  # fmt: skip
def test_modules_of_any_adapter_are_matched_without_wrappers(tiny_t2i, name, part):
    matched = match_modules([f"{name}.{part}"], shapes_of(tiny_t2i()), "file")
    assert matched.modules == {name: "patch_blocks.0.attn.qkv_x.weight"}


@pytest.mark.parametrize("style, names", [
    (PEFT, ("patch_blocks.0.attn._orig_mod.qkv_x", "patch_blocks.0.attn.qkv_x")),
    (UP_DOWN, ("lora_unet_patch_blocks_0__orig_mod_attn_qkv_x", "lora_unet_patch_blocks_0_attn_qkv_x")),
])  # fmt: skip
def test_two_modules_that_become_one_are_both_named(tiny_t2i, tmp_path, style, names):
    model = tiny_t2i()
    pair = pairs_for(shapes_of(model))[PATHS[0]]
    fails(model, saved(tmp_path / "l.safetensors", written(dict.fromkeys(names, pair), "", **style)), *names)


@pytest.mark.parametrize("key", [
    "patch_blocks.0._orig_mod.attn.qkv_x", r"patch_blocks\.0\._orig_mod\.attn\.qkv_x",
    "_fsdp_wrapped_module.patch_blocks.0.attn.qkv_x", "patch_blocks.0.attn.qkv_x", "attn.qkv_x._orig_mod",
])  # fmt: skip
@pytest.mark.parametrize("piece", ["", "_orig_mod."])
def test_patterns_of_alpha_are_compared_without_wrappers(tiny_t2i, tmp_path, key, piece):
    shapes = shapes_of(tiny_t2i())
    pairs = {f"patch_blocks.0.{piece}attn.qkv_x": pairs_for(shapes)[PATHS[0]], PATHS[1]: pairs_for(shapes)[PATHS[1]]}
    path = saved(tmp_path / "adapter_model.safetensors", written(pairs, "base_model.model.", alpha=None, **PEFT))
    settings = {"lora_alpha": 3, "alpha_pattern": {key: 12}, "rank_pattern": {key: RANK}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    lora = read_lora(path, shapes)
    assert [lora.pairs[f"{name}.weight"].scale for name in PATHS[:2]] == [12 / RANK, 1]


NAMES = ["ink-wash", "v1.2", "my style", "default_0", "weight", "lora_B", "alpha", "\u58a8\u7ed8", "a.lora_A.b", "bias"]


@pytest.mark.parametrize("end", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_adapter_may_be_any(tiny_t2i, tmp_path, name, end):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    names = {"up": f"lora_B.{name}.weight", "down": f"lora_A.{name}.weight"}
    path = saved(tmp_path / f"lora{end}", written(pairs, "base_model.model.", **names))
    lora = read_lora(path, shapes_of(model))
    assert lora.unknown == () and lora.total == len(PATHS)
    assert pc.apply_lora(model, path) == len(PATHS)
    agree(model, state)


@pytest.mark.parametrize("names", [("ink", "wash"), ("v1.2", "v1.3"), ("default", "weight")])
@pytest.mark.parametrize("spread", [False, True], ids=["same modules", "other modules"])
def test_two_adapters_are_named(tiny_t2i, tmp_path, names, spread):
    model = tiny_t2i()
    tensors = {}
    for index, name in enumerate(names):
        paths = PATHS[index : index + 1] if spread else PATHS[:2]
        style = {"up": f"lora_B.{name}.weight", "down": f"lora_A.{name}.weight"}
        tensors |= written(pairs_for(shapes_of(model), paths), "base_model.model.", alpha=None, **style)
    path = saved(tmp_path / "two.safetensors", tensors)
    fails(model, path, "two.safetensors has 2 adapters", *(f'"{name}"' for name in names), "Save the one")


def test_the_bias_of_a_pair_is_scaled_like_it(tiny_t2i, tmp_path):
    model = tiny_t2i()
    name, shapes = PATHS[-1], shapes_of(model)
    pairs = pairs_for(shapes, [name])
    bias = torch.randn(shapes[f"{name}.bias"])
    state = expected(model, pairs) | {f"{name}.bias": model.network.state_dict()[f"{name}.bias"] + ALPHA / RANK * bias}
    for adapter in ("", "ink.", "weight."):
        style = {"up": f"lora_B.{adapter}weight", "down": f"lora_A.{adapter}weight"}
        tensors = written(pairs, "base_model.model.", **style) | {f"base_model.model.{name}.lora_B.{adapter}bias": bias}
        changed = tiny_t2i()
        assert pc.apply_lora(changed, saved(tmp_path / "l.safetensors", tensors)) == 2
        agree(changed, state)


@pytest.mark.parametrize("container", ["state_dict", "lora", "lora_state_dict", "model"])
def test_a_pickled_file_may_keep_them_in_a_dictionary(tiny_t2i, tmp_path, container):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    torch.save({container: written(pairs, "base_model.model.", **PEFT), "step": 900}, tmp_path / "lora.pt")
    assert pc.apply_lora(model, tmp_path / "lora.pt") == len(PATHS)
    agree(model, state)


# Pairs of other writers, without alpha: of scale 1, whatever PEFT's settings are
OTHERS = [
    dict(before="lora_unet_", flat=True, up="lora_up.weight", down="lora_down.weight"),
    dict(before="lora_transformer_", flat=True, up="lora_up.weight", down="lora_down.weight"),
    dict(before="diffusion_model.", up="lora_up.weight", down="lora_down.weight"),
    dict(before="transformer.", up="lora.up.weight", down="lora.down.weight"),
    dict(before="", up="lora_linear_layer.up.weight", down="lora_linear_layer.down.weight"),
]


@pytest.mark.parametrize("place", ["beside", "header", "prefixed header"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("other", OTHERS, ids=lambda style: f"{style['before']}{style['up']}")
def test_the_settings_of_peft_scale_its_pairs_alone(tiny_t2i, tmp_path, other, rslora, place):
    shapes = shapes_of(tiny_t2i())
    pairs = pairs_for(shapes, PATHS[:3])
    of_peft, foreign, with_alpha = ({path: pairs[path]} for path in PATHS[:3])
    start = "transformer." if place == "prefixed header" else ""
    tensors = written(of_peft, start or "base_model.model.", alpha=None, **PEFT)
    tensors |= written(foreign, alpha=None, **other) | written(with_alpha, alpha=1.5, **other)
    settings = {f"{start}{key}": value for key, value in (("r", RANK), ("lora_alpha", 6), ("use_rslora", rslora))}
    header = {"lora_adapter_metadata": json.dumps(settings)} if "header" in place else None
    if header is None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    lora = read_lora(saved(tmp_path / "mixed.safetensors", tensors, header), shapes)
    scales = [lora.pairs[f"{path}.weight"].scale for path in PATHS[:3]]
    assert scales == pytest.approx([6 / RANK ** (0.5 if rslora else 1), 1, 1.5 / RANK])


def test_an_alpha_that_is_unknown_is_said(tiny_t2i, tmp_path, caplog):
    shapes = shapes_of(tiny_t2i())
    path = saved(tmp_path / "l.safetensors", written(pairs_for(shapes), "base_model.model.", alpha=None, **PEFT))
    with caplog.at_level(logging.WARNING):
        pc.apply_lora(tiny_t2i(), path)
    assert "adapter_config.json" in caplog.text and "taken as the rank" in caplog.text
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 3}')
    assert read_lora(path, shapes).notes == ()
    assert read_lora(saved(path, written(pairs_for(shapes), "base_model.model.", **PEFT)), shapes).notes == ()


def test_whole_tensors_beside_the_pairs_are_said(tiny_t2i, tmp_path):
    model = tiny_t2i()
    name = "base_model.model.final_layer.linear.weight"
    tensors = written(pairs_for(shapes_of(model))) | {name: torch.zeros(shapes_of(model)["final_layer.linear.weight"])}
    lora = read_lora(saved(tmp_path / "l.safetensors", tensors), shapes_of(model))
    assert lora.unknown == (name,) and "1 whole tensor of the network" in lora.notes[0] and name in lora.notes[0]


def test_names_are_taken_apart_at_the_first_piece_of_an_adapter():
    assert split_name("a.b.lora_A.v1.2.weight") == ("a.b", "lora_A.v1.2.weight")
    assert split_name("lora_unet_a_b.lora_down.weight") == ("lora_unet_a_b", "lora_down.weight")
    assert split_name("text_encoder.lora_te_a.alpha") == ("text_encoder.lora_te_a", "alpha")
    assert split_name("a.b.weight") == ("a.b.weight", None)
    assert (part := read_part("lora_A.lora_B.weight")) and (part.role, part.adapter) == ("down", "lora_B")
    assert (part := read_part("lora_A")) and (part.role, part.peft) == ("down", False)  # PixelDiT2's
    assert read_part("lora_A.default") is None and read_part("lora_A.bias") is None and read_part("hada_w1_a") is None
    assert plain_module("a__orig_mod__checkpoint_wrapped_module_b") == plain_module("a_b") == "a_b"


@pytest.mark.parametrize("start, end", [(".lora_A", ".weigh"), (".weight", ""), ("_orig_mod_", ""), ("._orig_mod", "")])
def test_no_name_takes_long(start, end):
    name = "lora_A" + start * 20_000 + end
    begin = time.process_time()
    for found in (split_name(f"x.{name}"), split_name(f"{name}.weight")):
        read_part(found[1] or "")
    plain_module(name)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    "before", ["dit.", "pipe.dit.", "generator.", "velocity_model.", "my_trainer.backbone.", "params."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_any_words_before_the_paths_of_blocks(tiny_t2i, tmp_path, before, suffix):
    pairs = pairs_for(shapes_of(tiny_t2i()))  # y_embedder.proj among them, whose path has no number
    path = saved(tmp_path / f"x{suffix}", written(pairs, before=before, **PEFT))
    model = tiny_t2i()
    assert pc.apply_lora(model, path) == len(pairs)
    agree(model, expected(tiny_t2i(), pairs))


@pytest.mark.parametrize("before", ["lora_dit_", "lora_net_", "lora_pixeldit_", "lora_model_", "lora_unet_generator_"])
def test_usual_words_before_the_paths_of_kohya(tiny_t2i, tmp_path, before):
    pairs = pairs_for(shapes_of(tiny_t2i()))
    path = saved(tmp_path / "x.safetensors", written(pairs, before=before, flat=True, **UP_DOWN))
    model = tiny_t2i()
    assert pc.apply_lora(model, path) == len(pairs)
    agree(model, expected(tiny_t2i(), pairs))


@pytest.mark.parametrize("before", ["critic.", "teacher.", "controlnet.", "text_encoder.", "dit.blocks.3."])
def test_words_of_another_network_are_not_taken(tiny_t2i, tmp_path, before):
    pairs = pairs_for(shapes_of(tiny_t2i()))
    path = saved(tmp_path / "x.safetensors", written(pairs, before=before, **PEFT))
    fails(tiny_t2i(), path, "none of its 7 modules is in this network")


def test_a_joint_block_of_another_model_is_not_ours():
    shapes = {"blocks.0.attn.qkv.weight": (24, 8)}
    for module in ("lora_unet_joint_blocks_0_attn_qkv", "lora_unet_double_blocks_0_attn_qkv"):
        assert not match_modules([f"{module}.lora_up.weight"], shapes, "x").modules
