"""One command with sub-commands, each of which is imported when it is used."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert not [m for m in modules if m.startswith(("sagd.cli.", "sagd.noise", "sagd.runtime.f", "torch", "numpy"))]


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


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["spectrum", "IMAGES", "--plot"], "s.png"),
        (["suggest", "IMAGES", "--statistics"], "s.safetensors"),
        (["noise", "--plot"], "s.png"),
        (["noise", "--out"], "s.npy"),
    ],
)
def test_an_output_is_tried_before_the_work(tmp_path, capsys, monkeypatch, arguments, output):
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8), np.uint8))
    monkeypatch.setattr("sagd.images.Images.__getitem__", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr("sagd.noise.spectrum.Spectrum.sample", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / output).mkdir()
    (tmp_path / "file").touch()
    arguments = [str(tmp_path / "images.npy") if a == "IMAGES" else a for a in arguments]
    for place, says in (
        (tmp_path / output, "which is no file"),
        (tmp_path / "file" / output, "cannot be written: .*file is no folder"),
        (f"/proc/{output}", "cannot be written"),
        (tmp_path / "s.txt", f"must end in {Path(output).suffix}"),
    ):
        with pytest.raises(SystemExit, match=f"^sagd {arguments[0]}: {arguments[-1]} is .*{says}") as failure:
            main([*arguments, str(place)])
        assert "\n" not in str(failure.value)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, ""])
    assert "it must name a file" in capsys.readouterr().err


def test_a_picture_is_not_replaced_by_one_of_its_noise(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    with pytest.raises(SystemExit, match=r"--plot is .*, which would change the input"):
        main(["noise", "--image", str(tmp_path / "a.png"), "--plot", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").read_bytes() == b"1"


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["spectrum", "EMPTY"], "DATA"),
        (["spectrum", "a", "--samples", "EMPTY"], "--samples"),
        (["spectrum", "a", "--plot", "EMPTY"], "--plot"),
        (["suggest", "EMPTY"], "DATA"),
        (["suggest", "a", "--statistics", "EMPTY"], "--statistics"),
        (["evaluate", "EMPTY", "b"], "GENERATED"),
        (["evaluate", "a", "EMPTY"], "REFERENCE"),
        (["evaluate", "a", "b", "--cache", "EMPTY"], "--cache"),
        (["noise", "--image", "EMPTY"], "--image"),
        (["noise", "--plot", "EMPTY"], "--plot"),
        (["noise", "--out", "EMPTY"], "--out"),
        (["calibrate", "EMPTY"], "FOLDER"),
        (["calibrate", "a", "--out", "EMPTY"], "--out"),
    ],
)
def test_an_empty_path_is_not_this_folder(arguments, named, empty, capsys):
    """Such as "$DATA" of a shell that has no such variable."""
    with pytest.raises(SystemExit, match="2"):
        main([empty if a == "EMPTY" else a for a in arguments])
    told = capsys.readouterr().err
    assert told.startswith(f"sagd {arguments[0]}: argument {named}: it is {empty!r}; it must name a file or a folder")
    assert told.count("\n") == 1


@pytest.mark.parametrize("number", ["-1e-3", "-.5", "-5E-1", "-0.5", "-2"])
def test_a_number_below_0_is_no_option(number, capsys):
    main(["noise", "--operator", "power_law", "--size", "8", "--alpha", number])
    assert capsys.readouterr().out.startswith(f"power_law alpha={float(number)} ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["noise", "--alpha", "-inf", "--operator", "power_law"], "alpha is -inf; it must be a finite number"),
        (["noise", "--size", "-1e3"], "argument --size: invalid int value: '-1e3'"),
        (["noise", "--size", "100000"], "--size is 100000; allowed: 2 to 2048"),
    ],
)
def test_numbers_that_are_refused(arguments, says, capsys):
    with pytest.raises(SystemExit) as failure:
        main(arguments)
    assert says in f"{failure.value} {capsys.readouterr().err}"


class TestStreams:
    """Whatever they are, an answer is written or the status is not 0, and there is no traceback."""

    @staticmethod
    def shell(line, cwd, **environment):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SAGD": f"{sys.executable} -m sagd"} | environment
        return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment, capture_output=True)

    def test_full_and_closed(self, tmp_path):
        said = "cannot write to the standard output: No space left on device\n"
        for line, status, told in (
            ("$SAGD --help > /dev/full", 1, f"sagd: {said}"),
            ("$SAGD --version > /dev/full", 1, f"sagd: {said}"),
            ("$SAGD noise --size 8 > /dev/full", 1, f"sagd noise: {said}"),
            ("$SAGD noise >&-", 1, "sagd: the standard output is closed, and the answer would go there\n"),
            ("$SAGD bogus 2>&-", 2, ""),
            ("$SAGD bogus 2> /dev/full >&-", 1, ""),
        ):
            done = self.shell(line, tmp_path)
            assert (done.returncode == status or (status and done.returncode == 120)) and done.stdout == b""
            assert done.stderr.decode() == told

    def test_a_stage_is_like_a_command(self, tmp_path):
        (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        check, said = (
            f"{sys.executable} -m pipeline.check",
            "cannot write to the standard output: No space left on device",
        )
        for line, told in (
            (f"{check} > /dev/full", f"check: {said}\n"),
            (f"{check} --help > /dev/full", f"check: {said}\n"),
            (f"{check} >&-", "check: the standard output is closed, and the answer would go there\n"),
            (f"{check} | head -c 0; exit ${{PIPESTATUS[0]}}", ""),
        ):
            done = self.shell(line, tmp_path)
            assert (done.returncode, done.stderr.decode()) == (1, told)

    def test_a_terminal_without_letters_and_one_without_remarks(self, tmp_path):
        np.save(tmp_path / "größe.npy", np.random.default_rng(0).integers(0, 80, (4, 8, 8), dtype=np.uint8))
        done = self.shell("$SAGD spectrum größe.npy --json 2>&-", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="1")
        assert done.returncode == 0 and done.stderr == b""
        assert json.loads(done.stdout.decode("ascii"))["data"]["name"] == "größe.npy"

    def test_a_terminal_without_letters_shows_their_codes(self, monkeypatch):
        ascii_ = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", ascii_)
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", "--help"])
        assert rb"reference moments of the Fr\xe9chet distance" in ascii_.buffer.getvalue()


@pytest.mark.slow
def test_ctrl_c_while_packages_are_imported_is_no_traceback(tmp_path):
    """That is most of the first two seconds."""
    (tmp_path / "matplotlib.py").touch()
    (tmp_path / "torch.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "sagd", "noise"]
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"importing\n"
            process.send_signal(number)
            assert process.communicate()[1] == b"" and process.returncode == status


MINE = """
import sys
print("at import")

