"""Shaped noise in samplers of k-diffusion's convention: ``noise_sampler(sigma, sigma_next)``."""

import math
from collections.abc import Callable

from torch import Tensor

from sagd.colored import ColoredNoise
from sagd.errors import InputError, check_floating, check_same
from sagd.noise.base import Generators, Noise, check_noise
from sagd.noise.randomness import check_generator

NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def noise_sampler(
    noise: Noise | ColoredNoise, x: Tensor, *, generator: Generators = None, white: NoiseSampler | None = None
) -> NoiseSampler:
    """What a stochastic sampler draws its steps' noise from: N(0, Sigma_w) in place of N(0, I) (App. D.4).

    ``sample_euler_ancestral(model, x, sigmas, noise_sampler=noise_sampler(noise, x, generator=generator))``, where the
    start is ``x = noise.sample(shape, generator=generator) * sigma_max``. Where the noise leaves frequencies out, the
    model's output must be projected onto the others, too: ``noise.project``.

    Parameters
    ----------
    noise
        Of the size of x's last axes, the same at every step; or a `ColoredNoise`, for a network trained on white noise,
        whose start is white.
    x
        (B, ...), of which shape, device and dtype the noise is.
    generator
        The source of randomness, or one for each image; None is torch's global one.
    white
        Draws the white noise to be shaped, in place of ``generator``: such as ``BrownianTreeNoiseSampler`` of
        k-diffusion, which SDE samplers need, since their steps overlap.

    Returns
    -------
    callable
        Takes sigma and sigma_next, and returns noise of x's shape with the covariance Sigma_w.

    Raises
    ------
    InputError
        A spectrum of another size than x, or one that varies from step to step.
    """
    check_floating("x", x)
    check_generator(generator, len(x))
    if not isinstance(noise, ColoredNoise):
        check_noise(noise)
        if not noise.constant:
            raise InputError("a varying spectrum has another noise at each step; a noise sampler has one")
    if tuple(x.shape[-len(noise.size) :]) != noise.size:
        spoken = "x".join(map(str, noise.size))
        raise InputError(f"the spectrum is of {spoken}, and x has the shape {tuple(x.shape)}")

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        its = noise.at_level(_level(float(sigma))) if isinstance(noise, ColoredNoise) else noise
        if white is not None:
            found = white(sigma, sigma_next)
            check_same("white noise", found, "x", x)
            if found.dtype != x.dtype:
                raise InputError(f"white noise is {found.dtype}, and x is {x.dtype}; they must be the same")
            return its.shape(found)
        return its.sample(x.shape, generator=generator, t=0, device=x.device, dtype=x.dtype)

    return draw


def _level(sigma: float) -> float:
    """The logarithm of the signal-to-noise ratio, 1 / sigma^2."""
    if not sigma > 0:
        raise InputError(f"sigma is {sigma:g}; colored noise is for steps that begin at a sigma above 0")
    return -2 * math.log(sigma)
