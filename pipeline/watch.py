"""List the user's own files, of which DVC knows nothing: `prepare`, `encode` and `evaluate` depend on the lists.

DVC alone would read every image to tell whether one has changed. It runs this stage each time instead, where there are
such files: `again` in reports/watch.json is NaN then, which is never equal to what it was.
"""

import argparse
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.params import Params
from pipeline.params.sections import Dataset
from pipeline.run.console import stage
from sagd.data import SOURCES
from sagd.errors import InputError
from sagd.images import listing, walk
from sagd.runtime.files import write_json

Listing = Callable[[Path], list[tuple[str, int, int]]]  # names, sizes and times


def main(params: Params, options: argparse.Namespace) -> None:
    watched = {name: dataset_files(dataset) for name, dataset in params.datasets.items()}
    if not watched:  # of the studies of several data sets, dvc.yaml names what else they read
        watched["dataset"] = dataset_files(params.section("dataset"))
        encode, evaluate = params.section("encode"), params.section("evaluate")
        watched["encode"] = own_files(encode.path)
        network = evaluate.features if "." in evaluate.features else None  # a file, or one of the networks by name
        watched["evaluate"] = own_files(network, evaluate.reference)
    folder = Path("reports", "watch", params.profile or "")
    for name, places in watched.items():
        record = folder / f"{name}.json"
        # A disk that is away changes no data: if they are needed, the stage that reads them tells that they are away.
        if all(map(os.path.exists, places)) or not record.is_file():
            write_json(record, listed(places))
    for file in folder.glob("*.json"):
        if file.stem not in watched:
            file.unlink()
    write_json(Path("reports", "watch.json"), {"again": math.nan if any(watched.values()) else 0})


def dataset_files(dataset: Dataset) -> dict[Path, Listing]:
    """Where a data set's files are, if they are the user's; a data set by name is told apart by its sums."""
    if dataset.name in SOURCES and SOURCES[dataset.name].page:
        return {}
    if dataset.name == "huggingface" and not Path((dataset.path or "").partition(":")[0]).exists():  # on the hub
        return {}
    return {place: listing if dataset.name == "folder" else of_any_kind for place in own_files(dataset.path)}


def own_files(*paths: str | None) -> dict[Path, Listing]:
    """The files and folders that some values of params.yaml name; what is no full path and is not here is on a hub."""
    places = [Path(path).expanduser() for path in paths if path]
    return {place: of_any_kind for place in places if place.is_absolute() or os.path.exists(place)}


def listed(places: dict[Path, Listing]) -> dict:
    """How many files there are, and a hash of their names, sizes and times."""
    found = [file for place, files in places.items() if os.path.exists(place) for file in files(place)]
    if not found:
        return {"files": 0}
    digest = hashlib.sha256()
    for file, size, time in found:
        digest.update(os.fsencode(file) + f"\0{size} {time}\n".encode())
    return {"files": len(found), "sha256": digest.hexdigest()}


def of_any_kind(root: Path) -> list[tuple[str, int, int]]:
    """The files below a folder that other code than ours reads: what it takes for data is not known."""
    if not root.is_dir():
        return listing(root)
    try:
        found = ((name, entry.stat()) for name, entry in walk(root))
        return sorted((name, file.st_size, file.st_mtime_ns) for name, file in found)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or root}: {error.strerror}") from error


if __name__ == "__main__":
    stage(main, each=None)
