"""Images to tokens and back."""

import torch
import torch.nn.functional as F

from pixeldit_core.layers.patchify import from_pixel_tokens, to_image, to_patch_tokens, to_pixel_tokens, to_tokens

IMAGE = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)


def test_patches_are_read_channel_by_channel():
    tokens, unfolded = to_patch_tokens(IMAGE, 4), F.unfold(IMAGE, 4, stride=4).transpose(1, 2)
    assert torch.equal(tokens, unfolded) and tokens.stride() == unfolded.stride()


def test_pixels_of_a_patch_are_tokens():
    tokens = to_pixel_tokens(IMAGE, 4)
    assert tokens.shape == (2 * 6, 16, 3)
    assert torch.equal(tokens[1, 5], IMAGE[0, :, 1, 4 + 1])  # second patch of the first row, second row and column
    assert torch.equal(from_pixel_tokens(tokens, 8, 12, 4), IMAGE)


def test_every_pixel_is_a_token():
    tokens = to_tokens(IMAGE)
    assert torch.equal(tokens[1, 12 + 2], IMAGE[1, :, 1, 2])
    assert torch.equal(to_image(tokens, 8, 12), IMAGE)
