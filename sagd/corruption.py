"""Noise in one band of the training images (section 3.3), and its plain remedy: to filter the band out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sagd.spectrum import Spectrum


@dataclass(frozen=True)
class Corruption:
    """What is done to training images.

    Parameters
    ----------
    spectrum
        Of the noise eps_c that is added: a band (`sagd.band_pass`).
    gamma
        Its weight: x0 becomes x0 + gamma eps_c.
    filtered
        The band is taken out again, with all that the images have in it: what the networks are trained on has
        nothing there, so the noise need not be drawn.
    """

    spectrum: Spectrum
    gamma: float = 1.0
    filtered: bool = False

    def __call__(
        self, x0: Tensor, generator: torch.Generator, rows: slice | None = None, count: int | None = None
    ) -> Tensor:
        """Images (B, ..., H, W) in [-1, 1], with fresh noise, or without the band.

        Where x0 are but some ``rows`` of a batch of ``count`` images, their noise is what it would be in the batch.
        """
        if self.filtered:
            return self.remove(x0)
        shape = (len(x0) if count is None else count, *x0.shape[1:])
        return x0 + self.gamma * self.spectrum.sample(shape, generator=generator, rows=rows)

    def remove(self, x: Tensor) -> Tensor:
        """Images (..., H, W) with nothing in the band."""
        return x - self.spectrum.project(x)

    def moments(self, mean: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Mean image and power (C, H, W) of `sagd.moments.statistics`, as the corruption makes them."""
        if self.filtered:
            return self.remove(mean), power * ~self.spectrum.support
        return mean, power + (self.gamma * self.spectrum.weight) ** 2

    def to_dict(self) -> dict:
        filtered = {"filtered": True} if self.filtered else {}
        return {"spectrum": self.spectrum.to_dict(), "gamma": self.gamma, **filtered}

    @staticmethod
    def from_dict(description: dict) -> "Corruption | None":
        """The inverse of `to_dict`; None where there is no spectrum."""
        if description["spectrum"] is None:
            return None
        return Corruption(
            Spectrum.from_dict(description["spectrum"]), description["gamma"], description.get("filtered", False)
        )
