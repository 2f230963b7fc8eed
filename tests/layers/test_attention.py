"""Self-attention of any head size and norm."""

import pytest
import torch
import torch.nn.functional as F

from pixeldit_core.layers.attention import SelfAttention
from pixeldit_core.layers.rope import apply_rope, rope_1d


@pytest.mark.parametrize("qk_norm", ["", "rmsnorm", "layernorm"])
@pytest.mark.parametrize("head_dim", [None, 6])
def test_self_attention(qk_norm, head_dim):
    torch.manual_seed(0)
    layer, x, size = SelfAttention(8, 2, head_dim, qk_norm=qk_norm), torch.randn(2, 5, 8), head_dim or 4
    rope = rope_1d(5, size)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 2, size)).unbind(2)
    q, k = (apply_rope(norm(part), rope) for norm, part in ((layer.q_norm, q), (layer.k_norm, k)))
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / size**0.5
    expected = layer.proj(torch.einsum("bhqk,bkhe->bqhe", F.softmax(scores, dim=-1), v).flatten(2))
    torch.testing.assert_close(layer(x, rope), expected)
    assert layer.qkv.weight.shape == (3 * 2 * size, 8)
    assert {name for name in layer.state_dict() if name.startswith("q_norm")} == {
        "": set(), "rmsnorm": {"q_norm.weight"}, "layernorm": {"q_norm.weight", "q_norm.bias"}
    }[qk_norm]  # fmt: skip
