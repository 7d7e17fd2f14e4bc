"""Read the data set, resize it, split it: uint8 arrays of training and held-out images."""

from pathlib import Path

import numpy as np

from pipeline.console import stage
from sagd import data
from sagd.files import write_array, write_json


def main(params, options):
    dataset = params.dataset(options.dataset)
    path = Path(dataset.path).expanduser() if dataset.path else None
    images, held_out, source = data.read(dataset.name, path, dataset.size, dataset.channels)
    given = held_out is not None  # a data set with a test split of its own
    if not given:
        held_out = data.split(len(images), dataset.held_out, dataset.split_seed)
    folder = params.prepared(options.dataset)
    write_array(folder / "train.npy", images[~held_out])
    write_array(folder / "held_out.npy", images[held_out])
    record = {
        "source": source,
        "shape": list(images.shape[1:]),
        "train": int((~held_out).sum()),
        "held_out": int(held_out.sum()),
        "split_seed": None if given else dataset.split_seed,
        "held_out_indices": "the data set's own" if given else np.flatnonzero(held_out).tolist(),
    }
    name = f"prepare/{options.dataset}.json" if options.dataset else "prepare.json"
    write_json(Path("reports", params.profile or "", name), record)
    print(f"prepare: {record['train']} images to train on, {record['held_out']} held out, {record['shape']}")


if __name__ == "__main__":
    stage(main, each="dataset")
