"""The moments of a data set that its noise and its sampling need."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError, check_same, check_uint8, whole
from sagd.noise.devices import double
from sagd.noise.grid import check_moments
from sagd.runtime.files import read_tensors


class ImageSet(Protocol):
    """What can be read a few images at a time: an array, `sagd.images.Images`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def statistics(
    images: ImageSet, block: int | None = None, each: Callable[[Tensor], None] = lambda transforms: None
) -> dict[str, Tensor]:
    """First and second moments of a data set of any size, in [-1, 1] units, float64, streamed.

    Parameters
    ----------
    images
        (N, C, H, W), uint8.
    block
        Images at a time; None: 1024, or as many as make a million numbers.
    each
        Shown the unitary DFT of every block less the mean image, (n, C, H, W), complex, in order.

    Returns
    -------
    dict
        ``mean`` (C, H, W), the mean image; ``power`` (C, H, W), the variance at each frequency of the unitary DFT.

    Raises
    ------
    InputError
        No images, or images that are not uint8.
    """
    if not len(images):
        raise InputError("there are no images")
    if block is None:
        check_uint8("images", first := images[:1])
        block = max(1, min(1024, 2**20 // math.prod(first.shape[1:])))
    size = whole("block", block, 1)
    blocks = range(0, len(images), size)

    def pixels(start: int) -> Tensor:
        found = images[start : start + size]
        check_uint8("images", found)
        return torch.from_numpy(np.array(found)).double() / 127.5 - 1

    def squares(start: int, mean: Tensor) -> Tensor:
        transforms = torch.fft.fft2(pixels(start) - mean, norm="ortho")
        each(transforms)
        return transforms.abs().square().sum(0)

    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    mean = sum((pixels(start).sum(0) for start in blocks), zero) / len(images)
    power = sum((squares(start, mean) for start in blocks), zero)
    return {"mean": mean, "power": power / len(images)}


def read(path: Path | str) -> dict[str, Tensor]:
    """The ``mean`` and ``power`` of `statistics`, from a safetensors file.

    Raises
    ------
    InputError
        They are not there, or not (C, H, W) in float64.
    """
    found = read_tensors(path)
    mean, power = found["mean"], found["power"]
    if mean.ndim != 3 or mean.shape != power.shape or {mean.dtype, power.dtype} != {torch.float64}:
        raise InputError(
            f"{path} has mean {tuple(mean.shape)} and power {tuple(power.shape)}; both must be (C, H, W), in float64"
        )
    return found


def combine(a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]) -> tuple[int, Tensor, Tensor]:
    """Count, mean and sum of squared deviations of two sets together (Chan, Golub and LeVeque 1983)."""
    (n, mean, squares), (m, other_mean, other_squares) = a, b
    shift = other_mean - mean
    return n + m, mean + shift * (m / (n + m)), squares + other_squares + shift**2 * (n * m / (n + m))


def field_distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    """The squared 2-Wasserstein distance of the Gaussian fields with the moments of two data sets.

    It is the Fréchet distance of their pixels, if these are taken to be Gaussian and stationary.

    Parameters
    ----------
    a, b
        ``mean`` and ``power`` (C, *size), of `statistics`.

    Returns
    -------
    dict
        ``mean``: of the mean images; ``dc``: of the deviations of an image's mean; ``rest``: of the deviations at all
        other frequencies. Their sum is the distance; of pixels in [-1, 1], summed over all of them.
    """
    for each in (a, b):
        check_moments(each["mean"], each["power"], each["mean"].ndim - 1)
    check_same("the other's mean", b["mean"], "mean", a["mean"])
    (mean, power), (mean_b, power_b) = ([double(each[k]).cpu() for k in ("mean", "power")] for each in (a, b))
    deviations = (power.sqrt() - power_b.sqrt()).square()
    zero_frequency: tuple[slice | int, ...] = (slice(None), *[0] * (deviations.ndim - 1))
    dc = deviations[zero_frequency].sum()
    return {"mean": (mean - mean_b).square().sum().item(), "dc": dc.item(), "rest": (deviations.sum() - dc).item()}
