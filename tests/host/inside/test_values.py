"""Values of widgets as users, other programs and other versions give them."""

import math

import pytest
import torch
from class_model import ksampler, pixeldit
from kit import classes_of, close, load_tiny, run


def extra(name):
    """A node of ComfyUI's extras, loaded where the other tests do not need it."""
    import asyncio
    from pathlib import Path

    import comfy

    import nodes

    path = Path(comfy.__path__[0]).parent / "comfy_extras" / f"{name}.py"
    assert asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))


def test_a_list_of_classes_with_separators_of_other_scripts():
    model = load_tiny()
    for text in ("2\uff0c4", "2\u30014", "\uff12\uff1b\uff14", "2 4", "2\u30004", "2\u30014\u3002", "\ufeff2, 4"):
        assert classes_of(run("PixelDiTClassLabel", model=model, class_name="0", classes=text)[0]) == [2, 4]
    for dash in "- \u2013 \u2014 \u2212 ~ \uff5e \u301c \u30fc \u5230 .. \u2026".split():
        text = f"2{dash}4"
        assert classes_of(run("PixelDiTClassLabel", model=model, class_name="0", classes=text)[0]) == [2, 3, 4]


def test_the_shift_of_flux_and_ltxv_is_an_exponent():
    extra("nodes_lt")
    model = load_tiny()
    patched = {
        "Flux": (run("ModelSamplingFlux", model=model, max_shift=0.5, base_shift=0.5, width=256, height=256)[0], 0.5),
        "Flux, shift 1.15": (
            run("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=1024, height=1024)[0],
            1.15,
        ),
        "LTXV": (run("ModelSamplingLTXV", model=model, max_shift=0.95, base_shift=0.95)[0], 0.95),
    }
    for name, (shifted, exponent) in patched.items():
        same = run("ModelSamplingSD3", model=model, shift=math.exp(exponent))[0]
        grids = [run("PixelDiTScheduler", model=entry, steps=4)[0] for entry in (shifted, same)]
        close(*grids, 1e-6)
        # ComfyUI's own scheduler gives the same grid for the MODEL, so that KSampler and ours agree
        own = run("BasicScheduler", model=shifted, scheduler="normal", steps=1, denoise=1.0)[0]
        assert abs(float(own[0]) - 1) < 1e-3, name
        sampling = shifted.get_model_object("model_sampling")
        wanted = torch.tensor([float(sampling.percent_to_sigma(i / 4)) for i in range(5)])
        close(grids[0], wanted, 1e-5)
        images = [pixeldit(entry, timeshift=0.0, steps=3) for entry in (shifted, same)]
        close(*images, 1 / 255 + 1e-6)
        plain = pixeldit(model, timeshift=0.0, steps=3)
        assert not torch.equal(images[0], plain), f"{name} acts"


def test_the_shift_of_sd3_and_auraflow_is_the_factor():
    model = load_tiny()
    for node, shift in (("ModelSamplingSD3", 3.0), ("ModelSamplingAuraFlow", 1.73)):
        shifted = run(node, model=model, shift=shift)[0]
        grid = run("PixelDiTScheduler", model=shifted, steps=2)[0]
        assert float(grid[1]) == pytest.approx(shift / (shift + 1), abs=1e-6)
    assert torch.isfinite(ksampler(shifted)).all()
