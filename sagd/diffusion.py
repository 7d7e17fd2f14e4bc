"""The diffusion: schedule, forward process, conversions, the loss, and samplers with shaped noise.

Noise is always an argument, never drawn here. A network is any callable ``predict(xt, t) -> eps`` with xt of shape
(B, C, H, W) and t of shape (B,); for a diffusers model that is ``lambda xt, t: unet(xt, t).sample``. Equation numbers
are those of Scimeca et al., arXiv 2510.09660; at isotropic noise everything here equals diffusers' schedulers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.spectrum import Spectrum, one_of

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The variance schedule of a discrete diffusion.

    Parameters
    ----------
    alpha_bar
        (T,), float64: the cumulative product of alpha_t = 1 - beta_t. Step -1 stands for clean data, alpha_bar 1.
    """

    alpha_bar: Tensor
    _on_device: dict = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "Schedule":
        """DDPM's linear betas."""
        betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
        return cls(torch.cumprod(1 - betas, 0))

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def signal_and_sigma(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), shaped to multiply ``like`` (B, ...)."""
        if like.device not in self._on_device:  # kept there, so that no step of training waits for a copy
            self._on_device[like.device] = self.alpha_bar.to(like.device)
        t = torch.as_tensor(t, device=like.device)
        alpha_bar = torch.where(t < 0, 1.0, self._on_device[like.device][t])
        shape = (-1, *[1] * (like.ndim - 1))
        return tuple(v.reshape(shape).to(like.dtype) for v in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))

    def q_sample(self, x0: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x0 + sigma_t eps_w (eq. 8, 22)."""
        signal, sigma = self.signal_and_sigma(t, x0)
        return signal * x0 + sigma * eps

    def x0_from_eps(self, xt: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """x0hat = (x_t - sigma_t eps) / sqrt(alpha_bar_t) (eq. 34)."""
        signal, sigma = self.signal_and_sigma(t, xt)
        return (xt - sigma * eps) / signal

    def eps_from_x0(self, xt: Tensor, t: Tensor | int, x0: Tensor) -> Tensor:
        """eps = (x_t - sqrt(alpha_bar_t) x0) / sigma_t, the inverse of eq. 34."""
        signal, sigma = self.signal_and_sigma(t, xt)
        return (xt - signal * x0) / sigma

    def score_from_eps(self, spectrum: Spectrum, t: Tensor | int, eps: Tensor) -> Tensor:
        """score = -(1 / sigma_t) Sigma_w^+ eps (eq. 9, 24); the projected score where the support is partial."""
        _, sigma = self.signal_and_sigma(t, eps)
        return -spectrum.inverse(eps) / sigma

    def eps_from_score(self, spectrum: Spectrum, t: Tensor | int, score: Tensor) -> Tensor:
        """eps = -sigma_t Sigma_w score, the inverse of eq. 9 on the support."""
        _, sigma = self.signal_and_sigma(t, score)
        return -sigma * spectrum.covariance(score)

    def timesteps(self, steps: int, spacing: str = "leading") -> list[int]:
        """The steps a sampler visits, from noisy to clean.

        ``leading`` is diffusers' default: 50 steps of 1000 run 980 ... 0. ``trailing`` begins at the end: 999 ... 19.
        """
        one_of("spacing", spacing, ("leading", "trailing"))
        if not 1 <= steps <= len(self):
            raise InputError(f"steps is {steps}; allowed: 1 to {len(self)}")
        if spacing == "leading":
            return [i * (len(self) // steps) for i in reversed(range(steps))]
        return [round(len(self) * (1 - i / steps)) - 1 for i in range(steps)]


def eps_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The training loss, || eps_w - eps_theta(x_t, t) ||^2, mean over everything, un-reweighted (eq. 26).

    Parameters
    ----------
    x0
        (B, C, H, W), data in [-1, 1].
    t
        (B,), steps in [0, T).
    eps
        (B, C, H, W), noise drawn by `Spectrum.sample`.
    """
    return (predict(schedule.q_sample(x0, t, eps), t) - eps).square().mean()


def ddim_step(
    schedule: Schedule,
    xt: Tensor,
    t: int,
    t_prev: int,
    eps: Tensor,
    *,
    eta: float = 0.0,
    clip: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """One step of DDIM, x_t to x_{t_prev}.

    Parameters
    ----------
    t_prev
        The next step to visit, below t; -1 is clean data.
    eps
        The network's prediction at x_t.
    eta
        0 is deterministic; 1 adds the noise of DDPM.
    clip
        Clip x0hat to [-1, 1]; eps is not derived anew, as in diffusers.
    noise
        Shaped noise of the shape of xt, N(0, Sigma_w) and never white (App. D.4); needed for eta > 0.
    """
    x0 = schedule.x0_from_eps(xt, t, eps)
    if clip:
        x0 = x0.clamp(-1, 1)
    alpha_bar, alpha_bar_prev = _alpha_bars(schedule, t, t_prev)
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    std = eta * variance**0.5
    x_prev = alpha_bar_prev**0.5 * x0 + max(1 - alpha_bar_prev - std**2, 0.0) ** 0.5 * eps
    return x_prev + std * noise if eta > 0 else x_prev


def ddpm_step(
    schedule: Schedule,
    xt: Tensor,
    t: int,
    t_prev: int,
    eps: Tensor,
    *,
    clip: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """One step of ancestral sampling, q(x_{t_prev} | x_t, x0hat) = N(mu, betatilde Sigma_w) (eq. 31-33).

    The parameters are those of `ddim_step`; no noise is added in the step to clean data.
    """
    x0 = schedule.x0_from_eps(xt, t, eps)
    if clip:
        x0 = x0.clamp(-1, 1)
    alpha_bar, alpha_bar_prev = _alpha_bars(schedule, t, t_prev)
    alpha = alpha_bar / alpha_bar_prev  # of the stride from t_prev to t, which is eq. 31-33's alpha_t at stride one
    mean = (
        alpha_bar_prev**0.5 * (1 - alpha) / (1 - alpha_bar) * x0
        + alpha**0.5 * (1 - alpha_bar_prev) / (1 - alpha_bar) * xt
    )
    if t_prev < 0:
        return mean
    return mean + ((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha)) ** 0.5 * noise


def _alpha_bars(schedule: Schedule, t: int, t_prev: int) -> tuple[float, float]:
    return schedule.alpha_bar[t].item(), schedule.alpha_bar[t_prev].item() if t_prev >= 0 else 1.0


def sample(
    predict: Predict,
    schedule: Schedule,
    spectrum: Spectrum,
    x: Tensor,
    timesteps: list[int],
    *,
    sampler: str = "ddim",
    eta: float = 0.0,
    clip: bool = False,
    white: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Run a sampler from x at ``timesteps[0]`` down to clean data.

    The prediction is projected onto the support of w, where the noise that it estimates lies (App. D.5), so a
    band that the noise leaves out keeps exactly the zero energy that it starts with. At full support that does nothing.

    Parameters
    ----------
    x
        (B, C, H, W), the start: `start_from_noise` or `start_from_marginal`.
    timesteps
        From `Schedule.timesteps`.
    sampler
        ``ddim`` (with eta) or ``ddpm``.
    white
        Draws white noise of x's shape at each step; shaped here by T_w. Needed for ddpm and for eta > 0.
    """
    one_of("sampler", sampler, ("ddim", "ddpm"))
    if white is None and (sampler == "ddpm" or eta > 0):
        raise InputError("sampling with noise (ddpm, or eta > 0) needs `white`, the source of it")
    for t, t_prev in zip(timesteps, [*timesteps[1:], -1], strict=True):
        eps = spectrum.project(predict(x, torch.full((len(x),), t, device=x.device)))
        noise = spectrum.shape(white()) if white is not None else None
        if sampler == "ddim":
            x = ddim_step(schedule, x, t, t_prev, eps, eta=eta, clip=clip, noise=noise)
        else:
            x = ddpm_step(schedule, x, t, t_prev, eps, clip=clip, noise=noise)
    return x


def start_from_noise(spectrum: Spectrum, white: Tensor) -> Tensor:
    """x_T = T_w xi ~ N(0, Sigma_w), as the paper starts (App. D.4)."""
    return spectrum.shape(white)


def start_from_marginal(
    schedule: Schedule, spectrum: Spectrum, t: int, mean: Tensor, power: Tensor, white: Tensor
) -> Tensor:
    """The Gaussian with the first and second moments of q(x_t): what `start_from_noise` leaves out is the data.

    With linear betas alpha_bar is not zero where sampling starts, and neither is the data's share of x_T. A band that
    the noise leaves out is left out here too.

    Parameters
    ----------
    t
        The first step that the sampler visits.
    mean
        (C, H, W), the data's mean image.
    power
        (C, H, W), the data's variance at each frequency of the unitary DFT.
    white
        (B, C, H, W), N(0, I).
    """
    if spectrum.per_sample:
        raise InputError("start marginal needs Gaussian noise; normalize=sample divides each draw by its own deviation")
    alpha_bar = schedule.alpha_bar[t]
    std = (alpha_bar * power.double() + (1 - alpha_bar) * spectrum.weight.to(power.device) ** 2).sqrt()
    shaped = torch.fft.ifft2(torch.fft.fft2(white.double()) * std.to(white.device)).real
    return spectrum.project((alpha_bar.sqrt().item() * mean.to(white.device).double() + shaped).to(white.dtype))
