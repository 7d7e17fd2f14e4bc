"""Results hold no facts of the machine: the same training has the same hash everywhere."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline import corrupt, encode, evaluate, sample, train
from pipeline import params as parameters
from pipeline.run import timings
from sagd.runtime.distributed import World
from sagd.runtime.files import read_json

FOCUS = SimpleNamespace(grid=False, setting=None, dry=False)
STUDY = """
seed: 0
noise: {operator: power_law, alpha: 0.0}
corrupt: {}
encode: {kind: pixel}
train: {steps: 4, batch_size: 4, lr: 0.001, warmup: 1, repeats: 2, snapshots: 2,
        unet: {widths: [8], layers: 1, attention: [false], groups: 4}}
sample: {n: 6, steps: 2, batch_size: 6}
evaluate: {features: efficientnet_lite0, metrics: [fid], bootstrap: 2}
grid:
  settings: {}
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Runs stages of the study above, after changes of its keys: the names of the runs and batches that were made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    rng = np.random.default_rng(0)
    Path("artifacts/prepare").mkdir(parents=True)
    for name in ("train", "held_out"):
        np.save(f"artifacts/prepare/{name}.npy", rng.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8))
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"train": 12, "held_out": 12, "shape": [1, 8, 8]}')
    done = []
    for stage, name in ((train, "train"), (sample, "draw_batches")):
        original = getattr(stage, name)

        def counted(*given, original=original, name=name, **options):
            done.append(f"{name} {options['seed']}")
            return original(*given, **options)

        monkeypatch.setattr(stage, name, counted)
    raw = YAML(typ="safe").load(STUDY)

    def run(*stages, **changes):
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = raw
            for section in sections:
                place = place[section]
            place[last] = value
        done.clear()
        for stage in stages:
            stage.main(parameters.Params(raw), FOCUS)
        return sorted(done)

    run(corrupt, encode)
    return run


def test_sampling_depends_on_the_formulation():
    """EDM's highest level is a key of train that only sampling uses: DVC reruns `sample` for it."""
    stages = YAML(typ="safe").load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    assert "train" in stages["sample"]["params"] and "train" in stages["grid_sample"]["params"]


def test_networks_of_other_seeds_do_not_stay(work):
    work(train)
    assert work(train, seed=5) == ["train 5", "train 6"]
    names = sorted(p.name for p in Path("artifacts/train").iterdir() if p.is_dir())
    assert names == ["seed_5", "seed_5_step_2", "seed_6", "seed_6_step_2"]
    assert read_json("artifacts/train/run.json") == {"seeds": [5, 6], "checkpoints": [2, 4]}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_results_hold_no_facts_of_the_machine(work):
    """So the same training has the same hash everywhere, and what is kept in git changes with the results alone."""
    work(train, sample, evaluate)
    facts = {"images_per_second", "cpu", "device", "torch", "python", "numpy", "seconds"}
    assert read_json("artifacts/train/run.json") == {"seeds": [0, 1], "checkpoints": [2, 4]}
    for file in ("reports/evaluate.json", "reports/evaluate.seeds.json", "reports/encode.json"):
        content = Path(file).read_text()
        assert not any(f'"{fact}"' in content for fact in facts) and torch.__version__ not in content, file
    assert facts - {"seconds"} == timings.read()["focus"].keys()
    assert timings.read()["focus"]["images_per_second"] > 0

    before, report = contents("artifacts/train"), contents("reports")
    shutil.rmtree("artifacts/train")
    shutil.rmtree("scratch/train")
    work(train, sample, evaluate)
    assert contents("artifacts/train") == before
    again = contents("reports")
    del report["timings.json"], again["timings.json"]
    assert again == report


def test_timings_of_other_settings_stay(work):
    other = {"images_per_second": 7.0, "device": "an accelerator"}
    Path("reports/timings.json").write_text(json.dumps({"iso": other, "focus": {"images_per_second": 1e9}}))
    work(train)
    noted = timings.read()
    assert noted["iso"] == other and list(noted) == ["focus", "iso"]
    assert 0 < noted["focus"]["images_per_second"] < 1e9 and noted["focus"]["torch"] == torch.__version__
    timings.record("focus", None, World())  # of a run that was only read back: what was measured stays
    assert timings.read() == noted
