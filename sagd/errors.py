"""What a user's input can do wrong."""

import contextlib
import math
from collections.abc import Iterator, Sequence


class InputError(ValueError):
    """Bad input, told in one line: what, where, what is allowed. A front end prints it without a traceback."""


def shortened(text: str, most: int) -> str:
    """A text in at most so many characters, without those that control a terminal."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plainly(number: float) -> str:
    """A number as people write it: 100,000,000 or 0.5."""
    whole = isinstance(number, int) or (number.is_integer() and 1e3 <= abs(number) < 1e15)
    return f"{number:,.0f}" if whole else f"{number:g}"


def amount(size: float) -> str:
    """A number of bytes as text, in kB, MB, GB or TB."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.{0 if unit == 'MB' else 1}f} {unit}"
    return f"{math.ceil(size / 1e3)} kB"


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise InputError(f"{name} is {shortened(repr(value), 60)}; allowed: {', '.join(allowed)}")


def check_finite(name: str, value: float) -> None:
    """Refuse what is not a finite number, or too large for a float."""
    try:
        finite = math.isfinite(value)
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise InputError(f"{name} is {shortened(repr(value), 60)}; it must be a finite number")


def check_path(name: str, text: str) -> str:
    """Refuse a text that names no file, such as that of a variable which is not set: as a path it would be ``.``."""
    if not text.strip():
        raise InputError(f"{name} is {text!r}; it must name a file or a folder ('.' is this one)")
    return text


def install(extra: str) -> str:
    """The command that brings an extra: sagd is on no index yet, and is installed from a clone."""
    return f"in the clone of sagd: pip install '.[{extra}]'"


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the import of optional packages: where one is missing, InputError names the extra that brings it."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{' '.join(str(error).split())}; {install(extra)}") from error
