"""What a user's input can do wrong."""

import contextlib
import math
from collections.abc import Iterator, Sequence


class InputError(ValueError):
    """Bad input, told in one line: what, where, what is allowed. A front end prints it without a traceback."""


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def check_finite(name: str, value: float) -> None:
    """Refuse what is not a finite number, or too large for a float."""
    try:
        finite = math.isfinite(value)
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        found = repr(value)
        found = found if len(found) <= 60 else f"{found[:60]}..."
        raise InputError(f"{name} is {found}; it must be a finite number")


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the import of optional packages: where one is missing, InputError names the extra that brings it."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{' '.join(str(error).split())}; pip install 'sagd[{extra}]'") from error
