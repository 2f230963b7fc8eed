"""LoRA files that are refused: other adapters, other models, wrong shapes and settings."""

import json

import pytest
import torch
from checkpoints.lora_files import (
    MODULATION,
    NAMED,
    PATHS,
    PEFT,
    fails,
    halves_of,
    pairs_for,
    random_pair,
    saved,
    shapes_of,
    whole_pair,
    written,
)
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors


def test_pixeldit2_is_refused_by_name(tiny, golden, tmp_path):
    source = golden("pixeldit2-c2i", "peers").folder / "lora_adapter.safetensors"
    fails(tiny(), source, source.name, "is a LoRA of PixelDiT2", "Choose one for this model")
    fails(tiny(), saved(tmp_path / "bare.safetensors", load_file(source)), "is a LoRA of PixelDiT2")
    edit = {"format": "pixeldit2-edit-adapter-v1"}
    fails(tiny(), saved(tmp_path / "edit.safetensors", {"source_gates": torch.zeros(2)}, edit), "of PixelDiT2")
    fails(tiny(), saved(tmp_path / "new.safetensors", load_file(source), {"format": "pixeldit2-lora-v9"}), "not known")


@pytest.mark.parametrize("end, reason", [
    ("dora_scale", "is DoRA"), ("lora_magnitude_vector.weight", "is DoRA"), ("lora_magnitude_vector", "is DoRA"),
    ("hada_w1_a", "is LoHa"), ("lokr_w1", "is LoKr"), ("lokr_w2_b", "is LoKr"), ("oft_blocks", "is OFT"),
])  # fmt: skip
def test_other_adapters_are_refused_by_name(tiny_t2i, tmp_path, end, reason):
    model = tiny_t2i()
    name = f"diffusion_model.{PATHS[0]}.{end}"
    path = saved(tmp_path / "adapter.safetensors", written(pairs_for(shapes_of(model))) | {name: torch.ones(3)})
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
    fails(
        model,
        tmp_path / "folder",
        "folder is a folder without a LoRA, for nothing is in it",
        "adapter_model.safetensors",
    )
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
def test_a_file_of_which_nothing_applies_is_refused_with_its_model(tiny_t2i, tmp_path, module, reason):
    model = tiny_t2i()
    path = saved(tmp_path / "lora.safetensors", written({module: random_pair(4, 4)}, ""))
    fails(model, path, "lora.safetensors: none of its 1 modules is in this network: " + module, reason, "Choose")


def test_a_text_lora_on_the_class_network_is_refused_by_name(tiny, tiny_t2i, tmp_path):
    pairs = pairs_for(shapes_of(tiny_t2i()), PATHS[:3])
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    fails(tiny(), path, "none of its 3 modules", "It was made for PixelDiT, text-to-image")


@pytest.mark.parametrize("up, down", [
    ((72, 3), (3, 25)), ((71, 3), (3, 24)), ((72, 3), (4, 24)), ((72, 0), (0, 24)), ((72,), (3, 24)), ((), ()),
    ((72, 3, 1, 1), (3, 24, 1, 1)), ((3, 24), (72, 3)),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_named(tiny_t2i, tmp_path, up, down):
    model = tiny_t2i()
    pairs = pairs_for(shapes_of(model)) | {PATHS[0]: [torch.zeros(up), torch.zeros(down)]}
    path = saved(tmp_path / "lora.safetensors", written(pairs, alpha=None), {"lora_adapter_metadata": json.dumps(
        {"lora_alpha": 4, "use_rslora": True})})  # fmt: skip
    shapes = f"{list(up)} x {list(down)} for {PATHS[0]}.weight, which is [72, 24]"
    fails(model, path, f"lora.safetensors: 1 of {len(PATHS)} pairs do not fit", shapes, "another size of network")


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
