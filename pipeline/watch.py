"""List the files of the user's own data, of which DVC knows nothing: `prepare` depends on the list.

DVC alone would read every image to tell whether one has changed. It runs this stage each time instead, where there are
such files: `again` in reports/watch.json is NaN then, which is never equal to what it was.
"""

import argparse
import hashlib
import math
import os
from pathlib import Path

from pipeline.params import Params
from pipeline.params.sections import Dataset
from pipeline.run.console import stage
from sagd.data import SOURCES
from sagd.errors import InputError
from sagd.images import listing, walk
from sagd.runtime.files import write_json


def main(params: Params, options: argparse.Namespace) -> None:
    datasets = params.datasets or {"dataset": params.section("dataset")}
    folder, again = Path("reports", "watch", params.profile or ""), False
    for name, dataset in datasets.items():
        root, record = own(dataset), folder / f"{name}.json"
        again = again or root is not None
        # A disk that is away changes no data: if they are needed, `prepare` tells that they are not there.
        if root is None or os.path.exists(root) or not record.is_file():
            write_json(record, {"files": 0} if root is None else listed(root, dataset.name))
    for file in folder.glob("*.json"):
        if file.stem not in datasets:
            file.unlink()
    write_json(Path("reports", "watch.json"), {"again": math.nan if again else 0})


def own(dataset: Dataset) -> Path | None:
    """Where a data set's files are, if they are the user's; a data set by name is told apart by its sums."""
    by_name = dataset.name in SOURCES and SOURCES[dataset.name].page
    if by_name or not dataset.path:
        return None
    if dataset.name == "huggingface" and not Path(dataset.path.partition(":")[0]).exists():  # on the hub
        return None
    return Path(dataset.path).expanduser()


def listed(root: Path, name: str) -> dict:
    """How many files there are, and a hash of their names, sizes and times."""
    if not os.path.exists(root):  # pathlib's raises where a folder above must not be searched
        return {"files": 0}
    files = listing(root) if name == "folder" or not root.is_dir() else of_any_kind(root)
    digest = hashlib.sha256()
    for file, size, time in files:
        digest.update(os.fsencode(file) + f"\0{size} {time}\n".encode())
    return {"files": len(files), "sha256": digest.hexdigest()}


def of_any_kind(root: Path) -> list[tuple[str, int, int]]:
    """The files below a folder that other code than ours reads: what it takes for data is not known."""
    try:
        found = ((name, entry.stat()) for name, entry in walk(root))
        return sorted((name, file.st_size, file.st_mtime_ns) for name, file in found)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or root}: {error.strerror}") from error


if __name__ == "__main__":
    stage(main, each=None)
