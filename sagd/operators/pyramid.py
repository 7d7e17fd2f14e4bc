"""Pyramid noise, or multi-resolution noise: white noise, and noise of coarser grids upsampled."""

import functools
from collections import defaultdict
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sagd.errors import InputError, check_number, check_whole, one_of, plainly, shortened
from sagd.noise.grid import Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized
from sagd.operators._upsampling import Upsampling

MOST = 10_000  # iterations: as many take a second or so; the last that could matter come long before
WIDEST = 4096  # of a side, under random ratios: there are about as many grids, and each has as many that follow it
RATIO = (2.0, 4.0)  # between which a random ratio is uniform
_UPSAMPLING = Upsampling()


def pyramid(
    size: Size,
    iterations: int = 6,
    discount: float = 0.3,
    *,
    shrink: float | Literal["random"] = "random",
    sizes: Literal["kohya", "original"] = "kohya",
    normalize: Normalize = "expected",
) -> Spectrum:
    """Pyramid noise (Whitaker 2023): white noise, and for i = 0, 1, ... that of coarser grids, times discount^i.

    It is upsampled linearly (``bilinear`` for images). The last grid is the first that is 1 wide, if `iterations` reach
    it. That of i = 0 has full size, so it adds white noise once more.

    This noise is not alike at all places, so its covariance is not quite diagonal in frequency. The weight is the
    diagonal, w(f)^2 = E |F eps|^2(f), which is that of the average over all shifts: exact in float64, from the rows
    of the upsampling and the probability of each grid. docs/trainers.md says how much the rest is.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    iterations
        Number of grids, from 1 to 10,000, the one of full size included.
    discount
        Standard deviation of each grid's noise over that of the grid before, in [0, 1].
    shrink
        The ratio r by which grids become smaller, above 1; or ``random``: drawn anew for each grid from [2, 4).
    sizes
        Of grid i. ``kohya``: size / r^i, as in sd-scripts; ``original``: that of grid i - 1, over r^i, as in the first
        publication and in EveryDream2, which is coarse much sooner. Rounded down.
    normalize
        ``expected``: unit pixel variance in expectation (eq. 15), exactly Gaussian; ``sample``: each image divided by
        its own standard deviation (App. E); ``none``.
    """
    one_of("sizes", sizes, ("kohya", "original"))
    check_whole("iterations", iterations, 1, MOST)
    check_number("discount", discount, least=0, most=1)
    try:
        if shrink != "random":
            check_number("shrink", shrink, above=1)
    except InputError:
        raise InputError(f"shrink is {shortened(repr(shrink), 60)}; it must be random, or a number above 1") from None
    full = tuple(radius(size).shape)
    if shrink == "random" and max(full) > WIDEST:
        raise InputError(f"size is {full}; under random ratios a side has {plainly(WIDEST)} pixels at most")
    shrunk = functools.cache(_shrunk)  # of kohya's, each grid of an iteration becomes the same ones
    variances: dict[Size, float] = defaultdict(float)  # of the noise on each grid
    grids: dict[Size, float] = {full: 1.0}  # of one iteration, each with its probability
    for i in range(iterations):
        coarser: dict[Size, float] = defaultdict(float)
        for grid, probability in grids.items():
            for small, share in shrunk(full if sizes == "kohya" else grid, i, shrink).items():
                coarser[small] += probability * share
                variances[small] += probability * share * discount ** (2 * i)
        grids = {grid: probability for grid, probability in coarser.items() if min(grid) > 1}
        if not grids:
            break
    recipe = {"operator": "pyramid", "size": size, "iterations": iterations, "discount": discount}
    recipe |= {"shrink": shrink, "sizes": sizes}
    return normalized((1 + _upsampled(variances, full)).sqrt(), normalize, recipe)


def _shrunk(size: Size, i: int, shrink: float | str) -> dict[Size, float]:
    """The grids that size / r^i may be, each with its probability."""

    def grid(r: float) -> Size:
        return tuple(max(1, int(n / r**i)) for n in size)

    if not isinstance(shrink, str):
        return {grid(shrink): 1.0}
    low, high = RATIO
    # The ratios at which a side becomes one pixel smaller; between two of them the grid is the same.
    edges = {(n / k) ** (1 / i) for n in size for k in range(1, n + 1)} if i else set()
    found: dict[Size, float] = defaultdict(float)
    for a, b in pairwise([low, *sorted(r for r in edges if low < r < high), high]):
        found[grid((a + b) / 2)] += (b - a) / (high - low)
    return found


def _upsampled(variances: dict[Size, float], size: Size) -> Tensor:
    """E |F u|^2 of noise u that is upsampled from grids: for each grid, a product over the axes."""
    terms: list = [torch.tensor(list(variances.values()), dtype=torch.float64, device="cpu"), [0]]
    for axis, n in enumerate(size):
        terms += [torch.stack([_UPSAMPLING.power(grid[axis], n) for grid in variances]), [0, axis + 1]]
    return torch.einsum(*terms, [*range(1, len(size) + 1)])
