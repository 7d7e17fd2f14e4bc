"""Data sets of the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagd.data.pictures import Pictures
from sagd.data.source import Absent, Source, read_bytes
from sagd.errors import InputError, needs
from sagd.images import decode

if TYPE_CHECKING:
    from PIL.Image import Image


def _open(source: Source, path: str | None, size: int) -> Pictures:
    if not path:
        raise InputError(f"path is {path}; the data set huggingface needs its name on the hub, owner/name")
    if not source.fetching and not Path(path).exists():
        raise Absent(f"the package datasets will download {path}, unless it is in its cache")
    return of_hub(path)


def of_hub(path: str) -> Pictures:
    """Pictures from a data set of the Hugging Face hub, or from a folder with the layout of one.

    Parameters
    ----------
    path
        ``owner/name``, or ``owner/name:configuration``. The first column of images is used, and the first column of
        class labels. Its part ``test`` (otherwise ``validation``) is held out, the rest is trained on. The package
        `datasets` downloads, resumes and checks.
    """
    name, _, configuration = path.partition(":")
    with needs("data"):
        import datasets
    try:
        parts = datasets.load_dataset(name, configuration or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"cannot load {path} with the package datasets: {' '.join(str(error).split())}") from error
    features = next(iter(parts.values())).features
    columns = [c for c, f in features.items() if isinstance(f, datasets.Image)]
    named = [c for c, f in features.items() if isinstance(f, datasets.ClassLabel)]
    if not columns:
        raise InputError(f"{path} has no column of images; it has {', '.join(features)}")
    test = next((part for part in ("test", "validation") if part in parts and len(parts) > 1), None)
    rows = [
        part.select_columns(columns[:1]).cast_column(columns[0], datasets.Image(decode=False))
        for part in parts.values()
    ]
    whole = datasets.concatenate_datasets(rows)
    held_out = None if test is None else np.repeat([part == test for part in parts], [len(r) for r in rows])

    def at(k: int) -> tuple[bytes, "Image"]:
        entry = whole[k][columns[0]]
        if entry is None:
            raise InputError(f"row {k} of {path} has no image")
        content = entry["bytes"] if entry["bytes"] is not None else read_bytes(Path(entry["path"]))
        return content, decode(content, f"row {k} of {path}")

    fingerprint = "".join(part._fingerprint for part in rows)
    classes = np.concatenate([part[named[0]] for part in parts.values()]) if named else None
    names = [f"{fingerprint}/{k}" for k in range(len(whole))]
    return Pictures(names, at, f"huggingface: {path}", held_out, classes=classes)


huggingface = Source(open=_open)
