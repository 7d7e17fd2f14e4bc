"""Atomic files: written to a temporary file, flushed to the disk, then renamed."""

import ast
import contextlib
import errno
import functools
import glob
import hashlib
import itertools
import json
import os
import shutil
import socket
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import filelock
import numpy as np
import safetensors.torch
from torch import Tensor

from sagd.errors import InputError, shortened

T = TypeVar("T")
# What numpy and zipfile raise for files that are broken, or made to mislead.
BROKEN = (
    OSError, ValueError, EOFError, KeyError, TypeError, OverflowError, MemoryError, SyntaxError, NotImplementedError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Errors that are not of the file: no room, no right, a disk that fails, a name that no disk takes.
MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO,
    errno.ESTALE, errno.ENOMEM, errno.ENAMETOOLONG,
}  # fmt: skip
LONGEST = 10**8  # bytes of the header of a safetensors file, by its format
POLL = 0.2  # seconds between two looks at a lock that another process has
# Members of zip files that are read: the other ways to pack can make any amount of a few bytes at once.
PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces ``path``, on any failure it is removed."""
    path = Path(path)
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ours = glob.escape(beside.name.rsplit(".", 2)[0])
        for left in path.parent.glob(f"{ours}.*.*"):  # by a process that was killed
            if not _alive(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; what was there before is kept") from error
    finally:
        with contextlib.suppress(OSError):  # no folder, or a disk that is read-only: then there is nothing to remove
            beside.unlink(missing_ok=True)


def check_output(name: str, path: Path, ending: str = "", inputs: Iterable[Path | str] = ()) -> None:
    """Refuse, before the work begins, a file that could not be written when it ends; its folder is made.

    Parameters
    ----------
    name
        In messages, such as ``--out``.
    path
        To be written; what is there now is kept.
    ending
        That it must have, such as ``.json``.
    inputs
        Files that are read, which it must not replace, and folders of images, in which it would be taken for one.

    Raises
    ------
    InputError
        Another ending, a folder or a device, an input, no right to write there, a full disk.
    """
    if ending and path.suffix.lower() != ending:
        raise InputError(f"{name} is {path}; it must end in {ending}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{name} is {path}, which is no file; name one that can be written")
    here = path.resolve()
    for read in map(Path, inputs):
        if os.path.exists(read) and (here == read.resolve() or (read.is_dir() and read.resolve() in here.parents)):
            raise InputError(f"{name} is {path}, which would change the input {read}; name another one")
    probe = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(1 << 12))  # a full disk takes a name, but no content
    except OSError as error:
        nowhere = isinstance(error, FileExistsError | NotADirectoryError)
        said = f"{path.parent} is no folder" if nowhere else error.strerror or error
        raise InputError(f"{name} is {path}, which cannot be written: {said}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A name for what is to become a file, in the same folder; no other thread, process or host has it."""
    if not path.name:
        raise InputError(f"{str(path)!r} names no file that could be written")
    host = socket.gethostname().replace(".", "_")
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.{threading.get_ident()}")


