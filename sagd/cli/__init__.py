"""Shape the noise of diffusion models: look at images, choose a noise, judge samples."""

import argparse
import importlib
import os
import sys
from typing import NoReturn

from sagd import __version__
from sagd.errors import InputError

# The commands: each is a module here with `configure(parser)` and `run(options)`, imported when it is used.
COMMANDS = {
    "calibrate": "measure which frequencies a network settles when",
    "evaluate": "compare two sets of images",
    "noise": "look at a noise",
    "spectrum": "describe the power spectrum of a set of images",
    "suggest": "advise which alpha to train with",
}


class _Parser(argparse.ArgumentParser):
    """Refuses a bad command line in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


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
    parser = _Parser(prog="sagd", description=__doc__)
    parser.add_argument("--version", action="version", version=f"sagd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    try:
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
        options = parser.parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except InputError as error:
        sys.exit(f"sagd {options.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
