"""PixelDiT Text Prompt with the host's own Qwen3, as PixelHDM needs it: against a golden case of the reference."""

import re

import pytest
import tiny_gemma
import tiny_qwen
import torch
from kit import golden, module, run


def qwen():
    return module("nodes.host.qwen")


def encoded(clip, text, **options):
    """States, mask and pooled state of a text."""
    ((states, entries),) = qwen().encode(clip, text, **options)
    assert states.dtype == torch.float32 and entries["attention_mask"].dtype == torch.int64
    assert states.shape[:2] == entries["attention_mask"].shape
    return states, entries["attention_mask"], entries["pooled_output"]


def alike(found, wanted, tolerance):
    error = ((found - wanted).norm() / wanted.norm()).item()
    assert found.shape == wanted.shape and error <= tolerance, f"{tuple(found.shape)}: relative error {error}"


def test_states_and_pooled_are_those_of_the_reference():
    clip = tiny_qwen.load()
    case, inputs, wanted = golden(*tiny_qwen.CASE)
    tolerance = case["recommended_tolerance"]["rel_l2"]
    for row, length in enumerate(case["lens"]):
        text = tiny_qwen.Letters().spell(inputs["input_ids"][row, :length].tolist())
        states, mask, pooled = encoded(clip, text)
        assert mask.tolist() == [[1] * length] if length else [[0]], f"{mask}"
        alike(states, wanted["hidden_states"][row : row + 1, : max(length, 1)], tolerance)
        alike(pooled, wanted["pooled"][row : row + 1], tolerance)


def test_an_empty_text_is_one_masked_token():
    states, mask, pooled = encoded(tiny_qwen.load(), "")
    assert states.shape == (1, 1, 32) and mask.tolist() == [[0]] and torch.equal(pooled, states[:, 0])


def test_what_is_behind_the_limit_does_not_count():
    clip = tiny_qwen.load()
    text = "the quick brown fox jumps over the lazy dog" * 20
    states, mask, pooled = encoded(clip, text)
    assert states.shape[1] == mask.sum() == 511
    assert torch.equal(states, encoded(clip, text[:511])[0]) and torch.equal(pooled, states[:, -1])
    assert encoded(clip, text, limit=7)[0].shape[1] == 7
    unread = module("nodes.host.text").unread
    assert unread(clip, text[:511]) is None and unread(clip, "") is None
    assert f"it has {len(text)} tokens, the model reads the first 511" in unread(clip, text)


def test_the_words_are_taken_literally():
    asked = []

    class Asked(tiny_qwen.Letters):
        def __call__(self, text):
            asked.append(text)
            return {"input_ids": [3] * len(text)}

    clip = tiny_qwen.load()
    clip.tokenizer.qwen3_06b.tokenizer = Asked()
    text = "a (red:1.2) fox, embedding:name [x] \\(y\\)"
    assert encoded(clip, text)[0].shape[1] == len(text) and asked == [text]


def test_the_tokenizer_adds_nothing():
    tokenize = tiny_qwen.detected().tokenizer.qwen3_06b.tokenizer
    assert tokenize("")["input_ids"] == []
    ids = tokenize("a photograph of a cat")["input_ids"]
    assert tokenize.decode(ids) == "a photograph of a cat" and min(ids) >= 0 and max(ids) < 151643, f"{ids}"


def test_the_node_encodes_both_prompts():
    clip = tiny_qwen.load()
    outputs = run("PixelDiTTextPrompt", clip=clip, prompt="a cat", negative_prompt="")
    for output, text in zip(outputs, ("a cat", ""), strict=True):
        states, mask, pooled = encoded(clip, text)
        ((given, entries),) = output
        assert torch.equal(given, states) and torch.equal(entries["attention_mask"], mask)
        assert torch.equal(entries["pooled_output"], pooled)


def test_the_type_of_load_clip_does_not_matter():
    import comfy.sd

    for kind in {"STABLE_DIFFUSION", "QWEN_IMAGE", "PIXELDIT"} & set(comfy.sd.CLIPType.__members__):
        clip = tiny_qwen.detected(kind)
        assert qwen().is_qwen(clip), kind
        assert encoded(clip, "!")[0].shape == (1, 1, 1024)  # "!" is its token 0


def test_larger_ones_work_too():
    for name, width in (("Ovis25_2B", 2048), ("Qwen3_4B", 2560)):
        states, mask, _ = encoded(tiny_qwen.detected(name=name), "!")
        assert states.shape == (1, 1, width) and mask.tolist() == [[1]], f"{name}: {states.shape}"


def test_a_wrong_encoder_or_an_old_comfyui_is_reported():
    import comfy.text_encoders.llama

    def prompt(clip):
        run("PixelDiTTextPrompt", clip=clip, prompt="a cat", negative_prompt="blurry")

    spec = hasattr(comfy.text_encoders.llama, "Qwen3_06B")
    wanted = "For PixelHDM, load Qwen3-0.6B" if spec else "needs a ComfyUI with Qwen3-0.6B"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        prompt(None)
    clip = tiny_gemma.load("LUMINA2")
    assert not qwen().is_qwen(clip)
    with pytest.raises(ValueError, match=re.escape(wanted)):
        prompt(clip)
    with pytest.raises(ValueError, match=re.escape("loaded for another model (LuminaTokenizer)")):
        prompt(clip)


def test_a_prompt_reaches_the_image():
    """From words to pixels: the nodes give what the core makes of the same states; what is too long is cut."""
    import comfy.sample
    from kit import core, golden_folder, load

    clip = tiny_qwen.load()
    path = golden_folder("10_sampler_euler_cfg", "pixelhdm") / "checkpoint.pt"  # reads 15 tokens
    model, spec = load(path, "prompted.pt"), core().load_checkpoint(path)
    settings = {"seed": 3, "steps": 4, "solver": "flow_dpmpp_2m", "cfg": 2.0, "width": 16, "height": 12}
    settings |= {"cfg_interval_start": 0.0, "cfg_interval_end": 1.0}
    for prompt in ("a fox", "a fox in deep snow under a pale moon"):
        positive, negative = run("PixelDiTTextPrompt", clip=clip, prompt=prompt, negative_prompt="")
        picture = run("PixelDiTSampler", model=model, positive=positive, negative=negative, **settings)[0]
        states, mask, pooled = encoded(clip, prompt, limit=15)
        x = core().sample(
            spec,
            core().text_condition(spec, states, mask, pooled),
            core().text_condition(spec, *encoded(clip, "")),
            noise=comfy.sample.prepare_noise(torch.zeros(1, 3, 12, 16), 3),
            steps=4,
            solver="flow_dpmpp_2m",
            cfg=2.0,
        )
        low, high = (core().to_uint8(spec, x + shift) for shift in (-2e-4, 2e-4))
        saved = (picture * 255).round().byte()
        assert ((low <= saved) & (saved <= high)).all(), prompt
