"""Latents: what an autoencoder makes of images, written in shards once, or made as they are needed."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagd.distributed import World
from sagd.download import digest
from sagd.errors import InputError
from sagd.files import open_tensors, read_json, scratch, write_json, write_tensors
from sagd.moments import combine
from sagd.parallel import blocks
from sagd.sources import EPSILON, Latents, normalization

KINDS = ("rae", "vae")
# Latents whose moments stand for those of all, evenly spread: data sets lie in the order of their classes.
PROBED = 4096


class Autoencoder:
    """A pretrained autoencoder of diffusers: ``rae`` is `AutoencoderRAE`, ``vae`` is `AutoencoderKL`.

    Parameters
    ----------
    path
        A folder that `save_pretrained` wrote, or ``owner/name`` (with ``@revision`` if wanted) on the Hugging Face hub;
        ``random`` is a small one of random weights for images of ``size``, to see that all runs.
    """

    def __init__(self, kind: str, path: str, device: torch.device | str = "cpu", size: int | None = None):
        import diffusers

        folder = _random(kind, size) if path == "random" else _folder(path)
        network = {"rae": diffusers.AutoencoderRAE, "vae": diffusers.AutoencoderKL}[kind]
        try:
            found = network.load_config(folder, local_files_only=True).get("_class_name", network.__name__)
            if found != network.__name__:
                raise ValueError(f"its config.json is of {found}")
            self.network = network.from_pretrained(folder, use_safetensors=True, local_files_only=True).to(device)
        except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
            raise InputError(f"{folder} holds no {network.__name__}: {' '.join(str(error).split())[:300]}") from error
        self.network.eval().requires_grad_(False)
        self.kind, self.device = kind, torch.device(device)
        self.sha256 = hashlib.sha256(
            "".join(digest(f) for f in sorted(folder.glob("*.safetensors"))).encode()
        ).hexdigest()

    @classmethod
    def recorded(cls, manifest: dict, device: torch.device | str) -> "Autoencoder":
        """The one that a manifest of the stage `encode` names, if its weights are still the same."""
        found = cls(manifest["kind"], manifest["autoencoder"], device, manifest["size"])
        if found.sha256 != manifest["autoencoder_sha256"]:
            raise InputError(
                f"{manifest['autoencoder']} is not the autoencoder that encoded (SHA-256 {found.sha256[:16]}, not "
                f"{manifest['autoencoder_sha256'][:16]}): restore it, or run the stage encode again"
            )
        return found

    def shape(self, images: tuple[int, ...]) -> tuple[int, ...]:
        """(C, h, w) of the latent of an image of a shape (C, H, W), if that is what the latent is decoded to."""
        with torch.inference_mode():
            z = self.encode(torch.zeros(1, 3, *images[1:], device=self.device))
            decoded = tuple(self.decode(z).shape[1:])
        if decoded != tuple(images):
            raise InputError(
                f"the {self.kind} decodes latents to images of {decoded}, the data are {tuple(images)} (channels, "
                "height, width): dataset.channels and dataset.size must be the autoencoder's"
            )
        return tuple(z.shape[1:])

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]: the mode where the encoder is random."""
        if self.kind == "rae":
            return self.network.encode((x + 1) / 2).latent
        return self.network.encode(x).latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of latents."""
        x = self.network.decode(z).sample
        return 2 * x - 1 if self.kind == "rae" else x


def _random(kind: str, size: int) -> Path:
    """A small autoencoder of random weights, in the true file format, below the scratch folder."""
    import diffusers

    folder = scratch() / "random" / f"{kind}_{size}"
    if size < 8 or size % 4:
        raise InputError(
            f"encode.path is 'random', which is for sizes that 4 divides, of 8 and more; this one is {size}"
        )
    if not (folder / "config.json").exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if kind == "rae":  # 4 x 4 tokens of 64 channels; the encoder's heads have 64 each
                network = diffusers.AutoencoderRAE(
                    encoder_hidden_size=64, encoder_num_hidden_layers=1, encoder_input_size=56, patch_size=size // 4,
                    decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                    decoder_intermediate_size=64,
                )  # fmt: skip
            else:
                network = diffusers.AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                    block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=size,
                )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as beside:
            network.save_pretrained(beside, safe_serialization=True)
            with contextlib.suppress(OSError):  # another process has just put the same there
                os.rename(beside, folder)
    return folder


def _folder(path: str) -> Path:
    """A folder of weights: the user's own, or that of the hub in its cache."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = path.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"encode.path is {path}: no such folder, and the hub does not give it ({type(error).__name__}); name a "
            "folder that holds config.json and the safetensors file of the autoencoder"
        ) from error


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
    """Write the latents of a data set in shards; a process that was killed goes on at the shard that it was at.

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
        Called with the number of images that were there before, and of those of each shard that this process ends.

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
        finished = any(world.most(world.main and (place / "manifest.json").exists()))
        missing = world.most(*(world.main and not (place / name).with_suffix(".json").exists() for name in names))
        todo = [] if finished else [k for k, absent in enumerate(missing) if absent]
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
                entry = {"name": names[k], "count": len(tensors["latents"]), "sha256": digest(place / names[k])}
                write_json((place / names[k]).with_suffix(".json"), entry)
                report(entry["count"])
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
                "shards": [read_json((place / name).with_suffix(".json")) for name in names],
            }
            write_json(place / "manifest.json", manifest)
        world.wait()
    return read_json(place / "manifest.json")


def _check_room(place: Path, names: list[str], needed: int, what: str) -> None:
    """Say how much is to be written, and refuse it where the disk is too small."""
    left = max(0, needed - sum((place / name).stat().st_size for name in names if (place / name).exists()))
    free = shutil.disk_usage(place).free
    print(
        f"encode: {what} are {needed / 1e9:.1f} GB in {place}, of which {left / 1e9:.1f} GB are to come; "
        f"{free / 1e9:.1f} GB are free",
        file=sys.stderr,
    )
    if left > free:
        raise InputError(
            f"{place} has {free / 1e9:.1f} GB free, {left / 1e9:.1f} are needed: set SAGD_SCRATCH, or store nothing "
            "with encode.on_the_fly"
        )


def _x0(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(images)).to(device).float() / 127.5 - 1


def _shard(
    images: np.ndarray, autoencoder: Autoencoder, shape: tuple, dtype: torch.dtype, flips: bool, batch_size: int
) -> dict[str, Tensor]:
    """Latents of a shard, and the moments of what is stored."""
    views = {"latents": torch.empty((len(images), *shape), dtype=dtype)}
    if flips:
        views["flipped"] = torch.empty_like(views["latents"])
    with torch.inference_mode():
        for rows in blocks(len(images), batch_size):
            x = _x0(images[rows], autoencoder.device)
            for view, z in views.items():
                z[rows] = autoencoder.encode(x.flip(-1) if view == "flipped" else x).to(dtype).cpu()
    if not all(torch.isfinite(z).all() for z in views.values()):
        raise InputError(f"the autoencoder gives latents that are not finite in {dtype}; try encode.dtype=bfloat16")
    count = sum(len(z) for z in views.values())
    # One latent at a time: float64 of a shard is four times its size.
    mean = sum(z.double() for view in views.values() for z in view) / count
    squares = sum((z.double() - mean).square() for view in views.values() for z in view)
    return views | {"mean": mean, "squares": squares}


def _normalize(place: Path, names: list[str]) -> None:
    """Mean and variance of every element over the shards, in their order, so that they depend on nothing else."""
    count, mean, squares = 0, 0.0, 0.0
    for name in names:
        shard = open_tensors(place / name)
        n = len(shard["latents"]) * (1 + ("flipped" in shard))
        count, mean, squares = combine((count, mean, squares), (n, shard["mean"], shard["squares"]))
    write_tensors(place / "normalization.safetensors", {"mean": mean, "variance": squares / count})


def statistics(place: Path) -> dict[str, Tensor]:
    """Moments of normalised latents, as `sagd.moments.statistics` has those of images: ``mean`` 0, and ``power``.

    The power at each frequency of the unitary DFT is that of 4,096 latents, evenly spread.
    """
    latents = Latents(place)
    few = _spread(len(latents), PROBED)
    power = torch.zeros(latents.shape, dtype=torch.float64)
    for rows in few.split(64):
        power += torch.fft.fft2(latents.to_x0(latents.read(rows)).double(), norm="ortho").abs().square().sum(0)
    return {"mean": torch.zeros_like(power), "power": power / len(few)}


def probe(
    images: np.ndarray, autoencoder: Autoencoder, batch_size: int = 64, count: int = PROBED
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Normalisation and moments of latents that are not stored, from ``count`` images, evenly spread.

    Returns
    -------
    dict, dict
        ``mean`` and ``variance`` of each element; and ``mean`` (0) and ``power`` of the normalised latents.
    """
    autoencoder.shape(images.shape[1:])  # or is refused
    z = []
    with torch.inference_mode():
        for rows in _spread(len(images), count).split(batch_size):
            z.append(autoencoder.encode(_x0(images[rows.numpy()], autoencoder.device)).float().cpu())
    z = torch.cat(z)
    mean = sum(x.double() for x in z) / len(z)
    variance = sum((x.double() - mean).square() for x in z) / len(z)
    power = sum(
        torch.fft.fft2((x.double() - mean) / (variance + EPSILON).sqrt(), norm="ortho").abs().square() for x in z
    )
    return {"mean": mean, "variance": variance}, {"mean": torch.zeros_like(mean), "power": power / len(z)}


def _spread(n: int, count: int) -> Tensor:
    """``count`` indices below n, or all."""
    count = min(count, n)
    return torch.arange(count) * n // count


def encoder(autoencoder: Autoencoder, folder: Path) -> Callable[[Tensor], Tensor]:
    """From images in [-1, 1] to normalised latents, by the normalisation in a folder."""
    mean, std = (t.to(autoencoder.device) for t in normalization(folder))
    return lambda x: (autoencoder.encode(x).float() - mean) / std


def decoder(autoencoder: Autoencoder, folder: Path) -> Callable[[Tensor], Tensor]:
    """From normalised latents to images in [-1, 1], by the normalisation in a folder."""
    mean, std = (t.to(autoencoder.device) for t in normalization(folder))
    return lambda z: autoencoder.decode(z * std + mean)
