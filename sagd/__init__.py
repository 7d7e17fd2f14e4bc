"""Spectrally anisotropic Gaussian diffusion (Scimeca et al., arXiv 2510.09660)."""

import importlib
from typing import Any

from sagd.errors import InputError
from sagd.formulations.base import Sampler
from sagd.formulations.diffusion import (
    Diffusion,
    ddim_step,
    ddpm_step,
    eps_loss,
    euler_step,
    start_from_marginal,
    v_loss,
)
from sagd.formulations.edm import EDM
from sagd.formulations.flow import Flow, dimension_shift
from sagd.formulations.schedule import Schedule
from sagd.noise.corruption import Corruption
from sagd.noise.spectrum import Spectrum
from sagd.noise.varying import Varying
from sagd.operators import (
    OPERATORS,
    band_pass,
    colour,
    data_matched,
    equal_snr,
    exponential,
    isotropic,
    offset,
    power_law,
    pyramid,
    two_band,
)
from sagd.sampling import draw, sample

__version__ = "0.2.0"

_ROOMS = {
    "colored",
    "data",
    "diffusers",
    "export",
    "figures",
    "formulations",
    "images",
    "k_diffusion",
    "metrics",
    "networks",
    "noise",
    "operators",
    "oracle",
    "runtime",
    "sampling",
    "spaces",
    "training",
}

__all__ = [
    "EDM",
    "Corruption",
    "Diffusion",
    "Flow",
    "InputError",
    "Sampler",
    "Schedule",
    "Spectrum",
    "Varying",
    "band_pass",
    "colour",
    "data_matched",
    "ddim_step",
    "ddpm_step",
    "dimension_shift",
    "draw",
    "eps_loss",
    "equal_snr",
    "euler_step",
    "exponential",
    "isotropic",
    "offset",
    "power_law",
    "pyramid",
    "sample",
    "start_from_marginal",
    "two_band",
    "v_loss",
]


def __getattr__(name: str) -> Any:
    """Import a package when it is first used, such as ``sagd.oracle``; or find an operator that is not listed above."""
    if name in _ROOMS:
        return importlib.import_module(f"sagd.{name}")
    if name in OPERATORS:
        return OPERATORS[name]
    raise AttributeError(f"module 'sagd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *OPERATORS, "__version__"})
