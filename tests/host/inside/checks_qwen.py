"""PixelDiT Text Prompt with the host's own Qwen3, as PixelHDM needs it: against a golden case of the reference."""

import tiny_gemma
import tiny_qwen
import torch
from kit import golden, module, raises, require, run


def qwen():
    return module("nodes.host.qwen")


def encoded(clip, text, **options):
    """States, mask and pooled state of a text."""
    ((states, entries),) = qwen().encode(clip, text, **options)
    require(states.dtype == torch.float32 and entries["attention_mask"].dtype == torch.int64)
    require(states.shape[:2] == entries["attention_mask"].shape)
    return states, entries["attention_mask"], entries["pooled_output"]


def alike(found, wanted, tolerance):
    error = ((found - wanted).norm() / wanted.norm()).item()
    require(found.shape == wanted.shape and error <= tolerance, f"{tuple(found.shape)}: relative error {error}")


def check_states_and_pooled_are_those_of_the_reference():
    clip = tiny_qwen.load()
    case, inputs, wanted = golden(*tiny_qwen.CASE)
    tolerance = case["recommended_tolerance"]["rel_l2"]
    for row, length in enumerate(case["lens"]):
        text = tiny_qwen.Letters().spell(inputs["input_ids"][row, :length].tolist())
        states, mask, pooled = encoded(clip, text)
        require(mask.tolist() == [[1] * length] if length else [[0]], f"{mask}")
        alike(states, wanted["hidden_states"][row : row + 1, : max(length, 1)], tolerance)
        alike(pooled, wanted["pooled"][row : row + 1], tolerance)


def check_an_empty_text_is_one_masked_token():
    states, mask, pooled = encoded(tiny_qwen.load(), "")
    require(states.shape == (1, 1, 32) and mask.tolist() == [[0]] and torch.equal(pooled, states[:, 0]))


def check_what_is_behind_the_limit_does_not_count():
    clip = tiny_qwen.load()
    text = "the quick brown fox jumps over the lazy dog" * 20
    states, mask, pooled = encoded(clip, text)
    require(states.shape[1] == mask.sum() == 511)
    require(torch.equal(states, encoded(clip, text[:511])[0]) and torch.equal(pooled, states[:, -1]))
    require(encoded(clip, text, limit=7)[0].shape[1] == 7)
    unread = module("nodes.host.text").unread
    require(unread(clip, text[:511]) is None and unread(clip, "") is None)
    require(f"it has {len(text)} tokens, the model reads the first 511" in unread(clip, text))


def check_the_words_are_taken_literally():
    asked = []

    class Asked(tiny_qwen.Letters):
        def __call__(self, text):
            asked.append(text)
            return {"input_ids": [3] * len(text)}

    clip = tiny_qwen.load()
    clip.tokenizer.qwen3_06b.tokenizer = Asked()
    text = "a (red:1.2) fox, embedding:name [x] \\(y\\)"
    require(encoded(clip, text)[0].shape[1] == len(text) and asked == [text])


def check_the_tokenizer_adds_nothing():
    tokenize = tiny_qwen.detected().tokenizer.qwen3_06b.tokenizer
    require(tokenize("")["input_ids"] == [])
    ids = tokenize("a photograph of a cat")["input_ids"]
    require(tokenize.decode(ids) == "a photograph of a cat" and min(ids) >= 0 and max(ids) < 151643, f"{ids}")


def check_the_node_encodes_both_prompts():
    clip = tiny_qwen.load()
    outputs = run("PixelDiTTextPrompt", clip=clip, prompt="a cat", negative_prompt="")
    for output, text in zip(outputs, ("a cat", ""), strict=True):
        states, mask, pooled = encoded(clip, text)
        ((given, entries),) = output
        require(torch.equal(given, states) and torch.equal(entries["attention_mask"], mask))
        require(torch.equal(entries["pooled_output"], pooled))


def check_the_type_of_load_clip_does_not_matter():
    for kind in ("STABLE_DIFFUSION", "QWEN_IMAGE", "PIXELDIT"):
        clip = tiny_qwen.detected(kind)
        require(qwen().is_qwen(clip), kind)
        require(encoded(clip, "!")[0].shape == (1, 1, 1024))  # "!" is its token 0


def check_larger_ones_work_too():
    for name, width in (("Ovis25_2B", 2048), ("Qwen3_4B", 2560)):
        states, mask, _ = encoded(tiny_qwen.detected(name=name), "!")
        require(states.shape == (1, 1, width) and mask.tolist() == [[1]], f"{name}: {states.shape}")


def check_a_wrong_encoder_or_an_old_host_is_told():
    import comfy.text_encoders.llama

    def prompt(clip):
        run("PixelDiTTextPrompt", clip=clip, prompt="a cat", negative_prompt="blurry")

    known = hasattr(comfy.text_encoders.llama, "Qwen3_06B")
    wanted = "For PixelHDM, load Qwen3-0.6B" if known else "needs a ComfyUI with Qwen3-0.6B"
    raises(ValueError, wanted, prompt, None)
    clip = tiny_gemma.load("LUMINA2")
    require(not qwen().is_qwen(clip))
    raises(ValueError, wanted, prompt, clip)
    raises(ValueError, "loaded for another model (LuminaTokenizer)", prompt, clip)


def check_a_prompt_reaches_the_picture():
    """From words to pixels: the nodes give what the core makes of the same states; what is too long is cut."""
    import comfy.sample
    from kit import core, golden_folder, load

    clip = tiny_qwen.load()
    path = golden_folder("10_sampler_euler_cfg", "pixelhdm") / "checkpoint.pt"  # reads 15 tokens
    model, known = load(path, "prompted.pt"), core().load_checkpoint(path)
    settings = {"seed": 3, "steps": 4, "solver": "flow_dpmpp_2m", "cfg": 2.0, "width": 16, "height": 12}
    settings |= {"cfg_interval_start": 0.0, "cfg_interval_end": 1.0}
    for prompt in ("a fox", "a fox in deep snow under a pale moon"):
        positive, negative = run("PixelDiTTextPrompt", clip=clip, prompt=prompt, negative_prompt="")
        picture = run("PixelDiTSampler", model=model, positive=positive, negative=negative, **settings)[0]
        states, mask, pooled = encoded(clip, prompt, limit=15)
        x = core().sample(
            known,
            core().text_condition(known, states, mask, pooled),
            core().text_condition(known, *encoded(clip, "")),
            noise=comfy.sample.prepare_noise(torch.zeros(1, 3, 12, 16), 3),
            steps=4,
            solver="flow_dpmpp_2m",
            cfg=2.0,
        )
        low, high = (core().to_uint8(known, x + shift) for shift in (-2e-4, 2e-4))
        saved = (picture * 255).round().byte()
        require(((low <= saved) & (saved <= high)).all(), prompt)
