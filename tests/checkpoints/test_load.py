"""Layouts, the choice of weights, and the parameters a caller gives."""

import pytest
import torch
from checkpoints.files import prefixed, same, write

import pixeldit_core as pc


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    "prefix, weights",
    [
        ("", "raw"),
        ("model.diffusion_model.", "raw"),
        ("diffusion_model.", "raw"),
        ("denoiser.", "raw"),
        ("ema_denoiser.", "ema"),
        ("module.", "raw"),
        ("_orig_mod.", "raw"),
        ("ema_denoiser._orig_mod.", "ema"),
        ("module.denoiser.", "raw"),
        ("net_ema.", "ema"),
    ],
)
def test_prefixes(tiny, tmp_path, prefix, weights, suffix):
    state = tiny().network.state_dict()
    path = write(tmp_path / f"file{suffix}", prefixed(prefix, state))
    model = pc.load_checkpoint(path)
    assert same(model, state) and model.spec.weights == weights and model.spec.source == path.name
    assert model.params == tiny().params
    info = pc.inspect_checkpoint(path)
    assert (
        info.weights == (weights,)
        and info.layout == (prefix.replace("_orig_mod.", "") or "canonical")
        and info.refused is None
    )
    pc.load_checkpoint(path, weights=weights)
    other = "ema" if weights == "raw" else "raw"
    with pytest.raises(ValueError, match=f"{path.name} has no {other} weights, only {weights}"):
        pc.load_checkpoint(path, weights=other)
    with pytest.raises(ValueError, match='weights "best" is not a choice'):
        pc.load_checkpoint(path, weights="best")


@pytest.mark.parametrize(
    "raw, ema",
    [
        ("denoiser.", "ema_denoiser."),
        ("denoiser._orig_mod.", "ema_denoiser._orig_mod."),
        ("module.denoiser.", "module.ema_denoiser."),
        ("net.", "net_ema."),
        ("", "ema."),
    ],
)
def test_averaged_weights_are_preferred(tiny, tmp_path, raw, ema):
    states = {"raw": tiny(seed=1).network.state_dict(), "ema": tiny(seed=2).network.state_dict()}
    both = prefixed(raw, states["raw"]) | prefixed(ema, states["ema"])
    trainer = raw.split("denoiser.")[0] if "denoiser." in raw else ""
    both[f"{trainer}diffusion_trainer.proj.0.0.weight"] = torch.zeros(2)
    path = write(tmp_path / "both.ckpt", both)
    assert pc.inspect_checkpoint(path).weights == ("ema", "raw")
    for choice, expected in {"auto": "ema", "ema": "ema", "raw": "raw"}.items():
        model = pc.load_checkpoint(path, weights=choice)
        assert same(model, states[expected]) and model.spec.weights == expected


@pytest.mark.parametrize(
    "raw, ema",
    [
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("model", "model_ema"),
        ("model_state_dict", "ema_model_state_dict"),
    ],
)
def test_containers_of_trainers(tiny, tmp_path, raw, ema):
    states = {"raw": tiny(seed=1).network.state_dict(), "ema": tiny(seed=2).network.state_dict()}
    path = tmp_path / "trainer.pt"
    torch.save({raw: states["raw"], ema: states["ema"], "optimizer": {"state": [torch.zeros(3)]}, "epoch": 3}, path)
    for choice, expected in {"auto": "ema", "raw": "raw"}.items():
        assert same(pc.load_checkpoint(path, weights=choice), states[expected])


def test_a_bare_pickled_state_dict(tiny, tmp_path):
    state = tiny().network.state_dict()
    torch.save(dict(state), tmp_path / "bare.bin")
    assert same(pc.load_checkpoint(tmp_path / "bare.bin"), state)
    torch.save(dict(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(pc.load_checkpoint(tmp_path / "old.pth"), state)


def test_a_checkpoint_of_comfyui_with_its_other_models(tiny, tmp_path):
    state = tiny().network.state_dict()
    path = tmp_path / "comfy.safetensors"
    others = {"vae.decoder.conv_in.weight": torch.zeros(1), "text_encoders.t5.x": torch.zeros(1)}
    write(path, prefixed("model.diffusion_model.", state) | others)
    assert same(pc.load_checkpoint(path), state)
    assert pc.inspect_checkpoint(path).count == sum(value.numel() for value in state.values())


def test_a_variant_and_sizes_come_from_shapes(tiny, tmp_path):
    params = pc.PixelDiTParams(
        hidden_size=32,
        num_groups=4,
        patch_depth=3,
        pixel_depth=2,
        patch_size=2,
        pixel_hidden_size=8,
        num_classes=3,
        in_channels=4,
        mlp_hidden_size=50,
        pixel_attn_hidden_size=24,
        pixel_num_groups=3,
        pit_adaln_post_modulation=True,
        image_mean=(0.5,) * 4,
        image_std=(0.5,) * 4,
    )
    model = tiny(params)
    bare = write(tmp_path / "bare.safetensors", model.network.state_dict())
    found = pc.inspect_checkpoint(bare).params
    for name in ("hidden_size", "num_groups", "patch_depth", "pixel_depth", "patch_size", "pixel_hidden_size",
                 "num_classes", "in_channels", "mlp_hidden_size", "pixel_attn_hidden_size", "pixel_num_groups",
                 "pit_adaln_post_modulation"):  # fmt: skip
        assert getattr(found, name) == getattr(params, name), name
    assert pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "own.safetensors")).params == params


def test_params_of_the_caller(tiny, tmp_path):
    state = tiny().network.state_dict()
    path = write(tmp_path / "bare.safetensors", state)
    assert pc.load_checkpoint(path).params.use_pixel_abs_pos is True
    model = pc.load_checkpoint(path, params={"use_pixel_abs_pos": False})
    assert model.params.use_pixel_abs_pos is False
    x = torch.randn(1, 3, 8, 8)
    with_positions = pc.load_checkpoint(path).velocity(x, 0.5, torch.tensor([1]))
    assert not torch.allclose(model.velocity(x, 0.5, torch.tensor([1])), with_positions)
    with pytest.raises(ValueError, match="bare.safetensors: params says hidden_size = 32, its tensors say 24"):
        pc.load_checkpoint(path, params={"hidden_size": 32})
    with pytest.raises(ValueError, match='bare.safetensors: params has "depth", which is not a parameter of PixelDiT'):
        pc.load_checkpoint(path, params={"depth": 3})


def test_params_of_the_caller_go_before_those_of_the_file(tiny, tmp_path):
    from dataclasses import replace

    model = tiny()
    model = tiny(replace(model.params, use_pixel_abs_pos=False))
    path = pc.save_checkpoint(model, tmp_path / "own.safetensors")
    assert pc.load_checkpoint(path).params.use_pixel_abs_pos is False
    assert pc.load_checkpoint(path, params={"use_pixel_abs_pos": True}).params.use_pixel_abs_pos is True
