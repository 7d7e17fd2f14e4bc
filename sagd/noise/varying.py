"""Noise whose spectrum moves along the trajectory (eq. 36 of Scimeca et al., arXiv 2510.09660)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagd.errors import InputError, check_alike, check_same, check_times, whole
from sagd.noise.base import check_alpha_bar, check_noise
from sagd.noise.devices import Keeps, affordable
from sagd.noise.grid import Size
from sagd.noise.spectrum import Spectrum, check_draw


@dataclass(frozen=True, eq=False)
class Varying(Keeps):
    """Noise that enters with one weight at the first step and with another at the last; in between, geometric means.

    The step s adds noise of weight w_s = w_first^(1 - u) w_last^u, u = s / (T - 1), brought to the mean square 1. What
    has gathered in x_t is Gaussian with the covariance sigma_t^2 Sigma_{W_t},

        sigma_t^2 W_t^2 = sum_{s <= t} beta_s (prod_{k=s+1..t} alpha_k) w_s^2 (eq. 36),

    diagonal in the Fourier basis, so each W_t is a `Spectrum` (`at`). Where a function takes a `Spectrum`, it takes
    this as well, where the diffusion is discrete and the sampler ``ddim`` with eta 0, or ``ddpm``. `Flow`, `EDM`,
    `sagd.k_diffusion` and the schedulers of diffusers refuse it.

    Parameters
    ----------
    first, last
        Of one size and support: the weights at t = 0 and at t = T - 1.
    alpha_bar
        (T,), of the `Schedule`; kept in float64.
    """

    first: Spectrum
    last: Spectrum
    alpha_bar: Tensor
    weights: Tensor = field(init=False, repr=False)
    _white: Spectrum = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, end in (("first", self.first), ("last", self.last)):
            check_noise(end, name)
        object.__setattr__(self, "alpha_bar", check_alpha_bar(self.alpha_bar))
        if not (self.first.constant and self.last.constant):
            raise InputError("a varying spectrum lies between two that do not vary")
        if self.first.size != self.last.size or not torch.equal(self.first.support, self.last.support):
            raise InputError("the first and the last spectrum must have one size and the same frequencies")
        if not (self.first.gaussian and self.last.gaussian):
            raise InputError("a varying spectrum is Gaussian: normalize=sample is not possible")
        object.__setattr__(self, "alpha_bar", self.alpha_bar.cpu())
        steps = len(self.alpha_bar)
        gathered = torch.zeros(self.size, dtype=torch.float64, device="cpu")
        weights = torch.empty((steps, *self.size), dtype=torch.float64, device="cpu")
        before = 1.0
        for s, alpha_bar in enumerate(self.alpha_bar.tolist()):
            alpha, before = alpha_bar / before, alpha_bar
            gathered = alpha * gathered + (1 - alpha) * self.entering(s).square()
            weights[s] = (gathered / (1 - alpha_bar)).sqrt()
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "_white", Spectrum(torch.ones(self.size, dtype=torch.float64, device="cpu")))

    def entering(self, s: int) -> Tensor:
        """w_s, the weight of the noise that step s adds; the grid's size, float64, mean square 1."""
        s = whole("s", s, 0, len(self.alpha_bar) - 1)
        u = s / max(len(self.alpha_bar) - 1, 1)
        weight = self.first.weight ** (1 - u) * self.last.weight**u
        return weight * weight.square().mean().rsqrt()

    @property
    def _most(self) -> int:
        return affordable(self.size)

    @property
    def size(self) -> Size:
        return self.first.size

    @property
    def support(self) -> Tensor:
        return self.first.support

    @property
    def full(self) -> bool:
        """Whether the noise reaches every frequency."""
        return self.first.full

    @property
    def constant(self) -> bool:
        """False: the noise changes from step to step."""
        return False

    @property
    def gaussian(self) -> bool:
        """True: spectra that divide each draw by its own deviation are refused."""
        return True

    @property
    def white(self) -> bool:
        """Whether it is N(0, I) at every step."""
        return self.first.white and self.last.white

    def check_schedule(self, alpha_bar: Tensor | None) -> None:
        """Raise InputError unless the noise was made for this schedule."""
        if alpha_bar is None:
            raise InputError("a varying spectrum follows a discrete schedule; flow matching and EDM have none")
        if alpha_bar is not self.alpha_bar and not torch.equal(self.alpha_bar, alpha_bar):
            raise InputError("the varying spectrum was made for another schedule: make it with this one's alpha_bar")

    def at(self, t: int) -> Spectrum:
        """The spectrum W_t of the noise in x_t, t from 0 to T - 1."""
        t = whole("t", t, 0, len(self.weights) - 1)
        return self._kept("_gathered", t)

    def _gathered(self, t: int) -> Spectrum:
        return Spectrum(self.weights[t])

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        t: Tensor | int,
        rows: slice | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw the noise of x_t, N(0, Sigma_{W_t}); t is (B,), one for each index of the first axis, or one for all.

        Otherwise as `Spectrum.sample`.
        """
        check_draw(shape, generator, dtype, rows)
        check_times("t", t, shape[0], whole=True, least=0, most=len(self.weights) - 1)
        working = torch.float64 if dtype == torch.float64 else torch.float32
        white = self._white.sample(shape, generator=generator, rows=rows, device=device, dtype=working)
        if not isinstance(t, Tensor) or t.ndim == 0:
            return self.shape(white, whole("t", t)).to(dtype)
        t = t.expand(shape[0])
        t = t if rows is None else t[rows]
        axes = tuple(range(-len(self.size), 0))
        table = self._kept("_table", white.device, white.dtype)[t.to(white.device)]
        table = table.reshape(len(t), *[1] * (white.ndim - 1 - len(self.size)), *table.shape[1:])
        spectrum = torch.fft.rfftn(white, dim=axes) * table
        return torch.fft.irfftn(spectrum, s=self.size, dim=axes).to(dtype)

    def _table(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """All weights on the half-space of rfftn."""
        return self.weights[..., : self.size[-1] // 2 + 1].to(dtype).to(device, copy=True).contiguous()

    def shape(self, white: Tensor, t: int | None = None) -> Tensor:
        """Shape white noise into the noise of x_t."""
        if t is None:
            raise InputError("a varying spectrum shapes the noise of a step: it needs t")
        return self.at(t).sqrt(white)

    def project(self, x: Tensor) -> Tensor:
        """Keep the frequencies of the support."""
        return self.first.project(x)

    def transfer(self, eps: Tensor, t: int, t_prev: int) -> Tensor:
        """The noise in x_t as noise in x_{t_prev}: the same white noise, with the other weight. At -1 there is none."""
        return eps if whole("t_prev", t_prev, -1) < 0 else self.between(t, t_prev).sqrt(eps)

    def between(self, t: int, t_prev: int) -> Spectrum:
        """W_{t_prev} / W_t on the support, t_prev < t. Near 1 in steps near each other, where W_t itself may span many
        decades.
        """
        t = whole("t", t, 0, len(self.weights) - 1)
        t_prev = whole("t_prev", t_prev, 0, t - 1)
        return self._kept("_ratio", t, t_prev)

    def _ratio(self, t: int, t_prev: int) -> Spectrum:
        ratio = self.weights[t_prev] / self.weights[t].where(self.support, 1)
        return Spectrum(ratio * self.support)

    def posterior(
        self, xt: Tensor, x0: Tensor, t: int, t_prev: int, alpha_bar: float, alpha_bar_prev: float, white: Tensor
    ) -> Tensor:
        """Draw from eq. 31's posterior where the spectrum varies: one gain and one variance a frequency (eq. 36).

        With V_t = sigma_t^2 W_t^2 and alpha the signal kept between the two steps, q(x_{t_prev} | x_t, x0) has the mean
        sqrt(alpha_bar_prev) x0 + sqrt(alpha) (V_prev / V_t) (x_t - sqrt(alpha_bar_t) x0) and the variance
        V_prev - alpha V_prev^2 / V_t.
        """
        check_alike("x0", x0, "xt", xt, grows=False)
        if whole("t_prev", t_prev, -1) < 0:
            return x0
        check_same("white", white, "xt", xt)
        alpha = alpha_bar / alpha_bar_prev
        ratio = (1 - alpha_bar_prev) / (1 - alpha_bar)
        residual = self.between(t, t_prev).covariance(xt - alpha_bar**0.5 * x0)  # V_prev / V_t, but for sigma^2's ratio
        noise = self._kept("_fresh", int(t), int(t_prev), alpha_bar_prev, alpha * ratio).sqrt(white)
        return alpha_bar_prev**0.5 * x0 + alpha**0.5 * ratio * residual + noise

    def _fresh(self, t: int, t_prev: int, alpha_bar_prev: float, factor: float) -> Spectrum:
        """Of what the posterior draws."""
        share = (1 - factor * self.between(t, t_prev).weight.square()).clamp(min=0).sqrt()
        return Spectrum((1 - alpha_bar_prev) ** 0.5 * self.at(t_prev).weight * share)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors from which `sagd.noise.stored.load` restores the noise."""
        return {"first": self.first.weight, "last": self.last.weight, "alpha_bar": self.alpha_bar}

    def to_dict(self) -> dict:
        """A JSON-ready description, from which `sagd.operators.from_dict` restores the noise."""
        spectra = {"first": self.first.to_dict(), "last": self.last.to_dict()}
        return {"operator": "varying", **spectra, "alpha_bar": self.alpha_bar.tolist()}
