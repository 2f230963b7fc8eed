"""Positions, time features, time grids, guidance masks and rounding against recorded tables."""

import pytest
import torch
from helpers import close

import pixeldit_core as pc
from pixeldit_core.layers.embeddings import sincos_1d, sincos_2d, time_features
from pixeldit_core.layers.rope import apply_rope, rope_1d, rope_2d

pytestmark = pytest.mark.golden


def test_rope_2d(golden):
    case = golden("tables_rope")
    assert case.case["rope2d"]
    for entry in case.case["rope2d"]:
        cos, sin = rope_2d(entry["H"], entry["W"], entry["head_dim"]).unbind(-1)
        close(cos, case.outputs[entry["key"] + "_cos"], 5e-6)
        close(sin, case.outputs[entry["key"] + "_sin"], 5e-6)


def test_rope_1d(golden):
    case = golden("tables_rope")
    assert case.case["rope_text"]
    for entry in case.case["rope_text"]:
        cos, sin = rope_1d(entry["L"], entry["head_dim"], theta=entry["theta"]).unbind(-1)
        tolerance = 2e-5 if entry["L"] > 100 else 5e-6
        close(cos, case.outputs[entry["key"] + "_cos"], tolerance)
        close(sin, case.outputs[entry["key"] + "_sin"], tolerance)


def test_apply_rope(golden):
    tables = golden("tables_rope").outputs
    rope = rope_2d(2, 3, 16)
    for part in "qk":
        close(apply_rope(tables[f"apply_{part}_in"], rope), tables[f"apply_{part}_out"], 5e-6)


def test_sincos_2d(golden):
    case = golden("tables_sincos")
    assert case.case["tables"]
    for entry in case.case["tables"]:
        height, width, channels = (entry[key] for key in "HWD")
        table = sincos_2d(sincos_1d(width, channels // 2), sincos_1d(height, channels // 2))
        close(table.view(height, width, channels), case.outputs[entry["key"]], 1e-6)


def test_time_features(golden):
    case = golden("tables_time_embedding")
    close(time_features(case.inputs["t_c2i"]), case.outputs["emb_c2i"], 1e-6)
    # angles of up to 1000 are exact to 6e-5 in float32, and the last bit of exp differs between processors
    close(time_features(case.inputs["t_t2i"]), case.outputs["emb_t2i"], 1e-4)


def test_time_grids(golden):
    case = golden("tables_timesteps")
    family = pc.FAMILIES["pixeldit"]
    assert case.case["c2i_grids"]
    for entry in case.case["c2i_grids"]:
        times = pc.time_grid(family, entry["num_steps"], entry["timeshift"], entry["last_step"])
        close(times, case.outputs[entry["key"]], 1e-6)
        assert times[0] == 0 and times[-1] == 1


def sigma_and_back(times):
    """Times as ComfyUI's sampler hands them to our adapter: sigma = 1 - t in float32, t = 1 - sigma."""
    return 1 - (1 - times)


@pytest.mark.parametrize("domain", ["t", "sigma"])
def test_guided_masks(golden, domain):
    case = golden("tables_timesteps")
    family = pc.FAMILIES["pixeldit"]
    assert case.case["c2i_guided"]
    for entry in case.case["c2i_guided"]:
        times = pc.time_grid(family, entry["num_steps"], entry["timeshift"])[:-1]
        if domain == "sigma":
            times = sigma_and_back(times)
        guided = [pc.is_guided(t, entry["interval"]) for t in times]
        assert guided == case.outputs[entry["key"]].tolist(), entry["key"]
        assert sum(guided) == entry["n_guided"]
        assert guided == [pc.is_guided(float(t), entry["interval"]) for t in times]


@pytest.mark.parametrize("steps", [10, 20, 30, 60, 100, 120, 230, 240, 250, 460, 11, 22, 33, 50])
@pytest.mark.parametrize("timeshift", [1.0, 2.0, 3.0])
def test_sigma_domain_guides_the_same_steps(steps, timeshift):
    times = pc.time_grid(pc.FAMILIES["pixeldit"], steps, timeshift)[:-1]
    for interval in ((0.1, 0.9), (0.1, 1.0), (0.0, 1.0), (0.2, 0.5)):
        direct = [pc.is_guided(t, interval) for t in times]
        assert direct == [pc.is_guided(t, interval) for t in sigma_and_back(times)]


def test_rounding_to_uint8(golden, tiny):
    case = golden("tables_postprocess")
    pixels = pc.to_uint8(tiny(), case.inputs["x"])
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, case.outputs["c2i_uint8"].movedim(1, -1))


def test_rounding_of_text_to_image_to_uint8(golden, tiny_t2i):
    case = golden("tables_postprocess")
    pixels = pc.to_uint8(tiny_t2i(), case.inputs["x"])
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, case.outputs["t2i_uint8"].movedim(1, -1))
