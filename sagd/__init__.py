"""Spectrally anisotropic Gaussian diffusion (Scimeca et al., arXiv 2510.09660)."""

from sagd.diffusion import (
    Schedule,
    ddim_step,
    ddpm_step,
    eps_loss,
    sample,
    start_from_marginal,
    start_from_noise,
)
from sagd.errors import InputError
from sagd.spectrum import Spectrum, band_pass, exponential, isotropic, power_law, two_band

__all__ = [
    "InputError",
    "Schedule",
    "Spectrum",
    "band_pass",
    "ddim_step",
    "ddpm_step",
    "eps_loss",
    "exponential",
    "isotropic",
    "power_law",
    "sample",
    "start_from_marginal",
    "start_from_noise",
    "two_band",
]
