"""The class and seed of image k, by k alone."""

import pytest

from pixeldit_core.evaluation.plan import Plan


def test_an_image_depends_on_its_number_only():
    plan, longer = Plan(12, (3, 1, 4)), Plan(1200, (3, 1, 4))
    assert [plan.entry(k) for k in range(7)] == [3, 1, 4, 3, 1, 4, 3]
    assert [(plan.entry(k), plan.seed(k)) for k in range(12)] == [(longer.entry(k), longer.seed(k)) for k in range(12)]
    assert Plan(12, (3,), first_seed=50).seed(7) == 57


def test_the_published_run_has_fifty_images_of_each_class():
    assert set(Plan(50_000, tuple(range(1000))).counts().values()) == {50}
    assert Plan(5, (0, 0, 1)).counts() == {0: 4, 1: 1}


@pytest.mark.parametrize("shares", [1, 2, 7])
def test_every_division_has_the_same_batches(shares):
    plan = Plan(103, (0,))
    whole = list(plan.batches(8))
    parts = [batch for share in range(shares) for batch in plan.batches(8, share, shares)]
    assert sorted(parts, key=lambda batch: batch.start) == whole
    assert [k for batch in whole for k in batch] == list(range(103))
    sizes = [sum(1 for _ in plan.batches(8, share, shares)) for share in range(shares)]
    assert max(sizes) - min(sizes) <= 1


def test_a_count_that_does_not_divide_is_refused_with_those_that_do():
    plan = Plan(100, tuple(range(12)))
    with pytest.raises(ValueError, match="100 images do not divide into 12 .*--count 96 or 108.*--unbalanced"):
        plan.check_balance()
    with pytest.raises(ValueError, match="Choose --count 12, other"):
        Plan(5, tuple(range(12))).check_balance()
    Plan(96, tuple(range(12))).check_balance()


def test_seeds_that_torch_would_repeat_are_refused():
    Plan(10, (0,), first_seed=2**32 - 10)
    with pytest.raises(ValueError, match="go beyond 2\\^32, where seeds repeat"):
        Plan(11, (0,), first_seed=2**32 - 10)
    with pytest.raises(ValueError, match="first-seed"):
        Plan(1, (0,), first_seed=-1)
    with pytest.raises(ValueError, match="nothing to generate"):
        Plan(0, (0,))


def test_what_identifies_images_does_not_have_their_count():
    assert Plan(10, (0, 1)).to_dict() == Plan(20, (0, 1)).to_dict()
    assert Plan(10, (0, 1)).to_dict() != Plan(10, (1, 0)).to_dict()
