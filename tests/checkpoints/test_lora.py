"""LoRA files: every key style, where their scale is, ComfyUI's halves, merging, and what is refused."""

import dataclasses
import hashlib
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors
from pixeldit_core.checkpoints.lora import match_modules, merge_lora, read_lora
from pixeldit_core.checkpoints.lora_delta import Lora, Pair, split_pair

RANK, ALPHA = 3, 2.0
PATHS = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_y.w2", "patch_blocks.1.adaLN_modulation_img.0")
PATHS += ("pixel_blocks.0.attn.proj", "pixel_blocks.1.mlp.fc1", "t_embedder.mlp.2", "y_embedder.proj")
MODULATION = "pixel_blocks.1.adaLN_modulation"


def shapes_of(model):
    return {key: tuple(value.shape) for key, value in model.network.state_dict().items()}


def random_pair(out, into, rank=RANK, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in ((out, rank), (rank, into))]


def pairs_for(shapes, paths=PATHS):
    return {path: random_pair(*shapes[f"{path}.weight"], seed=seed) for seed, path in enumerate(paths)}


def written(pairs, before="diffusion_model.", up="lora_up.weight", down="lora_down.weight", alpha=ALPHA, flat=False):
    """A LoRA's tensors in a style of names."""
    tensors = {}
    for path, pair in pairs.items():
        name = before + (path.replace(".", "_") if flat else path)
        tensors |= {f"{name}.{up}": pair[0], f"{name}.{down}": pair[1]}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return {key: value.clone().contiguous() for key, value in tensors.items()}  # files want no shared memory


def saved(path, tensors, metadata=None):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata)
    else:
        torch.save(tensors, path)
    return path


def expected(model, pairs, scale=ALPHA / RANK):
    """The weights by the formula, in double precision."""
    state = dict(model.network.state_dict())
    for path, (up, down) in pairs.items():
        added = scale * up.double() @ down.double()
        state[f"{path}.weight"] = (state[f"{path}.weight"].double() + added).float()
    return state


