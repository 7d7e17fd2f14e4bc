"""A metric of one's own: how far the mean features are apart."""

import numpy as np


def gap(generated, reference):
    """Euclidean distance of the means of features (N, D) and (M, D)."""
    return float(np.linalg.norm(generated.mean(0) - reference.mean(0)))
