"""Precision, recall, density and coverage, from nearest neighbours."""

import numpy as np

from sagd.errors import InputError, check_whole
from sagd.metrics.checks import BLOCK, check_features
from sagd.runtime.parallel import blocks


def precision_recall_density_coverage(
    generated: np.ndarray, reference: np.ndarray, nearest: int = 5
) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Parameters
    ----------
    generated, reference
        Features (N, D) and (M, D), N and M above ``nearest``.
    nearest
        The ball around a point reaches to its neighbour of this rank, which is not in it. So the ball of a point with
        ``nearest`` copies or more holds nothing, not even these.

    Raises
    ------
    InputError
        Features that are not finite, of different D, or too few; a reference whose rows are all equal.
    """
    check_whole("nearest", nearest, 1)
    check_features(nearest + 1, generated=generated, reference=reference)
    if (reference == reference[0]).all():
        raise InputError(f"reference: all {len(reference)} rows are equal; neighbours of equal points tell nothing")
    reach, reach_generated = (_reach(x, nearest) for x in (reference, generated))
    inside = np.zeros(len(generated))  # in how many balls around references each sample is
    recalled = covered = 0
    for i in blocks(len(reference), BLOCK // 4):  # a few references at a time, by all samples
        squared = _squared_distances(reference[i], generated)
        within = squared < reach[i, None]
        inside += within.sum(0)
        covered += within.any(1).sum()
        recalled += (squared < reach_generated).any(1).sum()
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled / len(reference)),
        "density": float(inside.mean() / nearest),
        "coverage": float(covered / len(reference)),
    }


def _reach(x: np.ndarray, rank: int) -> np.ndarray:
    """(N,), the squared distance of each row to its neighbour of this rank."""
    reach = np.empty(len(x))
    for i in blocks(len(x), BLOCK // 4):
        squared = _squared_distances(x[i], x)
        squared[np.arange(len(squared)), np.arange(i.start, i.stop)] = -1  # the row itself comes before any equal row
        reach[i] = np.partition(squared, rank)[:, rank]
    return reach


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    columns = []
    for j in blocks(len(y), BLOCK):
        z = y[j].astype(np.float64)
        columns.append(np.square(x).sum(1)[:, None] + np.square(z).sum(1) - 2 * x @ z.T)
    return np.maximum(np.concatenate(columns, 1), 0)
