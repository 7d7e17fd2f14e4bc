"""What a user's input can do wrong."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """Bad input, told in one line: what, where, what is allowed. A front end prints it without a traceback."""


class Missing(InputError):
    """A file or folder that the user named is not there."""


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


def check_number(
    name: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse what is not a finite number, or lies outside of its bounds: least <= value <= most, above < value < below.

    A bool is not a number, and neither is a tensor.
    """
    finite = False
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number too large for a float
            finite = math.isfinite(value)
    if finite and least <= value <= most and above < value < below:
        return
    low, high = max(least, above), min(most, below)
    if isinstance(value, float) and not finite:
        allowed = "it must be a finite number"
    elif math.isfinite(low) and math.isfinite(high):
        allowed = f"it must lie in {'(' if above >= least else '['}{low:g}, {high:g}{')' if below <= most else ']'}"
    elif math.isfinite(low):
        allowed = f"it must be above {low:g}" if above >= least else f"it must be {low:g} or more"
    else:
        allowed = "it must be a finite number"
    raise InputError(f"{name} is {shortened(repr(value), 60)}; {allowed}")


def check_whole(name: str, value: int, least: int | None = None, most: int | None = None) -> None:
    """Refuse what is not a whole number, or lies outside of its bounds; a bool is not a number."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        if (least is None or value >= least) and (most is None or value <= most):
            return
    allowed = "" if least is None else f", {least} or more" if most is None else f" from {least} to {most}"
    raise InputError(f"{name} is {shortened(repr(value), 60)}; it must be a whole number{allowed}")


def whole(name: str, value: int | Tensor, least: int | None = None, most: int | None = None) -> int:
    """A whole number that may come as a tensor without axes, as in a loop over a tensor; bounds as in `check_whole`."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value  # type: ignore[union-attr]
    check_whole(name, number, least, most)  # type: ignore[arg-type]
    return int(number)


def check_flag(name: str, value: bool) -> None:
    """Refuse what is neither True nor False: the word "off" would count as true."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {shortened(repr(value), 60)}; it must be True or False")


def check_floating(name: str, x: Tensor) -> None:
    """Refuse what is not a tensor of real numbers of any precision: in whole numbers, noise is cut to 0 or wraps round.

    Nothing here waits for a device.
    """
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "is_floating_point", False):
        return
    if not hasattr(dtype, "is_floating_point"):
        raise InputError(f"{name} is a {type(x).__name__}; it must be a tensor of floating-point numbers")
    eight = "; images as uint8 go through sagd.spaces.pixels.from_uint8" if str(dtype) == "torch.uint8" else ""
    raise InputError(f"{name} is {str(dtype)[6:]}; it must be floating-point{eight}")


def check_times(
    name: str,
    t: Any,
    count: int,
    *,
    whole: bool = False,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse times that are neither one number nor (count,), of the wrong kind, or outside of their bounds.

    Whole numbers are a discrete schedule's steps, floating-point ones are continuous. Bounds are looked at on the CPU
    alone: the values of a tensor elsewhere would have to be waited for, and one that is traced has none.
    """

    def check(value: float) -> None:
        if whole:
            check_whole(name, value, least, most)  # type: ignore[arg-type]
        else:
            check_number(name, value, least=least, above=above, most=most, below=below)

    if not hasattr(t, "is_floating_point"):
        return check(t)
    dtype = str(t.dtype).removeprefix("torch.")
    if dtype not in ("int64", "int32", "int16", "int8") if whole else not t.dtype.is_floating_point:
        raise InputError(f"{name} is {dtype}; it must be {'int64' if whole else 'floating-point'}")
    if t.shape not in ((), (1,), (count,)):
        raise InputError(f"{name} has the shape {tuple(t.shape)}; it must be one number, or one for each of {count}")
    for value in _ends(t):
        check(value)
    return None


def _ends(t: Tensor) -> list[float]:
    """The least and the largest value of a tensor on the CPU; nothing elsewhere."""
    import torch  # here, as a front end imports this module before it says that it is starting

    if t.device.type != "cpu" or not t.numel() or torch.compiler.is_compiling():
        return []
    try:
        return [end.item() for end in t.aminmax()]
    except RuntimeError:  # a fake tensor, or one of vmap's
        return []


def check_uint8(name: str, images: Any) -> None:
    """Refuse images (N, C, H, W) that are not uint8, a tensor or an array: others would be scaled twice."""
    dtype = str(getattr(images, "dtype", type(images).__name__)).removeprefix("torch.")
    shape = tuple(getattr(images, "shape", ()))
    if dtype != "uint8" or len(shape) != 4:
        found = f"{dtype}, of shape {shape}" if shape else dtype
        raise InputError(f"{name} are {found}; they must be (N, C, H, W), uint8, of values 0 to 255")


def check_same(name: str, x: Tensor, other: str, like: Tensor) -> None:
    """Refuse what is no floating-point tensor, or not of exactly that shape: it would be broadcast."""
    check_floating(name, x)
    if x.shape != like.shape:
        raise InputError(
            f"{name} has the shape {tuple(x.shape)} and {other} {tuple(like.shape)}; they must be the same"
        )


def check_alike(name: str, x: Tensor, other: str, like: Tensor, *, grows: bool = True) -> None:
    """Refuse tensors (B, ...) of two shapes, or on two devices; one example x may stand for all of a batch.

    So may one of ``like``, where the result ``grows`` to the batch of x.
    """
    for each, tensor in ((name, x), (other, like)):
        check_floating(each, tensor)
    if x.shape[1:] != like.shape[1:] or not ((len(x.shape) and len(x) == 1) or (grows and like.shape[:1] == (1,))):
        check_same(name, x, other, like)
    if x.device != like.device:
        raise InputError(f"{name} is on {x.device} and {other} on {like.device}; they must be on one device")


def check_values(name: str, x: Tensor, **bounds: float) -> None:
    """Refuse what is no floating-point tensor of finite numbers within bounds (`check_number`), if it is on the CPU."""
    check_floating(name, x)
    for value in _ends(x):
        check_number(f"an entry of {name}", value, **bounds)


def check_path(name: str, text: str | os.PathLike) -> str:
    """Refuse a text that names no file, such as that of a variable which is not set: as a path it would be ``.``."""
    text = os.fsdecode(text) if isinstance(text, str | os.PathLike) else text
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{name} is {shortened(repr(text), 60)}; it must name a file or a folder ('.' is this one)")
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
