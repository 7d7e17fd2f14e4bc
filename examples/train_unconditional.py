"""Train a DDPM on a folder of images, with any noise, on one process or several: one option chooses the noise.

    accelerate launch examples/train_unconditional.py --data pictures/ --size 64 --noise power_law:-0.06

Needs `pip install '.[models,data]'`. Saves the network, its noise and a picture of samples. The same command again
resumes. Processes share each batch, so their number changes nothing else.
"""

import argparse
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel

import sagd
from sagd.data.load import load
from sagd.networks import weights
from sagd.networks.unet import unet
from sagd.noise import randomness, stored
from sagd.operators import OPERATORS, build
from sagd.previews import save_grid
from sagd.runtime.files import read_json, write_json
from sagd.runtime.progress import Bar
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import from_uint8, to_uint8


def noise_of(text: str, size: tuple[int, int], power: torch.Tensor) -> sagd.Spectrum:
    """A colour, or an operator and the first of its arguments: pink, power_law:-0.06, two_band:0.3,[0,0.4],[0.5,1]."""
    (name, _, values), names = text.partition(":"), []
    try:
        if name not in OPERATORS:
            return sagd.colour(text, size)
        names = [n for n in inspect.signature(OPERATORS[name]).parameters if n not in ("size", "power")]
        quoted = re.sub(r'(?<![\w."])[A-Za-z_]+', r'"\g<0>"', values)  # a word is a string, a number is not
        return build(name, size, power, dict(zip(names, json.loads(f"[{quoted}]"), strict=False)))
    except (TypeError, ValueError) as error:
        known = f"{name} takes {', '.join(names)}" if names else f"operators are {', '.join(OPERATORS)}"
        raise sagd.InputError(f"--noise {text}: {error}; {known}") from None


def save(accelerator: Accelerator, folder: Path) -> None:
    """Write a checkpoint, and only then remove the one before."""
    accelerator.save_state(str(folder / "saving"))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        (folder / "saving").rename(folder / "checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist_5k", help="folder or zip file of images (default: digits)")
    parser.add_argument("--noise", default="power_law:-0.06", help="operator:arguments, or a colour: %(default)s")
    parser.add_argument("--size", type=int, default=16, help="of the images, pixels (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32], help="of the U-Net's levels: %(default)s")
    parser.add_argument("--steps", type=int, default=400, help="of training (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of AdamW (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: %(default)s)")
    parser.add_argument("--checkpoint", type=int, default=1000, help="steps between checkpoints: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("unconditional"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    accelerator = Accelerator()
    size, batch, rank, device = (options.size,) * 2, options.batch_size, accelerator.process_index, accelerator.device
    if batch < 1 or batch % accelerator.num_processes:
        raise sagd.InputError(f"--batch-size is {batch}; the number of processes must divide it")
    images = load(options.data, options.size)[:]  # (N, C, H, W), uint8
    data, file = statistics(images), options.out / "options.json"
    noise = noise_of(options.noise, size, data["power"].mean(0))
    defining = {k: str(v) for k, v in vars(options).items() if k not in ("steps", "checkpoint", "out")}
    if file.exists() and (other := read_json(file).items() - defining.items()):
        raise sagd.InputError(f"{file} has {dict(other)}: resume with these, or choose another --out")
    diffusion = sagd.Diffusion(sagd.Schedule.linear(), "eps")
    torch.manual_seed(options.seed)  # the network's initial weights
    network = unet(size, images.shape[1], options.widths, 1, [False] * len(options.widths), groups=8)
    average = AveragedModel(network, avg_fn=lambda mean, new, step: mean.lerp(new, (1 + step) ** -0.75))
    network, optimizer = accelerator.prepare(network, torch.optim.AdamW(network.parameters(), lr=options.lr))
    average = accelerator.prepare_model(average, evaluation_mode=True)  # goes into the checkpoints
    if (options.out / "checkpoint").exists():
        accelerator.load_state(str(options.out / "checkpoint"))
    if accelerator.is_main_process:
        write_json(file, defining)
        stored.save(options.out / "noise.safetensors", noise)
    first, rows = int(average.n_averaged), slice(rank, None, accelerator.num_processes)
    with Bar("train", options.steps, "steps", rank) as bar:
        bar.skip(first)
        for step in range(first, options.steps):
            draw = randomness.generator(options.seed, "train", step)  # so nothing has to be saved to resume
            x0 = from_uint8(images[torch.randint(len(images), (batch,), generator=draw)[rows].numpy()], device)
            t = diffusion.draw_times(batch, generator=draw)[rows].to(device)
            eps = noise.sample((batch, *x0.shape[1:]), generator=draw, rows=rows, device=device)
            loss = diffusion.loss(network, noise, x0, t, eps)
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(accelerator.unwrap_model(network))
            bar.update(1, loss=loss.detach())
            if (step + 1) % options.checkpoint == 0 or step + 1 == options.steps:
                save(accelerator, options.out)
    if accelerator.is_main_process:
        weights.save(options.out / "network", average.module)
        sampler = sagd.Sampler("ddim", 50, clip=noise.full)
        samples = sagd.draw(average.module.eval(), diffusion, noise, sampler, data, n=64, seed=options.seed)
        save_grid(options.out / "samples.png", to_uint8(samples).cpu().numpy(), columns=16)
        print(f"saved {options.out}")


if __name__ == "__main__":
    try:
        main()
    except sagd.InputError as error:
        sys.exit(f"train_unconditional: {error}")
