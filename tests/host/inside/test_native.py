"""Beside the host's own PixelDiT: the same pictures, and our nodes on its MODEL."""

import tiny_t2i
import torch
from kit import close, core, load, out_of, record_calls, run, texts
from safetensors.torch import load_file, save_file
from text_model import SETTINGS, apply, custom, ksampler, noise, sampler


def pairs():
    return tiny_t2i.ours(), tiny_t2i.native()


def test_one_network_call():
    ours, native = pairs()
    close(apply(ours)[1], apply(native)[1], 1e-5)


def test_ksampler_gives_the_same_with_both():
    ours, native = pairs()
    for name, scheduler in (("euler", "simple"), ("dpmpp_2m", "simple"), ("heun", "normal"), ("er_sde", "simple")):
        options = {"sampler_name": name, "scheduler": scheduler}
        close(ksampler(ours, **options), ksampler(native, **options), 1e-4)
    shifted = [run("ModelSamplingSD3", model=model, shift=3.0)[0] for model in (ours, native)]
    close(*(ksampler(model) for model in shifted), 1e-4)


def test_image_to_image_and_inpainting_give_the_same_with_both():
    ours, native = pairs()
    picture = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:20, 10:30] = 1
    for latent in (run("PixelDiTEncode", pixels=picture)[0], run("PixelDiTEncode", pixels=picture, mask=mask)[0]):
        options = {"latent_image": latent, "denoise": 0.6}
        close(ksampler(ours, **options), ksampler(native, **options), 1e-4)


def test_scheduler_and_solvers_work_on_comfyuis_model():
    ours, native = pairs()
    for steps in (6, 25):
        close(*(run("PixelDiTScheduler", model=model, steps=steps)[0] for model in (ours, native)), 0)
    for solver in core().SOLVERS:
        close(custom(ours, solver, noise()), custom(native, solver, noise()), 1e-4)


def test_sampler_node_gives_the_same_image_with_both():
    ours, native = pairs()
    for solver in ("flow_dpmpp_2m", "ab2"):
        one, other = (sampler(model, solver=solver) for model in (ours, native))
        assert ((one - other).abs() * 255).max() <= 1.01, solver
    automatic, given = (sampler(native, timeshift=shift, width=64, height=64) for shift in (0.0, 3.0))
    assert torch.equal(automatic, given), "the automatic timeshift knows the host's model and the size"


def test_interval_works_on_comfyuis_model():
    ours, native = pairs()
    rows = []
    for model in (ours, native):
        model = run("PixelDiTCFGInterval", model=model, start=0.2, end=0.8)[0]
        model, calls = record_calls(model)
        rows.append((ksampler(model, steps=10), [len(call["x"]) for call in calls]))
    close(rows[0][0], rows[1][0], 1e-4)
    assert rows[0][1] == rows[1][1] and set(rows[0][1]) == {2, 4}, str(rows[0][1])


def test_what_comfyui_saves_and_refuses_loads_in_ours():
    """ModelSave of the host's own model (split, without core.), which the host cannot load again."""
    native = tiny_t2i.native()
    run("ModelSave", model=native, filename_prefix="pixeldit/native", prompt=None, extra_pnginfo=None)
    saved = sorted(out_of("output").rglob("native*.safetensors"))[-1]
    keys = load_file(saved)
    assert any(key.endswith("adaLN_modulation_msa.weight") for key in keys), "the host splits"
    assert not detects(saved), "the host cannot load its own file"
    expected = apply(native)[1]
    close(apply(load(saved))[1], expected, 1e-5)
    tensors = core().load_checkpoint(saved).network.state_dict()
    for prefix in ("", "net.", "module.core.", "model.", "_orig_mod.core.", "model.diffusion_model."):
        path = out_of("files") / "prefixed.safetensors"
        save_file({prefix + key: value.contiguous() for key, value in tensors.items()}, path)
        assert prefix == "net." or not detects(path), f"{prefix}: the host takes it, too"
        close(apply(load(path))[1], expected, 1e-5)


def detects(path):
    """Whether the host's own loader takes a file for a PixelDiT text-to-image."""
    import comfy.model_detection

    tensors = load_file(path)
    prefix = comfy.model_detection.unet_prefix_from_state_dict(tensors)
    prefix = prefix if any(key.startswith(prefix) for key in tensors) else ""  # as Load Diffusion Model does
    found = comfy.model_detection.model_config_from_unet(tensors, prefix)
    return found is not None and found.unet_config.get("image_model") == "pixeldit_t2i"


def test_four_maps_per_pixel_load_in_ours_alone():
    model = tiny_t2i.ours(pit_adaln_post_modulation=True)
    in_core = tiny_t2i.core_model(pit_adaln_post_modulation=True)
    x, got = apply(model)
    close(got, x + 0.6 * in_core.velocity(x, 0.4, texts(rows=2)[0][0]), 1e-5)


def test_the_node_settings_are_the_same_for_both():
    assert SETTINGS["steps"] == 6 and tiny_t2i.native().get_model_object("model_sampling").shift == 4.0
