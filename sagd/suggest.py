"""Choose alpha without a sweep: ``python -m sagd.suggest DATA``.

The data are replaced by the Gaussian field with their mean image and their power at each frequency. For that the best
network is known in closed form, and so is the distribution that a sampler draws with it (`sagd.oracle.drawn`): its
distance to the field is the sampler's own error, which shaped noise moves. No network learns anything here, so what
shaping does to learning is not in it.

DATA is what `sagd.data.load` takes (``mnist_5k``, a folder or zip file of images, an npy or npz file, a folder with
torchvision's MNIST), or a file of statistics that ``--statistics`` wrote.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sagd.diffusion import SAMPLERS, SCHEDULES, Schedule
from sagd.errors import InputError
from sagd.files import read_tensors, write_tensors
from sagd.oracle import distance, drawn, gaussian_field
from sagd.parallel import concurrently
from sagd.progress import Bar
from sagd.spectrum import power_law

ALPHAS = tuple(round(0.01 * k, 2) for k in range(-50, 51))


@dataclass(frozen=True)
class Suggestion:
    """The error of a perfect network's samples over alpha.

    Parameters
    ----------
    curve
        alpha to the parts of the squared distance (`sagd.oracle.distance`).
    """

    curve: dict[float, dict[str, float]]

    def error(self, alpha: float) -> float:
        """The squared distance at an alpha: its parts together."""
        return sum(self.curve[alpha].values())

    @property
    def best(self) -> float:
        """Where the error is least."""
        return min(self.curve, key=self.error)

    @property
    def flat(self) -> tuple[float, float]:
        """The alphas around the best one at which the error is at most one percent larger."""
        alphas = sorted(self.curve)
        low = high = alphas.index(self.best)
        most = 1.01 * self.error(self.best)
        while low > 0 and self.error(alphas[low - 1]) <= most:
            low -= 1
        while high < len(alphas) - 1 and self.error(alphas[high + 1]) <= most:
            high += 1
        return alphas[low], alphas[high]

    @property
    def alpha(self) -> float:
        """What to take: of the alphas as good as the best (`flat`) the one nearest to 0.

        Shaping also changes what a network learns, which the oracle does not see: a gain too small to matter is no
        reason to shape more.
        """
        low, high = self.flat
        return min((alpha for alpha in self.curve if low <= alpha <= high), key=abs)


def suggest(
    mean: Tensor,
    power: Tensor,
    schedule: Schedule,
    timesteps: list[int],
    *,
    alphas: Sequence[float] = ALPHAS,
    sampler: str = "ddim",
    prediction: str = "eps",
    start: str = "noise",
    grid: str = "fftfreq",
    dc: str = "lowest",
    normalize: str = "expected",
    report: Callable[[int], None] = lambda alphas: None,
) -> Suggestion:
    """The sampler's own error for power-law noise of every alpha.

    Parameters
    ----------
    mean, power
        (C, H, W), of `sagd.moments.statistics`.
    alphas
        Those to try. 0 is among the default ones, -0.5 to 0.5.
    sampler, prediction, start
        As for `sagd.oracle.drawn`.
    grid, dc, normalize
        As for `sagd.power_law`.
    report
        Called with 1 after each alpha.

    Raises
    ------
    InputError
        Images that are all alike, statistics that are not finite, noise that is not Gaussian.
    """
    field = gaussian_field(mean, power)
    if not power.sum() > 0:
        raise InputError("the images are all alike, or there is but one: they have no power at any frequency")

    def error(alpha: float) -> dict[str, float]:
        spectrum = power_law(tuple(mean.shape[1:]), alpha, grid=grid, dc=dc, normalize=normalize)
        found = distance(
            drawn(field, schedule, spectrum, timesteps, sampler=sampler, prediction=prediction, start=start), field
        )
        report(1)
        return found

    errors = concurrently(error, alphas, torch.device("cpu"))
    return Suggestion(dict(zip(alphas, errors, strict=True)))


def verdict(from_noise: Suggestion, from_marginal: Suggestion) -> str:
    """What the curves say, in words that follow from their numbers: shape the noise, start right, or neither."""
    plain, alpha = from_noise.error(0.0), from_noise.alpha
    gain, right = 1 - from_noise.error(alpha) / plain, 1 - from_marginal.error(0.0) / plain
    if alpha == 0:
        said = "No alpha is better than 0 by more than one percent of the error that sampling has there"
    else:
        there, here = from_noise.curve[alpha], from_noise.curve[0.0]
        mean, dc, rest = (f"{(there[part] - here[part]) / plain:+.1%}" for part in ("mean", "dc", "rest"))
        said = (
            f"alpha {alpha:g} takes {gain:.1%} off the error that sampling has at alpha 0 ({mean} in the mean image, "
        )
        said += f"{dc} in the spread of the brightness, {rest} in all else)"
    said += f"; a start from the true marginal {'takes off' if right >= 0 else 'adds'} {abs(right):.1%} at alpha 0."
    if max(gain, right) < 0.02:
        return said + " Neither matters to the sampler here."
    if gain > right + 0.02:
        return said + " So shaping does more than the right start."
    more = "more" if right > gain + 0.02 else "about as much"
    return said + f" So the right start does {more}, and costs no training: sample.start=marginal."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sagd.suggest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="images, or statistics of images")
    parser.add_argument("--size", type=int, help="resolution to resize to (default: that of the images)")
    parser.add_argument("--steps", type=int, default=50, help="of the sampler (default: 50)")
    parser.add_argument("--spacing", default="leading", choices=("leading", "trailing"))
    parser.add_argument("--sampler", default="ddim", choices=SAMPLERS)
    parser.add_argument("--schedule", default="linear", choices=SCHEDULES)
    parser.add_argument(
        "--dc",
        default="floor",
        choices=("floor", "lowest"),
        help="weight of the zero frequency (default: floor, as the paper's listing; noise.dc of params.yaml: lowest)",
    )
    parser.add_argument("--grid", default="fftfreq", choices=("fftfreq", "linspace"))
    parser.add_argument("--json", action="store_true", help="print the curves as JSON")
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="write mean and power there (safetensors)")
    options = parser.parse_args(arguments)
    try:
        _print(options)
    except InputError as error:
        sys.exit(f"sagd.suggest: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _print(options: argparse.Namespace) -> None:
    if options.statistics and options.statistics.suffix != ".safetensors":
        raise InputError(f"--statistics is {options.statistics}; it must end in .safetensors")
    schedule = Schedule.named(options.schedule)
    timesteps = schedule.timesteps(options.steps, options.spacing)
    if schedule.alpha_bar[timesteps[0]] == 0:
        raise InputError("at zero terminal SNR with trailing steps every start is right: there is nothing to choose")
    data = _statistics(options)
    curves = {}
    with Bar("suggest", 2 * len(ALPHAS), "alphas") as bar:
        for start in ("noise", "marginal"):
            curves[start] = suggest(
                data["mean"], data["power"], schedule, timesteps, sampler=options.sampler, start=start,
                grid=options.grid, dc=options.dc, report=bar.update,
            )  # fmt: skip
    if options.json:
        print(json.dumps({start: found.curve for start, found in curves.items()}, indent=1))
        return
    shape = "x".join(map(str, data["mean"].shape))
    print(
        f"{options.data}: {shape}, mean pixel {data['mean'].mean():+.3f}. Power-law noise (dc {options.dc}), "
        f"{options.sampler}, {options.steps} steps ({options.spacing}), schedule {options.schedule}."
    )
    print("Error of a perfect network's samples, squared distance of their pixels as a Gaussian field:")
    heads = "".join(f"{head:>9}" for head in ("mean", "dc", "rest"))
    print(f"{'start':<10}{'at alpha 0':>12}{heads}{'best alpha':>13}{'error':>9}   within 1 %")
    for start, found in curves.items():
        low, high = found.flat
        parts = "".join(f"{found.curve[0.0][part]:9.3f}" for part in ("mean", "dc", "rest"))
        edge = " (the best is at the edge of what was tried)" if found.best in (ALPHAS[0], ALPHAS[-1]) else ""
        print(
            f"{start:<10}{found.error(0.0):12.3f}{parts}{found.best:13.2f}{found.error(found.best):9.3f}   "
            f"{low:g} to {high:g}{edge}"
        )
    print(verdict(curves["noise"], curves["marginal"]))


def _statistics(options: argparse.Namespace) -> dict[str, Tensor]:
    if options.data.endswith(".safetensors"):
        if options.size is not None:
            raise InputError(f"--size is for images; {options.data} holds statistics, of one size")
        data = read_tensors(options.data)
        shapes = {name: tuple(data[name].shape) for name in ("mean", "power") if name in data}
        if len(shapes) < 2 or len(set(shapes.values())) > 1 or data["mean"].ndim != 3:
            raise InputError(f"{options.data} holds {shapes}; it must hold mean and power, both (C, H, W)")
    else:
        from sagd.data import load
        from sagd.moments import statistics

        data = statistics(load(options.data, options.size))
    for name in ("mean", "power"):
        if not torch.isfinite(data[name]).all() or (name == "power" and (data[name] < 0).any()):
            raise InputError(f"{options.data}: {name} is not finite, or somewhere below 0 where it may not be")
    if options.statistics:
        write_tensors(options.statistics, data)
    return {name: data[name].to(torch.float64) for name in ("mean", "power")}


if __name__ == "__main__":
    main()
