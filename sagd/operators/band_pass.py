"""Noise in one band (eq. 13)."""

from sagd.errors import InputError
from sagd.noise.grid import Grid, Size, Units, band_edges, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized


def band_pass(
    size: Size,
    band: tuple[float, float],
    *,
    units: Units = "corner",
    grid: Grid = "fftfreq",
    normalize: Normalize = "expected",
) -> Spectrum:
    """Noise in one band (eq. 13): w(f) = 1 where low <= d(f) <= high, else 0.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    band
        Its edges, [low, high], 0 <= low < high; both belong to it.
    units
        Of band edges: ``corner``, fractions of the largest radius, so that 1 reaches every frequency; ``nyquist``,
        fractions of 1/2; ``cycles`` per pixel.
    grid
        ``fftfreq``: the frequencies of the DFT; ``linspace``: as the paper's listing, without a zero frequency.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    d, low, high = band_edges(radius(size, grid), band, units)
    weight = ((d >= low) & (d <= high)).double()
    if not weight.any():
        raise InputError(f"band [{low}, {high}] ({units}) holds no frequency of a {size} grid")
    recipe = {"operator": "band_pass", "size": size, "band": [low, high], "units": units, "grid": grid}
    return normalized(weight, normalize, recipe)
