"""The frozen encoder of a PixelDiT2: the files of three programs, and what is refused in the place of one."""

import pytest
import torch
from checkpoints.encoder_files import CONFIG, PARAMS, bare, meta, saved, timm, transformers
from pixeldit2_cases import TINY, tiny

import pixeldit_core as pc
from pixeldit_core.checkpoints.encoder_file import read_encoder, read_encoder_header

ADVICE = "Get the plain DINOv3 ViT"


def load(folder, encoder, **others):
    """The tiny network, with this file or folder as its encoder."""
    path = saved(folder / "network" / "pixeldit2.safetensors", bare(tiny()))
    return pc.load_checkpoint(path, encoder=encoder, params=PARAMS | others)


def fails(folder, encoder, *texts):
    """Loading raises ValueError with all texts, of a readable length."""
    with pytest.raises(ValueError) as raised:
        load(folder, encoder)
    message = str(raised.value)
    for text in (encoder.name, *texts):
        assert text in message, message
    assert len(message) < 900 and message.endswith(".")


def is_whole(model):
    """The tiny network with its own encoder."""
    own, expected = model.network.state_dict(), tiny().network.state_dict()
    return set(own) == set(expected) and all(torch.equal(value, expected[key]) for key, value in own.items())


FORMS = {
    "timm.safetensors": lambda encoder: encoder,
    "timm.pth": lambda encoder: encoder,
    "transformers.safetensors": transformers,
    "layers.safetensors": lambda encoder: transformers(encoder, "model."),
    "prefix.safetensors": lambda encoder: {f"backbone.{key}": value for key, value in encoder.items()},
    "meta.pth": meta,
    "teacher.pth": lambda encoder: {"teacher": {f"backbone.{key}": value for key, value in meta(encoder).items()}},
    "compiled.pt": lambda encoder: {f"_orig_mod.{key}": value for key, value in encoder.items()},
    "checkpoint.ckpt": lambda encoder: {
        "state_dict": {f"ema_denoiser.dino_conditioner.encoder.{key}": value for key, value in encoder.items()}
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_encoder_from_files_of_any_program(tmp_path, form):
    path = saved(tmp_path / form, FORMS[form](timm(tiny())))
    assert is_whole(load(tmp_path, path))
    header = read_encoder_header(path)
    assert (header.width, header.names.depth, header.heads) == (16, 2, None)
    assert header.is_inside == (form == "checkpoint.ckpt")


@pytest.mark.parametrize("form", ["timm.safetensors", "transformers.safetensors", "meta.pth"])
def test_biases_that_are_left_out_are_zero(tmp_path, form):
    encoder = {key: value for key, value in timm(tiny()).items() if not key.endswith(("q_bias", "v_bias"))}
    model = load(tmp_path, saved(tmp_path / form, FORMS[form](encoder)))
    for block in model.network.dino_conditioner.encoder.blocks:
        assert not block.attn.q_bias.any() and not block.attn.v_bias.any()


def test_one_bias_alone_is_an_incomplete_file(tmp_path):
    encoder = timm(tiny())
    del encoder["blocks.1.attn.q_bias"]
    fails(tmp_path, saved(tmp_path / "timm.safetensors", encoder), "blocks.1.attn.q_bias is missing", "again")


def test_a_folder_of_transformers_has_the_heads(tmp_path):
    folder = saved(tmp_path / "dinov3" / "model.safetensors", transformers(timm(tiny())), config=CONFIG).parent
    path = saved(tmp_path / "pixeldit2.safetensors", bare(tiny()))
    for encoder in (folder, folder / "model.safetensors"):
        model = pc.load_checkpoint(path, encoder=encoder)
        assert model.params.encoder_num_heads == 2
        assert pc.load_checkpoint(path, encoder=encoder, params={"encoder_num_heads": 1}).params.encoder_num_heads == 1
    (folder / "config.json").unlink()
    assert pc.load_checkpoint(path, encoder=folder).params.encoder_num_heads == 1  # 64 channels each, at least one


def test_a_model_in_the_hugging_face_cache(tmp_path):
    snapshot = tmp_path / "models--timm--vit_small_patch16_dinov3_qkvb.lvd1689m" / "snapshots" / "0123abcd"
    saved(snapshot / "model.safetensors", timm(tiny()), config={"architecture": "vit_small_patch16_dinov3_qkvb"})
    assert is_whole(load(tmp_path, snapshot.parents[1]))


@pytest.mark.parametrize("change, texts", [
    ({"use_gated_mlp": True}, ("use_gated_mlp = True", "gated MLP (S+, H+ or 7B)", ADVICE)),
    ({"key_bias": True}, ("key_bias = True", ADVICE)),
    ({"patch_size": 14}, ("patch_size = 14", "other patches", ADVICE)),
    ({"model_type": "dinov3_convnext"}, ("ConvNeXt", ADVICE)),
    ({"model_type": "dinov2"}, ("DINOv2", ADVICE)),
    ({"model_type": ["x"] * 10**4}, ("of a model of type", ADVICE)),
    ({"hidden_size": 32}, ("hidden_size = 32", "another width", ADVICE)),
    ({"num_hidden_layers": 12}, ("num_hidden_layers = 12", "another depth", ADVICE)),
    ({"num_attention_heads": 3}, ("num_attention_heads = 3", "does not divide")),
    ({"num_attention_heads": 0}, ("num_attention_heads = 0",)),
    ({"num_attention_heads": "9" * 10**5}, ("num_attention_heads = ",)),
    ({"num_attention_heads": float("nan")}, ("num_attention_heads = nan",)),
])  # fmt: skip
def test_a_config_of_another_encoder(tmp_path, change, texts):
    path = saved(tmp_path / "model.safetensors", transformers(timm(tiny())), config=CONFIG | change)
    fails(tmp_path, path, *texts)


@pytest.mark.parametrize("place, metadata, config", [
    ("dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth", None, None),
    ("models--facebook--dinov3-vitl16-pretrain-sat493m/snapshots/12/model.safetensors", None, None),
    ("vit_large_patch16_dinov3.sat493m/model.safetensors", None, None),
    ("a/model.safetensors", {"source": "timm/vit_large_patch16_dinov3.sat493m"}, None),
    ("a/model.safetensors", None, {"pretrained_cfg": {"tag": "sat493m"}}),
    ("a/model.safetensors", None, {"pretrained_cfg": {"mean": [0.430, 0.411, 0.296], "std": [0.213, 0.156, 0.143]}}),
    ("a/model.safetensors", None, {"_name_or_path": "facebook/dinov3-vitl16-pretrain-sat493m"}),
])  # fmt: skip
def test_a_satellite_variant(tmp_path, place, metadata, config):
    path = saved(tmp_path / place, timm(tiny()), metadata, config)
    fails(tmp_path, path, "satellite images (SAT-493M)", "mean and std", ADVICE)


def test_a_satellite_variant_by_the_settings_of_its_images(tmp_path):
    path = saved(tmp_path / "model.safetensors", transformers(timm(tiny())), config=CONFIG)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.43, 0.411, 0.296]}')
    fails(tmp_path, path, "satellite images", ADVICE)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.485, 0.456, 0.406], "image_std": "x"}')
    assert is_whole(load(tmp_path, path))


