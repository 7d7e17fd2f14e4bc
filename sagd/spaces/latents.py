"""Latents: written in shards once, read as training needs them."""

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError, amount
from sagd.noise.corruption import Corruption
from sagd.noise.randomness import generator
from sagd.runtime.distributed import World
from sagd.runtime.download import digest
from sagd.runtime.files import (
    header,
    of_machine,
    open_tensors,
    read_json,
    read_tensors,
    set_aside,
    write_json,
    write_tensors,
)
from sagd.runtime.parallel import blocks
from sagd.spaces.autoencoder import Autoencoder
from sagd.spaces.moments import combine
from sagd.spaces.pixels import from_uint8

SHARD = {"latents", "mean", "squares"}  # tensors of every shard
EPSILON = 1e-5  # added to the variance of latents, as RAE does


class Latents:
    """Latents from the shards that `encode` wrote, normalised; memory does not grow with their number.

    Parameters
    ----------
    folder
        With manifest.json, the shards and normalization.safetensors.
    check
        Verify the checksums of shards whose size or mtime changed since the last check. Of several processes one is
        enough.

    Raises
    ------
    InputError
        A shard that is missing or not as it was written.
    """

    in_memory = False

    def __init__(self, folder: Path, device: torch.device | str = "cpu", check: bool = True):
        manifest = read_json(folder / "manifest.json", shards=list, per_shard=int, count=int, shape=list)
        for k, entry in enumerate(manifest["shards"]):
            name = f"shard_{k:05d}.safetensors"
            named = isinstance(entry, dict) and entry.get("name") == name
            if not named or (check and not _whole(folder, entry)):
                raise InputError(f"{folder / name} is not as it was written; rerun the stage encode (`dvc repro -f`)")
        self._shards = [open_tensors(folder / shard["name"]) for shard in manifest["shards"]]
        self._per_shard, self._count = manifest["per_shard"], manifest["count"]
        self.shape, self.device = tuple(manifest["shape"]), torch.device(device)
        self._flips = manifest["flips"]
        self.labels = torch.cat([s["labels"] for s in self._shards]) if manifest["labels"] else None
        self._mean, self._std = (t.to(self.device) for t in normalization(folder))

    def __len__(self) -> int:
        return self._count

    @property
    def classes(self) -> int:
        """Number of labels, 0 if there are none."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def read(self, indices: Tensor, flip: Tensor | None = None) -> Tensor:
        """Latents by the indices of their images, as they are stored; of mirrored images where ``flip`` (bool) is."""
        if flip is not None and not self._flips:
            raise InputError("flip needs the latents of mirrored images, and these were encoded without")
        shard, row = indices // self._per_shard, indices % self._per_shard
        view = torch.zeros_like(indices) if flip is None else flip.long()
        found = torch.empty((len(indices), *self.shape), dtype=self._shards[0]["latents"].dtype, device="cpu")
        for k, v in torch.stack([shard, view], 1).unique(dim=0).tolist():
            mine = (shard == k) & (view == v)
            found[mine] = self._shards[k]["flipped" if v else "latents"][row[mine]]
        return found

    def to_x0(self, stored: Tensor) -> Tensor:
        """What `read` gives, normalised by element, float32, on the device."""
        return (stored.to(self.device, non_blocking=True).float() - self._mean) / self._std

    def encode(self, x0: Tensor) -> Tensor:
        return x0


def normalization(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and deviation of latents, each (C, H, W), float32: z is normalised as (z - mean) / sqrt(var + 1e-5)."""
    moments = read_tensors(folder / "normalization.safetensors")
    return moments["mean"].float(), (moments["variance"] + EPSILON).sqrt().float()


# Moments are estimated from this many latents, evenly spread, because data sets are often sorted by class.
PROBED = 4096


