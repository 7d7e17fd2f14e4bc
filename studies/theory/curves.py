"""What the page of the theory computes: exact errors of samplers, what they say of alpha, spectra of data.

No network is in it; those of the page's test are in `studies.theory.start`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import sagd
from sagd.data.load import read
from sagd.figures.theory import Spectra, trajectory
from sagd.formulations.base import Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.metrics.rapsd import exponent
from sagd.noise.base import Noise
from sagd.noise.grid import Size
from sagd.oracle.suggest import Suggestion, suggest, verdict
from sagd.oracle.targets import Mixture, distance, drawn, gaussian_field
from sagd.runtime.files import read_tensors

PUBLISHED = Path(__file__).parents[1] / "paper" / "published" / "table_f1_fid.csv"
STATISTICS = Path(__file__).with_name("statistics")
DATA = {"MNIST": "mnist", "CIFAR-10": "cifar10"}  # the data sets whose mean image and power are at hand
# What the paper leaves open, as arguments of `sagd.power_law`.
CONVENTIONS = {
    "DC floor (the listing)": {"dc": "floor"},
    "DC floor, not normalised": {"dc": "floor", "normalize": "none"},
    "DC as the lowest radius": {"dc": "lowest"},
    "linspace grid (no DC bin)": {"grid": "linspace"},
}
Statistics = dict[str, Tensor]  # mean and power, (C, H, W): `sagd.spaces.moments.statistics`
Curves = dict[str, Suggestion]  # by the start of sampling, noise and marginal


def digits() -> np.ndarray:
    """MNIST digits at 32 x 32, (N, 1, 32, 32), uint8."""
    return read("mnist_5k", None, 32)


def photograph() -> Tensor:
    """A photograph of scikit-learn's, (3, 64, 64), float64, in [-1, 1]."""
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(load_sample_image("china.jpg")[:, 100:527].copy()).movedim(-1, 0).double() / 127.5 - 1
    return torch.nn.functional.interpolate(pixels[None], (64, 64), mode="bicubic", antialias=True)[0]


def tilted(alphas: Sequence[float], size: Size = (32, 32), **convention: Any) -> dict[str, sagd.Spectrum]:
    """Power-law noise of several exponents, by name."""
    return {f"alpha = {a:+g}" if a else "alpha = 0": sagd.power_law(size, a, **convention) for a in alphas}


def every_operator(power: Tensor, schedule: Schedule) -> Spectra:
    """One noise of each kind that the library has, by name; ``power`` (H, W) is that of the data."""
    size = tuple(power.shape)
    low, high = tilted((-0.5, 0.5), size).values()
    return {
        "isotropic": sagd.isotropic(size),
        "power law, alpha -0.5": low,
        "power law, alpha +0.5": high,
        "two-band without 0.25 to 0.35": sagd.two_band(size, 0.5, low=(0, 0.25), high=(0.35, 0.75), units="cycles"),
        "exponential, beta 4": sagd.exponential(size, 4.0),
        "EqualSNR": sagd.equal_snr(size, power),
        "data-matched (radial)": sagd.data_matched(size, power),
        "varying, alpha -0.5 to +0.5": sagd.Varying(low, high, schedule.alpha_bar),
    }


def change_of_basis(
    target: Mixture, noises: Mapping[str, sagd.Spectrum], white: Tensor, schedule: Schedule, steps: int = 50
) -> float:
    """The largest difference between shaped diffusion and T_w times white diffusion of the whitened target, by DDIM.

    Parameters
    ----------
    noises
        Of `sagd.figures.theory.toy`: alpha = -0.5 is the shaped noise.
    white
        (B, C, *size), float64: the particles.
    """
    shape, plain = noises["alpha = -0.5"], noises["alpha = 0"]
    unshape = sagd.Spectrum(1 / shape.weight)
    whitened = Mixture(unshape.sqrt(target.means), target.power / shape.weight.square(), target.weights)
    shaped, other = (
        trajectory(t.predict(schedule, n), schedule, n, n.shape(white), schedule.timesteps(steps))
        for t, n in ((target, shape), (whitened, plain))
    )
    return (shaped - shape.sqrt(other)).abs().max().item()


def step_errors(
    data: Statistics,
    schedule: Schedule,
    noises: Spectra,
    counts: Sequence[int],
    samplers: Sequence[str] = ("ddim", "heun", "euler", "ddpm"),
) -> dict[str, dict[str, dict[int, float]]]:
    """The exact squared distance that a perfect network leaves, from the right start: by noise, sampler and steps."""
    field, diffusion = gaussian_field(**data), Diffusion(schedule)

    def error(noise: Noise, sampler: str, steps: int) -> float:
        how = Sampler(sampler, steps, start="marginal")
        return sum(distance(drawn(field, diffusion, noise, how), field).values())

    return {
        name: {sampler: {n: error(noise, sampler, n) for n in counts} for sampler in samplers}
        for name, noise in noises.items()
    }


def statistics() -> dict[str, Statistics]:
    """Mean image and power of the data sets at hand."""
    return {name: read_tensors(STATISTICS / f"{file}.safetensors") for name, file in DATA.items()}


def published() -> dict[str, pd.DataFrame]:
    """The published FIDs of the same data sets, by alpha in rising order: alpha, fid_mean, fid_stderr."""
    fid = pd.read_csv(PUBLISHED)
    return {name: fid[fid.dataset == file].sort_values("alpha") for name, file in DATA.items()}


def curve(
    data: Statistics, schedule: Schedule, alphas: Sequence[float], sampler: Sampler, **convention: Any
) -> Suggestion:
    """The error of a perfect network's samples over alpha."""
    return suggest(data["mean"], data["power"], Diffusion(schedule), sampler, alphas=alphas, **convention)


