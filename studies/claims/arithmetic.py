"""What the published tables and equations say by themselves: plain arithmetic, in Markdown."""

import math
from collections.abc import Sequence

import pandas as pd
import torch

from pipeline.pages.verdicts import number
from sagd.formulations.schedule import Schedule
from sagd.operators import band_pass, power_law
from sagd.oracle.targets import Mixture
from studies.plan import BANDS


def theorem() -> str:
    """Eq. 30 in numbers: the score of x_t tends to the data's as t goes to 0, whatever the noise; in Markdown."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((3, 1, 8, 8), generator=generator, dtype=torch.float64)
    target = Mixture(means, torch.full_like(means[:1], 0.1), torch.full((3,), 1 / 3, dtype=torch.float64))
    x = target.sample(50, generator=generator).requires_grad_()
    told, least = [], math.inf
    for alpha in (-0.5, 0.0, 0.5):
        spectrum, errors = power_law((8, 8), alpha), []
        for sigma_squared in (1e-2, 1e-4):
            schedule = Schedule(torch.tensor([1 - sigma_squared], dtype=torch.float64))
            of_data, of_xt = (
                torch.autograd.grad(target.log_density(x, t, schedule, spectrum).sum(), x)[0] for t in (-1, 0)
            )
            errors.append(((of_xt - of_data).norm() / of_data.norm()).item())
        least = min(least, errors[0] / errors[1])
        told.append(f"alpha {alpha:+g}: {errors[0]:.1e}, {errors[1]:.1e}")
    return (
        f"**The theorem behind it, checked in numbers (eq. 30).** It {'holds' if least > 50 else 'fails'}: exact "
        "scores of a mixture of Gaussians at sigma_t^2 = 0.01 and 0.0001, relative difference from the data's score: "
        f"{'; '.join(told)}. This says nothing about trained networks."
    )


def tiny_weights(alpha: float = 0.001, size: int = 256) -> str:
    """By how much an exponent changes the weights, and an image of noise, in Markdown."""
    w = power_law((size, size), alpha).weight
    change = (w - 1).square().mean().sqrt().item()
    ratio = w.max().item() / w.min().item()
    return (
        f"**What ±0.001 is.** At alpha {alpha:+g} and {size}x{size} the largest weight is {ratio:.4f} times the "
        "smallest, and noise made of the same white pixels differs from isotropic noise by "
        f"{100 * change:.2f} % of its standard deviation (signal to difference: {-20 * math.log10(change):.0f} dB)."
    )


def published_tiny(table: pd.DataFrame, dataset: str = "ffhq") -> str:
    """The published row at ±0.001 with its errors."""
    rows = table[table.dataset == dataset].set_index("alpha")
    mean, error = rows.fid_mean, rows.fid_stderr
    told = [f"{number(mean[0.0], error[0.0])} at 0"]
    for alpha in (-0.001, 0.001):
        apart = (mean[alpha] - mean[0.0]) / math.hypot(error[alpha], error[0.0])
        told.append(f"{number(mean[alpha], error[alpha])} at {alpha:+g} ({apart:+.1f} standard errors from it)")
    return f"**The row of ±0.001.** Published for FFHQ, FID with its standard error: {'; '.join(told)}."


def listed_boost(sizes: Sequence[int] = (16, 32), alpha: float = -0.06) -> str:
    """The weight of the zero frequency in the listing, in Markdown."""
    found = []
    for size in sizes:
        w = power_law((size, size), alpha, dc="floor").weight
        rest = w.flatten()[1:].square().mean().sqrt()
        found.append(f"{(w[0, 0] / rest).item():.2f} at {size}x{size}")
    told = " and ".join(found)
    return f"**The listing's zero frequency.** At alpha {alpha:g} it has {told} times the weight of the rest."


def bare_corruption(size: int = 32) -> str:
    """Section 3.3 with and without eq. 15, in Markdown."""
    bare = [band_pass((size, size), band, normalize="none").weight.square().mean().sqrt().item() for band in BANDS]
    return (
        "**Section 3.3.** It corrupts by eq. 13 with a weight of 1 in the band, and leaves open whether eq. 15 brings "
        f"it to unit variance, as here: without, its standard deviation is {min(bare):.2f} to {max(bare):.2f} at "
        f"{size}x{size}, and the corruption is that much weaker."
    )