def agree(model, state):
    own = model.network.state_dict()
    assert set(own) == set(state)
    for key, value in own.items():
        torch.testing.assert_close(value, state[key], atol=2e-6, rtol=1e-6, msg=key)


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("name", [
    "lora_peft", "lora_peft/adapter_model.safetensors",
    "lora_diffusers", "lora_diffusers/pytorch_lora_weights.safetensors",
])  # fmt: skip
def test_a_lora_of_another_program_paints_as_there(golden, name):
    case = golden("madtune-t2i", "peers")
    path = case.folder / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    model = pc.load_checkpoint(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    assert pc.apply_lora(model, case.folder / name) == 8
    given = (case.inputs["x"], case.inputs["t"], case.inputs["y"])
    torch.testing.assert_close(model.network(*given), case.outputs["velocity_lora"], atol=1e-4, rtol=0)
    assert (case.outputs["velocity_lora"] - case.outputs["velocity"]).abs().max() > 1
    assert hashlib.sha256(path.read_bytes()).digest() == before  # weights may be mapped from their file

    reason = case.case["lora"]
    lora = read_lora(case.folder / name, shapes_of(model))
    assert {pair.scale for pair in lora.pairs.values()} == {reason["scale"]}
    assert {pair.alpha for pair in lora.pairs.values()} == {reason["alpha"]}
    assert (lora.total, lora.unknown, lora.source) == (8, (), "/".join(name.split("/")[1:]) or lora.source)
    assert lora.source.endswith(".safetensors")


UP_DOWN = {"up": "lora_up.weight", "down": "lora_down.weight"}
DOTTED = {"up": "lora.up.weight", "down": "lora.down.weight"}
PEFT = {"up": "lora_B.weight", "down": "lora_A.weight"}
NAMED = {"up": "lora_B.default.weight", "down": "lora_A.default.weight"}
STYLES = [
    dict(before="diffusion_model.", **UP_DOWN),
    dict(before="diffusion_model.", **DOTTED),
    dict(before="diffusion_model.", **PEFT),
    dict(before="lora_unet_", flat=True, **UP_DOWN),
    dict(before="lora_unet_", flat=True, **PEFT),
    dict(before="lora_unet_core_", flat=True, **UP_DOWN),
    dict(before="lycoris_", flat=True, **UP_DOWN),
    dict(before="base_model.model.", **PEFT),
    dict(before="base_model.model.model.", **PEFT),
    dict(before="base_model.model.model.", **NAMED),
    dict(before="base_model.model.core.", **NAMED),
    dict(before="model.", **PEFT),
    dict(before="transformer.", **PEFT),
    dict(before="transformer.", up="lora_linear_layer.up.weight", down="lora_linear_layer.down.weight"),
    dict(before="transformer.core.", **PEFT),
    dict(before="core.", **PEFT),
    dict(before="", **PEFT),
    dict(before="", **UP_DOWN),
    dict(before="model.diffusion_model.core.", **UP_DOWN),
    dict(before="module._orig_mod.core.", **PEFT),
    dict(before="ema_denoiser.", **PEFT),
]


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


def whole_pair(model, rank=RANK, seed=0):
    return random_pair(*shapes_of(model)[f"{MODULATION}.0.weight"], rank, seed)


def halves_of(pair, channels=4):
    """By the formula of the rows: pixel q, map k and channel c are row q * 6C + k * C + c."""
    up, down = pair
    rows = torch.arange(len(up))
    first = rows // channels % 6 < 3
    return {f"{MODULATION}_msa": [up[first], down], f"{MODULATION}_mlp": [up[~first], down]}


def test_a_lora_on_halves_and_one_on_the_whole_give_the_same_weight(tiny_t2i, tmp_path):
    model, split = tiny_t2i(), tiny_t2i()
    pair = whole_pair(model)
    state = expected(model, {f"{MODULATION}.0": pair})
    for style in (STYLES[0], STYLES[3], STYLES[9]):
        model, split = tiny_t2i(), tiny_t2i()
        path = saved(tmp_path / "whole.safetensors", written({f"{MODULATION}.0": pair}, **style))
        assert pc.apply_lora(model, path) == 1
        path = saved(tmp_path / "halves.safetensors", written(halves_of(pair), **style))
        lora = read_lora(path, shapes_of(split))
        assert (lora.total, lora.unknown, list(lora.pairs)) == (2, (), [f"{MODULATION}.0.weight"])
        (joined,) = lora.pairs.values()
        assert joined.alpha is None and joined.scale == 1 and joined.down.shape == (2 * RANK, 24)
        assert pc.apply_lora(split, path) == 1
        agree(model, state)
        agree(split, state)


@pytest.mark.parametrize("alone", ["msa", "mlp", None])
def test_each_half_has_its_own_rank_and_alpha(tiny_t2i, tmp_path, alone):
    """What ComfyUI would do to its own halves, joined, is what is done to the whole."""
    model = tiny_t2i()
    state = model.network.state_dict()
    halves, tensors = split_tensors(state), {}
    for seed, (half, rank, alpha) in enumerate((("mlp", 2, 3.0), ("msa", 5, None))):
        if alone in (half, None):
            name = f"{MODULATION}_{half}"
            pair = random_pair(*halves[f"{name}.weight"].shape, rank, seed)
            tensors |= written({name: pair}, alpha=alpha)
            scale = 1 if alpha is None else alpha / rank
            halves[f"{name}.weight"] = halves[f"{name}.weight"] + 0.8 * scale * pair[0] @ pair[1]
    assert pc.apply_lora(model, saved(tmp_path / "lora.safetensors", tensors), 0.8) == 1
    changed = split_tensors(model.network.state_dict())
    for key, value in changed.items():
        torch.testing.assert_close(value, halves[key], atol=2e-6, rtol=1e-6)


def test_a_pair_of_the_whole_is_split_exactly(tiny_t2i):
    model = tiny_t2i()
    up, down = whole_pair(model)
    name = f"{MODULATION}.0.weight"
    found = split_pair(name, Pair(up, down, ALPHA), channels=4)
    wanted = halves_of([up, down])
    assert set(found) == {f"{half}.weight" for half in wanted}
    for half, pair in wanted.items():
        part = found[f"{half}.weight"]
        assert torch.equal(part.up, pair[0]) and part.down is down and part.alpha == ALPHA
    state = dict(model.network.state_dict())
    whole = merge_lora(state, read_back({name: Pair(up, down, ALPHA)}), 0.7)
    halves = merge_lora(split_tensors(state), read_back(found), 0.7)
    for key, value in split_tensors(whole).items():
        torch.testing.assert_close(value, halves[key], atol=1e-6, rtol=1e-6)
    other = Pair(up, down)
    assert split_pair("patch_blocks.0.attn.proj_x.weight", other, 4) == {"patch_blocks.0.attn.proj_x.weight": other}
    with pytest.raises(ValueError, match=f"{MODULATION}.0.weight has 384 rows, not six maps of 5 channels"):
        split_pair(name, other, 5)


def read_back(pairs):
    return Lora(pairs, (), len(pairs), len(pairs), "made here")


def test_modules_of_other_networks_are_listed_and_left_out(tiny_t2i, tmp_path, caplog):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    state = expected(model, pairs)
    strange = written({"patch_blocks.7.attn.qkv_x": random_pair(4, 4), "lora_te_layer": random_pair(4, 4)}, "")
    extra = {"diffusion_model.final_layer.linear.diff_b": torch.zeros(3)}
    path = saved(tmp_path / "lora.safetensors", written(pairs) | strange | extra)
    lora = read_lora(path, shapes_of(model))
    assert (lora.total, lora.applied, len(lora.pairs)) == (len(PATHS) + 2, len(PATHS), len(PATHS))
    assert set(lora.unknown) == {"patch_blocks.7.attn.qkv_x", "lora_te_layer", *extra}
    with caplog.at_level(logging.WARNING):
        assert pc.apply_lora(model, path) == len(PATHS)
    agree(model, state)
    assert "lora.safetensors: skipped" in caplog.text and "patch_blocks.7.attn.qkv_x" in caplog.text


def fails(model, path, *reason):
    """Applying raises ValueError with all of `reason`, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    with pytest.raises(ValueError) as error:
        pc.apply_lora(model, path)
    for text in reason:
        assert text in str(error.value), str(error.value)
    assert str(error.value).endswith(".")
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


def test_pixeldit2_is_refused_by_name(tiny, golden, tmp_path):
    source = golden("pixeldit2-c2i", "peers").folder / "lora_adapter.safetensors"
    fails(tiny(), source, source.name, "is a LoRA of PixelDiT2", "Choose one for PixelDiT")
    fails(tiny(), saved(tmp_path / "bare.safetensors", load_file(source)), "is a LoRA of PixelDiT2")
    edit = {"format": "pixeldit2-edit-adapter-v1"}
    fails(tiny(), saved(tmp_path / "edit.safetensors", {"source_gates": torch.zeros(2)}, edit), "of PixelDiT2")


@pytest.mark.parametrize("end, reason", [
    ("dora_scale", "is DoRA"), ("lora_magnitude_vector.weight", "is DoRA"), ("lora_magnitude_vector", "is DoRA"),
    ("hada_w1_a", "is LoHa"), ("lokr_w1", "is LoKr"), ("lokr_w2_b", "is LoKr"), ("oft_blocks", "is OFT"),
])  # fmt: skip
def test_other_adapters_are_refused_by_name(tiny_t2i, tmp_path, end, reason):
    model = tiny_t2i()
    name = f"diffusion_model.{PATHS[0]}.{end}"
    path = saved(tmp_path / "relative.safetensors", written(pairs_for(shapes_of(model))) | {name: torch.ones(3)})
    fails(
        model,
        path,
        path.name,
        f"{reason}, not a plain LoRA",
        name,
        "Only plain LoRA can be merged here",
        "node PixelDiT LoRA",
    )


@pytest.mark.parametrize("prefix, split", [("", False), ("core.", True), ("model.diffusion_model.", False)])
def test_a_whole_checkpoint_is_no_lora(tiny_t2i, tmp_path, prefix, split):
    model = tiny_t2i()
    state = model.network.state_dict()
    state = split_tensors(state) if split else state
    path = saved(tmp_path / "model.safetensors", {prefix + key: value.contiguous() for key, value in state.items()})
    fails(model, path, path.name, "is a whole checkpoint (PixelDiT, text-to-image), not a LoRA", "Load it as the model")


def test_other_files_are_no_lora(tiny_t2i, tmp_path):
    model = tiny_t2i()
    fails(model, saved(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": torch.ones(2)}), "is a VAE")
    odd = saved(tmp_path / "odd.safetensors", {f"layer{number}.weight": torch.ones(2) for number in range(9)})
    fails(model, odd, "odd.safetensors is not a LoRA. It has layer0.weight, layer1.weight", "and 4 more", "Choose")
    fails(model, saved(tmp_path / "none.safetensors", {}), "It has no tensors")
    (tmp_path / "folder").mkdir()
    fails(model, tmp_path / "folder", "folder is a folder without adapter_model.safetensors")
    fails(model, tmp_path / "gone.safetensors", "there is no such file")
    (tmp_path / "page.safetensors").write_text("<!doctype html>")
    fails(model, tmp_path / "page.safetensors", "is a web page")


@pytest.mark.parametrize("module, reason", [
    ("lora_unet_double_blocks_0_img_attn_qkv", "It was made for Flux"),
    ("transformer.single_transformer_blocks.0.attn.to_q", "It was made for Flux"),
    ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "It was made for Stable Diffusion."),
    ("diffusion_model.joint_blocks.0.context_block.attn.qkv", "It was made for Stable Diffusion 3"),
    ("transformer.transformer_blocks.0.attn.to_q", "It was made for another model of diffusers"),
    ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "It was made for a text encoder"),
    ("diffusion_model.patch_blocks.0.attn.qkv", "It was made for PixelDiT, class-conditional"),
    ("diffusion_model.patch_blocks.40.attn.qkv_x", "It was made for PixelDiT, text-to-image"),
    ("diffusion_model.patch_blocks.40.norm_y1", "It was made for PixelDiT, text-to-image"),
    ("diffusion_model.patch_blocks.0.attention.qkv_proj.q_proj", "It was made for PixelHDM"),
    ("something.else", "It was made for another model"),
])  # fmt: skip
def test_a_file_of_which_nothing_applies_says_what_it_is_for(tiny_t2i, tmp_path, module, reason):
    model = tiny_t2i()
    path = saved(tmp_path / "lora.safetensors", written({module: random_pair(4, 4)}, ""))
    fails(model, path, "lora.safetensors: none of its 1 modules is in this network: " + module, reason, "Choose")


def test_a_text_lora_on_the_class_network_is_told_what_it_is_for(tiny, tiny_t2i, tmp_path):
    pairs = pairs_for(shapes_of(tiny_t2i()), PATHS[:3])
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    fails(tiny(), path, "none of its 3 modules", "It was made for PixelDiT, text-to-image")


@pytest.mark.parametrize("up, down", [
    ((72, 3), (3, 25)), ((71, 3), (3, 24)), ((72, 3), (4, 24)), ((72, 0), (0, 24)), ((72,), (3, 24)), ((), ()),
    ((72, 3, 1, 1), (3, 24, 1, 1)), ((3, 24), (72, 3)),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_told(tiny_t2i, tmp_path, up, down):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model)) | {PATHS[0]: [torch.zeros(up), torch.zeros(down)]}
    path = saved(tmp_path / "lora.safetensors", written(pairs, alpha=None), {"lora_adapter_metadata": json.dumps(
        {"lora_alpha": 4, "use_rslora": True})})  # fmt: skip
    shapes = f"{list(up)} x {list(down)} for {PATHS[0]}.weight, which is [72, 24]"
    fails(model, path, f"lora.safetensors: 1 of {len(PATHS)} pairs do not fit", shapes, "another size of network")


def test_halves_that_do_not_fit_are_told(tiny_t2i, tmp_path):
    model = tiny_t2i()
    pairs = halves_of(whole_pair(model))
    pairs[f"{MODULATION}_mlp"][0] = pairs[f"{MODULATION}_mlp"][0][:-4]
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    fails(model, path, f"[188, 3] x [3, 24] for {MODULATION}_mlp.weight, which is [192, 24]")


def test_a_vector_takes_no_pair(tiny_t2i, tmp_path):
    model = tiny_t2i()
    path = saved(tmp_path / "lora.safetensors", written({"patch_blocks.0.norm_x1": random_pair(24, 1)}))
    fails(model, path, "[24, 3] x [3, 1] for patch_blocks.0.norm_x1.weight, which is [24]")


@pytest.mark.parametrize("half, reason", [("lora_up", "up"), ("lora_down", "down")])
def test_a_missing_half_of_a_pair_is_named(tiny_t2i, tmp_path, half, reason):
    model = tiny_t2i()
    tensors = written(pairs_for(shapes_of(model)))
    del tensors[f"diffusion_model.{PATHS[1]}.{half}.weight"]
    path = saved(tmp_path / "lora.safetensors", tensors)
    fails(model, path, f"lora.safetensors: {PATHS[1]}.weight has no {reason} matrix", "incomplete")


def test_two_pairs_for_a_weight_are_a_contradiction(tiny_t2i, tmp_path):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model))
    path = saved(tmp_path / "lora.safetensors", written(pairs) | written(pairs, "ema_denoiser."))
    fails(model, path, "has two modules for", f"diffusion_model.{PATHS[0]}", "Save one alone")
    saved(path, written(pairs, **PEFT) | written(pairs, **NAMED))
    fails(model, path, "has two down tensors for", "Save one adapter")
    pair = whole_pair(model)
    saved(path, written({f"{MODULATION}.0": pair} | halves_of(pair)))
    fails(model, path, f"has pairs for {MODULATION}.0.weight and for ComfyUI's halves", "Save one alone")


@pytest.mark.parametrize("alpha, reason", [
    (float("nan"), "is nan"), (float("inf"), "is inf"), ([1.0, 2.0], "is [2]"), (True, "is True"), ([], "is [0]"),
])  # fmt: skip
def test_an_alpha_that_is_no_finite_number_is_refused(tiny_t2i, tmp_path, alpha, reason):
    model = tiny_t2i()
    path = saved(tmp_path / "lora.safetensors", written(pairs_for(shapes_of(model), PATHS[:1]), alpha=alpha))
    fails(model, path, f"lora.safetensors: alpha of diffusion_model.{PATHS[0]} {reason}", "finite number")


@pytest.mark.parametrize("text, reason", [
    ("{", "is not JSON"), ("", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[1]", "is not a JSON object"),
    ('{"lora_alpha": NaN}', "is nan"), ('{"lora_alpha": "8"}', "is '8'"), ('{"lora_alpha": true}', "is True"),
    ('{"lora_alpha": 1e999}', "is inf"), (f'{{"lora_alpha": {"9" * 400}}}', "is inf"),
    ('{"lora_alpha": [1]}', "is [1.0]"), ('{"alpha_pattern": [1]}', "alpha_pattern that is not a JSON object"),
    ('{"alpha_pattern": {"(x+)+y": 1}}', "is too complex"), ('{"alpha_pattern": {".*.*.*.*x": 1}}', "is too complex"),
    ('{"alpha_pattern": {"(": 1}}', "is not a valid regular expression"), ('{"alpha_pattern": {"qkv_x": null}}', None),
])  # fmt: skip
@pytest.mark.parametrize("place", ["beside", "header"])
def test_settings_that_are_no_settings_are_refused(tiny_t2i, tmp_path, text, reason, place):
    model = tiny_t2i()
    tensors = written(pairs_for(shapes_of(model), PATHS[:1]), "base_model.model.", alpha=None, **PEFT)
    path = tmp_path / "own.safetensors"
    if place == "header":
        saved(path, tensors, {"lora_adapter_metadata": text})
    else:
        saved(path, tensors)
        (tmp_path / "adapter_config.json").write_text(text)
    if reason is None:
        assert pc.apply_lora(model, path) == 1
    else:
        fails(model, path, path.name, reason)


def test_a_pickled_file_runs_no_code(tiny_t2i, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    path = tmp_path / "lora.pt"
    torch.save({"a.lora_up.weight": Evil()}, path)
    fails(tiny_t2i(), path, "pickled file that wants to load", "nothing of it was run")


def test_the_variant_of_four_maps_has_no_halves(tiny_t2i, tmp_path):
    model = tiny_t2i(dataclasses.replace(tiny_t2i().params, pit_adaln_post_modulation=True))
    pair = whole_pair(model)
    state = expected(model, {f"{MODULATION}.0": pair})
    path = saved(tmp_path / "lora.safetensors", written(halves_of(whole_pair(tiny_t2i()))))
    fails(model, path, "none of its 2 modules is in this network", "another size or variant of PixelDiT")
    assert pc.apply_lora(model, saved(path, written({f"{MODULATION}.0": pair}))) == 1
    agree(model, state)
