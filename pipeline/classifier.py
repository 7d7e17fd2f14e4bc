"""Train a small classifier of a data set's images, whose features `evaluate.features` can take: a TorchScript file."""

import argparse
from pathlib import Path

import torch

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.metrics.classifier import accuracy, export, fit
from sagd.runtime.download import digest
from sagd.runtime.files import read_array, write_json
from sagd.runtime.progress import Bar


def main(params: Params, options: argparse.Namespace) -> None:
    choice = params.section("classifier")
    place = params.prepared(choice.dataset)
    if not place.array("labels").exists():
        raise InputError(f"{place.folder} has no labels (classifier.dataset); set labels: true of that data set")
    names = ("train", "labels", "held_out", "held_out_labels")
    images, labels, held_out, held_out_labels = (torch.from_numpy(read_array(place.array(name))) for name in names)
    with Bar("classifier", len(images) * choice.epochs) as bar:
        network = fit(images, labels, choice.how(), report=bar.update)
    file = Path("reports", params.profile or "", "classifier.pt")
    export(network, file)
    record = {
        **choice.model_dump(),
        "classes": int(labels.max()) + 1,
        "accuracy_train": accuracy(network, images, labels),
        "accuracy_held_out": accuracy(network, held_out, held_out_labels),
        "held_out": len(held_out),
        "sha256": digest(file),
    }
    write_json(file.with_suffix(".json"), record)
    print(f"classifier: {record['accuracy_held_out']:.2%} of the held-out images named rightly")


if __name__ == "__main__":
    stage(main, each=None)
