"""Flow matching with shaped noise: the same network sampled in few steps and in many, by Euler's method and by Heun's.

Needs `pip install '.[data]'` for the digits and the picture. Saves one row of samples for each number of steps.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import sagd
from sagd.data.load import read
from sagd.networks.unet import unet
from sagd.previews import save_grid
from sagd.spaces.moments import field_distance, statistics
from sagd.spaces.pixels import Pixels, to_uint8
from sagd.training.loop import train
from sagd.training.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of training (default: %(default)s)")
    parser.add_argument("--alpha", type=float, default=-0.06, help="exponent of the noise (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("flow_matching.png"), help="the picture")
    options = parser.parse_args()

    size, digits = (16, 16), read("mnist_5k", None, 16)
    noise, flow = sagd.power_law(size, options.alpha), sagd.Flow(times="logit_normal")
    torch.manual_seed(0)  # the network's initial weights
    network = unet(size, 1, widths=[16, 16, 32], layers=1, attention=[False] * 3, groups=8)
    recipe = Recipe(options.steps, batch_size=32, lr=0.01, warmup=options.steps // 10, betas=(0.9, 0.99), ema=0.99)
    trained = train(network, Pixels(torch.from_numpy(digits)), noise, flow, recipe, seed=0)
    network.load_state_dict(trained.weights)
    network.eval()
    print(f"loss {trained.losses[0]:.3f} in the first step, {trained.losses[-1]:.3f} in the last")

    rows, real = [], statistics(digits)
    for name, steps in (("euler", 2), ("euler", 10), ("heun", 10), ("euler", 50)):
        start = torch.Generator().manual_seed(1)  # the same noise in each row
        x = sagd.sample(network, flow, noise, sagd.Sampler(name, steps), shape=(96, 1, *size), generator=start)
        images = to_uint8(x).numpy()
        distance = sum(field_distance(statistics(images), real).values())
        print(f"{name}, {steps} steps: squared distance of pixels, as Gaussian fields {distance:.2f}")
        rows.append(images[:12])
    save_grid(options.out, np.concatenate(rows), columns=12)
    print(f"saved {options.out}")


if __name__ == "__main__":
    main()
