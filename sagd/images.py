"""Sets of images: folders, zip files and arrays, read a few at a time so that memory stays bounded."""

import hashlib
import heapq
import io
import math
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sagd.errors import InputError, amount, check_path, needs, shortened
from sagd.runtime.files import BROKEN, Packed, entry, of_machine, read_array, regular, scratch

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 1 << 30  # bytes of an image file, unpacked
ORIENTATION = 0x0112  # EXIF's tag: how a camera was held, as a number
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
EXIF = (b"eXIf", b"Raw profile type", b"com.adobe.xmp")  # in a PNG: what may hold the orientation
ODD = (ArithmeticError, AttributeError, LookupError, struct.error)  # of Pillow's readers, besides `BROKEN`


Folder = tuple[int, int]  # its device and its number there
Above = dict[Folder, Folder | None]  # the folders that were read, and the one in which each was found


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


class Why(Enum):
    """Why something is not read: what a remark calls one such thing, and several."""

    HIDDEN = "hidden", "hidden"
    OTHER = "of no format that is read", "of no format that is read"
    FOREIGN = "that does not belong to the data set", "that do not belong to the data set"
    SPECIAL = "pipe or device", "pipes or devices"
    NOWHERE = "link to nowhere", "links to nowhere"
    BACK = "link back to a folder above it", "links back to a folder above them"
    TWICE = "folder that is read under another name", "folders that are read under another name"
    PACKED = "link in a zip file", "links in a zip file"
    REPLACED = "that a later file of the same name replaces", "that later files of the same names replace"
    UNREADABLE = "that cannot be read", "that cannot be read"


# Files and folders that systems put beside pictures, in lower case; those that begin with a dot are hidden anyway.
HOUSEKEEPING = {
    "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
    "__pycache__",
}  # fmt: skip


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is hidden or housekeeping."""
    return name.startswith(".") or name.lower() in HOUSEKEEPING


def formats() -> list[str]:
    """The formats of pictures that Pillow decodes here by itself.

    Without those for which it starts another program (EPS, WMF), those that it only recognises (MPEG, GRIB, HDF5, ...),
    and those that hold measurements or records (FITS, IPTC).
    """
    pil = pillow()
    from PIL.ImageFile import StubImageFile

    pil.preinit()  # the usual formats are tried first
    pil.init()
    outside = {name for name, (cls, _) in pil.OPEN.items() if isinstance(cls, type) and issubclass(cls, StubImageFile)}
    return [name for name in pil.ID if name not in outside | {"EPS", "MPEG", "FITS", "IPTC"}]


def endings() -> set[str]:
    """The endings of image files, in lower case, with their dot: those of `formats`, as Pillow knows them here."""
    known = {*formats(), "MPO"}  # which Pillow opens as a JPEG
    return {ending for ending, of in pillow().registered_extensions().items() if of in known}


def listing(root: Path) -> list[tuple[str, int, int]]:
    """The image files below a folder, as `Files` finds them, by one walk that opens none of them.

    Parameters
    ----------
    root
        The folder; of a zip file or any other file, that file itself is listed.

    Returns
    -------
    list
        Of each file the name relative to the root, the size in bytes, and the time of the last change in ns; sorted
        by name.

    Raises
    ------
    InputError
        Nothing there, or it cannot be read.
    """
    known = endings()
    try:
        if not root.is_dir():
            found = root.stat()
            return [(root.name, found.st_size, found.st_mtime_ns)]
        images = ((name, entry.stat()) for name, entry in walk(root) if _ending(name) in known)
        return sorted((name, found.st_size, found.st_mtime_ns) for name, found in images)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {root}: {shortened(str(error), 200)}") from error


def walk(
    root: Path, leave_out: Callable[[Why, str], None] = lambda why, name: None
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files below a folder that are not hidden, in no order, with their names relative to it.

    Links are followed, but each folder is read once: under the name that has no link in it, otherwise under that of the
    first link by name.

    Parameters
    ----------
    leave_out
        Called with the name of all that is not read, and why.

    Raises
    ------
    OSError
        The root itself cannot be read.
    """
    above: Above = {}
    folders: list[tuple[str, Folder | None]] = [("", None)]
    links: list[tuple[str, Folder | None]] = []  # to folders, a heap
    linked = False  # whether all that needs no link is read
    while folders or links:
        if is_link := not folders:
            linked = True
        folder, parent = heapq.heappop(links) if is_link else folders.pop()
        place = os.path.join(root, folder)
        try:
            found = os.stat(place)
            here = found.st_dev, found.st_ino
            if is_link and here in _above(place, parent, above):
                leave_out(Why.BACK, folder)
                continue
            if linked and here in above:
                leave_out(Why.TWICE, folder)
                continue
            above[here] = parent
            with os.scandir(place) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    try:
                        if is_hidden(entry.name):
                            leave_out(Why.HIDDEN, name)
                        elif entry.is_dir():
                            if entry.is_symlink():
                                heapq.heappush(links, (name, here))
                            else:
                                folders.append((name, here))
                        elif entry.is_file():
                            yield name, entry
                        else:
                            nowhere = entry.is_symlink() and not os.path.exists(entry.path)
                            leave_out(Why.NOWHERE if nowhere else Why.SPECIAL, name)
                    except OSError as error:  # a link to itself, or into a folder that must not be searched
                        leave_out(Why.UNREADABLE, f"{name}: {error.strerror}")
        except OSError as error:
            if not folder:
                raise
            leave_out(Why.UNREADABLE, f"{folder}: {error.strerror}")


