"""Independent work side by side on the CPU's cores.

Small convolutions gain little from a second thread inside each operation; two independent pieces of work, one thread
each, gain all of it. PyTorch releases the interpreter lock inside its operations, so threads are enough.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")


def concurrently(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """``[work(item) for item in items]``, on the CPU with one thread an item, as many at a time as there are cores.

    On an accelerator one after another. The first exception is raised, once the work in flight has ended.
    """
    items = list(items)
    threads = torch.get_num_threads()
    workers = min(threads, len(items))
    if device.type != "cpu" or workers < 2:
        return [work(item) for item in items]
    each = threads // workers
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)
