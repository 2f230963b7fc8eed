"""LoRA files: every key style, where their scale is, and merging."""

import hashlib
import json
import logging

import pytest
import torch
from checkpoints.lora_files import (
    ALPHA,
    MODULATION,
    PATHS,
    PEFT,
    RANK,
    STYLES,
    agree,
    expected,
    pairs_for,
    random_pair,
    saved,
    shapes_of,
    written,
)

import pixeldit_core as pc
from pixeldit_core.checkpoints.lora import match_modules, merge_lora, read_lora


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("name", [
    "lora_peft", "lora_peft/adapter_model.safetensors",
    "lora_diffusers", "lora_diffusers/pytorch_lora_weights.safetensors",
])  # fmt: skip
def test_a_lora_of_another_program_gives_its_velocity(golden, name):
    case = golden("madtune-t2i", "peers")
    path = case.folder / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    model = pc.load_checkpoint(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    assert pc.apply_lora(model, case.folder / name) == 8
    given = (case.inputs["x"], case.inputs["t"], case.inputs["y"])
    torch.testing.assert_close(model.network(*given), case.outputs["velocity_lora"], atol=1e-4, rtol=0)
    assert (case.outputs["velocity_lora"] - case.outputs["velocity"]).abs().max() > 1
    assert hashlib.sha256(path.read_bytes()).digest() == before  # weights may be mapped from their file

    declared = case.case["lora"]
    lora = read_lora(case.folder / name, shapes_of(model))
    assert {pair.scale for pair in lora.pairs.values()} == {declared["scale"]}
    assert {pair.alpha for pair in lora.pairs.values()} == {declared["alpha"]}
    assert (lora.total, lora.unknown, lora.source) == (8, (), "/".join(name.split("/")[1:]) or lora.source)
    assert lora.source.endswith(".safetensors")


@pytest.mark.parametrize("end", [".safetensors", ".pt"])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style['before']}*.{style['up']}")
def test_every_style_gives_the_same_weights(tiny_t2i, tmp_path, style, end):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    path = saved(tmp_path / f"lora{end}", written(pairs, **style))
    lora = read_lora(path, shapes_of(model))
    assert set(lora.pairs) == {f"{path}.weight" for path in PATHS}
    assert (lora.total, lora.unknown, lora.source) == (len(PATHS), (), path.name)
    assert pc.apply_lora(model, path) == len(PATHS)
    agree(model, state)


ADAPTERS = [
    ["lora_up.weight", "lora_down.weight", "alpha", "dora_scale"],
    ["lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight"],
    ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "alpha"],
    ["lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"],
    ["oft_blocks", "rescale", "alpha"],
    ["oft_R.default.weight"],
    ["a1.weight", "a2.weight", "b1.weight", "b2.weight"],
    ["diff", "diff_b"],
    ["w_norm", "b_norm"],
    ["set_weight"],
]


@pytest.mark.parametrize("parts", ADAPTERS, ids=lambda parts: parts[0])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style["before"])
def test_modules_of_any_adapter_are_matched_by_name(tiny_t2i, parts, style):
    paths = (*PATHS, f"{MODULATION}_msa", f"{MODULATION}_mlp")
    names = {style["before"] + (path.replace(".", "_") if style.get("flat") else path): path for path in paths}
    keys = [f"{name}.{part}" for name in (*names, "lora_te_layer", "patch_blocks.9.attn.qkv_x") for part in parts]
    matched = match_modules([*keys, "odd"], shapes_of(tiny_t2i()), "file")
    assert matched.modules == {name: f"{path}.weight" for name, path in names.items()}
    assert matched.unknown == ["lora_te_layer", "patch_blocks.9.attn.qkv_x", "odd"]
    assert matched.total == len(paths) + 3


def test_every_matrix_of_both_networks_is_found_by_every_name(tiny, tiny_t2i, tmp_path):
    for model in (tiny(), tiny_t2i()):
        shapes = shapes_of(model)
        names = [key for key, shape in shapes.items() if key.endswith(".weight") and len(shape) == 2]
        pairs = pairs_for(shapes, [name.removesuffix(".weight") for name in names])
        for style in (STYLES[0], STYLES[3], STYLES[9]):
            lora = read_lora(saved(tmp_path / "all.safetensors", written(pairs, **style)), shapes)
            assert sorted(lora.pairs) == sorted(names) and not lora.unknown
            for name, pair in lora.pairs.items():
                up, down = pairs[name.removesuffix(".weight")]
                assert torch.equal(pair.up, up) and torch.equal(pair.down, down) and pair.alpha == ALPHA


@pytest.mark.parametrize("name", [
    "adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin",
])  # fmt: skip
def test_a_folder_is_read_by_the_file_in_it(tiny_t2i, tmp_path, name):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    saved(tmp_path / name, written(pairs))
    assert read_lora(tmp_path, shapes_of(model)).source == f"{tmp_path.name}/{name}"
    assert pc.apply_lora(model, tmp_path) == len(PATHS)
    agree(model, state)