def _above(link: str, parent: Folder | None, above: Above) -> set[Folder]:
    """The folders above a link: those that led to it, and those in which its own folder lies."""
    found = set()
    while parent is not None:
        found.add(parent)
        parent = above[parent]
    place = Path(os.path.realpath(os.path.dirname(link)))
    return found | {(s.st_dev, s.st_ino) for s in map(os.stat, (place, *place.parents))}


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


class Files:
    """The image files below a folder or in a zip file, sorted by name.

    They are known by their endings, see `endings`. Links to files and folders are followed, see `walk`; hidden and
    housekeeping files and folders are left out, see `is_hidden`.

    Parameters
    ----------
    root
        The folder or zip file.

    Attributes
    ----------
    names
        Of the images, relative to the root, sorted.
    left_out
        Names of what is not read, by the reason; of a folder that is not read, only its own.

    Raises
    ------
    InputError
        Nothing there, no image in it, a broken zip file; on reading, a broken image or one of 16 bits.
    """

    def __init__(self, root: Path):
        self.root = root
        self._archive: zipfile.ZipFile | None = None
        self.left_out: dict[Why, list[str]] = {}
        known, names = endings(), set()
        try:
            if not root.is_dir():
                self._archive = zipfile.ZipFile(regular(root))
            inside = (n for n, _ in walk(root, self._leave_out)) if self._archive is None else self._members()
            for name in inside:
                if name in names:  # in a zip file: the last of a name is the one that is unpacked
                    self._leave_out(Why.REPLACED, name)
                elif _ending(name) in known:
                    names.add(name)
                else:
                    self._leave_out(Why.OTHER, name)
        except BROKEN as error:
            raise InputError(
                f"{root} is neither a folder nor a whole zip file: {shortened(str(error), 200)}"
            ) from error
        self.names = sorted(names)
        if not names:
            looked = f"looked for .png, .jpg and {len(known) - 2} other endings"
            raise InputError(f"{root} holds no images; {looked}{_reasons(self.left_out)}")

    def _leave_out(self, why: Why, name: str) -> None:
        self.left_out.setdefault(why, []).append(name)

    def _members(self) -> Iterator[str]:
        """The names of the files in the zip file that are not hidden."""
        assert self._archive is not None
        hidden = set()
        for found in self._archive.infolist():
            parts = found.filename.split("/")
            first = next((k for k, p in enumerate(parts) if p not in (".", "..") and is_hidden(p)), None)
            if first is not None:
                hidden.add("/".join(parts[: first + 1]))
            elif stat.S_ISLNK(found.external_attr >> 16):
                self._leave_out(Why.PACKED, found.filename)
            elif not found.is_dir():
                yield found.filename
        for name in hidden:
            self._leave_out(Why.HIDDEN, name)

    def tell(self, only: Callable[[str], bool] = lambda name: True) -> None:
        """Print one line: how many images there are, and what is left out, by reason.

        Parameters
        ----------
        only
            Selects the names that belong to the data set.
        """
        foreign = [name for name in self.names if not only(name)]
        told = {
            why: [n for n in of if why not in (Why.HIDDEN, Why.OTHER) or only(n)] for why, of in self.left_out.items()
        }
        count = len(self.names) - len(foreign)
        images = "1 image" if count == 1 else f"{count} images"
        tell(f"{shortened(str(self.root), 200)}: {images}{_reasons(told | {Why.FOREIGN: foreign})}")

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            if self._archive is None:
                return _checked(self.root / name).read_bytes()
            with self._archive.open(found := entry(self._archive, name, LARGEST)) as file:
                return file.read(found.file_size)  # no more is unpacked, whatever the archive holds
        except BROKEN as error:
            remedy = "" if of_machine(error) or isinstance(error, Packed) else "; remove or replace it"
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