def allocate(file: IO[bytes], size: int) -> None:
    """Append zeros that have their place on the disk: if it is full, this fails, and not a write to mapped memory."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, file.tell() + size)
        return
    for start in range(0, size, 1 << 20):  # macOS and Windows: by writing it
        file.write(bytes(min(1 << 20, size - start)))


def _alive(process: str) -> bool:
    """Whether there is a process of this number on this machine."""
    return not process.isdecimal() or Path("/proc", process).exists() or not Path("/proc/self").exists()


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


class Held(dict[str, T]):
    """What a file holds, by name; one that it lacks is told in one line."""

    def __init__(self, path: Path | str, content: dict[str, T]):
        super().__init__(content)
        self.path = path

    def __missing__(self, name: str) -> T:
        raise InputError(f"{self.path} has no {name!r}; run the stage that writes it again")


def read_bytes(path: Path | str) -> bytes:
    """Read a file; InputError names it if that fails."""
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: Path | str, **kinds: type | tuple[type, ...]) -> Held[Any]:
    """Read a JSON object.

    Parameters
    ----------
    kinds
        The types of values that are needed, by their keys.

    Raises
    ------
    InputError
        No file, or not a JSON object; a value that is missing, now or when it is asked for, or of another type.
    """
    try:
        content = json.loads(regular(path).read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error
    found = Held(path, content)
    for name, kind in kinds.items():
        value = found[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise InputError(f"{path}: {name} is {shortened(repr(value), 60)}; run the stage that writes it again")
    return found


def read_array(
    path: Path | str, *, memory_map: bool = False, member: str | None = None, like: tuple[type, int] | None = None
) -> np.ndarray:
    """Read an npy file, or a member of an npz file, without unpickling anything.

    Parameters
    ----------
    memory_map
        Leave it on the disk.
    member
        Of an npz file.
    like
        The type of number and the number of dimensions that it must have.
    """
    try:
        content = np.load(regular(path), allow_pickle=False, mmap_mode="r" if memory_map else None)
        with contextlib.nullcontext() if isinstance(content, np.ndarray) else content:
            if isinstance(content, np.ndarray) != (member is None):
                raise ValueError("it is an npz archive" if member is None else "it is no npz archive")
            array = content if member is None else content[member]
    except BROKEN as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error
    if like is not None and (array.dtype, array.ndim) != (np.dtype(like[0]), like[1]):
        raise InputError(
            f"{path} is {array.dtype}, of {array.ndim} dimensions; it must be {np.dtype(like[0])}, of {like[1]}"
        )
    return array


def read_images(path: Path | str) -> np.ndarray:
    """Read images that `sagd.data.prepare` wrote, (N, C, H, W), uint8, memory-mapped."""
    images = read_array(path, memory_map=True, like=(np.uint8, 4))
    if images.shape[1] not in (1, 3) or 0 in images.shape:
        raise InputError(f"{path} has shape {images.shape}; images are (N, C, H, W), C 1 or 3")
    return images


def shape_of(path: Path | str, member: str) -> tuple[int, ...]:
    """The shape of a member of an npz file; only its header is read."""
    try:
        with zipfile.ZipFile(regular(path)) as archive, archive.open(f"{member}.npy") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)[0]
    except BROKEN as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error


def read_tensors(path: Path | str) -> Held[Tensor]:
    """Read a safetensors file."""
    try:
        return Held(path, safetensors.torch.load_file(regular(path)))
    except (*BROKEN, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error


def open_tensors(path: Path | str) -> Held[Tensor]:
    """The tensors of a safetensors file, memory-mapped."""
    try:
        with safetensors.safe_open(regular(path), "pt") as file:
            return Held(path, {name: file.get_tensor(name) for name in file.keys()})
    except (*BROKEN, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error


def header(path: Path | str) -> dict[str, Any]:
    """The header of a safetensors file, also of one that is cut off or damaged behind it; {} if there is none.

    Parameters
    ----------
    path
        A file.

    Returns
    -------
    dict
        What each tensor is, by name; and ``__metadata__``, a dict of texts, if there is any.
    """
    try:
        with open(regular(path), "rb") as file:
            found = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), LONGEST)))
    except (OSError, ValueError, RecursionError) as error:
        if of_machine(error):
            raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error
        return {}
    return found if isinstance(found, dict) else {}


def regular(path: Path | str) -> Path:
    """A path that is no pipe and no device: to read one could wait for ever."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file")
    return path


class Packed(OSError):
    """A member of a zip file that is packed in a way that is not read, and may be whole."""


def entry(archive: zipfile.ZipFile, name: str, most: int) -> zipfile.ZipInfo:
    """A member of a zip file that may be unpacked: no more than ``most`` bytes of it, a little at a time."""
    found = archive.getinfo(name)
    if found.compress_type not in PACKED:
        method = f"{name} is packed by method {found.compress_type}"
        raise Packed(f"{method}; members are read that are stored or deflated: unpack the zip file")
    if found.flag_bits & 1:
        raise Packed(f"{name} is encrypted: unpack the zip file")
    if found.file_size > most:
        raise OSError(f"unpacked it has {found.file_size:,} bytes, at most {most:,} are read")
    return found


