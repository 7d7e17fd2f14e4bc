"""What is trained: discrete diffusion, flow matching, EDM. A new formulation is one file here.

Its file has a mapping of its own name: the schedules under which a configuration finds it, each a `Family`.
"""

import inspect

from sagd.errors import InputError, one_of
from sagd.formulations.base import Family, Formulation
from sagd.runtime.registry import Registry

_FILES: Registry[dict[str, Family]] = Registry(__name__, dict, "formulation")


def families() -> dict[str, Family]:
    """Every schedule by name, and the family of formulations that it belongs to."""
    return {name: family for found in _FILES.values() for name, family in found.items()}


def build(schedule: str, prediction: str, shape: tuple[int, ...], arguments: dict | None = None) -> Formulation:
    """The formulation of a schedule and a prediction, for data of a shape (C, H, W).

    Parameters
    ----------
    schedule
        A key of `families`: ``linear``, ``zero_terminal_snr``, ``flow``, ``edm``.
    prediction
        ``eps`` or ``v`` under linear, ``v`` under zero_terminal_snr, ``velocity`` under flow, ``x0`` under edm.
    arguments
        The formulation's own, by name.

    Raises
    ------
    InputError
        A schedule, a prediction or an argument that is unknown or wrong.
    """
    one_of("schedule", schedule, tuple(families()))
    family = families()[schedule]
    if prediction not in family.predictions:
        raise InputError(f"prediction is {prediction!r}; schedule {schedule} is for {' or '.join(family.predictions)}")
    try:
        inspect.signature(family.build).bind(prediction, shape, **(arguments or {}))
    except TypeError as error:
        raise InputError(f"schedule {schedule}: {error}") from None
    return family.build(prediction, shape, **(arguments or {}))
