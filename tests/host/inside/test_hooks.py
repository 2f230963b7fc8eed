"""Nodes that act on patch blocks, attention and positions: on every family, as on ComfyUI's own networks."""

import pytest
import tiny_t2i
import torch
from hooks import (
    FAMILIES,
    bundled,
    call_original,
    differ,
    equal,
    has,
    load_nodes,
    model_of,
    patch_blocks,
    replaced,
    sample,
    skip,
    warnings,
    without_block,
)
from kit import close, record_calls, run
from text_model import ksampler


def test_a_replacement_sees_the_streams_of_every_family_and_can_call_the_block():
    for family in FAMILIES:
        model, seen = model_of(family), []
        count = len(patch_blocks(model))

        def look(arguments, extra, seen=seen):
            seen.append(arguments)
            out = extra["original_block"](arguments)
            assert out["img"].shape == arguments["img"].shape and set(out) == {"img", "txt"}
            return out

        equal(sample(replaced(model, range(count), look)), sample(model), family)
        assert len(seen) == 2 * count, f"{family}: {len(seen)} calls"
        for call in seen:
            options = call["transformer_options"]
            assert options["total_blocks"] == count and options["block_type"] == "double"
            assert (call["txt"] is None) == is_image_alone(family, options["block_index"]), family
            assert ("img_slice" in options) == (call["txt"] is not None), family
            if call["txt"] is not None:
                start, stop = options["img_slice"]
                assert stop - start == call["img"].shape[1], family
                assert start in (0, call["txt"].shape[1]), family
            assert call["vec"].shape[0] == call["img"].shape[0], family
            assert call["pe"].shape[-1] == 2, family


def is_image_alone(family, index):
    """Whether a patch block has no other tokens; PixelDiT2 adds those of its class before the third."""
    return family in ("class", "dit-r1", "pixeldit-r1") or (family == "pixeldit2" and index < 2)


def test_a_skipped_block_is_as_if_it_were_not_there():
    for family in FAMILIES:
        model = model_of(family)
        plain, skipped = sample(model), sample(replaced(model, [0], skip))
        with without_block(model, 0):
            equal(skipped, sample(model), family)
        assert differ(skipped, plain) > 1e-3, family


def test_what_a_replacement_returns_goes_on():
    for family in FAMILIES:
        model = model_of(family)
        last = len(patch_blocks(model)) - 1

        def without_img(arguments, extra):
            return {**call_original(arguments, extra), "img": torch.zeros_like(arguments["img"])}

        dark = sample(replaced(model, [last], without_img))
        assert torch.isfinite(dark).all() and differ(dark, sample(model)) > 1e-3, family


def test_a_patch_after_each_block():
    for family in FAMILIES:
        model, seen = model_of(family), []

        def patch(arguments, seen=seen):
            seen.append((arguments["block_index"], arguments["x"].ndim))
            return {"img": arguments["img"] * 1.5} if arguments["block_index"] == 0 else {}

        patched = model.clone()
        patched.set_model_patch(patch, "double_block")
        assert differ(sample(patched), sample(model)) > 1e-4, family
        assert seen == [(index, 4) for index in range(len(patch_blocks(model)))] * 2, family


def test_skip_layer_guidance_acts_and_costs_a_pass():
    load_nodes("slg", "sd3")
    for family in ("class", "text", "mmdit-r1", "pixelhdm", "pixeldit2"):
        model = model_of(family)
        plain, last = sample(model), str(len(patch_blocks(model)) - 1)
        window = {"start_percent": 0.0, "end_percent": 1.0}
        for node, options, rows in (
            ("SkipLayerGuidanceDiT", {"double_layers": f"0, {last}", "single_layers": "7", **window}, 3),
            ("SkipLayerGuidanceSD3", {"layers": last, **window}, 3),
            ("SkipLayerGuidanceDiTSimple", {"double_layers": last, "single_layers": "", **window}, None),
        ):
            if not has(node):
                continue
            with warnings() as lines:
                model_calls, calls = record_calls(run(node, model=model, **options)[0])
                assert differ(sample(model_calls), plain) > 1e-3, f"{family}: {node}"
            assert not lines, str(lines)
            assert rows is None or sum(len(call["x"]) for call in calls) == 2 * rows, node


def test_layers_that_do_not_exist_are_named_once_in_each_sampling():
    load_nodes("slg")
    model = bundled()
    count, plain = len(patch_blocks(model)), sample(model)
    window = {"start_percent": 0.0, "end_percent": 1.0}
    far = run("SkipLayerGuidanceDiT", model=model, double_layers="77, 78", single_layers="", **window)[0]
    some = run("SkipLayerGuidanceDiT", model=model, double_layers="0, 77", single_layers="", **window)[0]
    for patched, words in ((far, "no effect"), (some, "less effect")):
        for _ in range(2):
            with warnings() as lines:
                close(sample(patched), plain, 1e-4) if patched is far else sample(patched)
            (line,) = lines
            assert "SkipLayerGuidanceDiT" in line and words in line and f"0 to {count - 1}" in line, line
            assert "77" in line, line


