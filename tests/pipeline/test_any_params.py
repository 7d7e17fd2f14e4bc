"""Any params.yaml is either run, or refused in one line."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import params as parameters
from pipeline.params.sections import SECTIONS
from pipeline.run import door
from sagd.errors import InputError
from tests import soak

ROOT = Path(__file__).parents[2]
DEFAULT = YAML(typ="safe").load((ROOT / "params.yaml").read_text())

TEXTS = st.sampled_from(
    ("", "x", "auto", "on", "random", "varying", "isotropic", "band_pass", "equal_snr", "offset", "pyramid", "two_band",
     "exponential", "data_matched", "v", "eps", "x0", "velocity", "flow", "edm", "linear", "zero_terminal_snr",
     "trailing", "marginal", "heun", "euler", "ddpm", "muon", "adamw", "denoising", "vae", "1e-05", "mine.py:x", "../x",
     "/dev/zero", "<img src=x onerror=alert(1)>", "a\x1b[31m", "\u202e", "ü" * 5000, "nyquist", "cycles", "none",
     "floor", "folder")
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from((10**3, 10**6, 10**12, 10**400, -(10**400), 2**63)),
    st.floats(-2, 2),
    st.sampled_from((0.0, -0.0, 1e-300, 1e300, float("inf"), float("nan"), 0.06, 100.0)),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("noise", "start", "x", "1")), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(content, path=()):
    """Every key of a mapping, and of those below."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


# Keys of the schema that the default study leaves out, and some that are none.
MORE = [
    (name, key)
    for name, section in SECTIONS.items()
    for key in section.model_fields
    if key not in DEFAULT.get(name, {})
]
MORE += [("classifier",), ("datasets",), ("profile",), ("x",), ("noise", "x")]
PLACES = [*places(DEFAULT), *MORE]


@st.composite
def studies(draw, most=4):
    """The default study with a few keys changed, left out, or added."""
    content = copy.deepcopy(DEFAULT)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=most)):
        place = content
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            if draw(st.integers(0, 9)) == 0:
                place.pop(path[-1], None)
            else:
                place[path[-1]] = draw(VALUES)
    return content


def enter(folder, content):
    """Write a params.yaml, and go through the door with it: the parameters, or what it says."""
    path = folder / "params.yaml"
    try:
        YAML(typ="safe").dump(content, path)
    except (ValueError, TypeError):  # a number of too many digits is no text
        return None
    params = parameters.load()
    door.check(params, [params.setting(None)])
    return params


quietly = settings(
    deadline=None, derandomize=True, database=None, max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@quietly
@given(content=st.one_of(studies(), st.dictionaries(st.sampled_from([*DEFAULT, "x"]), VALUES)))
def test_any_mapping_is_valid_or_refused_in_one_line(folder, content):
    try:
        enter(folder, content)
    except InputError as error:
        said = str(error)
        assert said.isprintable() and len(said) < 600
        assert "Input should" not in said and "Value error" not in said


@pytest.mark.slow
def test_what_is_let_in_runs_or_is_refused_in_one_line(folder):
    """In a process of its own, which forks before PyTorch has threads."""
    place = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.pipeline.test_any_params"]
    done = subprocess.run(command, cwd=folder, env=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == ENOUGH


TOY = {
    "train": {"steps": 3, "warmup": 1, "batch_size": 4, "repeats": 1, "snapshots": 1},
    "sample": {"n": 8, "steps": 2, "batch_size": 4, "earlier": None},
    "dataset": {"size": 8, "held_out": 8},
    "evaluate": {"bootstrap": 2},
    "grid": {"settings": {}},
}  # what costs time is made small, all else stays as it was drawn


ENOUGH = 3  # runs that end well


def run_some(folder):
    """Run the stages of files that are let in, until enough have ended well; the others are refused in one line.

    Hypothesis draws constants that it finds in the project's files, so which of the files are let in differs from one
    checkout to another.
    """
    found = []

    @quietly
    @given(content=studies(most=3))
    def trial(content):
        if found.count(0) == ENOUGH:
            return
        try:
            enter(folder, content)
            for name in TOY.keys() & content.keys():
                content[name] |= TOY[name]
            enter(folder, content)
        except InputError:
            return
        for stage in soak.STAGES:
            ended = soak.run(stage, folder)
            assert ended.status == 0 or ended.refused, (stage, ended, content)
            if ended.status:
                break
        found.append(ended.status)

    trial()
    return found.count(0)


if __name__ == "__main__":
    print(run_some(Path.cwd()))
