"""Data sets as uint8 arrays: cropped, resized, split."""

import hashlib
import importlib.metadata
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagd.data.pictures import Pictures
from sagd.errors import InputError, amount, check_whole, shortened
from sagd.images import Dropped, pillow, tell
from sagd.runtime.files import allocate, locked, read_array, scratch, sources, write_bytes, writing
from sagd.runtime.parallel import blocks
from sagd.runtime.progress import Bar

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK = 1024  # images
LARGEST = 4096  # pixels, to which pictures are resized


def prepare(pictures: Pictures, held_out: np.ndarray, size: int, channels: int, folder: Path) -> str:
    """Crop and resize every picture; write ``train.npy`` and ``held_out.npy``, (N, C, size, size), uint8.

    The arrays are filled in the scratch folder, on disk, and moved when they are complete. Memory stays small, and to
    resume after an interruption, call it again: it continues at the block of images where it stopped, unless the code
    or Pillow changed meanwhile.

    Parameters
    ----------
    pictures
        The data set.
    held_out
        (N,), bool: the pictures that go to ``held_out.npy``.
    size, channels
        As `square` takes them.
    folder
        Where the two files are written.

    Returns
    -------
    str
        SHA-256 over the SHA-256 of each picture's content, in order.

    Raises
    ------
    InputError
        Not enough disk space; pictures that cannot be read: all are tried, and the first few are named.
    """
    count = len(held_out)
    # What an interrupted process left is for the same code: other code may make other pixels of the same files.
    code = f"{sources('images', 'data/prepare')} pillow {importlib.metadata.version('pillow')}"
    key = hashlib.sha256(f"{pictures.source} {channels} {size} {code}".encode() + held_out.tobytes())
    for name in pictures.names:
        key.update(os.fsencode(name) + b"\0")
    place = scratch() / "prepare" / key.hexdigest()[:32]
    row = np.where(held_out, held_out.cumsum(), (~held_out).cumsum()) - 1  # of each picture in its array
    with locked(place.with_suffix(".lock"), place):  # another process that prepares the same pictures waits
        arrays, digests, marks = _growing(place, [count - held_out.sum(), held_out.sum()], (channels, size, size))
        bad, dropped = [], Dropped(pictures.source)

        def fill(k: int) -> bytes | InputError:
            """Put a picture in its row; return the digest of its content, or the reason why it cannot be read."""
            try:
                content, picture = pictures.at(k)
            except InputError as error:
                return error
            dropped.note(pictures.names[k], picture)
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
                        marks[k] = wanted[k - block.start]  # last: a picture with its mark is done
                bar.update(len(todo))
            if bad:
                write_bytes(place / "bad.txt", "".join(f"{line}\n" for line in bad).encode())
                more = f"; and {len(bad) - 3} more, all in {place / 'bad.txt'}" if len(bad) > 3 else ""
                raise InputError("; ".join(bad[:3]) + more)
        dropped.tell()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train.npy", "held_out.npy"):
            _move(place / name, folder / name)
        shutil.rmtree(place)
        return hashlib.sha256(digests.data).hexdigest()


def _mark(stamp: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(stamp.encode()).digest()[:16], dtype=np.uint8)


def _growing(place: Path, counts: list[int], shape: tuple[int, ...]) -> tuple[list[np.memmap], np.memmap, np.memmap]:
    """The arrays of both parts, the digests and the marks, on disk: as an earlier process left them, or zero."""
    shapes = {f"{name}.npy": (int(n), *shape) for name, n in zip(("train", "held_out"), counts, strict=True)}
    shapes |= {"digests.npy": (int(sum(counts)), 32), "marks.npy": (int(sum(counts)), 16)}
    if (place / "ready").exists() and not all(_holds(place / name, wanted) for name, wanted in shapes.items()):
        tell(f"what was begun in {place} is damaged; it is prepared again from the start")
        (place / "ready").unlink()
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        size, free = sum(int(np.prod(s)) for s in shapes.values()), shutil.disk_usage(place).free
        if free < size:
            raise InputError(
                f"not enough disk space in {place}: {amount(size)} needed, {amount(free)} free; "
                "set SAGD_SCRATCH to use another folder"
            )
        try:
            for name, wanted in shapes.items():
                with open(place / name, "wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": wanted}
                    np.lib.format.write_array_header_1_0(file, header)
                    allocate(file, int(np.prod(wanted)))
            (place / "ready").touch()
        except OSError as error:
            raise InputError(
                f"cannot write {place}: {error.strerror}; set SAGD_SCRATCH to use another folder"
            ) from error
    *arrays, digests, marks = (np.lib.format.open_memmap(place / name, mode="r+") for name in shapes)
    return arrays, digests, marks


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether an array of a shape is here, whole."""
    try:
        found = read_array(path, memory_map=True, like=(np.uint8, len(shape)))
    except InputError:
        return False
    return found.shape == shape


def _move(source: Path, target: Path) -> None:
    """Rename a file, or copy it if the target is on another disk."""
    try:
        os.replace(source, target)
    except OSError:
        with writing(target) as beside:
            shutil.copyfile(source, beside)


def square(picture: "Image", channels: int, size: int) -> np.ndarray:
    """The largest centred square of a PIL image, resized; transparency is dropped.

    Parameters
    ----------
    picture
        A PIL image.
    channels
        1 (grey) or 3 (RGB).
    size
        Resolution to resize to (bilinear, antialiased), from 2 to `LARGEST`.

    Returns
    -------
    (C, size, size), uint8
    """
    check_whole("size", size, 2, LARGEST)
    if channels not in (1, 3):
        raise InputError(f"channels is {shortened(repr(channels), 60)}; it must be 1 (grey) or 3 (RGB)")
    bilinear = pillow().Resampling.BILINEAR
    if between := {"LAB": "RGB", "La": "LA"}.get(picture.mode):  # of which Pillow makes no grey at once
        picture = picture.convert(between)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.convert({1: "L", 3: "RGB"}[channels]).crop((left, top, left + side, top + side))
    resized = middle if side == size else middle.resize((size, size), bilinear)
    return np.asarray(resized).reshape(size, size, channels).transpose(2, 0, 1)


def split(n: int, held_out: int, seed: int) -> np.ndarray:
    """Draw which images are held out, (N,), bool, from a seed of its own, so that every study holds out the same."""
    check_whole("held_out", held_out)
    check_whole("seed", seed, 0)
    if not 2 <= held_out <= n - 2:
        allowed = f"allowed are 2 to {n - 2}" if n >= 4 else "4 or more are needed"
        raise InputError(f"held_out is {held_out}; the data set has {n} images: {allowed}")
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(n)[:held_out]] = True
    return chosen
