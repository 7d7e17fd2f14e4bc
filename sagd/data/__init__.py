"""Data sets by name. A new one is one file here that defines a `Source` of the file's own name."""

from dataclasses import replace
from pathlib import Path

from sagd.data.pictures import Pictures
from sagd.data.reader import read_own
from sagd.data.source import Source, root_of
from sagd.errors import check_path
from sagd.images import tell
from sagd.runtime.registry import Registry

__all__ = ["SOURCES", "channels_of", "find"]

SOURCES: Registry[Source] = Registry(__name__, Source, "data set")


def find(name: str, path: str | Path | None, size: int, fetching: bool = True, folder: Path = Path()) -> Pictures:
    """Open a data set.

    Parameters
    ----------
    name
        A key of `SOURCES`, or ``mine.py:reader``: the function ``reader`` of a file of your own, see
        `sagd.data.reader.read_own`.
    path
        Where the data are. For ``folder`` a folder or zip file of images; for ``huggingface`` ``owner/name``; for your
        own reader whatever it takes; for the others the folder of all data sets (``data`` if None).
    size
        The resolution that the images will be resized to: FFHQ is available in two.
    fetching
        Whether to download what is missing; if False, `Absent` is raised instead.
    folder
        Where the file of your own reader is.

    Raises
    ------
    InputError
        Unknown name, files that are missing or broken, a mistake in your own reader; in one line.
    """
    if path is not None:
        path = check_path("path", path)
    if ":" in name:
        return read_own(name, path, size, folder)
    source = replace(SOURCES[name], fetching=fetching)
    pictures = source.open(source, path, size)
    count = len(pictures.names)
    if count + len(source.bad) < source.images:
        pictures.source += f", {count} of {source.images} images"
        tell(f"{name}: {root_of(path)} holds {count} of {source.images} images; the data set is incomplete")
    return pictures


def channels_of(name: str) -> int:
    """The default number of channels of a data set: 1 for digits, otherwise 3."""
    return 3 if ":" in name else SOURCES[name].channels
