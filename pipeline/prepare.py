"""Read the data set, resize it, split it: uint8 arrays of training and held-out images."""

import argparse
from pathlib import Path

import numpy as np

from pipeline.params import Params
from pipeline.params.sections import EXTENSIONS, Dataset, naming
from pipeline.run.console import in_a_copy, stage
from sagd.data import channels_of, find
from sagd.data.prepare import prepare, split
from sagd.data.source import root_of
from sagd.errors import InputError
from sagd.images import tell
from sagd.runtime.download import digest
from sagd.runtime.files import write_array, write_json


def main(params: Params, options: argparse.Namespace) -> None:
    dataset = params.dataset(options.dataset)
    place = params.prepared(options.dataset)
    if in_a_copy() and root_of(dataset.path) == Path("data") and not Path("data").exists():
        tell("prepare: DVC runs a queued experiment in a copy, whose folder data is empty; give dataset.path, absolute")
    with naming("dataset", Dataset):
        pictures = find(dataset.name, dataset.path, dataset.size, folder=EXTENSIONS / "data")
        given = pictures.held_out is not None  # a data set with a test part of its own
        held_out = pictures.held_out
        if held_out is None:
            held_out = split(len(pictures.names), dataset.held_out, dataset.split_seed)
    if given and not 2 <= held_out.sum() <= len(held_out) - 2:
        raise InputError(f"{pictures.source}: {held_out.sum()} of {len(held_out)} images are held out; 2 are needed")
    labels = pictures.labels() if dataset.labels else None  # before the work: there may be none
    channels = dataset.channels or channels_of(dataset.name)
    content = prepare(pictures, held_out, dataset.size, channels, place.folder)
    for part, rows in (("labels", ~held_out), ("held_out_labels", held_out)):
        if labels is None:
            place.array(part).unlink(missing_ok=True)
        else:
            write_array(place.array(part), labels[rows])
    record = {
        "source": pictures.source,
        "sha256": content,
        "shape": [channels, dataset.size, dataset.size],
        "train": int((~held_out).sum()),
        "held_out": int(held_out.sum()),
        "split_seed": None if given else dataset.split_seed,
        **({} if labels is None else {"classes": int(labels.max()) + 1}),
        **({"class_names": names} if labels is not None and (names := pictures.class_names()) else {}),
        "arrays_sha256": {file.stem: digest(file) for file in sorted(place.folder.glob("*.npy"))},
        "held_out_indices": "the data set's own" if given else np.flatnonzero(held_out).tolist(),
    }
    write_json(place.record, record)
    print(f"prepare: {record['train']} images to train on, {record['held_out']} held out, {record['shape']}")


if __name__ == "__main__":
    stage(main, each="dataset")
