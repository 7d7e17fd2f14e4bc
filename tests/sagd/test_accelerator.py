"""On a device that is not the CPU: an emulated one, registered for the whole of a process, and so in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_what_runs_on_an_accelerator():
    tests = Path(__file__).with_name("on_accelerator.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)]
    done = subprocess.run(command, cwd=tests.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:]
