"""Shape the noise of diffusion models: look at images, choose a noise, judge samples."""

import argparse
import contextlib
import ctypes
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from sagd import __version__
from sagd.errors import InputError, check_path
from sagd.runtime.streams import open_streams, write_answer

# The commands: each is a module here with `configure(parser)` and `run(options)`, imported when it is used. `run`
# returns the answer: lines, or a dict that is printed as JSON.
COMMANDS = {
    "calibrate": "measure which frequencies a network settles when",
    "evaluate": "compare two sets of images",
    "noise": "look at a noise",
    "spectrum": "describe the power spectrum of a set of images",
    "suggest": "advise which alpha to train with",
}


class _Parser(argparse.ArgumentParser):
    """Refuses a bad command line in one line, without the usage before it; knows that -1e-3 is a number."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._negative_number_matcher = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)  # argparse's knows no exponent

    def print_help(self, file: Any = None) -> None:  # argparse's takes no notice of a disk that is full
        write_answer(self.format_help().rstrip("\n"))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        write_answer(f"sagd {__version__}")
        parser.exit()


def place(text: str) -> str:
    """An argument that names a file or a folder, as `add_argument` takes it for a type."""
    try:
        return check_path("it", text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def path(text: str) -> Path:
    """The same, as a path: of an empty text that would be the current folder."""
    return Path(place(text))


def main(arguments: list[str] | None = None) -> None:
    """Run the command ``sagd``.

    Parameters
    ----------
    arguments
        Of the command line; by default those of this process.

    Raises
    ------
    SystemExit
        With 1 and one line for bad input, 2 for a bad command line, 130 for an interruption.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = "sagd"
    try:
        open_streams()
        with _ending_at_once():
            options = _parsed(arguments)
        name = f"sagd {options.command}"
        with _apart():
            answer = options.run(options)
        write_answer(answer)
    except InputError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the remarks has enough
        sys.exit(1)
    except (MemoryError, RuntimeError, OSError) as error:
        from sagd.runtime.files import lacking

        if (said := lacking(error)) is None:
            raise
        sys.exit(f"{name}: {said}")


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """The options; of the commands, only the one that is asked for is imported."""
    parser = _Parser(prog="sagd", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, says in COMMANDS.items():
        module = importlib.import_module(f"sagd.cli.{name}") if name in arguments[:1] else None
        command = commands.add_parser(
            name,
            help=says,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.configure(command)
            command.set_defaults(run=module.run)
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """While packages are imported, Ctrl-C ends the process: their C code would make another error of the exception."""
    try:
        before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    except ValueError:  # not the main thread, which alone is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Send to the standard error what others print, a user's own file above all: it is no part of the answer."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, AttributeError):  # streams without descriptors, as in a notebook
            answers, remarks = sys.__stdout__.fileno(), sys.stderr.fileno()  # type: ignore[union-attr]
            _flush()
            kept = os.dup(answers)
            os.dup2(remarks, answers)  # for other processes, and what writes to a descriptor
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, answers)
            stack.callback(_flush)
        yield


def _flush() -> None:
    """Write what is still held back of the standard output, by Python and by libraries in C."""
    sys.__stdout__.flush()  # type: ignore[union-attr]
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
