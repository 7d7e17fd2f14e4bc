"""params.yaml is refused in one line that names the key, the value and what is allowed."""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

import sagd
from pipeline import params as parameters
from sagd.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty working directory with the study's params.yaml, and a function that changes keys of it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def change(**keys):
        yaml = YAML()
        content = yaml.load(Path("params.yaml"))
        for path, value in keys.items():
            *sections, key = path.split("__")
            place = content
            for section in sections:
                place = place[section]
            place[key] = value
        yaml.dump(content, Path("params.yaml"))
        return parameters.load()

    return change


def everything(params):
    for name in parameters.SECTIONS:
        params.section(name)
    assert params.setting(None).seeds
    return [params.setting(None), *params.settings]


def test_the_default_study_is_valid(project):
    titles = [s.title for s in everything(project())]
    assert titles == ["focus", "iso", "plw_p006", "omit_iso", "omit_bpm"]
    assert len({s.train.model_dump_json(exclude={"repeats"}) for s in everything(project())}) == 1


def test_every_operator_makes_a_spectrum(project):
    power, alpha_bar = torch.rand((16, 16), dtype=torch.float64), sagd.Schedule.linear().alpha_bar
    for operator in sagd.spectrum.OPERATORS:
        noise = project(noise__operator=operator).section("noise")
        assert noise.spectrum(power, alpha_bar).to_dict()["operator"] == operator
    varying = project(noise__operator="power_law", noise__schedule="varying", noise__alpha_last=0.5).section("noise")
    assert varying.spectrum(power, alpha_bar).to_dict()["last"]["alpha"] == 0.5


def test_small_learning_rates_are_numbers(project):
    """DVC writes 1e-5 as 1e-05, which YAML 1.1 takes for a string."""
    project()
    text = re.sub(r"lr: .*", "lr: 1e-05", Path("params.yaml").read_text(), count=1)
    Path("params.yaml").write_text(text)
    assert parameters.load().section("train").lr == 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"noise__alpha": math.nan}, r"noise\.alpha is nan: .*finite"),
        ({"noise__alpha": math.inf}, r"noise\.alpha is inf: .*finite"),
        ({"noise__alpha": "low"}, r"noise\.alpha is 'low': .*number"),
        ({"noise__operator": "pink"}, r"noise\.operator is 'pink': .*'isotropic'.*'exponential'"),
        ({"noise__slope": 1}, r"unknown key noise\.slope; allowed: operator, alpha"),
        ({"noise__gamma_low": 1.5}, r"noise\.gamma_low is 1\.5: .*less than or equal to 1"),
        ({"noise__low": [0.5, 0.5]}, r"noise\.low is \[0\.5, 0\.5\]: .*low < high"),
        ({"corrupt__band": [0.5, 0.4]}, r"corrupt\.band is \[0\.5, 0\.4\]: .*low < high"),
        ({"corrupt__band": [0.4]}, r"corrupt\.band is \[0\.4\]"),
        ({"corrupt__filtered": True}, r"filtered takes a band out of the training images, and needs corrupt\.band"),
        ({"train__steps": -5}, r"train\.steps is -5: .*greater than or equal to 1"),
        ({"train__steps": 10.5}, r"train\.steps is 10\.5: .*integer"),
        ({"train__lr": 0}, r"train\.lr is 0: .*greater than 0"),
        ({"train__unet__widths": []}, r"train\.unet\.widths is \[\]"),
        ({"sample__spacing": "linspace"}, r"sample\.spacing is 'linspace': .*'leading' or 'trailing'"),
        ({"sample__start": "zero"}, r"sample\.start is 'zero'"),
        ({"evaluate__metrics": ["is"]}, r"evaluate\.metrics\.0 is 'is': .*'fid', 'kid', 'prdc' or 'fid_infinity'"),
        ({"encode__kind": "wavelet"}, r"encode\.kind is 'wavelet'"),
        ({"dataset__name": "imagnet"}, r"dataset\.name is 'imagnet'"),
        ({"seed": "one"}, r"seed is 'one'"),
        ({"grid__seeds": []}, r"grid\.seeds is \[\]"),
        ({"grid__seeds": [0, 0]}, r"grid\.seeds is \[0, 0\]: every seed may stand once"),
        ({"sample__steps": 1001}, r"sample\.steps is 1001: .*less than or equal to 1000"),
        ({"grid__settings__iso__noise__slope": 1}, r"unknown key grid\.settings\.iso\.noise\.slope"),
        ({"nose": {}}, r"unknown section 'nose'; there are corrupt, dataset"),
    ],
)
def test_bad_values_are_told_in_one_line(project, change, says):
    with pytest.raises(InputError, match=says) as failure:
        everything(project(**change))
    assert "\n" not in str(failure.value)


def test_a_stage_checks_only_what_it_uses(project):
    focus = project(sample__n=-1).setting(None)
    assert focus.train.steps > 0
    assert focus.corrupt.band is None
    with pytest.raises(InputError, match=r"sample\.n"):
        _ = focus.sample


def test_unknown_setting_names_those_there_are(project):
    with pytest.raises(InputError, match=r"no setting 'plw' in grid\.settings; there are iso, plw_p006"):
        project().chosen(SimpleNamespace(setting="plw", grid=False))


