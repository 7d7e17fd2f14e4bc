"""What every stage script shares: its command line and its errors."""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.params import Params, Setting, load
from pipeline.run.launch import LAUNCHER, STDERR, launch, worker
from sagd.errors import InputError, Missing
from sagd.runtime.files import lacking
from sagd.runtime.streams import open_streams, written_out

IN_A_COPY = ". With --queue or --temp, DVC works in a copy of what git tracks: git add it, or give its absolute path"


def stage(
    main: Callable[[Params, argparse.Namespace], None],
    *,
    each: str | None = "setting",
    shared: bool = False,
    dry: bool = False,
) -> None:
    """Run a stage: parse the command line, read params.yaml, and turn bad input into one line and exit code 1.

    Parameters
    ----------
    each
        What the command line chooses: a ``setting`` of the study (or a group of them, or the grid), a ``group``, a
        ``dataset``, or None.
    shared
        Whether several processes may do it together (`pipeline.run.launch`).
    dry
        Whether it can say beforehand what it needs.
    """
    name, script = Path(sys.argv[0]).stem, sys.modules["__main__"].__spec__
    parser = argparse.ArgumentParser(
        prog=f"python -m {script.name if script else name}", description=sys.modules["__main__"].__doc__
    )
    if each == "setting":
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--setting", help="a setting or a group of the grid; the focus if not given")
        which.add_argument("--grid", action="store_true", help="every setting of the grid")
    elif each == "group":
        parser.add_argument(
            "--setting", help="a setting or a group of the grid; the focus and the whole grid if not given"
        )
    elif each == "dataset":
        parser.add_argument("--dataset", help="one of datasets; the section dataset if not given")
    if dry:
        parser.add_argument("--dry", action="store_true", help="say what it needs and what is missing, and do nothing")
    try:
        open_streams()
        with written_out():
            options = parser.parse_args()
        _die_with_parent()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if shared and os.environ.get(LAUNCHER) and not {"WORLD_SIZE", STDERR} & os.environ.keys():  # not launched yet
            sys.exit(launch(name, sys.argv[1:]))
        with worker(name), written_out():
            from pipeline.run import door

            params = load()
            door.check(params, _chosen(params, options, each), "" if name == "check" else name)
            main(params, options)
    except Missing as error:
        sys.exit(f"{name}: {error}{IN_A_COPY if in_a_copy() else ''}")
    except InputError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except (MemoryError, RuntimeError, OSError) as error:
        if (said := lacking(error)) is None:
            raise
        more = "; --dry of the stage train says what a setting needs" if "memory" in said else ""
        sys.exit(f"{name}: {said}{more}")


def in_a_copy() -> bool:
    """Whether this is the copy of the repository in which DVC runs a queued experiment."""
    return ".dvc/tmp/exps/" in f"{Path.cwd().as_posix()}/"


def _chosen(params: Params, options: argparse.Namespace, each: str | None) -> list[Setting]:
    """The settings that a stage works for, as far as it is known that they will be run on this machine."""
    if getattr(options, "dry", False):  # which says all that is missing
        return []
    if each == "setting":
        return params.chosen(options)
    named = getattr(options, "setting", None) or getattr(options, "dataset", None)
    return [] if each is None or named else params.all_settings


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM at the parent's death: a killed dvc would leave this process running beside the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