def test_an_eupe_by_its_name(tmp_path):
    fails(tmp_path, saved(tmp_path / "eupe_vits16.pth", meta(timm(tiny()))), "is an EUPE by its name", ADVICE)


def other(*extra, without=()):
    tensors = {key: value for key, value in timm(tiny()).items() if not any(part in key for part in without)}
    return tensors | {key: torch.zeros(2, 2) for key in extra}


@pytest.mark.parametrize("tensors, texts", [
    (other("blocks.0.mlp.fc1_g.weight"), ("gated MLP (S+, H+ or 7B)", ADVICE)),
    (transformers(timm(tiny())) | {"layer.0.mlp.gate_proj.weight": torch.ones(2)}, ("gated MLP", ADVICE)),
    (meta(timm(tiny())) | {"blocks.0.mlp.w3.weight": torch.ones(2)}, ("gated MLP", ADVICE)),
    (transformers(timm(tiny())) | {"layer.0.attention.k_proj.bias": torch.ones(2)}, ("keys have a bias", ADVICE)),
    (other("stages.0.blocks.0.conv_dw.weight", without=["reg_token"]), ("is a ConvNeXt", ADVICE)),
    ({"downsample_layers.0.0.weight": torch.ones(2), "stages.0.0.dwconv.weight": torch.ones(2)}, ("is a ConvNeXt",)),
    ({"model.stages.0.layers.0.depthwise_conv.weight": torch.ones(2)}, ("is a ConvNeXt",)),
    (other("pos_embed"), ("is a DINOv2", ADVICE)),
    ({"embeddings.position_embeddings": torch.ones(2), "embeddings.mask_token": torch.ones(2)}, ("is a DINOv2",)),
    ({"vision_model.embeddings.position_embedding.weight": torch.ones(2)}, ("of a CLIP or SigLIP", ADVICE)),
    ({"decoder.conv_in.weight": torch.ones(2)}, ("is a VAE", ADVICE)),
    ({"model.embed_tokens.weight": torch.ones(2)}, ("is a text encoder", ADVICE)),
    ({f"layer{number}.weight": torch.ones(2) for number in range(9)}, ("no register tokens", "and 4 more", ADVICE)),
    ({}, ("no register tokens",)),
    (other("head.weight"), ("do not belong to a DINOv3 ViT: head.weight",)),
    (other(without=["norm1"]), ("not a complete DINOv3 ViT", "norm1.weight", "again")),
    (other(without=["blocks."]), ("not a complete DINOv3 ViT", "again")),
    (other(without=["cls_token"]), ("no cls_token",)),
    (other("blocks.999999999.norm1.weight"), ("not complete", "again")),
    (timm(tiny()) | {"norm.weight": torch.ones(17)}, ("norm.weight: [17], expected [16]",)),
    (timm(tiny()) | {"reg_token": torch.ones(1, 8, 16)}, ("reg_token: [1, 8, 16], expected [1, 4, 16]",)),
    (timm(tiny()) | {"cls_token": torch.ones(16)}, ("no cls_token of three dimensions",)),
    (timm(tiny()) | {"patch_embed.proj.weight": torch.ones(16, 3, 14, 14)}, ("patches of 14x14, not 16x16", ADVICE)),
    (timm(tiny()) | {"storage_tokens": torch.ones(1, 4, 16)}, ("two tensors for reg_token",)),
    (timm(tiny()) | {"norm.bias": torch.zeros(16, dtype=torch.int8)}, ("is quantized (norm.bias is int8)", "original")),
    ({k: v.to(torch.float8_e4m3fn) for k, v in timm(tiny()).items()}, ("is quantized", "original file")),
])  # fmt: skip
def test_other_files_in_the_place_of_an_encoder(tmp_path, tensors, texts):
    fails(tmp_path, saved(tmp_path / "other.safetensors", tensors), *texts)


