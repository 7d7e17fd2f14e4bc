"""What training takes its batches from: images or latents, in memory or on the disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.files import open_tensors, read_json, read_tensors

EPSILON = 1e-5  # added to the variance of latents, as RAE does


class Pixels:
    """Images in [-1, 1].

    Parameters
    ----------
    images
        (N, C, H, W), uint8: a tensor, on the device that is trained on, or an array that stays on the disk.
    labels
        (N,), int64, where there are any.
    """

    def __init__(
        self, images: Tensor | np.ndarray, labels: np.ndarray | None = None, device: torch.device | str = "cpu"
    ):
        self._images, self.labels = images, None if labels is None else torch.from_numpy(np.array(labels))
        self.in_memory = isinstance(images, Tensor)
        self.device = images.device if self.in_memory else torch.device(device)
        self.shape = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Tensor, flip: Tensor | None = None) -> Tensor:
        """Images by their indices, as they are stored, those of ``flip`` (bool) mirrored; callable from any thread."""
        if self.in_memory:
            found = self._images[indices.to(self.device)]
        else:
            found = torch.from_numpy(self._images[indices.numpy()])
        return found if flip is None else torch.where(_each(flip, found), found.flip(-1), found)

    def to_x0(self, stored: Tensor) -> Tensor:
        """What `read` gives as float32 in [-1, 1], on the device."""
        return stored.to(self.device, non_blocking=True).float() / 127.5 - 1

    def encode(self, x0: Tensor) -> Tensor:
        """What is trained on, of images that may have been corrupted: themselves."""
        return x0


class Encoded(Pixels):
    """Images that are encoded as they are needed: nothing is stored.

    Parameters
    ----------
    encode
        Takes images (B, C, H, W) in [-1, 1] and gives latents, normalised.
    shape
        (C, H, W) of a latent.
    """

    def __init__(self, pixels: Pixels, encode: Callable[[Tensor], Tensor], shape: tuple[int, ...]):
        super().__init__(pixels._images, None, pixels.device)
        self.labels, self._encode, self.shape = pixels.labels, encode, shape

    def encode(self, x0: Tensor) -> Tensor:
        with torch.no_grad():
            return self._encode(x0)


class Latents:
    """Latents from the shards that `sagd.latents.encode` wrote, normalised; memory does not grow with their number.

    Parameters
    ----------
    folder
        With manifest.json, the shards and normalization.safetensors.
    """

    in_memory = False

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        manifest = read_json(folder / "manifest.json")
        self._shards = [open_tensors(folder / shard["name"]) for shard in manifest["shards"]]
        self._per_shard, self._count = manifest["per_shard"], manifest["count"]
        self.shape, self.device = tuple(manifest["shape"]), torch.device(device)
        self._flips = manifest["flips"]
        self.labels = torch.cat([s["labels"] for s in self._shards]) if manifest["labels"] else None
        self._mean, self._std = (t.to(self.device) for t in normalization(folder))

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Tensor, flip: Tensor | None = None) -> Tensor:
        """Latents by the indices of their images, as they are stored; of mirrored images where ``flip`` (bool) is."""
        if flip is not None and not self._flips:
            raise InputError("train.flip needs the latents of mirrored images: encode.flips")
        shard, row = indices // self._per_shard, indices % self._per_shard
        view = torch.zeros_like(indices) if flip is None else flip.long()
        found = torch.empty((len(indices), *self.shape), dtype=self._shards[0]["latents"].dtype)
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


def _each(flags: Tensor, like: Tensor) -> Tensor:
    return flags.to(like.device).reshape(-1, *[1] * (like.ndim - 1))
