"""Random streams by name and index, so that draw number k is the same whatever is drawn beside it or before it."""

import contextlib
import threading
import zlib
from collections.abc import Iterator

import torch


def generator(seed: int, stream: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of draw ``index`` in a named stream.

    Nothing has to be saved to resume, and nothing depends on batch size or the number of devices. On the CPU
    PyTorch's generator uses 32 bits of its seed, so the index is added to a hash: no two draws of a stream coincide.
    """
    start = zlib.crc32(f"{stream}:{seed}".encode())
    return torch.Generator(device).manual_seed((start + index) % 2**32)


_global = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """PyTorch's initialisers draw weights from its global generator: seed it, one thread at a time, and restore it."""
    with _global, torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, stream).initial_seed())
        yield
