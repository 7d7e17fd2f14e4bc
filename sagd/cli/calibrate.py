"""Measure how far each frequency has come, step by step: sagd calibrate FOLDER --out colored.json

FOLDER is a pipeline of diffusers with a U-Net that was trained on white noise: unet/ and scheduler/. The file is what
`sagd.colored.ColoredNoise.load` reads: the noise for the steps of a stochastic sampler (CNS, arXiv 2605.30332).
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from sagd.cli import path
from sagd.colored import ColoredNoise, calibrate, level
from sagd.errors import InputError, needs, plainly, shortened
from sagd.export import PREDICTIONS
from sagd.formulations.base import SPACINGS, Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.networks.weights import classes_of
from sagd.noise.grid import radius, ring_means
from sagd.noise.randomness import generator
from sagd.operators import from_dict
from sagd.runtime.files import check_output, header, lacking, read_json
from sagd.runtime.progress import Bar

SCHEDULER, UNET = Path("scheduler", "scheduler_config.json"), Path("unet", "config.json")
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
BETAS = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "trained_betas", "rescale_betas_zero_snr")
SHOWN = 8  # columns of the table
ODD = 0.2  # share of gamma below 0 that a user should hear of
LONGEST = 10**5  # steps of a schedule; its tables are made from the number alone
LARGEST = {"in_channels": 1024, "out_channels": 1024, "layers_per_block": 256, "num_class_embeds": 10**6}
WIDEST = 2**14  # side of an image, or channels of a level


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=path, help="of the pipeline, on this machine")
    add("--out", type=path, default=Path("colored.json"), metavar="FILE.json", help="written (default: %(default)s)")
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


def run(options: argparse.Namespace) -> str:
    """Calibrate, and write the file; the table."""
    for name in ("samples", "batch_size"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be 1 or more")
    if not 0 <= options.seed < 2**63:
        raise InputError(f"--seed is {options.seed}; it must be 0 or more, below 2^63")
    for name, least in (("strength", 0), ("divider", 1)):
        if not least <= getattr(options, name) < float("inf"):
            raise InputError(f"--{name} is {getattr(options, name)}; it must be {least} or more")
    try:
        device = torch.device(options.device)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # an unknown word, none here, or one without memory, as meta
        said = str(error).splitlines()[0]
        raise InputError(f"--device is {_short(options.device)}, which can't be used here ({said}); try cpu") from None
    read = [options.folder / name for name in ("model_index.json", SCHEDULER, UNET)]
    check_output("--out", options.out, ".json", inputs=read)
    sampler = Sampler("ddim", options.steps, options.spacing)
    diffusion = _diffusion(options.folder)
    diffusion.timesteps(sampler)  # known now, and not after loading
    network = _network(options.folder).to(device)
    if network.config.out_channels != network.config.in_channels:
        channels = f"takes {network.config.in_channels} channels and gives {network.config.out_channels}"
        raise InputError(f"{options.folder}: the network {channels}; learned variances can't be calibrated")
    classes = _classes(options.folder, network)
    shape = (options.samples, network.config.in_channels, *_size(options.folder / UNET, network.config.sample_size))
    start = torch.randn(shape, generator=generator(options.seed, "calibrate"), device="cpu").to(device)
    labels = torch.arange(options.samples, device=device) % classes if classes else None
    with Bar("calibrate", options.samples) as bar:
        try:
            found = calibrate(
                network, diffusion, start, sampler, labels=labels, batch_size=options.batch_size, report=bar.update
            )
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:  # what a network raises that takes no such images
            if lacking(error):
                raise
            raise InputError(
                f"{options.folder}: the network fails on images of {list(shape[1:])}: {_said(error)}"
            ) from error
    colored = ColoredNoise(found.size, found.log_snr, found.gamma, options.strength, options.divider)
    colored.save(options.out)
    lines = [
        f"gamma, how much of each frequency is settled at step t: {options.samples} trajectories, "
        f"{options.steps} steps",
        *_table(colored, diffusion, sampler),
    ]
    worse = (colored.gamma < 0).double().mean().item()
    if worse > ODD:
        lines.append(
            f"{worse:.0%} is below 0, where the network guesses worse than 0 would (taken as 0): more --samples, or is "
            "it trained, and is this its scheduler?"
        )
    return "\n".join([*lines, f"wrote {options.out}"])


def _diffusion(folder: Path) -> Diffusion:
    """Schedule and prediction of a pipeline's scheduler."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder here; load a model of the hub and `save_pretrained` it first")
    config = read_json(folder / SCHEDULER)
    name = shortened(str(config.get("_class_name", "the scheduler")), 60)
    prediction = config.get("prediction_type", "epsilon")
    ours = {theirs: our for our, theirs in PREDICTIONS.items()}
    if not isinstance(prediction, str) or prediction not in ours:
        raise InputError(f"{folder}: prediction_type is {_short(prediction)}; allowed: {', '.join(ours)}")
    spectrum = config.get("spectrum")
    if spectrum is not None and not isinstance(spectrum, dict):
        raise InputError(f"{folder}: spectrum is {_short(spectrum)}; it must be a mapping")
    try:
        white = spectrum is None or from_dict(spectrum).white
    except InputError as error:
        raise InputError(f"{folder / SCHEDULER}: spectrum: {error}") from None
    if not white:
        raise InputError(f"{folder} was trained on shaped noise; colored steps are for networks trained on white noise")
    with needs("diffusers"):
        from diffusers import DDPMScheduler
    if "beta_schedule" not in config:
        raise InputError(f"{folder}: {name} has no betas; calibrating is for discrete diffusions, such as DDPM's")
    known = {k: v for k, v in config.items() if k in BETAS}
    _whole(folder / SCHEDULER, "num_train_timesteps", known.get("num_train_timesteps", 1000), LONGEST)
    try:
        alpha_bar = DDPMScheduler(**known).alphas_cumprod
        return Diffusion(Schedule(alpha_bar.double()), ours[prediction])
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{folder}: {name} has betas that can't be used: {_said(error)}") from None


