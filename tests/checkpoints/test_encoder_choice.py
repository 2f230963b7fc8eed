"""Which encoder a PixelDiT2 is loaded with: inside of its file, given, beside it, or none; and what is written."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from checkpoints.encoder_files import CONFIG, PARAMS, PLACE, bare, meta, saved, timm, transformers
from checkpoints.files import prefixed, same
from helpers import randn
from pixeldit2_cases import TINY, tiny
from safetensors import safe_open
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.load import read_weights

MODEL = tiny()
STATE = MODEL.network.state_dict()


@pytest.fixture
def released(tmp_path):
    """A file like the published ones: an average without its encoder."""
    path = tmp_path / "models" / "pixeldit2.ckpt"
    return saved(path, {"state_dict": prefixed("ema_denoiser.", bare(MODEL)), "epoch": 3})


def load(path, **others):
    return pc.load_checkpoint(path, params=PARAMS, **others)


def fails(path, *texts, **others):
    with pytest.raises(ValueError) as raised:
        load(path, **others)
    for text in (path.name, *texts):
        assert text in str(raised.value), str(raised.value)
    return str(raised.value)


def is_ungrounded(model):
    """Without an encoder: null rows work, others say what is missing."""
    assert model.params.encoder_depth == 0 and not any(key.startswith(PLACE) for key in model.network.state_dict())
    x, t = randn(1, 3, 8, 8), torch.tensor([0.5])
    null = torch.tensor([model.params.num_classes])
    assert torch.equal(model.network(x, t, null), MODEL.network(x, t, null))
    skip = torch.tensor([True])
    assert torch.equal(model.network(x, t, null - 1, skip), MODEL.network(x, t, null - 1, skip))
    with pytest.raises(ValueError, match="encoder"):
        model.network(x, t, null - 1)
    return True


def test_without_an_encoder_the_message_names_file_folder_and_license(released):
    message = fails(released, "a DINOv3 ViT of width 16", "DINOv3 License (Meta)", "nor beside it", '"none"')
    assert message.endswith(".")


def test_one_that_is_not_wanted(released, tmp_path):
    assert is_ungrounded(load(released, encoder="none"))
    assert is_ungrounded(load(released, encoder="inside"))
    whole = saved(tmp_path / "whole.safetensors", STATE)
    assert is_ungrounded(load(whole, encoder="none"))
    assert same(load(whole, encoder="inside"), STATE)


@pytest.mark.parametrize(
    "name", ["encoder/model.safetensors", "encoder/dinov3.pth", "dinov3.safetensors", "dinov3.pth"]
)
def test_one_that_lies_beside(released, caplog, name):
    saved(released.parent / name, meta(timm(MODEL)) if name.endswith(".pth") else timm(MODEL))
    saved(released.parent / "other.safetensors", {"decoder.conv_in.weight": torch.ones(2)})
    saved(released.parent / "second.ckpt", {"state_dict": bare(MODEL)})
    saved(released.parent / "whole.safetensors", STATE)  # has one inside, and is a checkpoint itself
    (released.parent / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{       ")
    with caplog.at_level(logging.INFO):
        assert same(load(released), STATE)
    assert "its encoder is " in caplog.text


def test_a_folder_of_transformers_beside_has_the_heads(released):
    saved(released.parent / "encoder" / "model.safetensors", transformers(timm(MODEL)), config=CONFIG)
    model = pc.load_checkpoint(released)
    assert same(model, STATE) and model.params.encoder_num_heads == 2


def test_a_diffusers_folder_with_its_encoder(tmp_path):
    folder = tmp_path / "PixelDiT2-256"
    saved(folder / "transformer" / "diffusion_pytorch_model.safetensors", bare(MODEL))
    (folder / "model_index.json").write_text("{}")
    saved(folder / "encoder" / "model.safetensors", transformers(timm(MODEL)), config=CONFIG)
    for path in (folder, folder / "transformer", folder / "transformer" / "diffusion_pytorch_model.safetensors"):
        assert same(load(path), STATE)


def test_of_several_that_fit_one_has_to_be_chosen(released):
    first = saved(released.parent / "a.safetensors", timm(MODEL))
    saved(released.parent / "b.safetensors", transformers(timm(MODEL)))
    fails(released, "2 encoders fit it", "models/a.safetensors", "models/b.safetensors", "Choose one")
    assert same(load(released, encoder=first), STATE)
    saved(released.parent / "encoder" / "model.safetensors", timm(MODEL))  # goes before files beside the checkpoint
    assert same(load(released), STATE)


def test_one_beside_that_does_not_fit_is_named(released):
    config = CONFIG | {"use_gated_mlp": True}
    saved(released.parent / "encoder" / "model.safetensors", transformers(timm(MODEL)), config=config)
    fails(released, "gated MLP (S+, H+ or 7B)", "DINOv3 License")


def test_damaged_files_are_named_only_where_they_may_be_the_encoder(released):
    half = b"PK\3\4 the first bytes of a download"
    (released.parent / "another.ckpt").write_bytes(half)
    assert "another.ckpt" not in fails(released, "nor beside it")
    (released.parent / "dinov3_vits16.pth").write_bytes(half)
    assert "another.ckpt" not in fails(released, "dinov3_vits16.pth is", "not complete")
    saved(released.parent / "wide.safetensors", timm(tiny(replace(TINY, encoder_dim=32))))
    assert "not complete" not in fails(released, "wide.safetensors is a DINOv3 ViT of width 32, which does not fit")


def test_other_files_are_looked_at_after_those_beside(released, tmp_path):
    first = saved(tmp_path / "clip_vision" / "dinov3.safetensors", timm(MODEL))
    other = saved(tmp_path / "clip_vision" / "clip.safetensors", {"visual.positional_embedding": torch.ones(2)})
    found = read_weights(released, params=PARAMS, more_encoders=[other, first, first])
    assert set(found.tensors) == set(STATE) and found.spec.params.encoder_depth == 2
    second = saved(tmp_path / "clip_vision" / "dinov3.pth", meta(timm(MODEL)))
    with pytest.raises(ValueError, match="2 encoders fit it"):
        read_weights(released, params=PARAMS, more_encoders=[first, second])
    saved(released.parent / "encoder" / "model.safetensors", timm(MODEL))
    read_weights(released, params=PARAMS, more_encoders=[first, second])


def test_the_one_inside_wins_over_one_beside_and_a_given_one_over_both(tmp_path, caplog):
    other = {key: value + 1 for key, value in timm(MODEL).items()}
    path = saved(tmp_path / "whole.safetensors", STATE)
    given = saved(tmp_path / "encoder" / "model.safetensors", other)
    assert same(load(path), STATE)
    with caplog.at_level(logging.INFO):
        model = load(path, encoder=given)
    assert same(model, STATE | prefixed(PLACE, other))
    assert "its encoder is model.safetensors, in place of the one inside" in caplog.text


@pytest.mark.parametrize("names", [
    lambda encoder: {key: value for key, value in encoder.items() if "_bias" not in key},
    transformers, meta, lambda encoder: transformers(encoder, "model."),
])  # fmt: skip
def test_one_inside_under_any_names(tmp_path, names):
    inside = prefixed(PLACE, names(timm(MODEL)))
    path = saved(tmp_path / "pixeldit2.ckpt", {"state_dict": prefixed("ema_denoiser.", bare(MODEL) | inside)})
    found, info = load(path).network.state_dict(), pc.inspect_checkpoint(path)
    assert set(found) == set(STATE) and info.refused is None and info.encoder is True
    assert all(torch.equal(found[key], STATE[key]) or not found[key].any() for key in STATE)


def test_one_inside_that_is_not_whole_is_refused(tmp_path):
    for names in (timm(MODEL), transformers(timm(MODEL))):
        key = next(key for key in names if key.endswith("norm1.weight"))
        inside = prefixed(PLACE, {name: value for name, value in names.items() if name != key})
        path = saved(tmp_path / "pixeldit2.safetensors", bare(MODEL) | inside)
        fails(path, "norm1.weight", "missing", "get it again" if names is timm else "again")


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_set_of_weights_without_it_takes_that_of_the_other(tmp_path, weights):
    without, whole = ("denoiser.", "ema_denoiser.") if weights == "raw" else ("ema_denoiser.", "denoiser.")
    stored = prefixed(without, bare(MODEL)) | prefixed(whole, STATE)
    path = saved(tmp_path / "both.ckpt", {"state_dict": stored})
    model = load(path, weights=weights)
    assert same(model, STATE) and model.spec.weights == weights


@pytest.mark.parametrize("encoder", ["none", "inside", None])
def test_another_family_takes_no_encoder(tiny, tmp_path, encoder):
    path = pc.save_checkpoint(tiny(), tmp_path / "first.safetensors")
    pc.load_checkpoint(path, encoder=encoder)
    given = saved(tmp_path / "encoder.safetensors", timm(MODEL))
    for give in (pc.load_checkpoint, lambda path, encoder: pc.save_checkpoint(path, tmp_path / "x.safetensors",
                                                                              encoder=encoder)):  # fmt: skip
        with pytest.raises(ValueError, match="first.safetensors is PixelDiT.* has no encoder.*encoder.safetensors"):
            give(path, encoder=given)
    with pytest.raises(ValueError, match="has no encoder"):
        pc.save_checkpoint(tiny(), tmp_path / "x.safetensors", encoder=given)


def test_an_encoder_is_no_checkpoint(tmp_path):
    for name, tensors in (("a", timm(MODEL)), ("b", transformers(timm(MODEL))), ("c", meta(timm(MODEL)))):
        path = saved(tmp_path / f"{name}.safetensors", tensors)
        fails(path, "is a DINOv3 ViT, an encoder that PixelDiT2 looks through", "this file as its encoder")


def test_what_is_inside_is_shown(released, tmp_path, tiny_file):
    info = pc.inspect_checkpoint(released)
    assert (info.family, info.encoder, info.refused, info.params.encoder_depth) == ("pixeldit2", False, None, 0)
    info = pc.inspect_checkpoint(saved(tmp_path / "whole.safetensors", STATE))
    assert (info.encoder, info.params.encoder_depth) == (True, 2)
    assert pc.inspect_checkpoint(tiny_file).encoder is None


def about(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["pixeldit"]), set(file.keys())


@pytest.mark.parametrize("layout", ["canonical", "comfyui"])
@pytest.mark.parametrize("origin", ["model", "file"])
def test_saved_with_its_encoder_without_it_or_with_another(released, tmp_path, caplog, layout, origin):
    whole = pc.save_checkpoint(MODEL, tmp_path / "whole.safetensors")
    bare_file = pc.save_checkpoint(MODEL, tmp_path / "bare.safetensors", encoder="none")
    given = saved(tmp_path / "clip_vision" / "dinov3.safetensors", timm(MODEL))

    def source(path):
        return path if origin == "file" else pc.load_checkpoint(path, encoder="inside")

    def save(path, **others):
        return pc.save_checkpoint(source(path), tmp_path / "out.safetensors", layout, **others)

    for path, others, inside in (
        (whole, {}, True), (whole, {"encoder": "none"}, False), (whole, {"encoder": given}, True),
        (bare_file, {}, False), (bare_file, {"encoder": "none"}, False), (bare_file, {"encoder": given}, True),
    ):  # fmt: skip
        values, keys = about(save(path, **others))
        assert values["encoder"] is inside and "encoder_depth" not in values["params"]
        assert any(PLACE in key for key in keys) is inside
        assert ("dinov3.safetensors" in values.get("origin", {}).get("encoder", {})) is (others.get("encoder") == given)
        with caplog.at_level(logging.INFO):
            model = pc.load_checkpoint(tmp_path / "out.safetensors", encoder=None if inside else given)
        assert same(model, STATE) and model.params == MODEL.params
        assert "taken as published" not in caplog.text  # nothing is guessed of our own files
    with pytest.raises(ValueError, match="is a DINOv3|not a DINOv3|checkpoint"):
        save(whole, encoder=saved(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": torch.ones(2)}))


def test_a_file_without_encoder_is_saved_as_it_is(released, tmp_path):
    path = pc.save_checkpoint(released, tmp_path / "copy.safetensors")
    assert set(load_file(path)) == set(bare(MODEL))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16])
def test_an_encoder_keeps_its_dtype_where_others_are_made_small(tmp_path, dtype):
    path = pc.save_checkpoint(MODEL, tmp_path / "small.safetensors", dtype=dtype)
    stored = load_file(path)
    assert stored["patch_blocks.0.attn.qkv.weight"].dtype == dtype
    assert all(stored[key].dtype == torch.float32 for key in stored if key.startswith(PLACE))
    bfloat = load_file(pc.save_checkpoint(MODEL, tmp_path / "bf16.safetensors", dtype=torch.bfloat16))
    assert {value.dtype for value in bfloat.values()} == {torch.bfloat16}
    with torch.no_grad():
        large = tiny()
        large.network.dino_conditioner.encoder.norm.weight.fill_(1e6)
    pc.save_checkpoint(large, tmp_path / "large.safetensors", dtype=torch.float16)


def test_an_encoder_that_others_have_quantized_is_loaded_as_plain_numbers(tmp_path):
    small, scales = {}, {}
    for key, value in STATE.items():
        if key.endswith(".weight") and value.ndim == 2:
            scale = value.abs().max() / 448
            small[key], scales[key.replace("weight", "weight_scale")] = (value / scale).to(torch.float8_e4m3fn), scale
    path = saved(tmp_path / "fp8.safetensors", STATE | small | {k: v.clone() for k, v in scales.items()})
    found = read_weights(path, params=PARAMS)
    assert found.storage == "fp8" and found.scaled
    assert not any(key.startswith(PLACE) for key in found.scaled)
    assert all(found.tensors[key].itemsize > 1 for key in STATE if key.startswith(PLACE))
    plain = saved(tmp_path / "plain.safetensors", STATE | {key: STATE[key].to(torch.float8_e4m3fn) for key in small})
    found = read_weights(plain, params=PARAMS)
    assert all(found.tensors[key].itemsize > 1 for key in STATE if key.startswith(PLACE))
    assert found.tensors["patch_blocks.0.attn.qkv.weight"].itemsize == 1
