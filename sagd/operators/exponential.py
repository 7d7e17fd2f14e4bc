"""Exponential decay (the workshop paper's eq. 9)."""

import torch

from sagd.errors import InputError, check_number
from sagd.noise.grid import Grid, Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized


def exponential(
    size: Size, beta: float = 1.0, *, grid: Grid = "fftfreq", normalize: Normalize = "expected"
) -> Spectrum:
    """w(f) = exp(-beta r(f)^2), r in cycles per pixel (the workshop paper's eq. 9).

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    beta
        Rate of the decay; below 0 the noise is in the high frequencies.
    grid
        ``fftfreq``: the frequencies of the DFT; ``linspace``: as the paper's listing, without a zero frequency.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    check_number("beta", beta)
    weight = torch.exp(-beta * radius(size, grid) ** 2)
    if not torch.isfinite(weight.square()).all() or not (weight > 0).all():
        raise InputError(f"beta is {beta}; the weight over- or underflows")
    return normalized(weight, normalize, {"operator": "exponential", "size": size, "beta": beta, "grid": grid})
