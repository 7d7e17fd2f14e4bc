"""Sliced Wasserstein distance: optimal transport along random directions."""

import numpy as np

from sagd.errors import check_whole
from sagd.metrics.checks import check_features, check_rng

DIRECTIONS = 256


def sliced_distance(a: np.ndarray, b: np.ndarray, *, rng: np.random.Generator, directions: int = DIRECTIONS) -> float:
    """Squared 2-Wasserstein distance along random unit vectors, their mean (Rabin et al. 2011; Bonneel et al. 2015).

    Along a line the distance is that of sorted values. Few samples bias it upward, so compare at equal counts.

    Parameters
    ----------
    a, b
        Features (N, D) and (M, D).
    rng
        Of the directions.
    directions
        How many.

    Raises
    ------
    InputError
        Features that are not finite, of different D, or fewer than 3.
    """
    check_whole("directions", directions, 1)
    check_features(3, a=a, b=b)
    check_rng(rng, "standard_normal")
    unit = rng.standard_normal((a.shape[1], directions))
    unit /= np.linalg.norm(unit, axis=0)
    one, other = (np.sort(x.astype(np.float64) @ unit, axis=0) for x in (a, b))
    # Both are step functions of the quantile: between two of their jumps each has one value.
    jumps = np.union1d(np.arange(1, len(one) + 1) / len(one), np.arange(1, len(other) + 1) / len(other))
    widths = np.diff(jumps, prepend=0.0)
    middles = jumps - widths / 2
    rows = [np.minimum((middles * len(x)).astype(int), len(x) - 1) for x in (one, other)]
    squares = np.square(one[rows[0]] - other[rows[1]])
    return float((widths @ squares).mean())
