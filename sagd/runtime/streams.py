"""The standard streams of a command: fit to print on, and an answer that could not be written is an error."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from sagd.errors import InputError


def open_streams() -> None:
    """Make the standard streams fit to print on."""
    if sys.stderr is None:  # closed, by 2>&-: remarks are not wanted, and `print` would put them on the other stream
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        raise InputError("the standard output is closed, and the answer would go there")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files, and the é of Fréchet, on a terminal without them
        sys.stdout.reconfigure(errors="backslashreplace")


def write_answer(answer: str | dict) -> None:
    """Write the answer; where that fails, end with a line."""
    try:
        print(_text(answer), flush=True)
    except OSError as error:
        _end(error)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Around what prints: where that fails, end with a line; errors of other files go on as they are."""
    out = _Out(sys.stdout)
    with contextlib.redirect_stdout(out):
        try:
            yield
        finally:
            out.flush()


class _Out:
    """The standard output, whose own errors are told apart from those of files."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            _end(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            _end(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _end(error: OSError) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has enough
        sys.exit(1)
    raise InputError(f"cannot write to the standard output: {error.strerror}") from error


def _text(answer: str | dict) -> str:
    if isinstance(answer, str):
        return answer
    text = json.dumps(answer, indent=1, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:  # JSON has escapes of its own
        return json.dumps(answer, indent=1)
    return text
