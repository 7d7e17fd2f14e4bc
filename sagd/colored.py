"""Colored noise sampling (CNS, arXiv 2605.30332): shape the steps of a network that was trained on white noise.

A network is sure of low frequencies early and of high ones late. Where a stochastic sampler draws noise, CNS puts it
into the frequencies that are still open: w(f, t)^2 ~ 1 - gamma(f, t), of mean 1, where gamma says how far a ring of
frequencies has come,

    gamma(f, t) = 1 - E|X0(f) - X0hat(f, t)|^2 / E|X0(f)|^2,

X0 the end of a trajectory of the ODE and X0hat(t) what the network expects of it at t. Nothing is trained, and the
start stays white.

This is not exact: a sampler's noise replaces what the step took away at each frequency, and noise of another spectrum
does not. With a perfect network CNS draws from another distribution than the data's (tests/sagd/test_colored.py has an
example); if it helps, it is against a network's errors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sagd.errors import InputError, check_floating, check_number, check_whole, shortened
from sagd.formulations.base import Predict, Sampler, White, predicted
from sagd.formulations.diffusion import Diffusion, ddim_step
from sagd.networks.weights import predictor
from sagd.noise.base import Noise
from sagd.noise.devices import Keeps, affordable, double
from sagd.noise.grid import Size, radius, ring_means, rings
from sagd.noise.spectrum import Spectrum
from sagd.runtime.files import read_json, write_json
from sagd.runtime.parallel import blocks, concurrently


@dataclass(frozen=True, eq=False)
class ColoredNoise(Keeps):
    """How far each ring of frequencies has come, over the noise level; and the noise that follows for a step.

    Parameters
    ----------
    size
        Of the grid, (H, W).
    log_snr
        (K,), rising: log(alpha_bar / (1 - alpha_bar)), which for x0 + sigma eps is -2 log(sigma).
    gamma
        (K, R), for the rings of `sagd.noise.grid.ring_means`.
    strength, divider
        w^2 ~ (1 - gamma / divider)^strength. Strength 0 is white noise; 1 and 1 are the paper's formula. Its code takes
        2 and 1 where no option is given; its best run without guidance took 1.5 and 1.73 (a tilt, 2 % less amplitude,
        and gamma brought to [0, 1] in each ring, none of which is here).
    """

    size: Size
    log_snr: Tensor
    gamma: Tensor
    strength: float = 1.0
    divider: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.size, Sequence) or isinstance(self.size, str):
            raise InputError(f"size is {shortened(repr(self.size), 60)}; it must be (H, W)")
        for name in ("log_snr", "gamma"):
            check_floating(name, getattr(self, name))
            object.__setattr__(self, name, getattr(self, name).cpu())
        shape = (
            (len(self.log_snr), len(ring_means(radius(self.size))))
            if len(self.size) == 2 and self.log_snr.ndim == 1
            else None
        )
        if tuple(self.gamma.shape) != shape or not shape[0]:
            spoken = "x".join(map(str, self.size))
            raise InputError(
                f"gamma has the shape {tuple(self.gamma.shape)}; for {spoken} and {len(self.log_snr)} levels it must "
                f"be {shape or '(levels, rings) of a grid (H, W)'}"
            )
        if not (torch.isfinite(self.gamma).all() and torch.isfinite(self.log_snr).all()):
            raise InputError("gamma and log_snr must be finite")
        if (self.log_snr.diff() <= 0).any():
            raise InputError("log_snr must rise")
        check_number("strength", self.strength, least=0)
        check_number("divider", self.divider, least=1)

    @property
    def _most(self) -> int:
        return affordable(self.size)

    def at_level(self, log_snr: float) -> Spectrum:
        """The noise of a step from x_t at this level."""
        check_number("log_snr", log_snr)
        return self._kept("_at_level", log_snr)

    def _at_level(self, log_snr: float) -> Spectrum:
        left = 1 - self.gamma_at(log_snr).clamp(0, 1) / self.divider
        # Where everything has come to its end, there is nothing to choose between.
        square = left.clamp(min=1e-12 * left.max().item()) ** self.strength if left.max() > 0 else left + 1
        _, ring = rings(self.size).unique(return_inverse=True)
        square = square[ring]
        return Spectrum((square / square.mean()).sqrt())

    def gamma_at(self, log_snr: float) -> Tensor:
        """Gamma of each ring at a noise level, (R,): interpolated between those measured, and constant beyond them."""
        after = min(int(torch.searchsorted(self.log_snr, log_snr)), len(self.log_snr) - 1)
        before = max(after - 1, 0)
        low, high = self.log_snr[before].item(), self.log_snr[after].item()
        share = min(max((log_snr - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        return torch.lerp(self.gamma[before], self.gamma[after], share)

    def save(self, path: Path | str) -> None:
        """Write it, as JSON."""
        content = {"size": [int(n) for n in self.size], "log_snr": self.log_snr.tolist(), "gamma": self.gamma.tolist()}
        write_json(path, content | {"strength": float(self.strength), "divider": float(self.divider)})

    @classmethod
    def load(cls, path: Path | str) -> "ColoredNoise":
        """Read it back; InputError, if the file is another."""
        found = read_json(path)
        try:
            numbers = (found[key] for key in ("log_snr", "gamma"))
            log_snr, gamma = (torch.tensor(each, dtype=torch.float64, device="cpu") for each in numbers)
            return cls(tuple(found["size"]), log_snr, gamma, float(found["strength"]), float(found["divider"]))
        except (KeyError, TypeError, ValueError) as error:
            said = str(error) if isinstance(error, InputError) else "it is not what `sagd calibrate` writes"
            raise InputError(f"{path}: {said}") from None


def calibrate(
    network: Callable | nn.Module,
    diffusion: Diffusion,
    start: Tensor,
    sampler: Sampler,
    *,
    labels: Tensor | None = None,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda images: None,
) -> ColoredNoise:
    """Measure gamma on trajectories of the probability-flow ODE, by DDIM.

    Parameters
    ----------
    network
        Takes x_t (B, C, H, W) and t (B,), and ``class_labels`` if it knows labels; a model of diffusers will do.
    diffusion
        What it was trained with, on white noise.
    start
        (N, C, H, W), white noise, other than what is sampled from later.
    sampler
        Its ``steps`` and ``spacing`` are used; gamma at other levels is interpolated.
    labels
        (N,), of a network that knows labels.
    batch_size
        Images at a time, of which all steps are in memory.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    ColoredNoise
        With strength 1.
    """
    check_floating("start", start)
    check_whole("batch_size", batch_size, 1)
    if start.ndim != 4 or not len(start):
        raise InputError(f"start has the shape {tuple(start.shape)}; it must be (N, C, H, W), N 1 or more")
    if labels is not None and not (isinstance(labels, Tensor) and tuple(labels.shape) == (len(start),)):
        said = (
            f"have the shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"are a {type(labels).__name__}"
        )
        raise InputError(f"labels {said}; for {len(start)} images they must be a tensor ({len(start)},)")
    if not callable(network):
        raise InputError(f"the network is {shortened(repr(network), 60)}; it must be callable: (x_t, t)")
    if getattr(diffusion, "alpha_bar", None) is None:
        raise InputError(f"diffusion is {shortened(repr(diffusion), 60)}; gamma is measured in a sagd.Diffusion")
    if not isinstance(sampler, Sampler):
        raise InputError(f"sampler is {shortened(repr(sampler), 60)}; it must be a Sampler, such as sagd.Sampler()")
    schedule, steps = diffusion.schedule, diffusion.timesteps(sampler)
    white = Spectrum(torch.ones(tuple(start.shape[-2:]), dtype=torch.float64, device="cpu"))
    Diffusion.check(diffusion, white, replace(sampler, name="ddim", eta=0.0))

    def batch(rows: slice) -> Tensor:
        """Squares summed over images, channels and a ring's mean: of X0 - X0hat at each step, then of X0."""
        predict, x = predictor(network, None if labels is None else labels[rows]), start[rows]
        expected = []
        with torch.inference_mode():
            for t, t_prev in zip(steps, [*steps[1:], -1], strict=True):
                output = predicted(predict, x, torch.full((len(x),), t, device=x.device))
                x0, eps = schedule.x0_and_eps(x, t, output, diffusion.prediction)
                x = ddim_step(schedule, x, t, t_prev, eps, x0=x0)
                expected.append(x0)
            return ring_means(torch.stack([_power(x - x0) for x0 in expected] + [_power(x)]).cpu())

    todo = list(blocks(len(start), batch_size))
    total = torch.zeros((), dtype=torch.float64, device="cpu")
    for rows, sums in zip(todo, concurrently(batch, todo, start.device), strict=True):
        total = total + sums
        report(len(start[rows]))
    if not torch.isfinite(total).all():
        raise InputError("the trajectories are not finite: is the network trained, and is this its schedule?")
    errors, power = total[:-1], total[-1]
    gamma = 1 - torch.where(power > 0, errors / power, 0)
    return ColoredNoise(tuple(start.shape[-2:]), level(schedule.alpha_bar[steps]), gamma)