def test_broken_yaml_is_one_line(project):
    Path("params.yaml").write_text("seed: [1\nnoise: }")
    with pytest.raises(InputError, match=r"cannot read params\.yaml") as failure:
        parameters.load()
    assert "\n" not in str(failure.value)


def stage(name, *arguments, folder):
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(folder / "scratch")}
    command = [sys.executable, "-m", f"pipeline.{name}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def assert_one_line(done, says):
    assert done.returncode != 0
    assert re.search(says, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_stages_end_in_one_line_and_lose_nothing(project, tmp_path):
    """The scripts themselves, on a small data set of a user's own: what is wrong is told, what was good is kept."""
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(pictures / f"{k}.png")
    project(dataset__name="folder", dataset__path=str(pictures), dataset__size=8, dataset__held_out=4)
    done = stage("prepare", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load("artifacts/prepare/train.npy", allow_pickle=False).shape == (8, 3, 8, 8)
    good = Path("artifacts/prepare/train.npy").read_bytes()

    whole = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(whole[: len(whole) // 2])
    assert_one_line(stage("prepare", folder=tmp_path), r"^prepare: .*/3\.png is not a whole image")
    assert Path("artifacts/prepare/train.npy").read_bytes() == good
    (pictures / "3.png").write_bytes(whole)

    project(dataset__held_out=11)
    assert_one_line(stage("prepare", folder=tmp_path), r"dataset\.held_out is 11; .*allowed are 2 to 10")
    project(dataset__held_out=4, train__batch_size=9, train__unet__widths=[8, 8])
    project(train__unet__attention=[False, False], train__unet__groups=4)
    for name in ("corrupt", "encode"):
        assert stage(name, folder=tmp_path).returncode == 0
    assert_one_line(stage("train", folder=tmp_path), r"^train: batch_size is 9; the data set has 8 images")
    array = Path("artifacts/prepare/train.npy")
    array.write_bytes(good[:100])
    assert_one_line(stage("train", folder=tmp_path), r"cannot read artifacts/prepare/train\.npy")


def test_stopped_stage_saves_fails_and_goes_on_to_the_same_bits(project, tmp_path):
    """SIGTERM to the real script, two seeds side by side: non-zero exit, then the weights of a run left alone."""
    tiny = {"widths": [8, 8], "layers": 1, "attention": [False, False], "groups": 4}
    project(train__steps=60, train__warmup=5, train__batch_size=4, train__snapshots=6, train__unet=tiny)
    rng = np.random.default_rng(0)
    folder = Path("artifacts/prepare")
    folder.mkdir(parents=True)
    np.save(folder / "train.npy", rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), allow_pickle=False)
    Path("reports").mkdir(exist_ok=True)
    Path("reports/prepare.json").write_text("{}")
    for name in ("corrupt", "encode"):
        assert stage(name, folder=tmp_path).returncode == 0
    assert stage("train", folder=tmp_path).returncode == 0
    runs = [f"seed_{k}{end}" for k in (0, 1) for end in ("", *(f"_step_{s}" for s in (10, 20, 30, 40, 50)))]
    weights = [Path(f"artifacts/train/{name}/diffusion_pytorch_model.safetensors") for name in runs]
    assert len({w.read_bytes() for w in weights}) == 12
    whole = [w.read_bytes() for w in weights]
    for w in weights:
        w.unlink()
    # The second run begins anew (its predecessor's checkpoints are gone), and is stopped at a step it chooses itself.
    stopper = (
        "import os, runpy, signal, sagd.training as t; train = t.train\n"
        "def stopping(*a, report, **k):\n"
        "    count = iter(range(1000))\n"
        "    def told(loss):\n"
        "        report(loss)\n"
        "        if next(count) == 20: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return train(*a, report=told, **k)\n"
        "t.train = stopping\n"
        "import sys; sys.argv = ['pipeline/train.py']\n"
        "runpy.run_module('pipeline.train', run_name='__main__', alter_sys=False)"
    )
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path / "scratch")}
    done = subprocess.run([sys.executable, "-c", stopper], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "stopped; the same command goes on from" in done.stderr
    assert len(list(tmp_path.glob("scratch/train/*/seed_?.safetensors"))) == 2
    assert not any(w.exists() for w in weights)
    assert stage("train", folder=tmp_path).returncode == 0
    assert [w.read_bytes() for w in weights] == whole


def test_too_few_samples_are_told(project, tmp_path):
    project(sample__n=4)
    for name in ("prepare/held_out", "prepare/train"):
        path = Path(f"artifacts/{name}.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((300, 1, 8, 8), np.uint8), allow_pickle=False)
    for name in ("train", "sample"):
        Path("artifacts", name).mkdir()
    Path("artifacts/train/run.json").write_text('{"checkpoints": [6]}')
    few = np.zeros((4, 1, 8, 8), np.uint8)
    np.savez(Path("artifacts/sample/samples.npz"), seed_0=few, seed_1=few)
    says = r"4 samples a seed \(sample\.n\), 300 held-out images .*6 or more are needed"
    assert_one_line(stage("evaluate", folder=tmp_path), says)
