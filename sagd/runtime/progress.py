"""Progress on the standard error: a bar in a terminal, now and then a line elsewhere."""

import sys
import threading
import time
from typing import SupportsFloat


class Bar:
    """A progress bar in a terminal, a plain line every ten seconds elsewhere. Safe to update from several threads.

    Parameters
    ----------
    name
        Of the work, such as ``train iso``.
    total
        Units to come.
    unit
        What is counted.
    rank, size
        Of the process, where several do the work alike and each counts its own part: the first shows it, for all.
    """

    def __init__(self, name: str, total: float, unit: str = "images", rank: int = 0, size: int = 1):
        self.name, self.total, self.unit, self.done = name, total, unit, 0.0
        self._shown, self._size = rank == 0 and sys.stderr is not None, size  # None: closed, or without a console
        self._skipped = 0.0
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()
        self._bar = None
        if self._shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=name, unit=f" {unit}", dynamic_ncols=True, smoothing=0.05)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif failure[0] is None and self._shown and self.total:
            self._print(time.monotonic(), "")

    def skip(self, count: float) -> None:
        """Count what an earlier process did, without taking it for speed."""
        with self._lock:
            self.done += count
            self._skipped += count
            if self._bar is not None:
                self._bar.initial += count
                self._bar.n += count

    def update(self, count: float, **figures: SupportsFloat) -> None:
        """Count; figures (numbers, or tensors read only when they are shown) stand beside the bar."""
        with self._lock:
            count = min(count * self._size, self.total - self.done) if self._size > 1 else count
            self.done += count
            now = time.monotonic()
            if not self._shown:
                return
            if self._bar is not None:
                if now - self._told > 0.5:
                    self._told = now
                    self._bar.set_postfix({k: f"{float(v):.4f}" for k, v in figures.items()}, refresh=False)
                self._bar.update(count)
            elif now - self._told > 10:
                self._told = now
                self._print(now, "".join(f", {k} {float(v):.4f}" for k, v in figures.items()))

    def _print(self, now: float, figures: str) -> None:
        rate = (self.done - self._skipped) / max(now - self._began, 1e-9)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        done = f"{self.name}: {self.done:.0f}/{self.total:.0f} {self.unit}"
        print(f"{done}, {rate:.0f} {self.unit}/s{figures}{left}", file=sys.stderr)
