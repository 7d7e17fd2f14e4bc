"""Describe the power spectrum of a set of images: sagd spectrum DATA --samples SAMPLES

DATA is mnist_5k, a folder with torchvision's MNIST/raw in it, a folder or zip file of images, an npy file, or an npz
file (file.npz:array). Prints the exponent of the spectrum, the share of the variance in each band of frequencies, and
the step at which white noise drowns the band; with --samples, also the bands in which the samples are wrong.
"""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from sagd.cli import path, place
from sagd.data.load import load
from sagd.errors import InputError, needs
from sagd.formulations.schedule import Schedule
from sagd.images import tell
from sagd.metrics.rapsd import Exponent, compare, exponent, jackknife
from sagd.noise.grid import band_masks, band_means, radius, ring_means
from sagd.oracle.drowning import Band, band_table
from sagd.runtime.files import check_output, writing
from sagd.runtime.progress import Bar
from sagd.spaces.moments import ImageSet, statistics


@dataclass(frozen=True)
class Measured:
    """What is measured of a set of images; pixels are in [-1, 1]."""

    name: str
    count: int
    shape: tuple[int, ...]
    power: Tensor  # (H, W), the mean of the channels' variances at each frequency
    pixels: Tensor  # (N,), the mean pixel of each image
    each: Tensor  # (N, B), for `jackknife`

    @property
    def mean(self) -> float:
        """Of all pixels."""
        return self.pixels.mean().item()

    @property
    def deviation(self) -> float:
        """Standard deviation of the images' mean pixels."""
        return self.pixels.std().item()

    def to_dict(self) -> dict:
        return {
            "name": self.name, "images": self.count, "shape": list(self.shape), "mean_pixel": self.mean,
            "mean_pixel_deviation": self.deviation,
        }  # fmt: skip


class _Reporting:
    """A set of images that reports how many are read."""

    def __init__(self, images: ImageSet, report: Callable[[int], None]):
        self._images, self._report = images, report

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice) -> np.ndarray:
        block = self._images[rows]
        self._report(len(block))
        return block


