"""The scores, computed by torch-fidelity's functions from what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..extras import require
from .measure import Measured
from .moments import Statistics
from .reference import Reference

_GROUP = 5000  #     samples of a group of the Inception Score, as in ADM's program
_NEIGHBORS = 3  #    of precision and recall
_ROWS = 10_000  #    of distances at a time


@dataclass(frozen=True)
class Scores:
    """None = this metric has nothing to be computed from."""

    fid: float
    sfid: float | None
    inception_score: float | None
    inception_score_std: float | None  # over groups of 5,000; 0 for one
    precision: float | None
    recall: float | None
    accuracy: float | None  #            share of samples that a classifier assigns to their class


def compute_scores(samples: Measured, reference: Reference, accuracy: float | None = None) -> Scores:
    """FID (arXiv 1706.08500), sFID (2103.03841), Inception Score (1606.03498), precision and recall (1904.06991).

    Raises:
        ValueError: features of another width than the reference's.
    """
    mean, std = inception_score(samples.logits) if samples.logits is not None else (None, None)
    precision, recall = precision_recall(samples.features, reference.features)
    name = f"the reference {reference.about.get('statistics', reference.about.get('path'))}"
    sfid = None
    if samples.spatial is not None and reference.spatial is not None:
        sfid = frechet_distance(samples.spatial, reference.spatial, name)
    return Scores(frechet_distance(samples.fid, reference.fid, name), sfid, mean, std, precision, recall, accuracy)


def frechet_distance(samples: Statistics, reference: Statistics, name: str = "the reference") -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)).

    Raises:
        ValueError: statistics of different widths.
    """
    if samples.mu.shape != reference.mu.shape:
        raise ValueError(
            f"{name} has statistics of {len(reference.mu)} features, and the extractor gives {len(samples.mu)}: "
            "they are of another network, or of another layer. Use the extractor that they were computed with."
        )
    module = require("torch_fidelity.metric_fid")
    found = module.fid_statistics_to_metric(samples.as_dict(), reference.as_dict(), verbose=False)
    return found[module.KEY_METRIC_FID]


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over groups of 5,000 rows of logits [N, K]."""
    module = require("torch_fidelity.metric_isc")
    groups = math.ceil(len(logits) / _GROUP)
    found = module.isc_features_to_metric(logits, splits=groups, shuffle=False)
    return found[module.KEY_METRIC_ISC_MEAN], found[module.KEY_METRIC_ISC_STD]


def precision_recall(samples: Tensor, reference: Tensor | None) -> tuple[float | None, float | None]:
    """Of features [N, D] and [M, D], with the 3rd nearest neighbors; None of too few images."""
    if reference is None or min(len(samples), len(reference)) <= _NEIGHBORS:
        return None, None
    module = require("torch_fidelity.metric_prc")
    found = module.prc_features_to_metric(
        samples, reference, prc_neighborhood=_NEIGHBORS, prc_batch_size=_ROWS, save_cpu_ram=True, verbose=False
    )
    return found[module.KEY_METRIC_PRECISION], found[module.KEY_METRIC_RECALL]