def both_starts(data: Statistics, schedule: Schedule, alphas: Sequence[float]) -> Curves:
    """`curve` with the paper's sampler and listing, from noise and from the true marginal."""
    return {s: curve(data, schedule, alphas, Sampler(start=s), dc="floor") for s in ("noise", "marginal")}


def beside_published(curves: dict[str, Curves], tables: dict[str, pd.DataFrame]) -> str:
    """How the oracle's errors compare with the published FIDs, a line a data set, in Markdown."""
    return "\n".join(f"- **{name}**: {_beside(curves[name], rows)}" for name, rows in tables.items())


def _beside(curves: Curves, rows: pd.DataFrame) -> str:
    from scipy.stats import spearmanr

    noise, alphas = curves["noise"], rows.alpha.tolist()
    rank = spearmanr([noise.error(a) for a in alphas], rows.fid_mean).statistic
    null = spearmanr(alphas, rows.fid_mean).statistic
    fids, plain, last = rows.set_index("alpha").fid_mean, noise.error(0.0), max(alphas)
    edge = " (the edge of what was tried)" if noise.best in (min(alphas), last) else ""
    weight = "so the order alone is no evidence for it" if abs(rank) - abs(null) < 0.1 else "more than alpha alone has"
    return (
        f"rank correlation (Spearman) of the oracle's error with the published FID over the {len(rows)} alphas "
        f"{rank:+.2f}; that of alpha itself {null:+.2f}, {weight}. Least error at {noise.best:g}{edge}, least "
        f"published FID at {fids.idxmin():g}. From alpha 0 to {last:+g} the oracle's error grows "
        f"{noise.error(last) / plain:.1f} times, the published FID {fids[last] / fids[0.0]:.1f} times. "
        f"{verdict(noise, curves['marginal'])}"
    )


def over_conventions(
    data: dict[str, Statistics],
    schedule: Schedule,
    alphas: Sequence[float],
    counts: Sequence[int] = (10, 50, 100),
) -> pd.DataFrame:
    """The best alpha for every convention that the paper leaves open, spacing, and number of steps.

    A cell says the alpha and what it takes off the error at alpha 0; ``right start`` what the true marginal takes off.
    """
    rows = [
        {"data": name, "spacing": spacing, "steps": steps, **_best(data[name], schedule, alphas, steps, spacing)}
        for name in data
        for spacing in ("leading", "trailing")
        for steps in counts
    ]
    return pd.DataFrame(rows).sort_values(["data", "spacing", "steps"])


def _best(data: Statistics, schedule: Schedule, alphas: Sequence[float], steps: int, spacing: str) -> dict[str, str]:
    found, sampler = {}, Sampler(steps=steps, spacing=spacing)
    for name, convention in CONVENTIONS.items():
        errors = curve(data, schedule, alphas, sampler, **convention)
        plain = errors.error(0.0)  # the same in all conventions: there the noise is white
        found[name] = f"{errors.best:+g}: {errors.error(errors.best) / plain - 1:+.0%}"
    right = curve(data, schedule, [0.0], Sampler(steps=steps, spacing=spacing, start="marginal")).error(0.0)
    return {"right start": f"{right / plain - 1:+.0%}", **found}


def suggestions(curves: dict[str, Curves], tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The suggested alpha beside the published FIDs: a ``hit`` within two standard errors of the published best."""
    rows = []
    for name, table in tables.items():
        fid, noise = table.set_index("alpha"), curves[name]["noise"]
        predicted, best = noise.alpha, fid.fid_mean.idxmin()
        gap = fid.fid_mean[predicted] - fid.fid_mean[best]
        error = (fid.fid_stderr[predicted] ** 2 + fid.fid_stderr[best] ** 2) ** 0.5
        rows.append(
            {
                "data": name,
                "suggested alpha": predicted,
                "published best": best,
                "FID at the suggestion": f"{fid.fid_mean[predicted]:.2f} ± {fid.fid_stderr[predicted]:.2f}",
                "FID at the best": f"{fid.fid_mean[best]:.2f} ± {fid.fid_stderr[best]:.2f}",
                "FID at 0": f"{fid.fid_mean[0.0]:.2f} ± {fid.fid_stderr[0.0]:.2f}",
                "predicted gain": f"{1 - noise.error(predicted) / noise.error(0.0):.0%}",
                "verdict": "hit" if gap <= 2 * error else "miss",
            }
        )
    return pd.DataFrame(rows)


def hits_text(suggested: pd.DataFrame) -> str:
    """How often the suggestion is a hit, and what it does not know, in Markdown."""
    hits = (suggested.verdict == "hit").sum()
    return (
        f"{hits} of the {len(suggested)} data sets at hand. The rule knows the sampler's error alone, and nothing "
        "about what a network finds hard to learn. Not measured: QuickDraw, WikiArt, FFHQ and ImageNet, whose data are "
        "not at hand."
    )


def spectra(data: dict[str, Statistics]) -> pd.DataFrame:
    """The power law that each data set follows."""
    rows = []
    for name, found in data.items():
        fit = exponent(found["power"])
        rows.append(
            {
                "data": name,
                "power falls as": f"r^{fit.slope:.2f}",
                "95 % interval": f"{fit.low:.2f} to {fit.high:.2f}",
                "alpha of noise alike": f"{fit.alpha:.2f}",
                "mean pixel": f"{found['mean'].mean():+.3f}",
            }
        )
    return pd.DataFrame(rows)
