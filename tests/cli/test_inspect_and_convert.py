"""`inspect` as text and JSON; `convert`: layouts, precisions, weights, LoRAs and existing files."""

import json

import torch
from checkpoints.files import rewrite_metadata
from helpers import file_names
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.cli import main


def test_inspect_shows_files_as_text_and_json(tiny_file, tmp_path, capsys):
    text = tmp_path / "notes.ckpt"
    text.write_text("These are not weights at all.")
    assert main(["inspect", str(tiny_file)]) == 0
    printed = capsys.readouterr().out
    assert (
        "44,775" in printed
        and "12: circle, square, tabby" in printed
        and "4 steps, ab2" in printed
        and "float32" in printed
    )
    assert main(["inspect", "--json", str(tiny_file), str(text)]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["family"] == "pixeldit" and good["refused"] is None and good["parameters"] == 44775
    assert good["params"]["hidden_size"] == 24 and good["class_names"][2] == "tabby" and good["settings"]["steps"] == 4
    assert "notes.ckpt is not a checkpoint" in bad["refused"]


def test_inspect_shows_what_a_file_says_of_itself(tiny_file, capsys):
    said = {"license": "MIT", "author": "A\x1b[2J " + "and B " * 90, "hash_sha256": "0" * 64}
    rewrite_metadata(tiny_file, lambda metadata: metadata.update({f"modelspec.{k}": v for k, v in said.items()}))
    assert main(["inspect", str(tiny_file)]) == 0
    printed = capsys.readouterr().out
    assert "license     MIT" in printed and "author      A?[2J and B" in printed and "\x1b" not in printed
    assert "[...]" in printed and "hash" not in printed
    assert main(["inspect", "--json", str(tiny_file)]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert info["about"] == said


def test_convert_writes_every_layout_and_precision(tiny_file, tmp_path, capsys):
    original = load_file(tiny_file)
    for dtype, kind in {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}.items():
        target = tmp_path / f"{dtype}.safetensors"
        arguments = ["convert", str(tiny_file), str(target), "--layout", "comfyui", "--dtype", dtype]
        assert main(arguments) == 0
        written = load_file(target)
        assert set(written) == {f"model.diffusion_model.{key}" for key in original}
        for key, value in original.items():
            assert torch.equal(written[f"model.diffusion_model.{key}"], value.to(kind))
    assert "44,775" in capsys.readouterr().out
    info = pc.inspect_checkpoint(target)
    assert info.class_names[2] == ("tabby", "tabby cat") and info.settings.steps == 4


def test_text_to_image_is_inspected_and_converted_but_not_sampled(tiny_t2i, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = pc.save_checkpoint(tiny_t2i(), tmp_path / "text.safetensors")
    count = sum(parameter.numel() for parameter in tiny_t2i().network.parameters())
    assert main(["sample", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: text.safetensors is PixelDiT, text-to-image") and error.count("\n") == 1
    assert "text_condition" in error and file_names(tmp_path) == ["text.safetensors"]
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "PixelDiT, text-to-image" in printed and f"{count:,}" in printed and "txt_max_length 6" in printed
    assert main(["inspect", "--json", str(path)]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert info["family"] == "pixeldit_t2i" and info["parameters"] == count and info["class_names"] is None
    assert main(["convert", str(path), str(tmp_path / "comfy.safetensors"), "--layout", "comfyui"]) == 0
    written = load_file(tmp_path / "comfy.safetensors")
    assert all(key.startswith("core.") for key in written)
    assert "core.pixel_blocks.0.adaLN_modulation_msa.weight" in written


def test_convert_chooses_weights(tiny, tmp_path, capsys):
    raw, ema = (tiny(seed=seed).network.state_dict() for seed in (1, 2))
    source = tmp_path / "both.safetensors"
    save_file({f"denoiser.{k}": v for k, v in raw.items()} | {f"ema_denoiser.{k}": v for k, v in ema.items()}, source)
    for choice, expected in {"auto": ema, "ema": ema, "raw": raw}.items():
        target = tmp_path / f"{choice}.safetensors"
        assert main(["convert", str(source), str(target), "--weights", choice]) == 0
        assert all(torch.equal(value, expected[key]) for key, value in load_file(target).items())


def test_convert_merges_loras(tiny, tiny_file, tmp_path):
    name = "pixel_blocks.0.mlp.fc1"
    state = tiny().network.state_dict()
    rows, columns = state[f"{name}.weight"].shape
    pair = {f"{name}.lora_B.weight": torch.ones(rows, 1), f"{name}.lora_A.weight": torch.ones(1, columns)}
    lora = tmp_path / "one=two.safetensors"
    save_file(pair, lora)
    for option, strength in ((f"{lora}", 1.0), (f"{lora}=0.5", 0.5), (f"{lora}=-2", -2.0)):
        target = tmp_path / "merged.safetensors"
        assert main(["convert", str(tiny_file), str(target), "--lora", option, "--force"]) == 0
        merged = load_file(target)
        assert torch.allclose(merged[f"{name}.weight"], state[f"{name}.weight"] + strength)
        assert torch.equal(merged["s_embedder.proj.weight"], state["s_embedder.proj.weight"])


def test_convert_does_not_replace_without_force(tiny_file, tmp_path, capsys):
    target = tmp_path / "there.safetensors"
    target.write_bytes(b"precious")
    assert main(["convert", str(tiny_file), str(target)]) == 2
    assert "--force" in capsys.readouterr().err and target.read_bytes() == b"precious"
    assert main(["convert", str(tiny_file), str(target), "--force"]) == 0
    assert pc.inspect_checkpoint(target).family == "pixeldit"
    assert main(["convert", str(tiny_file), str(tiny_file), "--force"]) == 2
    assert "is the source itself" in capsys.readouterr().err
    assert main(["convert", str(tiny_file), str(tmp_path / "there.ckpt")]) == 2
    assert "only .safetensors is written" in capsys.readouterr().err
