"""The soak test in short: `make soak` runs all of it, whose figures are in docs/reliability.md."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import soak

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_what_a_stage_withstands():
    """In a process of its own, which forks before PyTorch has threads."""
    done = subprocess.run([sys.executable, "-m", "tests.soak"], cwd=ROOT, capture_output=True, text=True)
    passed = [f"{part}: {n} of {n}" for part, n in soak.SHORT.items()]
    assert done.stdout.splitlines() == passed, done.stdout + done.stderr


def test_a_trial_that_fails_is_told(tmp_path):
    """Of the soak test itself: other bytes, a traceback and a stage that hangs are no pass."""
    assert not soak.Ended(1, "Traceback (most recent call last):\n  File\nValueError: x\n", 1.0).refused
    assert not soak.Ended(1, "prepare: a\x1b[31m is no image\n", 1.0).refused
    assert not soak.Ended(-14, "", 1.0).refused
    assert not soak.Ended(0, "prepare: bad\n", 1.0).refused
    assert soak.Ended(1, "prepare 3/8 images, 5 images/s\nprepare: bad is no image\n", 1.0).refused
    for name, content in (("whole", "a"), ("trial", "b")):
        (tmp_path / name / "reports").mkdir(parents=True)
        (tmp_path / name / "reports" / "x.json").write_text(content)
    study = object.__new__(soak.Study)
    study.sums = soak.sums(tmp_path / "whole")
    assert "other bytes in reports/x.json" in soak._same(study, tmp_path / "trial", "x", soak.Ended(0, "", 1.0))
