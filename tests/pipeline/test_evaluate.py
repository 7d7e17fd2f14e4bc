"""The stage `evaluate` gives the numbers of the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from sagd.cli import main
from sagd.metrics.extractors import DEFAULT
from sagd.noise import corruption

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)


def test_the_stage_and_the_command_line_have_the_same_extractor_by_default():
    assert YAML(typ="safe").load(ROOT / "params.yaml")["evaluate"]["features"] == DEFAULT


def test_the_stage_and_the_command_line_give_the_same_answer(tmp_path, capsys):
    """A setting's samples through `pipeline.evaluate`, then seed by seed through the command line."""
    content = YAML().load(ROOT / "params.yaml")
    content["train"] |= {"steps": 6, "warmup": 1, "snapshots": 2}
    content["sample"]["n"] = 12
    YAML().dump(content, tmp_path / "params.yaml")
    prepared, drawn = tmp_path / "artifacts" / "prepare", tmp_path / "artifacts" / "sample"
    for folder in (prepared, drawn, tmp_path / "artifacts" / "train", tmp_path / "artifacts" / "corrupt"):
        folder.mkdir(parents=True)
    pictures = RNG.integers(0, 256, (70, 1, 16, 16), dtype=np.uint8)
    np.save(prepared / "train.npy", pictures[:40])
    np.save(prepared / "held_out.npy", pictures[40:60])
    record = {"train": 40, "held_out": 20, "shape": [1, 16, 16]}
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "prepare.json").write_text(json.dumps(record))
    names = [f"seed_{seed}{end}" for seed in (0, 1) for end in ("", "_step_3")]
    arrays = {name: RNG.integers(k, 200, (12, 1, 16, 16), dtype=np.uint8) for k, name in enumerate(names)}
    np.savez_compressed(drawn / "samples.npz", **arrays)
    run = {"seeds": [0, 1], "checkpoints": [3, 6]}
    (tmp_path / "artifacts" / "train" / "run.json").write_text(json.dumps(run))
    corruption.save(tmp_path / "artifacts" / "corrupt" / "corruption.safetensors", None)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path / "scratch")}
    command = [sys.executable, "-m", "pipeline.evaluate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    detail = json.loads((tmp_path / "reports" / "evaluate.seeds.json").read_text())
    assert detail["made"]["train"]["steps"] == 6 and detail["made"]["sample"]["n"] == 12
    summary = json.loads((tmp_path / "reports" / "evaluate.json").read_text())
    for seed in (0, 1):
        main(
            [
                "evaluate", f"{drawn}/samples.npz:seed_{seed}", f"{prepared}/held_out.npy",
                "--metrics", "fid,kid,prdc", "--seed", str(seed), "--bootstrap", "50",
                "--cache", str(tmp_path / "scratch"),
            ]
        )  # fmt: skip
        found = json.loads(capsys.readouterr().out)
        same = [name for name in detail["per_seed"] if name in found]
        assert len(same) == 10  # fd and kd, each with its error and floor, and four of prdc
        for name in same:
            # Not to the bit: BLAS takes other kernels where another thread count or processor is set.
            assert found[name] == pytest.approx(detail["per_seed"][name][seed], rel=1e-6), name
        assert found["caveats"] == detail["caveats"]
    name = "fd_efficientnet_lite0"
    per_seed = detail["per_seed"][name]
    assert summary[name] == pytest.approx(np.mean(per_seed))
    assert summary[f"{name}_se"] == pytest.approx(np.std(per_seed, ddof=1) / np.sqrt(2))
    assert summary[f"{name}_best"] <= summary[name]
    assert {f"{name}_chosen_on_half", f"{name}_last_on_half"} <= set(summary)