def _power(x: Tensor) -> Tensor:
    """|F x|^2, summed over images and channels: (H, W), float64."""
    return torch.fft.fft2(double(x), norm="ortho").abs().square().flatten(0, 1).sum(0)


@dataclass(frozen=True, kw_only=True)
class Colored(Diffusion, Keeps):
    """A `Diffusion` whose stochastic samplers draw `ColoredNoise` in their steps; training is as before.

    It goes where a formulation goes: ``sagd.sample(predict, Colored.of(diffusion, colored), sagd.isotropic(size),
    sagd.Sampler("ddpm"), ...)``.
    """

    colored: ColoredNoise

    @classmethod
    def of(cls, diffusion: Diffusion, colored: ColoredNoise) -> "Colored":
        """A diffusion with the noise of its steps."""
        return cls(diffusion.schedule, diffusion.prediction, diffusion.times, colored=colored)

    def to_dict(self) -> dict:
        """What tells one from another, ready for JSON."""
        its = self.colored
        more = {"log_snr": its.log_snr.tolist(), "gamma": its.gamma.tolist()}
        return super().to_dict() | {"colored": more | {"strength": its.strength, "divider": its.divider}}

    def check(self, noise: Noise, sampler: Sampler | None = None) -> None:
        """Raise InputError unless the noise is white, of this size, and the sampler draws in its steps."""
        super().check(noise, sampler)
        if not noise.white:
            raise InputError("colored steps are for networks that were trained on white noise; this noise is shaped")
        if noise.size != self.colored.size:
            ours, theirs = ("x".join(map(str, size)) for size in (self.colored.size, noise.size))
            raise InputError(f"the colored noise is of {ours}, and the images are of {theirs}")
        if sampler is not None and not sampler.stochastic:
            raise InputError(f"{sampler.name} with eta 0 draws no noise in its steps; take ddpm, or ddim with eta > 0")

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
        """One step of a sampler, x_t to x_{t_prev}, which draws the noise of x_t's level."""
        spectrum = self._kept("_of_step", t)
        drawn = None if white is None else lambda: spectrum.sqrt(white())
        return super().step(predict, noise, x, t, t_prev, sampler, white=drawn)

    @property
    def _most(self) -> int:
        return affordable(self.colored.size)

    def _of_step(self, t: int) -> Spectrum:
        return self.colored.at_level(level(self.alpha_bar[t]).item())


def level(alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)), float64; finite also where alpha_bar is 0, at the end of zero terminal SNR."""
    return torch.logit(alpha_bar.double(), eps=1e-12)
