"""Flow matching on the straight path from data to shaped noise (Lipman et al., arXiv 2210.02747), as RAE trains.

x_t = (1 - t) x0 + t eps_w, with t = 1 the noise. Shaped noise enters at two places, as an argument of each: the eps of
the loss, and the start of the sampler. A network is any callable ``predict(xt, t) -> v`` with t of shape (B,); it is
given 1000 t, the range that diffusers' time embeddings are made for.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sagd.errors import InputError, check_alike, check_number, check_whole, one_of, shortened
from sagd.formulations.base import (
    EMBEDDED,
    MOST,
    Continuous,
    Family,
    Predict,
    Sampler,
    White,
    check_batch,
    check_example,
    check_start,
    integrate,
    like,
    predicted,
    settings_of,
    trained_on,
)
from sagd.noise.base import Noise, check_spectrum
from sagd.noise.randomness import place
from sagd.noise.spectrum import Spectrum

Times = Literal["uniform", "logit_normal"]


def dimension_shift(shape: tuple[int, ...], base: int = 4096) -> float:
    """sqrt(dimensions / base): by how much noisier times must be for data of a shape (C, H, W) (SD3, arXiv 2403.03206).

    Neighbouring elements tell of each other, so that the same t hides less of larger data; RAE's 768 x 16 x 16 latents
    have 6.93, and data smaller than the base less than 1.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InputError(f"shape is {shortened(repr(shape), 60)}; it must be (C, H, W)")
    for side in shape:
        check_whole("an entry of shape", side, 1)
    check_number("base", base, above=0)
    return math.sqrt(math.prod(shape) / base)


@dataclass(frozen=True)
class Flow(Continuous):
    """The path, and which of its times are trained and visited.

    Parameters
    ----------
    times
        How t is drawn in training before it is shifted: ``uniform``, or ``logit_normal`` (0, 1).
    shift
        s > 0 in t <- s t / (1 + (s - 1) t), in training and in sampling: above 1 times are noisier, below 1 less noisy.
        See `dimension_shift`.
    """

    times: Times = "uniform"
    shift: float = 1.0

    def __post_init__(self) -> None:
        one_of("times", self.times, get_args(Times))
        check_number("shift", self.shift, above=0)

    def shifted(self, t: Tensor) -> Tensor:
        """s t / (1 + (s - 1) t), which keeps 0 and 1."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""
        return settings_of("flow", asdict(self))

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Times of n training examples, (n,), float32, in [0, 1]."""
        check_whole("n", n, 1)
        draw = torch.rand if self.times == "uniform" else torch.randn
        t = draw(n, generator=generator, device=place(generator, device), dtype=torch.float32).to(device)
        return self.shifted(t if self.times == "uniform" else t.sigmoid())

    def _like(self, t: Tensor | float, x: Tensor, **bounds: Any) -> Tensor:
        """Times in [0, 1], shaped to multiply x (B, ...): what `shifted` rounds may be a little more than 1."""
        return like(t, x, least=0, **{"most": 1 + 1e-6 + 1e-6 / self.shift} | bounds)

    def interpolate(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = (1 - t) x0 + t eps_w; x0 and eps (B, ...), alike, or one for all; t (B,), or one number, in [0, 1]."""
        check_batch("x0", x0)
        check_alike("eps", eps, "x0", x0)
        t = self._like(t, x0 if len(x0) >= len(eps) else x0.expand_as(eps))
        return (1 - t) * x0 + t * eps

    def loss(
        self, predict: Predict, noise: Noise, x0: Tensor, t: Tensor, eps: Tensor, *, project: bool = True
    ) -> Tensor:
        """|| (eps_w - x0) - v_theta(x_t, t) ||^2, mean over everything, on the support of the noise (`trained_on`).

        x0 and eps (B, ...), floating-point and alike, eps drawn by ``noise.sample``; t (B,), in [0, 1], which on an
        accelerator is not looked at.
        """
        check_example(x0, t, eps)
        x0 = trained_on(noise, x0, project)
        now = self._like(t, x0)
        return (predicted(predict, (1 - now) * x0 + now * eps, EMBEDDED * t) - (eps - x0)).square().mean()

    def x0_and_eps(self, xt: Tensor, t: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """What a velocity says of the data and of the noise: x_t - t v, and x_t + (1 - t) v."""
        check_alike("velocity", velocity, "xt", xt)
        t = self._like(t, xt)
        return xt - t * velocity, xt + (1 - t) * velocity

    def score_from_velocity(self, spectrum: Spectrum, xt: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """score = -(1 / t) Sigma_w^+ eps (eq. 9, sigma_t = t > 0); the projected score where the support is partial."""
        check_spectrum(spectrum)
        _, eps = self.x0_and_eps(xt, t, velocity)
        return -spectrum.inverse(eps) / self._like(t, xt, above=0)

    def velocity_from_score(self, spectrum: Spectrum, xt: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """v = (eps - x_t) / (1 - t) with eps = -t Sigma_w score: the inverse on the support, for t < 1."""
        check_spectrum(spectrum)
        check_alike("score", score, "xt", xt)
        t = self._like(t, xt, below=1)
        return (-t * spectrum.covariance(score) - spectrum.project(xt)) / (1 - t)

    def grid(self, steps: int) -> Tensor:
        """The times that a sampler visits, (steps + 1,), float64, from 1 to 0, evenly spaced and then shifted."""
        check_whole("steps", steps, 1, MOST)
        return self.shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu"))

    def sample(
        self,
        predict: Predict,
        noise: Noise,
        x: Tensor,
        sampler: Sampler = Sampler("euler"),  # noqa: B008
        *,
        white: White | None = None,
        gradients: bool = False,
    ) -> Tensor:
        """Follow dx/dt = v from t = 1 down to data.

        Parameters
        ----------
        x
            (B, ...), the start: shaped noise, `Spectrum.sample`.
        sampler
            ``euler``, or ``heun``, of second order, with two predictions a step but for the last. RAE's Euler on 50
            grid points takes 49 steps.
        white
            Not needed: no step draws noise.
        gradients
            Whether to keep the graph of all steps.
        """
        self.check(noise, sampler)
        check_start(x, gradients)

        def velocity(x: Tensor, t: float) -> Tensor:
            times = torch.full((len(x),), EMBEDDED * t, device=x.device, dtype=torch.float32)
            return noise.project(predicted(predict, x, times))

        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            return integrate(velocity, x, self.visited(sampler.steps), sampler.name)


def _flow(
    prediction: str,
    shape: tuple[int, ...],
    *,
    times: Times = Flow.times,
    shift: float | Literal["auto"] = Flow.shift,
) -> Flow:
    return Flow(times, dimension_shift(shape) if shift == "auto" else shift)


flow = {"flow": Family(("velocity",), _flow)}
