"""Targets whose score is known in closed form under any Sigma_w and t: what a perfect network would predict.

They plug in wherever a network does, so a sampler, a schedule or a noise can be judged without any training; and for a
Gaussian field the distribution that a sampler draws from is itself exact, one mean and one variance a frequency.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sagd.errors import InputError, check_flag, check_floating, check_number, check_whole, one_of, whole
from sagd.formulations.base import EMBEDDED, Predict, Sampler, check_discrete
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import PREDICTIONS, Schedule
from sagd.noise.base import Noise, check_noise, check_spectrum
from sagd.noise.devices import Keeps, double, has_float64
from sagd.noise.grid import mirror
from sagd.noise.randomness import place
from sagd.noise.spectrum import Spectrum
from sagd.spaces.moments import field_distance

Time = Tensor | float  # one for all examples, or (B, 1, ...)


@dataclass(frozen=True, eq=False)
class Mixture(Keeps):
    """A mixture of Gaussians, each with a mean and with a covariance that is diagonal in the Fourier basis.

    Channels are independent in it: of colour images the covariance between channels is left out, so what follows for a
    field of their mean and power ignores that a pixel's colours rise and fall together. A `finite` data set has it.

    One component is a Gaussian field (`gaussian_field`); components without variance are a finite data set
    (`finite`). A point of the plane is a signal of two samples, (1, 2).

    Parameters
    ----------
    means
        (K, C, *size), float64.
    power
        (K, C, *size), or (1, C, *size) for all alike: the variance at each frequency of the unitary DFT, >= 0, and the
        same at f and -f, as that of real data is.
    weights
        (K,), >= 0, of sum 1.
    """

    means: Tensor
    power: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        for name in ("means", "power", "weights"):
            check_floating(name, getattr(self, name))
        shapes = [tuple(t.shape) for t in (self.means, self.power, self.weights)]
        if self.means.ndim < 3 or not len(self.means):
            raise InputError(f"means has the shape {shapes[0]}; it must be (K, C, *size), K 1 or more")
        fits = self.power.shape[1:] == self.means.shape[1:] and len(self.power) in (1, len(self.means))
        finite = all(torch.isfinite(t).all() for t in (self.means, self.power, self.weights))
        if not fits or not finite or shapes[2] != shapes[0][:1] or (self.power < 0).any() or (self.weights < 0).any():
            raise InputError(
                f"means, power and weights of shapes {shapes} do not fit, are not finite, or one is negative"
            )
        if not torch.allclose(self.power, mirror(self.power, self._axes), rtol=1e-4):
            raise InputError("power must be the same at f and -f, as the variance of real data is")
        if abs(self.weights.sum().item() - 1) > 1e-6:
            raise InputError(f"the sum of weights is {self.weights.sum().item():g}; it must be 1")

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(2 - self.means.ndim, 0))

    def to(self, device: torch.device) -> "Mixture":
        """The same on another device."""
        return Mixture(self.means.to(device), self.power.to(device), self.weights.to(device))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, C, *size), float64; the mixture and the generator are on the CPU."""
        check_whole("n", n, 1)
        place(generator)  # or it is none
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        white = torch.randn((n, *self.means.shape[1:]), generator=generator, dtype=torch.float64, device="cpu")
        std = self.power.expand_as(self.means)[which].sqrt()
        return self.means[which] + torch.fft.ifftn(torch.fft.fftn(white, dim=self._axes) * std, dim=self._axes).real

    def predict(self, schedule: Schedule, noise: Noise, prediction: str = "eps", project: bool = True) -> Predict:
        """The exact eps = (x_t - sqrt(alpha_bar_t) E[x0 | x_t]) / sigma_t, or v, as a network's place takes it.

        It is the optimum of the training loss: where the noise leaves frequencies out that of the projected data, and 0
        there (App. D.5); or without ``project`` that of the paper's literal loss, whose network sees what the data have
        there without noise. It computes on the device of x_t.
        """
        one_of("prediction", prediction, PREDICTIONS)
        check_flag("project", project)

        def predict(xt: Tensor, t: Time) -> Tensor:
            if isinstance(t, Tensor):
                signal, sigma = schedule.signal_and_sigma(t.reshape(-1), xt.double())
                spectrum = noise.at(0)
            else:
                step = whole("t", t, 0, len(schedule) - 1)  # type: ignore[arg-type]
                alpha_bar = schedule.alpha_bar[step].item()
                signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
                spectrum = noise.at(step)
            spectra, x0, on = self._posterior(xt, signal, sigma, spectrum, self._seen(noise, project))
            found = (spectra - signal * x0) / sigma * on
            if prediction == "v":
                found = (signal * found - sigma * x0) * on
            return self._real(found, xt)

        return _at_each_time(predict, together=len(self.means) == 1, constant=noise.constant)

    def velocity(self, spectrum: Spectrum, project: bool = True) -> Predict:
        """The exact velocity E[eps - x0 | x_t] for `Flow`, t > 0, in the place of a network; ``project`` as above."""
        check_spectrum(spectrum)
        check_flag("project", project)

        def predict(xt: Tensor, t: Time) -> Tensor:
            now = t.double() / EMBEDDED if isinstance(t, Tensor) else t / EMBEDDED
            if not isinstance(now, Tensor):
                check_number("t / 1000", now, above=0, most=1.01)  # a little more than 1, as `Flow.shifted` rounds
            spectra, x0, on = self._posterior(xt, 1 - now, now, spectrum, self._seen(spectrum, project))
            return self._real(((spectra - (1 - now) * x0) / now - x0) * on, xt)

        return _at_each_time(predict, together=len(self.means) == 1)

    def denoised(self, x: Tensor, sigma: float, spectrum: Spectrum, project: bool = True) -> Tensor:
        """E[x0 | x0 + sigma eps_w = x], which EDM's D estimates; x itself where the noise leaves frequencies out.

        ``project`` as above: whether x tells anything there.
        """
        check_number("sigma", sigma, above=0)
        check_spectrum(spectrum)
        check_flag("project", project)
        self._check(spectrum, x)
        if not has_float64(x.device):
            return self.denoised(x.cpu(), sigma, spectrum, project).to(x)
        spectra, x0, on = self._posterior(x, 1.0, sigma, spectrum, self._seen(spectrum, project))
        return self._real(torch.where(on, x0, spectra), x)

    def _seen(self, noise: Noise, project: bool) -> Tensor:
        """The frequencies of x_t that a network sees (`sagd.formulations.base.trained_on`)."""
        self._check(noise)
        if not project and (self.power[..., ~noise.support] == 0).any():
            raise InputError("without project the target needs variance at every frequency that the noise leaves out")
        return noise.support if project else torch.ones_like(noise.support)

    def _check(self, noise: Noise, xt: Tensor | None = None) -> None:
        """Refuse noise of another size, and examples of another shape, which would be broadcast."""
        check_noise(noise)
        if noise.size != tuple(self.means.shape[2:]):
            raise InputError(f"the noise is for {noise.size}, the target is of {tuple(self.means.shape[2:])}")
        if xt is not None:
            check_floating("x_t", xt)
            if xt.shape[1:] != self.means.shape[1:]:
                shape = ", ".join(map(str, self.means.shape[1:]))
                raise InputError(f"x_t has the shape {tuple(xt.shape)}; for this target it must be (B, {shape})")

    def _posterior(
        self, xt: Tensor, signal: Time, sigma: Time, spectrum: Spectrum, support: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The DFT of x_t = signal x0 + sigma eps_w and of E[x0 | x_t], and where the noise is."""
        self._check(spectrum, xt)
        here = self._kept("to", xt.device)
        spectra, means, variance, on = here._at(xt, signal, sigma, spectrum.weight, support)
        gains = signal * here.power / variance  # of x_t - signal mean, towards x0
        shares = here._responsibilities(spectra, signal * means, variance, on)
        if len(here.power) == 1:
            mean = (shares.to(means.dtype) @ means.flatten(1)).reshape(spectra.shape)
            return spectra, mean + gains * (spectra - signal * mean), on
        each = (m + g * (spectra - signal * m) for m, g in zip(means, gains, strict=True))
        x0 = sum(share.reshape(-1, *[1] * (xt.ndim - 1)) * x for share, x in zip(shares.T, each, strict=True))
        return spectra, x0, on

    def _real(self, spectra: Tensor, like: Tensor) -> Tensor:
        return torch.fft.ifftn(spectra, dim=self._axes, norm="ortho").real.to(like.dtype)

    def log_density(self, xt: Tensor, t: int, schedule: Schedule, noise: Noise) -> Tensor:
        """log q(x_t), (B,), of the frequencies that the noise reaches; t = -1 is the target itself (then every one)."""
        t = whole("t", t, -1, len(schedule) - 1)
        self._check(noise, xt)
        if t < 0 and not (self.power > 0).all():
            raise InputError("the target has no density where its variance is 0; at t >= 0 the noise gives it one")
        if not has_float64(xt.device):
            return self.log_density(xt.cpu(), t, schedule, noise).to(xt)
        here, now = self._kept("to", xt.device), noise.at(max(t, 0)).weight
        alpha_bar = schedule.alpha_bar[t].item() if t >= 0 else 1.0
        signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        support = noise.support if t >= 0 else torch.ones_like(noise.support)
        spectra, means, variance, on = here._at(xt, signal, sigma, now, support)
        return here._log_joint(spectra, signal * means, variance, on).logsumexp(1)

    def _at(
        self, xt: Tensor, signal: Time, sigma: Time, weight: Tensor, support: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The DFT of x_t and of the components' means, the variances in x_t, and the support of the noise."""
        on = support.to(xt.device, non_blocking=True)  # so that no step of a sampler waits
        variance = (signal**2 * self.power + (sigma * weight.to(xt.device, non_blocking=True)).square()).where(on, 1.0)
        spectra, means = (torch.fft.fftn(x.double(), dim=self._axes, norm="ortho") for x in (xt, self.means))
        return spectra, means, variance, on

    def _responsibilities(self, *at: Tensor) -> Tensor:
        if len(self.means) == 1:
            return torch.ones((len(at[0]), 1), dtype=torch.float64, device=at[0].device)
        return self._log_joint(*at).softmax(1)

    def _log_joint(self, spectra: Tensor, centres: Tensor, variance: Tensor, on: Tensor) -> Tensor:
        """log weight + log N(x_t; component), (B, K). A real x has its power at f and -f alike: the sum over all f
        is its Mahalanobis distance.
        """
        scale = (on / variance.sqrt()).expand(len(variance), *spectra.shape[1:])

        def flat(x: Tensor, scale: Tensor) -> Tensor:
            return torch.view_as_real((x * scale).flatten(1)).flatten(1)

        if len(variance) == 1:
            # Not by matrix products: they would lose the difference of near points.
            distance = torch.cdist(
                flat(spectra, scale[0]), flat(centres, scale[0]), compute_mode="donot_use_mm_for_euclid_dist"
            )
        else:
            each = [flat(spectra - c[None], s).norm(dim=1) for c, s in zip(centres, scale, strict=True)]
            distance = torch.stack(each, 1)
        count = spectra.shape[1] * on.sum(dtype=torch.float64)
        volume = (variance.log() * on).flatten(1).sum(1) + count * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * (distance.square() + volume)


def _at_each_time(predict: Callable[[Tensor, Time], Tensor], together: bool, constant: bool = True) -> Predict:
    """A network of what predicts at one time: examples of other times are predicted apart.

    On an accelerator nothing is asked of it, unless the noise is not ``constant``: a time is a tensor (B, 1, ...), of
    all examples ``together``, or of one. Where there is no float64 all is computed on the CPU.
    """

    def network(xt: Tensor, t: Tensor) -> Tensor:
        check_floating("x_t", xt)
        if not isinstance(t, Tensor):
            check_number("t", t)
            t = torch.tensor(t, dtype=torch.float64 if isinstance(t, float) else torch.int64, device="cpu")
        times = t.reshape(-1)
        if len(times) not in (1, len(xt)):
            raise InputError(f"t has the shape {tuple(t.shape)}; it must be one number, or one for each of {len(xt)}")
        if not has_float64(xt.device):
            return network(xt.cpu(), times.cpu()).to(xt)
        if times.device.type != "cpu" and constant:
            shaped = times.reshape(-1, *[1] * (xt.ndim - 1))
            if together or len(shaped) == 1:
                return predict(xt, shaped)
            each = zip(xt.split(1), shaped.expand(len(xt), *shaped.shape[1:]).split(1), strict=True)
            return torch.cat([predict(x, now) for x, now in each])
        if len(times) == 1 or bool((times == times[0]).all()):
            return predict(xt, times[0].item())
        found = torch.zeros_like(xt)
        for now in times.unique():
            found[times == now] = predict(xt[times == now], now.item())
        return found

    return network


def gaussian_field(mean: Tensor, power: Tensor) -> Mixture:
    """The Gaussian with a mean and a variance at each frequency, both (C, *size): `sagd.spaces.moments.statistics`."""
    check_floating("mean", mean)
    check_floating("power", power)
    mean = double(mean)
    power = double(power).to(mean.device)
    return Mixture(mean[None], power[None], torch.ones(1, dtype=torch.float64, device=mean.device))


def finite(images: Tensor, power: float = 0.0) -> Mixture:
    """The data set itself, (N, C, *size), floating-point, each as likely; ``power`` widens each by white noise."""
    check_floating("images", images)
    check_number("power", power, least=0)
    if images.ndim < 3 or not len(images):
        raise InputError(f"images have the shape {tuple(images.shape)}; they must be (N, C, *size), N 1 or more")
    images = double(images)
    shares = torch.full((len(images),), 1 / len(images), dtype=torch.float64, device=images.device)
    return Mixture(images, torch.full_like(images[:1], power), shares)


def drawn(field: Mixture, diffusion: Diffusion, noise: Noise, sampler: Sampler) -> Mixture:
    """The Gaussian field that a sampler draws from, if its network is perfect and the data are a Gaussian field.

    Each step of a sampler is then affine, and the same at a frequency and its mirror; three probes through the very
    `Diffusion.step` that samples give its offset, its gain and what it makes of fresh noise.

    Parameters
    ----------
    field
        Of `gaussian_field`: the data.
    sampler
        Unclipped: clipping is not affine.

    Raises
    ------
    InputError
        Noise that is not Gaussian, a target of several components, a sampler that clips or does not go with the noise.
    """
    check_discrete(diffusion)
    diffusion.check(noise, sampler)
    if not noise.gaussian:
        raise InputError("normalize=sample is no Gaussian noise: what a sampler draws with it is not known exactly")
    if len(field.means) != 1:
        raise InputError(f"the target has {len(field.means)} components; the distribution drawn is exact for one")
    if sampler.clip:
        raise InputError("a sampler that clips draws from no Gaussian field; clip must be off")
    field._check(noise)
    field = field._kept("to", torch.device("cpu"))
    axes = field._axes
    predict = field.predict(diffusion.schedule, noise, diffusion.prediction)
    timesteps = diffusion.timesteps(sampler)
    alpha_bar = diffusion.alpha_bar[timesteps[0]]
    mean, power = torch.zeros_like(field.means[0]), noise.at(timesteps[0]).weight.square().expand_as(field.power[0])
    if sampler.start == "marginal":
        mean = noise.project(alpha_bar.sqrt() * field.means[0])
        power = (alpha_bar * field.power[0] + (1 - alpha_bar) * power) * noise.support
    flat = torch.ones_like(mean).to(torch.complex128)  # every frequency once
    pulse = torch.fft.ifftn(flat, dim=axes, norm="ortho").real
    nothing = torch.zeros_like(pulse)
    white = torch.stack([nothing, nothing, pulse])
    for t, t_prev in pairwise([*timesteps, -1]):
        probes = torch.stack([mean, mean + pulse, mean])
        there = diffusion.step(predict, noise, probes, t, t_prev, sampler, white=lambda: white)
        gain, fresh = (torch.fft.fftn(there[k] - there[0], dim=axes, norm="ortho").real for k in (1, 2))
        mean, power = there[0], gain.square() * power + fresh.square()
    return gaussian_field(mean, power)


def distance(a: Mixture, b: Mixture) -> dict[str, float]:
    """`sagd.spaces.moments.field_distance` of two Gaussian fields."""
    return field_distance(*({"mean": field.means[0], "power": field.power[0]} for field in (a, b)))
