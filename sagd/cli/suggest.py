"""Advise which alpha to train with, from the images alone: sagd suggest DATA

DATA is mnist_5k, a folder with torchvision's MNIST/raw in it, a folder or zip file of images, an npy file, an npz file
(file.npz:array), or a .safetensors file with their statistics, as --statistics writes it.

The data are replaced by the Gaussian field with their mean image and power spectrum. For it the best network is known
in closed form, and so is the error of a sampler. Prints this error over the alpha of power-law noise, for sampling that
starts from noise, as in the paper, and from the true marginal. What alpha does to learning is not in it.
"""

import argparse

import torch
from torch import Tensor

from sagd.cli import path, place
from sagd.data.load import load
from sagd.errors import InputError, check_floating
from sagd.formulations.base import SAMPLERS, SPACINGS, STARTS, Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import SCHEDULES, Schedule
from sagd.oracle.suggest import ALPHAS, suggest, verdict
from sagd.runtime.files import check_output, read_tensors, write_tensors
from sagd.runtime.progress import Bar
from sagd.spaces.moments import statistics

# What became of such advice with networks that were trained, which the oracle cannot know; a test holds the numbers.
MEASURED = (
    "All this is of a perfect network. With trained ones (MNIST at 16x16, uniform times; intervals at 95 %) neither "
    "advice held: a start from the marginal changed the distance of samples by -0.08 % (-0.81 to +0.65 %), and alpha "
    "below 0 was worse than 0: from -0.5 to 0.5 the distance fell, -12 % for each 0.25 of alpha (-14 to -9.2 %). See "
    "docs/results.md, and compare with alpha 0 on your own data."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("data", metavar="DATA", type=place, help="images, or statistics of images")
    add("--size", type=int, metavar="N", help="crop and resize pictures to N x N (default: leave them as they are)")
    add("--steps", type=int, default=50, metavar="N", help="steps of the sampler (default: %(default)s)")
    add("--spacing", default="leading", choices=SPACINGS, help="of these steps (default: %(default)s)")
    add("--sampler", default="ddim", choices=SAMPLERS, help="which one (default: %(default)s)")
    add("--schedule", default="linear", choices=SCHEDULES, help="of the variances (default: %(default)s)")
    add(
        "--dc",
        default="lowest",
        choices=("lowest", "floor"),
        help="weight of the zero frequency: lowest that of the lowest other frequency, floor as in the paper's listing "
        "(default: %(default)s)",
    )
    add("--grid", default="fftfreq", choices=("fftfreq", "linspace"), help="of frequencies (default: %(default)s)")
    add("--json", action="store_true", help="print the curves as JSON (default: a table and the advice)")
    add(
        "--statistics",
        type=path,
        metavar="FILE.safetensors",
        help="write mean image and power spectrum to this file (default: do not write them)",
    )


def run(options: argparse.Namespace) -> str | dict:
    """The curves and the advice."""
    if options.statistics:
        check_output("--statistics", options.statistics, ".safetensors", inputs=[options.data])
    diffusion = Diffusion(Schedule.named(options.schedule))
    samplers = {start: Sampler(options.sampler, options.steps, options.spacing, start) for start in STARTS}
    if diffusion.alpha_bar[diffusion.timesteps(samplers["noise"])[0]] == 0:
        raise InputError("at zero terminal SNR with trailing steps every start is right: there is nothing to choose")
    data = _statistics(options)
    curves = {}
    with Bar("suggest", len(samplers) * len(ALPHAS), "alphas") as bar:
        for start, sampler in samplers.items():
            curves[start] = suggest(
                data["mean"],
                data["power"],
                diffusion,
                sampler,
                alphas=ALPHAS,
                grid=options.grid,
                dc=options.dc,
                report=bar.update,
            )
    if options.json:
        return {start: found.curve for start, found in curves.items()}
    shape = "x".join(map(str, data["mean"].shape))
    heads = "".join(f"{head:>9}" for head in ("mean", "dc", "rest"))
    lines = [
        f"{options.data}: {shape}, mean pixel {data['mean'].mean():+.3f}. Power-law noise (dc {options.dc}), "
        f"{options.sampler}, {options.steps} steps ({options.spacing}), schedule {options.schedule}.",
        "Error of a perfect network's samples, squared distance of their pixels as a Gaussian field:",
        f"{'start':<10}{'at alpha 0':>12}{heads}{'best alpha':>13}{'error':>9}   within 1 %",
    ]
    for start, found in curves.items():
        low, high = found.flat
        parts = "".join(f"{found.curve[0.0][part]:9.3f}" for part in ("mean", "dc", "rest"))
        edge = " (the best is at the edge of what was tried)" if found.best in (ALPHAS[0], ALPHAS[-1]) else ""
        lines.append(
            f"{start:<10}{found.error(0.0):12.3f}{parts}{found.best:13.2f}{found.error(found.best):9.3f}   "
            f"{low:g} to {high:g}{edge}"
        )
    return "\n".join([*lines, verdict(curves["noise"], curves["marginal"]), MEASURED])


def _statistics(options: argparse.Namespace) -> dict[str, Tensor]:
    if options.data.lower().endswith(".safetensors"):
        if options.size is not None:
            raise InputError(f"--size is for images; {options.data} has statistics, of one size")
        data = dict(read_tensors(options.data))
        shapes = {name: tuple(data[name].shape) for name in ("mean", "power") if name in data}
        if len(shapes) < 2 or len(set(shapes.values())) > 1 or data["mean"].ndim != 3:
            raise InputError(f"{options.data} has {shapes}; it must have mean and power, both (C, H, W)")
    else:
        data = statistics(load(options.data, options.size))
    for name in ("mean", "power"):
        check_floating(f"{options.data}: {name}", data[name])
    found = {name: data[name].to(torch.float64) for name in ("mean", "power")}
    for name, values in found.items():
        if not torch.isfinite(values).all():
            raise InputError(f"{options.data}: {name} is not finite")
    if (found["power"] < 0).any():
        raise InputError(f"{options.data}: power is negative at some frequency")
    if options.statistics:
        write_tensors(options.statistics, data)
    return found