def ring(size):
    print("at work")
    import torch
    return torch.ones(size)

def ends(size):
    sys.exit(0)

def apart(size):
    import os, torch
    os.write(1, b"by descriptor\\n")
    os.system("echo by another program")
    sys.__stdout__.write("by the first stream\\n")
    return torch.ones(size)

class Dumb(Exception):
    def __str__(self):
        raise ValueError

def dumb(size):
    raise Dumb

def leaves(size):
    raise GeneratorExit

def paints(size):
    raise ValueError("\x1b[31mred")
"""


def test_a_users_own_file_neither_ends_the_command_nor_joins_its_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("exits.py").write_text("import sys\nsys.exit(0)\n")
    main(["noise", "--operator", "mine.py:ring", "--size", "8"])
    told = capsys.readouterr()
    assert told.out.startswith("mine.py:ring, 8 x 8\n") and "at import" not in told.out and "at work" not in told.out
    assert told.err.splitlines() == ["at import", "at work"]
    for operator, says in (
        ("mine.py:ends", r"operator mine\.py:ends: mine\.py, line 11: SystemExit: 0"),
        ("mine.py:dumb", r"operator mine\.py:dumb: mine\.py, line 25: Dumb: what it says cannot be told"),
        ("mine.py:leaves", r"operator mine\.py:leaves: mine\.py, line 28: GeneratorExit: "),
        ("mine.py:paints", r"operator mine\.py:paints: mine\.py, line 31: ValueError: \\x1b\[31mred"),
        ("exits.py:ring", r"exits\.py cannot be imported: exits\.py, line 2: SystemExit: 0"),
    ):
        with pytest.raises(SystemExit, match=f"^sagd noise: {says}$"):
            main(["noise", "--operator", operator, "--size", "8"])


def test_what_others_print_past_pythons_stream_does_not_join_the_answer(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    main(["noise", "--operator", "mine.py:apart", "--size", "8"])
    os.write(1, b"afterwards\n")
    told = capfd.readouterr()
    assert told.out.startswith("mine.py:apart, 8 x 8\n") and told.out.endswith("\nafterwards\n")
    by = {"at import", "by descriptor", "by another program", "by the first stream"}
    assert set(told.err.splitlines()) == by and "by" not in told.out.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["spectrum", "LONG"],
        ["spectrum", "DATA", "--samples", "LONG"],
        ["suggest", "LONG"],
        ["calibrate", "LONG"],
        ["evaluate", "LONG", "DATA"],
        ["evaluate", "DATA", "LONG"],
        ["evaluate", "DATA", "DATA", "--metrics", "LONG.py:f"],
        ["evaluate", "DATA", "DATA", "--cache", "LONG"],
        ["evaluate", "DATA", "DATA", "--features", "LONG.pt"],
        ["noise", "--operator", "LONG.py:f"],
        ["noise", "--image", "LONG"],
    ],
)
def test_a_name_that_no_disk_takes_is_one_line(arguments, tmp_path):
    np.save(tmp_path / "data.npy", np.arange(384, dtype=np.int64).astype(np.uint8).reshape(6, 8, 8))
    given = [a.replace("LONG", "l" * 300).replace("DATA", str(tmp_path / "data.npy")) for a in arguments]
    with pytest.raises(SystemExit, match=f"^sagd {arguments[0]}: .*File name too long") as exit:
        main(given)
    assert "\n" not in str(exit.value)


def test_what_the_machine_lacks_is_one_line(monkeypatch):
    def fails(options):
        raise MemoryError

    monkeypatch.setattr(evaluate, "run", fails)
    with pytest.raises(SystemExit, match=r"^sagd evaluate: there is not enough memory$"):
        main(["evaluate", "a", "b"])
