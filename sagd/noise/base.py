"""What every noise does: `Spectrum` is the same at every step, `Varying` changes along the trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.grid import float64

if TYPE_CHECKING:
    from sagd.noise.grid import Size
    from sagd.noise.spectrum import Spectrum

Generators = torch.Generator | Sequence[torch.Generator] | None


class Noise(Protocol):
    """Gaussian noise that is diagonal in the Fourier basis, at every step of the diffusion."""

    @property
    def size(self) -> Size:
        """Of the grid: (H, W) for images."""
        ...

    @property
    def support(self) -> Tensor:
        """The grid, bool: the frequencies that the noise reaches."""
        ...

    @property
    def full(self) -> bool:
        """Whether the noise reaches every frequency."""
        ...

    @property
    def constant(self) -> bool:
        """Whether the noise is the same at every step."""
        ...

    @property
    def gaussian(self) -> bool:
        """Whether a draw is exactly Gaussian; not where each is divided by its own standard deviation."""
        ...

    @property
    def white(self) -> bool:
        """Whether it is N(0, I) at every step."""
        ...

    def at(self, t: int) -> Spectrum:
        """The spectrum of the noise in x_t."""
        ...

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: Generators,
        t: Tensor | int,
        rows: slice | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw the noise of x_t, of a shape (..., *size); see `Spectrum.sample`."""
        ...

    def shape(self, white: Tensor, t: int | None = None) -> Tensor:
        """Shape white noise (..., *size) into the noise of x_t."""
        ...

    def project(self, x: Tensor) -> Tensor:
        """Keep the frequencies of the support (..., *size)."""
        ...

    def transfer(self, eps: Tensor, t: int, t_prev: int) -> Tensor:
        """The noise in x_t as noise in x_{t_prev}."""
        ...

    def posterior(
        self, xt: Tensor, x0: Tensor, t: int, t_prev: int, alpha_bar: float, alpha_bar_prev: float, white: Tensor
    ) -> Tensor:
        """Draw x_{t_prev} from q(x_{t_prev} | x_t, x0) (eq. 31-33); ``white`` is N(0, I), of the shape of x_t."""
        ...

    def check_schedule(self, alpha_bar: Tensor | None) -> None:
        """Raise InputError if the noise was made for another schedule; None stands for continuous time."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The tensors from which `sagd.noise.stored.load` restores the noise."""
        ...

    def to_dict(self) -> dict:
        """A JSON-ready description, from which `sagd.operators.from_dict` restores the noise."""
        ...


def check_noise(noise: Noise, name: str = "the noise") -> None:
    """Refuse what is no noise, such as a bare weight, or the name of an operator."""
    if not hasattr(noise, "constant"):
        raise InputError(f"{name} is a {type(noise).__name__}; it must be a Spectrum, such as sagd.power_law gives")


def check_spectrum(noise: Noise, name: str = "spectrum") -> None:
    """Refuse what is no noise, and noise that varies with t, where one spectrum is needed."""
    check_noise(noise, name)
    if not noise.constant:
        raise InputError(f"{name} varies with t; give the spectrum of one step, its .at(t)")


def check_alpha_bar(values: Tensor) -> Tensor:
    """The alpha_bar of a discrete schedule as (T,), float64, on the CPU; InputError unless it falls, in [0, 1)."""
    kept = float64("alpha_bar", values).clone()  # the caller may write into theirs
    before = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), kept.flatten()])
    if kept.ndim != 1 or not len(kept) or not (before.diff() < 0).all() or not kept[-1] >= 0:
        raise InputError(
            f"alpha_bar must be (T,), falling, and in [0, 1); this one has shape {tuple(kept.shape)} and begins "
            f"{', '.join(f'{value:.3g}' for value in kept.flatten()[:3].tolist())}"
        )
    return kept
