"""MNIST."""

import gzip
import math

import numpy as np

from sagd.data.pictures import Pictures, of_array
from sagd.data.source import File, Source, read_bytes, root_of
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """Torchvision's layout, MNIST/raw, packed or not."""
    folder, parts = root_of(path), []
    unpacked = [(folder / file.name).with_suffix("") for file in source.files]
    there = [raw.exists() or (folder / file.name).exists() for file, raw in zip(source.files, unpacked, strict=True)]
    labelled = not all(there[:2]) or all(there[2:])  # a copy without labels is used as it is
    wanted = slice(4 if labelled else 2)
    source.fetch(folder, *(f for f, raw in zip(source.files[wanted], unpacked, strict=False) if not raw.exists()))
    shapes = ((60_000, 28, 28), (10_000, 28, 28), (60_000,), (10_000,))
    for file, raw, shape in zip(source.files[wanted], unpacked, shapes, strict=False):
        place = raw if raw.exists() else folder / file.name
        content = read_bytes(place)
        try:
            content = content if place == raw else gzip.decompress(content)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"cannot unpack {place}: {error}; remove it to download it again") from error
        header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
        if not content.startswith(header) or len(content) != len(header) + math.prod(shape):
            raise InputError(
                f"{place} is not a file of MNIST, or incomplete ({len(content)} bytes); remove it to download it again"
            )
        parts.append(np.frombuffer(content[len(header) :], dtype=np.uint8).reshape(shape))
    images, labels = np.concatenate(parts[:2]), np.concatenate(parts[2:]) if labelled else None
    return of_array(images, f"mnist: {folder / 'MNIST' / 'raw'}", np.arange(70_000) >= 60_000, labels)


_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def _file(name: str, size: int, checksum: str) -> File:
    return File(f"MNIST/raw/{name}", size, checksum, tuple(mirror + name for mirror in _MIRRORS))


mnist = Source(
    open=_open,
    page="https://yann.lecun.com/exdb/mnist",
    licence="CC BY-SA 3.0",
    images=70_000,
    files=(
        _file(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        _file(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        _file(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        _file(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    channels=1,
    classes=10,
)
