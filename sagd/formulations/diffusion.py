"""Discrete diffusion: the loss, and samplers with shaped noise.

A network is any callable ``predict(xt, t) -> eps`` with xt of shape (B, C, H, W) and t of shape (B,); a
model of diffusers is one as it is. It may predict v instead. Equation numbers are those of Scimeca et
al., arXiv 2510.09660; at isotropic noise everything here equals diffusers' schedulers.
"""

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from sagd.errors import (
    InputError,
    check_alike,
    check_flag,
    check_floating,
    check_number,
    check_same,
    check_times,
    check_whole,
    one_of,
    shortened,
)
from sagd.formulations.base import (
    Family,
    Predict,
    Sampler,
    White,
    check_example,
    check_kinds,
    check_start,
    moments_of,
    predicted,
    trained_on,
)
from sagd.formulations.edm import EDM
from sagd.formulations.schedule import PREDICTIONS, Schedule
from sagd.noise.base import Noise, check_noise
from sagd.noise.devices import double
from sagd.noise.grid import check_moments
from sagd.noise.randomness import place
from sagd.noise.spectrum import posterior


def eps_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The training loss, || eps_w - eps_theta(x_t, t) ||^2, mean over everything, un-reweighted (eq. 26).

    `Diffusion.loss` is the same, and projects x0 where the noise leaves frequencies out.

    Parameters
    ----------
    x0
        (B, C, H, W), data in [-1, 1], floating-point.
    t
        (B,), steps in [0, T), int64.
    eps
        (B, C, H, W), noise drawn by `Spectrum.sample`, of x0's dtype.

    Raises
    ------
    InputError
        Tensors of other shapes or dtypes, an output of another shape than x_t's; on the CPU, t out of range.
    """
    _check(schedule, x0, t, eps)
    return _eps_loss(predict, schedule, x0, t, eps)


def v_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """|| v - v_theta(x_t, t) ||^2 with v = sqrt(alpha_bar_t) eps_w - sigma_t x0 (Salimans and Ho, arXiv 2202.00512).

    The parameters are those of `eps_loss`. With shaped noise x0 and eps follow from v as with white noise.
    """
    _check(schedule, x0, t, eps)
    return _v_loss(predict, schedule, x0, t, eps)


def _check(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> None:
    check_example(x0, t, eps)
    check_times("t", t, len(x0), whole=True, least=0, most=len(schedule) - 1)


def _eps_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    signal, sigma = schedule.of_checked(t, x0)
    return (predicted(predict, signal * x0 + sigma * eps, t) - eps).square().mean()


def _v_loss(predict: Predict, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    signal, sigma = schedule.of_checked(t, x0)
    return (predicted(predict, signal * x0 + sigma * eps, t) - (signal * eps - sigma * x0)).square().mean()


Times = Literal["uniform", "log_normal"]
LOSSES = {"eps": _eps_loss, "v": _v_loss}


@dataclass(frozen=True)
class Diffusion:
    """A discrete diffusion; beside it are `Flow` and `EDM`.

    Parameters
    ----------
    schedule
        Of its variances.
    prediction
        What the network predicts, ``eps`` or ``v``.
    times
        How steps are drawn in training: ``uniform``, as in the paper; or ``log_normal``, so that sigma_t /
        sqrt(alpha_bar_t) is about as EDM draws it (`EDM`), more often where most is learnt in a short training.
    """

    schedule: Schedule
    prediction: str = "eps"
    times: Times = "uniform"

    def __post_init__(self) -> None:
        if not hasattr(self.schedule, "alpha_bar"):
            found = shortened(repr(self.schedule), 60)
            raise InputError(f"schedule is {found}; it must be a Schedule, such as sagd.Schedule.linear()")
        one_of("prediction", self.prediction, PREDICTIONS)
        one_of("times", self.times, get_args(Times))

    @property
    def alpha_bar(self) -> Tensor:
        """(T,), float64, of the schedule."""
        return self.schedule.alpha_bar

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""
        digest = hashlib.sha256(self.alpha_bar.numpy().tobytes()).hexdigest()
        return {"prediction": self.prediction, "alpha_bar_sha256": digest, "times": self.times}

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Steps of n training examples, (n,), int64."""
        check_whole("n", n, 1)
        if self.times == "uniform":
            return torch.randint(len(self.schedule), (n,), generator=generator, device=place(generator, device)).to(
                device
            )
        white = torch.randn(n, generator=generator, device=place(generator, device), dtype=torch.float32).to(device)
        levels = EDM.log_mean + EDM.log_std * white
        return self.schedule.first_above(levels).clamp(max=len(self.schedule) - 1)

    def loss(
        self, predict: Predict, noise: Noise, x0: Tensor, t: Tensor, eps: Tensor, *, project: bool = True
    ) -> Tensor:
        """`eps_loss` or `v_loss`, on the support of the noise (`trained_on`); eps is drawn by ``noise.sample``."""
        _check(self.schedule, x0, t, eps)
        return LOSSES[self.prediction](predict, self.schedule, trained_on(noise, x0, project), t, eps)

    def timesteps(self, sampler: Sampler) -> list[int]:
        """The steps that a sampler visits, from noisy to clean."""
        return self.schedule.timesteps(sampler.steps, sampler.spacing)

    def check(self, noise: Noise, sampler: Sampler | None = None) -> None:
        """Raise InputError if noise, sampler and formulation are incompatible."""
        check_kinds(noise, sampler)
        noise.check_schedule(self.alpha_bar)
        if sampler is None:
            return
        first = self.timesteps(sampler)[0]
        if sampler.start == "marginal":
            _check_gaussian(noise)
        if not noise.constant and (sampler.name in ("euler", "heun") or sampler.eta > 0):
            raise InputError("a varying spectrum is sampled by ddim with eta 0, or by ddpm")
        alpha_bar, _ = self.schedule.alpha_bars(first, -1)
        if alpha_bar == 0 and (self.prediction == "eps" or sampler.name in ("euler", "heun")):
            raise InputError(
                f"sampling begins at t = {first}, where alpha_bar is 0: that needs a network that predicts v, and "
                "the sampler ddim or ddpm"
            )

    def start(self, noise: Noise, sampler: Sampler, white: Tensor, data: dict[str, Tensor] | None = None) -> Tensor:
        """x_T = T_w xi ~ N(0, Sigma_w), as the paper starts (App. D.4), or `start_from_marginal`."""
        first = self.timesteps(sampler)[0]
        if sampler.start == "noise":
            return noise.shape(white, first)
        return start_from_marginal(self.schedule, noise, first, *moments_of(data), white)

    def step(
        self,
        predict: Predict,
        noise: Noise,
        x: Tensor,
        t: int,
        t_prev: int,
        sampler: Sampler,
        *,
        white: White | None = None,
    ) -> Tensor:
        """One step of a sampler with a network, x_t to x_{t_prev}; the parameters are those of `sample`."""
        schedule = self.schedule

        def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            output = noise.project(predicted(predict, x, torch.full((len(x),), t, device=x.device)))
            x0, eps = schedule.x0_and_eps(x, t, output, self.prediction)
            return clipped(x0), eps

        def clipped(x0: Tensor) -> Tensor:
            # Clipping is not linear: it puts energy into the frequencies that the noise leaves out.
            return noise.project(x0.clamp(-1, 1)) if sampler.clip else x0

        def drawn() -> Tensor:
            if white is None:
                raise InputError("sampling with noise (ddpm, or eta > 0) needs `white`, the source of it")
            found = white()
            check_same("white noise", found, "x", x)
            return found

        x0, eps = denoise(x, t)
        if sampler.name == "euler":
            return euler_step(schedule, x, t, t_prev, schedule.eps_from_x0(x, t, x0) if sampler.clip else eps)
        if sampler.name == "ddpm":
            return noise.posterior(x, x0, t, t_prev, *schedule.alpha_bars(t, t_prev), drawn())
        shaped = noise.shape(drawn()) if sampler.eta > 0 else None
        eps_prev = noise.transfer(eps, t, t_prev)
        there = ddim_step(schedule, x, t, t_prev, eps_prev, x0=x0, eta=sampler.eta, noise=shaped)
        if sampler.name == "ddim" or t_prev < 0:
            return there
        # Heun: DDIM again, with the mean of the noises at both ends (Karras et al., arXiv 2206.00364, algorithm 1).
        _, eps_there = denoise(there, t_prev)
        eps = (eps + eps_there) / 2
        return ddim_step(schedule, x, t, t_prev, eps, x0=clipped(schedule.x0_from_eps(x, t, eps)))

    def sample(
        self,
        predict: Predict,
        noise: Noise,
        x: Tensor,
        sampler: Sampler,
        *,
        white: White | None = None,
        gradients: bool = False,
    ) -> Tensor:
        """Run a sampler from its start down to clean data.

        The prediction, and x0hat where it is clipped, are projected onto the support of w (App. D.5), so a band that
        the noise leaves out keeps the zero energy that it starts with. At full support that does nothing.

        Parameters
        ----------
        predict
            The network.
        noise
            What it was trained with.
        x
            (B, C, H, W), of `start`.
        sampler
            ``ddim``, ``ddpm``, ``euler`` (`euler_step`), or ``heun``, of second order, two predictions a step.
        white
            Draws white noise of x's shape; shaped here by T_w. Needed for ddpm and for eta > 0.
        gradients
            Whether to keep the graph of all steps, so that gradients can be taken through the sampler.
        """
        self.check(noise, sampler)
        check_start(x, gradients)
        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            for t, t_prev in pairwise([*self.timesteps(sampler), -1]):
                x = self.step(predict, noise, x, t, t_prev, sampler, white=white)
        return x


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
        The next step to visit, from -1, which is clean data, to t - 1.
    eps
        The network's prediction at x_t.
    x0
        x0hat, if it is known in another way than from eps (eq. 34).
    eta
        0 is deterministic; 1 adds the noise of DDPM.
    clip
        Clip x0hat to [-1, 1]; eps is not derived anew, as in diffusers. For noise that leaves frequencies out give
        ``x0``, clipped and then projected.
    noise
        Shaped noise of the shape of xt, N(0, Sigma_w) and never white (App. D.4); needed for eta > 0.

    Raises
    ------
    InputError
        Steps out of range, tensors of other shapes than xt's, eta outside of [0, 1], no noise where it is needed.
    """
    check_number("eta", eta, least=0, most=1)
    check_flag("clip", clip)
    alpha_bar, alpha_bar_prev = schedule.alpha_bars(t, t_prev)
    check_alike("eps", eps, "xt", xt, grows=False)
    x0 = schedule.x0_from_eps(xt, t, eps) if x0 is None else x0
    if clip:
        x0 = x0.clamp(-1, 1)
    check_alike("x0", x0, "xt", xt, grows=False)
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    std = eta * variance**0.5
    x_prev = alpha_bar_prev**0.5 * x0 + max(1 - alpha_bar_prev - std**2, 0.0) ** 0.5 * eps
    return x_prev + std * _given(noise, xt) if eta > 0 else x_prev


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
    check_flag("clip", clip)
    ends = schedule.alpha_bars(t, t_prev)
    x0 = schedule.x0_from_eps(xt, t, eps) if x0 is None else x0
    if clip:
        x0 = x0.clamp(-1, 1)
    mean, std = posterior(xt, x0, *ends)
    return mean if t_prev < 0 else mean + std * _given(noise, xt)


def euler_step(schedule: Schedule, xt: Tensor, t: int, t_prev: int, eps: Tensor) -> Tensor:
    """One Euler step of the probability-flow ODE (eq. 35), in -log alpha_bar, whose rate is beta.

    With Sigma_w score = -eps / sigma_t the ODE is dx = -1/2 (x - eps / sigma_t) beta dt. The parameters are those of
    `ddim_step`. DDIM is Euler's method, too, of the same ODE in the variables x / sqrt(alpha_bar) and
    sigma / sqrt(alpha_bar). Where alpha_bar is 0, at the end of zero terminal SNR, it has no rate.
    """
    alpha_bar, alpha_bar_prev = schedule.alpha_bars(t, t_prev)
    check_alike("eps", eps, "xt", xt, grows=False)
    if alpha_bar == 0:
        raise InputError(f"t is {t}, where alpha_bar is 0: an Euler step can't begin there; take ddim or ddpm")
    return xt + 0.5 * math.log(alpha_bar_prev / alpha_bar) * (xt - eps / (1 - alpha_bar) ** 0.5)


def start_from_marginal(schedule: Schedule, noise: Noise, t: int, mean: Tensor, power: Tensor, white: Tensor) -> Tensor:
    """The Gaussian with the first and second moments of q(x_t): a start from noise alone leaves out the data.

    With linear betas alpha_bar is not zero where sampling starts, and neither is the data's share of x_T. A band that
    the noise leaves out is left out here too.

    Parameters
    ----------
    t
        The first step that the sampler visits, in [0, T).
    mean
        (C, H, W), the data's mean image.
    power
        (C, H, W), the data's variance at each frequency of the unitary DFT: 0 or more, the same at f and -f, which on
        an accelerator is not looked at.
    white
        (B, C, H, W), N(0, I).
    """
    check_floating("white", white)
    check_whole("t", t, 0, len(schedule) - 1)
    check_noise(noise)
    noise.check_schedule(schedule.alpha_bar)
    _check_gaussian(noise)
    check_same("mean", mean, "an image of white", white[0])
    check_moments(mean, power, len(noise.size))
    spectrum = noise.at(t)
    alpha_bar = schedule.alpha_bar[t]
    std = (alpha_bar * power.cpu().double() + (1 - alpha_bar) * spectrum.weight**2).sqrt()
    axes, exact = tuple(range(-len(spectrum.size), 0)), double(white)
    shaped = torch.fft.ifftn(torch.fft.fftn(exact, dim=axes) * std.to(exact.device), dim=axes).real
    centre = alpha_bar.sqrt().item() * mean.cpu().double()
    return spectrum.project((centre.to(exact.device) + shaped).to(white))


def _given(noise: Tensor | None, xt: Tensor) -> Tensor:
    if noise is None:
        raise InputError("a step with noise (ddpm, or eta > 0) needs `noise`, shaped")
    check_same("noise", noise, "xt", xt)
    return noise


def _check_gaussian(noise: Noise) -> None:
    if not noise.gaussian:
        raise InputError("start marginal needs Gaussian noise; normalize=sample divides each draw by its own deviation")


def _linear(prediction: str, shape: tuple[int, ...], *, times: Times = Diffusion.times) -> Diffusion:
    return Diffusion(Schedule.linear(), prediction, times)


def _zero_terminal_snr(prediction: str, shape: tuple[int, ...], *, times: Times = Diffusion.times) -> Diffusion:
    return Diffusion(Schedule.zero_terminal_snr(), prediction, times)


diffusion = {
    "linear": Family(("eps", "v"), _linear),
    # Where alpha_bar is 0, at the end, an eps says nothing of x0.
    "zero_terminal_snr": Family(("v",), _zero_terminal_snr),
}