def encode(
    images: np.ndarray,
    labels: np.ndarray | None,
    autoencoder: Autoencoder,
    place: Path,
    *,
    source: str,
    dtype: torch.dtype = torch.float16,
    flips: bool = False,
    per_shard: int = 1024,
    batch_size: int = 64,
    world: World | None = None,
    resumed: Callable[[int], None] = lambda images: None,
    report: Callable[[int], None] = lambda images: None,
) -> dict:
    """Write the latents of a data set in shards.

    To resume after an interruption, call it again: finished shards are kept.

    Parameters
    ----------
    images
        (N, C, H, W), uint8, memory-mapped: one shard of latents is in memory, whatever N is.
    labels
        (N,), int64, stored beside the latents.
    place
        The folder for ``shard_00000.safetensors`` and so on (tensors ``latents``, ``flipped``, ``labels``),
        ``normalization.safetensors`` (``mean`` and ``variance`` of each element, float64), and ``manifest.json``.
    source
        What tells these images from others, such as their SHA-256.
    flips
        Also store the latents of the mirrored images.
    world
        Processes that share the shards; all see ``place``.
    resumed, report
        Called with the number of images that were there before, and with that of each shard that this process writes.

    Returns
    -------
    dict
        The manifest: ``count``, ``per_shard``, ``shape``, ``dtype``, ``flips``, ``labels``, ``source``,
        ``autoencoder`` (SHA-256), and for each of ``shards`` its ``name``, ``count`` and ``sha256``.
    """
    world, shape = world or World(), autoencoder.shape(images.shape[1:])
    parts = list(blocks(len(images), per_shard))
    names = [f"shard_{k:05d}.safetensors" for k in range(len(parts))]
    with world.holding(place):
        # A shard's entry is written after it, so that it is whole; the manifest is written last.
        missing = world.most(*(world.main and not _kept(place, name) for name in names))
        todo = [k for k, absent in enumerate(missing) if absent]
        finished = not todo and any(world.most(world.main and (place / "manifest.json").exists()))
        resumed(len(images) - sum(parts[k].stop - parts[k].start for k in todo))
        if world.main and not finished:
            needed = len(images) * (1 + flips) * int(np.prod(shape)) * dtype.itemsize
            _check_room(place, names, needed, f"{len(images)} latents {list(shape)} in {str(dtype)[6:]}")
        for together in blocks(len(todo), world.size):
            world.wait()  # no host runs hours ahead of a slower one
            for k in todo[together][world.rank : world.rank + 1]:
                tensors = _shard(images[parts[k]], autoencoder, shape, dtype, flips, batch_size)
                if labels is not None:
                    tensors["labels"] = torch.from_numpy(np.array(labels[parts[k]]))
                write_tensors(place / names[k], tensors)
                count = len(tensors["latents"])
                entry = {"name": names[k], "count": count, "sha256": digest(place / names[k])}
                write_json((place / names[k]).with_suffix(".json"), entry | {"stamp": _stamp(place / names[k])})
                report(count)
        world.wait()
        if world.main and not finished:
            _normalize(place, names)
            manifest = {
                "count": len(images),
                "per_shard": per_shard,
                "shape": list(shape),
                "dtype": str(dtype)[6:],
                "flips": flips,
                "labels": labels is not None,
                "source": source,
                "autoencoder": autoencoder.sha256,
                "shards": [_noted(place, name) for name in names],
            }
            write_json(place / "manifest.json", manifest)
        world.wait()
    return read_json(place / "manifest.json")


