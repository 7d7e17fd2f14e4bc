"""The description of a data set: its files, licence and checksums, and how it is opened."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sagd.data.pictures import Pictures
from sagd.errors import InputError, amount
from sagd.images import is_hidden, tell
from sagd.runtime.download import fetch


class Absent(InputError):
    """Data that could be downloaded, but are not here."""


@dataclass(frozen=True)
class File:
    """A file of a source.

    Parameters
    ----------
    name
        Its path below the folder of all data sets.
    size
        Bytes; rounded for the largest files.
    checksum
        SHA-256 or MD5, in hexadecimal; None if none is published.
    urls
        Addresses, tried in this order; empty if a person has to download the file.
    """

    name: str
    size: float
    checksum: str | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that is known by name.

    Parameters
    ----------
    open
        Takes this source, the path that the user gave or None, and the resolution that is asked for; returns
        `Pictures`.
    page
        Its web page.
    licence
        As its makers state it.
    images
        Number of images of the complete data set; 0 if it is not known in advance.
    files
        What is downloaded.
    bad
        Names of files that are broken in the published archive; they are left out.
    channels
        The default: 1 (grey) or 3 (RGB).
    classes
        Number of classes, if it is known before the data are here.
    fetching
        Whether to download what is missing.
    """

    open: Callable[["Source", str | None, int], Pictures]
    page: str = ""
    licence: str = ""
    images: int = 0
    files: tuple[File, ...] = ()
    bad: tuple[str, ...] = ()
    channels: int = 3
    classes: int | None = None
    fetching: bool = True

    def fetch(self, folder: Path, *files: File) -> list[Path]:
        """The paths of files; those that are missing are downloaded, after a line that says how much and from where.

        Raises
        ------
        InputError
            No network, another file than expected, or not enough disk space; `Absent` if nothing may be downloaded.
        """
        missing = [f for f in files if not (folder / f.name).exists()]
        if missing and not self.fetching:
            size = sum(f.size for f in missing)
            raise Absent(f"{amount(size)} to download to {folder} from {self.page}, licence: {self.licence}")
        if missing:
            parts = ((folder / (f.name + ".part"), f.size) for f in missing)  # left by an earlier process
            size = sum(of - (part.stat().st_size if part.exists() else 0) for part, of in parts)
            tell(f"downloading {amount(size)} to {folder} from {self.page}, licence: {self.licence}")
            there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
            free = shutil.disk_usage(there).free
            if free < size:
                raise InputError(
                    f"not enough disk space in {folder}: {amount(size)} needed, {amount(free)} free; use another folder"
                )
        return [_fetch(f, folder / f.name) for f in files]


def root_of(path: str | None) -> Path:
    """The folder of all data sets."""
    return Path(path or "data").expanduser()


def _fetch(file: File, path: Path) -> Path:
    """A file, from the first of its addresses that has it."""
    for url in file.urls[:-1]:
        try:
            return fetch(url, path, file.checksum, file.size)
        except InputError as error:
            if path.exists():  # the file is wrong, not the address
                raise
            tell(str(error))
    return fetch(file.urls[-1], path, file.checksum, file.size)


def unpacked(folder: Path) -> bool:
    """Whether a folder is there with more in it than what a system puts into any folder."""
    try:
        return folder.is_dir() and any(not is_hidden(entry.name) for entry in folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def drive(identity: str) -> tuple[str, ...]:
    """The address of a file on Google Drive."""
    return (f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t",)