def _whole(file: Path, key: str, value: object, most: int, least: int = 1) -> int:
    """A whole number of a pipeline's file, within bounds: what is made of it is not made of a slip, or of malice."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{file}: {key} is {_short(value)}; it must be a whole number, {least} to {plainly(most)}")
    return value


def _size(file: Path, value: object) -> tuple[int, int]:
    """Height and width of the images that a U-Net was trained on."""
    if value is None:
        raise InputError(
            f"{file}: sample_size is null; set it to the size of the images that the network was trained on"
        )
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2:
        raise InputError(f"{file}: sample_size is {_short(value)}; it must be a whole number, or [height, width]")
    height, width = (_whole(file, "sample_size", side, WIDEST, least=2) for side in sides)
    return height, width


def _short(value: object) -> str:
    return shortened(value if isinstance(value, str) and value else repr(value), 60)


def _said(error: Exception) -> str:
    return shortened(" ".join(str(error).split()), 200) or type(error).__name__


def _network(folder: Path) -> Any:
    """A pipeline's U-Net, by diffusers, from safetensors alone."""
    with needs("diffusers"):
        from diffusers import UNet2DModel
    if not (folder / UNET).is_file():
        raise InputError(f"{folder} has no {UNET}; calibrating takes a pipeline with a UNet2DModel")
    config = read_json(folder / UNET)
    if (kind := config.get("_class_name")) != "UNet2DModel":
        raise InputError(f"{folder}: the network is a {_short(kind)}; calibrating takes a UNet2DModel")
    if (embedded := config.get("class_embed_type")) is not None:
        raise InputError(
            f"{folder / UNET}: class_embed_type is {_short(embedded)}; calibrating takes a network of labels"
        )
    _size(folder / UNET, config.get("sample_size"))
    for key, most in LARGEST.items():
        if config.get(key) is not None:
            _whole(folder / UNET, key, config[key], most)
    widths = config.get("block_out_channels", [1])
    for width in widths if isinstance(widths, list) else [widths]:
        _whole(folder / UNET, "block_out_channels", width, WIDEST)
    try:
        network, found = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, output_loading_info=True)
    except Exception as error:  # whatever diffusers makes of a configuration that does not fit
        if lacking(error):
            raise
        raise InputError(f"{folder / 'unet'}: {_said(error)}") from None
    if missing := found["missing_keys"]:
        raise InputError(f"{folder / 'unet'}: the weights lack {len(missing)} tensors, such as {_short(min(missing))}")
    for key, of in header(folder / WEIGHTS).items():
        dtype = of.get("dtype", "F32")
        if key not in found["unexpected_keys"] and not dtype.startswith(("F", "BF")):
            raise InputError(f"{folder / WEIGHTS}: {_short(key)} is {dtype}; weights must be floating-point")
    return network.eval().requires_grad_(False)


def _classes(folder: Path, network: Any) -> int:
    """How many labels the network knows; of those that sagd trained, which have a spectrum, the last is for none."""
    ours = "spectrum" in read_json(folder / SCHEDULER)
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
