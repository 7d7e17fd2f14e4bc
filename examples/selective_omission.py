"""Learn digits from images with noise in one band: isotropic noise learns it too, two-band noise leaves it out.

Needs `pip install '.[data]'`. Saves a picture: training images, samples of isotropic noise,
samples of two-band noise.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import sagd
from sagd.data.load import read
from sagd.networks.unet import unet
from sagd.noise.grid import band_masks
from sagd.previews import save_grid
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import Pixels, corrupted, to_uint8
from sagd.training.loop import train
from sagd.training.recipe import Recipe

SIZE, BAND = (16, 16), (0.4, 0.5)  # in corner units: 1 is the largest radius of the grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of training, for each noise (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("selective_omission.png"), help="the picture")
    options = parser.parse_args()

    digits = read("mnist_5k", None, SIZE[0])  # (5000, 1, 16, 16), uint8
    corruption = sagd.Corruption(sagd.band_pass(SIZE, BAND))
    diffusion, sampler = sagd.Diffusion(sagd.Schedule.linear(), "v", "log_normal"), sagd.Sampler("ddim", 25)
    warmup = options.steps // 10
    recipe = Recipe(options.steps, 16, 0.006, warmup, betas=(0.9, 0.99), ema=0.99, optimizer="muon")
    noises = {
        "isotropic": sagd.isotropic(SIZE),
        "two-band": sagd.two_band(SIZE, 0.5, low=(0.0, BAND[0]), high=(BAND[1], 1.0)),
    }
    rows = [corrupted(digits[::200], corruption, torch.Generator().manual_seed(0))[:24]]
    inside = band_masks(SIZE, [BAND])[1]
    for name, noise in noises.items():
        torch.manual_seed(0)  # the same initial weights for both
        network = unet(SIZE, 1, widths=[16, 32], layers=1, attention=[False] * 2, groups=8)
        trained = train(
            network, Pixels(torch.from_numpy(digits)), noise, diffusion, recipe, seed=0, corruption=corruption
        )
        network.load_state_dict(trained.weights)
        samples = sagd.draw(network.eval(), diffusion, noise, sampler, statistics(digits), n=96, seed=0)
        images = to_uint8(samples).numpy()
        power = [statistics(x)["power"].mean(0)[inside].mean() for x in (images, digits)]
        print(f"{name}: power in the band, over that of clean digits: {power[0] / power[1]:.2f}")
        rows.append(images[:24])
    save_grid(options.out, np.concatenate(rows), columns=12)
    print(f"saved {options.out}")


if __name__ == "__main__":
    main()
