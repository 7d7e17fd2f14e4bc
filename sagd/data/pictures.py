"""Images in a fixed order, from arrays and files."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagd.errors import InputError
from sagd.images import Files, pillow

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Pictures:
    """Images in a fixed order, opened one at a time.

    Parameters
    ----------
    names
        One for each image.
    at
        Takes an index; returns the bytes that identify the image, and a PIL image. Several threads call it at once.
    source
        A line that describes the data set.
    held_out
        (N,), bool: the data set's own test part, if it has one.
    stamp
        Takes an index; returns a string that changes when the image does, without opening the image.
    classes
        (N,), of any type that can be sorted: the class of each image, if known.
    """

    names: Sequence[str]
    at: Callable[[int], tuple[bytes, "Image"]]
    source: str
    held_out: np.ndarray | None = None
    stamp: Callable[[int], str] = lambda k: ""
    classes: Sequence | np.ndarray | None = None

    def labels(self) -> np.ndarray:
        """(N,), int64: the index of each image's class in the sorted list of classes."""
        if self.classes is None:
            raise InputError(f"{self.source}: the classes are not known, so there are no labels")
        return np.unique(np.asarray(self.classes), return_inverse=True)[1].astype(np.int64)

    def class_names(self) -> list[str]:
        """What each label stands for, such as the name of a sub-folder; empty if they are the labels themselves."""
        names = [] if self.classes is None else np.unique(np.asarray(self.classes)).tolist()
        names = [_text(name) for name in names]
        return [] if names == [str(k) for k in range(len(names))] else names


def _text(name: object) -> str:
    if isinstance(name, float) and name.is_integer():
        return str(int(name))
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def of_array(
    images: np.ndarray, source: str, held_out: np.ndarray | None = None, classes: np.ndarray | None = None
) -> Pictures:
    """Pictures from an array in memory, (N, H, W) or (N, H, W, 3), uint8."""
    of = pillow().fromarray
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    names = [f"{digest}/{k}" for k in range(len(images))]
    return Pictures(names, lambda k: (images[k].tobytes(), of(images[k])), source, held_out, classes=classes)


def of_files(
    root: Path,
    source: str,
    held_out: Callable[[str], bool] | None = None,
    only: Callable[[str], bool] = lambda name: True,
    check: Callable[[str, bytes], None] = lambda name, content: None,
) -> Pictures:
    """Pictures from a folder or a zip file; if each is in a sub-folder, the sub-folder's name is its class.

    Files that are not images are skipped, and one line on the standard error says so.

    Parameters
    ----------
    held_out, only
        Take the name of a file, relative to the root: whether it is held out, whether it belongs to the data set.
    check
        Is called with each name and content before the image is used.
    """
    files = Files(root)
    files.tell(only)
    names = [name for name in files.names if only(name)]
    if not names:
        raise InputError(f"{root} holds no image of this data set")

    def at(k: int) -> tuple[bytes, "Image"]:
        content = files.read(names[k])
        check(names[k], content)
        return names[k].encode(errors="surrogateescape") + content, files.picture(names[k], content)

    mask = None if held_out is None else np.array([held_out(name) for name in names])
    folders = [Path(name).parent.name for name in names]
    return Pictures(names, at, source, mask, lambda k: files.stamp(names[k]), folders if all(folders) else None)
