"""Operators: each makes a `Spectrum` from a few numbers. A new one is one file here, with a function of its name."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import cast

from torch import Tensor

from sagd.errors import InputError, shortened
from sagd.noise.base import Noise
from sagd.noise.grid import Size, float64
from sagd.noise.spectrum import Spectrum
from sagd.noise.varying import Varying
from sagd.operators._colours import colour
from sagd.operators.band_pass import band_pass
from sagd.operators.data_matched import data_matched
from sagd.operators.equal_snr import equal_snr
from sagd.operators.exponential import exponential
from sagd.operators.isotropic import isotropic
from sagd.operators.offset import offset
from sagd.operators.power_law import power_law
from sagd.operators.pyramid import pyramid
from sagd.operators.two_band import two_band
from sagd.runtime.registry import Registry, own, theirs

__all__ = [
    "OPERATORS",
    "band_pass",
    "build",
    "colour",
    "data_matched",
    "equal_snr",
    "exponential",
    "from_dict",
    "isotropic",
    "offset",
    "power_law",
    "pyramid",
    "two_band",
]

OPERATORS: Registry[Callable[..., Spectrum]] = Registry(__name__, FunctionType, "operator")
globals().update(
    OPERATORS
)  # as an attribute, each name is the function, not the module, also of a file not listed above


def build(
    name: str, size: Size, power: Tensor | None = None, arguments: dict | None = None, *, folder: Path = Path()
) -> Spectrum:
    """The spectrum of an operator, one of the library's or a user's own.

    Parameters
    ----------
    name
        A key of `OPERATORS`, or ``mine.py:ring``: the function ``ring`` of a file of your own. It takes the size (and
        ``power``, if it has an argument of that name) and returns a `Spectrum`, or a weight: a tensor of that size.
    size
        Of the grid, such as (H, W).
    power
        ``size``: the data's variance at each frequency, for the operators that take it.
    arguments
        The operator's other arguments, by name.
    folder
        Where the file lies.

    Raises
    ------
    InputError
        An unknown operator or argument, a bad value, a mistake in the user's file; in one line.
    """
    if not isinstance(name, str):
        raise InputError(f"operator is {shortened(repr(name), 60)}; it must be a name, such as 'power_law'")
    if not isinstance(arguments, Mapping | None):
        said = shortened(repr(arguments), 60)
        raise InputError(f"arguments of operator {name} are {said}; they must be a dict, such as {{'alpha': -0.5}}")
    users = ":" in name
    operator = own(name, folder, "operator") if users else OPERATORS[name]
    arguments = dict(arguments or {})
    try:
        if "power" in (signature := inspect.signature(operator)).parameters:
            arguments["power"] = power
        signature.bind(size, **arguments)
    except (TypeError, ValueError) as error:  # the latter of a function that says nothing of its arguments
        raise InputError(f"operator {name}: {error}") from None
    if not users:
        return operator(size, **arguments)
    with theirs(f"operator {name}"):
        found = operator(size, **arguments)
        found = found if isinstance(found, Spectrum) else Spectrum(found)
    if found.size != tuple(size):
        raise InputError(f"operator {name} returns a weight of {found.size}; it must be {tuple(size)}")
    return found


def from_dict(description: dict) -> Noise:
    """The inverse of `Spectrum.to_dict` and of `Varying.to_dict`.

    Also takes a description written by hand: ``{"operator": ..., "size": ..., ...}``.

    Raises
    ------
    InputError
        An operator that is unknown, an argument that is missing, unknown or wrong.
    """
    if not isinstance(description, Mapping):
        said = shortened(repr(description), 60)
        raise InputError(f"the description of a noise is {said}; it must be a dict, as to_dict gives")
    arguments = dict(description)
    name = arguments.pop("operator", None)
    try:
        return (OWN.get(name) or OPERATORS[name])(**arguments)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"operator {name}: {error}") from None


def _custom(weight: list, per_sample: bool = False) -> Spectrum:
    return Spectrum(float64("a weight", weight), per_sample)


def _varying(first: dict, last: dict, alpha_bar: list) -> Varying:
    ends = [cast(Spectrum, from_dict(end)) for end in (first, last)]  # or Varying refuses them
    return Varying(ends[0], ends[1], float64("alpha_bar", alpha_bar))


OWN: dict[str, Callable[..., Noise]] = {"custom": _custom, "varying": _varying}  # noises that no operator makes
