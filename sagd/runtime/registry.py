"""What a package offers, by name: each of its files has one thing, of the file's own name."""

import contextlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from sagd.errors import InputError, Missing, shortened

Thing = TypeVar("Thing")
OWN = "own_"  # begins the module names of users' files


class Registry(Mapping[str, Thing], Generic[Thing]):
    """The things of a package: ``sagd.operators`` holds ``power_law`` because its file power_law.py defines it.

    To add one is to add a file. The files are imported when a name is first asked for.

    Parameters
    ----------
    package
        Its full name.
    kind
        The type of what it offers; a file whose own name is of another type, or of none, is no entry.
    what
        In error messages, such as ``operator``.
    """

    def __init__(self, package: str, kind: type | tuple[type, ...], what: str):
        self._package, self._kind, self._what = package, kind, what
        self._found: dict[str, Thing] | None = None

    def _entries(self) -> dict[str, Thing]:
        if self._found is None:
            found: dict[str, Any] = {}
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                if not module.name.startswith("_"):
                    thing = getattr(importlib.import_module(f"{self._package}.{module.name}"), module.name, None)
                    if isinstance(thing, self._kind):
                        found[module.name] = thing
            self._found = found
        return self._found

    def __getitem__(self, name: str) -> Thing:
        try:
            return self._entries()[name]
        except KeyError:
            raise InputError(f"{self._what} is {name!r}; allowed: {', '.join(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())


def own(place: str, folder: Path, what: str) -> Callable:
    """A user's own function: ``mine.py:ring`` is the function ``ring`` of ``mine.py`` in a folder.

    Raises
    ------
    InputError
        No such file or function, or a file that cannot be imported.
    """
    file, _, name = place.rpartition(":")
    path = folder / file
    if not path.is_file():
        raise Missing(f"{what} is {place!r}; there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"{OWN}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what} is {place!r}; {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with theirs(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"{what} is {place!r}; {path} has no function {name!r}")
    return found


@contextlib.contextmanager
def theirs(what: str) -> Iterator[None]:
    """Around a user's own code: whatever it raises, or that it ends the process, becomes an InputError, in one line."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {_said(error)}") from error
    except (Exception, SystemExit, GeneratorExit) as error:
        raise InputError(f"{what}: {where(error)}") from error


def where(error: BaseException) -> str:
    """An exception in one line: the line of the user's file that led to it, its type, and what it says."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
        frames.append((module.startswith(OWN), f"{Path(code.co_filename).name}, line {trace.tb_lineno}: "))
        trace = trace.tb_next
    lines = [line for own, line in frames if own] or [line for _, line in frames] or [""]
    line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else lines[-1]
    return f"{line}{type(error).__name__}: {_said(error)}"


def _said(error: BaseException) -> str:
    """What an exception says, in a line that may go to a terminal; one of a user's own may fail to say anything."""
    try:
        return shortened(" ".join(str(error).split()), 1000)
    except Exception:
        return "what it says cannot be told"