def test_files_that_are_none(tmp_path):
    whole = saved(tmp_path / "whole.safetensors", timm(tiny())).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    fails(tmp_path, tmp_path / "cut.safetensors")
    (tmp_path / "page.safetensors").write_text("<!doctype html>")
    fails(tmp_path, tmp_path / "page.safetensors", "web page")
    fails(tmp_path, tmp_path / "nowhere.safetensors", "no such file")
    (tmp_path / "empty").mkdir()
    fails(tmp_path, tmp_path / "empty", "folder without weights")
    checkpoint = saved(tmp_path / "other.safetensors", bare(tiny()))
    fails(tmp_path, checkpoint, "is a checkpoint (PixelDiT2) without an encoder in it")


@pytest.mark.parametrize("needed, given, texts", [
    (384, 768, ("DINOv3 ViT-B/16 (width 768)", "needs DINOv3 ViT-S/16 (width 384)",
                "timm/vit_small_patch16_dinov3_qkvb.lvd1689m", "facebook/dinov3-vits16-pretrain-lvd1689m")),
    (768, 384, ("needs DINOv3 ViT-B/16 (width 768)", "timm/vit_base_patch16_dinov3_qkvb.lvd1689m")),
    (1024, 16, ("a DINOv3 ViT of width 16", "needs DINOv3 ViT-L/16", "facebook/dinov3-vitl16-pretrain-lvd1689m")),
    (16, 384, ("DINOv3 ViT-S/16 (width 384)", "needs a DINOv3 ViT of width 16", "that the network was trained with")),
])  # fmt: skip
def test_an_encoder_of_the_wrong_width(tmp_path, needed, given, texts):
    from dataclasses import replace

    def built(width):
        return tiny(replace(TINY, encoder_dim=width, encoder_depth=1, encoder_num_heads=max(1, width // 64)))

    path = saved(tmp_path / "network" / "pixeldit2.safetensors", bare(built(needed)))
    encoder = saved(tmp_path / "encoder.safetensors", timm(built(given)))
    with pytest.raises(ValueError) as raised:
        pc.load_checkpoint(path, encoder=encoder)
    for text in (*texts, "encoder.safetensors", "pixeldit2.safetensors", "DINOv3 License (Meta)"):
        assert text in str(raised.value)
    if needed != 16:
        assert "models/clip_vision" in str(raised.value)


def test_an_encoder_is_read_in_its_own_dtype(tmp_path):
    half = {key: value.half() for key, value in timm(tiny()).items() if "_bias" not in key}
    encoder = read_encoder(saved(tmp_path / "half.safetensors", half))
    assert {value.dtype for value in encoder.tensors.values()} == {torch.float16}
