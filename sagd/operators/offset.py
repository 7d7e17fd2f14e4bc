"""Offset noise: a boost of the zero frequency."""

import math

import torch

from sagd.errors import check_number
from sagd.noise.grid import Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized


def offset(size: Size, strength: float = 0.1, *, normalize: Normalize = "expected") -> Spectrum:
    """Offset noise: white noise and, for each image and channel, ``strength`` times one more normal number everywhere.

    That is a boost of the zero frequency alone, of w(0)^2 from 1 to 1 + strength^2 N, N the number of pixels. In
    diffusers' training scripts it is ``--noise_offset``, usually 0.1, not normalised.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    strength
        How strong the offset is: the standard deviation of the number that is added everywhere, 0 or more.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    check_number("strength", strength, least=0)
    weight = torch.ones_like(radius(size))
    weight[(0,) * len(size)] = math.hypot(1, strength * math.sqrt(math.prod(size)))
    return normalized(weight, normalize, {"operator": "offset", "size": size, "strength": strength})
