"""Values in API prompts, validated and checked as ComfyUI does: numbers, paths of Windows, values of newer versions."""

import asyncio
import shutil

import loras
import pytest
import torch
from class_model import pixeldit
from kit import load_tiny, module, node, out_of, put, run, sampler_net, texts


def validate(node_id, **inputs):
    """ComfyUI's errors for a prompt of one node and one that takes its first output, as texts."""
    import execution

    prompt = {"1": {"class_type": node_id, "inputs": inputs}}
    if not getattr(node(node_id), "OUTPUT_NODE", False):
        load_preview()
        prompt["2"] = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
    result = asyncio.run(execution.validate_prompt("id", prompt, None))
    return [error["details"] for entry in result[3].values() for error in entry["errors"]]


def load_preview():
    from pathlib import Path

    import comfy

    import nodes

    if "PreviewAny" not in nodes.NODE_CLASS_MAPPINGS:
        path = Path(comfy.__path__[0]).parent / "comfy_extras" / "nodes_preview_any.py"
        assert asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))


SIZE = {"resolution": "512", "aspect_ratio": "1:1", "orientation": "landscape", "batch_size": 1}
LOADER = {"checkpoint": "xpred-digits-28.safetensors", "weights": "auto", "weight_dtype": "default"}


def test_numbers_stand_for_entries_of_a_list():
    for resolution in (512, 512.0, "512", 1024):
        assert validate("PixelDiTSize", **{**SIZE, "resolution": resolution}) == []
        width, height, _ = run("PixelDiTSize", **{**SIZE, "resolution": resolution})
        assert width == height == int(resolution)
    for class_name in (7, "7", 7.0):
        assert run("PixelDiTClassLabel", model=load_tiny(), class_name=class_name)[0][0][0].argmax() == 7


def test_a_number_that_no_entry_has_is_refused_while_the_prompt_is_checked():
    (error,) = validate("PixelDiTSize", **{**SIZE, "resolution": 768})
    assert 'resolution "768" is not known; there are 1024, 512' in error
    with pytest.raises(ValueError, match='resolution "768" is not known'):
        run("PixelDiTSize", **{**SIZE, "resolution": 768})


def test_paths_of_windows():
    import folder_paths

    folder = out_of("models") / "diffusion_models" / "mine" / "deep"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(module("nodes.host.folders").BUNDLED / "xpred-digits-28.safetensors", folder / "digits.safetensors")
    folder_paths.filename_list_cache.clear()
    for name in ("mine\\deep\\digits.safetensors", "mine/deep\\digits.safetensors", "mine/deep/digits.safetensors"):
        assert validate("PixelDiTLoader", **{**LOADER, "checkpoint": name}) == []
        assert run("PixelDiTLoader", checkpoint=name)[0].model.pixeldit.source == "digits.safetensors"
        kind = node("PixelDiTLoader")
        assert kind.fingerprint_inputs(**{**LOADER, "checkpoint": name})[1] != "auto", "it follows the file"
    (error,) = validate("PixelDiTLoader", **{**LOADER, "checkpoint": "mine\\other.safetensors"})
    assert 'checkpoint "mine\\other.safetensors" is not in models/' in error
    for outside in ("..\\..\\diffusion_models\\", "C:\\models\\digits.safetensors", "mine\\..\\..\\x", "a\0b"):
        with pytest.raises(ValueError, match="is not in models/"):
            run("PixelDiTLoader", checkpoint=outside)


def test_loras_with_paths_of_windows():
    model = load_tiny()
    shapes = {key: tuple(value.shape) for key, value in model.model.diffusion_model.state_dict().items()}
    loras.put("mine/small.safetensors", loras.peft(loras.pairs(shapes, ("patch_blocks.0.attn.proj",))))
    for name in ("mine\\small.safetensors", "mine/small.safetensors"):
        patched = run("PixelDiTLoRA", model=model, lora_name=name, strength_model=1.0)[0]
        assert not torch.equal(pixeldit(patched), pixeldit(model))
        find = module("nodes.host.folders")
        assert node("PixelDiTLoRA").validate_inputs(lora_name=name) is True and find.find_lora(name)
    with pytest.raises(ValueError, match="is not in models/loras"):
        run("PixelDiTLoRA", model=model, lora_name="mine\\other.safetensors", strength_model=1.0)


def test_names_that_another_node_gives_are_not_judged_before_it_ran():
    assert node("PixelDiTLoader").validate_inputs() is True is node("PixelDiTLoRA").validate_inputs(lora_name=None)
    assert node("PixelDiTSize").validate_inputs() is True is node("PixelDiTClassLabel").validate_inputs()


def test_values_of_a_newer_version_are_named():
    model = load_tiny()
    put(sampler_net(), "newer.ckpt")
    for node_id, name, options in (
        ("PixelDiTLoader", "weight_dtype", {**LOADER, "checkpoint": "newer.ckpt", "weight_dtype": "later"}),
        ("PixelDiTLoader", "weights", {**LOADER, "checkpoint": "newer.ckpt", "weights": "later"}),
        ("PixelDiTSolver", "solver", {"solver": "later"}),
        ("PixelDiTSize", "aspect_ratio", {**SIZE, "aspect_ratio": "later"}),
        ("PixelDiTSize", "orientation", {**SIZE, "orientation": "later"}),
        ("PixelDiTSaveModel", "layout", {"model": model, "layout": "later"}),
        ("PixelDiTSaveModel", "weight_dtype", {"model": model, "weight_dtype": "later"}),
    ):
        words = f'{name} "later" is not known; there are .* with a newer version of ComfyUI-PixelDiT'
        with pytest.raises(ValueError, match=words):
            run(node_id, **options)
    with pytest.raises(ValueError, match='solver "later" is not known; there are .*euler'):
        pixeldit(model, solver="later")
    for option in ("settings", "convention"):
        with pytest.raises(ValueError, match=f'{option} "later" is not known'):
            pixeldit(model, **{option: "later"})
    with pytest.raises(ValueError, match='schedule "later" is not known'):
        run("PixelDiTCFGSchedule", model=model, curve="later", end_cfg=1.0)
    assert torch.isfinite(pixeldit(model)).all(), "the next run works"


def test_a_solver_that_the_settings_replace_does_not_matter():
    import tiny_t2i

    made = run(
        "PixelDiTSampler", model=tiny_t2i.ours(), positive=texts(seed=1), negative=texts(seed=2), width=32, height=32,
        settings=next(name for name in module("pixeldit_core.settings").SETTINGS if "t2i" in name.lower()),
        solver="later",
    )[0]  # fmt: skip
    assert torch.isfinite(made).all()
