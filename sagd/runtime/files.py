"""Atomic files: written to a temporary file, flushed to the disk, then renamed."""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import safetensors.torch
from torch import Tensor

from sagd.errors import InputError


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces ``path``, on any failure it is removed."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; what was there before is kept") from error
    finally:
        with contextlib.suppress(NotADirectoryError):  # then there was nothing to remove
            beside.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    with writing(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path | str, content: dict | list) -> None:
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def write_array(path: Path | str, array: np.ndarray) -> None:
    with writing(path) as beside, open(beside, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_tensors(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; tensors in any memory format."""
    write_bytes(path, safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, metadata))


def read_bytes(path: Path | str) -> bytes:
    """Read a file; InputError names it if that fails."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path | str) -> dict:
    """Read a JSON file; InputError names it if that fails."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_array(path: Path | str, *, memory_map: bool = False, member: str | None = None) -> np.ndarray:
    """Read an npy file, or a member of an npz file, without unpickling anything."""
    try:
        content = np.load(path, allow_pickle=False, mmap_mode="r" if memory_map else None)
        if isinstance(content, np.ndarray) != (member is None):
            raise ValueError("it is an npz archive" if member is None else "it is no npz archive")
        return content if member is None else content[member]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def shape_of(path: Path | str, member: str) -> tuple[int, ...]:
    """The shape of a member of an npz file; only its header is read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)[0]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def holds(path: Path | str, tensors: dict[str, Tensor]) -> bool:
    """Whether a safetensors file has these tensors, up to what another processor rounds: 1e-12 of the largest value.

    What is kept then is the same on all machines, and so is what is made of it.
    """
    if not Path(path).exists():
        return False
    found = read_tensors(path)
    alike = {name: (t.shape, t.dtype) for name, t in found.items()} == {
        n: (t.shape, t.dtype) for n, t in tensors.items()
    }
    return alike and all(
        bool((found[name].double() - t.double()).abs().max() <= 1e-12 * t.double().abs().max())
        for name, t in tensors.items()
    )


def open_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def sources(*places: str) -> str:
    """SHA-256 of the code of some folders, such as ``training``: only the code that began a run may resume it.

    Parameters
    ----------
    places
        Folders and files (without .py) of the library.
    """
    found, root = hashlib.sha256(), Path(__file__).parent.parent
    for place in places:
        folder = root / place
        for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            found.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return found.hexdigest()


def lock(file: IO, where: Path | str) -> None:
    """Lock a file until it is closed; if another process has the lock, print a line and wait."""
    if not try_lock(file, where):
        fcntl.flock(file, fcntl.LOCK_EX)


def try_lock(file: IO, where: Path | str | None) -> bool:
    """Lock a file until it is closed, if it is free; otherwise print a line, if ``where`` is given."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if where is not None:
            print(f"another process is using {where}; waiting", file=sys.stderr)
        return False
    except OSError as error:  # a file system without locks
        raise InputError(f"cannot lock {file.name}: {error.strerror}; SAGD_SCRATCH names another folder") from error
    return True


def scratch() -> Path:
    """Scratch folder for files that can be recomputed: checkpoints, cached features. SAGD_SCRATCH names another one.

    It is absolute and outside the tree, so that several working trees share it.
    """
    home = os.environ.get("SAGD_SCRATCH") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sagd"
    )
    return Path(home).absolute()