def of_machine(error: BaseException | None) -> bool:
    """Whether a file could not be read or written for want of memory, of room, of a right, or of a disk that works."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE)


def lacking(error: BaseException) -> str | None:
    """What is no fault of the code, in a line: memory or disk is full, or cannot be written; None for anything else."""
    if isinstance(error, MemoryError) or "memory" in type(error).__name__.lower() or "can't allocate" in str(error):
        return "there is not enough memory"
    if isinstance(error, OSError) and of_machine(error):
        return f"{shortened(str(error.filename or 'a file'), 200)}: {error.strerror}"
    return None


def set_aside(path: Path, why: str, ours: bool = False) -> None:
    """Move a damaged file that can be made again to the scratch folder, where it can be looked at, and say so.

    Only what sagd wrote itself is moved: what lies in the scratch folder, or what is known by its name or its content.

    Parameters
    ----------
    path, why
        The file, and what is wrong with it.
    ours
        Whether it is known to be sagd's, wherever it lies.

    Raises
    ------
    InputError
        A file that may be anybody's.
    """
    if not ours and not in_scratch(path):
        raise InputError(f"{why}; it is left where it is, as it may be another's: remove it, or name another file")
    folder, name = scratch() / "damaged", f"{path.parent.name}_{path.name}"
    names = itertools.chain([name], (f"{name}.{k}" for k in itertools.count(1)))
    what = f"it is set aside in {folder}"
    with contextlib.suppress(FileNotFoundError):  # another process has just done so
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(path, next(place for each in names if not os.path.lexists(place := folder / each)))
        except FileNotFoundError:
            raise
        except OSError:  # no room there: what can be made again is not worth stopping for
            path.unlink()
            what = "it is removed"
    print(f"{why}; {what}, and made again", file=sys.stderr, flush=True)


def in_scratch(path: Path) -> bool:
    """Whether a file lies in the scratch folder, where all is sagd's own."""
    return scratch().resolve() in path.resolve().parents


def holds(path: Path | str, tensors: dict[str, Tensor]) -> bool:
    """Whether a safetensors file has these tensors, up to what another processor rounds: 1e-12 of the largest value.

    An old file that is equal so far is kept, so that all machines go on from the same bytes.
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


def sources(*places: str) -> str:
    """SHA-256 of the code of some folders, such as ``training``: only the code that began a run may resume it.

    Comments, docstrings and the form of the lines are no part of it.

    Parameters
    ----------
    places
        Folders and files (without .py) of the library.
    """
    found, root = hashlib.sha256(), Path(__file__).parent.parent
    for place in places:
        folder = root / place
        for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            found.update(str(file.relative_to(root)).encode() + _code(file.read_bytes()).encode())
    return found.hexdigest()


@functools.cache
def _code(content: bytes) -> str:
    """Python without its comments and docstrings."""
    tree = ast.parse(content)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@contextlib.contextmanager
def locked(place: Path, where: Path | str) -> Iterator[None]:
    """Hold a lock, a file of this name; if another process has it, print a line and wait.

    The lock ends with the process, however that ends. The file is left, and is empty.
    """
    held = try_lock(place, where)
    while held is None:
        time.sleep(POLL)
        held = try_lock(place, None)
    try:
        yield
    finally:
        held.release()


def try_lock(place: Path, where: Path | str | None) -> filelock.BaseFileLock | None:
    """Take a lock, which its `release` ends; None, after a line if ``where`` is given, if another process has it.

    Its folder is made: who had the lock may have removed both.
    """
    lock = filelock.FileLock(place, thread_local=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed just now
            lock.acquire(blocking=False)
            return lock
    except filelock.Timeout:
        pass
    except (OSError, NotImplementedError) as error:  # no right to write there, or a file system without locks
        said = getattr(error, "strerror", None) or error
        remedy = "; SAGD_SCRATCH names another folder" if in_scratch(place) else ""
        raise InputError(f"cannot write {place}: {said}{remedy}") from error
    if where is not None:
        print(f"another process is using {where}; waiting", file=sys.stderr)
    return None


def scratch() -> Path:
    """Scratch folder for files that can be recomputed: checkpoints, cached features. SAGD_SCRATCH names another one.

    It is absolute and outside the tree, so that several working trees share it.
    """
    home = os.environ.get("SAGD_SCRATCH") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sagd"
    )
    return Path(home).absolute()
