"""Sets of images: folders, zip files and arrays, read a few at a time so that memory stays bounded."""

import hashlib
import io
import os
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from sagd.errors import InputError, amount, needs, shortened
from sagd.runtime.files import BROKEN, entry, of_machine, read_array, regular, scratch

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 1 << 30  # bytes of an image file, unpacked
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def tell(line: str) -> None:
    """Print a remark to the standard error; of several processes that do the same work, only the first prints it."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def pillow() -> ModuleType:
    """The module ``PIL.Image``, imported when it is first needed.

    Raises
    ------
    InputError
        Pillow is not installed.
    """
    with needs("data"):
        from PIL import Image
    return Image


class Files:
    """The image files below a folder or in a zip file, sorted by name.

    Parameters
    ----------
    root
        The folder or zip file.

    Attributes
    ----------
    names
        Of the images, relative to the root, sorted.
    skipped
        Names of the files that are not images by their ending, sorted; hidden files are not counted.

    Raises
    ------
    InputError
        Nothing there, no image in it, a broken zip file; on reading, a broken image or one of 16 bits.
    """

    def __init__(self, root: Path):
        self.root = root
        self._archive = None
        try:
            if root.is_dir():
                found = [str(p.relative_to(root)) for p in root.rglob("*")]
            else:
                self._archive = zipfile.ZipFile(regular(root))
                found = self._archive.namelist()
            # An archive made on a Mac holds a "._" file beside each image, which is not an image.
            self.names = sorted(n for n in found if n.lower().endswith(ENDINGS) and not Path(n).name.startswith("._"))
            self.skipped = sorted(n for n in found if not n.lower().endswith(ENDINGS) and self._is_file(n))
        except BROKEN as error:
            raise InputError(
                f"{root} is neither a folder nor a whole zip file: {shortened(str(error), 200)}"
            ) from error
        if not self.names:
            raise InputError(f"{root} holds no images; looked for {' '.join(ENDINGS)}")

    def _is_file(self, name: str) -> bool:
        """Whether a name is that of a file that a user put there: neither a folder nor hidden."""
        if Path(name).name.startswith(".") or Path(name).name in ("Thumbs.db", "desktop.ini"):
            return False
        return (self.root / name).is_file() if self._archive is None else not name.endswith("/")

    def tell_skipped(self, only: Callable[[str], bool] = lambda name: True) -> None:
        """Print one line if files were skipped because they are not images; ``only`` selects names to count."""
        skipped = [name for name in self.skipped if only(name)]
        if len(skipped) == 1:
            tell(f"{self.root}: 1 file is not an image and was skipped: {shortened(skipped[0], 200)}")
        elif skipped:
            such = f"such as {shortened(skipped[0], 200)}"
            tell(f"{self.root}: {len(skipped)} files are not images and were skipped, {such}")

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            if self._archive is None:
                return _checked(self.root / name).read_bytes()
            with self._archive.open(found := entry(self._archive, name, LARGEST)) as file:
                return file.read(found.file_size)  # no more is unpacked, whatever the archive holds
        except BROKEN as error:  # RuntimeError: encrypted, or packed in an unknown way
            remedy = "" if of_machine(error) else "; remove or replace it"
            raise InputError(f"cannot read {self.where(name)}: {shortened(str(error), 200)}{remedy}") from error

    def where(self, name: str) -> str:
        """A file's name for messages: names of files may hold characters that control a terminal."""
        return shortened(str(self.root / name), 300)

    def stamp(self, name: str) -> str:
        """A string that changes when the file does: its size and time, or its checksum in the archive."""
        if self._archive is not None:
            return f"{self._archive.getinfo(name).CRC}"
        try:
            found = (self.root / name).stat()
        except OSError as error:
            raise InputError(f"cannot read {self.where(name)}: {error.strerror}") from error
        return f"{found.st_size} {found.st_mtime_ns}"

    def picture(self, name: str, content: bytes | None = None, whole: bool = True) -> "Image":
        """The PIL image of a file, see `decode`; pass its ``content`` if that has been read already."""
        return decode(self.read(name) if content is None else content, self.where(name), whole)

    def sha256(self, check: Callable[[str, bytes], None] = lambda name, content: None) -> str:
        """SHA-256 of all names and contents; ``check`` is called with each."""
        digest = hashlib.sha256()
        for name in self.names:
            content = self.read(name)
            check(name, content)
            digest.update(os.fsencode(name) + content)
        return digest.hexdigest()


