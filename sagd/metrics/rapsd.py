"""Power spectra of images: radial averages, their exponent, and how samples compare with data band by band.

The data's power is the variance at each frequency of the unitary DFT (``power`` of `sagd.spaces.moments.statistics`),
so the mean image is not in it. Only `rapsd` averages |F x|^2, with the mean. Bands are in `sagd.noise.grid`, and the
steps at which noise drowns them in `sagd.oracle.drowning`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sagd.errors import InputError, check_floating, needs
from sagd.noise.devices import double
from sagd.noise.grid import radius, ring_means, rings


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

    Raises
    ------
    InputError
        No image (..., H, W), or complex numbers.
    """
    _check_images("x", x)
    power = torch.fft.fft2(double(x), norm="ortho").abs().square().reshape(-1, *x.shape[-2:]).mean(0).cpu()
    return ring_means(radius(tuple(x.shape[-2:]))), ring_means(power)


def _check_images(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise InputError(f"{name} is a {type(x).__name__}; it must be a tensor (..., H, W)")
    if x.ndim < 2 or not x.numel() or x.is_complex():
        raise InputError(f"{name} has shape {tuple(x.shape)} and type {x.dtype}; it must be real, (..., H, W)")


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
        """Of power-law noise whose spectrum falls as the data's does: its RAPSD has the slope 2 alpha (section 2.3).

        A description of the data, not the alpha to train with: `sagd.oracle.suggest` advises that.
        """
        return self.slope / 2


def exponent(power: Tensor, up_to: float = 0.5) -> Exponent:
    """Fit a power law to the ring means of a power spectrum; natural images are near r^-2.

    Least squares, each ring weighted by its number of frequencies: for a Gaussian field the variance of a ring's mean
    is proportional to its reciprocal, so the interval (Student's, from the scatter about the line) keeps its 95 %. If
    the spectrum of many images is bent, the interval tells how far it is from a line, not how the slope would vary with
    other images.

    Parameters
    ----------
    power
        (..., H, W); leading axes, such as channels, are averaged.
    up_to
        Mean radius of the outermost ring, in cycles per pixel; by default the Nyquist frequency, beyond which the
        corners cut the rings. The zero frequency and rings without power are left out.

    Raises
    ------
    InputError
        Fewer than three rings; power that is below 0 or not finite.
    """
    with needs("metrics"):
        from scipy import stats

    _check_images("power", power)
    if not ((power >= 0) & power.isfinite()).all():
        bad = power[~((power >= 0) & power.isfinite())][0].item()
        raise InputError(f"power has the value {bad:g}; it must be finite, 0 or more")
    size = tuple(power.shape[-2:])
    means, r = ring_means(power.cpu().double().reshape(-1, *size).mean(0)), radius(size)
    used = (ring_means(r) > 0) & (ring_means(r) <= up_to) & (means > 0)
    count = int(used.sum())
    if not means.any():
        raise InputError("the power is 0 at every frequency, as that of images that are all alike; it has no exponent")
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


def jackknife(each: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of a set of images in each band, and its standard error, from every image's share in it.

    Leaving out image i also moves the mean image: the sum of squares falls by n / (n - 1) times the share of i. So the
    jackknife over all n images has a closed form.

    Parameters
    ----------
    each
        (N, B), N at least 3: mean over each band of |F(x_i - m)|^2, m the mean image of the set.

    Returns
    -------
    power, error
        (B,) each; power is unbiased (n - 1).

    Raises
    ------
    InputError
        No floating-point tensor (N, B); fewer than three images; shares that are not finite, by the first such image.
    """
    check_floating("shares", each)
    if each.ndim != 2:
        raise InputError(f"shares of shape {tuple(each.shape)}; they must be (N, B)")
    n = len(each)
    if n < 3:
        raise InputError(f"{n} images; a standard error needs 3 or more")
    if not each.isfinite().all():
        raise InputError(f"image {(~each.isfinite()).any(1).nonzero()[0].item()} has a share that is not finite")
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
        (B,) each: the ratio, its standard error (of both sets, to first order), and whether the ratio is more than two
        standard errors away from 1; or whether the samples have any power where the data have none.
    """
    (ours, our_error), (theirs, their_error) = jackknife(samples), jackknife(data)
    if len(ours) != len(theirs):
        raise InputError(f"the samples have {len(ours)} bands and the data {len(theirs)}; they must be the same")
    ratio = ours / theirs
    error = torch.hypot(our_error, ratio * their_error) / theirs
    return ratio, error, torch.where(theirs > 0, (ratio - 1).abs() > 2 * error, ours > 0)
