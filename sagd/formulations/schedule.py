"""The variance schedule of a discrete diffusion."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagd.errors import InputError, check_alike, check_number, check_times, check_whole, one_of, plainly, whole
from sagd.formulations.base import MOST, check_batch
from sagd.noise.base import check_alpha_bar, check_spectrum
from sagd.noise.devices import Keeps
from sagd.noise.spectrum import Spectrum

SCHEDULES = ("linear", "zero_terminal_snr")

PREDICTIONS = ("eps", "v")


@dataclass(frozen=True, eq=False)
class Schedule(Keeps):
    """The variance schedule of a discrete diffusion.

    Parameters
    ----------
    alpha_bar
        (T,), kept in float64: the cumulative product of alpha_t = 1 - beta_t, so it falls, and lies in [0, 1). Step -1
        stands for clean data, alpha_bar 1.
    """

    alpha_bar: Tensor
    _numbers: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha_bar", check_alpha_bar(self.alpha_bar))
        object.__setattr__(self, "_numbers", tuple(self.alpha_bar.tolist()))

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "Schedule":
        """DDPM's linear betas, in (0, 1).

        ``steps`` from 1 to a million, while alpha_bar is above what float64 holds: to about 70,000 at these betas.
        """
        check_whole("steps", steps, 1, MOST)
        check_number("beta_start", beta_start)
        check_number("beta_end", beta_end)
        betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64, device="cpu")
        alpha_bar, least = torch.cumprod(1 - betas, 0), torch.finfo(torch.float64).tiny
        inside = 0 < min(beta_start, beta_end) and max(beta_start, beta_end) < 1
        if inside and alpha_bar[-1] < least and not (alpha_bar.diff() < 0).all():
            most = math.log(least) / torch.log1p(-betas).mean().item()
            raise InputError(
                f"steps is {plainly(steps)}; with betas from {beta_start:g} to {beta_end:g} alpha_bar falls below what "
                f"float64 holds after about {most:,.0f}: take fewer steps, or smaller betas"
            )
        return cls(alpha_bar)

    @classmethod
    def zero_terminal_snr(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "Schedule":
        """Linear betas rescaled so that the last step is pure noise, alpha_bar 0 (Lin et al., arXiv 2305.08891).

        There an eps says nothing of x0: networks for it predict v, and samplers begin at the end (``trailing``).
        """
        check_whole("steps", steps, 2, MOST)  # the last is pure noise
        signal = cls.linear(steps, beta_start, beta_end).alpha_bar.sqrt()
        return cls(((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).square())

    @classmethod
    def named(cls, name: str) -> "Schedule":
        """``linear`` or ``zero_terminal_snr``, of 1000 steps."""
        one_of("schedule", name, SCHEDULES)
        return getattr(cls, name)()

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def signal_and_sigma(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), shaped to multiply ``like`` (B, ...).

        t is a step from -1 to T - 1, or (B,) of them, int64. On an accelerator its values are not looked at, as that
        would wait for the device: any t below 0 is taken for -1 there.

        Raises
        ------
        InputError
            ``like`` that is not floating-point; t of another kind or shape; on the CPU, t out of range.
        """
        check_batch("x", like)
        check_times("t", t, len(like), whole=True, least=-1, most=len(self) - 1)
        return self.of_checked(t, like)

    def of_checked(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of what has been checked."""
        # No index is read from the device: an int takes a part of the table, and so does a tensor of shape (B,).
        row = (t.to(like.device).reshape(-1) + 1).clamp(min=0) if isinstance(t, Tensor) else max(int(t) + 1, 0)
        table = self._kept("_table", like.device, like.dtype)
        signal, sigma = (part[row].reshape(-1, *[1] * (like.ndim - 1)) for part in table)
        return signal, sigma

    def _table(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """sqrt(alpha_bar) and sigma of step -1 and of every step, (2, T + 1), computed in float64 on the CPU."""
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), self.alpha_bar])
        return torch.stack([alpha_bar.sqrt(), (1 - alpha_bar).sqrt()]).to(dtype).to(device, copy=True)

    def first_above(self, log_sigma: Tensor) -> Tensor:
        """The first step whose log(sigma_t / sqrt(alpha_bar_t)) is at least that, of each (n,), float32; T: none."""
        return torch.searchsorted(self._kept("_log_sigma", log_sigma.device), log_sigma)

    def _log_sigma(self, device: torch.device) -> Tensor:
        """Of every step, rounded down to float32: what is compared with it, in float32, is then as it is in float64."""
        exact = 0.5 * torch.log((1 - self.alpha_bar) / self.alpha_bar)
        near = exact.float()
        below = torch.nextafter(near, torch.full_like(near, -torch.inf))
        return torch.where(near > exact, below, near).to(device, copy=True)

    def alpha_bars(self, t: int, t_prev: int) -> tuple[float, float]:
        """alpha_bar at both ends of a sampler's step from t to t_prev < t; at -1, clean data, it is 1."""
        t = whole("t", t, 0, len(self) - 1)
        t_prev = whole("t_prev", t_prev, -1, t - 1)
        return self._numbers[t], self._numbers[t_prev] if t_prev >= 0 else 1.0

    def q_sample(self, x0: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x0 + sigma_t eps_w (eq. 8, 22); x0 and eps are alike, t as in `signal_and_sigma`.

        One example of x0 or of eps may stand for all.
        """
        check_batch("x0", x0)
        check_alike("eps", eps, "x0", x0)
        signal, sigma = self.signal_and_sigma(t, x0 if len(x0) >= len(eps) else x0.expand_as(eps))
        return signal * x0 + sigma * eps

    def x0_from_eps(self, xt: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """x0hat = (x_t - sigma_t eps) / sqrt(alpha_bar_t) (eq. 34), at steps whose alpha_bar is above 0."""
        check_alike("eps", eps, "xt", xt)
        last = len(self) - (1 if self._numbers[-1] > 0 else 2)  # where alpha_bar is 0, eps says nothing of x0
        check_times("t", t, len(xt), whole=True, least=-1, most=last)
        signal, sigma = self.signal_and_sigma(t, xt)
        return (xt - sigma * eps) / signal

    def eps_from_x0(self, xt: Tensor, t: Tensor | int, x0: Tensor) -> Tensor:
        """eps = (x_t - sqrt(alpha_bar_t) x0) / sigma_t, the inverse of eq. 34, at steps from 0."""
        check_alike("x0", x0, "xt", xt)
        check_times("t", t, len(xt), whole=True, least=0)
        signal, sigma = self.signal_and_sigma(t, xt)
        return (xt - signal * x0) / sigma

    def x0_and_eps(self, xt: Tensor, t: Tensor | int, output: Tensor, prediction: str = "eps") -> tuple[Tensor, Tensor]:
        """What a network's output says of x0 and of the noise; ``prediction``: what it predicts, ``eps`` or ``v``."""
        one_of("prediction", prediction, PREDICTIONS)
        check_alike("output", output, "xt", xt)
        if prediction == "eps":
            return self.x0_from_eps(xt, t, output), output
        signal, sigma = self.signal_and_sigma(t, xt)
        return signal * xt - sigma * output, sigma * xt + signal * output

    def score_from_eps(self, spectrum: Spectrum, t: Tensor | int, eps: Tensor) -> Tensor:
        """score = -(1 / sigma_t) Sigma_w^+ eps (eq. 9, 24); the projected score where the support is partial.

        Steps are from 0, as clean data have none. Of a `Varying` spectrum, give the one `at` t.
        """
        check_spectrum(spectrum)
        check_times("t", t, len(eps), whole=True, least=0)
        _, sigma = self.signal_and_sigma(t, eps)
        return -spectrum.inverse(eps) / sigma

    def eps_from_score(self, spectrum: Spectrum, t: Tensor | int, score: Tensor) -> Tensor:
        """eps = -sigma_t Sigma_w score, the inverse of eq. 9 on the support."""
        check_spectrum(spectrum)
        _, sigma = self.signal_and_sigma(t, score)
        return -sigma * spectrum.covariance(score)

    def timesteps(self, steps: int, spacing: str = "leading") -> list[int]:
        """The steps a sampler visits, from noisy to clean.

        ``leading`` is diffusers' default: 50 steps of 1000 run 980 ... 0. ``trailing`` begins at the end: 999 ... 19.

        Raises
        ------
        InputError
            More steps than there are; ``leading``, where its whole strides leave out more than a tenth of the schedule,
            at its noisy end: 600 of 1000 would begin at 599, where images are still to be seen.
        """
        one_of("spacing", spacing, ("leading", "trailing"))
        check_whole("steps", steps)
        if not 1 <= steps <= len(self):
            raise InputError(f"steps is {steps}; allowed: 1 to {len(self)}")
        if spacing == "leading":
            if len(self) % steps > len(self) // 10:
                raise InputError(
                    f"{steps} steps do not divide {len(self)}, and spacing leading would begin at "
                    f"{(steps - 1) * (len(self) // steps)}; take trailing, or a number that divides"
                )
            return [i * (len(self) // steps) for i in reversed(range(steps))]
        return [round(len(self) * (1 - i / steps)) - 1 for i in range(steps)]
