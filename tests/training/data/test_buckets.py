"""Aspect buckets and their batches, against the recorded ones of the reference."""

import logging
import random

import pytest

from pixeldit_core.training.data.buckets import arrange_batches, bucket_sizes, nearest_bucket, nearest_buckets
from pixeldit_core.training.data.order import GlobalBatchSampler


def test_tables_and_assignments_are_the_reference_s(golden):
    for table in golden("50_buckets", "pixelhdm").case["tables"]:
        params = table["params"]
        most = min(params.get("max_resolution", 1024), params.get("bucket_max_resolution", 1024))
        buckets = bucket_sizes(
            params.get("min_resolution", 256), most, params.get("patch_size", 16), params.get("max_aspect_ratio", 2.0)
        )
        assert [[width, height] for height, width in buckets] == table["buckets_wh"]
        for width, height, number, (w, h) in table["assign"]:
            assert nearest_bucket((height, width), buckets) == (h, w) == buckets[number]
            assert nearest_buckets([(height, width)] * 2, buckets) == [(h, w)] * 2


def test_batches_are_the_reference_s(golden):
    case = golden("51_bucket_batching", "pixelhdm").case
    assert len(case["results"]) == 8
    for name, result in case["results"].items():
        arrangement, _, drop_last = name.removeprefix("sequential_").rpartition("_drop")

        def batches(epoch, arrangement=arrangement, drop_last=drop_last == "1"):
            rng = random.Random(42 + epoch)
            return arrange_batches(
                case["bucket_ids"], case["batch_size"], rng, arrangement=arrangement, drop_last=drop_last
            )

        assert batches(0) == result["first_pass"] and len(batches(0)) == result["len"]
        if "after_set_epoch_1" in result:
            assert batches(1) == result["after_set_epoch_1"]


def test_impossible_buckets_are_refused():
    with pytest.raises(ValueError, match="no bucket has sides from 305 to 310 that are multiples of 16"):
        bucket_sizes(305, 310, 16)


SIZES = [(8, 16)] * 9 + [(16, 8)] * 6 + [(16, 16)] * 3


@pytest.mark.parametrize("arrangement", ["random", "buffered_shuffle", "ascending", "descending"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_batch_has_one_size_and_an_epoch_every_image(arrangement, world_size):
    options = {"drop_last": False, "arrangement": arrangement, "world_size": world_size}
    ranks = [GlobalBatchSampler(SIZES, 4, 1, rank=rank, **options) for rank in range(world_size)]
    assert ranks[0].steps_per_epoch == 3 + 2 + 1
    seen = []
    for step in range(6):
        draws = [draw for rank in ranks for draw in rank.batch(step)]
        assert len({draw.size for draw in draws}) == 1 and len({len(rank.batch(step)) for rank in ranks}) == 1
        seen += [draw.index for draw in draws if draw.weight]
        assert all(draw.size == SIZES[draw.index] for draw in draws)
    assert sorted(seen) == list(range(18))


def test_another_epoch_is_another_order():
    sampler = GlobalBatchSampler(SIZES, 3, 1)
    epochs = [[sampler.batch(6 * epoch + step) for step in range(6)] for epoch in range(2)]
    first, second = ([[draw.index for draw in batch] for batch in epoch] for epoch in epochs)
    assert first != second
    assert GlobalBatchSampler(SIZES, 3, 1).batch(9) == epochs[1][3]


def test_buckets_that_are_too_small_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        assert GlobalBatchSampler(SIZES, 5, 1).steps_per_epoch == 2
    assert "3 images are never used: their 1 buckets have fewer images than a batch of 5" in caplog.text
    with pytest.raises(ValueError, match=r"18 images of several sizes, too few for a batch of 10: lower"):
        GlobalBatchSampler(SIZES, 10, 1)


def test_sizes_of_one_area_are_chosen_by_their_shape():
    table = [(8, 8), (8, 16), (4, 12), (9, 8)]
    small, large = (50, 150), (500, 1500)
    assert nearest_buckets([small, large, (0, 0)], table, by_aspect=True) == [(4, 12), (4, 12), (8, 8)]
    assert nearest_buckets([(3, 4)], table) == [(8, 8)]  # by PixelHDM's rule: none is small enough
    assert nearest_buckets([(3, 5)], table, by_aspect=True) == [(8, 16)]