def decode(content: bytes, where: str, whole: bool = True) -> "Image":
    """Decode the bytes of an image file.

    Parameters
    ----------
    content
        The bytes.
    where
        The file's name, for error messages.
    whole
        Whether to decode the pixels; otherwise only the size and the mode are known.

    Returns
    -------
    PIL.Image.Image
        With 8 bits a channel.

    Raises
    ------
    InputError
        It is not an image, it is broken, or it has more than 8 bits a channel.
    """
    pil = pillow()
    try:
        picture = pil.open(io.BytesIO(content))
        deep = picture.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in picture.tile)
        if whole:
            picture.load()
    # Pillow's readers raise what their formats lead them to: struct.error, IndexError, KeyError, ...
    except (*BROKEN, ArithmeticError, AttributeError, LookupError, struct.error, pil.DecompressionBombError) as error:
        if of_machine(error):
            raise InputError(f"cannot read {where}: {shortened(str(error), 200) or 'not enough memory'}") from error
        said = shortened(str(error), 200)
        if isinstance(error, pil.UnidentifiedImageError):  # whose text names an object in memory
            said = "it is in no format that is known"
        raise InputError(f"{where} is not a whole image: {said}; remove or replace it") from error
    if deep:
        raise InputError(f"{where} has 16 or more bits a channel (mode {picture.mode}); convert it to 8 bits")
    return picture


class Images:
    """A set of images of one size, read a few at a time.

    ``len(images)`` is their number, ``images[a:b]`` an array (b - a, C, H, W), uint8, with C = 1 or 3, and
    ``sha256()`` identifies the content.

    Parameters
    ----------
    source
        A folder or zip file of images, an ``.npy`` file, an ``.npz`` file (``images.npz:member`` if it holds more
        than one array of images), or an array. Arrays are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8; floats
        must be in [0, 1] and are rounded to 8 bits.

    Raises
    ------
    InputError
        No images, fewer than two, images of different sizes, palettes or transparency, floats out of range. The
        message names the file and the remedy.
    """

    def __init__(self, source: "str | Path | np.ndarray | Rows"):
        self.name = "array" if isinstance(source, np.ndarray | Rows) else str(source)
        self._source: Files | np.ndarray | Rows
        if isinstance(source, np.ndarray | Rows):
            self._source = source
        elif self.name.endswith(".npy"):
            self._source = read_array(source, memory_map=True)
        elif ".npz" in self.name and not Path(source).is_dir():
            file, _, member = self.name.partition(".npz")
            self._source = _member(Path(file + ".npz"), member.removeprefix(":"))
        else:
            self._source = files = Files(Path(source))
            files.tell_skipped()
            self._size = files.picture(files.names[0]).size
        if not isinstance(self._source, Files):
            self._layout = _layout(self._source, self.name)
        if len(self) < 2:
            raise InputError(f"{self.name}: two images or more are needed; it holds {len(self)}")

    def __len__(self) -> int:
        return len(self._source.names if isinstance(self._source, Files) else self._source)

    def __getitem__(self, rows: slice) -> np.ndarray:
        if not isinstance(self._source, Files):
            return self._eight_bits(np.asarray(self._source[rows])).transpose(self._layout)
        pixels = [self._pixels(self._source, name) for name in self._source.names[rows]]
        channels = max(p.shape[0] for p in pixels)  # grey images among coloured ones
        return np.stack([np.broadcast_to(p, (channels, *p.shape[1:])) for p in pixels])

    def _pixels(self, files: Files, name: str) -> np.ndarray:
        picture = files.picture(name)
        self._check(files, name, picture)
        return np.asarray(picture).reshape(picture.height, picture.width, -1).transpose(2, 0, 1)

    def _check(self, files: Files, name: str, picture: "Image") -> None:
        where = files.where(name)
        if picture.mode not in ("L", "RGB"):
            raise InputError(
                f"{where} has mode {picture.mode} (a palette, transparency, or another colour space): "
                "convert it to RGB or grey, so that its colours are unambiguous"
            )
        if picture.size != self._size:
            width, height = self._size
            raise InputError(
                f"{where} is {picture.width}x{picture.height}, {shortened(files.names[0], 200)} is {width}x{height}: "
                "bring all images to one size first, or let sagd spectrum or suggest crop and resize them: --size 64"
            )

    def _eight_bits(self, block: np.ndarray) -> np.ndarray:
        if block.ndim == 3:
            block = block[:, None]
        if block.dtype == np.uint8:
            return block
        low, high = float(block.min()), float(block.max())
        if not (0 <= low and high <= 1):  # catches NaN, too
            raise InputError(
                f"{self.name} holds {block.dtype} from {low:g} to {high:g}; floats must be in [0, 1], or give uint8: "
                "for images in [-1, 1], ((x + 1) * 127.5).round().clip(0, 255)"
            )
        return (block * 255).round().astype(np.uint8)

    def sha256(self) -> str:
        """SHA-256 of the content and, for arrays, the shape; the header of each image file is checked on the way."""
        if isinstance(self._source, Files):
            files = self._source
            return files.sha256(lambda name, x: self._check(files, name, files.picture(name, x, whole=False)))
        digest = hashlib.sha256(f"{self._source.dtype} {self._source.shape}".encode())
        for start in range(0, len(self), 1024):
            digest.update(np.ascontiguousarray(self._source[start : start + 1024]).data)
        return digest.hexdigest()


