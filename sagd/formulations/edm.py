"""EDM's noising and preconditioning (Karras et al., arXiv 2206.00364) with shaped noise: x = x0 + sigma T_w xi.

sigma scales T_w and nothing else changes: with Sigma_w score = (D - x) / sigma^2 (eq. 28, 29) the probability-flow ODE
is dx/dsigma = -sigma Sigma_w score = (x - D) / sigma, whatever the weight. The preconditioning keeps inputs and targets
of unit variance over the pixels, for noise that is normalised (``expected``). A network is any callable
``predict(x, t) -> F`` with t of shape (B,); it is given 1000 c_noise.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from sagd.errors import InputError, check_alike, check_number, check_whole
from sagd.formulations.base import (
    EMBEDDED,
    MOST,
    Continuous,
    Family,
    Predict,
    Sampler,
    White,
    builder,
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


@dataclass(frozen=True)
class EDM(Continuous):
    """Noise levels, and the preconditioning that follows from the data's deviation; defaults are Karras et al.'s.

    Parameters
    ----------
    sigma_data
        Standard deviation of the data, about 0.5 for images in [-1, 1], 1 for normalised latents.
    log_mean, log_std
        Of ln sigma in training, which is normal.
    sigma_min, sigma_max, rho
        Of the sampler's levels.
    """

    sigma_data: float = 0.5
    log_mean: float = -1.2
    log_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_number("log_mean", self.log_mean)
        for name in ("sigma_data", "log_std", "sigma_min", "sigma_max", "rho"):
            check_number(name, getattr(self, name), above=0)
        if not self.sigma_min < self.sigma_max:
            raise InputError(f"{self}: sigma_min < sigma_max must hold")

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""
        return settings_of("edm", asdict(self))

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Noise levels sigma of n training examples, (n,), float32."""
        check_whole("n", n, 1)
        white = torch.randn(n, generator=generator, device=place(generator, device), dtype=torch.float32).to(device)
        return (self.log_mean + self.log_std * white).exp()

    def denoise(self, predict: Predict, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), an estimate of E[x0 | x].

        x (B, ...); sigma (B,), or one number, > 0. The network is given its times as (B,).
        """
        return self._denoised(predict, x, sigma, _like(sigma, x))

    def _denoised(self, predict: Predict, x: Tensor, sigma: Tensor | float, s: Tensor) -> Tensor:
        """D, with sigma also shaped to multiply x: ``s``."""
        data = self.sigma_data
        total = s.square() + data**2
        c_skip, c_out, c_in = data**2 / total, s * data / total.sqrt(), total.rsqrt()
        kept = sigma.dtype if isinstance(sigma, Tensor) else torch.float32
        noise = EMBEDDED / 4 * torch.as_tensor(sigma, device=x.device, dtype=kept).log().reshape(-1).expand(len(x))
        return c_skip * x + c_out * predicted(predict, c_in * x, noise)

    def loss(
        self, predict: Predict, noise: Noise, x0: Tensor, t: Tensor, eps: Tensor, *, project: bool = True
    ) -> Tensor:
        """lambda(sigma) || D(x0 + sigma eps_w; sigma) - x0 ||^2, mean over everything, with lambda = 1 / c_out^2.

        Parameters
        ----------
        noise
            What eps is drawn from; x0 is taken on its support.
        x0, eps
            (B, ...), floating-point and alike; eps is drawn by ``noise.sample``.
        t
            (B,), the noise levels sigma, above 0; on an accelerator they are not looked at.
        project
            See `trained_on`.
        """
        check_example(x0, t, eps)
        x0 = trained_on(noise, x0, project)
        sigma, data = _like(t, x0), self.sigma_data
        weight = (sigma.square() + data**2) / (sigma * data).square()
        return (weight * (self._denoised(predict, x0 + sigma * eps, t, sigma) - x0).square()).mean()

    def score_from_denoised(self, spectrum: Spectrum, x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
        """score = Sigma_w^+ (D - x) / sigma^2 (eq. 28); the projected score where the support is partial."""
        check_spectrum(spectrum)
        check_alike("denoised", denoised, "x", x)
        return spectrum.inverse(denoised - x) / _like(sigma, x).square()

    def denoised_from_score(self, spectrum: Spectrum, x: Tensor, sigma: Tensor, score: Tensor) -> Tensor:
        """D = x + sigma^2 Sigma_w score (eq. 28)."""
        check_spectrum(spectrum)
        check_alike("score", score, "x", x)
        return x + _like(sigma, x).square() * spectrum.covariance(score)

    def grid(self, steps: int) -> Tensor:
        """The levels that a sampler visits, (steps + 1,), float64, from sigma_max to sigma_min and then 0 (eq. 5)."""
        check_whole("steps", steps, 2, MOST)
        ends = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64, device="cpu") ** (1 / self.rho)
        shares = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
        levels = torch.lerp(ends[0], ends[1], shares) ** self.rho
        return torch.cat([levels, levels.new_zeros(1)])

    def sample(
        self,
        predict: Predict,
        noise: Noise,
        x: Tensor,
        sampler: Sampler = Sampler("heun", 18),  # noqa: B008
        *,
        white: White | None = None,
        gradients: bool = False,
    ) -> Tensor:
        """Follow dx/dsigma = (x - D) / sigma from sigma_max down to data (algorithm 1, without churn).

        Parameters
        ----------
        x
            (B, ...), the start, of unit variance: shaped noise, `Spectrum.sample`; sigma_max scales it here.
        sampler
            ``heun``, of second order, with two predictions a step but for the last; or ``euler``.
        white
            Not needed: no step draws noise.
        gradients
            Whether to keep the graph of all steps.
        """
        self.check(noise, sampler)
        check_start(x, gradients)
        levels = self.visited(sampler.steps)

        def slope(x: Tensor, sigma: float) -> Tensor:
            denoised = self.denoise(predict, x, torch.full((len(x),), sigma, device=x.device, dtype=torch.float32))
            return noise.project((x - denoised) / sigma)

        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            # What float32 rounds at sigma_max is large beside the data: a band that is left out is emptied again.
            return noise.project(integrate(slope, levels[0] * x, levels, sampler.name))


def _like(sigma: Tensor | float, x: Tensor) -> Tensor:
    return like(sigma, x, "sigma", above=0)


edm = {"edm": Family(("x0",), builder(EDM))}
