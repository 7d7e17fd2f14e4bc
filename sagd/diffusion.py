"""The diffusion: schedule, forward process, conversions, the loss, and samplers with shaped noise.

Noise is always an argument, never drawn here. A network is any callable ``predict(xt, t) -> eps`` with xt of shape
(B, C, H, W) and t of shape (B,); for a diffusers model that is ``lambda xt, t: unet(xt, t).sample``. It may predict v
instead. Equation numbers are those of Scimeca et al., arXiv 2510.09660; at isotropic noise everything here equals
diffusers' schedulers.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.spectrum import Spectrum, one_of
from sagd.spectrum.varying import Varying

Predict = Callable[[Tensor, Tensor], Tensor]


class Formulation(Protocol):
    """What is trained: `Diffusion`, `sagd.flow.Flow` or `sagd.edm.EDM`. Shaped noise enters as ``eps``."""

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Times of n training examples, (n,)."""

    def loss(self, predict: Predict, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Mean over everything; x0 and eps (B, ...), t (B,)."""

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""


SCHEDULES = ("linear", "zero_terminal_snr")
PREDICTIONS = ("eps", "v")
SAMPLERS = ("ddim", "ddpm", "euler", "heun")
STARTS = ("noise", "marginal")


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

    @classmethod
    def zero_terminal_snr(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "Schedule":
        """Linear betas rescaled so that the last step is pure noise, alpha_bar 0 (Lin et al., arXiv 2305.08891).

        There an eps says nothing of x0: networks for it predict v, and samplers begin at the end (``trailing``).
        """
        if steps < 2:
            raise InputError(f"steps is {steps}; a schedule that ends in pure noise needs 2 or more")
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

    def x0_and_eps(self, xt: Tensor, t: Tensor | int, output: Tensor, prediction: str = "eps") -> tuple[Tensor, Tensor]:
        """What a network's output says of x0 and of the noise; ``prediction``: what it predicts, ``eps`` or ``v``."""
        one_of("prediction", prediction, PREDICTIONS)
        if prediction == "eps":
            return self.x0_from_eps(xt, t, output), output
        signal, sigma = self.signal_and_sigma(t, xt)
        return signal * xt - sigma * output, sigma * xt + signal * output

    def score_from_eps(self, spectrum: Spectrum, t: Tensor | int, eps: Tensor) -> Tensor:
        """score = -(1 / sigma_t) Sigma_w^+ eps (eq. 9, 24); the projected score where the support is partial.

        Of a `Varying` spectrum, give the one `at` t.
        """
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


def v_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """|| v - v_theta(x_t, t) ||^2 with v = sqrt(alpha_bar_t) eps_w - sigma_t x0 (Salimans and Ho, arXiv 2202.00512).

    The parameters are those of `eps_loss`. With shaped noise x0 and eps follow from v as with white noise.
    """
    signal, sigma = schedule.signal_and_sigma(t, x0)
    return (predict(schedule.q_sample(x0, t, eps), t) - (signal * eps - sigma * x0)).square().mean()


LOSSES = {"eps": eps_loss, "v": v_loss}


@dataclass(frozen=True)
class Diffusion:
    """A discrete diffusion, as training and sampling take it; beside it are `sagd.flow.Flow` and `sagd.edm.EDM`.

    Parameters
    ----------
    prediction
        What the network predicts, ``eps`` or ``v``.
    """

    schedule: Schedule
    prediction: str = "eps"

    def __post_init__(self):
        one_of("prediction", self.prediction, PREDICTIONS)

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Steps of n training examples, (n,), int64, uniform."""
        return torch.randint(len(self.schedule), (n,), generator=generator, device=device)

    def loss(self, predict: Predict, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """`eps_loss` or `v_loss`."""
        return LOSSES[self.prediction](predict, self.schedule, x0, t, eps)

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""
        digest = hashlib.sha256(self.schedule.alpha_bar.numpy().tobytes()).hexdigest()
        return {"prediction": self.prediction, "alpha_bar_sha256": digest}


def ddim_step(
    schedule: Schedule,
    xt: Tensor,
    t: int,
    t_prev: int,
    eps: Tensor,
    *,
    x0: Tensor | None = None,
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
    x0
        x0hat, if it is known in another way than from eps (eq. 34).
    eta
        0 is deterministic; 1 adds the noise of DDPM.
    clip
        Clip x0hat to [-1, 1]; eps is not derived anew, as in diffusers.
    noise
        Shaped noise of the shape of xt, N(0, Sigma_w) and never white (App. D.4); needed for eta > 0.
    """
    x0 = schedule.x0_from_eps(xt, t, eps) if x0 is None else x0
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
    x0: Tensor | None = None,
    clip: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """One step of ancestral sampling, q(x_{t_prev} | x_t, x0hat) = N(mu, betatilde Sigma_w) (eq. 31-33).

    The parameters are those of `ddim_step`; no noise is added in the step to clean data.
    """
    x0 = schedule.x0_from_eps(xt, t, eps) if x0 is None else x0
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


def varying_ddpm_step(
    schedule: Schedule, spectrum: Varying, xt: Tensor, t: int, t_prev: int, x0: Tensor, white: Tensor
) -> Tensor:
    """The posterior of eq. 31 where the spectrum varies: one gain and one variance a frequency, from eq. 36.

    With V_t = sigma_t^2 W_t^2 and alpha the signal kept between the two steps, q(x_{t_prev} | x_t, x0) has the mean
    sqrt(alpha_bar_prev) x0 + sqrt(alpha) (V_prev / V_t) (x_t - sqrt(alpha_bar_t) x0) and the variance
    V_prev - alpha V_prev^2 / V_t.

    Parameters
    ----------
    x0
        x0hat, clipped or not.
    white
        N(0, I).
    """
    if t_prev < 0:
        return x0
    alpha_bar, alpha_bar_prev = _alpha_bars(schedule, t, t_prev)
    alpha = alpha_bar / alpha_bar_prev
    ratio = (1 - alpha_bar_prev) / (1 - alpha_bar)
    relative = spectrum.between(t, t_prev)
    residual = relative.covariance(xt - alpha_bar**0.5 * x0)  # V_prev / V_t, but for the ratio of sigma^2
    share = (1 - alpha * ratio * relative.weight.square()).clamp(min=0).sqrt()
    noise = Spectrum((1 - alpha_bar_prev) ** 0.5 * spectrum.at(t_prev).weight * share).sqrt(white)
    return alpha_bar_prev**0.5 * x0 + alpha**0.5 * ratio * residual + noise


def euler_step(schedule: Schedule, xt: Tensor, t: int, t_prev: int, eps: Tensor) -> Tensor:
    """One Euler step of the probability-flow ODE (eq. 35), in -log alpha_bar, whose rate is beta.

    With Sigma_w score = -eps / sigma_t the ODE is dx = -1/2 (x - eps / sigma_t) beta dt. The parameters are those of
    `ddim_step`. DDIM is Euler's method, too, of the same ODE in the variables x / sqrt(alpha_bar) and
    sigma / sqrt(alpha_bar).
    """
    alpha_bar, alpha_bar_prev = _alpha_bars(schedule, t, t_prev)
    return xt + 0.5 * math.log(alpha_bar_prev / alpha_bar) * (xt - eps / (1 - alpha_bar) ** 0.5)


def _alpha_bars(schedule: Schedule, t: int, t_prev: int) -> tuple[float, float]:
    return schedule.alpha_bar[t].item(), schedule.alpha_bar[t_prev].item() if t_prev >= 0 else 1.0


def step(
    predict: Predict,
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    x: Tensor,
    t: int,
    t_prev: int,
    *,
    sampler: str = "ddim",
    prediction: str = "eps",
    eta: float = 0.0,
    clip: bool = False,
    white: Callable[[], Tensor] | None = None,
) -> Tensor:
    """One step of a sampler with a network, x_t to x_{t_prev}; the parameters are those of `sample`."""

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        output = spectrum.project(predict(x, torch.full((len(x),), t, device=x.device)))
        x0, eps = schedule.x0_and_eps(x, t, output, prediction)
        return (x0.clamp(-1, 1) if clip else x0), eps

    x0, eps = denoise(x, t)
    if sampler == "euler":
        return euler_step(schedule, x, t, t_prev, schedule.eps_from_x0(x, t, x0) if clip else eps)
    if sampler == "ddpm":
        if isinstance(spectrum, Varying):
            return varying_ddpm_step(schedule, spectrum, x, t, t_prev, x0, white())
        return ddpm_step(schedule, x, t, t_prev, eps, x0=x0, noise=spectrum.shape(white()))
    noise = spectrum.shape(white()) if eta > 0 else None
    there = ddim_step(schedule, x, t, t_prev, spectrum.transfer(eps, t, t_prev), x0=x0, eta=eta, noise=noise)
    if sampler == "ddim" or t_prev < 0:
        return there
    # Heun: DDIM again, with the mean of the noises at both ends (Karras et al., arXiv 2206.00364, algorithm 1).
    _, eps_there = denoise(there, t_prev)
    return ddim_step(schedule, x, t, t_prev, (eps + eps_there) / 2, clip=clip)


def sample(
    predict: Predict,
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    x: Tensor,
    timesteps: list[int],
    *,
    sampler: str = "ddim",
    prediction: str = "eps",
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
        ``ddim`` (with eta), ``ddpm``, ``euler`` (`euler_step`), or ``heun``, of second order, two predictions a step.
    prediction
        What ``predict`` gives, ``eps`` or ``v``.
    white
        Draws white noise of x's shape at each step; shaped here by T_w. Needed for ddpm and for eta > 0.
    """
    check_sampler(schedule, spectrum, timesteps, sampler, prediction, eta)
    if white is None and (sampler == "ddpm" or eta > 0):
        raise InputError("sampling with noise (ddpm, or eta > 0) needs `white`, the source of it")
    for t, t_prev in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x = step(
            predict, schedule, spectrum, x, t, t_prev,
            sampler=sampler, prediction=prediction, eta=eta, clip=clip, white=white,
        )  # fmt: skip
    return x


def check_sampler(
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    timesteps: list[int],
    sampler: str,
    prediction: str,
    eta: float,
    start: str = "noise",
) -> None:
    """Refuse what cannot be sampled: a sampler with a spectrum, or a prediction with a schedule, that do not go."""
    one_of("sampler", sampler, SAMPLERS)
    one_of("prediction", prediction, PREDICTIONS)
    one_of("start", start, STARTS)
    if not timesteps:
        raise InputError("timesteps is empty; a sampler visits one step or more")
    check_schedule(schedule, spectrum)
    if start == "marginal" and not isinstance(spectrum, Varying) and spectrum.per_sample:
        raise InputError("start marginal needs Gaussian noise; normalize=sample divides each draw by its own deviation")
    if eta > 0 and sampler != "ddim":
        raise InputError(f"eta is {eta}; the sampler {sampler} has none: it must be 0")
    if isinstance(spectrum, Varying) and (sampler in ("euler", "heun") or eta > 0):
        raise InputError("a varying spectrum is sampled by ddim with eta 0, or by ddpm")
    if schedule.alpha_bar[timesteps[0]] == 0 and (prediction == "eps" or sampler in ("euler", "heun")):
        raise InputError(
            f"sampling begins at t = {timesteps[0]}, where alpha_bar is 0: that needs a network that predicts v, and "
            "the sampler ddim or ddpm"
        )


def check_schedule(schedule: Schedule, spectrum: Spectrum | Varying) -> None:
    """Refuse a varying spectrum that was made for another schedule."""
    if isinstance(spectrum, Varying) and not torch.equal(spectrum.alpha_bar, schedule.alpha_bar):
        raise InputError("the varying spectrum was made for another schedule: make it with this one's alpha_bar")


def start_from_noise(spectrum: Spectrum | Varying, white: Tensor, t: int | None = None) -> Tensor:
    """x_T = T_w xi ~ N(0, Sigma_w), as the paper starts (App. D.4); t, the first step visited, if w varies with it."""
    return spectrum.shape(white, t)


def start_from_marginal(
    schedule: Schedule, spectrum: Spectrum | Varying, t: int, mean: Tensor, power: Tensor, white: Tensor
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
    check_sampler(schedule, spectrum, [t], "ddim", "v", 0.0, "marginal")
    spectrum = spectrum.at(t)
    alpha_bar = schedule.alpha_bar[t]
    std = (alpha_bar * power.double() + (1 - alpha_bar) * spectrum.weight.to(power.device) ** 2).sqrt()
    axes = tuple(range(-len(spectrum.size), 0))
    shaped = torch.fft.ifftn(torch.fft.fftn(white.double(), dim=axes) * std.to(white.device), dim=axes).real
    return spectrum.project((alpha_bar.sqrt().item() * mean.to(white.device).double() + shaped).to(white.dtype))
