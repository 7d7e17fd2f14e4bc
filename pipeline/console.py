"""What every stage script shares: its command line, its errors, its progress."""

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.params import Params, load
from sagd.errors import InputError


def stage(main: Callable[[Params, argparse.Namespace], None], *, settings: bool = True) -> None:
    """Run a stage: parse the command line, read params.yaml, and turn bad input into one line and exit code 1.

    Parameters
    ----------
    settings
        Whether the stage runs once for each setting of the study; the command line then chooses.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}", description=sys.modules["__main__"].__doc__)
    if settings:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--setting", help="a setting of the grid; the focus if not given")
        which.add_argument("--grid", action="store_true", help="every setting of the grid")
    options = parser.parse_args()
    _die_with_parent()
    try:
        main(load(), options)
    except InputError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM at the parent's death: a killed dvc would leave this process running beside the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Bar:
    """A progress bar in a terminal, a plain line every ten seconds elsewhere. Safe to update from several threads.

    Parameters
    ----------
    name
        Of the work, such as ``train iso``.
    total
        Images to come.
    """

    def __init__(self, name: str, total: int):
        self.name, self.total, self.done = name, total, 0
        self._skipped = 0
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=name, unit=" images", dynamic_ncols=True, smoothing=0.05)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif failure[0] is None:
            self._print(time.monotonic(), "")

    def skip(self, images: int) -> None:
        """Count images that an earlier process did, without taking them for speed."""
        with self._lock:
            self.done += images
            self._skipped += images
            if self._bar is not None:
                self._bar.initial += images
                self._bar.n += images

    def update(self, images: int, **figures: object) -> None:
        """Count images; figures (numbers, or tensors read only when they are shown) stand beside the bar."""
        with self._lock:
            self.done += images
            now = time.monotonic()
            if self._bar is not None:
                if now - self._told > 0.5:
                    self._told = now
                    self._bar.set_postfix({k: f"{float(v):.4f}" for k, v in figures.items()}, refresh=False)
                self._bar.update(images)
            elif now - self._told > 10:
                self._told = now
                self._print(now, "".join(f", {k} {float(v):.4f}" for k, v in figures.items()))

    def _print(self, now: float, figures: str) -> None:
        rate = (self.done - self._skipped) / max(now - self._began, 1e-9)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        print(f"{self.name}: {self.done}/{self.total} images, {rate:.0f} images/s{figures}{left}", file=sys.stderr)


def scratch() -> Path:
    """The folder of what may be lost: checkpoints and cached features. SAGD_SCRATCH names another one.

    It is absolute and outside the tree, because dvc's queue runs each experiment in a tree of its own.
    """
    home = os.environ.get("SAGD_SCRATCH") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sagd"
    )
    return Path(home).absolute()
