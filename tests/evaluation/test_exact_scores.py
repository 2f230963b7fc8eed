"""Scores in float64: against numbers that are computed a second way, and independent of how images are stored."""

import json

import numpy as np
import pytest
import torch
import torch_fidelity
from evaluation.extractors import NAME, channels, draw, write
from PIL import Image

from pixeldit_core.evaluation import accuracy, match_labels
from pixeldit_core.evaluation.image_source import open_images
from pixeldit_core.evaluation.measure import measure_images
from pixeldit_core.evaluation.metrics import compute_scores, frechet_distance, precision_recall
from pixeldit_core.evaluation.moments import Moments
from pixeldit_core.evaluation.reference import open_reference, save_reference

CPU = torch.device("cpu")
EXTRACTOR = channels()
SAMPLES, REFERENCE = draw(60, 11), draw(70, 12, shift=6)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write(SAMPLES, tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return write(REFERENCE, tmp_path_factory.mktemp("reference"))


def features(pixels):
    """Those of the extractor, by numpy alone: float64 [N, 6]."""
    flat = pixels.reshape(len(pixels), -1, 3).astype(np.float64)
    return np.concatenate([flat.mean(1), flat.std(1, ddof=1)], 1)


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def distance(one, two):
    """The closed form, by symmetric square roots, where torch-fidelity takes eigenvalues of a product."""
    (m, s), (n, t) = ((part.mean(0), np.cov(part, rowvar=False)) for part in (one, two))
    return ((m - n) ** 2).sum() + np.trace(s + t - 2 * root(root(s) @ t @ root(s)))


def scores(path, reference, batch_size=64, reference_batch_size=64):
    opened = open_reference(reference, EXTRACTOR, CPU, (8, 8), batch_size=reference_batch_size)
    return compute_scores(measure_images(open_images(path), EXTRACTOR, CPU, batch_size=batch_size), opened)


def test_fid_of_images_is_the_closed_form(samples, reference):
    found = scores(samples, reference).fid
    assert found == pytest.approx(distance(features(SAMPLES), features(REFERENCE)), rel=1e-9) and found > 1


def test_scores_are_torch_fidelitys_to_a_millionth(samples, reference):
    expected = torch_fidelity.calculate_metrics(
        input1=str(samples), input2=str(reference), cuda=False, fid=True, isc=True, prc=True, feature_extractor=NAME,
        isc_splits=1, samples_shuffle=False, verbose=False, cache=False, save_cpu_ram=True,
    )  # fmt: skip
    found = scores(samples, reference)
    assert found.fid == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    assert found.inception_score == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)
    assert 0 < found.precision < 1 and 0 < found.recall < 1
    assert found.sfid is None and found.accuracy is None


@pytest.mark.parametrize("width", [1, 4])
def test_fid_of_normal_data_tends_to_that_of_their_parameters(width):
    rng = np.random.default_rng(width)
    means, stds = rng.normal(0, 1, (2, width)), rng.uniform(0.5, 2, (2, width))
    found = []
    for mean, std in zip(means, stds, strict=True):
        moments = Moments()
        for _ in range(40):
            moments.add(torch.from_numpy(rng.normal(mean, std, (10_000, width))))
        found.append(moments.statistics())
    expected = ((means[0] - means[1]) ** 2).sum() + ((stds[0] - stds[1]) ** 2).sum()
    assert frechet_distance(*found) == pytest.approx(expected, rel=0.02)  # of 400,000 draws


def names(rng, count):
    return [f"{number % 5}/{'ab'[number % 2]}/{number:x}.png" for number in rng.permutation(count)]


@pytest.mark.parametrize("seed", range(3))
def test_order_names_batches_folders_and_archives_change_nothing(samples, reference, tmp_path, seed):
    """Of both sides; the order of summing moves FID's last digits, and nothing moves the others."""
    rng = np.random.default_rng(seed)
    expected = scores(samples, reference)
    paths = []
    for pixels, name in ((SAMPLES, "s"), (REFERENCE, "r")):
        mixed = pixels[rng.permutation(len(pixels))]
        np.savez(tmp_path / f"{name}.npz", mixed)
        paths.append((write(mixed, tmp_path / name, names(rng, len(pixels))), tmp_path / f"{name}.npz"))
    for path, other in zip(*paths, strict=True):
        found = scores(path, other, *rng.integers(1, 70, 2).tolist())
        assert found.fid == pytest.approx(expected.fid, rel=1e-9)
        exact = ("inception_score", "inception_score_std", "precision", "recall")
        assert [getattr(found, key) for key in exact] == [getattr(expected, key) for key in exact]


