"""Grids of images: every image in its cell, gaps and empty cells in the background."""

import numpy as np
import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.images import image_grid


@pytest.mark.parametrize("count, columns, rows, cells", [(1, None, 1, 1), (5, None, 2, 3), (4, 3, 2, 3), (3, 9, 1, 3)])
def test_a_grid_is_filled_row_by_row(count, columns, rows, cells):
    images = torch.rand(count, 4, 6, 3)
    grid = image_grid(images, columns, gap=2, background=1.0)
    assert grid.shape == (rows * 6 + 2, cells * 8 + 2, 3)
    for index in range(rows * cells):
        row, column = divmod(index, cells)
        cell = grid[2 + row * 6 : 6 + row * 6, 2 + column * 8 : 8 + column * 8]
        assert torch.equal(cell, images[index] if index < count else torch.ones(4, 6, 3))
    assert (grid[:2] == 1).all() and (grid[:, -2:] == 1).all()


def test_a_contact_sheet_enlarges_without_smoothing():
    pixels = torch.arange(4, dtype=torch.uint8).view(1, 2, 2, 1)
    sheet = np.asarray(pc.contact_sheet(pixels, gap=1, scale=2))
    assert sheet.shape == (6, 6, 3) and (sheet[0] == 255).all()
    assert sheet[1:5, 1:5, 2].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
