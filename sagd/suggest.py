"""Choose alpha without a sweep: ``python -m sagd.suggest DATA``."""

from dataclasses import dataclass

from torch import Tensor

from sagd.diffusion import Schedule
from sagd.oracle import distance, drawn, gaussian_field
from sagd.spectrum import power_law

ALPHAS = tuple(round(0.01 * k, 2) for k in range(-20, 21))


@dataclass(frozen=True)
class Suggestion:
    alpha: float
    curve: dict[float, dict[str, float]]


def suggest(
    mean: Tensor,
    power: Tensor,
    schedule: Schedule,
    timesteps: list[int],
    *,
    alphas=ALPHAS,
    sampler: str = "ddim",
    start: str = "noise",
    grid: str = "fftfreq",
    dc: str = "lowest",
    normalize: str = "expected",
) -> Suggestion:
    field = gaussian_field(mean, power)
    curve = {}
    for alpha in alphas:
        spectrum = power_law(tuple(mean.shape[1:]), alpha, grid=grid, dc=dc, normalize=normalize)
        curve[alpha] = distance(drawn(field, schedule, spectrum, timesteps, sampler=sampler, start=start), field)
    best = min(curve, key=lambda alpha: sum(curve[alpha].values()))
    return Suggestion(best, curve)
