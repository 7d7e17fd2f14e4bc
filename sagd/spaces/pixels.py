"""Images to train on, in memory or on the disk, or encoded as they are needed."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError, check_floating, check_uint8
from sagd.noise.corruption import Corruption


def to_uint8(x: Tensor) -> Tensor:
    """Pixels of [-1, 1], floating-point, to uint8, rounded and clipped."""
    check_floating("x", x)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Images (N, C, H, W) in uint8 as float32 in [-1, 1], copied to a device; others are refused."""
    check_uint8("images", images)
    return torch.from_numpy(np.array(images)).to(device).float() / 127.5 - 1


def corrupted(images: np.ndarray, corruption: Corruption | None, generator: torch.Generator) -> np.ndarray:
    """Images (N, C, H, W), uint8, with one draw of the noise, as a network may see them; clipped and rounded."""
    check_uint8("images", images)
    if corruption is None:
        return images
    return to_uint8(corruption(from_uint8(images), generator)).numpy()


class Pixels:
    """Images in [-1, 1].

    Parameters
    ----------
    images
        (N, C, H, W), uint8: a tensor, on the device that is trained on, or an array that stays on the disk.
    labels
        (N,), whole numbers from 0, where there are any.

    Raises
    ------
    InputError
        Images that are not uint8, which would be scaled twice, or labels that are not one for each.
    """

    def __init__(
        self, images: Tensor | np.ndarray, labels: np.ndarray | None = None, device: torch.device | str = "cpu"
    ):
        check_uint8("images", images)
        if labels is not None and (np.shape(labels) != (len(images),) or np.asarray(labels).dtype.kind not in "iu"):
            said = f"{np.asarray(labels).dtype}, of shape {np.shape(labels)}"
            raise InputError(
                f"labels are {said}; for {len(images)} images they must be ({len(images)},), whole numbers"
            )
        # int64, as embeddings take no shorter ones
        self._images, self.labels = images, None if labels is None else torch.from_numpy(np.array(labels, np.int64))
        if self.labels is not None and len(self.labels) and self.labels.min() < 0:
            raise InputError(f"a label is {self.labels.min()}; labels are whole numbers from 0")
        self.in_memory = isinstance(images, Tensor)
        self.device = images.device if isinstance(images, Tensor) else torch.device(device)
        self.shape = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    @property
    def classes(self) -> int:
        """Number of labels, 0 if there are none."""
        return 0 if self.labels is None or not len(self.labels) else int(self.labels.max()) + 1

    def read(self, indices: Tensor, flip: Tensor | None = None) -> Tensor:
        """Images by their indices, as they are stored, those of ``flip`` (bool) mirrored; callable from any thread."""
        if self.in_memory:
            found = self._images[indices.to(self.device, non_blocking=True)]
        else:
            found = torch.from_numpy(self._images[indices.numpy()])
        return found if flip is None else torch.where(each(flip, found), found.flip(-1), found)

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


def each(flags: Tensor, like: Tensor) -> Tensor:
    return flags.to(like.device, non_blocking=True).reshape(-1, *[1] * (like.ndim - 1))
