"""Noise with the radially averaged spectrum of the data."""

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.grid import Size, ring_means, rings
from sagd.noise.spectrum import Normalize, Spectrum, normalized
from sagd.operators._power import given_power


def data_matched(size: Size, power: Tensor | list, *, normalize: Normalize = "expected") -> Spectrum:
    """Noise with the radially averaged spectrum of the data: what `equal_snr` is, alike in all directions.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    power
        As for `equal_snr`; (H, W) alone.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    power = given_power(size, power)
    if power.ndim != 2:
        raise InputError(f"data_matched averages over the rings of an image; its size is {tuple(size)}")
    averages = torch.zeros(int(rings(size).max()) + 1, dtype=torch.float64, device="cpu")
    averages[rings(size).unique()] = ring_means(power)
    recipe = {"operator": "data_matched", "size": size, "power": power.tolist()}
    return normalized(averages[rings(size)].sqrt(), normalize, recipe)
