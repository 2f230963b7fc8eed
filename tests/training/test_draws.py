"""The random numbers of an objective."""

import torch

from pixeldit_core.training.draws import draw, mix

SHAPE = (3, 8, 12)


def seeds(count, first=0):
    return torch.tensor([2**62 // 7 * number + 5 for number in range(first, first + count)])


def test_an_image_s_numbers_do_not_depend_on_its_batch():
    whole = draw(seeds(6), SHAPE, "cpu")
    parts = [draw(seeds(2), SHAPE, "cpu"), draw(seeds(1, 2), SHAPE, "cpu"), draw(seeds(3, 3), SHAPE, "cpu")]
    turned = draw(seeds(6).flip(0), SHAPE, "cpu")
    for name in ("noise", "normal", "uniform"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
        assert torch.equal(getattr(whole, name), getattr(turned, name).flip(0))
    assert whole.noise.shape == (6, *SHAPE) and whole.normal.shape == (6,) and whole.uniform.shape == (6, 4)


def test_draws_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    draw(seeds(2), SHAPE, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_change_of_the_size_changes_no_other_number():
    small, large = draw(seeds(2), (1, 2, 2), "cpu"), draw(seeds(2), SHAPE, "cpu")
    assert torch.equal(small.normal, large.normal) and torch.equal(small.uniform, large.uniform)


def test_every_seed_and_stream_is_its_own():
    """Also seeds that differ in their highest bits alone, which a CPU generator would not tell apart."""
    low = draw(torch.tensor([1, 1 + 2**32, 1 + 2**61]), (1, 2, 2), "cpu")
    assert len(set(low.normal.tolist())) == 3 and len(set(low.noise[:, 0, 0, 0].tolist())) == 3
    mixed = {mix(seed, stream) % 2**32 for seed in range(1000) for stream in (1, 2)}
    assert len(mixed) == 2000


def test_numbers_have_their_distributions_and_are_independent():
    many = draw(torch.arange(20_000), (1, 1, 2), "cpu")
    assert abs(many.normal.mean()) < 0.03 and abs(many.normal.std() - 1) < 0.03
    assert abs(many.noise.mean()) < 0.03 and abs(many.noise.std() - 1) < 0.03
    assert many.uniform.min() >= 0 and many.uniform.max() < 1 and abs(many.uniform.mean() - 0.5) < 0.01
    columns = torch.cat([many.noise.flatten(1), many.normal[:, None], many.uniform], dim=1)
    others = torch.corrcoef(columns.T) - torch.eye(columns.shape[1])
    assert others.abs().max() < 0.03
