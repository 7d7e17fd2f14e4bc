"""What the stages have written, read for the pages: whatever is damaged in a file is one line with its name."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.params import Setting
from sagd.errors import InputError, shortened
from sagd.runtime.files import Held, read_bytes, read_json


@contextlib.contextmanager
def of(file: Path) -> Iterator[None]:
    """Around the use of a file's content: whatever it lacks, or holds of another kind, is an InputError of its name."""
    try:
        yield
    except InputError as error:
        if str(file) in str(error):
            raise
        raise InputError(f"{file}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        said = shortened(said, 120)
        raise InputError(f"{file} is damaged ({said}); run the stage that writes it again") from error


def finite(name: str, values: Any, *shape: int | None) -> np.ndarray:
    """Numbers of a JSON file as an array in float64; all are finite, and the length of an axis is any where it is None.

    Raises
    ------
    InputError
        Anything else, such as a word, null, one list too few or too many, or another length.
    """
    try:
        found = np.array(values)
    except (ValueError, OverflowError):  # lists of several lengths, or too deep
        found = np.array(None)
    alike = found.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, found.shape, strict=True))
    if not alike or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        lengths = " x ".join("some" if n is None else str(n) for n in shape) or "one"
        raise InputError(f"{name} is {shortened(repr(values), 60)}; it must be {lengths}, of finite numbers")
    return found.astype(float)


def table(file: Path, *columns: str) -> pd.DataFrame:
    """A CSV file that has these columns, of finite numbers, and an end."""
    content = read_bytes(file)
    with of(file):
        rows = pd.read_csv(io.BytesIO(content))
        for column in columns:
            finite(f"its column {column}", rows[column].tolist(), len(rows))
        if not content.endswith(b"\n"):
            raise InputError("it is cut off; run the stage that writes it again")
    return rows


def detail(setting: Setting, measures: Iterable[str] | None = None) -> Held[Any]:
    """What `evaluate` wrote of each seed, evaluate.seeds.json; of its measures these are looked at, or all (None)."""
    file = setting.report("evaluate", "seeds.json")
    found = read_json(file, seeds=list, per_seed=dict)
    with of(file):
        seeds, per_seed = found["seeds"], found["per_seed"]
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError(f"seeds are {shortened(repr(seeds), 60)}: none, or one twice")
        finite("seeds", seeds, None)
        for measure in per_seed if measures is None else measures:
            finite(measure, per_seed[measure], len(seeds))
    return found


def summary(setting: Setting) -> Held[Any]:
    """What `evaluate` wrote of a setting, evaluate.json: numbers by their names, None where one has no error."""
    file = setting.report("evaluate", "json")
    found = read_json(file)
    with of(file):
        for name, value in found.items():
            if value is not None:
                finite(name, value)
    return found