def test_gray_images_and_gray_arrays_are_the_same(reference, tmp_path):
    gray = SAMPLES[..., 0]
    np.savez(tmp_path / "gray.npz", gray[..., None])
    folder = write(gray, tmp_path / "gray")
    assert Image.open(folder / "0000.png").mode == "L"
    assert scores(folder, reference) == scores(tmp_path / "gray.npz", reference)


def test_the_number_of_features_of_a_reference_is_limited_whatever_their_order(samples, reference, tmp_path):
    measured = measure_images(open_images(samples), EXTRACTOR, CPU)
    whole = open_reference(reference, EXTRACTOR, CPU, (8, 8))
    mixed = write(REFERENCE[::-1], tmp_path / "mixed")
    few = [
        open_reference(path, EXTRACTOR, CPU, (8, 8), batch_size=size, most=16)
        for path, size in ((reference, 64), (mixed, 1), (mixed, 17))
    ]
    assert all(torch.equal(one.features, few[0].features) and one.count == 70 for one in few)
    assert few[0].features.shape == (16, 6) and whole.features.shape == (70, 6)
    rows = whole.features.tolist()
    assert all(row in rows for row in few[0].features.tolist())
    found, expected = compute_scores(measured, few[0]), compute_scores(measured, whole)
    assert found.fid == expected.fid and found.recall != expected.recall
    save_reference(few[0], EXTRACTOR, tmp_path / "few.npz")
    assert compute_scores(measured, open_reference(tmp_path / "few.npz", EXTRACTOR, CPU, (8, 8))) == found


def test_images_that_are_there_twice_count_twice(samples, tmp_path):
    twice = write(np.concatenate([SAMPLES, SAMPLES]), tmp_path / "twice")
    one, two = (measure_images(open_images(path), EXTRACTOR, CPU) for path in (samples, twice))
    assert two.count == 120 and two.features.shape == (120, 6)
    assert torch.equal(two.features, one.features.repeat_interleave(2, 0))


def test_precision_and_recall_need_more_images_than_neighbors():
    rows = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    assert precision_recall(rows[:3], rows) == precision_recall(rows, rows[:3]) == (None, None)
    assert precision_recall(rows, None) == (None, None)
    assert precision_recall(rows, rows) == (1.0, 1.0)
    assert precision_recall(rows[:4], rows + 1000) == (0.0, 0.0)


def test_accuracy_is_the_share_of_images_of_their_class(samples, tmp_path):
    """The extractor's class is the brightest channel; images say the class that they were made for."""
    from pixeldit_core.images import write_png

    brightest = SAMPLES.reshape(60, -1, 3).mean(1).argmax(1)
    asked = brightest.copy()
    asked[:15] = (asked[:15] + 1) % 3
    for index in np.random.default_rng(0).permutation(60):
        write_png(Image.fromarray(SAMPLES[index]), tmp_path / f"{index}.png", {"entry": int(asked[index])})
    measured = measure_images(open_images(tmp_path), EXTRACTOR, CPU, batch_size=7)
    assert accuracy(measured.logits, measured.labels) == 0.75
    own = [("blue",), ("red",), ("green",)]  # the model's classes, in another order
    labels = torch.tensor([own.index((("red", "green", "blue")[label],)) for label in measured.labels.tolist()])
    assert accuracy(measured.logits, match_labels(labels, own, ("red", "green", "blue"))) == 0.75
    assert measure_images(open_images(samples), EXTRACTOR, CPU).labels is None


def test_a_score_says_what_it_is_of(samples, reference, tmp_path):
    from evaluation.runs import evaluate

    values = []
    assert evaluate("--reference", reference, "--save-statistics", tmp_path / "r.npz", "--extractor", NAME) == 0
    for path in (reference, tmp_path / "r.npz"):
        assert evaluate("--score", samples, "--reference", path, "--extractor", NAME) == 0
        values.append(json.loads((samples / "score.json").read_text("utf-8")))
    for name in ("fid", "inception_score", "precision", "recall", "count", "deviations"):
        assert values[0][name] == values[1][name], name
    assert values[0]["sfid"] is None and values[0]["accuracy"] is None and values[0]["count"] == 60
    assert values[1]["reference"]["statistics"] == str(tmp_path / "r.npz")