SETTINGS = [
    ({}, [1, 1, 1]),
    ({"r": RANK, "lora_alpha": 6}, [2, 2, 2]),
    ({"r": RANK, "lora_alpha": 6, "use_rslora": True}, [6 / RANK**0.5] * 3),
    ({"r": 8, "lora_alpha": 6, "rank_pattern": {"qkv_x": RANK, "w2": RANK}, "alpha_pattern": None}, [2, 2, 2]),
    ({"lora_alpha": 6, "alpha_pattern": {"qkv_x": 12}}, [4, 2, 2]),
    ({"lora_alpha": 6, "alpha_pattern": {"v_x": 12, "attn": 9}}, [2, 2, 2]),  # whole parts of a name only
    ({"lora_alpha": 6, "alpha_pattern": {"patch_blocks.1.mlp_y.w2": 1.5}}, [2, 0.5, 2]),
    ({"lora_alpha": 6, "alpha_pattern": {r"patch_blocks\.1\..*": 3, "w2": 9}}, [2, 1, 1]),  # the first that fits
    ({"lora_alpha": 6, "alpha_pattern": {r"^patch_blocks\.1\.mlp_y\.w2": 3}}, [2, 1, 2]),
    ({"lora_alpha": 6, "alpha_pattern": {"qkv_x": 12}, "use_rslora": True}, [12 / 3**0.5, 6 / 3**0.5, 6 / 3**0.5]),
]


@pytest.mark.parametrize("place", ["beside", "folder", "header", "prefixed header"])
@pytest.mark.parametrize("settings, scales", SETTINGS)
def test_alpha_is_where_peft_puts_it(tiny_t2i, tmp_path, settings, scales, place):
    model = tiny_t2i()
    tensors = written(pairs_for(shapes_of(model), PATHS[:3]), "base_model.model.", alpha=None, **PEFT)
    path = tmp_path / "adapter_model.safetensors"
    if "header" in place:
        start = "transformer." if place.startswith("prefixed") else ""
        header = {f"{start}{key}": value for key, value in settings.items()} | {"text_encoder.lora_alpha": 100}
        saved(path, tensors, {"lora_adapter_metadata": json.dumps(header)})
        (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1000}')  # the header is nearer
    else:
        saved(path, tensors)
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8-sig")
    lora = read_lora(tmp_path if place == "folder" else path, shapes_of(model))
    assert [lora.pairs[f"{path}.weight"].scale for path in PATHS[:3]] == pytest.approx(scales)


def test_alpha_of_the_tensors_goes_before_settings_and_without_any_the_scale_is_one(tiny_t2i, tmp_path):
    shapes = shapes_of(tiny_t2i())
    pairs = pairs_for(shapes)
    path = saved(tmp_path / "lora.safetensors", written(pairs, alpha=None))
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1000}')  # of another file in this folder
    assert {(pair.alpha, pair.scale) for pair in read_lora(path, shapes).pairs.values()} == {(None, 1.0)}
    settings = {"lora_adapter_metadata": '{"lora_alpha": 30, "use_rslora": true}'}
    saved(path, written(pairs), settings)
    assert {pair.scale for pair in read_lora(path, shapes).pairs.values()} == {ALPHA / RANK}
    saved(path, written(pairs, alpha=[ALPHA]), settings)  # some write it as [1]
    assert {pair.scale for pair in read_lora(path, shapes).pairs.values()} == {ALPHA / RANK}


def test_strength_is_a_factor_that_may_be_negative_or_zero(tiny_t2i, tmp_path):
    plain = tiny_t2i().network.state_dict()
    pairs = pairs_for(shapes_of(tiny_t2i()))
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    for strength in (0.0, 0.5, -1.0, 3.0):
        model = tiny_t2i()
        assert pc.apply_lora(model, path, strength) == len(PATHS)
        agree(model, expected(tiny_t2i(), pairs, strength * ALPHA / RANK))
        if not strength:
            assert all(torch.equal(value, plain[key]) for key, value in model.network.state_dict().items())
    model = tiny_t2i()
    pc.apply_lora(model, path, 0.7)
    pc.apply_lora(model, path, -0.7)
    agree(model, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merging_copies_what_it_touches_and_computes_in_float32(tiny_t2i, tmp_path, dtype):
    model = tiny_t2i(dtype=dtype)
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    pairs = {path: [part.bfloat16() for part in pair] for path, pair in pairs_for(shapes_of(model)).items()}
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    lora = read_lora(path, shapes_of(model))
    merged = merge_lora(state, lora, 0.5)
    assert list(merged) == list(state)
    for key, value in merged.items():
        assert value.dtype == dtype and torch.equal(state[key], model.network.state_dict()[key])
        if key not in lora.pairs:
            assert value is state[key]
            continue
        up, down = (part.float() for part in pairs[key.removesuffix(".weight")])
        wanted = torch.addmm(state[key].float(), up, down, alpha=0.5 * ALPHA / RANK).to(dtype)
        assert torch.equal(value, wanted) and not torch.equal(value, state[key])
    pc.apply_lora(model, path, 0.5)
    assert all(torch.equal(value, merged[key]) for key, value in model.network.state_dict().items())


def test_modules_of_other_networks_are_listed_and_left_out(tiny_t2i, tmp_path, caplog):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    strange = written({"patch_blocks.7.attn.qkv_x": random_pair(4, 4), "lora_te_layer": random_pair(4, 4)}, "")
    extra = {"diffusion_model.final_layer.linear.w_norm": torch.zeros(3)}
    path = saved(tmp_path / "lora.safetensors", written(pairs) | strange | extra)
    lora = read_lora(path, shapes_of(model))
    assert (lora.total, lora.applied, len(lora.pairs)) == (len(PATHS) + 2, len(PATHS), len(PATHS))
    assert set(lora.unknown) == {"patch_blocks.7.attn.qkv_x", "lora_te_layer", *extra}
    with caplog.at_level(logging.WARNING):
        assert pc.apply_lora(model, path) == len(PATHS)
    agree(model, state)
    assert "lora.safetensors: skipped" in caplog.text and "patch_blocks.7.attn.qkv_x" in caplog.text
