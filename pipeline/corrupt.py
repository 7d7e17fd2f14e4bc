"""Describe the corruption of the training data: noise in one band, which training draws anew for every batch."""

import numpy as np
import torch

from pipeline.console import stage
from sagd.corruption import Corruption
from sagd.figures import save_grid
from sagd.files import read_array, write_json
from sagd.randomness import generator
from sagd.sampling import to_uint8
from sagd.spectrum import band_pass

PREVIEW = 24


def main(params, options):
    for setting in params.chosen(options) if options.setting else params.all_settings:
        images = read_array(setting.prepared / "train.npy", memory_map=True)[:PREVIEW]
        chosen, corruption = setting.corrupt, None
        if chosen.band is not None:
            band = band_pass(images.shape[-2:], *chosen.band, units=chosen.units)
            corruption = Corruption(band, chosen.gamma, chosen.filtered)
        description = corruption.to_dict() if corruption else {"spectrum": None, "gamma": chosen.gamma}
        write_json(setting.artifacts("corrupt") / "corruption.json", description)
        save_grid(setting.report("corrupt", "png"), corrupted(images, corruption, "preview"), columns=12)


def corrupted(images: np.ndarray, corruption: Corruption | None, purpose: str) -> np.ndarray:
    """Images with one draw of the noise, as a network may see them; clipped and rounded to 8 bits."""
    if corruption is None:
        return images
    x = torch.from_numpy(np.array(images)).float() / 127.5 - 1
    return to_uint8(corruption(x, generator(0, purpose))).numpy()


if __name__ == "__main__":
    stage(main, each="group")
