"""Several processes do what one does: two of them for real, on gloo, as accelerate launches them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sagd.runtime.distributed import World
from sagd.runtime.files import read_json, read_tensors

ROOT = Path(__file__).parents[2]
PARAMS = """
seed: 0
dataset: {name: mnist_5k, size: 8, channels: 3, held_out: 100, labels: true}
noise: {operator: power_law, alpha: -0.04}
corrupt: {}
encode: {kind: rae, path: random, per_shard: 1000}
train:
  steps: STEPS
  batch_size: 8
  lr: 0.001
  schedule: flow
  prediction: velocity
  flow: {times: uniform, shift: auto}
  dit: {patch: 1, widths: [16, 32], depths: [1, 1], heads: [2, 2]}
sample: {n: 20, steps: 3, sampler: euler, batch_size: 6, clip: "off"}
evaluate: {features: efficientnet_lite0, bootstrap: 2}
grid:
  settings: {}
"""


def accelerate():
    """The command that starts two processes, at a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return (
        f"{sys.executable} -m accelerate.commands.accelerate_cli launch --multi_gpu --num_processes 2 --num_machines 1 "
        f"--mixed_precision no --dynamo_backend no --main_process_port {port}"
    )


def environment(scratch, processes):
    found = {k: v for k, v in os.environ.items() if k not in ("SAGD_LAUNCH", "WORLD_SIZE")}
    found |= {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(scratch), "OMP_NUM_THREADS": "1"}
    return found | ({"ACCELERATE_USE_CPU": "true", "SAGD_LAUNCH": accelerate()} if processes == 2 else {})


def stage(name, folder, processes, scratch=None):
    command = [sys.executable, "-m", f"pipeline.{name}"]
    env = environment(scratch or folder / "scratch", processes)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """DDP, FSDP, and runs that go on in another number of processes: one loss curve, to float tolerance.

    And processes that would not do the same are refused.
    """
    script = str(ROOT / "tests" / "system" / "shared_work.py")
    env = environment(tmp_path, 2)
    two = subprocess.run(
        [*env.pop("SAGD_LAUNCH").split(), script, tmp_path], env=env, capture_output=True, text=True, timeout=300
    )
    assert two.returncode == 0, two.stderr[-3000:]
    assert 4 <= int(read_tensors(tmp_path / "stopped")["step"]) < 24
    for rank in range(2):
        assert (
            "SAGD_SCRATCH must be a folder that all hosts see"
            in (tmp_path / f"host_{rank}" / "scratch.txt").read_text()
        )
        assert "the processes have different settings" in (tmp_path / f"host_{rank}" / "settings.txt").read_text()
    subprocess.run([sys.executable, script, tmp_path], env=environment(tmp_path, 1), check=True)
    alone = read_tensors(tmp_path / "alone.safetensors")
    assert alone["losses"].isfinite().all()
    for name in ("two", "sharded", "sharded_from_two", "alone_from_two"):
        other = read_tensors(tmp_path / f"{name}.safetensors")
        assert other.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(other[key], value, atol=1e-4, rtol=1e-4, msg=f"{name}: {key}")


@pytest.mark.slow
def test_the_whole_chain_in_two_processes(tmp_path):
    """Encode, train, sample, decode, evaluate: shards and samples byte-identical to one process's, features equal."""
    rng = np.random.default_rng(0)
    for k in range(130):  # of two classes
        picture = tmp_path / "pictures" / "ab"[k % 2] / f"{k}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(picture)
    params = PARAMS.replace("STEPS", "12").replace("mnist_5k", f"folder, path: {tmp_path / 'pictures'}")
    params = params.replace("held_out: 100", "held_out: 30").replace("per_shard: 1000", "per_shard: 20")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        (folder / "params.yaml").write_text(params)
        for name in ("prepare", "corrupt", "encode", "train", "sample", "evaluate"):
            if name == "sample" and processes == 2:  # of the same network
                shutil.rmtree(folder / "artifacts" / "train")
                shutil.copytree(one / "artifacts" / "train", folder / "artifacts" / "train")
            done = stage(name, folder, processes)
            assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
    shards = sorted(p.relative_to(one) for p in (one / "scratch" / "latents").rglob("*.safetensors"))
    assert len(shards) == 6
    for file in (*shards, "reports/train.csv", "artifacts/sample/samples.npz", "reports/evaluate.rapsd.csv"):
        assert (two / file).read_bytes() == (one / file).read_bytes(), file
    ours, theirs = (read_json(f / "reports" / "evaluate.json") for f in (one, two))
    for key in ("fd_efficientnet_lite0", "kd_efficientnet_lite0", "pixels_mean"):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-6)


