"""The power law, plw-SAGD (eq. 10)."""

from typing import Literal

import torch

from sagd.errors import InputError, check_number, one_of
from sagd.noise.grid import Grid, Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized

FLOOR = 1e-10  # eq. 10


def power_law(
    size: Size,
    alpha: float,
    *,
    grid: Grid = "fftfreq",
    dc: Literal["lowest", "floor"] = "lowest",
    normalize: Normalize = "expected",
) -> Spectrum:
    """plw-SAGD (eq. 10): w(f) = (r(f) + 1e-10)^alpha, so log RAPSD = 2 alpha log r + const.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    alpha
        Below 0 the noise is in the low frequencies, above 0 in the high ones; 0 is white.
    grid
        ``fftfreq``: the frequencies of the DFT; ``linspace``: as the paper's listing, without a zero frequency.
    dc
        Weight of the zero frequency, where eq. 10 has a pole or a zero. ``lowest``: that of the lowest non-zero
        radius; ``floor``: (1e-10)^alpha, as the paper's listing has it. At alpha = -0.5 that is 54,000 times the rest,
        and the noise is a random grey level.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    check_number("alpha", alpha)
    one_of("dc", dc, ("lowest", "floor"))
    r = radius(size, grid)
    if dc == "lowest":
        r = torch.where(r == 0, r[r > 0].min(), r)
    weight = (r + FLOOR) ** alpha
    if not torch.isfinite(weight.square()).all() or not (weight > 0).all():
        raise InputError(f"alpha is {alpha}; the weight over- or underflows")
    recipe = {"operator": "power_law", "size": size, "alpha": alpha, "grid": grid, "dc": dc}
    return normalized(weight, normalize, recipe)
