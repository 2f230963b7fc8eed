"""The fast ways to rotate give what the plain one gives."""

import pytest
import torch
from helpers import randn

from pixeldit_core.layers import rope
from pixeldit_core.layers.rope import apply_rope, pad_identity, rope_1d, rope_2d, rotate

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TABLE = rope_2d(4, 4, 72)


@pytest.mark.parametrize("dtype", DTYPES)
def test_complex_rotation_is_the_plain_one(dtype, monkeypatch):
    x = randn(2, 16, 3, 72, seed=0).to(dtype)
    fast = apply_rope(x, TABLE)
    monkeypatch.setattr(rope, "computes_complex", lambda x: False)
    plain = apply_rope(x, TABLE)
    assert fast.dtype == plain.dtype == dtype
    torch.testing.assert_close(fast, plain, rtol=torch.finfo(dtype).eps, atol=2e-7)  # of float32: two roundings


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(16,), (5, 11)], ids=["one sequence", "text and patches"])
@pytest.mark.parametrize("heads", [3, 1], ids=["equal heads", "grouped queries"])
@pytest.mark.parametrize("batched", [False, True])
def test_queries_and_keys_rotate_together_as_each_alone(dtype, lengths, heads, batched):
    table = torch.stack([TABLE, TABLE.flip(0)]) if batched else TABLE
    q = [randn(2, length, 3, 72, seed=length).to(dtype) for length in lengths]
    k = [randn(2, length, heads, 72, seed=9 + length).to(dtype) for length in lengths]
    together = rotate(q, k, table)
    for parts, rotated in zip((q, k), together, strict=True):
        assert rotated.dtype == dtype
        assert torch.equal(rotated, apply_rope(torch.cat(parts, dim=1), table))
    unrotated = rotate(q, k, None)
    assert torch.equal(unrotated[0], torch.cat(q, dim=1)) and torch.equal(unrotated[1], torch.cat(k, dim=1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_pass_through_the_joint_rotation(dtype, monkeypatch):
    def gradients():
        leaves = [randn(2, 16, 3, 72, seed=seed).to(dtype).requires_grad_() for seed in (0, 1)]
        q, k = rotate(leaves[:1], leaves[1:], TABLE)
        (q.float() * 2 - k.float() * 3).sum().backward()
        return [leaf.grad for leaf in leaves]

    joint = gradients()
    monkeypatch.setattr(rope, "computes_complex", lambda x: False)
    for gradient, expected in zip(joint, gradients(), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_padded_tokens_are_not_rotated():
    x = randn(1, 9, 2, 8, seed=0)
    rotated = apply_rope(x, pad_identity(rope_1d(4, 8), 3, before=2))
    assert torch.equal(rotated[:, :2], x[:, :2]) and torch.equal(rotated[:, 6:], x[:, 6:])
    assert torch.equal(rotated[:, 2:6], apply_rope(x[:, 2:6], rope_1d(4, 8)))
