"""Open any set of images for analysis."""

from pathlib import Path

import numpy as np

from sagd.data import channels_of, find
from sagd.data.prepare import LARGEST, square
from sagd.errors import InputError, check_path, check_whole
from sagd.images import Dropped, Files, Images, of_arrays


def read(name: str, path: str | Path | None, size: int, channels: int | None = None) -> np.ndarray:
    """A whole data set in memory, (N, C, size, size), uint8, with the same pixels as `prepare` writes.

    Parameters
    ----------
    name, path, size
        As `sagd.data.find` takes them.
    channels
        1 or 3; by default those of `sagd.data.channels_of`.
    """
    check_whole("size", size, 2, LARGEST)
    pictures, channels = find(name, path, size), channels_of(name) if channels is None else channels
    dropped, images = Dropped(pictures.source), []
    for k, label in enumerate(pictures.names):
        picture = pictures.at(k)[1]
        dropped.note(label, picture)
        images.append(square(picture, channels, size))
    dropped.tell()
    return np.stack(images)


class _Resized:
    """The pictures of a folder or zip file, cropped and resized, a few at a time; used like `sagd.images.Images`."""

    def __init__(self, path: Path, size: int):
        self._files, self._size, self._dropped = Files(path), size, Dropped(str(path))
        self._files.tell()

    def __len__(self) -> int:
        return len(self._files.names)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([self._pixels(name) for name in self._files.names[rows]])

    def _pixels(self, name: str) -> np.ndarray:
        picture = self._files.picture(name)
        self._dropped.note(name, picture)
        self._dropped.tell()
        return square(picture, 3, self._size)


def load(source: str | Path, size: int | None = None) -> np.ndarray | Images | _Resized:
    """Open any set of images for analysis.

    Parameters
    ----------
    source
        ``mnist_5k``; a folder with torchvision's ``MNIST/raw`` in it, or that ``MNIST``: all 70,000 digits; otherwise
        what `sagd.images.Images` takes: a folder or zip file of images, an npy file, or an npz file
        (``file.npz:member``).
    size
        Crop and resize pictures to it, as `read` does; by default they stay as they are. Arrays cannot be resized.

    Returns
    -------
    array, Images or alike
        Has ``len()``, and slices of it are (n, C, H, W), uint8. Digits are read at once, files at each slice.
    """
    if size is not None:
        check_whole("size", size, 2, LARGEST)
    if (source := check_path("source", source)) == "mnist_5k":
        return read(source, None, size or 28)
    path = Path(source).absolute()
    for root in (path, path.parent) if path.name == "MNIST" else (path,):
        if (root / "MNIST" / "raw").is_dir():
            return read("mnist", str(root), size or 28)
    if size is None:
        return Images(source)
    if of_arrays(source):
        images = Images(source)
        if images[:1].shape[2:] != (size, size):
            height, width = images[:1].shape[2:]
            raise InputError(f"{source} is an array of {height}x{width} images; only pictures can be resized to {size}")
        return images
    return _Resized(path, size)
