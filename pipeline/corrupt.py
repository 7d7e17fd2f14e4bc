"""Describe the corruption of the training data: noise in one band, which training draws anew for every batch."""

import numpy as np
import torch

from pipeline.console import stage
from sagd.data import to_uint8
from sagd.figures import save_grid
from sagd.files import read_array, write_json
from sagd.randomness import generator
from sagd.spectrum import Spectrum, band_pass

PREVIEW = 24


def corruption(description: dict) -> tuple[Spectrum, float] | None:
    """(spectrum, gamma) from what this stage wrote."""
    if description["spectrum"] is None:
        return None
    return Spectrum.from_dict(description["spectrum"]), description["gamma"]


def main(params, options):
    images = read_array("artifacts/prepare/train.npy")[:PREVIEW]
    for setting in params.all_settings:
        corrupt = setting.corrupt
        spectrum = None
        if corrupt.band is not None:
            spectrum = band_pass(images.shape[-2:], *corrupt.band, units=corrupt.units).to_dict()
        description = {"spectrum": spectrum, "gamma": corrupt.gamma}
        write_json(setting.artifacts("corrupt") / "corruption.json", description)
        save_grid(setting.report("corrupt", "png"), preview(images, corruption(description)), columns=12)


def preview(images: np.ndarray, noise: tuple[Spectrum, float] | None) -> np.ndarray:
    """The first training images, as a network may see them."""
    if noise is None:
        return images
    spectrum, gamma = noise
    x = torch.from_numpy(images).float() / 127.5 - 1
    return to_uint8(x + gamma * spectrum.sample(x.shape, generator=generator(0, "preview"))).numpy()


if __name__ == "__main__":
    stage(main, settings=False)
