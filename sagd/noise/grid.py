"""The DFT grid: radial frequencies, rings, bands, and their units."""

import contextlib
import functools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sagd.errors import InputError, check_number, check_same, check_values, one_of, plainly, shortened
from sagd.noise.devices import double

Size = tuple[int, ...]  # of the grid: (L,), (H, W) or (D, H, W)

BANDS = tuple((k / 10, (k + 1) / 10) for k in range(10))
Units = Literal["corner", "nyquist", "cycles"]
Grid = Literal["fftfreq", "linspace"]
LARGEST = 2**28  # frequencies of a grid: a table of them has 2 GB
UNITS: tuple[Units, ...] = get_args(Units)


def cycles(units: Units, dimensions: int = 2) -> float:
    """One unit of a band's edge, in cycles per pixel.

    ``corner``: the largest radius of the grid, sqrt(1/2) for images, so that 1 reaches every frequency. ``nyquist``:
    1/2. ``cycles``: 1.
    """
    one_of("units", units, UNITS)
    return {"corner": math.sqrt(dimensions) / 2, "nyquist": 0.5, "cycles": 1.0}[units]


def radius(size: Size, grid: Grid = "fftfreq") -> Tensor:
    """Radial frequency r(f) of every bin, in cycles per pixel.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W), each at least 2.
    grid
        ``fftfreq``: the frequencies of the DFT. ``linspace``: linspace(-1/2, 1/2, N) shifted, as the paper's
        App. C and E write it; for even N it has no zero frequency.

    Returns
    -------
    Tensor
        ``size``, float64, zero frequency (or what stands for it) at index 0 of every axis.
    """
    one_of("grid", grid, get_args(Grid))
    sides = size if isinstance(size, Sequence) and not isinstance(size, str) else ()
    if not 1 <= len(sides) <= 3 or any(type(n) is bool or not isinstance(n, Integral) or n < 2 for n in sides):
        raise InputError(f"size is {size}; it must be (L,), (H, W) or (D, H, W), each at least 2")
    if math.prod(size) > LARGEST:
        raise InputError(f"size is {size}; a grid has {plainly(LARGEST)} frequencies at most")
    if grid == "fftfreq":
        axes = [torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") for n in size]
    else:
        lines = (torch.linspace(-0.5, 0.5, n, dtype=torch.float64, device="cpu") for n in size)
        axes = [torch.fft.ifftshift(line) for line in lines]
    return functools.reduce(torch.hypot, torch.meshgrid(*axes, indexing="ij")).abs()


def float64(name: str, values: Any) -> Tensor:
    """Real numbers as a tensor on the CPU; InputError where they are none, such as text or complex numbers."""
    if "complex" not in str(getattr(values, "dtype", "")):
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            return torch.as_tensor(values, dtype=torch.float64, device="cpu")
    raise InputError(f"{name} is {shortened(repr(values), 60)}; it must be an array of real numbers")


def rings(size: Size) -> Tensor:
    """The ring of every bin, one bin of the shorter side wide; the zero frequency is ring 0. Shape ``size``, int64."""
    return (radius(size) * min(size)).round().long()


def ring_means(values: Tensor) -> Tensor:
    """Average (..., H, W) over the rings of an image's grid: (..., K), without rings that hold no bin."""
    if values.ndim < 2:
        raise InputError(f"values have the shape {tuple(values.shape)}; they must be (..., H, W)")
    ring = rings(tuple(values.shape[-2:])).flatten().to(values.device)
    count = torch.bincount(ring)
    sums = values.new_zeros((*values.shape[:-2], len(count))).index_add_(-1, ring, values.flatten(-2))
    return (sums / count)[..., count > 0]


def check_moments(mean: Tensor, power: Tensor, dimensions: int = 2) -> None:
    """Refuse a mean and a power (C, *size) of two shapes, or such as no data have; values are looked at on the CPU.

    The power is a variance, 0 or more, and the same at f and -f.
    """
    check_same("power", power, "mean", mean)
    check_values("mean", mean)
    check_power(power, dimensions)


def check_power(power: Tensor, dimensions: int = 2) -> None:
    """Refuse a power (..., *size) that is negative, not finite, or on the CPU not the same at f and -f."""
    check_values("power", power, least=0)
    if power.ndim < dimensions:
        raise InputError(f"power has the shape {tuple(power.shape)}; it must be (..., H, W)")
    if power.device.type != "cpu" or torch.compiler.is_compiling():
        return
    alike = True
    with contextlib.suppress(RuntimeError):  # a fake tensor has no values
        alike = torch.allclose(power, mirror(power, range(-dimensions, 0)), rtol=1e-4)
    if not alike:
        raise InputError("power must be the same at f and -f, as the variance of real data is")


def band_edges(r: Tensor, band: tuple[float, float], units: Units, name: str = "band") -> tuple[Tensor, float, float]:
    """Radii in the given unit, and the edges once checked. Rounded, so that a bin on an edge is on it."""
    low, high = edges(band, units, name)
    return (r / cycles(units, r.ndim)).round(decimals=12), low, high


def edges(band: tuple[float, float], units: Units, name: str = "band") -> tuple[float, float]:
    """The edges of a band, checked and rounded."""
    one_of("units", units, UNITS)
    try:
        low, high = band
        check_number(name, low, least=0)
        check_number(name, high, above=low)
    except (TypeError, ValueError):
        said = shortened(repr(list(band) if isinstance(band, tuple) else band), 60)
        raise InputError(f"{name} is {said}; it needs [low, high], 0 <= low < high, in units of {units!r}") from None
    return round(low, 12), round(high, 12)


def mirror(w: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """w(-f), f on some axes, or on all."""
    axes = tuple(range(w.ndim) if axes is None else axes)
    return w.flip(axes).roll([1] * len(axes), axes)


def band_masks(size: Size, bands: Sequence[tuple[float, float]] = BANDS, units: Units = "corner") -> Tensor:
    """The zero frequency, then each band without it: (1 + B, H, W), bool.

    As in `sagd.two_band`, a common edge belongs to the higher band; the last band holds its upper edge. ``units`` are
    those of `cycles`.
    """
    r = (radius(size) / cycles(units, len(size))).round(decimals=12)
    if not isinstance(bands, Sequence) or isinstance(bands, str) or not bands:
        raise InputError(f"bands is {shortened(repr(bands), 60)}; one or more [low, high] are needed")
    bands = [edges(band, units) for band in bands]
    inside = [(r >= low) & (r < high) & (r > 0) for low, high in bands[:-1]]
    low, high = bands[-1]
    return torch.stack([r == 0, *inside, (r >= low) & (r <= high) & (r > 0)])


def band_means(values: Tensor, masks: Tensor) -> Tensor:
    """Average (..., H, W) over each band: (..., B); NaN where a band holds no frequency."""
    if values.shape[-2:] != masks.shape[1:]:
        raise InputError(f"values of the shape {tuple(values.shape)} do not fit masks {tuple(masks.shape)}")
    share, found = masks.flatten(1).cpu().double(), double(values)
    return found.flatten(-2) @ (share / share.sum(1, keepdim=True)).T.to(found.device)
