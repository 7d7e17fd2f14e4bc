"""Noise in one band of the training images (section 3.3), and its plain remedy: to filter the band out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sagd.errors import InputError, check_flag, check_floating, check_number
from sagd.noise.base import Noise, check_spectrum
from sagd.noise.devices import double
from sagd.noise.grid import check_moments
from sagd.noise.randomness import check_rows
from sagd.noise.spectrum import Spectrum
from sagd.runtime.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Corruption:
    """What is done to training images.

    Parameters
    ----------
    spectrum
        Of the noise eps_c that is added: a band (`sagd.band_pass`).
    gamma
        Its weight, 0 or more: x0 becomes x0 + gamma eps_c.
    filtered
        The band is taken out again, with all that the images have in it: what the networks are trained on has
        nothing there, so the noise need not be drawn.
    """

    spectrum: Spectrum
    gamma: float = 1.0
    filtered: bool = False

    def __post_init__(self) -> None:
        check_spectrum(self.spectrum)
        check_number("gamma", self.gamma, least=0)
        check_flag("filtered", self.filtered)

    def __call__(
        self, x0: Tensor, generator: torch.Generator, rows: slice | None = None, count: int | None = None
    ) -> Tensor:
        """Images (B, ..., H, W), floating-point, in [-1, 1], with fresh noise, or without the band.

        Where x0 is only some ``rows`` of a batch of ``count`` images, their noise is the same as in the whole batch.
        """
        check_floating("x0", x0)
        if self.filtered:
            return self.remove(x0)
        self.spectrum._check_size(x0.shape)
        count = len(x0) if count is None else count
        check_rows(rows, count)
        if len(range(count)[rows or slice(None)]) != len(x0):
            raise InputError(f"x0 has {len(x0)} images, and rows is {rows}, of {count}; they must be as many")
        drawn = self.spectrum.sample((count, *x0.shape[1:]), generator=generator, rows=rows, device=x0.device)
        return (x0 + self.gamma * drawn).to(x0)

    def remove(self, x: Tensor) -> Tensor:
        """Images (..., H, W) with nothing in the band."""
        return x - self.spectrum.project(x)

    def reached_by(self, noise: Noise) -> int:
        """How many frequencies of the band the noise reaches; all of them if it lies on another grid (latents).

        0: the noise leaves the band out, so nothing of it is learnt. A number between 0 and that of the band is a
        leak: the noise leaves out a part of the band only.
        """
        band = self.spectrum.support
        return int((band & noise.support).sum() if noise.size == self.spectrum.size else band.sum())

    def moments(self, mean: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Mean image and power (C, H, W) of `sagd.spaces.moments.statistics`, as the corruption makes them."""
        check_moments(mean, power, len(self.spectrum.size))
        self.spectrum._check_size(power.shape)
        if self.filtered:
            return self.remove(mean), power * ~self.spectrum.support.to(power.device)
        exact = double(power)
        return mean, exact + ((self.gamma * self.spectrum.weight) ** 2).to(exact.device)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors from which `load` restores the corruption."""
        gamma = torch.tensor(self.gamma, dtype=torch.float64, device="cpu")
        filtered = torch.tensor(self.filtered, device="cpu")
        return {**self.spectrum.tensors(), "gamma": gamma, "filtered": filtered}


def save(path: Path | str, corruption: Corruption | None) -> None:
    """Write a corruption to a safetensors file; None gives a file without tensors."""
    write_tensors(path, {} if corruption is None else corruption.tensors())


def load(path: Path | str) -> Corruption | None:
    """Read a corruption back, equal to the last bit; None if there is none."""
    tensors = read_tensors(path)
    if not tensors:
        return None
    if {"weight", "per_sample", "gamma", "filtered"} != set(tensors):
        raise InputError(f"{path} holds no corruption; it has the tensors {', '.join(sorted(tensors))}")
    if any(tensors[name].dtype != torch.float64 for name in ("weight", "gamma")) or tensors["gamma"].numel() != 1:
        raise InputError(f"{path} holds no corruption: its weight and its gamma, a number, are kept in float64")
    spectrum = Spectrum(tensors["weight"], bool(tensors["per_sample"]))
    return Corruption(spectrum, tensors["gamma"].item(), bool(tensors["filtered"]))
