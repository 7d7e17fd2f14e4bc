"""Describe the corruption of the training data: noise in one band, which training draws anew for every batch."""

import numpy as np
import torch

from pipeline.console import stage
from sagd.figures import save_grid
from sagd.files import read_array, write_json
from sagd.randomness import generator
from sagd.sampling import to_uint8
from sagd.spectrum import Spectrum, band_pass

PREVIEW = 24


def corruption(description: dict) -> tuple[Spectrum, float] | None:
    """(spectrum, gamma) from what this stage wrote."""
    if description["spectrum"] is None:
        return None
    return Spectrum.from_dict(description["spectrum"]), description["gamma"]


def main(params, options):
    for setting in params.chosen(options) if options.setting else params.all_settings:
        images = read_array(setting.prepared / "train.npy", memory_map=True)[:PREVIEW]
        corrupt = setting.corrupt
        spectrum = None
        if corrupt.band is not None:
            spectrum = band_pass(images.shape[-2:], *corrupt.band, units=corrupt.units).to_dict()
        description = {"spectrum": spectrum, "gamma": corrupt.gamma}
        write_json(setting.artifacts("corrupt") / "corruption.json", description)
        save_grid(setting.report("corrupt", "png"), corrupted(images, corruption(description), "preview"), columns=12)


def corrupted(images: np.ndarray, noise: tuple[Spectrum, float] | None, purpose: str) -> np.ndarray:
    """Images with one draw of the noise, as a network may see them; clipped and rounded to 8 bits."""
    if noise is None:
        return images
    spectrum, gamma = noise
    x = torch.from_numpy(np.array(images)).float() / 127.5 - 1
    return to_uint8(x + gamma * spectrum.sample(x.shape, generator=generator(0, purpose))).numpy()


if __name__ == "__main__":
    stage(main, each="group")