def measure(name: str, images: ImageSet) -> Measured:
    """Read a set (as `load` gives it) twice, a few images at a time: once for their mean, once for their power."""
    if len(images) < 3:
        raise InputError(f"{name} has {len(images)} images; a standard error needs 3 or more")
    shape = images[:1].shape[1:]
    masks = band_masks(shape[1:])
    # Whole from the start: small tensors made between large ones would keep the heap from shrinking.
    pixels, each = (torch.empty(len(images), *more, dtype=torch.float64, device="cpu") for more in ((), (len(masks),)))
    done = 0

    def keep(transforms: Tensor) -> None:
        nonlocal done
        rows = slice(done, done := done + len(transforms))
        pixels[rows] = transforms[..., 0, 0].real.mean(1) / math.sqrt(math.prod(shape[1:]))
        each[rows] = band_means(transforms.abs().square().mean(1), masks)

    with Bar(f"{name}, read twice", 2 * len(images)) as bar:
        block = max(1, min(1024, 2**20 // math.prod(shape)))  # or the bar would count the first image, too
        found = statistics(_Reporting(images, bar.update), block, keep)
    pixels += found["mean"].mean()
    return Measured(name, len(images), tuple(found["power"].shape), found["power"].mean(0), pixels, each)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("data", metavar="DATA", type=place, help="images to analyse")
    add("--size", type=int, metavar="N", help="crop and resize pictures to N x N (default: leave them as they are)")
    add(
        "--samples",
        metavar="SAMPLES",
        type=place,
        help="images of a model, of the same size, to compare (default: none)",
    )
    add("--plot", type=path, metavar="FILE.png", help="draw the spectra and the fitted line there (default: no plot)")
    add("--json", action="store_true", help="print JSON (default: tables)")


def run(options: argparse.Namespace) -> str | dict:
    """What is measured; it is drawn, if asked for."""
    names = [options.data, *([options.samples] if options.samples else [])]
    if options.plot:
        check_output("--plot", options.plot, ".png", inputs=names)
        with needs("figures"):  # known now, and not after the images are read
            import matplotlib  # noqa: F401
            import seaborn  # noqa: F401

            from sagd.figures.study import data_spectrum
    opened = [load(name, options.size) for name in names]
    sizes = [images[:1].shape[2:] for images in opened]
    if sizes[0] != sizes[-1]:
        (height, width), (other_height, other_width) = sizes
        raise InputError(
            f"{names[0]} has images of {height}x{width}, {names[1]} of {other_height}x{other_width}; "
            "--size brings pictures to one size"
        )
    if options.samples and os.path.realpath(options.samples) == os.path.realpath(options.data):
        tell(f"spectrum: {options.samples} is compared with itself")
    data, *others = [measure(name, images) for name, images in zip(names, opened, strict=True)]
    samples = others[0] if others else None
    fit, table = exponent(data.power), band_table(data.power)
    if options.plot:
        radii = ring_means(radius(data.shape[1:]))
        labels = ("data", "samples")[: 1 + len(others)]
        powers = {f"{k}: {m.name}": ring_means(m.power) for k, m in zip(labels, (data, *others), strict=True)}
        with writing(options.plot) as beside:
            data_spectrum(radii, powers, fit).savefig(beside, format="png", dpi=150)
    return (_answer if options.json else _lines)(data, samples, fit, table)


def _differing_pixel(data: Measured, samples: Measured) -> tuple[float, float]:
    """Difference of the mean pixels, and its standard error."""
    error = math.hypot(*(m.deviation / math.sqrt(m.count) for m in (data, samples)))
    return samples.mean - data.mean, error


def _answer(data: Measured, samples: Measured | None, fit: Exponent, table: list[Band]) -> dict:
    answer = {
        "data": data.to_dict(),
        "exponent": {**asdict(fit), "alpha": fit.alpha},
        "schedule": "linear",
        "steps": len(Schedule.linear()),
        "noise": "isotropic",
        "units": "corner",
        "bands": [asdict(band) for band in table],
    }
    if samples is not None:
        difference, error = _differing_pixel(data, samples)
        answer["samples"] = {
            **samples.to_dict(), "mean_pixel_difference": difference, "mean_pixel_difference_se": error
        }  # fmt: skip
        compared = zip(table, *compare(samples.each, data.each), strict=True)
        answer["compared"] = [
            {
                "low": band.low,
                "high": band.high,
                "ratio": ratio.item(),
                "ratio_se": error.item(),
                "differs": bool(differs),
            }
            for band, ratio, error, differs in compared
            if band.frequencies
        ]
    return answer


def _lines(data: Measured, samples: Measured | None, fit: Exponent, table: list[Band]) -> str:
    lines = []
    for m in (data, samples) if samples else (data,):
        lines += [
            f"{m.name}: {m.count} images, {' x '.join(map(str, m.shape))}",
            f"  mean pixel {m.mean:.4f}, standard deviation of the images' means {m.deviation:.4f} (pixels in [-1, 1])",
        ]
    lines += [
        "",
        f"Power of the data goes as r^{fit.slope:.2f} (95 %: {fit.low:.2f} to {fit.high:.2f}), fitted to "
        f"{fit.rings} rings up to 1/2 cycle per pixel;",
        f"power-law noise of this exponent has alpha {fit.alpha:.2f} ({fit.low / 2:.2f} to {fit.high / 2:.2f}).",
        f"This describes the data; it is not advice: `sagd suggest {data.name}` tells which alpha to train with.",
        "",
        f"{'band':<9}{'frequencies':>12}{'variance':>10}{'mean power':>13}{'drowns at':>11}",
    ]
    for band in table:
        name = f"{band.low:.1f}-{band.high:.1f}" if band.high else "zero"
        power = f"{band.power:.4g}" if band.frequencies else "-"
        drowns = "never" if band.drowns is None else str(band.drowns)
        drowns = drowns if band.frequencies else "-"
        lines.append(f"{name:<9}{band.frequencies:>12}{100 * band.share:>8.2f} %{power:>13}{drowns:>11}")
    lines += [
        "",
        "Bands are fractions of the largest radius, sqrt(1/2) cycles per pixel, without the zero frequency. The mean",
        f"image is not in the variance. A band drowns at the first of {len(Schedule.linear())} steps (linear schedule, "
        "white noise)",
        "where its signal-to-noise ratio alpha_bar P / sigma^2 is below 1.",
    ]
    if samples is None:
        return "\n".join(lines)
    ratio, error, differs = compare(samples.each, data.each)
    lines += ["", f"{'band':<9}{'power: data':>13}{'samples':>11}{'ratio':>9}{'error':>8}"]
    ours, theirs = (jackknife(m.each)[0] for m in (samples, data))
    for k, band in enumerate(table):
        if band.frequencies:
            name = f"{band.low:.1f}-{band.high:.1f}" if band.high else "zero"
            told = ("  too much" if ratio[k] > 1 else "  too little") if differs[k] else ""
            lines.append(f"{name:<9}{theirs[k]:>13.4g}{ours[k]:>11.4g}{ratio[k]:>9.3f}{error[k]:>8.3f}{told}")
    difference, deviation = _differing_pixel(data, samples)
    mark = " (differs)" if abs(difference) > 2 * deviation else ""
    lines += [
        "",
        f"Mean pixel of the samples minus that of the data: {difference:+.4f}, standard error {deviation:.4f}{mark}.",
        f"Errors are standard errors, by the jackknife over all {samples.count} samples and all {data.count} images of "
        "the data.",
        "Marked is what differs by more than two of them. By chance about one in 20 correct bands is marked, too.",
    ]
    return "\n".join(lines)
