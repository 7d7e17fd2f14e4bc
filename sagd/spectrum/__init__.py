"""Frequency weights w(f) and the Gaussian noise they shape: T_w = F^-1 Diag(w) F, Sigma_w = T_w T_w^T.

Equation numbers are those of Scimeca et al., arXiv 2510.09660. F is the unitary DFT over the axes of the grid: the
last two for images, as in the paper, the last one for signals (..., L), the last three for volumes (..., D, H, W).
Leading axes (batch, channel) are independent.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagd.errors import InputError

Size = tuple[int, ...]  # of the grid: (L,), (H, W) or (D, H, W)
UNITS = ("corner", "nyquist", "cycles")
FLOOR = 1e-10  # eq. 10


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InputError(f"{name} is {value}; it must be a finite number")


def cycles(units: str, dimensions: int = 2) -> float:
    """One unit of a band's edge, in cycles per pixel.

    ``corner``: the largest radius of the grid, sqrt(1/2) for images, so that 1 reaches every frequency. ``nyquist``:
    1/2. ``cycles``: 1.
    """
    one_of("units", units, UNITS)
    return {"corner": math.sqrt(dimensions) / 2, "nyquist": 0.5, "cycles": 1.0}[units]


def radius(size: Size, grid: str = "fftfreq") -> Tensor:
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
    one_of("grid", grid, ("fftfreq", "linspace"))
    if not 1 <= len(size) <= 3 or min(size) < 2:
        raise InputError(f"size is {tuple(size)}; it must be (L,), (H, W) or (D, H, W), each at least 2")
    if grid == "fftfreq":
        axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in size]
    else:
        axes = [torch.fft.ifftshift(torch.linspace(-0.5, 0.5, n, dtype=torch.float64)) for n in size]
    return functools.reduce(torch.hypot, torch.meshgrid(*axes, indexing="ij")).abs()


def rings(size: Size) -> Tensor:
    """The ring of every bin, one bin of the shorter side wide; the zero frequency is ring 0. Shape ``size``, int64."""
    return (radius(size) * min(size)).round().long()


def ring_means(values: Tensor) -> Tensor:
    """Average (..., *size) over the rings of an image's grid: (..., K), without rings that hold no bin."""
    ring = rings(tuple(values.shape[-2:])).flatten().to(values.device)
    count = torch.bincount(ring)
    sums = values.new_zeros((*values.shape[:-2], len(count))).index_add_(-1, ring, values.flatten(-2))
    return (sums / count)[..., count > 0]


def _band(r: Tensor, low: float, high: float, units: str, name: str = "band") -> tuple[Tensor, float, float]:
    """Radii in the given unit, and the edges once checked. Rounded, so that a bin on an edge is on it."""
    unit = cycles(units, r.ndim)
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high):
        raise InputError(f"{name} is [{low}, {high}]; it needs 0 <= low < high, in units of {units!r}")
    return (r / unit).round(decimals=12), low, high


