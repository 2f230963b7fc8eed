"""Nodes of other networks: the image stays, and the log names them once in each sampling."""

import torch
from hooks import bundled, equal, has, load_nodes, model_of, sample, warnings
from kit import record_calls, run

NODES = {
    "HyperTile": {"tile_size": 32, "swap_size": 2, "max_depth": 0, "scale_depth": False},
    "TomePatchModel": {"ratio": 0.5},
    "FreeU": {"b1": 1.5, "b2": 1.5, "s1": 0.5, "s2": 0.5},
    "FreeU_V2": {"b1": 1.5, "b2": 1.5, "s1": 0.5, "s2": 0.5},
    "SelfAttentionGuidance": {"scale": 1.0, "blur_sigma": 2.0},
    "PatchModelAddDownscale": {
        "block_number": 3,
        "downscale_factor": 2.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "downscale_after_skip": True,
        "downscale_method": "bicubic",
        "upscale_method": "bicubic",
    },
}


def load_all():
    load_nodes("hypertile", "tomesd", "freelunch", "sag", "model_downscale")


def test_patches_of_u_nets_are_named_and_change_nothing():
    load_all()
    for family in ("class", "text", "mmdit-r1", "pixelhdm", "pixeldit2"):
        model = model_of(family)
        plain = sample(model)
        for node, options in NODES.items():
            patched = run(node, model=model, **options)[0]
            for _ in range(2):
                with warnings() as lines:
                    equal(sample(patched), plain, f"{family}: {node}")
                (line,) = lines
                assert line.startswith(f"PixelDiT: {node} (nodes_") and "no effect" in line, line


def test_params_take_attributes_of_other_nodes():
    import comfy.utils

    added = {"default_ref_method": "offset"} if hasattr(comfy.utils, "ATTR_UNSET") else {}  # else only replaced
    for family in ("class", "text", "mmdit-r1", "pixelhdm", "pixeldit2"):
        model = model_of(family)
        params = model.model.diffusion_model.params
        plain, patched = sample(model), model.clone()
        for name, value in {"in_channels": params.in_channels, **added}.items():
            patched.add_object_patch(f"diffusion_model.params.{name}", value)
        equal(sample(patched), plain, family)
        equal(sample(model), plain, family)
        assert not hasattr(params, "default_ref_method"), family


def test_several_at_once_are_all_named_and_others_still_act():
    load_all()
    model = patched = bundled()
    for node in ("FreeU", "HyperTile", "SelfAttentionGuidance"):
        patched = run(node, model=patched, **NODES[node])[0]
    counted, calls = record_calls(patched)
    with warnings() as lines:
        equal(sample(counted), sample(model), "three nodes")
    assert len(lines) == 3 and sum(len(call["x"]) for call in calls) == 2 * 2, str(lines)
    patched.set_model_attn1_output_patch(lambda out, extra: out * 0)
    with warnings() as lines:
        assert not torch.equal(sample(patched), sample(model)), "a patch of its own still acts"
    assert len(lines) == 3, str(lines)


def test_the_sampler_node_names_them_too():
    load_all()
    model = bundled()
    patched = run("FreeU", model=model, **NODES["FreeU"])[0]
    with warnings() as lines:
        positive = run("PixelDiTClassLabel", model=model, classes="1")[0]
        inputs = {"positive": positive, "steps": 2, "seed": 1, "width": 96, "height": 96}
        images = [run("PixelDiTSampler", model=entry, **inputs)[0] for entry in (model, patched)]
    equal(*images, "PixelDiT Sampler")
    assert len(lines) == 1 and "FreeU" in lines[0], str(lines)


def test_a_control_net_is_named_and_not_run():
    import comfy.controlnet

    load_nodes("controlnet")
    for family in ("class", "text"):
        model = model_of(family)
        plain = sample(model)
        control = comfy.controlnet.ControlNet(torch.nn.Linear(1, 1))  # an error where it is run
        conditions = {}

        def with_control(name, conditions=conditions, control=control):
            inputs = {"control_net": control, "image": torch.rand(1, 64, 64, 3), "strength": 1.0}
            return run("ControlNetApply", conditioning=conditions[name], **inputs)[0]

        conditions.update(_conditions(family, model))
        with warnings() as lines:
            options = {name: with_control(name) for name in ("positive", "negative")}
            equal(sample(model, **options), plain, family)
        (line,) = lines
        assert "ControlNet" in line and "no effect" in line, line


def _conditions(family, model):
    from kit import labels, texts

    if family == "text":
        return {"positive": texts(seed=1), "negative": texts(seed=2)}
    classes = model.model.pixeldit.params.num_classes
    return {"positive": labels([1], classes), "negative": labels([classes], classes)}


def test_guidance_of_another_network_is_named():
    load_nodes("lt")
    if not has("LTXVModalityGuidance"):
        return
    model = bundled()
    patched = run("LTXVModalityGuidance", model=model, modality_scale=3.0, start_percent=0.0, end_percent=1.0)[0]
    with warnings() as lines:
        assert (sample(patched) - sample(model)).abs().max() < 1e-4
    (line,) = lines
    assert "LTXVModalityGuidance" in line and "no effect" in line, line


def test_weights_for_another_network_are_left_out():
    """As ComfyUI's nodes for DiffSynth ControlNets set them: they bring blocks of other sizes."""
    model = bundled()

    def patch(arguments):
        raise AssertionError("called")

    patch.__module__ = "comfy_extras.nodes_model_patch"
    patched = model.clone()
    patched.set_model_patch(patch, "double_block")
    with warnings() as lines:
        equal(sample(patched), sample(model), "left out")
    assert len(lines) == 1 and "another network" in lines[0], str(lines)
