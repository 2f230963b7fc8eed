"""The frozen encoder against recorded tokens and tables."""

from functools import partial

import pytest
import torch
from helpers import close, max_distance, record_output
from pixeldit2_cases import find
from safetensors.torch import load_file

from pixeldit_core.encoders.dinov3 import NUM_PREFIX, DINOv3, centered_rope, guess_heads, rope_periods

pytestmark = pytest.mark.golden
OUTPUT = 2e-5


def test_every_intermediate_and_the_features():
    case = find("encoder_32x48")
    sizes = case.case["encoder_config"]
    encoder = DINOv3(sizes["embed_dim"], sizes["depth"], sizes["num_heads"]).eval().requires_grad_(False)
    encoder.load_state_dict(load_file(case.checkpoint))
    seen = {}
    keep = partial(record_output, seen)
    first, last = encoder.blocks[0], encoder.blocks[-1]
    keep("tokens_in", first, lambda arguments, _: arguments[0])
    keep("rope_cos", first, lambda arguments, _: whole(arguments[1][..., 0]))
    keep("rope_sin", first, lambda arguments, _: whole(arguments[1][..., 1]))
    keep("block0_attn", first.attn)
    keep("block0", first)
    keep("block_last", last)
    keep("features", encoder.norm)
    (image,) = case.inputs.values()
    seen["patch_tokens"] = encoder(image)
    assert set(seen) == set(case.outputs)
    for key, expected in case.outputs.items():
        assert max_distance(seen[key], expected) <= (5e-6 if "rope" in key else OUTPUT), key


def whole(table):
    """A table of the patches as it was recorded, with both channels of each pair."""
    return torch.cat([table[NUM_PREFIX:]] * 2, dim=-1)


@pytest.mark.parametrize("head_dim, height, width", [(8, 2, 3), (64, 3, 2)])
def test_positions(head_dim, height, width):
    tables = find("tables").outputs
    close(rope_periods(head_dim), tables[f"encoder_periods_{head_dim}"], 1e-5)
    for part, table in zip(("cos", "sin"), centered_rope(height, width, head_dim).unbind(-1), strict=True):
        close(torch.cat([table, table], dim=-1), tables[f"encoder_rope_{head_dim}_{height}x{width}_{part}"], 5e-6)


def test_heads_of_the_published_encoders():
    assert [guess_heads(width) for width in (384, 768, 1024, 16)] == [6, 12, 16, 1]
