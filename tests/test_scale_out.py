"""The scripts that run settings side by side, with a `dvc` that notes what it is asked for."""

import os
import subprocess
from pathlib import Path

import pytest

NAMES = ["a", "b", "b_low", "c", "d"]
# exit 255: what dvc does when a stage fails
STAGES = [f"{stage}@{name}" for stage in ("encode", "grid_train", "grid_sample", "grid_evaluate") for name in NAMES]
DVC = """#!/usr/bin/env bash
if [ "$1 $2" = "stage list" ]; then printf '%s\\n' {stages}; exit; fi
case "$*" in *{fails}) exit 255;; esac
case "$*" in *grid_train*) sleep 0.3;; esac  # so that the jobs overlap
echo "${{CUDA_VISIBLE_DEVICES:-none}} $*" >> "{log}"
"""


@pytest.fixture
def paper(tmp_path):
    """Runs a script of paper/ with a stand-in for dvc and for GPUs: gives its exit status and what dvc was asked."""
    for name in ("run.sh", "setting.sh", "slurm.sh"):
        (tmp_path / "paper").mkdir(exist_ok=True)
        (tmp_path / "paper" / name).write_bytes(Path("paper", name).read_bytes())
        (tmp_path / "paper" / name).chmod(0o755)
    (tmp_path / "bin").mkdir()

    def run(*command, fails="nothing", gpus=0, **environment):
        log = tmp_path / "log"
        log.write_text("")
        tools = {"dvc": DVC.format(stages=" ".join(STAGES), fails=fails, log=log)}
        tools["nvidia-smi"] = "#!/bin/sh\n" + "echo GPU\n" * gpus + f"exit {0 if gpus else 9}\n"
        for name, content in tools.items():
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=tmp_path, env={**kept, "PATH": path, **environment}, capture_output=True, text=True
        )
        return done, [line.split(maxsplit=1) for line in log.read_text().splitlines()]

    return run


def asked(log, stage):
    return sorted(line.rsplit("@", 1)[1] for _, line in log if f":{stage}@" in line)


def test_every_setting_runs_and_the_page_last(paper):
    done, log = paper("paper/run.sh", "2")
    assert done.returncode == 0, done.stderr
    for stage in ("encode", "grid_train", "grid_sample", "grid_evaluate"):
        assert asked(log, stage) == NAMES
    assert log[-1][1].endswith("paper/dvc.yaml:paper")
    assert {device for device, _ in log} == {"none"}


def test_jobs_are_dealt_out_to_gpus(paper):
    _, log = paper("paper/run.sh", "4", gpus=2)
    trained = [device for device, line in log if "grid_train" in line]
    assert trained.count("0") + trained.count("1") == len(NAMES) and min(map(trained.count, "01")) >= 2


def test_a_pattern_chooses(paper):
    _, log = paper("paper/run.sh", "1", "^[bc]$")
    assert asked(log, "grid_train") == asked(log, "encode") == ["b", "c"]
    done, log = paper("paper/run.sh", "1", "^x")
    assert done.returncode != 0 and "no setting matches" in done.stderr and log == []


def test_a_setting_that_fails_is_told_and_leaves_the_others(paper):
    done, log = paper("paper/run.sh", "2", fails="grid_train@c")
    assert done.returncode != 0
    assert asked(log, "grid_evaluate") == ["a", "b", "b_low", "d"]
    done, log = paper("paper/run.sh", "1", fails="encode@a")  # its data cannot be had
    assert done.returncode != 0
    assert asked(log, "grid_evaluate") == NAMES[1:]
    assert log[-1][1].endswith("paper/dvc.yaml:paper")  # with what is there


def test_groups_whose_names_begin_alike_are_told_apart(paper):
    _, log = paper("paper/run.sh", "1", "^b")
    assert asked(log, "encode") == asked(log, "grid_train") == ["b", "b_low"]


def test_a_task_of_slurm_is_one_setting(paper):
    for number, name in enumerate(NAMES):
        done, log = paper("bash", "paper/slurm.sh", SLURM_ARRAY_TASK_ID=str(number))
        assert done.returncode == 0, done.stderr
        assert [line.rsplit(":", 1)[1] for _, line in log] == [
            f"grid_train@{name}",
            f"grid_sample@{name}",
            f"grid_evaluate@{name}",
        ]
    done, _ = paper("bash", "paper/slurm.sh", SLURM_ARRAY_TASK_ID="5")
    assert done.returncode != 0 and "no setting has the number 5" in done.stderr
