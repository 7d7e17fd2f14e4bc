"""Power spectra of data: the radially averaged power spectral density (RAPSD)."""

import torch
from torch import Tensor

from sagd.spectrum import radius, ring_means


def rapsd(x: Tensor) -> tuple[Tensor, Tensor]:
    """Radially averaged power spectral density, averaged over leading axes (section 2.3).

    Parameters
    ----------
    x
        (..., H, W).

    Returns
    -------
    radii, power
        (K,) each, float64: power |F x|^2 of the unitary DFT, averaged over rings one bin of the shorter side wide;
        radii are the mean radius of each ring's bins, in cycles per pixel. The zero frequency is a ring of its own.
    """
    power = torch.fft.fft2(x.double(), norm="ortho").abs().square().reshape(-1, *x.shape[-2:]).mean(0).cpu()
    return ring_means(radius(tuple(x.shape[-2:]))), ring_means(power)
