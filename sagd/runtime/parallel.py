"""Independent work side by side on the CPU's cores.

Small convolutions gain little from a second thread inside each operation; two independent pieces of work, one thread
each, gain all of it. PyTorch releases the interpreter lock inside its operations, so threads are enough.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrently(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device, on_accelerator: int = 1
) -> Iterator[Result]:
    """``map(work, items)``, in order: on the CPU with one thread an item, as many at a time as there are cores.

    On an accelerator ``on_accelerator`` at a time, for work that has a part for the CPU. The first exception is
    raised, once the work in flight has ended.
    """
    items = list(items)
    threads = torch.get_num_threads()
    workers = min(threads if device.type == "cpu" else on_accelerator, len(items))
    if workers < 2:
        yield from map(work, items)
        return
    each = max(1, threads // workers)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` that cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
