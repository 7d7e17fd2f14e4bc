"""The scripts that run settings side by side, with a `dvc` that notes what it is asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Of the plan: each setting's data set, which is its group as well here. Two names begin alike.
DATA = {"a": "digits", "b": "digits", "b_low": "faces", "c": "faces", "d": "faces"}
NAMES = list(DATA)
# exit 255: what dvc does when a stage fails
DVC = """#!/usr/bin/env bash
case "$* " in *"{fails} "*) exit 255;; esac
case "$*" in *train@*) sleep 0.2;; esac  # so that the jobs overlap
echo "${{CUDA_VISIBLE_DEVICES:-none}} $PWD $*" >> "{log}"
"""


@pytest.fixture
def paper(tmp_path):
    """Runs a script of the paper's study with stand-ins for dvc and GPUs: its exit status, what dvc was asked where."""
    place = tmp_path / "studies" / "paper"
    for folder in (place, tmp_path / "bin"):
        folder.mkdir(parents=True)
    for name in ("__init__.py", "plan.py", "paper/run.sh", "paper/slurm.sh"):  # the plan reads what lies beside it
        (tmp_path / "studies" / name).write_bytes((ROOT / "studies" / name).read_bytes())
    for name in ("run.sh", "slurm.sh"):
        (place / name).chmod(0o755)
    stages = {
        name: {"dataset": dataset, "place": f"{dataset}/{name}", "settings": name} for name, dataset in DATA.items()
    }
    (place / "params.json").write_text(json.dumps({"stages": stages}))

    def run(*command, fails="nothing", gpus=0, **environment):
        log = tmp_path / "log"
        log.write_text("")
        tools = {
            "dvc": DVC.format(fails=fails, log=log),
            "nvidia-smi": "#!/bin/sh\n" + "echo GPU\n" * gpus + f"exit {0 if gpus else 9}\n",
            "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        }
        for name, content in tools.items():
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        kept |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        done = subprocess.run(command, cwd=tmp_path, env=kept | environment, capture_output=True, text=True)
        lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
        assert all(at == str(place) for _, at, _ in lines)  # the project that they belong to
        return done, [(device, asked) for device, _, asked in lines]

    return run


def asked(log, stage):
    return sorted(word.partition("@")[2] for _, line in log for word in line.split() if word.startswith(f"{stage}@"))


def test_every_setting_runs_and_the_page_last(paper):
    done, log = paper("studies/paper/run.sh", "2")
    assert done.returncode == 0, done.stderr
    assert asked(log, "encode") == ["digits", "faces"]
    assert asked(log, "measure") == NAMES
    assert log[-1][1].endswith(" paper")
    order = [line for _, line in log]
    assert "encode@" in order[0]  # the data first
    assert {device for device, _ in log} == {"none"}


def test_jobs_are_dealt_out_to_gpus(paper):
    _, log = paper("studies/paper/run.sh", "4", gpus=2)
    trained = [device for device, line in log if "train@" in line]
    assert trained.count("0") + trained.count("1") == len(NAMES) and min(map(trained.count, "01")) >= 2


def test_a_pattern_chooses(paper):
    _, log = paper("studies/paper/run.sh", "1", "^[bc]$")
    assert asked(log, "measure") == ["b", "c"] and asked(log, "encode") == ["digits", "faces"]
    done, log = paper("studies/paper/run.sh", "1", "^x")
    assert done.returncode != 0 and "no setting matches" in done.stderr and log == []


def test_a_setting_that_fails_is_told_and_leaves_the_others(paper):
    done, log = paper("studies/paper/run.sh", "2", fails="measure@c")
    assert done.returncode != 0
    assert asked(log, "measure") == ["a", "b", "b_low", "d"]
    done, log = paper("studies/paper/run.sh", "1", fails="encode@digits")  # its data cannot be had
    assert done.returncode != 0
    assert asked(log, "measure") == ["b_low", "c", "d"]
    assert log[-1][1].endswith(" paper")  # with what is there


def test_settings_whose_names_begin_alike_are_told_apart(paper):
    _, log = paper("studies/paper/run.sh", "1", "^b")
    assert asked(log, "measure") == ["b", "b_low"]


@pytest.mark.slow
def test_a_task_of_slurm_is_one_setting(paper):
    for number in (0, 2, 4):
        done, log = paper("bash", "studies/paper/slurm.sh", SLURM_ARRAY_TASK_ID=str(number))
        assert done.returncode == 0, done.stderr
        assert asked(log, "measure") == [NAMES[number]] and len(log) == 1
    done, _ = paper("bash", "studies/paper/slurm.sh", SLURM_ARRAY_TASK_ID="5")
    assert done.returncode != 0 and "no setting has the number 5" in done.stderr
