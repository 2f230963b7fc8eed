"""The scores: against closed forms and torch-fidelity, and independent of how the images are stored."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch_fidelity
from evaluation.extractors import channels, draw, write
from helpers import ROOT

from pixeldit_core.evaluation.adm_inception import AdmInception
from pixeldit_core.evaluation.image_source import open_images
from pixeldit_core.evaluation.measure import SortedRows, measure_images
from pixeldit_core.evaluation.metrics import compute_scores, frechet_distance, inception_score
from pixeldit_core.evaluation.moments import Moments, Statistics
from pixeldit_core.evaluation.reference import open_reference, save_reference

CPU = torch.device("cpu")
SAMPLES, REFERENCE = draw(60, 1), draw(80, 2, shift=9)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return write(REFERENCE, tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write(SAMPLES, tmp_path_factory.mktemp("samples"))


def scores(path, reference, batch_size=64):
    extractor = channels()
    measured = measure_images(open_images(path), extractor, CPU, batch_size=batch_size)
    return compute_scores(measured, open_reference(reference, extractor, CPU, (8, 8), batch_size=batch_size))


def test_fid_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    first, second, shift = rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5), rng.normal(size=5)
    one = Statistics(shift, rotation @ np.diag(first**2) @ rotation.T)
    two = Statistics(np.zeros(5), rotation @ np.diag(second**2) @ rotation.T)
    assert frechet_distance(one, two) == pytest.approx((shift**2).sum() + ((first - second) ** 2).sum(), rel=1e-10)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="5 features, and the extractor gives 4"):
        frechet_distance(Statistics(np.zeros(4), np.eye(4)), two)


def test_moments_are_numpys_in_any_division():
    features = torch.from_numpy(np.random.default_rng(3).normal(1000, 0.01, (301, 7)))  # digits would cancel
    for sizes in ([301], [1, 100, 200], [7] * 43):
        moments = Moments()
        for part in features.split(sizes):
            moments.add(part)
        found = moments.statistics()
        np.testing.assert_allclose(found.mu, features.numpy().mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.sigma, np.cov(features.numpy(), rowvar=False), rtol=1e-9, atol=1e-16)
    with pytest.raises(ValueError, match="at least 2 images; there are 0"):
        Moments().statistics()


def test_inception_score_has_groups_of_5000():
    logits = torch.randn(7000, 4, generator=torch.Generator().manual_seed(0))
    mean, std = inception_score(logits)
    parts = [inception_score(part)[0] for part in (logits[:3500], logits[3500:])]
    assert mean == pytest.approx(sum(parts) / 2) and std == pytest.approx(abs(parts[0] - parts[1]) / 2)
    assert inception_score(logits[:5000])[1] == 0


def test_saved_statistics_give_the_same_scores(samples, reference, tmp_path):
    extractor = channels()
    direct = open_reference(reference, extractor, CPU, (8, 8))
    save_reference(direct, extractor, tmp_path / "saved.npz")
    saved = open_reference(tmp_path / "saved.npz", extractor, CPU, (8, 8))
    measured = measure_images(open_images(samples), extractor, CPU)
    assert compute_scores(measured, saved) == compute_scores(measured, direct)
    assert (saved.count, saved.size, saved.deviations) == (80, (8, 8), direct.deviations)


def test_kept_features_are_those_of_the_smallest_hashes():
    keys = [bytes([number]) for number in np.random.default_rng(0).permutation(40)]
    rows = torch.tensor([[float(key[0])] for key in keys])
    kept = SortedRows(most=5)
    for part in range(0, 40, 8):
        kept.add(keys[part : part + 8], rows[part : part + 8])
    assert kept.result().flatten().tolist() == [0, 1, 2, 3, 4]
    assert SortedRows().result() is None


def test_no_scipy_is_needed(samples, reference):
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from torchvision_operators import define_missing_operators as define; define()\n"
        "from evaluation.test_metrics import scores\n"
        "from pathlib import Path\n"
        "print(scores(Path(sys.argv[1]), Path(sys.argv[2])).fid)"
    )
    words = [sys.executable, "-c", code, samples, reference]
    environment = {
        "PYTHONPATH": f"{ROOT}{';' if sys.platform == 'win32' else ':'}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }

    run = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert float(run.stdout) == pytest.approx(scores(samples, reference).fid, rel=1e-9)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A file of random weights for torch-fidelity's Inception network."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"

    class Unloaded(AdmInception):
        """Takes whatever the network has before it reads a file."""

        def load_state_dict(self, state, *arguments, **options):
            return None

    torch.save({}, path)
    torch.manual_seed(0)
    torch.save(Unloaded("inception", ["2048"], feature_extractor_weights_path=path).state_dict(), path)
    return path


def test_inception_has_the_spatial_features_of_adm(inception):
    options = {"feature_extractor_weights_path": inception}
    ours = AdmInception("inception", ["spatial", "2048", "logits_unbiased"], **options)
    theirs = torch_fidelity.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], **options)
    images = torch.from_numpy(draw(2, 7, size=20)).permute(0, 3, 1, 2)
    seen = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    spatial, pooled, logits = ours(images)
    expected = theirs(images)
    assert torch.equal(pooled, expected[0]) and torch.equal(logits, expected[1])
    assert spatial.shape == (2, 2023) and torch.equal(spatial.view(2, 17, 17, 7)[1, 3, 5], seen[0][1, :7, 3, 5])
    assert len(ours(images)) == 3 and ours.features_list == ["spatial", "2048", "logits_unbiased"]


def test_inception_gives_every_score(inception, samples, tmp_path):
    from pixeldit_core.evaluation.extractor import load_extractor

    extractor = load_extractor("inception", inception, CPU)
    few, other = write(SAMPLES[:6], tmp_path / "few"), write(REFERENCE[:6], tmp_path / "other")
    reference = open_reference(other, extractor, CPU, (8, 8))
    found = compute_scores(measure_images(open_images(few), extractor, CPU), reference)
    values = dataclasses.asdict(found)
    assert values.pop("accuracy") is None and None not in values.values()
    np.savez(tmp_path / "adm.npz", mu=reference.fid.mu, sigma=reference.fid.sigma,
             mu_s=reference.spatial.mu, sigma_s=reference.spatial.sigma, arr_0=REFERENCE[:6])  # fmt: skip
    adm = open_reference(tmp_path / "adm.npz", extractor, CPU, (8, 8))
    for stored, computed in ((adm.fid, reference.fid), (adm.spatial, reference.spatial)):
        assert np.array_equal(stored.mu, computed.mu) and np.array_equal(stored.sigma, computed.sigma)
    torch.testing.assert_close(adm.features, reference.features)
    assert adm.about["kind"] == "ADM statistics and images" and not adm.deviations