class Rows:
    """Some images of an array, in any order, read from it as they are asked for.

    Parameters
    ----------
    images
        (N, C, H, W), uint8, perhaps memory-mapped.
    rows
        (n,), int64: which of them.
    then
        What is done to each block that is read, image by image.
    """

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, then: Callable[[np.ndarray], np.ndarray] = lambda images: images
    ):
        self._images, self._rows, self._then = images, rows, then
        self.dtype, self.shape, self.ndim = images.dtype, (len(rows), *images.shape[1:]), images.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._then(self._images[self._rows[rows]])


def _layout(array: "np.ndarray | Rows", name: str) -> tuple[int, int, int, int]:
    """The permutation that brings an array of images to (N, C, H, W); (N, H, W) counts as (N, 1, H, W)."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} is {array.dtype}; images must be uint8, or floats in [0, 1]")
    if array.ndim == 3:
        return 0, 1, 2, 3
    first, last = (array.ndim == 4 and array.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise InputError(
            f"{name} has shape {array.shape}; images are (N, H, W), (N, C, H, W) or (N, H, W, C), C 1 or 3"
        )
    return (0, 1, 2, 3) if first else (0, 3, 1, 2)


def _member(path: Path, member: str) -> np.ndarray:
    """An array of an npz file, unpacked to disk, not to memory."""
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist()]
            candidates = [member] if member else [n for n in names if n not in ("mu", "sigma", "mu_s", "sigma_s")]
            if len(candidates) != 1 or candidates[0] not in names:
                raise InputError(f"{path} holds {', '.join(names)}; name one array of images: {path}:NAME")
            free = shutil.disk_usage(_made(scratch())).free
            found = entry(archive, f"{candidates[0]}.npy", sys.maxsize)
            if found.file_size > free:
                raise OSError(
                    f"unpacked {candidates[0]} has {amount(found.file_size)}; {amount(free)} are free in {scratch()}"
                )
            # Not in /tmp, which may be memory.
            with tempfile.NamedTemporaryFile(dir=scratch()) as file, archive.open(found) as packed:
                shutil.copyfileobj(packed, file, 1 << 20)
                file.flush()
                return read_array(file.name, memory_map=True)  # Linux keeps a removed file while it is mapped
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checked(path: Path) -> Path:
    """A file that may be read whole: no pipe, no device, of a bounded size."""
    if (size := regular(path).stat().st_size) > LARGEST:
        raise OSError(f"it has {size:,} bytes, at most {LARGEST:,} are read")
    return path
