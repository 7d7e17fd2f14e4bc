"""Names in docstrings and comments exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`((?:sagd|pipeline)(?:\.[A-Za-z_]\w*)+)`")


def resolve(name):
    """Import the longest part of a dotted name that is a module, and get the rest as attributes."""
    found = importlib.import_module(name.split(".")[0])
    for k, part in enumerate(name.split(".")[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(name.split(".")[:k]))
    return found


def names():
    """Backticked names, each with the files that have it."""
    found = {}
    for file in sorted(f for folder in ("sagd", "pipeline") for f in (ROOT / folder).rglob("*.py")):
        for name in NAME.findall(file.read_text()):
            found.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(("name", "files"), names().items(), ids=names())
def test_backticked_names_resolve(name, files):
    try:
        resolve(name)
    except (ImportError, AttributeError):
        pytest.fail(f"{name} does not exist; it is named in {', '.join(files)}")


def test_a_name_that_is_gone_is_found():
    with pytest.raises(ImportError):
        resolve("sagd.latents.encode")
    assert resolve("sagd.spaces.moments.statistics").__name__ == "statistics"
