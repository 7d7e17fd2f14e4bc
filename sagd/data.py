"""Data sets as uint8 arrays: cropped, resized, split."""

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sagd.catalogue import Pictures, find
from sagd.errors import InputError
from sagd.files import lock, scratch, write_bytes, writing
from sagd.images import Files, Images
from sagd.parallel import blocks
from sagd.progress import Bar

BLOCK = 1024  # images


def channels_of(name: str) -> int:
    """How many channels a data set has where nobody says: 1 for digits, else 3."""
    return 1 if "mnist" in name else 3


def prepare(pictures: Pictures, held_out: np.ndarray, size: int, channels: int, folder: Path) -> str:
    """Crop and resize every picture; write ``train.npy`` and ``held_out.npy``, (N, C, size, size), uint8, below folder.

    The arrays grow on the disk, in the scratch folder, and move when they are whole: no image is held in memory, and a
    process that was killed goes on at the block that it was at.

    Parameters
    ----------
    held_out
        (N,), bool: which pictures go to which file.
    size, channels
        As `square` takes them.

    Returns
    -------
    str
        SHA-256 over the SHA-256 of each picture's content, in order.

    Raises
    ------
    InputError
        Too little room on the disk; pictures that cannot be read: all are looked at, and the first few named.
    """
    count = len(held_out)
    key = hashlib.sha256(f"{pictures.source} {channels} {size}".encode() + held_out.tobytes())
    for name in pictures.names:
        key.update(os.fsencode(name) + b"\0")
    place = scratch() / "prepare" / key.hexdigest()[:32]
    row = np.where(held_out, held_out.cumsum(), (~held_out).cumsum()) - 1  # of each picture in its array
    with _alone(place):
        arrays, digests, marks = _growing(place, [count - held_out.sum(), held_out.sum()], (channels, size, size))
        bad = []

        def fill(k: int) -> bytes | InputError:
            """Put a picture in its row: the digest of its content, or why it cannot be read."""
            try:
                content, picture = pictures.at(k)
            except InputError as error:
                return error
            arrays[int(held_out[k])][row[k]] = square(picture, channels, size)
            return hashlib.sha256(content).digest()

        with Bar("prepare", count) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            for block in blocks(count, BLOCK):
                wanted = np.stack([_mark(pictures.stamp(k)) for k in range(block.start, block.stop)])
                todo = block.start + np.flatnonzero((marks[block] != wanted).any(axis=1))
                bar.skip(block.stop - block.start - len(todo))
                found = list(pool.map(fill, todo))
                for array in arrays:
                    array.flush()
                for k, digest in zip(todo, found, strict=True):
                    if isinstance(digest, InputError):
                        bad.append(str(digest))
                    else:
                        digests[k] = np.frombuffer(digest, dtype=np.uint8)
                        marks[k] = wanted[k - block.start]  # last: what has its mark is done
                bar.update(len(todo))
            if bad:
                write_bytes(place / "bad.txt", "".join(f"{line}\n" for line in bad).encode())
                more = f"; and {len(bad) - 3} more, all in {place / 'bad.txt'}" if len(bad) > 3 else ""
                raise InputError("; ".join(bad[:3]) + more)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train.npy", "held_out.npy"):
            _move(place / name, folder / name)
        shutil.rmtree(place)
        return hashlib.sha256(digests).hexdigest()


@contextlib.contextmanager
def _alone(place: Path):
    """Hold a folder of the scratch: another process that wants the same pictures waits."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = open(place.with_suffix(".lock"), "w")
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}; SAGD_SCRATCH names another folder") from error
    with file:
        lock(file, place)
        yield


def _mark(stamp: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(stamp.encode()).digest()[:16], dtype=np.uint8)


def _growing(place: Path, counts: list[int], shape: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The arrays of both parts, the digests and the marks, on the disk: as an earlier process left them, or zero."""
    shapes = {f"{name}.npy": (int(n), *shape) for name, n in zip(("train", "held_out"), counts, strict=True)}
    shapes |= {"digests.npy": (int(sum(counts)), 32), "marks.npy": (int(sum(counts)), 16)}
    if not all((place / name).exists() for name in (*shapes, "ready")):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        size, free = sum(int(np.prod(s)) for s in shapes.values()), shutil.disk_usage(place).free
        if free < size:
            raise InputError(f"{place} has {free / 1e9:.1f} GB free, {size / 1e9:.1f} are needed: set SAGD_SCRATCH")
        try:
            for name, wanted in shapes.items():
                np.lib.format.open_memmap(place / name, mode="w+", dtype=np.uint8, shape=wanted)
                with open(place / name, "rb+") as file:  # else a disk that fills up kills the process without a word
                    os.posix_fallocate(file.fileno(), 0, (place / name).stat().st_size)
            (place / "ready").touch()
        except OSError as error:
            raise InputError(f"cannot write {place}: {error.strerror}; SAGD_SCRATCH names another folder") from error
    *arrays, digests, marks = (np.lib.format.open_memmap(place / name, mode="r+") for name in shapes)
    return arrays, digests, marks


def _move(source: Path, target: Path) -> None:
    """Rename, or copy where that is another disk."""
    try:
        os.replace(source, target)
    except OSError:
        with writing(target) as beside:
            shutil.copyfile(source, beside)


def square(picture, channels: int, size: int) -> np.ndarray:
    """The middle of a PIL image, resized.

    Parameters
    ----------
    channels
        1 (grey) or 3 (RGB).
    size
        Resolution to resize to (bilinear, antialiased), at least 2.

    Returns
    -------
    (C, size, size), uint8
    """
    from PIL import Image

    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.convert({1: "L", 3: "RGB"}[channels]).crop((left, top, left + side, top + side))
    resized = middle if side == size else middle.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(size, size, channels).transpose(2, 0, 1)


def read(name: str, path: str | None, size: int, channels: int | None = None) -> np.ndarray:
    """A data set of `sagd.catalogue.find`, whole, in memory: (N, C, size, size), uint8, as `prepare` has them."""
    pictures = find(name, path, size)
    channels = channels or channels_of(name)
    return np.stack([square(pictures.at(k)[1], channels, size) for k in range(len(pictures.names))])


class _Resized:
    """The pictures of a folder or zip file as `read` gives them, but a few at a time: see `sagd.images.Images`."""

    def __init__(self, path: Path, size: int):
        self._files, self._size = Files(path), size

    def __len__(self) -> int:
        return len(self._files.names)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([square(self._files.picture(n), 3, self._size) for n in self._files.names[rows]])


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
        return read(source, None, size or 28)
    path = Path(source).absolute()
    for root in (path, path.parent) if path.name == "MNIST" else (path,):
        if (root / "MNIST" / "raw").is_dir():
            return read("mnist", str(root), size or 28)
    if size is None:
        return Images(source)
    if path.suffix == ".npy" or (".npz" in source and not path.is_dir()):
        images = Images(source)
        if images[:1].shape[2:] != (size, size):
            height, width = images[:1].shape[2:]
            raise InputError(f"{source} is an array of {height}x{width} images; only pictures can be resized to {size}")
        return images
    return _Resized(path, size)


def split(n: int, held_out: int, seed: int) -> np.ndarray:
    """(N,), bool: which images are held out, drawn by a seed of its own, so that every study has the same ones."""
    if not 2 <= held_out <= n - 2:
        raise InputError(f"dataset.held_out is {held_out}; the data set has {n} images: allowed are 2 to {n - 2}")
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(n)[:held_out]] = True
    return chosen