def test_a_run_waits_for_another_and_leaves_its_word(tmp_path, capsys):
    """The word beside the lock is what the hosts of a run compare: who waits must not touch it."""
    entered = threading.Event()

    def second():
        with World().holding(tmp_path):
            entered.set()

    waiting = threading.Thread(target=second)
    with World().holding(tmp_path):
        word = (tmp_path / "holder").read_text()
        waiting.start()
        assert not entered.wait(1.5)
        assert word and (tmp_path / "holder").read_text() == word
    waiting.join()
    assert entered.is_set() and (tmp_path / "holder").read_text() != word
    assert capsys.readouterr().err.count("; waiting") == 1


@pytest.fixture
def training(tmp_path):
    """The stage train, in two processes that have begun a long training."""
    rng = np.random.default_rng(0)
    (tmp_path / "params.yaml").write_text(
        PARAMS.replace("STEPS", "100000")
        .replace("{kind: rae, path: random, per_shard: 1000}", "{kind: pixel}")
        .replace("patch: 1", "patch: 4")
    )
    (tmp_path / "artifacts" / "prepare").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "prepare.json").write_text('{"train": 40, "held_out": 10, "shape": [3, 8, 8]}')
    for name, n in (("train", 40), ("held_out", 10)):
        np.save(tmp_path / "artifacts/prepare" / f"{name}.npy", rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8))
    for name in ("corrupt", "encode"):
        assert stage(name, tmp_path, 1).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.train"], cwd=tmp_path, env=environment(tmp_path / "scratch", 2),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stderr.readline()  # of progress: it trains
    assert "train focus" in line
    return process


def said_at_last(process):
    return [line for line in process.communicate(timeout=120)[1].splitlines() if "images/s" not in line]


@pytest.mark.slow
def test_a_worker_that_is_killed_stops_all_with_one_line(training):
    workers = [p for p in descendants(training.pid) if "-u -m pipeline.train" in command_of(p)]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    said = said_at_last(training)
    assert training.returncode == 1
    assert len(said) == 1
    assert "was killed (SIGKILL), and all have stopped; to resume from the last checkpoint, run" in said[0]
    deadline = time.monotonic() + 30
    while any("pipeline.train" in command_of(p) for p in workers):
        assert time.monotonic() < deadline, "a worker outlives the others"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_says_so_once(training, tmp_path):
    training.terminate()
    said = said_at_last(training)
    assert training.returncode == 128 + signal.SIGTERM
    assert len(said) == 1
    assert "train: stopped; to resume from the last checkpoint, run the same command" in said[0]
    (saved,) = (tmp_path / "scratch" / "train").glob("*/seed_0.safetensors")
    assert int(read_tensors(saved)["step"]) > 0


def descendants(pid):
    """Process ids of children, their children and so on, in order."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.slow
def test_bad_input_is_one_line_in_two_processes_too(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("STEPS", "-1"))
    done = stage("train", tmp_path, 2)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "train.steps is -1" in done.stderr


def test_a_launcher_that_is_not_there_is_named(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("STEPS", "1"))
    env = environment(tmp_path, 1) | {"SAGD_LAUNCH": "no_such_launcher --n 2"}
    command = [sys.executable, "-m", "pipeline.train"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr == "train: cannot start no_such_launcher (SAGD_LAUNCH): No such file or directory\n"


@pytest.mark.slow
def test_a_launcher_of_one_process_launches_once(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("STEPS", "-1"))
    env = environment(tmp_path, 1) | {"SAGD_LAUNCH": sys.executable}
    command = [sys.executable, "-m", "pipeline.train"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("train.steps is -1") == 1