def _mirror(w: Tensor) -> Tensor:
    """w(-f)."""
    axes = tuple(range(w.ndim))
    return w.flip(axes).roll([1] * w.ndim, axes)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A weight w(f) >= 0 on the DFT grid, and the Gaussian N(0, Sigma_w) that it defines (eq. 5-7).

    Build one with `isotropic`, `power_law`, `band_pass`, `two_band` or `exponential`, or from a weight of your own.

    Parameters
    ----------
    weight
        (L,), (H, W) or (D, H, W), real, >= 0, finite, zero frequency at index 0. Real noise sees only the
        symmetric part, so (w(f) + w(-f)) / 2 is what is kept, and T_w is exact without taking a real part.
    per_sample
        Divide each drawn image and channel by its own standard deviation (the listing of App. E). Such noise is
        not exactly Gaussian; the operators below remain those of `weight`.
    recipe
        What the constructor was called with; goes to `to_dict`.
    """

    weight: Tensor
    per_sample: bool = False
    recipe: dict = field(default_factory=lambda: {"operator": "custom"})
    _constant: float | None = field(init=False, repr=False)
    _tables: dict = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self):
        w = torch.as_tensor(self.weight, dtype=torch.float64, device="cpu")
        if (
            not 1 <= w.ndim <= 3
            or min(w.shape) < 2
            or not torch.isfinite(w).all()
            or (w < 0).any()
            or not (w > 0).any()
        ):
            raise InputError(
                "a weight must be (L,), (H, W) or (D, H, W), finite, >= 0 and somewhere > 0; this one has shape "
                f"{tuple(w.shape)} and values in [{w.min():.3g}, {w.max():.3g}]"
            )
        w = (w + _mirror(w)) / 2
        object.__setattr__(self, "weight", w)
        # Where the weight is the same at every frequency, T_w is a number.
        object.__setattr__(self, "_constant", w.max().item() if bool((w == w.max()).all()) else None)

    @property
    def size(self) -> Size:
        """Of the grid, (H, W) for images."""
        return tuple(self.weight.shape)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.size), 0))

    @property
    def support(self) -> Tensor:
        """The grid, bool: where w > 0."""
        return self.weight > 0

    def at(self, t: int) -> "Spectrum":
        """The spectrum of the noise in x_t: itself, at every t. `Varying` has another one at each."""
        return self

    def transfer(self, eps: Tensor, t: int, t_prev: int) -> Tensor:
        """The noise in x_t as noise in x_{t_prev}: itself. `Varying` shapes it anew."""
        return eps

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        t: Tensor | int | None = None,
        rows: slice | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw eps_w ~ N(0, Sigma_w) (eq. 5, 19).

        Parameters
        ----------
        shape
            (..., *size), such as (B, C, H, W).
        generator
            The source of randomness; a sequence gives one to each index of the first axis, so that image k does
            not depend on how many are drawn beside it. None takes torch's global one.
        t
            Has no effect here: the noise is the same at every step. `Varying` needs it.
        rows
            Indices of the first axis that are wanted. All are drawn, so that each is the same whichever are asked
            for, and whichever process asks; only these are shaped.
        device, dtype
            Of the result. The draw is made where the generator lives, in float32 (float64 for float64).

        Returns
        -------
        Tensor
            ``shape``, or its ``rows``; at isotropic, unit-weight noise exactly ``torch.randn`` of the same generator.
        """
        shape = tuple(shape)
        if shape[-len(self.size) :] != self.size:
            raise InputError(f"shape {shape} does not end in this spectrum's size {self.size}")
        if isinstance(generator, Sequence):
            if len(generator) != shape[0]:
                raise InputError(f"{len(generator)} generators for a first axis of {shape[0]}")
            asked = generator if rows is None else generator[rows]
            return torch.stack([self.sample(shape[1:], generator=g, device=device, dtype=dtype) for g in asked])
        working = torch.float64 if dtype == torch.float64 else torch.float32
        source = generator.device if generator is not None else torch.device(device or "cpu")
        if self._constant is not None:
            eps = torch.randn(shape, generator=generator, device=source, dtype=working)
            eps = eps if rows is None else eps[rows]
            eps = eps if self._constant == 1 else eps * self._constant
        else:
            # White noise is white in any orthonormal basis, so the spectrum itself is drawn. T_w is real, so one
            # complex FFT shapes two independent images, its real and its imaginary part.
            count = math.prod(shape[: -len(self.size)])
            half = -(-count // 2)
            z = torch.randn((half, *self.size, 2), generator=generator, device=source, dtype=working)
            if rows is None:
                wanted, part = shape, None
            else:
                field = torch.arange(count, device=source).unflatten(0, shape[: -len(self.size)])[rows]
                wanted, part = (*field.shape, *self.size), field.flatten() < half
                z = z[field.flatten() % half]
            z *= self._table("complex", source, working)
            pairs = torch.view_as_real(torch.fft.fftn(torch.view_as_complex(z), dim=self._axes, norm="ortho"))
            if part is None:
                eps = pairs.movedim(-1, 0).reshape(-1, *self.size)[:count]
            else:
                eps = torch.where(part.reshape(-1, *[1] * len(self.size)), pairs[..., 0], pairs[..., 1])
            eps = eps.reshape(wanted)
        return self._per_sample(eps).to(device=device or source, dtype=dtype)

    def shape(self, white: Tensor, t: int | None = None) -> Tensor:
        """Make N(0, Sigma_w) of white noise (..., *size): T_w, and where `per_sample` asks for it the division.

        t is as in `sample`.
        """
        return self._per_sample(self.sqrt(white))

    def sqrt(self, x: Tensor) -> Tensor:
        """T_w x: multiply by w (eq. 5). Shape (..., *size), kept; so are dtype and device."""
        return self._multiply(x, "sqrt")

    def covariance(self, x: Tensor) -> Tensor:
        """Sigma_w x: multiply by w^2 (eq. 7, 20)."""
        return self._multiply(x, "covariance")

    def inverse(self, x: Tensor) -> Tensor:
        """Sigma_w^+ x: multiply by w^-2 on the support, by 0 off it (App. D.5)."""
        return self._multiply(x, "inverse")

    def project(self, x: Tensor) -> Tensor:
        """Sigma_w Sigma_w^+ x: keep the frequencies of the support. At full support, x itself."""
        return x if bool(self.support.all()) else self._multiply(x, "project")

    def to_dict(self) -> dict:
        """A JSON-ready description, from which `from_dict` makes an equal spectrum."""
        if self.recipe["operator"] == "custom":
            return {"operator": "custom", "weight": self.weight.tolist(), "per_sample": self.per_sample}
        return dict(self.recipe)

    @staticmethod
    def from_dict(description: dict) -> "Spectrum":
        """The inverse of `to_dict`; also takes a hand-written ``{"operator": ..., "size": ..., ...}``."""
        arguments = dict(description)
        name = arguments.pop("operator", None)
        if name == "custom":
            return Spectrum(torch.tensor(arguments["weight"], dtype=torch.float64), arguments["per_sample"])
        one_of("operator", name, tuple(OPERATORS))
        try:
            return OPERATORS[name](**arguments)
        except TypeError as error:
            raise InputError(f"operator {name}: {error}") from None

    def _table(self, what: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The multiplier of an operator, kept for each device and dtype: on the half-space of rfftn (the last axis
        to N // 2 + 1), or for ``complex`` w itself on real and imaginary parts, (*size, 2), as broadcasting that axis
        is slow.
        """
        key = (what, str(device), dtype)
        if key not in self._tables:
            w, on = self.weight, self.support
            if what == "complex":
                table = torch.stack([w, w], -1)
            else:
                inverse = torch.where(on, w, 1) ** -2 * on
                full = {"sqrt": w, "covariance": w**2, "inverse": inverse, "project": on}[what]
                table = full[..., : self.size[-1] // 2 + 1]
            with torch.inference_mode(False):  # kept, and used where gradients are wanted
                self._tables[key] = table.to(device, dtype, copy=True).contiguous()
        return self._tables[key]

    def _per_sample(self, eps: Tensor) -> Tensor:
        return eps / eps.std(dim=self._axes, correction=0, keepdim=True) if self.per_sample else eps

    def _multiply(self, x: Tensor, what: str) -> Tensor:
        working = x if x.dtype in (torch.float32, torch.float64) else x.float()
        spectrum = torch.fft.rfftn(working, dim=self._axes, norm="ortho") * self._table(what, x.device, working.dtype)
        return torch.fft.irfftn(spectrum, s=self.size, dim=self._axes, norm="ortho").to(x.dtype)


def _normalized(weight: Tensor, normalize: str, recipe: dict) -> Spectrum:
    """Apply the normalisation: ``expected`` is eq. 15, the mean of w^2 brought to 1, so pixels have unit variance."""
    one_of("normalize", normalize, ("expected", "sample", "none"))
    symmetric = (weight + _mirror(weight)) / 2
    if normalize != "none" and (symmetric > 0).any() and torch.isfinite(symmetric).all():
        weight = symmetric * symmetric.square().mean().rsqrt()
    recipe = {**recipe, "size": list(recipe["size"]), "normalize": normalize}
    return Spectrum(weight, per_sample=normalize == "sample", recipe=recipe)


def isotropic(size: Size, gain: float = 1.0, *, normalize: str = "expected") -> Spectrum:
    """White noise: w = 1, or without normalisation w = ``gain``."""
    _finite("gain", gain)
    recipe = {"operator": "isotropic", "size": size} | ({"gain": gain} if gain != 1 else {})
    return _normalized(torch.full_like(radius(size), gain), normalize, recipe)


def offset(size: Size, strength: float, *, normalize: str = "expected") -> Spectrum:
    """Offset noise: white noise and, for each image and channel, ``strength`` times one more normal number everywhere.

    That is a boost of the zero frequency alone, of w(0)^2 from 1 to 1 + strength^2 N, N the number of pixels. In
    diffusers' training scripts it is ``--noise_offset``, usually 0.1, not normalised.
    """
    _finite("strength", strength)
    weight = torch.ones_like(radius(size))
    weight[(0,) * len(size)] = math.sqrt(1 + strength**2 * math.prod(size))
    return _normalized(weight, normalize, {"operator": "offset", "size": size, "strength": strength})


def power_law(
    size: Size,
    alpha: float,
    *,
    grid: str = "fftfreq",
    dc: str = "lowest",
    normalize: str = "expected",
) -> Spectrum:
    """plw-SAGD (eq. 10): w(f) = (r(f) + 1e-10)^alpha, so log RAPSD = 2 alpha log r + const.

    Parameters
    ----------
    size
        (L,), (H, W) or (D, H, W).
    alpha
        Below 0 the noise is in the low frequencies, above 0 in the high ones; 0 is white.
    grid
        See `radius`.
    dc
        The weight of the zero frequency, where eq. 10 has a pole or a zero. ``lowest``: that of the lowest
        non-zero radius. ``floor``: (1e-10)^alpha, as the paper's listing has it; at alpha = -0.5 that is 54,000
        times the rest, and the noise is a random grey level.
    normalize
        ``expected``: eq. 15, unit pixel variance, exactly Gaussian. ``sample``: each image divided by its own
        standard deviation (App. E). ``none``.
    """
    _finite("alpha", alpha)
    one_of("dc", dc, ("lowest", "floor"))
    r = radius(size, grid)
    if dc == "lowest":
        r = torch.where(r == 0, r[r > 0].min(), r)
    weight = (r + FLOOR) ** alpha
    if not torch.isfinite(weight.square()).all() or not weight.square().mean() > 0:
        raise InputError(f"alpha is {alpha}; the weight over- or underflows")
    recipe = {"operator": "power_law", "size": size, "alpha": alpha, "grid": grid, "dc": dc}
    return _normalized(weight, normalize, recipe)


def band_pass(
    size: Size,
    low: float,
    high: float,
    *,
    units: str = "corner",
    grid: str = "fftfreq",
    normalize: str = "expected",
) -> Spectrum:
    """Noise in one band (eq. 13): w(f) = 1 where low <= d(f) <= high, else 0.

    Parameters
    ----------
    low, high
        Edges of the closed band, 0 <= low < high.
    units
        Of the edges: ``corner``, fractions of the largest radius, so that high = 1 reaches every frequency;
        ``nyquist``, fractions of 1/2; ``cycles`` per pixel. See `cycles`.
    """
    d, low, high = _band(radius(size, grid), low, high, units)
    weight = ((d >= low) & (d <= high)).double()
    if not weight.any():
        raise InputError(f"band [{low}, {high}] ({units}) holds no frequency of a {size} grid")
    recipe = {"operator": "band_pass", "size": size, "low": low, "high": high, "units": units, "grid": grid}
    return _normalized(weight, normalize, recipe)


def two_band(
    size: Size,
    gamma_low: float,
    low: tuple[float, float] = (0.0, 0.5),
    high: tuple[float, float] = (0.5, 1.0),
    *,
    bands: str = "joint",
    units: str = "corner",
    grid: str = "fftfreq",
    normalize: str = "expected",
) -> Spectrum:
    """bpm-SAGD (eq. 14): gamma_low on the low band, 1 - gamma_low on the high one, nothing elsewhere.

    Bands that touch share no bin: the common edge belongs to the high one. Where they leave a gap, the gap is
    closed, so that it holds all of `band_pass` over the same edges (selective omission, section 3.3).

    Parameters
    ----------
    gamma_low
        In [0, 1].
    low, high
        (lower edge, upper edge), low below high.
    bands
        ``joint``: one field, so that gamma_low = 1/2 over touching bands is exactly white. ``per_band``: each band
        brought to unit variance before it is weighted (the listing of App. E).
    units
        See `band_pass`.
    """
    one_of("bands", bands, ("joint", "per_band"))
    if not 0 <= gamma_low <= 1:
        raise InputError(f"gamma_low is {gamma_low}; it must lie in [0, 1]")
    d, low_from, low_to = _band(radius(size, grid), *low, units, "low")
    d, high_from, high_to = _band(radius(size, grid), *high, units, "high")
    if low_to > high_from:
        raise InputError(f"low {list(low)} and high {list(high)} overlap; low must end where high begins, or before")
    in_low = (d >= low_from) & (d < low_to)
    in_high = (d >= high_from if low_to == high_from else d > high_from) & (d <= high_to)
    if not (in_low.any() and in_high.any()):
        raise InputError(f"low {list(low)} or high {list(high)} ({units}) holds no frequency of a {size} grid")
    weight = torch.zeros_like(d)
    for gamma, inside in ((gamma_low, in_low), (1 - gamma_low, in_high)):
        share = inside.double().mean().rsqrt() if bands == "per_band" else 1.0
        weight += gamma * share * inside
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
    return _normalized(weight, normalize, recipe)


def exponential(size: Size, beta: float, *, grid: str = "fftfreq", normalize: str = "expected") -> Spectrum:
    """w(f) = exp(-beta r(f)^2), r in cycles per pixel (the workshop paper's eq. 9)."""
    _finite("beta", beta)
    weight = torch.exp(-beta * radius(size, grid) ** 2)
    if not torch.isfinite(weight.square()).all() or not (weight > 0).all():
        raise InputError(f"beta is {beta}; the weight over- or underflows")
    return _normalized(weight, normalize, {"operator": "exponential", "size": size, "beta": beta, "grid": grid})


def equal_snr(size: Size, power: Tensor | list, *, normalize: str = "expected") -> Spectrum:
    """Noise with the data's own spectrum: every frequency drowns at the same time (EqualSNR, arXiv 2505.11278).

    w(f)^2 is the data's power P(f), so the SNR alpha_bar P / (sigma^2 w^2) is the same at all f.

    Parameters
    ----------
    power
        ``size``, >= 0: the data's variance at each frequency, averaged over channels (`sagd.moments.statistics`).
    """
    power = _given_power(size, power)
    recipe = {"operator": "equal_snr", "size": size, "power": power.tolist()}
    return _normalized(power.sqrt(), normalize, recipe)


def data_matched(size: Size, power: Tensor | list, *, normalize: str = "expected") -> Spectrum:
    """Noise with the radially averaged spectrum of the data: what `equal_snr` is, alike in all directions.

    Parameters
    ----------
    power
        As for `equal_snr`; (H, W) alone.
    """
    power = _given_power(size, power)
    if power.ndim != 2:
        raise InputError(f"data_matched averages over the rings of an image; its size is {tuple(size)}")
    averages = torch.zeros(int(rings(size).max()) + 1, dtype=torch.float64)
    averages[rings(size).unique()] = ring_means(power)
    recipe = {"operator": "data_matched", "size": size, "power": power.tolist()}
    return _normalized(averages[rings(size)].sqrt(), normalize, recipe)


def _given_power(size: Size, power: Tensor | list) -> Tensor:
    power = torch.as_tensor(power, dtype=torch.float64, device="cpu")
    if tuple(power.shape) != tuple(size) or not torch.isfinite(power).all() or (power < 0).any():
        raise InputError(f"the data's power must be {tuple(size)}, finite and >= 0; it is {tuple(power.shape)}")
    return power


OPERATORS: dict[str, Callable[..., Spectrum]] = {
    "isotropic": isotropic,
    "power_law": power_law,
    "band_pass": band_pass,
    "two_band": two_band,
    "exponential": exponential,
    "offset": offset,
    "equal_snr": equal_snr,
    "data_matched": data_matched,
}
