"""Describe the corruption of the training data: noise in one band, which training draws again for every batch."""

import argparse

import numpy as np

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.noise.corruption import Corruption, save
from sagd.noise.randomness import generator
from sagd.operators import band_pass
from sagd.previews import save_grid
from sagd.runtime.files import holds
from sagd.spaces.pixels import corrupted

PREVIEW = 24


def main(params: Params, options: argparse.Namespace) -> None:
    if not options.setting:
        params.sweep("corrupt", "train")  # each stage `train` knows of one setting
    for setting in params.chosen(options) if options.setting else params.all_settings:
        images = setting.prepared.images()
        # Not the first ones: a set may lie in the order of its classes.
        images = images[np.random.default_rng(0).permutation(len(images))[:PREVIEW]]
        chosen, corruption = setting.corrupt, None
        if chosen.band is not None:
            band = band_pass(images.shape[-2:], chosen.edges, units=chosen.units, normalize=chosen.normalize)
            corruption = Corruption(band, chosen.gamma, chosen.filtered)
        file = setting.corruption_file
        if not holds(file, {} if corruption is None else corruption.tensors()):
            save(file, corruption)
        preview = corrupted(images, corruption, generator(0, "preview"))
        save_grid(setting.report("corrupt", "png"), preview, columns=12)


if __name__ == "__main__":
    stage(main, each="group")
