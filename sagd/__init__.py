"""Spectrally anisotropic Gaussian diffusion (Scimeca et al., arXiv 2510.09660)."""

from sagd.corruption import Corruption
from sagd.diffusion import (
    Schedule,
    ddim_step,
    ddpm_step,
    eps_loss,
    euler_step,
    sample,
    start_from_marginal,
    start_from_noise,
    step,
    v_loss,
)
from sagd.edm import EDM
from sagd.errors import InputError
from sagd.flow import Flow, dimension_shift
from sagd.spectrum import (
    Spectrum,
    band_pass,
    data_matched,
    equal_snr,
    exponential,
    isotropic,
    offset,
    power_law,
    two_band,
)
from sagd.spectrum.varying import Varying

__all__ = [
    "EDM",
    "Corruption",
    "Flow",
    "InputError",
    "Schedule",
    "Spectrum",
    "Varying",
    "band_pass",
    "data_matched",
    "ddim_step",
    "ddpm_step",
    "dimension_shift",
    "eps_loss",
    "equal_snr",
    "euler_step",
    "exponential",
    "isotropic",
    "offset",
    "power_law",
    "sample",
    "start_from_marginal",
    "start_from_noise",
    "step",
    "two_band",
    "v_loss",
]
