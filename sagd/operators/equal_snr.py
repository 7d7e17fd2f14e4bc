"""Noise with the data's own spectrum."""

from torch import Tensor

from sagd.noise.grid import Size
from sagd.noise.spectrum import Normalize, Spectrum, normalized
from sagd.operators._power import given_power


def equal_snr(size: Size, power: Tensor | list, *, normalize: Normalize = "expected") -> Spectrum:
    """Noise with the data's own spectrum: every frequency drowns at the same time (EqualSNR, arXiv 2505.11278).

    w(f)^2 is the data's power P(f), so the SNR alpha_bar P / (sigma^2 w^2) is the same at all f.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    power
        ``size``, >= 0: the data's variance at each frequency, averaged over channels
        (`sagd.spaces.moments.statistics`).
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    power = given_power(size, power)
    recipe = {"operator": "equal_snr", "size": size, "power": power.tolist()}
    return normalized(power.sqrt(), normalize, recipe)
