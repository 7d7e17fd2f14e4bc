"""What every metric asks of the features that it is given."""

from typing import Any

import numpy as np

from sagd.errors import InputError, shortened
from sagd.runtime.parallel import blocks

LARGEST = 1e20  # in size, of a feature: then no power of it that a metric takes overflows float64
BLOCK = 1024  # features at a time in float64


def check_array(name: str, x: np.ndarray) -> None:
    """Refuse what is no array of features (N, D): another type, no real numbers, another shape; reads no values."""
    if not isinstance(x, np.ndarray) or isinstance(x, np.matrix | np.ma.MaskedArray):  # their operations differ
        raise InputError(f"{name} is a {type(x).__name__}; it must be a NumPy array of features (N, D)")
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "fiu":
        raise InputError(
            f"{name} has shape {x.shape} and type {x.dtype}; it must be (N, D) of real numbers, D at least 1"
        )


def check_rng(rng: Any, draws: str) -> None:
    """Refuse what is no generator of NumPy's, such as a seed: ``draws`` is the method that is needed of it."""
    if not hasattr(rng, draws):
        raise InputError(
            f"rng is {shortened(repr(rng), 60)}; it must be a generator, as np.random.default_rng(0) gives"
        )


def check_rows(name: str, x: np.ndarray) -> None:
    """Refuse features (N, D) that are not finite, or absurdly large, and tell the first such row."""
    for rows in blocks(len(x), BLOCK):
        size = np.abs(x[rows].astype(np.float64))
        if not size.max(initial=0) <= LARGEST:
            row, column = np.argwhere(~(size <= LARGEST))[0].tolist()
            value = x[rows.start + row, column]
            raise InputError(
                f"{name}: row {rows.start + row} has {value:g}; features must be finite, at most {LARGEST:g} in size"
            )


def check_features(least: int, **sets: np.ndarray) -> None:
    """Refuse sets of features (N, D), each by its name, of different D, or with fewer than ``least`` rows.

    Raises
    ------
    InputError
        As well for what `check_array` and `check_rows` refuse.
    """
    for name, x in sets.items():
        check_array(name, x)
    shapes = [x.shape for x in sets.values()]
    if min(rows for rows, _ in shapes) < least or len({width for _, width in shapes}) > 1:
        raise InputError(
            f"features of shapes {' and '.join(map(str, shapes))}; {least} rows or more are needed, of equal width"
        )
    for name, x in sets.items():
        check_rows(name, x)
