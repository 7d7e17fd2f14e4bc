"""The stages as the study `decide` runs them: a classifier, centred images, snapshots, variants, denoising."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import params as parameters
from sagd.runtime.files import read_array, read_json, read_tensors
from studies.claims.resampled import distance

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
ISOTROPIC = {"operator": "isotropic"}
SETTINGS = {
    "try_v": {"noise": ISOTROPIC},
    "try_tilted": {"noise": {"operator": "power_law", "alpha": -0.25}, "sample": {"earlier": 0}},
    "try_eps": {
        "noise": ISOTROPIC,
        "train": {"prediction": "eps"},
        "variants": {"marginal": {"start": "marginal", "earlier": 0}},
    },
    "try_centred": {"noise": ISOTROPIC, "encode": {"centre": True}, "seeds": [3], "sample": {"earlier": 0}},
    "try_filtered": {"noise": ISOTROPIC, "corrupt": {"band": [0.4, 0.5], "filtered": True}, "encode": {"centre": True}},
}
PARAMS = {
    "profile": "trial",
    "datasets": {
        "digits": {"name": "mnist_5k", "size": 16, "held_out": 64},
        "digits_labelled": {"name": "mnist_5k", "size": 16, "held_out": 64, "labels": True},
    },
    "encode": {"kind": "pixel"},
    "classifier": {"dataset": "digits_labelled", "features": 8, "epochs": 1},
    "evaluate": {"features": "reports/trial/classifier.pt", "metrics": ["kid", "sliced", "denoising"], "bootstrap": 2},
    "seed": 0,
    "train": {
        "steps": 8, "batch_size": 8, "lr": 0.001, "warmup": 1, "snapshots": [0.25, 0.5], "prediction": "v",
        "unet": {"widths": [8, 8], "layers": 1, "attention": [False, False], "groups": 4}, "repeats": 2,
    },
    "sample": {"n": 12, "earlier": 6, "steps": 2, "clip": "off"},
    "grid": {"settings": {name: {"dataset": "digits", "group": "try", **s} for name, s in SETTINGS.items()}},
}  # fmt: skip
STAGES = (
    *(f"prepare --dataset {name}" for name in PARAMS["datasets"]),
    "classifier",
    *(f"{name} --setting try" for name in ("corrupt", "encode", "train", "sample", "evaluate")),
)


def run(folder, stage):
    name, *arguments = stage.split()
    places = {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(folder / "scratch"), "OMP_NUM_THREADS": "1"}
    module = f"studies.claims.{name}" if name in ("colored", "endpoint", "flicker") else f"pipeline.{name}"
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | places, capture_output=True, text=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decide")
    (folder / "params.json").write_text(json.dumps(PARAMS))
    for stage in STAGES:
        done = run(folder, stage)
        assert done.returncode == 0, (stage, done.stderr)
    return folder


def detail(study, name):
    return read_json(study / "reports/trial/measure/try" / name / "evaluate.seeds.json")


def test_a_result_says_what_made_it(study, monkeypatch):
    monkeypatch.chdir(study)
    params = parameters.load()
    assert all(map(params.measured, params.drawn))


def test_the_classifier_measures(study):
    record = read_json(study / "reports/trial/classifier.json")
    assert record["held_out"] == 64 and 0.3 < record["accuracy_held_out"] <= 1
    assert detail(study, "try_eps")["weights_sha256"] == record["sha256"]
    assert {"kd_classifier", "sliced_classifier", "kd_classifier_of_real"} <= detail(study, "try_eps")[
        "per_seed"
    ].keys()


def test_snapshots_are_measured_on_fewer_samples(study):
    drawn = study / "artifacts/trial/measure/try/try_eps/sample/samples.npz"
    assert read_array(drawn, member="seed_0").shape == (12, 1, 16, 16)
    assert read_array(drawn, member="seed_1_step_2").shape == (6, 1, 16, 16)
    found = detail(study, "try_eps")["per_seed"]
    assert len(found["kd_classifier_step_2"]) == len(found["kd_classifier_step_4"]) == 2
    assert not [key for key in detail(study, "try_centred")["per_seed"] if "_step_" in key]


def test_a_variant_and_seeds_are_a_settings_own(study):
    assert detail(study, "try_eps/marginal")["seeds"] == [0, 1]
    assert detail(study, "try_centred")["seeds"] == [3]
    assert not (study / "reports/trial/measure/try/try_centred/marginal").exists()


def test_networks_of_centred_images_see_no_mean_and_their_samples_have_it(study):
    encoded = study / "artifacts/trial/encode/try/try_centred/encode"
    mean = read_tensors(encoded / "normalization.safetensors")["mean"]
    images = read_array(study / "artifacts/trial/prepare/digits/train.npy")
    assert np.allclose(mean, images.mean(0) / 127.5 - 1)
    assert not read_tensors(encoded / "statistics.safetensors")["mean"].any()
    samples = read_array(study / "artifacts/trial/measure/try/try_centred/sample/samples.npz", member="seed_3")
    # After 8 steps a network knows next to nothing: its samples scatter around the mean image that was given back.
    border = samples[..., 0, :].mean() / 127.5 - 1
    assert border < -0.4 and mean[..., 0, :].mean() < -0.9
    filtered = read_tensors(study / "artifacts/trial/encode/try/try_filtered/encode/normalization.safetensors")["mean"]
    assert not np.allclose(filtered, mean)  # of images without the band


def test_denoising_is_measured_for_each_seed_and_snapshot(study):
    rows = pd.read_csv(study / "reports/trial/measure/try/try_eps/evaluate.denoising.csv")
    assert sorted(rows.groupby(["seed", "step"]).size().index) == [(s, k) for s in (0, 1) for k in (2, 4, 8)]
    assert sorted(rows.snr.unique()) == [0.1, 1, 10] and (rows.error > 0).all()
    assert not (study / "reports/trial/measure/try/try_eps/marginal/evaluate.denoising.csv").exists()


def test_samples_that_are_there_are_not_drawn_again(study):
    place = study / "artifacts/trial/measure/try/try_eps/sample/samples.npz"
    before = place.stat().st_mtime_ns
    done = run(study, "sample --setting try_eps")
    assert done.returncode == 0 and "samples" not in done.stderr and place.stat().st_mtime_ns == before


def test_scores_of_two_noises_are_compared_with_those_of_two_seeds(study):
    lines = (ROOT / "studies/claims/contrasts.yaml").read_text()
    over = "{spectrum_m025: -0.25, spectrum_iso: 0.0, spectrum_p025: 0.25}"
    assert over in lines
    (study / "contrasts.yaml").write_text(lines.replace(over, "{try_tilted: -0.25, try_v: 0.0}"))
    done = run(study, "endpoint")
    assert done.returncode == 0, done.stderr
    found = read_json(study / "reports/trial/endpoint.json")
    of_alphas, of_seeds = (np.array(found[key]) for key in ("of_alphas", "of_seeds"))
    assert of_alphas.shape == of_seeds.shape == (1, len(found["steps"]))  # a pair of seeds
    assert ((of_seeds > 0) & (of_seeds <= 2)).all() and found["pairs_of_seeds"] == [[0, 1]]
    x, near = np.log(found["sigma"][:6]), np.log(of_alphas[0] / of_seeds[0])[:6]
    assert np.allclose(found["endpoint_ratio"]["effects"], np.polyfit(x, near, 1)[0])


def restated(study, **arms):
    """contrasts.yaml with other arms for those that a stage reads."""
    lines = (ROOT / "studies/claims/contrasts.yaml").read_text()
    for before, after in arms.items():
        assert f"{before}: " in lines
        lines = lines.replace(f"{before}: ", f"{after}: ")
    (study / "contrasts.yaml").write_text(lines)


def test_networks_sampled_anew_as_they_were_have_the_distance_that_was_measured(study, monkeypatch):
    monkeypatch.chdir(study)
    monkeypatch.setenv("SAGD_SCRATCH", str(study / "scratch"))
    setting = parameters.load().setting("try_v")
    how = setting.train.formulation((1, 16, 16)), setting.sample.settings(clip=False), setting.sample.n
    for k, seed in enumerate(setting.seeds):
        found = distance(setting, seed, *how, torch.device("cpu"))
        assert found == pytest.approx(detail(study, "try_v")["per_seed"]["kd_classifier"][k], rel=1e-4)


def test_colored_steps_are_compared_with_white_ones(study):
    restated(study, tilt_v_iso="try_v")
    done = run(study, "colored")
    assert done.returncode == 0, done.stderr
    found = read_json(study / "reports/trial/colored.json")
    logs = {arm: np.log(values) for arm, values in found["distances"].items()}
    assert set(logs) == {"ode", "white", "paper", "tuned"} and found["seeds"] == [0, 1]
    for arm, other in (("paper", "white"), ("tuned", "white")):
        assert np.allclose(found[f"colored_{arm}"]["effects"], logs[arm] - logs[other])
    assert np.allclose(found["colored_ode"]["effects"], logs["white"] - logs["ode"])
    assert np.allclose(found["distances"]["ode"], detail(study, "try_v")["per_seed"]["kd_classifier"])
    assert np.array(found["gamma"]).shape == (2, 12) and not np.allclose(logs["paper"], logs["white"])
    kept = sorted((study / "scratch/resampled").iterdir())
    again = run(study, "colored")  # from what was kept
    assert again.returncode == 0 and sorted((study / "scratch/resampled").iterdir()) == kept


def test_few_steps_are_compared_with_many(study):
    restated(study, spectrum_m050="try_tilted", spectrum_iso="try_v")
    done = run(study, "flicker")
    assert done.returncode == 0, done.stderr
    found = read_json(study / "reports/trial/flicker.json")
    logs = {alpha: np.log(values) for alpha, values in found["distances"].items()}
    assert logs["-0.5"].shape == logs["0"].shape == (2, 5) and found["samples"] == 12
    at = found["steps"].index
    assert np.allclose(found["flicker_fewer"]["effects"], logs["-0.5"][:, at(15)] - logs["0"][:, at(50)])
    assert np.allclose(found["flicker_few"]["effects"], logs["-0.5"][:, at(15)] - logs["0"][:, at(15)])
    assert np.allclose(found["flicker_many"]["effects"], logs["-0.5"][:, at(50)] - logs["0"][:, at(50)])


def test_bad_choices_are_one_line(study):
    clipped, unlabelled = (json.loads(json.dumps(PARAMS)) for _ in range(2))
    clipped["grid"]["settings"]["try_centred"]["sample"] = {"clip": "on"}
    unlabelled["classifier"]["dataset"] = "digits"
    try:
        for changed, stage, told in (
            (clipped, "classifier", "sample.clip is on, which is for images in [-1, 1]; encode.centre moves them"),
            (unlabelled, "classifier", "artifacts/trial/prepare/digits has no labels (classifier.dataset)"),
        ):
            (study / "params.json").write_text(json.dumps(changed))
            done = run(study, stage)
            assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1
    finally:
        (study / "params.json").write_text(json.dumps(PARAMS))
