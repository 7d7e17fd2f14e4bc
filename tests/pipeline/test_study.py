"""A whole grid at toy size through the stages' own functions: variants of sampling, and noise made of the data."""

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
from pipeline.pages import results
from sagd.errors import InputError
from sagd.formulations.base import Sampler
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.frechet import Moments
from sagd.noise import stored
from sagd.noise.varying import Varying
from sagd.operators import from_dict
from sagd.runtime.files import read_array, read_json
from sagd.spaces.moments import statistics

GRID = SimpleNamespace(grid=True, setting=None, dry=False)
STUDY = """
encode: {kind: pixel}
evaluate: {features: efficientnet_lite0, metrics: [fid], bootstrap: 2}
seed: 0
train: {steps: 3, batch_size: 4, lr: 0.001, warmup: 1,
        unet: {widths: [8, 8], layers: 1, attention: [false, false], groups: 4}}
sample: {n: 6, steps: 3, batch_size: 6, clip: off}
grid:
  variants: {marginal: {start: marginal}, last: {spacing: trailing}}
  settings:
    iso: {noise: {operator: isotropic}}
    suggested: {noise: {operator: power_law, alpha: auto, dc: floor}}
    moving: {noise: {operator: power_law, alpha: -0.5, schedule: varying, alpha_last: 0.5}}
    equal: {noise: {operator: equal_snr}}
    zero: {noise: {operator: isotropic}, train: {prediction: v, schedule: zero_terminal_snr}}
"""
CONTINUOUS = (
    STUDY[: STUDY.index("  variants")]
    + """
  settings:
    flow: {noise: {operator: power_law, alpha: -0.3}, train: {schedule: flow, prediction: velocity},
           sample: {sampler: heun}}
    edm: {noise: {operator: power_law, alpha: -0.3}, train: {schedule: edm, prediction: x0}, sample: {sampler: euler}}
"""
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a study of those above, once: 40 dark images, without a setting in focus, trained and sampled."""
    folders = {}

    def make(text):
        if text not in folders:
            folders[text] = folder = tmp_path_factory.mktemp("study")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("SAGD_SCRATCH", str(folder / "scratch"))
                Path("params.yaml").write_text(text)
                rng = np.random.default_rng(0)
                Path("artifacts/prepare").mkdir(parents=True)
                for name in ("train", "held_out"):
                    images = rng.integers(0, 90, (20, 1, 8, 8), dtype=np.uint8)
                    np.save(f"artifacts/prepare/{name}.npy", images, allow_pickle=False)
                Path("reports").mkdir()
                Path("reports/prepare.json").write_text('{"train": 20, "held_out": 20, "shape": [1, 8, 8]}')
                for stage in (corrupt, encode, train, sample):
                    stage.main(parameters.load(), GRID)
        return folders[text]

    return make


@pytest.fixture
def study(made, tmp_path, monkeypatch, request):
    """A copy of a study that was made."""
    shutil.copytree(made(getattr(request, "param", STUDY)), tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "study" / "scratch"))
    return parameters.load()


def drawn_by(name):
    return read_array(f"artifacts/grid/sample/{name}/samples.npz", member="seed_0")


def test_a_study_of_several_noises_and_ways_to_sample(study):
    assert [s.title for s in study.all_settings] == ["iso", "suggested", "moving", "equal", "zero"]
    assert len(study.drawn) == 15
    assert not np.array_equal(drawn_by("iso"), drawn_by("iso__marginal"))
    assert not np.array_equal(drawn_by("iso"), drawn_by("iso__last"))
    # At zero terminal SNR the last step is pure noise, so the start from the marginal is the start from noise.
    raw = study.raw["grid"]
    raw["variants"]["both"] = {"start": "marginal", "spacing": "trailing"}
    sample.main(parameters.Params(study.raw), SimpleNamespace(grid=False, setting="zero"))
    assert np.array_equal(drawn_by("zero__last"), drawn_by("zero__both"))

    noise = {s.name: from_dict(read_json(s.report("encode", "json"))["noise"]) for s in study.all_settings}
    for s in study.all_settings:  # what is told is what is trained with
        weights = stored.load(s.artifacts("encode") / "noise.safetensors")
        assert stored.fingerprint(weights.tensors()) == stored.fingerprint(noise[s.name].tensors())
    assert isinstance(noise["moving"], Varying)
    assert -0.5 <= noise["suggested"].to_dict()["alpha"] < 0  # the images are dark
    power = statistics(read_array("artifacts/prepare/train.npy"))["power"][0]
    ratio = noise["equal"].weight ** 2 / power
    assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-9)

    del raw["variants"]["both"], raw["variants"]["last"], raw["settings"]["moving"], raw["settings"]["equal"]
    study = parameters.Params(study.raw)
    evaluate.main(study, GRID)
    table = results.table(study, "fd_efficientnet_lite0")
    assert table.index.tolist() == [
        f"{name}{way}" for name in ("iso", "suggested", "zero") for way in ("", ", marginal")
    ]
    assert table.alpha["suggested"] == noise["suggested"].to_dict()["alpha"]
    assert "(auto)" in table.noise["suggested"]
    assert table.protocol["iso"] != table.protocol["iso, marginal"]
    assert len(table.pixels_mean["iso"]) == 1 and table.pixels_mean["iso"][0] > 0


@pytest.mark.parametrize("study", [CONTINUOUS], indirect=True)
def test_a_study_of_flow_matching_and_edm(study):
    evaluate.main(study, GRID)
    for name in ("flow", "edm"):
        assert read_json(f"reports/grid/evaluate/{name}.json")["fd_efficientnet_lite0"] > 0
        assert not (drawn_by(name)[0] == drawn_by(name)[1]).all()
    assert not np.array_equal(drawn_by("flow"), drawn_by("edm"))


@pytest.mark.parametrize("study", [CONTINUOUS], indirect=True)
def test_moments_from_a_file_are_a_reference_too(study):
    """Those of the held-out images' own features give the distances, and the floor, to the held-out images."""
    moments = Moments.of(features_of(read_array("artifacts/prepare/held_out.npy")))
    np.savez("batch.npz", mu=moments.mean, sigma=moments.covariance)
    study.raw["evaluate"]["reference"] = "batch.npz"
    evaluate.main(parameters.Params(study.raw), SimpleNamespace(grid=False, setting="flow", dry=False))
    found = read_json("reports/grid/evaluate/flow.json")
    for end in ("", "_of_real"):
        name = f"fd_efficientnet_lite0{end}"
        assert found[f"reference_{name}"] == pytest.approx(found[name], rel=1e-6)
    assert "batch.npz" in read_json("reports/grid/evaluate/flow.seeds.json")["reference"]


def features_of(images):
    places = {"cache": Path("scratch/features"), "weights": Path("scratch/weights")}
    return features(Images(images), extractor("efficientnet_lite0"), **places)


def test_a_suggestion_is_what_sagd_suggest_says(study):
    """`noise.alpha: auto` and the library agree, for the sampler that the study uses."""
    from sagd import Diffusion, Schedule
    from sagd.oracle.suggest import suggest

    data = statistics(read_array("artifacts/prepare/train.npy"))
    found = suggest(**data, diffusion=Diffusion(Schedule.linear()), sampler=Sampler(steps=3), dc="floor")
    assert read_json("reports/grid/encode/suggested.json")["noise"]["alpha"] == found.alpha


@pytest.mark.parametrize(("alpha", "warned"), [(-0.46, True), (-0.01, True), (0.0, False), (0.3, False)])
def test_a_suggestion_that_made_networks_worse_is_taken_with_a_warning(alpha, warned, monkeypatch, capsys):
    setting = next(s for s in parameters.Params(YAML(typ="safe").load(STUDY)).settings if s.name == "suggested")
    monkeypatch.setattr(encode, "suggest", lambda *_, **__: SimpleNamespace(alpha=alpha))
    data = {"mean": torch.zeros(1, 8, 8), "power": torch.ones(1, 8, 8)}
    assert encode.noise_of(setting, data).to_dict()["alpha"] == alpha
    said = capsys.readouterr().out
    assert f"suggest alpha {alpha:g}" in said and ("worse with alpha below 0 than with 0" in said) == warned


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variants": {"bad": {"begin": "marginal"}}}, r"unknown key grid\.variants\.bad\.begin"),
        ({"variants": {"a__b": {}}}, r"grid\.variants"),
        ({"settings": {"x": {"noise": {}, "train": {"step": 1}}}}, r"unknown key grid\.settings\.x\.train\.step"),
        (
            {"settings": {"x": {"noise": {}, "train": {"schedule": "zero_terminal_snr"}}}},
            r"grid\.settings\.x\.train\.prediction is 'eps'; schedule zero_terminal_snr is for v",
        ),
        (
            {"settings": {"x": {"noise": {"operator": "isotropic", "schedule": "varying"}}}},
            r"schedule varying is for operator power_law",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(change, says):
    raw = YAML(typ="safe", pure=True).load(STUDY)
    raw["grid"] |= json.loads(json.dumps(change))
    with pytest.raises(InputError, match=says) as failure:
        _ = parameters.Params(raw).drawn
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("sample", "noise", "says"),
    [
        ("sampler: heun", "{operator: power_law, alpha: 0.5, schedule: varying}", "varying spectrum is sampled by"),
        ("sampler: ddpm, eta: 0.5", "{operator: isotropic}", "eta is 0.5"),
        ("start: marginal", "{operator: isotropic, normalize: sample}", "needs Gaussian noise"),
        ("filtered: true", "{operator: isotropic}", "takes the corrupted band out; there is none"),
    ],
)
def test_what_cannot_be_sampled_is_told_before_training(tmp_path, monkeypatch, sample, noise, says):
    monkeypatch.chdir(tmp_path)
    grid = STUDY[: STUDY.index("  variants")].replace("batch_size: 6", f"batch_size: 6, {sample}")
    Path("params.yaml").write_text(f"{grid}  settings:\n    one: {{noise: {noise}}}\n")
    Path("artifacts/prepare").mkdir(parents=True)
    np.save("artifacts/prepare/train.npy", np.zeros((4, 1, 8, 8), np.uint8), allow_pickle=False)
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"train": 4, "held_out": 4, "shape": [1, 8, 8]}')
    params = parameters.load()
    with pytest.raises(InputError, match=says) as failure:
        corrupt.main(params, GRID)
        encode.main(params, GRID)
    assert "\n" not in str(failure.value)


def test_the_distance_of_means_is_unbiased():
    """Sets of one distribution: what chance adds to the squared distance of their means is taken off."""
    rng = np.random.default_rng(0)
    sets = rng.integers(0, 256, (1000, 2, 40, 1, 4, 4), dtype=np.uint8)
    found = [evaluate._pixels(a, (len(b), statistics(b)))["pixels_mean"] for a, b in sets]
    error = np.std(found) / len(found) ** 0.5
    bias_without = 2 * 16 * np.var(np.arange(256) / 127.5) / 40
    assert abs(np.mean(found)) < 4 * error < 0.1 * bias_without
