"""A data set that a user's own function reads."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sagd.data.pictures import Pictures, of_array
from sagd.errors import InputError
from sagd.images import pillow, upright
from sagd.runtime.download import digest
from sagd.runtime.registry import own, theirs

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")


def read_own(name: str, path: str | None, size: int, folder: Path) -> Pictures:
    """Open a data set with a function of the user's own.

    Parameters
    ----------
    name
        ``mine.py:reader``. The function is called as ``reader(path, size)`` and returns `Pictures`; or an array
        (N, H, W) or (N, H, W, 3), uint8; or a pair of such an array and labels (N,), integers or strings.
    path, size
        Passed to the function; it may ignore the size, because images are cropped and resized later.
    folder
        Where the file is.

    Raises
    ------
    InputError
        No such file or function, an exception in it, or another result than these; in one line.
    """
    reader = own(name, folder, "data set")
    try:
        inspect.signature(reader).bind(path, size)
    except (TypeError, ValueError) as error:
        raise InputError(f"data set {name}: {error}; it is called as reader(path, size)") from None
    return _checked(name, path, _guarded(name, lambda: reader(path, size)), digest(folder / name.rpartition(":")[0]))


def _guarded(where_from: str, call: Callable[[], Result]) -> Result:
    """The result of the user's code, whose exceptions become one line."""
    with theirs(f"data set {where_from}"):
        return call()


def _checked(name: str, path: str | None, found: Any, code: str) -> Pictures:
    if isinstance(found, Pictures):
        return replace(
            _sound(name, found),
            at=lambda k: _picture(f"{name}, picture {k}", found.at, k),
            # Of edited code the same file may be another picture.
            stamp=lambda k: f"{code} {_guarded(f'{name}, picture {k}', lambda: found.stamp(k))}",
        )
    images, labels = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    form = f"data set {name} must return Pictures, an array (N, H, W) or (N, H, W, 3), uint8, or (array, labels (N,))"
    if not isinstance(images, np.ndarray):
        kind = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise InputError(f"{form}; it returns {type(images).__name__ if images is not found else kind}")
    right = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not right or not images.size:
        raise InputError(f"{form}; it returns an array {images.shape}, {images.dtype}")
    if labels is not None:
        labels = _guarded(name, lambda: np.asarray(found[1]))
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "biuSU":
            raise InputError(
                f"data set {name}: labels must be {images.shape[:1]}, integers or strings; "
                f"it returns {labels.shape}, {labels.dtype}"
            )
    return of_array(images, name if path is None else f"{name}: {path}", classes=labels)


def _sound(name: str, found: Pictures) -> Pictures:
    """The same pictures, where what the user's code says of them is of the right kind; otherwise InputError."""
    names = _guarded(name, lambda: list(found.names))
    if not names:
        raise InputError(f"data set {name} has no pictures")
    if odd := [type(label).__name__ for label in names if not isinstance(label, str)]:
        raise InputError(f"data set {name}: names must be strings; there is one of type {odd[0]}")
    of = _guarded(
        name, lambda: {w: np.asarray(v) for w in ("held_out", "classes") if (v := getattr(found, w)) is not None}
    )
    for what, values in of.items():
        if values.shape != (len(names),):
            raise InputError(f"data set {name} has {len(names)} pictures, but {what} of shape {values.shape}")
    if "held_out" in of and of["held_out"].dtype != bool:
        raise InputError(
            f"data set {name}: held_out must be True or False for each picture; it is {of['held_out'].dtype}"
        )
    found = replace(found, held_out=of.get("held_out"), classes=of.get("classes"))
    if "classes" in of:
        _guarded(f"{name}: classes that can't be sorted", found.labels)
    return found


def _picture(name: str, at: Callable[[int], tuple[bytes, "Image"]], k: int) -> tuple[bytes, "Image"]:
    found = _guarded(name, lambda: at(k))
    if not (
        isinstance(found, tuple)
        and len(found) == 2
        and isinstance(found[0], bytes)
        and isinstance(found[1], pillow().Image)
    ):
        raise InputError(f"data set {name}: `at` must return bytes and a PIL image")
    content, picture = found
    _guarded(name, picture.load)  # Pillow opens a file without decoding it
    if picture.mode.startswith(("I", "F")):
        raise InputError(f"data set {name} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits")
    return content, upright(picture)