def _stamp(path: Path) -> list[int]:
    """Size and mtime: a file in which neither has changed is not read again to verify it."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _noted(place: Path, name: str) -> dict:
    """What was written down of a shard, after it: ``name``, ``count``, ``sha256``."""
    entry = read_json((place / name).with_suffix(".json"), name=str, count=int, sha256=str)
    return {key: entry[key] for key in ("name", "count", "sha256")}


def _whole(place: Path, entry: dict) -> bool:
    """Whether a shard is as it was written, of which there is a ``name`` and a ``sha256``; if so, that is noted."""
    path = place / entry["name"]
    noted, stamp = path.with_suffix(".json"), _stamp(path)
    if noted.exists() and read_json(noted).get("stamp") == stamp:
        return path.is_file()
    whole = path.is_file() and digest(path) == entry.get("sha256")
    if whole:
        with contextlib.suppress(InputError):  # to read latents, one need not have the right to write
            write_json(noted, entry | {"stamp": stamp})
    return whole


def _kept(place: Path, name: str) -> bool:
    """Whether a shard that an earlier process wrote is here, whole; a damaged one is set aside."""
    noted = (place / name).with_suffix(".json")
    if not noted.exists():
        return False
    ours = True
    try:
        whole, why = _whole(place, _noted(place, name)), f"{place / name} is not as it was written"
    except InputError as error:
        if of_machine(error.__cause__):
            raise
        whole, why, ours = False, str(error), SHARD <= header(place / name).keys()
    if not whole:
        set_aside(place / name, why, ours)
        noted.unlink(missing_ok=True)
    return whole


def _check_room(place: Path, names: list[str], needed: int, what: str) -> None:
    """Print how much will be written; raise InputError if the disk is too small."""
    left = max(0, needed - sum((place / name).stat().st_size for name in names if (place / name).exists()))
    free = shutil.disk_usage(place).free
    print(
        f"encode: {what} need {amount(needed)} in {place}, of which {amount(left)} are still to be written; "
        f"{amount(free)} are free",
        file=sys.stderr,
    )
    if left > free:
        raise InputError(
            f"{place} has {amount(free)} free, {amount(left)} are needed: set SAGD_SCRATCH to another disk, "
            "or encode during training"
        )


def _shard(
    images: np.ndarray, autoencoder: Autoencoder, shape: tuple, dtype: torch.dtype, flips: bool, batch_size: int
) -> dict[str, Tensor]:
    """Latents of a shard, and the moments of what is stored."""
    views = {"latents": torch.empty((len(images), *shape), dtype=dtype, device="cpu")}
    if flips:
        views["flipped"] = torch.empty_like(views["latents"])
    with torch.inference_mode():
        for rows in blocks(len(images), batch_size):
            x = from_uint8(images[rows], autoencoder.device)
            for view, z in views.items():
                z[rows] = autoencoder.encode(x.flip(-1) if view == "flipped" else x).to(dtype).cpu()
    if not all(torch.isfinite(z).all() for z in views.values()):
        raise InputError(f"the autoencoder gives latents that are not finite in {dtype}; try dtype bfloat16")
    count = sum(len(z) for z in views.values())
    # One latent at a time: float64 of a shard is four times its size.
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    mean = sum((z.double() for view in views.values() for z in view), zero) / count
    squares = sum(((z.double() - mean).square() for view in views.values() for z in view), zero)
    return views | {"mean": mean, "squares": squares}


def _normalize(place: Path, names: list[str]) -> None:
    """Mean and variance of every element over the shards, in their order, so that they depend on nothing else."""
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    count, mean, squares = 0, zero, zero
    for name in names:
        shard = open_tensors(place / name)
        n = len(shard["latents"]) * (1 + ("flipped" in shard))
        count, mean, squares = combine((count, mean, squares), (n, shard["mean"], shard["squares"]))
    write_tensors(place / "normalization.safetensors", {"mean": mean, "variance": squares / count})


def statistics(place: Path) -> dict[str, Tensor]:
    """Moments of normalised latents, ``mean`` (0) and ``power``, as `sagd.spaces.moments.statistics` gives of images.

    The power at each frequency of the unitary DFT is estimated from 4,096 latents, evenly spread.
    """
    latents = Latents(place)
    few = _spread(len(latents), PROBED)
    power = torch.zeros(latents.shape, dtype=torch.float64, device="cpu")
    for rows in few.split(64):
        power += torch.fft.fft2(latents.to_x0(latents.read(rows)).double(), norm="ortho").abs().square().sum(0)
    return {"mean": torch.zeros_like(power), "power": power / len(few)}


def probe(
    images: np.ndarray,
    autoencoder: Autoencoder,
    batch_size: int = 64,
    count: int = PROBED,
    corruption: Corruption | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Normalisation and moments of latents that are not stored, from ``count`` images, evenly spread.

    Parameters
    ----------
    images
        (N, C, H, W), uint8.
    corruption
        What is done to the images before they are encoded, in training and here.

    Returns
    -------
    dict, dict
        ``mean`` and ``variance`` of each element; and ``mean`` (0) and ``power`` of the normalised latents.
    """
    autoencoder.shape(images.shape[1:])  # or is refused

    def pixels(rows: Tensor) -> Tensor:
        if corruption is None:
            return from_uint8(images[rows.numpy()], autoencoder.device)
        # Each image has noise of its own, whatever the batch; drawn on the CPU, the same on every device.
        noisy = [corruption(from_uint8(images[k : k + 1]), generator(0, "probe", k)) for k in rows.tolist()]
        return torch.cat(noisy).to(autoencoder.device)

    batches = []
    with torch.inference_mode():
        for rows in _spread(len(images), count).split(batch_size):
            batches.append(autoencoder.encode(pixels(rows)).float().cpu())
    z, zero = torch.cat(batches), torch.zeros((), dtype=torch.float64, device="cpu")
    mean = sum((x.double() for x in z), zero) / len(z)
    variance = sum(((x.double() - mean).square() for x in z), zero) / len(z)
    normal = ((x.double() - mean) / (variance + EPSILON).sqrt() for x in z)
    power = sum((torch.fft.fft2(x, norm="ortho").abs().square() for x in normal), zero)
    return {"mean": mean, "variance": variance}, {"mean": torch.zeros_like(mean), "power": power / len(z)}


def _spread(n: int, count: int) -> Tensor:
    """``count`` indices below n, or all."""
    count = min(count, n)
    return torch.arange(count, device="cpu") * n // count


def encoder(autoencoder: Autoencoder, folder: Path) -> Callable[[Tensor], Tensor]:
    """From images in [-1, 1] to normalised latents, by the normalisation in a folder."""
    mean, std = (t.to(autoencoder.device) for t in normalization(folder))
    return lambda x: (autoencoder.encode(x).float() - mean) / std


def decoder(autoencoder: Autoencoder, folder: Path) -> Callable[[Tensor], Tensor]:
    """From normalised latents to images in [-1, 1], by the normalisation in a folder."""
    mean, std = (t.to(autoencoder.device) for t in normalization(folder))
    return lambda z: autoencoder.decode(z * std + mean)
