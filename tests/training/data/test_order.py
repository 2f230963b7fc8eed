"""The order of images: every image once in an epoch, the same batches for any number of processes."""

import random
from collections import Counter

import pytest

from pixeldit_core.training.data.buckets import bucket_sizes, buffered_batches, nearest_bucket
from pixeldit_core.training.data.order import GlobalBatchSampler

ONE = (8, 8)


def union(count, batch_size, step, world_size, sizes=None, **options):
    shares = [
        GlobalBatchSampler(sizes or [ONE] * count, batch_size, 3, rank=rank, world_size=world_size, **options).batch(
            step
        )
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    return sorted(draw for share in shares for draw in share if draw.weight)


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_the_batches_of_one(world_size, drop_last):
    alone = GlobalBatchSampler([ONE] * 53, 8, 3, drop_last=drop_last)
    assert alone.steps_per_epoch == (6 if drop_last else 7)
    for step in (0, 5, 6, 13):
        assert union(53, 8, step, world_size, drop_last=drop_last) == sorted(alone.batch(step))


def test_an_epoch_has_every_image_once_and_epochs_differ():
    sampler = GlobalBatchSampler([ONE] * 20, 6, 0, drop_last=False)
    epochs = [[draw for step in range(4 * e, 4 * e + 4) for draw in sampler.batch(step)] for e in range(3)]
    for draws in epochs:
        assert sorted(draw.index for draw in draws) == list(range(20))
        assert all(draw.weight == 1 and 0 <= draw.seed < 2**63 for draw in draws)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({draw.seed for draws in epochs for draw in draws}) == 60
    assert sampler.batch(2) == GlobalBatchSampler([ONE] * 20, 6, 0, drop_last=False).batch(2)
    assert sampler.batch(2) != GlobalBatchSampler([ONE] * 20, 6, 1, drop_last=False).batch(2)


def test_a_short_batch_is_filled_up_with_rows_that_do_not_count():
    shares = [GlobalBatchSampler([ONE] * 9, 8, 0, drop_last=False, rank=r, world_size=4).batch(1) for r in range(4)]
    assert [len(share) for share in shares] == [1] * 4
    assert sorted(draw.weight for share in shares for draw in share) == [0, 0, 0, 1]


def test_too_few_images_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="3 images, too few for a batch of 8: lower engine.batch_size"):
        GlobalBatchSampler([ONE] * 3, 8, 0)
    assert GlobalBatchSampler([ONE] * 3, 8, 0, drop_last=False).steps_per_epoch == 1
    with pytest.raises(ValueError, match="no images"):
        GlobalBatchSampler([], 8, 0, drop_last=False)


def test_batches_of_buckets_are_of_one_size():
    sizes = [[(8, 8), (8, 16), (16, 8)][index % 3] for index in range(50)]
    for drop_last, expected in ((True, 12), (False, 14)):
        sampler = GlobalBatchSampler(sizes, 4, 3, drop_last=drop_last)
        assert sampler.steps_per_epoch == expected
        seen = Counter()
        for step in range(expected):
            draws = sampler.batch(step)
            assert len({draw.size for draw in draws}) == 1
            assert all(sizes[draw.index] == draw.size for draw in draws)
            seen.update(draw.index for draw in draws)
        assert max(seen.values()) == 1 and (drop_last or len(seen) == 50)
        for step in (0, 7, 20):
            assert union(50, 4, step, 3, sizes=sizes, drop_last=drop_last) == sorted(sampler.batch(step))


def test_groups_are_read_together():
    groups = [10] * 40
    sampler = GlobalBatchSampler([ONE] * 400, 16, 0, groups=groups)
    order = [draw.index for step in range(25) for draw in sampler.batch(step)]
    assert sorted(order) == list(range(400))
    for start in range(0, 320, 160):  # windows of sixteen groups
        assert len({index // 10 for index in order[start : start + 160]}) == 16
    assert order[:160] != sorted(order[:160])


def test_bucket_tables_and_assignments_are_the_reference_program_s(golden):
    for table in golden("50_buckets", "pixelhdm").case["tables"]:
        given = table["params"]
        largest = given.get("max_resolution", 1024)
        largest = min(largest, given.get("bucket_max_resolution", largest))
        buckets = bucket_sizes(
            given.get("min_resolution", 256), largest, given.get("patch_size", 16), given.get("max_aspect_ratio", 2.0)
        )
        assert [[width, height] for height, width in buckets] == table["buckets_wh"]
        for width, height, number, _ in table["assign"]:
            assert nearest_bucket((height, width), buckets) == buckets[number], (width, height)


def test_bucket_batches_are_the_reference_program_s_and_epochs_advance(golden):
    case = golden("51_bucket_batching", "pixelhdm").case
    for drop, name in ((True, "buffered_shuffle_drop1"), (False, "buffered_shuffle_drop0")):
        expected = case["results"][name]
        for epoch, key in ((0, "first_pass"), (1, "after_set_epoch_1")):
            found = buffered_batches(case["bucket_ids"], case["batch_size"], random.Random(42 + epoch), drop_last=drop)
            assert found == expected[key]


def test_no_bucket_is_an_error():
    with pytest.raises(ValueError, match="no bucket has sides from 300 to 200"):
        bucket_sizes(300, 200, 16)
