"""When noise drowns the data: signal-to-noise ratios by ring and band, and the step at which each falls below one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sagd.errors import InputError, check_values, whole
from sagd.formulations.schedule import Schedule
from sagd.noise.base import Noise
from sagd.noise.devices import double
from sagd.noise.grid import BANDS, Units, band_masks, band_means, ring_means
from sagd.operators.isotropic import isotropic


def snr(
    power: Tensor,
    schedule: Schedule,
    noise: Noise,
    t: Sequence[int] | Tensor,
    average: Callable[[Tensor], Tensor] = ring_means,
) -> Tensor:
    """Signal-to-noise ratio of x_t in each ring: alpha_bar_t P / (sigma_t^2 w_t^2), P and w_t^2 averaged over it.

    Parameters
    ----------
    power
        (..., H, W), 0 or more; leading axes are averaged.
    t
        (T',), steps of the schedule, in [0, T).
    average
        From (H, W) to (K,): rings, or bands by `band_means`.

    Returns
    -------
    Tensor
        (T', K), float64; infinite where there is no noise.
    """
    check_values("power", power, least=0)
    if noise.size != tuple(power.shape[-2:]):
        raise InputError(f"the noise is for {noise.size}, the data's power for {tuple(power.shape[-2:])}")
    signal = average(double(power).cpu().reshape(-1, *noise.size).mean(0))
    steps = [whole("an entry of t", k, 0, len(schedule) - 1) for k in t]
    if noise.constant:
        variance = average(noise.at(0).weight.square())
    else:
        variance = torch.stack([average(noise.at(k).weight.square()) for k in steps])
    alpha_bar = schedule.alpha_bar[steps][:, None]
    return alpha_bar * signal / ((1 - alpha_bar) * variance)


@dataclass(frozen=True)
class Band:
    """A row of `band_table`: edges (0 and 0: the zero frequency alone), and what the data have between them."""

    low: float
    high: float
    frequencies: int
    share: float  # of the data's variance
    power: float | None  # mean; None where the band holds no frequency
    drowns: int | None  # the first step with an SNR below 1; None where no step has


def band_table(
    power: Tensor,
    schedule: Schedule | None = None,
    noise: Noise | None = None,
    bands: Sequence[tuple[float, float]] = BANDS,
    units: Units = "corner",
) -> list[Band]:
    """The zero frequency and each band of a power spectrum (..., H, W): its variance, and the step at which it drowns.

    The schedule is linear and the noise white unless others are given; ``bands`` and ``units`` are as in `band_masks`.
    """
    check_values("power", power, least=0)
    size = tuple(power.shape[-2:])
    power, masks = double(power).cpu().reshape(-1, *size).mean(0), band_masks(size, bands, units)
    if not power.sum() > 0:
        raise InputError("the images are all alike: there is no variance to share between bands")
    schedule, noise = schedule or Schedule.linear(), noise or isotropic(size)
    below = snr(power, schedule, noise, range(len(schedule)), lambda values: band_means(values, masks)) < 1
    rows = []
    for k, ((low, high), mask) in enumerate(zip(((0.0, 0.0), *bands), masks, strict=True)):
        inside = power[mask]
        rows.append(
            Band(
                low,
                high,
                frequencies=len(inside),
                share=float(inside.sum() / power.sum()),
                power=float(inside.mean()) if len(inside) else None,
                drowns=int(below[:, k].int().argmax()) if below[:, k].any() else None,
            )
        )
    return rows
