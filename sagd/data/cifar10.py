"""CIFAR-10."""

import tarfile
import zlib

import numpy as np

from sagd.data.pictures import Pictures, of_array
from sagd.data.source import File, Source, read_bytes, root_of, unpacked
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """The binary version, packed or not. Torchvision's has the same images, but pickled."""
    folder = root_of(path)
    names = [f"cifar-10-batches-bin/{n}.bin" for n in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")]
    if unpacked(folder / "cifar-10-batches-bin"):
        contents = [read_bytes(folder / name) for name in names]
    else:
        archive = source.fetch(folder, *source.files)[0]
        try:
            with tarfile.open(archive) as tar:
                contents = [_member(tar, name) for name in names]
        except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
            raise InputError(f"cannot read {archive}: {error}; remove it to download it again") from error
    record = 1 + 3072  # a label, then the red, the green and the blue plane
    for name, content in zip(names, contents, strict=True):
        if not content or len(content) % record:
            raise InputError(
                f"{folder / name} is incomplete: it has {len(content)} bytes, which is not a multiple of {record}"
            )
    records = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(-1, record)
    images, labels = records[:, 1:], records[:, 0]
    held_out = np.arange(len(images)) >= len(images) - len(contents[-1]) // record
    return of_array(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), f"cifar10: {folder}", held_out, labels)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise tarfile.ReadError(f"{name} is not a file")
    return file.read()


cifar10 = Source(
    open=_open,
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
    classes=10,
)
