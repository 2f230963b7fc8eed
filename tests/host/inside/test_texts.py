"""What nodes show: text in their UI output, which pages keep; progress texts are cleared when a job ends."""

import loras
import tiny_gemma
import tiny_t2i
import torch
from kit import execute, labels, load_tiny, put, sampler_net

SETTINGS = {"steps": 4, "solver": "ab2", "width": 16, "height": 16, "seed": 3}


def shown(node_id, **inputs):
    """The text that a node shows; None where it shows none."""
    ui = execute(node_id, **inputs).ui
    assert list(ui) == ["text"] and len(ui["text"]) <= 1, ui  # pages and /api/jobs know that this key is no file
    return ui["text"][0] if ui["text"] else None


def test_every_node_shows_its_text():
    model = load_tiny()
    checkpoint = put(sampler_net(), "shown.ckpt")
    assert "10 classes" in shown("PixelDiTLoader", checkpoint=checkpoint, weight_dtype="fp32")
    assert shown("PixelDiTClassLabel", model=model, class_name="3", classes="") == "3 (of 10 classes)"
    assert "4 steps ab2" in shown("PixelDiTSampler", model=model, positive=labels([1]), **SETTINGS)
    size = {"resolution": "512", "aspect_ratio": "1:1", "orientation": "portrait"}
    assert shown("PixelDiTSize", **size) == "512 x 512"
    saved = shown("PixelDiTSaveModel", model=model, filename_prefix="shown/model")
    assert saved.startswith("model_00001_.safetensors, ") and " MB, in " in saved
    name = loras.put("shown.safetensors", loras.peft(loras.pairs(loras.shapes_of(tiny_t2i.core_model()))))
    assert shown("PixelDiTLoRA", model=tiny_t2i.ours(), lora_name=name).startswith("3 of 3 modules applied")


def test_a_note_on_transparency_comes_and_goes():
    assert shown("PixelDiTEncode", pixels=torch.zeros(1, 16, 16, 3)) is None
    assert "note: " in shown("PixelDiTEncode", pixels=torch.zeros(1, 16, 16, 4))


def test_a_note_on_a_long_prompt_comes_and_goes():
    clip, words = tiny_gemma.load(), "a cat in the garden "
    assert shown("PixelDiTTextPrompt", clip=clip, prompt=words, negative_prompt="") is None
    assert "tokens" in shown("PixelDiTTextPrompt", clip=clip, prompt=words * 200, negative_prompt="")


def test_settings_of_the_sampler():
    model = load_tiny()
    for change, words in (
        ({}, "4 steps ab2, cfg 2.75, timeshift 1, interval 0.1 to 0.9, 16 x 16"),
        (
            {"solver": "heun", "cfg": 1.5, "timeshift": 2.0},
            "4 steps heun, cfg 1.5, timeshift 2, interval 0.1 to 0.9, 16 x 16",
        ),
        (
            {"settings": "imagenet256-epoch80", "trajectory_frames": 2},
            "100 steps ab2, cfg 3.25, timeshift 1, interval 0.1 to 1, 16 x 16",
        ),
    ):
        result = execute("PixelDiTSampler", model=model, positive=labels([1]), **{**SETTINGS, **change})
        settings, text = result.result[-1], result.ui["text"][0]
        assert settings == words and text.split("\n")[0] == words, (settings, text)
        assert not set(settings) & set('\\/:*?"<>|%\n'), "it may be a file name"
    assert len(result.result) == 4 and "\nnote: these settings are for 256 x 256" in text, text