def test_attention_output_patches_see_the_image_of_patch_blocks_alone():
    for family in FAMILIES:
        model, seen = model_of(family), []
        count = len(patch_blocks(model))

        def patch(out, extra, seen=seen):
            start, stop = extra.get("img_slice", (0, out.shape[1]))
            seen.append((extra["block_index"], stop - start, out[:, start:stop].shape[1]))
            return out.index_fill(1, torch.arange(start, stop), 0.0)

        patched = model.clone()
        patched.set_model_attn1_output_patch(patch)
        assert differ(sample(patched), sample(model)) > 1e-4, family
        assert [index for index, *_ in seen] == [*range(count)] * 2, family
        assert len({lengths for _, *sizes in seen for lengths in sizes}) == 1, f"{family}: {seen}"


def test_normalized_attention_guidance():
    load_nodes("nag")
    if not has("NAGuidance"):
        pytest.skip("this ComfyUI has no NAGuidance")
    for family in ("text", "pixelhdm", "class", "mmdit-r1", "pixeldit2"):
        model = model_of(family)
        plain = sample(model, cfg=1.0)
        none = run("NAGuidance", model=model, nag_scale=1.0, nag_alpha=1.0, nag_tau=1.5)[0]
        close(sample(none, cfg=1.0), plain, 1e-4)  # guided attention is that of the prompt
        patched, calls = record_calls(run("NAGuidance", model=model, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)[0])
        assert differ(sample(patched, cfg=1.0), plain) > 1e-4, family
        assert {len(call["x"]) for call in calls} == {2}, family


def test_perturbed_attention_guidance_acts_in_the_middle_block():
    load_nodes("pag")
    for family in FAMILIES:
        model = model_of(family)
        plain = sample(model)
        patched, calls = record_calls(run("PerturbedAttentionGuidance", model=model, scale=3.0)[0])
        with warnings() as lines:
            assert differ(sample(patched), plain) > 1e-4, family
        assert not lines and sum(len(call["x"]) for call in calls) == 2 * 3, family


def test_perturbed_attention_is_the_values():
    model = bundled()
    blocks, options = patch_blocks(model), {"attn1": {("middle", 0): lambda q, k, v, extra: v}}
    middle = blocks[(len(blocks) - 1) // 2].attn
    x, condition = torch.randn(1, 3, 96, 96), torch.zeros(1, model.model.pixeldit.params.num_classes + 1)

    def call(**transformer_options):
        sigma = torch.full((1,), 0.6)
        return model.model.apply_model(x, sigma, pixeldit_class=condition, transformer_options=transformer_options)

    plain, perturbed = call(), call(patches_replace=options)
    equal(call(stg_self_attn_blocks={(len(blocks) - 1) // 2}), perturbed, "the blocks of STG")
    attention, middle.attention = middle.attention, lambda q, k, v, **_: v.transpose(1, 2).flatten(2)
    try:
        equal(call(), perturbed, "the network whose middle attention returns the values")
    finally:
        middle.attention = attention
    assert differ(plain, perturbed) > 1e-4
    equal(call(patches_replace={"attn1": {("input", 4): options["attn1"][("middle", 0)]}}), plain, "another place")


def test_scaled_positions_act_on_every_family():
    for family in FAMILIES:
        model = model_of(family)
        plain = sample(model)
        for options, changes in (
            ({"scale_x": 1.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 0.0}, False),
            ({"scale_x": 2.0}, True),
            ({"scale_y": 0.5, "shift_y": 3.0}, True),
            ({"scale_t": 2.0, "shift_t": 1.0}, False),
        ):
            moved = model.clone()
            moved.model_options["transformer_options"]["rope_options"] = options
            assert (differ(sample(moved), plain) > 1e-4) == changes, f"{family}: {options}"


def test_scale_rope_gives_the_image_of_comfyuis_own_pixeldit():
    load_nodes("rope")
    if not has("ScaleROPE"):
        pytest.skip("this ComfyUI has no ScaleROPE")
    ours, native = tiny_t2i.ours(), tiny_t2i.native()
    plain = ksampler(ours)
    default = {"scale_x": 1.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 0.0, "scale_t": 1.0, "shift_t": 0.0}
    for options in (
        {"scale_x": 2.0},
        {"shift_y": -3.0},
        {"scale_x": 1.5, "scale_y": 0.7, "shift_x": 0.3, "shift_y": 5},
    ):
        images = [ksampler(run("ScaleROPE", model=model, **{**default, **options})[0]) for model in (ours, native)]
        close(*images, 1e-4)
        assert differ(images[0], plain) > 1e-3, str(options)


def test_renorm_cfg():
    load_nodes("lumina2")
    options = {"cfg_trunc": 100.0, "renorm_cfg": 1.0}
    for family in FAMILIES:
        model = model_of(family)
        image = sample(run("RenormCFG", model=model, **options)[0])
        assert torch.isfinite(image).all() and differ(image, sample(model)) > 1e-5, family


def test_renorm_cfg_gives_the_image_of_comfyuis_own_pixeldit():
    load_nodes("lumina2")
    models = [
        run("RenormCFG", model=model, cfg_trunc=0.7, renorm_cfg=0.9)[0]
        for model in (tiny_t2i.ours(), tiny_t2i.native())
    ]
    latent = {"samples": torch.zeros(1, 3, 32, 48)}
    close(*(ksampler(model, latent_image=latent) for model in models), 1e-4)
