"""Measure how far each frequency has come, step by step: sagd calibrate FOLDER --out colored.json

FOLDER is a pipeline of diffusers with a U-Net that was trained on white noise: unet/ and scheduler/. The file is what
`sagd.colored.ColoredNoise.load` reads: the noise for the steps of a stochastic sampler (CNS, arXiv 2605.30332).
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from sagd.colored import ColoredNoise, calibrate, level
from sagd.errors import InputError, needs
from sagd.export import PREDICTIONS
from sagd.formulations.base import SPACINGS, Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.networks.weights import classes_of
from sagd.noise.grid import radius, ring_means
from sagd.noise.randomness import generator
from sagd.operators import from_dict
from sagd.runtime.files import read_json
from sagd.runtime.progress import Bar

SHOWN = 8  # columns of the table
ODD = 0.2  # share of gamma below 0 that a user should hear of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="of the pipeline, on this machine")
    add("--out", type=Path, default=Path("colored.json"), metavar="FILE.json", help="written (default: %(default)s)")
    add(
        "--samples",
        type=int,
        default=512,
        metavar="N",
        help="images that are sampled to measure it (default: %(default)s)",
    )
    add(
        "--steps",
        type=int,
        default=50,
        metavar="N",
        help="of the sampler; others may be sampled later (default: %(default)s)",
    )
    add("--spacing", default="leading", choices=SPACINGS, help="of these steps (default: %(default)s)")
    add("--strength", type=float, default=1.0, metavar="S", help="w^2 ~ (1 - gamma / D)^S (default: %(default)s)")
    add("--divider", type=float, default=1.0, metavar="D", help="1 or more (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the trajectories (default: %(default)s)")
    add("--batch-size", type=int, default=32, metavar="N", help="images at a time (default: %(default)s)")
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the network runs (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Calibrate, print the table, write the file."""
    if options.out.suffix != ".json":
        raise InputError(f"--out is {options.out}; it must end in .json")
    for name in ("samples", "batch_size"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be 1 or more")
    if not 0 <= options.seed < 2**63:
        raise InputError(f"--seed is {options.seed}; it must be 0 or more, below 2^63")
    for name, least in (("strength", 0), ("divider", 1)):
        if not least <= getattr(options, name) < float("inf"):
            raise InputError(f"--{name} is {getattr(options, name)}; it must be {least} or more")
    try:
        device = torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:  # an unknown word, or none here
        said = str(error).splitlines()[0]
        raise InputError(f"--device is {options.device}, which can't be used here ({said}); try cpu") from None
    sampler = Sampler("ddim", options.steps, options.spacing)
    diffusion = _diffusion(options.folder)
    diffusion.timesteps(sampler)  # known now, and not after loading
    network = _network(options.folder).to(device)
    if network.config.out_channels != network.config.in_channels:
        channels = f"takes {network.config.in_channels} channels and gives {network.config.out_channels}"
        raise InputError(f"{options.folder}: the network {channels}; learned variances can't be calibrated")
    size, classes = network.config.sample_size, _classes(options.folder, network)
    height, width = (size, size) if isinstance(size, int) else size
    shape = (options.samples, network.config.in_channels, height, width)
    start = torch.randn(shape, generator=generator(options.seed, "calibrate")).to(device)
    labels = torch.arange(options.samples, device=device) % classes if classes else None
    with Bar("calibrate", options.samples) as bar:
        found = calibrate(
            network, diffusion, start, sampler, labels=labels, batch_size=options.batch_size, report=bar.update
        )
    colored = ColoredNoise(found.size, found.log_snr, found.gamma, options.strength, options.divider)
    colored.save(options.out)
    print(
        f"gamma, how much of each frequency is settled at step t: {options.samples} trajectories, {options.steps} steps"
    )
    print("\n".join(_table(colored, diffusion, sampler)))
    worse = (colored.gamma < 0).double().mean().item()
    if worse > ODD:
        print(
            f"{worse:.0%} is below 0, where the network guesses worse than 0 would (taken as 0): more --samples, or is "
            "it trained, and is this its scheduler?"
        )
    print(f"wrote {options.out}")


def _diffusion(folder: Path) -> Diffusion:
    """Schedule and prediction of a pipeline's scheduler."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder here; load a model of the hub and `save_pretrained` it first")
    config = _scheduler(folder)
    name, prediction = config.get("_class_name", "the scheduler"), config.get("prediction_type", "epsilon")
    ours = {theirs: our for our, theirs in PREDICTIONS.items()}
    if prediction not in ours:
        raise InputError(f"{folder}: prediction_type is {prediction}; allowed: {', '.join(ours)}")
    spectrum = config.get("spectrum")
    if spectrum is not None and not from_dict(spectrum).white:
        raise InputError(f"{folder} was trained on shaped noise; colored steps are for networks trained on white noise")
    with needs("diffusers"):
        from diffusers import DDPMScheduler
    if "beta_schedule" not in config:
        raise InputError(f"{folder}: {name} has no betas; calibrating is for discrete diffusions, such as DDPM's")
    known = {k: v for k, v in config.items() if k.startswith("beta") or k in ("num_train_timesteps", "trained_betas")}
    known["rescale_betas_zero_snr"] = config.get("rescale_betas_zero_snr", False)
    try:
        alpha_bar = DDPMScheduler(**known).alphas_cumprod
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{folder}: {name} has betas that diffusers refuses: {str(error).splitlines()[0]}") from None
    return Diffusion(Schedule(alpha_bar.double()), ours[prediction])


def _scheduler(folder: Path) -> dict:
    return read_json(folder / "scheduler" / "scheduler_config.json")


def _network(folder: Path) -> Any:
    """A pipeline's U-Net, by diffusers, from safetensors alone."""
    with needs("diffusers"):
        from diffusers import UNet2DModel
    if not (folder / "unet" / "config.json").is_file():
        raise InputError(f"{folder} has no unet/config.json; calibrating takes a pipeline with a UNet2DModel")
    kind = read_json(folder / "unet" / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise InputError(f"{folder}: the network is a {kind}; calibrating takes a UNet2DModel")
    try:
        network = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{folder / 'unet'}: {' '.join(str(error).split())[:200]}") from None
    return network.eval().requires_grad_(False)


def _classes(folder: Path, network: Any) -> int:
    """How many labels the network knows; of those that sagd trained, which have a spectrum, the last is for none."""
    ours = "spectrum" in _scheduler(folder)
    return classes_of(network) if ours else network.config.num_class_embeds or 0


def _table(colored: ColoredNoise, diffusion: Diffusion, sampler: Sampler) -> list[str]:
    """Gamma over the radius (down) at some of the steps (across)."""
    steps = diffusion.timesteps(sampler)
    shown = steps[:: -(-len(steps) // SHOWN)]
    columns = [colored.gamma_at(level(diffusion.schedule.alpha_bar[t]).item()) for t in shown]
    rows = [
        f"{r:6.3f}  {''.join(f'{column[k]:8.3f}' for column in columns)}"
        for k, r in enumerate(ring_means(radius(colored.size)).tolist())
    ]
    heads = "".join(f"t={t}".rjust(8) for t in shown)
    return [f"radius  {heads}", *rows]
