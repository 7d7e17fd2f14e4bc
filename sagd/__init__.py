"""Spectrally anisotropic Gaussian diffusion (Scimeca et al., arXiv 2510.09660)."""

import importlib
from typing import TYPE_CHECKING, Any

from sagd.errors import InputError

if TYPE_CHECKING:  # what `__getattr__` finds; that it imports nothing now is why `sagd --help` answers at once
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

# Where each name of this package is; operators are found in `sagd.operators`.
_HOMES = {
    "EDM": "formulations.edm",
    "Corruption": "noise.corruption",
    "Diffusion": "formulations.diffusion",
    "Flow": "formulations.flow",
    "Sampler": "formulations.base",
    "Schedule": "formulations.schedule",
    "Spectrum": "noise.spectrum",
    "Varying": "noise.varying",
    "colour": "operators",
    "ddim_step": "formulations.diffusion",
    "ddpm_step": "formulations.diffusion",
    "dimension_shift": "formulations.flow",
    "draw": "sampling",
    "eps_loss": "formulations.diffusion",
    "euler_step": "formulations.diffusion",
    "sample": "sampling",
    "start_from_marginal": "formulations.diffusion",
    "v_loss": "formulations.diffusion",
}

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
    """Import what is asked for when it is first used: a name, an operator, or a package such as ``sagd.oracle``."""
    if name in _ROOMS:
        return importlib.import_module(f"sagd.{name}")
    if name in _HOMES:
        found = getattr(importlib.import_module(f"sagd.{_HOMES[name]}"), name)
    elif name.startswith("_") or name not in (operators := importlib.import_module("sagd.operators").OPERATORS):
        raise AttributeError(f"module 'sagd' has no attribute {name!r}")
    else:
        found = operators[name]
    globals()[name] = found  # found at once from now on, also by torch.compile
    return found


def __dir__() -> list[str]:
    operators = importlib.import_module("sagd.operators").OPERATORS
    return sorted({*__all__, *_ROOMS, *operators, "__version__"})
