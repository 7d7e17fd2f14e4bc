"""Look at a noise: sagd noise --operator power_law --alpha -0.5 --plot noise.png

Prints its weight and where its energy lies; with --image, also which rings of frequencies have drowned in x_t. With
--plot, draws the noise, its weight and its spectrum, with --image also x_t, as reports/explore.html shows them.
"""

import argparse
import contextlib
import inspect
import itertools
import math
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor

from sagd.cli import path
from sagd.data.prepare import square
from sagd.errors import InputError, needs
from sagd.formulations.schedule import Schedule
from sagd.images import Dropped, decode
from sagd.noise.grid import BANDS, band_masks, radius, ring_means
from sagd.noise.spectrum import Spectrum
from sagd.operators import OPERATORS, build
from sagd.operators._colours import COLOURS
from sagd.oracle.drowning import snr
from sagd.runtime.files import check_output, read_bytes, write_array, writing

SIZES = (2, 2048)  # of the grid, lowest and highest
T = 300


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser; those of the operators come from their signatures."""
    add = parser.add_argument
    add(
        "--operator",
        default="isotropic",
        metavar="NAME",
        help=f"{', '.join(OPERATORS)}; a colour ({', '.join(COLOURS)}); or your own function, such as mine.py:ring "
        "(default: %(default)s)",
    )
    add("--size", type=int, default=128, metavar="N", help="of the grid, N x N (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the draw (default: %(default)s)")
    add("--image", type=path, metavar="FILE", help="a picture, made square, grey, and N x N (default: none)")
    add("--t", type=int, metavar="T", help=f"step of x_t, linear schedule of 1000 steps (default: {T})")
    add("--plot", type=path, metavar="FILE.png", help="draw a picture there (default: none)")
    add("--out", type=path, metavar="FILE.npy", help="write the draw, (N, N), float64 (default: do not write it)")
    group = parser.add_argument_group("arguments of the operators")
    for name, argument in _arguments().items():
        group.add_argument(_flag(name), **argument)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _arguments() -> dict[str, dict[str, Any]]:
    """Options for the arguments of all operators, as `add_argument` takes them. One name means the same everywhere."""
    found: dict[str, dict[str, Any]] = {}
    for operator in OPERATORS.values():
        for name, argument in inspect.signature(operator, eval_str=True).parameters.items():
            if name in ("size", "power") or name in found:
                continue
            told = re.search(rf"^{name}\n((?:    .*\n?)+)", inspect.getdoc(operator) or "", re.M)
            users = [other for other, function in OPERATORS.items() if name in inspect.signature(function).parameters]
            of = "all" if len(users) == len(OPERATORS) else ", ".join(users)
            default = "none" if argument.default is argument.empty else f"{argument.default}".replace("%", "%%")
            meaning = " ".join(told[1].split()).replace("``", "").replace("%", "%%") if told else ""
            found[name] = {"help": f"{of}: {meaning} (default: {default})", **_kind(argument.annotation)}
    return found


def _kind(annotation: Any) -> dict[str, Any]:
    """How `argparse` reads an argument of this type: a number, a word of a list, either, or several numbers."""
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation)}
    if get_origin(annotation) is tuple:
        return {"nargs": len(get_args(annotation)), "type": get_args(annotation)[0], "metavar": "X"}
    return {"type": _reader(annotation), "metavar": "X"}


def _reader(annotation: Any) -> Callable[[str], Any]:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    numbers = [kind for kind in kinds if get_origin(kind) is not Literal]

    def read(text: str) -> Any:
        if text in words:
            return text
        for number in numbers:
            with contextlib.suppress(ValueError):
                return number(text)
        allowed = [*words, *("a whole number" if number is int else "a number" for number in numbers)]
        raise argparse.ArgumentTypeError(f"it is {text!r}; allowed: {', '.join(allowed)}")

    return read


def run(options: argparse.Namespace) -> str:
    """The table; what is asked for is drawn and written."""
    if not SIZES[0] <= options.size <= SIZES[1]:
        raise InputError(f"--size is {options.size}; allowed: {SIZES[0]} to {SIZES[1]}")
    if not 0 <= options.seed < 2**63:
        raise InputError(f"--seed is {options.seed}; it must be 0 or more, below 2^63")
    schedule, t = Schedule.linear(), T if options.t is None else options.t
    if not 0 <= t < len(schedule):
        raise InputError(f"--t is {t}; allowed: 0 to {len(schedule) - 1}")
    if options.t is not None and not options.image:
        raise InputError("--t is the step of x_t: it needs --image")
    for name, written, ending in (("--plot", options.plot, ".png"), ("--out", options.out, ".npy")):
        if written:
            check_output(name, written, ending, inputs=[options.image] if options.image else [])
    if options.plot:
        with needs("figures"):  # known now, and not after the table
            import matplotlib  # noqa: F401
            import seaborn  # noqa: F401

            from sagd.figures.noise import sheet

    x0 = _image(options.image, options.size) if options.image else None
    power = None if x0 is None else torch.fft.fft2(x0, norm="ortho").abs().square()
    spectrum = _spectrum(options, power)
    generator = torch.Generator().manual_seed(options.seed)
    eps = spectrum.sample(spectrum.size, generator=generator, dtype=torch.float64)
    if options.out:
        write_array(options.out, eps.numpy())
    title, *table = _table(options.operator, spectrum, eps)
    lines = [title, *table]
    if spectrum.per_sample:  # what divides the draw divides the weight
        again = generator.manual_seed(options.seed)
        white = torch.randn(spectrum.size, generator=again, dtype=torch.float64, device="cpu")
        spectrum = Spectrum(spectrum.weight / spectrum.sqrt(white).std(correction=0))
    if power is not None:
        lines.append(_drowned(snr(power, schedule, spectrum, [t])[0] < 1, t, ring_means(radius(spectrum.size))))
    if options.plot:
        with writing(options.plot) as beside:
            sheet(title, eps, spectrum, x0, t, schedule).savefig(beside, format="png", dpi=150)
    return "\n".join(lines + [f"wrote {written}" for written in (options.out, options.plot) if written])


def _image(path: Path, size: int) -> Tensor:
    """The largest square of a picture, grey, (size, size), float64, in [-1, 1]."""
    picture, dropped = decode(read_bytes(path), str(path)), Dropped(str(path))
    dropped.note(path.name, picture)
    dropped.tell()
    return torch.from_numpy(square(picture, 1, size)[0] / 127.5 - 1)


def _spectrum(options: argparse.Namespace, power: Tensor | None) -> Spectrum:
    name, size = options.operator, (options.size, options.size)
    given = {key: value for key in _arguments() if (value := getattr(options, key)) is not None}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    if name in COLOURS:  # a power law by another name
        if "alpha" in given:
            raise InputError(f"operator {name} has its own alpha, {COLOURS[name]}; take power_law for another")
        name, given = "power_law", given | {"alpha": COLOURS[name]}
    if ":" not in name:
        taken = inspect.signature(OPERATORS[name]).parameters
        for key in given:
            if key not in taken:
                options_of = ", ".join(_flag(other) for other in taken if other not in ("size", "power"))
                raise InputError(f"operator {name} has no {_flag(key)}; it has {options_of}")
        if "power" in taken and power is None:
            raise InputError(f"operator {name} takes the data's power: it needs --image")
    return build(name, size, power, given)


def _table(name: str, spectrum: Spectrum, eps: Tensor) -> list[str]:
    """What the noise is, in lines."""
    power, pixels = spectrum.weight.square(), math.prod(spectrum.size)
    rms = power.mean().sqrt()
    rings = ring_means(power).sqrt() / rms
    named = {k: v for k, v in spectrum.recipe.items() if k not in ("operator", "size", "power")}
    size = f"{spectrum.size[0]} x {spectrum.size[1]}"
    lines = [
        f"{name} {' '.join(f'{k}={v}' for k, v in named.items())}".rstrip() + f", {size}",
        f"weight over its root mean square: {rings[0]:.4g} at zero, {rings[1]:.4g} in the lowest ring, "
        f"{rings[-1]:.4g} in the highest",
    ]
    if spectrum.per_sample:
        lines.append("each draw is divided by its own standard deviation; what follows is before that")
    lines += [
        f"standard deviation of a pixel {rms:.4g}, of the mean of an image "
        f"{(spectrum.weight[0, 0] / math.sqrt(pixels)):.4g} (white noise: {1 / math.sqrt(pixels):.4g})",
        f"this draw: mean {eps.mean():.4g}, standard deviation {eps.std(correction=0):.4g}, "
        f"from {eps.min():.4g} to {eps.max():.4g}",
        "",
        f"{'band':<9}{'frequencies':>12}{'energy':>11}{'white noise':>13}",
    ]
    for (low, high), mask in zip(((0.0, 0.0), *BANDS), band_masks(spectrum.size), strict=True):
        band, count = f"{low:.1f}-{high:.1f}" if high else "zero", int(mask.sum())
        energy = f"{100 * power[mask].sum() / power.sum():.3f} %" if count else "-"
        lines.append(f"{band:<9}{count:>12}{energy:>11}{f'{100 * count / pixels:.3f} %':>13}")
    return [*lines, "", "Bands are fractions of the largest radius, sqrt(1/2) cycles per pixel."]


def _drowned(drowned: Tensor, t: int, radii: Tensor) -> str:
    """Which rings have drowned, (K,), bool; radii are theirs."""
    ranges = []
    for is_drowned, run in itertools.groupby(range(len(drowned)), lambda k: bool(drowned[k])):
        if is_drowned:
            low, high = (rings := list(run))[0], rings[-1]
            ranges.append(f"{radii[low]:.2f} to {radii[high]:.2f}" if low < high else f"{radii[low]:.2f}")
    where = f": radius {', '.join(ranges)} cycles per pixel" if ranges else ""
    return f"At t = {t}, {int(drowned.sum())} of {len(drowned)} rings of this image have drowned (SNR below 1){where}."
