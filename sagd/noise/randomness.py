"""Random streams by name and index, so that draw number k is the same whatever is drawn beside it or before it."""

import contextlib
import threading
import zlib
from collections.abc import Iterator, Sequence

import torch

from sagd.errors import InputError, check_whole, shortened


def generator(seed: int, stream: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of draw ``index`` in a named stream.

    Nothing has to be saved to resume, and nothing depends on batch size or the number of devices. On the CPU
    PyTorch's generator uses 32 bits of its seed, so the index is added to a hash: no two draws of a stream coincide.
    """
    check_whole("seed", seed)
    check_whole("index", index)
    start = zlib.crc32(f"{stream}:{seed}".encode())
    return torch.Generator(device).manual_seed((start + int(index)) % 2**32)


def check_generator(generator: torch.Generator | Sequence[torch.Generator] | None, images: int) -> None:
    """Refuse what is no generator, or as many as there are not images; None is torch's global one."""
    one = generator is None or isinstance(generator, torch.Generator)
    many = isinstance(generator, Sequence) and all(isinstance(g, torch.Generator) for g in generator)
    if not one and not many:
        said = shortened(repr(generator), 60)
        raise InputError(f"generator is {said}; it must be a torch.Generator, or a sequence with one for each image")
    if isinstance(generator, Sequence) and len(generator) != images:
        raise InputError(f"{len(generator)} generators for a first axis of {images}")


def place(generator: torch.Generator | None, device: torch.device | str = "cpu") -> torch.device:
    """Where one generator draws: the draw is moved from there. None is the global one of the device."""
    if not isinstance(generator, torch.Generator | None):
        raise InputError(f"generator is {shortened(repr(generator), 60)}; it must be a torch.Generator")
    return torch.device(device) if generator is None else generator.device


def check_rows(rows: slice | None, count: int, *, some: bool = False) -> None:
    """Refuse what selects no rows of a draw of ``count``, or in reverse; with ``some``, none at all."""
    forward = rows is None or (isinstance(rows, slice) and (rows.step is None or rows.step > 0))
    if not forward or (some and not range(count)[rows or slice(None)]):
        raise InputError(f"rows is {shortened(repr(rows), 60)}; it must be a slice of {count}, in order")


_global = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """PyTorch's initialisers draw weights from its global generator: seed it, one thread at a time, and restore it."""
    with _global, torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, stream).initial_seed())
        yield
