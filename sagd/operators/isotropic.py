"""White noise."""

import torch

from sagd.errors import check_number
from sagd.noise.grid import Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized


def isotropic(size: Size, gain: float = 1.0, *, normalize: Normalize = "expected") -> Spectrum:
    """White noise: w = 1, or without normalisation w = ``gain``.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    gain
        Its standard deviation, above 0, where it is not normalised.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    check_number("gain", gain, above=0)
    recipe = {"operator": "isotropic", "size": size} | ({"gain": gain} if gain != 1 else {})
    return normalized(torch.full_like(radius(size), gain), normalize, recipe)
