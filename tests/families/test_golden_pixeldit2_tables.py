"""PixelDiT2's positions, time features, grids, guidance masks, rounding and hidden sizes against recorded tables."""

import pytest
import torch
from helpers import close
from pixeldit2_cases import find

import pixeldit_core as pc
from pixeldit_core.layers.embeddings import time_features
from pixeldit_core.layers.mlp import swiglu_size
from pixeldit_core.layers.rope import rope_2d

pytestmark = pytest.mark.golden
FAMILY = pc.FAMILIES["pixeldit2"]


@pytest.fixture(scope="module")
def tables():
    return find("tables")


@pytest.mark.parametrize("head_dim, height, width", [(12, 2, 3), (80, 3, 2), (8, 1, 4)])
def test_positions(tables, head_dim, height, width):
    for part, table in zip(("cos", "sin"), rope_2d(height, width, head_dim).unbind(-1), strict=True):
        close(table, tables.outputs[f"rope_{head_dim}_{height}x{width}_{part}"], 5e-6)


def test_time_features(tables):
    close(time_features(tables.outputs["time_t"]), tables.outputs["time_features"], 1e-6)


def test_grids_and_guidance_masks(tables):
    assert len(tables.case["steps"]) > 10
    for steps in tables.case["steps"]:
        grids = {name: pc.time_grid(FAMILY, steps, convention=name) for name in ("standard", "reference")}
        for grid in grids.values():
            close(grid, tables.outputs[f"grid_{steps}"], 1e-7)
        for name, interval in tables.case["settings"].items():
            expected = tables.outputs[f"guided_{steps}_{name}"].tolist()
            guided = FAMILY.convention("reference").guided
            assert [guided(t, tuple(interval), 2.0) for t in grids["reference"].tolist()] == expected, (steps, name)


@pytest.mark.parametrize("name", ["pixeldit2-256", "pixeldit2-512"])
def test_both_conventions_guide_the_published_settings_alike(tables, name):
    settings = FAMILY.settings[name]
    expected = tables.outputs[f"guided_50_{name[-3:]}"].tolist()
    times = pc.time_grid(FAMILY, settings.steps).tolist()
    assert [pc.is_guided(t, settings.cfg_interval) for t in times] == expected
    assert sum(2 * g for g in expected[1:50]) + expected[0] == {"pixeldit2-256": 76, "pixeldit2-512": 82}[name]


def test_rounding(tables):
    pixels = tables.outputs["pixels"]
    for convention in ("standard", "reference"):
        assert torch.equal(FAMILY.rounding(convention)(pixels), tables.outputs["uint8"])


def test_hidden_sizes(tables):
    for width, multiple, hidden in tables.outputs["hidden"].tolist():
        assert swiglu_size(width, multiple=multiple) == hidden
