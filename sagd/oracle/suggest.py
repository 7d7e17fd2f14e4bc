"""Choose alpha without a sweep.

The data are replaced by the Gaussian field with their mean image and their power at each frequency. For that the best
network is known in closed form, and so is the distribution that a sampler draws with it (`drawn`): its distance to the
field is the sampler's own error, which shaped noise moves. No network learns anything here, so what shaping does to
learning is not in it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sagd.errors import InputError, shortened
from sagd.formulations.base import Sampler, check_discrete
from sagd.formulations.diffusion import Diffusion
from sagd.noise.grid import Grid
from sagd.noise.spectrum import Normalize
from sagd.operators.power_law import power_law
from sagd.oracle.targets import distance, drawn, gaussian_field
from sagd.runtime.parallel import concurrently

ALPHAS = tuple(round(0.01 * k, 2) for k in range(-50, 51))


@dataclass(frozen=True)
class Suggestion:
    """The error of a perfect network's samples over alpha.

    Parameters
    ----------
    curve
        alpha to the parts of the squared distance (`sagd.oracle.distance`).
    """

    curve: dict[float, dict[str, float]]

    def error(self, alpha: float) -> float:
        """The squared distance at an alpha that was tried: its parts together."""
        if alpha not in self.curve:
            raise InputError(f"alpha {alpha!r} is none of the {len(self.curve)} that were tried")
        return sum(self.curve[alpha].values())

    @property
    def best(self) -> float:
        """Where the error is least."""
        return min(self.curve, key=self.error)

    @property
    def flat(self) -> tuple[float, float]:
        """The alphas around the best one at which the error is at most one percent larger."""
        alphas = sorted(self.curve)
        low = high = alphas.index(self.best)
        most = 1.01 * self.error(self.best)
        while low > 0 and self.error(alphas[low - 1]) <= most:
            low -= 1
        while high < len(alphas) - 1 and self.error(alphas[high + 1]) <= most:
            high += 1
        return alphas[low], alphas[high]

    @property
    def alpha(self) -> float:
        """What to take: of the alphas as good as the best (`flat`) the one nearest to 0.

        Shaping also changes what a network learns, which the oracle does not see: a gain too small to matter is no
        reason to shape more.
        """
        low, high = self.flat
        return min((alpha for alpha in self.curve if low <= alpha <= high), key=abs)


def suggest(
    mean: Tensor,
    power: Tensor,
    diffusion: Diffusion,
    sampler: Sampler,
    *,
    alphas: Collection[float] = ALPHAS,
    grid: Grid = "fftfreq",
    dc: Literal["lowest", "floor"] = "lowest",
    normalize: Normalize = "expected",
    report: Callable[[int], None] = lambda alphas: None,
) -> Suggestion:
    """The sampler's own error for power-law noise of every alpha.

    Parameters
    ----------
    mean, power
        (C, H, W), of `sagd.spaces.moments.statistics`.
    diffusion, sampler
        As for `drawn`.
    alphas
        Those to try. 0 is among the default ones, -0.5 to 0.5.
    grid, dc, normalize
        As for `sagd.power_law`.
    report
        Called with 1 after each alpha.

    Raises
    ------
    InputError
        Images that are all alike, statistics that are not finite, noise that is not Gaussian.
    """
    if not isinstance(alphas, Collection) or isinstance(alphas, str) or not len(alphas):
        raise InputError(f"alphas is {shortened(repr(alphas), 60)}; it must be one or more numbers")
    check_discrete(diffusion)
    field = gaussian_field(mean, power)
    if not power.sum() > 1e-24 * mean.square().sum():  # else what there is comes of rounding
        raise InputError("the images are all alike, or there is but one: they have no power at any frequency")

    def error(alpha: float) -> dict[str, float]:
        noise = power_law(tuple(mean.shape[1:]), alpha, grid=grid, dc=dc, normalize=normalize)
        found = distance(drawn(field, diffusion, noise, sampler), field)
        report(1)
        return found

    errors = concurrently(error, alphas, torch.device("cpu"))
    return Suggestion(dict(zip(alphas, errors, strict=True)))


def verdict(from_noise: Suggestion, from_marginal: Suggestion) -> str:
    """What the curves say, in words that follow from their numbers: shape the noise, start right, or neither."""
    plain, alpha = from_noise.error(0.0), from_noise.alpha
    gain, right = 1 - from_noise.error(alpha) / plain, 1 - from_marginal.error(0.0) / plain
    if alpha == 0:
        said = "No alpha is better than 0 by more than one percent of the error that sampling has there"
    else:
        there, here = from_noise.curve[alpha], from_noise.curve[0.0]
        mean, dc, rest = (f"{(there[part] - here[part]) / plain:+.1%}" for part in ("mean", "dc", "rest"))
        said = (
            f"alpha {alpha:g} takes {gain:.1%} off the error that sampling has at alpha 0 ({mean} in the mean image, "
        )
        said += f"{dc} in the spread of the brightness, {rest} in all else)"
    said += f"; a start from the true marginal {'takes off' if right >= 0 else 'adds'} {abs(right):.1%} at alpha 0."
    if max(gain, right) < 0.02:
        return said + " Neither matters to the sampler here."
    if gain > right + 0.02:
        return said + " So shaping does more than the right start."
    more = "more" if right > gain + 0.02 else "about as much"
    return said + f" So the right start does {more}, and costs no training."
