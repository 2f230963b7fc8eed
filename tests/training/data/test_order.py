"""The order of images: a pure function of seed and step, whatever the number of processes."""

import pytest

from pixeldit_core.training.data.order import GlobalBatchSampler


def sampler(count=10, batch_size=4, seed=0, **options):
    return GlobalBatchSampler([(8, 8)] * count, batch_size, seed, **options)


def indices(order, steps):
    return [draw.index for step in steps for draw in order.batch(step)]


def test_an_epoch_has_every_image_once_and_the_next_another_order():
    order = sampler(12)
    first, second = indices(order, range(3)), indices(order, range(3, 6))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert order.steps_per_epoch == 3 and all(draw.size == (8, 8) for draw in order.batch(0))


def test_a_run_can_start_at_any_step_and_go_back():
    steps = [sampler(seed=5).batch(step) for step in range(20)]
    order = sampler(seed=5)
    assert [order.batch(step) for step in (13, 14, 3, 19, 13)] == [steps[step] for step in (13, 14, 3, 19, 13)]
    assert sampler(seed=6).batch(0) != steps[0]
    assert sampler(seed=-1).batch(0) != sampler(seed=1).batch(0)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_processes_share_the_batch_of_one(world_size, drop_last):
    alone = sampler(10, 4, drop_last=drop_last)
    ranks = [sampler(10, 4, drop_last=drop_last, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(7):
        parts, whole = [rank.batch(step) for rank in ranks], alone.batch(step)
        assert len({len(part) for part in parts}) == 1
        dealt = [draw for row in zip(*parts, strict=True) for draw in row]
        assert dealt[: len(whole)] == whole and all(draw.weight == 1 for draw in whole)
        padding = dealt[len(whole) :]
        assert len(padding) < world_size and all(draw.weight == 0 for draw in padding)
        assert {draw.index for draw in padding} <= {draw.index for draw in whole}


def test_the_short_last_batch_is_kept_or_left_out():
    assert sampler(10, 4).steps_per_epoch == 2
    kept = sampler(10, 4, drop_last=False)
    assert kept.steps_per_epoch == 3 and [len(kept.batch(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]


def test_seeds_of_draws_are_distinct():
    order = sampler(100, 10)
    seeds = {draw.seed for step in range(30) for draw in order.batch(step)}
    assert len(seeds) == 300 and all(0 <= seed < 2**63 for seed in seeds)


def test_shards_are_shuffled_a_few_at_a_time():
    groups = [7] * 40
    order = sampler(280, 10, groups=groups)
    epochs = [indices(order, range(28 * epoch, 28 * epoch + 28)) for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(280))] * 2 and epochs[0] != epochs[1]
    for start in range(0, 280, 10):
        assert len({index // 7 for index in epochs[0][start : start + 10]}) > 3
    assert len({index // 7 for index in epochs[0][:112]}) == 16  # of the first window alone


def test_too_few_images_say_what_to_do():
    with pytest.raises(
        ValueError, match=r"3 images, too few for a batch of 4: lower engine.batch_size, or .*drop_last"
    ):
        sampler(3, 4)
    assert len(sampler(3, 4, drop_last=False).batch(9)) == 3
    assert indices(sampler(1, 4, drop_last=False), [2]) == [0]
    with pytest.raises(ValueError, match="the data has no images"):
        sampler(0, 4, drop_last=False)


def test_the_order_is_the_same_in_every_version():
    """Of Python, NumPy and this project: a run may go on with another one."""
    one = sampler(10, 4, seed=5)
    assert ([draw.index for draw in one.batch(0)], one.batch(3)[0].seed) == ([0, 8, 3, 6], 3653973078505081234)
    shards = GlobalBatchSampler([(8, 8)] * 6, 3, 5, groups=[2, 2, 2])
    assert [draw.index for draw in shards.batch(0)] == [2, 4, 1]
    buckets = GlobalBatchSampler([(8, 8), (8, 16)] * 5, 2, 5)
    assert [[draw.index for draw in buckets.batch(step)] for step in range(4)] == [[0, 2], [4, 8], [5, 7], [3, 1]]
