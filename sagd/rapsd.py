"""Power spectra of data: radial averages, their exponent, bands of frequencies, and when noise drowns them.

The data's power is the variance at each frequency of the unitary DFT (``power`` of `sagd.moments.statistics`), so the
mean image is not in it; `rapsd` alone averages |F x|^2, mean and all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sagd.diffusion import Schedule
from sagd.errors import InputError
from sagd.spectrum import Size, Spectrum, cycles, isotropic, radius, ring_means, rings
from sagd.spectrum.varying import Varying

BANDS = tuple((k / 10, (k + 1) / 10) for k in range(10))


def rapsd(x: Tensor) -> tuple[Tensor, Tensor]:
    """Radially averaged power spectral density, averaged over leading axes (section 2.3).

    Parameters
    ----------
    x
        (..., H, W).

    Returns
    -------
    radii, power
        (K,) each, float64: power |F x|^2 of the unitary DFT, averaged over rings one bin of the shorter side wide;
        radii are the mean radius of each ring's bins, in cycles per pixel. The zero frequency is a ring of its own.
    """
    power = torch.fft.fft2(x.double(), norm="ortho").abs().square().reshape(-1, *x.shape[-2:]).mean(0).cpu()
    return ring_means(radius(tuple(x.shape[-2:]))), ring_means(power)


@dataclass(frozen=True)
class Exponent:
    """log power = intercept + slope log r (natural logarithms, r in cycles per pixel), fitted to ``rings`` rings.

    ``low`` and ``high`` bound the slope with 95 % confidence.
    """

    slope: float
    intercept: float
    low: float
    high: float
    rings: int

    @property
    def alpha(self) -> float:
        """Of the `power_law` noise that falls as the data do: its RAPSD has the slope 2 alpha (section 2.3)."""
        return self.slope / 2


def exponent(power: Tensor, up_to: float = 0.5) -> Exponent:
    """Fit a power law to the ring means of a power spectrum; natural images are near r^-2.

    Least squares, each ring weighted by its frequencies: the mean of more of them scatters less, and for a Gaussian
    field in proportion, so that the interval (Student's, from the scatter about the line) keeps its 95 %. Where many
    images have a spectrum that is bent, it tells how far from a line, not how the slope would vary with other images.

    Parameters
    ----------
    power
        (..., H, W); leading axes, such as channels, are averaged.
    up_to
        Mean radius of the outermost ring, in cycles per pixel; by default Nyquist's, beyond which rings are cut by the
        corners. The zero frequency and rings without power are left out.

    Raises
    ------
    InputError
        Fewer than three rings.
    """
    from scipy import stats

    size = tuple(power.shape[-2:])
    means, r = ring_means(power.double().reshape(-1, *size).mean(0)), radius(size)
    used = (ring_means(r) > 0) & (ring_means(r) <= up_to) & (means > 0)
    count = int(used.sum())
    if count < 3:
        raise InputError(
            f"an exponent needs power in 3 rings of frequencies; images of {size[0]}x{size[1]} have {count}"
        )
    weight, y, slope = torch.bincount(rings(size).flatten()).double(), means[used].log(), -2.0
    weight = weight[weight > 0][used] / weight[weight > 0][used].sum()
    lowest = torch.where(r > 0, r, r[r > 0].min())
    for _ in range(20):  # a ring stands at the radius where the fitted law has its mean over the ring
        if abs(slope) > 1e-6:
            x = ring_means(lowest**slope)[used].log() / slope
        else:
            x = ring_means(lowest.log())[used]
        centred = x - weight @ x
        spread = weight @ centred.square()
        slope = float(weight @ (centred * y) / spread)
    intercept = float(weight @ (y - slope * x))
    variance = weight @ (y - intercept - slope * x).square() / (count - 2) / spread
    margin = float(stats.t.ppf(0.975, count - 2) * variance.sqrt())
    return Exponent(slope, intercept, slope - margin, slope + margin, count)


def band_masks(size: Size, bands: Sequence[tuple[float, float]] = BANDS, units: str = "corner") -> Tensor:
    """The zero frequency, then each band without it: (1 + B, H, W), bool.

    As in `sagd.two_band`, a common edge belongs to the higher band; the last band holds its upper edge. ``units`` are
    those of `sagd.spectrum.cycles`.
    """
    r = (radius(size) / cycles(units, len(size))).round(decimals=12)
    inside = [(r >= low) & (r < high) & (r > 0) for low, high in bands[:-1]]
    low, high = bands[-1]
    return torch.stack([r == 0, *inside, (r >= low) & (r <= high) & (r > 0)])


def band_means(values: Tensor, masks: Tensor) -> Tensor:
    """Average (..., H, W) over each band: (..., B); NaN where a band holds no frequency."""
    share = masks.flatten(1).double()
    return values.double().flatten(-2) @ (share / share.sum(1, keepdim=True)).T


def snr(
    power: Tensor,
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    t: Sequence[int] | Tensor,
    average: Callable[[Tensor], Tensor] = ring_means,
) -> Tensor:
    """Signal-to-noise ratio of x_t in each ring: alpha_bar_t P / (sigma_t^2 w_t^2), P and w_t^2 averaged over it.

    Parameters
    ----------
    power
        (..., H, W); leading axes are averaged.
    t
        (T',), steps of the schedule.
    average
        From (H, W) to (K,): rings, or bands by `band_means`.

    Returns
    -------
    Tensor
        (T', K), float64; infinite where there is no noise.
    """
    if spectrum.size != tuple(power.shape[-2:]):
        raise InputError(f"the noise is for {spectrum.size}, the data's power for {tuple(power.shape[-2:])}")
    signal = average(power.double().reshape(-1, *spectrum.size).mean(0))
    if isinstance(spectrum, Varying):
        noise = torch.stack([average(spectrum.at(int(k)).weight.square()) for k in t])
    else:
        noise = average(spectrum.weight.square())
    alpha_bar = schedule.alpha_bar[torch.as_tensor(t)][:, None]
    return alpha_bar * signal / ((1 - alpha_bar) * noise)


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
    spectrum: Spectrum | Varying | None = None,
    bands: Sequence[tuple[float, float]] = BANDS,
    units: str = "corner",
) -> list[Band]:
    """The zero frequency and each band of a power spectrum (..., H, W): its variance, and the step at which it drowns.

    The schedule is linear and the noise white unless others are given; ``bands`` and ``units`` are as in `band_masks`.
    """
    size = tuple(power.shape[-2:])
    power, masks = power.double().reshape(-1, *size).mean(0), band_masks(size, bands, units)
    if not power.sum() > 0:
        raise InputError("the images are all alike: there is no variance to share between bands")
    schedule, spectrum = schedule or Schedule.linear(), spectrum or isotropic(size)
    below = snr(power, schedule, spectrum, range(len(schedule)), lambda values: band_means(values, masks)) < 1
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


def jackknife(each: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of a set of images in each band, and its standard error, from every image's share in it.

    Leaving image i out moves the mean image too: of the sum of squares it takes n / (n - 1) of its own. That makes the
    jackknife over all n images a formula.

    Parameters
    ----------
    each
        (N, B), N at least 3: mean over each band of |F(x_i - m)|^2, m the mean image of the set.

    Returns
    -------
    power, error
        (B,) each; power is unbiased (n - 1).
    """
    n = len(each)
    if n < 3:
        raise InputError(f"{n} images; a standard error needs 3 or more")
    squares = (each - each.mean(0)).square().sum(0)
    return each.sum(0) / (n - 1), (n * squares / (n - 1)).sqrt() / (n - 2)


def compare(samples: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Power of samples over power of data in each band.

    Parameters
    ----------
    samples, data
        (N, B) and (N', B), as in `jackknife`; the sets are taken as independent.

    Returns
    -------
    ratio, error, differs
        (B,) each: the ratio, its standard error (that of both sets, to first order), and whether it is more than two of
        them away from 1.
    """
    (ours, our_error), (theirs, their_error) = jackknife(samples), jackknife(data)
    ratio = ours / theirs
    error = torch.hypot(our_error, ratio * their_error) / theirs
    return ratio, error, (ratio - 1).abs() > 2 * error
