"""MNIST."""

import gzip

import numpy as np

from sagd.data.pictures import Pictures, of_array
from sagd.data.source import File, Source, read_bytes, root_of
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """Torchvision's layout, MNIST/raw, packed or not."""
    folder, parts = root_of(path), []
    unpacked = [(folder / file.name).with_suffix("") for file in source.files]
    source.fetch(folder, *(file for file, raw in zip(source.files, unpacked, strict=True) if not raw.exists()))
    for file, raw, count in zip(source.files, unpacked, (60_000, 10_000), strict=True):
        place = raw if raw.exists() else folder / file.name
        content = read_bytes(place)
        try:
            content = content if place == raw else gzip.decompress(content)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"cannot unpack {place}: {error}; remove it to download it again") from error
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        if content[:16] != header or len(content) != 16 + count * 784:
            raise InputError(
                f"{place} is not a file of MNIST, or incomplete ({len(content)} bytes); remove it to download it again"
            )
        parts.append(np.frombuffer(content[16:], dtype=np.uint8).reshape(count, 28, 28))
    return of_array(np.concatenate(parts), f"mnist: {folder / 'MNIST' / 'raw'}", np.arange(70_000) >= 60_000)


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
    ),
    channels=1,
)