def _reasons(left_out: dict[Why, list[str]]) -> str:
    """What is left out, in words: how many for each reason, and one of them by name."""
    parts = []
    for why in Why:
        one, several = why.value
        if len(names := left_out.get(why, [])) == 1:
            parts.append(f"1 {one} ({shortened(names[0], 100)})")
        elif names:
            parts.append(f"{len(names)} {several} (such as {shortened(min(names), 100)})")
    return f"; left out: {', '.join(parts)}" if parts else ""


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
        With 8 bits a channel, upright as the file's EXIF data say; of an animation or of several pages the first.

    Raises
    ------
    InputError
        It is not an image, it is broken, or it has more than 8 bits a channel.
    """
    pil = pillow()
    try:
        picture = pil.open(io.BytesIO(content), formats=formats())
        deep = _is_deep(picture, picture.tile, content)
        # Pillow turns a TIFF as it decodes it; in a PNG the EXIF data may stand behind the pixels.
        if whole or picture.format == "TIFF" or (picture.format == "PNG" and any(mark in content for mark in EXIF)):
            picture.load()
        picture = upright(picture)
    # Pillow's readers raise what their formats lead them to: struct.error, IndexError, KeyError, ...
    except (*BROKEN, *ODD, pil.DecompressionBombError) as error:
        if of_machine(error):
            raise InputError(f"cannot read {where}: {shortened(str(error), 200) or 'not enough memory'}") from error
        said = shortened(str(error), 200)
        if isinstance(error, pil.UnidentifiedImageError):  # whose text names an object in memory
            said = "it is in no format that is known"
        raise InputError(f"{where} is not a whole image: {said}; remove or replace it") from error
    if deep:
        raise InputError(f"{where} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits")
    return picture


def _is_deep(picture: "Image", tiles: list, content: bytes) -> bool:
    """Whether a file has more than 8 bits a channel, which Pillow cuts to 8 in colour; the pixels are not decoded."""
    if picture.mode.startswith(("I", "F")):
        return True
    if picture.format == "SGI":
        return content[3] > 1  # bytes a channel
    if picture.format == "PPM":  # with the largest value, unless it is 255
        return any(isinstance(tile.args, tuple) and tile.args[-1] > 255 for tile in tiles)
    if picture.format == "JPEG2000":  # in the codestream's first segment: how many components, the bits of each, less 1
        head = content.find(b"\xff\x4f\xff\x51")
        count = int.from_bytes(content[head + 40 : head + 42])
        return any(bits & 127 > 7 for bits in content[head + 42 : head + 42 + 3 * count : 3])
    if picture.format == "AVIF":  # the flag high_bitdepth of the decoder's configuration
        return any(box[2:3] > b"" and box[2] & 64 for box in content.split(b"av1C")[1:])
    # ";16" is of a channel, but for "BGR;16", which is of a pixel. BC6H holds halves.
    return any(re.search(r"(?<!BGR);16|BC6H", str(tile)) for tile in tiles)


def upright(picture: "Image") -> "Image":
    """A PIL image, turned as its EXIF data say, if they are known; then it has none, and is not turned again."""
    pil = pillow()
    try:
        turn = TURNS.get(pil.Image.getexif(picture).get(ORIENTATION))  # not PNG's own method, which decodes the pixels
    except (*BROKEN, *ODD):  # of broken EXIF data the picture may be whole
        turn = None
    if turn is None:
        return picture
    turned = picture.transpose(pil.Transpose[turn])
    turned.info = {key: value for key, value in picture.info.items() if key == "transparency"}
    turned.is_animated = holds_several(picture)  # type: ignore[attr-defined]
    return turned


def holds_several(picture: "Image") -> bool:
    """Whether a PIL image is the first of several: of frames or pages, but not of layers."""
    try:
        return picture.format != "PSD" and bool(getattr(picture, "is_animated", False))
    except (*BROKEN, *ODD):  # the next one is broken
        return True


class Dropped:
    """Counts the pictures of which something is dropped, to say so once: transparency, all frames but the first.

    Parameters
    ----------
    source
        A line that describes the data set.
    """

    def __init__(self, source: str):
        self._source = source
        self._told: set[str] = set()
        self._transparent: set[str] = set()
        self._several: set[str] = set()

    def note(self, name: str, picture: "Image", whole: bool = True) -> None:
        """Look at a PIL image; safe to call from several threads. If its pixels are not decoded, they are not seen."""
        if holds_several(picture):
            self._several.add(name)
        if whole and picture.has_transparency_data:
            extrema: Any = picture.convert("RGBA").getextrema()  # of each channel
            if extrema[3][0] < 255:
                self._transparent.add(f"{name} ({picture.mode})")

    def tell(self) -> None:
        """Print one line for each thing that was dropped, the first time that it is called with some."""
        for seen, what in (
            (self._transparent, "transparency, which is dropped"),
            (self._several, "several frames or pages, of which the first is read"),
        ):
            if seen and what not in self._told:
                self._told.add(what)
                first = shortened(min(seen), 200)
                many = f"{len(seen)} images have {what}, such as {first}"
                tell(f"{self._source}: {f'{first} has {what}' if len(seen) == 1 else many}")


def of_arrays(source: str) -> tuple[Path, str] | None:
    """The npy or npz file that a text names, and the member after its colon, or ""; None for a folder or a zip file."""
    path, member = Path(source), re.fullmatch(r"(.+\.npz):(.*)", source, re.IGNORECASE | re.DOTALL)
    if path.suffix.lower() in (".npy", ".npz") and not path.is_dir():
        return path, ""
    return (Path(member[1]), member[2]) if member and not path.exists() else None


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
        self.name = "array" if isinstance(source, np.ndarray | Rows) else check_path("source", str(source))
        self._source: Files | np.ndarray | Rows
        if isinstance(source, np.ma.MaskedArray):
            raise InputError("the array is masked, and what is behind the mask would be read; fill it: array.filled(0)")
        if isinstance(source, np.ndarray | Rows):
            self._source = source
        elif array := of_arrays(self.name):
            self._source = _member(*array) if array[0].suffix.lower() == ".npz" else read_array(source, memory_map=True)
        else:
            self._source = files = Files(Path(source))
            files.tell()
            self._dropped = Dropped(self.name)
            self._size = files.picture(files.names[0]).size
        if not isinstance(self._source, Files):
            self._layout = _layout(self._source, self.name)
        if len(self) < 2:
            raise InputError(f"{self.name}: two images or more are needed; it holds {len(self)}")

    def __len__(self) -> int:
        return len(self._source.names if isinstance(self._source, Files) else self._source)

    def __getitem__(self, rows: slice) -> np.ndarray:
        if not isinstance(self._source, Files):
            return self._eight_bits(np.asarray(self._source[rows]), rows).transpose(self._layout)
        pixels = [self._pixels(self._source, name) for name in self._source.names[rows]]
        channels = max(p.shape[0] for p in pixels)  # grey images among coloured ones
        return np.stack([np.broadcast_to(p, (channels, *p.shape[1:])) for p in pixels])

    def _pixels(self, files: Files, name: str) -> np.ndarray:
        picture = files.picture(name)
        self._check(files, name, picture)
        self._dropped.note(name, picture)
        self._dropped.tell()
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

    def _check_head(self, name: str, content: bytes) -> None:
        assert isinstance(self._source, Files)
        picture = self._source.picture(name, content, whole=False)
        self._check(self._source, name, picture)
        self._dropped.note(name, picture, whole=False)

    def _eight_bits(self, block: np.ndarray, rows: slice) -> np.ndarray:
        if block.ndim == 3:
            block = block[:, None]
        if block.dtype == np.uint8 or not block.size:
            return block.astype(np.uint8, copy=False)
        low, high = float(block.min()), float(block.max())
        if not math.isfinite(high - low):
            bad = next(k for k, image in enumerate(block) if not np.isfinite(image).all())
            row = range(*rows.indices(len(self)))[bad]
            raise InputError(f"{self.name}: image {row} (from 0) has pixels that are not finite: NaN or infinite")
        if not (0 <= low and high <= 1):
            raise InputError(
                f"{self.name} holds {block.dtype} from {low:g} to {high:g}; floats must be in [0, 1], or give uint8: "
                "for images in [-1, 1], ((x + 1) * 127.5).round().clip(0, 255)"
            )
        return (block * 255).round().astype(np.uint8)

    def sha256(self) -> str:
        """SHA-256 of the content and, for arrays, the shape; the header of each image file is checked on the way."""
        if isinstance(self._source, Files):
            digest = self._source.sha256(self._check_head)
            self._dropped.tell()
            return digest
        found = hashlib.sha256(f"{self._source.dtype} {self._source.shape}".encode())
        for start in range(0, len(self), 1024):
            found.update(np.ascontiguousarray(self._source[start : start + 1024]).data)
        return found.hexdigest()


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
