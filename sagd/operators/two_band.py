"""Two bands, bpm-SAGD (eq. 14), and selective omission (section 3.3)."""

from typing import Literal

import torch

from sagd.errors import InputError, check_number, one_of
from sagd.noise.grid import Grid, Size, Units, band_edges, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized


def two_band(
    size: Size,
    gamma_low: float = 0.5,
    low: tuple[float, float] = (0.0, 0.5),
    high: tuple[float, float] = (0.5, 1.0),
    *,
    bands: Literal["joint", "per_band"] = "joint",
    units: Units = "corner",
    grid: Grid = "fftfreq",
    normalize: Normalize = "expected",
) -> Spectrum:
    """bpm-SAGD (eq. 14): gamma_low on the low band, 1 - gamma_low on the high one, nothing elsewhere.

    Bands that touch share no bin: the common edge belongs to the high one. Where they leave a gap, the gap is
    closed, so that it holds all of `band_pass` over the same edges (selective omission, section 3.3). Normalised to
    unit pixel variance, noise with a gap is a little stronger outside of it than white noise: without [0.4, 0.5] w is
    1.084 on the support at 32 pixels, that is 17 % more energy there, and 1.069, 14 %, at 16.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    gamma_low
        Weight of the low band, in [0, 1]; the high one has the rest.
    low
        Edges of the low band; it ends where the high one begins, or before.
    high
        Edges of the high band.
    bands
        ``joint``: one field, so that gamma_low = 1/2 over touching bands is exactly white; ``per_band``: each band
        brought to unit variance before it is weighted (the listing of App. E).
    units
        Of band edges: ``corner``, fractions of the largest radius, so that 1 reaches every frequency; ``nyquist``,
        fractions of 1/2; ``cycles`` per pixel.
    grid
        ``fftfreq``: the frequencies of the DFT; ``linspace``: as the paper's listing, without a zero frequency.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    one_of("bands", bands, ("joint", "per_band"))
    check_number("gamma_low", gamma_low, least=0, most=1)
    d, low_from, low_to = band_edges(radius(size, grid), low, units, "low")
    d, high_from, high_to = band_edges(radius(size, grid), high, units, "high")
    if low_to > high_from:
        raise InputError(f"low {list(low)} and high {list(high)} overlap; low must end where high begins, or before")
    in_low = (d >= low_from) & (d < low_to)
    in_high = (d >= high_from if low_to == high_from else d > high_from) & (d <= high_to)
    if not (in_low.any() and in_high.any()):
        raise InputError(f"low {list(low)} or high {list(high)} ({units}) holds no frequency of a {size} grid")
    weight = torch.zeros_like(d)
    for gamma, inside in ((gamma_low, in_low), (1 - gamma_low, in_high)):
        if bands == "per_band":
            weight += gamma * inside.double().mean().rsqrt() * inside
        else:
            weight += gamma * inside.float()  # in float32, as studies so far have it
    recipe = {
        "operator": "two_band",
        "size": size,
        "gamma_low": gamma_low,
        "low": list(low),
        "high": list(high),
        "bands": bands,
        "units": units,
        "grid": grid,
    }
    return normalized(weight, normalize, recipe)
