"""A stage that is run again does only what can have another result, and results hold no facts of the machine."""

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
from pipeline.run.finished import is_finished, note_finished
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
  seeds: [0]
  train: {steps: 1, batch_size: 1, lr: 0.1, unet: {widths: [8], layers: 1, attention: [false], groups: 4}}
  sample: {n: 6, steps: 2}
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
    Path("reports/prepare.json").write_text("{}")
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


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def touched(folder):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")}


def test_a_stage_that_is_run_again_does_nothing(work, capsys):
    assert work(train, sample) == ["draw_batches 0"] * 2 + ["draw_batches 1"] * 2 + ["train 0", "train 1"]
    before = touched("artifacts") | touched("reports")
    capsys.readouterr()
    assert work(train, sample) == []
    assert touched("artifacts") | touched("reports") == before
    told = capsys.readouterr().err.splitlines()
    assert told == ["train focus: its networks are there already", "sample focus: its samples are there already"]
    assert not list(Path("scratch/train").rglob("*.safetensors")) and not list(Path("scratch").rglob("*.npy"))


@pytest.mark.parametrize("change", [{"train__lr": 0.002}, {"train__snapshots": 1}, {"noise__alpha": -0.1}])
def test_what_changes_the_networks_trains_them_again(work, change):
    work(train)
    before = contents("artifacts/train")
    assert work(corrupt, encode, train, **change) == ["train 0", "train 1"]
    assert contents("artifacts/train") != before
    back = {"train__lr": 0.001, "train__snapshots": 2, "noise__alpha": 0.0}
    assert work(encode, train, **back) == ["train 0", "train 1"]  # what lies there is of the other setting
    assert contents("artifacts/train") == before


def test_what_changes_no_number_trains_nothing(work):
    """Weights are the key, not their operator: white noise by another name, and code outside the stage's rooms."""
    work(train, sample)
    assert work(encode, train, sample, noise__operator="isotropic", sample__batch_size=6) == []
    assert read_json("reports/encode.json")["noise"]["operator"] == "isotropic"
    assert work(train, evaluate__bootstrap=3, train__repeats=2) == []


@pytest.mark.parametrize("stage", [train, sample])
def test_other_code_runs_again(work, monkeypatch, stage):
    work(train, sample)
    monkeypatch.setattr(stage, "sources", lambda *rooms: "other code")
    assert len(work(stage)) == (2 if stage is train else 4)


def test_a_damaged_file_is_made_again(work):
    work(train, sample)
    networks, samples = contents("artifacts/train"), Path("artifacts/sample/samples.npz").read_bytes()
    weights = Path("artifacts/train/seed_1/diffusion_pytorch_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert work(train, sample) == ["train 0", "train 1"]
    assert contents("artifacts/train") == networks
    for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(samples[:-1])):
        damage(Path("artifacts/sample/samples.npz"))
        assert len(work(train, sample)) == 4
        assert Path("artifacts/sample/samples.npz").read_bytes() == samples
    Path("reports/sample.png").unlink()
    assert len(work(train, sample)) == 4 and Path("reports/sample.png").is_file()
    Path("reports/train.csv").unlink()
    assert work(train) == ["train 0", "train 1"] and Path("reports/train.csv").is_file()


@pytest.mark.parametrize("change", [{"sample__steps": 3}, {"sample__n": 7}, {"sample__start": "marginal"}])
def test_what_changes_the_samples_draws_them_again(work, change):
    work(train, sample)
    before = Path("artifacts/sample/samples.npz").read_bytes()
    assert len(work(train, sample, **change)) == 4
    assert Path("artifacts/sample/samples.npz").read_bytes() != before


def test_networks_of_other_seeds_do_not_stay(work):
    work(train)
    assert work(train, seed=5) == ["train 5", "train 6"]
    names = sorted(p.name for p in Path("artifacts/train").iterdir() if p.is_dir())
    assert names == ["seed_5", "seed_5_step_2", "seed_6", "seed_6_step_2"]
    assert read_json("artifacts/train/run.json") == {"seeds": [5, 6], "checkpoints": [2, 4]}


def test_a_note_is_of_one_place_and_names_every_file(tmp_path):
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("a")
    assert not is_finished(tmp_path / "key", folder)
    note_finished(tmp_path / "key", folder)
    assert is_finished(tmp_path / "key", folder) and not is_finished(tmp_path / "other", folder)
    (folder / "deep" / "a").write_text("b")
    assert not is_finished(tmp_path / "key", folder)


@pytest.mark.slow
def test_results_hold_no_facts_of_the_machine(work):
    """So the same training has the same hash everywhere, and what is kept in git changes with the results alone."""
    work(train, sample, evaluate)
    facts = {"images_per_second", "device", "torch", "python", "numpy", "seconds"}
    assert read_json("artifacts/train/run.json") == {"seeds": [0, 1], "checkpoints": [2, 4]}
    for file in ("reports/evaluate.json", "reports/evaluate.seeds.json", "reports/encode.json"):
        content = Path(file).read_text()
        assert not any(f'"{fact}"' in content for fact in facts) and torch.__version__ not in content, file
    assert facts - {"seconds"} == timings.read()["focus"].keys()
    assert timings.read()["focus"]["images_per_second"] > 0

    before, report = contents("artifacts/train"), contents("reports")
    shutil.rmtree("artifacts/train")
    shutil.rmtree("scratch/train")
    assert work(train, sample, evaluate) == ["train 0", "train 1"]  # to the same bits: nothing else is done again
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
