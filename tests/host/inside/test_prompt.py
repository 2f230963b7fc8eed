"""PixelDiT Text Prompt, with the host's own text encoder; on hosts that have none for PixelDiT, its error."""

import re

import pytest
import tiny_gemma
import tiny_t2i
import torch
from kit import module, run


def prompt(clip, text, negative="blurry"):
    return run("PixelDiTTextPrompt", clip=clip, prompt=text, negative_prompt=negative)


def plain(clip, text):
    return run("CLIPTextEncode", clip=clip, text=text)[0]


def same(a, b):
    assert len(a) == len(b) == 1 and torch.equal(a[0][0], b[0][0])
    mask, other = a[0][1].get("attention_mask"), b[0][1].get("attention_mask")
    assert a[0][1].keys() == b[0][1].keys() and torch.equal(mask, other)


def test_both_prompts_are_encoded_as_comfyui_does():
    clip = tiny_gemma.load()
    for text, negative in (("a cat in the garden", "low quality"), ("", ""), ("dog " * 500, "blurry")):
        positive, against = prompt(clip, text, negative)
        same(positive, plain(clip, text))
        same(against, plain(clip, negative))
        assert tuple(positive[0][0].shape) == tuple(against[0][0].shape) == (1, 300, tiny_gemma.WIDTH)


def test_the_default_negative_prompt_is_the_published_one():
    from kit import node

    options = node("PixelDiTTextPrompt").GET_NODE_INFO_V1()["input"]["required"]["negative_prompt"][1]
    assert options["default"].startswith("low quality, worst quality, over-saturated, blurry")


def test_a_cut_is_reported():
    unread = module("nodes.host.text").unread
    clip = tiny_gemma.load()
    words = next(text for text in ("cat ", "dog ", "a ") if tokens(clip, text * 10) == 10 * tokens(clip, text))
    each = tokens(clip, words)
    assert unread(clip, words * (299 // each)) is None, "it just fits"
    text = words * (299 // each + 1)
    assert f"it has {tokens(clip, text)} tokens" in unread(clip, text), unread(clip, text)
    # the note is true: ComfyUI gives the same states whatever follows the cut
    longer = words * (299 // each + 5)
    cut, full = (plain(clip, text)[0][0] for text in (longer, longer + "low quality"))
    assert torch.equal(cut, full), "nothing behind the cut counts"
    for short in ("", "a cat"):
        assert unread(clip, short) is None


def tokens(clip, text):
    return len(clip.tokenizer.gemma2_2b.tokenizer(text)["input_ids"]) - 1


def test_from_prompt_to_image():
    clip, model = tiny_gemma.load(), tiny_t2i.ours(txt_max_length=300)
    positive, negative = prompt(clip, "a cat in the garden", "blurry")

    def picture(positive, negative):
        return run(
            "PixelDiTSampler", model=model, positive=positive, negative=negative, steps=3, solver="flow_dpmpp_2m",
            width=32, height=32,
        )[0]  # fmt: skip

    made = picture(positive, negative)
    assert tuple(made.shape) == (1, 32, 32, 3) and torch.isfinite(made).all()
    core_nodes = picture(plain(clip, "a cat in the garden"), plain(clip, "blurry"))
    assert torch.equal(made, core_nodes), "conditioning of the host's own node works as well"
    assert not torch.equal(made, picture(*prompt(clip, "the lazy dog", "blurry"))), "the prompt matters"
    combined = run("ConditioningConcat", conditioning_to=positive, conditioning_from=negative)[0]
    assert torch.isfinite(picture(combined, negative)).all(), "600 tokens: the first 300 count"


def test_a_host_or_encoder_that_does_not_know_pixeldit_is_reported():
    import comfy.sd
    from comfyui_version import __version__

    if not hasattr(comfy.sd.CLIPType, "PIXELDIT"):
        clip = tiny_gemma.load("LUMINA2")
        with pytest.raises(ValueError, match=re.escape(f"needs ComfyUI 0.23 or newer; this is {__version__}.")):
            prompt(clip, "a cat")
        with pytest.raises(ValueError, match=re.escape("needs ComfyUI 0.23 or newer")):
            prompt(None, "a cat")
        return
    with pytest.raises(ValueError, match="set its type to pixeldit"):
        prompt(tiny_gemma.load("LUMINA2"), "a cat")
    with pytest.raises(ValueError, match="there is no text encoder"):
        prompt(None, "a cat")
