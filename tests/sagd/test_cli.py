"""One command with three sub-commands, each of which is imported when it is used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sagd
from sagd import InputError
from sagd.cli import COMMANDS, evaluate, main
from sagd.metrics.extractors import DEFAULT

ROOT = Path(__file__).parent.parent.parent


def called(*arguments, code=None):
    """The command line, in a process of its own."""
    command = [sys.executable, *(("-c", code) if code else ("-m", "sagd")), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_help_names_every_command():
    done = called("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: sagd ")
    assert all(re.search(rf"^    {name}\s", done.stdout, re.M) for name in COMMANDS)


def test_help_imports_no_command():
    done = called("--help", code="import sys; from sagd.cli import main\ntry: main()\nfinally: print(*sys.modules)")
    modules = done.stdout.split()
    assert not [m for m in modules if m.startswith(("sagd.cli.", "sagd.metrics", "sagd.data", "sagd.oracle", "scipy"))]


def test_help_of_evaluate_names_the_default_extractor():
    done = called("evaluate", "--help")
    assert done.returncode == 0
    assert f"(default: {DEFAULT})" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_default_of_each_option(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    options = said.split(" --")[2:]  # after -h, --help
    assert options and all("(default: " in option for option in options), said


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"sagd {sagd.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bogus"], "sagd: argument COMMAND: invalid choice: 'bogus'"),
        ([], "sagd: the following arguments are required: COMMAND"),
        (["evaluate", "a"], "sagd evaluate: the following arguments are required: REFERENCE"),
        (["spectrum", "a", "--bogus"], "sagd: unrecognized arguments: --bogus"),
    ],
)
def test_a_bad_command_line_is_one_line(arguments, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    told = capsys.readouterr().err
    assert told.startswith(says) and told.count("\n") == 1 and "--help" in told


@pytest.mark.parametrize(
    ("failure", "code"), [(InputError("no images"), "sagd evaluate: no images"), (KeyboardInterrupt(), 130)]
)
def test_failures_end_without_a_traceback(monkeypatch, failure, code):
    def fails(options):
        raise failure

    monkeypatch.setattr(evaluate, "run", fails)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "a", "b"])
    assert stopped.value.code == code
