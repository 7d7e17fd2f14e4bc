"""params.yaml is refused in one line that names the key, the value and what is allowed."""

import argparse
import inspect
import math
import os
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
from pipeline import check
from pipeline import params as parameters
from pipeline.params import sections
from pipeline.run import door
from pipeline.sample import sampler_of
from sagd import formulations, operators
from sagd.errors import InputError
from sagd.noise.varying import Varying

ROOT = Path(__file__).parents[2]
UNET = {"widths": [16, 32], "layers": 1, "attention": [False, False], "groups": 8}


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
    for name in sections.SECTIONS:
        params.section(name)
    assert params.setting(None).seeds
    return [params.setting(None), *params.settings]


def test_the_default_study_is_valid(project):
    titles = [s.title for s in everything(project())]
    assert titles == ["focus", "iso", "plw_p006", "omit_iso", "omit_literal", "omit_bpm", "omit_filtered"]
    # They differ by noise and data alone, but for the one arm that says it by its name.
    assert len({s.train.model_dump_json(exclude={"repeats", "project"}) for s in everything(project())}) == 1
    assert [s.title for s in everything(project()) if not s.train.project] == ["omit_literal"]
    assert len({s.sample.model_dump_json() for s in everything(project())}) == 1


def test_snapshots_are_evenly_spaced_or_at_shares_of_the_training(project):
    assert project(train__snapshots=4).section("train").earlier == [200, 400, 600]
    found = project(train__snapshots=[0.25, 0.5]).section("train")
    assert found.earlier == [200, 400] and found.checkpoints == 3


def test_every_operator_makes_a_spectrum(project):
    power, alpha_bar = torch.rand((16, 16), dtype=torch.float64), sagd.Schedule.linear().alpha_bar
    for operator in operators.OPERATORS:
        noise = project(noise__operator=operator, noise__band=[0.0, 1.0]).section("noise")
        spectrum = noise.spectrum(power, alpha_bar)
        assert spectrum.to_dict()["operator"] == operator
        assert torch.equal(operators.from_dict(spectrum.to_dict()).weight, spectrum.weight)
    varying = project(noise__operator="power_law", noise__schedule="varying", noise__alpha_last=0.5).section("noise")
    noise = varying.spectrum(power, alpha_bar)
    assert isinstance(noise, Varying) and noise.to_dict()["last"]["alpha"] == 0.5
    with pytest.raises(InputError, match=r"^noise\.schedule is 'varying', which needs a discrete schedule"):
        varying.spectrum(power, None)
    suggested = project(noise__operator="power_law", noise__schedule="constant", noise__alpha="auto").section("noise")
    assert suggested.spectrum(power, alpha_bar, alpha=0.3).to_dict()["alpha"] == 0.3


def arguments_of(function, given):
    return [name for name in inspect.signature(function).parameters if name not in given]


def test_every_argument_of_an_operator_or_formulation_is_a_key_that_is_described():
    """The library's signatures and docstrings are the schema: nothing is said twice."""
    noise = sections.Noise.model_fields
    for operator in operators.OPERATORS.values():
        for name in arguments_of(operator, ("size", "power")):
            assert noise[name].description, f"noise.{name}"
    assert noise["gamma_low"].description == "Weight of the low band, in [0, 1]; the high one has the rest."
    assert noise["gamma_low"].default == 0.5 and noise["low"].default == [0.0, 0.5]
    train = sections.Train.model_fields
    for schedule, family in formulations.families().items():
        if names := arguments_of(family.build, ("prediction", "shape")):
            keys = train[schedule].annotation.model_fields
            assert list(keys) == names
            assert all(keys[name].description for name in names), schedule
    assert train["flow"].annotation.model_fields["times"].description.startswith("How t is drawn in training")
    for name, section in sections.SECTIONS.items():
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("schedule", formulations.families())
def test_a_formulation_has_the_arguments_of_its_section(project, schedule):
    prediction = formulations.families()[schedule].predictions[0]
    train = project(train__schedule=schedule, train__prediction=prediction).section("train")
    kind = {"flow": sagd.Flow, "edm": sagd.EDM}.get(schedule, sagd.Diffusion)
    assert isinstance(train.formulation((1, 8, 8)), kind)
    if schedule == "flow":
        flow = (
            project(train__flow={"shift": "auto", "times": "logit_normal"}).section("train").formulation((768, 16, 16))
        )
        assert flow == sagd.Flow("logit_normal", sagd.dimension_shift((768, 16, 16)))
    if schedule == "edm":
        assert project(train__edm={"sigma_max": 50}).section("train").formulation((1, 8, 8)) == sagd.EDM(sigma_max=50)


def test_a_setting_says_how_it_is_trained_and_sampled(project):
    changes = {"sample__spacing": "trailing", "sample__start": "marginal", "sample__clip": "auto"}
    setting = project(**changes, train__lr_last=0.001).setting(None)
    white, diffusion = sagd.isotropic((16, 16)), sagd.Diffusion(sagd.Schedule.linear())
    assert sampler_of(setting, diffusion, white, None) == sagd.Sampler("ddim", 25, "trailing", "marginal", 0.0, True)
    recipe, train = setting.train.recipe(), YAML().load(ROOT / "params.yaml")["train"]
    assert (recipe.steps, recipe.lr, recipe.lr_last, recipe.optimizer) == (train["steps"], train["lr"], 0.001, "muon")
    assert recipe.betas == (0.9, 0.99) and isinstance(recipe.betas, tuple)
    # Images with noise in a band, or without a band, exceed [-1, 1], and so must samples.
    corrupts = sagd.Corruption(sagd.band_pass((16, 16), (0.4, 0.5)))
    omitting = sagd.two_band((16, 16), 0.5, (0.0, 0.4), (0.5, 1.0))
    for noise, corruption in ((white, corrupts), (omitting, corrupts), (omitting, None)):
        assert not sampler_of(setting, diffusion, noise, corruption).clip
    assert not sampler_of(setting, sagd.Flow(), white, None).clip  # no x0 on its way
    assert sampler_of(project(sample__clip="on").setting(None), diffusion, white, corrupts).clip
    assert not sampler_of(project(sample__clip="off").setting(None), diffusion, white, None).clip
    a, b, other = (setting.train.network((1, 16, 16), 0, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], other[k]) for k in a)


def test_small_learning_rates_are_numbers(project):
    """DVC writes 1e-5 as 1e-05, which YAML 1.1 takes for a string."""
    project()
    text = re.sub(r"lr: .*", "lr: 1e-05", Path("params.yaml").read_text(), count=1)
    Path("params.yaml").write_text(text)
    assert parameters.load().section("train").lr == 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"noise__alpha": math.nan}, r"noise\.alpha is nan; it must be a number from -10 to 10, or auto"),
        ({"noise__alpha": math.inf}, r"noise\.alpha is inf; it must be a number from -10 to 10, or auto"),
        ({"noise__alpha": "low"}, r"noise\.alpha is 'low'; it must be a number from -10 to 10, or auto"),
        ({"noise__beta": math.inf}, r"noise\.beta is inf; it must be a finite number"),
        ({"noise__alpha": 11}, r"noise\.alpha is 11; it must be a number from -10 to 10, or auto"),
        ({"noise__alpha": int("9" * 400)}, r"noise\.alpha is 9{28,}\.\.\.9+; it must be a number from -10 to 10"),
        ({"dataset__size": 10**18}, r"dataset\.size is 1000000000000000000; it must be at most 4,096"),
        ({"dataset__path": ""}, r"dataset\.path is ''; it must name a file or a folder, or be left out"),
        ({"dataset__path": "  "}, r"dataset\.path is '  '; it must name a file"),
        ({"encode__path": ""}, r"encode\.path is ''; it must name a file"),
        ({"evaluate__reference": "\u3000"}, r"evaluate\.reference is .*; it must name a file"),
        ({"dataset__path": "a\x1b[31mb"}, r"dataset\.path is 'a\\x1b\[31mb'; it must have no control characters"),
        ({"train__steps": 10**12}, r"train\.steps is 1000000000000; it must be at most 100,000,000"),
        ({"train__repeats": 10**9}, r"train\.repeats is 1000000000; it must be at most 1,000"),
        ({"train__unet__widths": [1_000_000]}, r"train\.unet\.widths\.0 is 1000000; it must be at most 16,384"),
        ({"sample__n": 10**12}, r"sample\.n is 1000000000000; it must be at most 100,000,000"),
        ({"noise__operator": "pink"}, r"noise\.operator is 'pink'; allowed: .*exponential, isotropic.*mine\.py:name"),
        ({"noise__slope": 1}, r"unknown key noise\.slope; allowed: operator, alpha"),
        ({"noise__low": [0.5, 0.5]}, r"noise\.low is \[0\.5, 0\.5\]; .*low < high"),
        ({"noise__dc": "zero"}, r"noise\.dc is 'zero'; allowed: lowest, floor"),
        ({"noise__arguments": {"middle": 0.2}}, r"noise\.arguments are for an operator of your own; power_law has"),
        ({"corrupt__band": [0.5, 0.4]}, r"corrupt\.band is \[0\.5, 0\.4\]; .*low < high"),
        ({"corrupt__band": [0.4]}, r"corrupt\.band is \[0\.4\]; it must have at least 2 entries"),
        ({"corrupt__band": "low"}, r"corrupt\.band is 'low'; it must be a list"),
        ({"corrupt__filtered": True}, r"filtered takes a band out of the training images, and needs corrupt\.band"),
        ({"train__steps": -5}, r"train\.steps is -5; it must be at least 1"),
        ({"train__steps": 10.5}, r"train\.steps is 10\.5; it must be a whole number"),
        ({"train__steps": True}, r"train\.steps is True; it must be a whole number"),
        ({"train__lr": 0}, r"train\.lr is 0; it must be above 0"),
        ({"train__ema": 1.0}, r"train\.ema is 1\.0; it must be below 1"),
        ({"train__micro_batch_size": "few"}, r"train\.micro_batch_size is 'few'; it must be a whole number"),
        ({"train__unet__widths": []}, r"train\.unet\.widths is \[\]; it must have at least 1 entries"),
        ({"train__unet__widths": [8, "x"]}, r"train\.unet\.widths\.1 is 'x'; it must be a whole number"),
        ({"train__unet__width": [8]}, r"unknown key train\.unet\.width; allowed: widths, layers, attention, groups"),
        ({"train__unet": None}, r"train: one of unet and dit describes the network"),
        ({"train__snapshots": 900}, r"train\.snapshots is 900; there are 800 steps"),
        ({"train__prediction": "x0"}, r"train\.prediction is 'x0'; schedule linear is for eps or v"),
        ({"train__schedule": "cosine"}, r"train\.schedule is 'cosine'; allowed: linear, zero_terminal_snr, edm, flow"),
        ({"train__flow": {"shift": "no"}}, r"train\.flow\.shift is 'no'; it must be a number, or auto"),
        ({"train__edm": {"sigma": 1}}, r"unknown key train\.edm\.sigma; allowed: sigma_data, log_mean"),
        ({"sample__spacing": "linspace"}, r"sample\.spacing is 'linspace'; allowed: leading, trailing"),
        ({"sample__start": "zero"}, r"sample\.start is 'zero'; allowed: noise, marginal"),
        ({"sample__steps": 1001}, r"sample\.steps is 1001; it must be at most 1,000"),
        ({"sample__eta": 1.5}, r"sample\.eta is 1\.5; it must be at most 1"),
        ({"sample__clip": True}, r"sample\.clip is True; allowed: auto, on, off"),
        ({"sample__sampler": "heun", "sample__eta": 0.5}, r"sample\.eta is 0\.5; the sampler heun has none"),
        ({"evaluate__metrics": ["is"]}, r"evaluate\.metrics\.0 is 'is'; allowed: fid, fid_infinity, kid, prdc"),
        ({"evaluate__features": "vgg"}, r"evaluate\.features is 'vgg'; allowed: dino.*inception_2048.*or a file"),
        ({"encode__kind": "wavelet"}, r"encode\.kind is 'wavelet'; allowed: pixel, rae, vae"),
        ({"encode__kind": "rae"}, r"encode\.kind rae needs encode\.path"),
        ({"dataset__name": "imagnet"}, r"dataset\.name is 'imagnet'; allowed: .*imagenet"),
        ({"train__snapshots": [0.5, 0.25]}, r"train\.snapshots is \[0\.5, 0\.25\]; .*shares must rise"),
        ({"train__snapshots": [0.0001, 0.5]}, r"train\.snapshots is \[0\.0001, 0\.5\]; there are 800 steps"),
        (
            {"train__snapshots": [1.0]},
            r"train\.snapshots is \[1\.0\]; it must be a whole number, or it must be below 1",
        ),
        ({"encode__kind": "vae", "encode__path": "x", "encode__centre": True}, "centre is for kind pixel"),
        ({"dataset__labels": "yes"}, r"dataset\.labels is 'yes'; it must be true or false"),
        ({"dataset__path": 3}, r"dataset\.path is 3; it must be text"),
        ({"dataset": [1]}, r"dataset is \[1\]; it must be a mapping of keys to values"),
        ({"dataset": {"name": "mnist_5k", "held_out": 4}}, r"dataset\.size is missing"),
        ({"seed": "one"}, r"seed is 'one'; it must be a whole number"),
        ({"seed": -1}, r"seed is -1; it must be at least 0"),
        ({"grid__settings__iso__seeds": []}, r"grid\.settings\.iso\.seeds is \[\]; it must have at least 1 entries"),
        ({"grid__settings__iso__seeds": [0, 0]}, r"grid\.settings\.iso\.seeds is \[0, 0\]; seeds must be unique"),
        ({"grid__train": {"steps": 2}}, r"unknown key grid\.train; allowed: variants, settings"),
        ({"grid__settings__iso__noise__slope": 1}, r"unknown key grid\.settings\.iso\.noise\.slope; allowed: operator"),
        ({"grid__settings": {"plw_-0.06": {"noise": {}}}}, r"lower-case words and digits joined by single underscores"),
        ({"nose": {}}, r"unknown section 'nose'; there are classifier, corrupt, dataset"),
    ],
)
def test_bad_values_are_told_in_one_line(project, change, says):
    with pytest.raises(InputError, match=says) as failure:
        everything(project(**change))
    assert "\n" not in str(failure.value) and str(failure.value).startswith("params.yaml: ")
    assert "Value error" not in str(failure.value) and "Input should" not in str(failure.value)


def test_what_an_operator_refuses_names_its_key(project):
    """The library knows which values its operators take: these are refused by the stage that makes the weight."""
    noise = project(noise__operator="two_band", noise__gamma_low=1.5).section("noise")
    with pytest.raises(InputError, match=r"^noise\.gamma_low is 1\.5; .*\[0, 1\]") as failure:
        noise.spectrum(torch.ones((8, 8)), None)
    assert "\n" not in str(failure.value)


def test_a_bad_value_that_dvc_has_written_stays_and_is_told(project, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train")
    for change in ({"train__steps": 0}, {"seed": -1}, {"train__snapshots": 900}):
        with pytest.raises(InputError, match=r"The invalid value stays in the file; reset it with -S or an editor$"):
            everything(project(**change))
        shutil.copy(ROOT / "params.yaml", ".")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "it is nested more than 16 deep|it is nested too deep"),
        ("\n".join(" " * k + "a:" for k in range(1200)), "it is nested more than 16 deep|it is nested too deep"),
        ("a: &a [*a]", "it is nested more than 16 deep"),
        (
            "a: &a [" + "1, " * 100 + "]\nb: &b [" + "*a, " * 100 + "]\nseed: [" + "*b, " * 100 + "]",
            r"it has more than 1,000,000 values \(those of a YAML alias count wherever it stands\)",
        ),
        ("seed: " + "9" * 5000, "it has a whole number of more than 4300 digits"),
        ("seed: 1\nseed: 2", "found duplicate key"),
        ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("seed: 1" + " " * 5_000_000, "it has 5,000,007 bytes; at most 4,194,304 are read"),
        ("a: [", "did not find expected node content"),
        ("", "must be a mapping of sections"),
        ("- 1", "must be a mapping of sections"),
    ],
)
def test_a_file_that_is_no_study_is_told_in_one_line(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    with pytest.raises(InputError, match=says) as failure:
        parameters.load()
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 350


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"evaluate__features": "vgg"}, r"^params\.yaml: evaluate\.features is 'vgg'; allowed"),
        ({"evaluate__features": "mine.pt"}, r"^evaluate\.features is 'mine\.pt'; there is no such file"),
        ({"evaluate__reference": "adm.npz"}, r"^evaluate\.reference is 'adm\.npz'; there is no such file"),
        (
            {"evaluate__metrics": ["mine.py:x"]},
            r"^evaluate\.metrics is 'mine\.py:x'; there is no file .*metrics/mine",
        ),
        (
            {"evaluate__metrics": ["mine.py:kd"]},
            r"^metric mine\.py:kd: names that begin with .* are sagd's own; rename",
        ),
        ({"evaluate__metrics": ["a.py:x", "b.py:x"]}, r"^metric b\.py:x: a\.py:x has the same name; rename one"),
        ({"evaluate__features": "my_se.pt"}, r"^evaluate\.features: names that end with se, .*; rename 'my_se'"),
        ({"noise__operator": "mine.py:x"}, r"^noise\.operator is 'mine\.py:x'; there is no file .*operators/mine\.py"),
        ({"dataset__name": "mine.py:x"}, r"^dataset\.name is 'mine\.py:x'; there is no file .*data/mine\.py"),
        (
            {"noise__operator": "two_band", "noise__gamma_low": 3.0},
            r"^noise\.gamma_low is 3\.0; it must lie in",
        ),
        ({"noise__operator": "band_pass"}, r"^noise\.band is missing, which operator band_pass needs"),
        ({"datasets": 5}, r"datasets is 5; it must be a mapping of keys to values"),
        ({"datasets": {"a": 5}}, r"datasets\.a is 5; it must be a mapping of keys to values"),
        ({"train__unet__groups": 7}, r"^train\.unet\.groups is 7; it must divide"),
        (
            {"grid__settings__iso__train": {"unet": {**UNET, "groups": 7}}},
            r"^iso: train\.unet\.groups is 7; it must divide",
        ),
        ({"sample__filtered": True}, r"^focus: sample\.filtered takes the corrupted band out; there is none"),
        ({"grid__variants": {"x": {"start": 3}}}, r"^params\.yaml: grid\.variants\.x\.start is 3; allowed"),
        ({"sample__n": 3}, r"^focus: sample\.n is 3; evaluate\.metrics take 6 or more"),
        ({"grid__settings__iso__sample": {"n": 3}}, r"^iso: sample\.n is 3; evaluate\.metrics take 6 or more"),
        (
            {"train__snapshots": 2, "sample__earlier": 3},
            r"^focus: sample\.earlier is 3; evaluate\.metrics take 6 or more",
        ),
        ({"sample__n": 8, "evaluate__metrics": ["fid_infinity"]}, r"^focus: sample\.n is 8; .* take 10 or more"),
        (
            {"noise__schedule": "varying", "evaluate__metrics": ["fid", "denoising"]},
            r"^focus: the metric denoising \(evaluate\.metrics\) is for pixels, .* constant noise",
        ),
        ({"corrupt__band": [2.0, 3.0]}, r"holds no frequency of a \(16, 16\) grid"),
    ],
)
def test_a_wrong_value_is_told_at_the_door_whichever_stage_it_is_for(project, change, says):
    with pytest.raises(InputError, match=says) as failure:
        door.check(project(**change))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sample__n": 10**8}, r"^focus needs at least [\d.]+ [GT]B in .*samples [\d.]+ [GT]B\): SAGD_SCRATCH"),
        ({"train__unet__widths": [2**14] * 2}, r"^focus: training needs at least [\d.]+ TB of memory; .*train\.unet"),
        ({"sample__batch_size": 10**6, "dataset__size": 512}, r"^focus: sampling needs .*\(sample\.batch_size\)"),
    ],
)
def test_what_a_machine_has_no_room_for_is_told_at_the_door(project, change, says, monkeypatch):
    monkeypatch.setattr(door.shutil, "disk_usage", lambda place: SimpleNamespace(free=50e9))
    monkeypatch.setattr(door, "memory", lambda: 16e9)
    params = project(**change)
    door.check(params)  # the values themselves are allowed
    with pytest.raises(InputError, match=says) as failure:
        door.check(params, [params.setting(None)])
    assert "\n" not in str(failure.value)


def test_what_has_been_written_needs_no_room(project, monkeypatch):
    params = project(sample__n=10**6)
    monkeypatch.setattr(door.shutil, "disk_usage", lambda place: SimpleNamespace(free=1e6))
    for stage, file in (("prepare", "train.npy"), ("train", "run.json"), ("sample", "samples.json")):
        with pytest.raises(InputError, match="focus needs at least"):
            door.check(params, [params.setting(None)])
        Path("artifacts", stage).mkdir(parents=True)
        Path("artifacts", stage, file).touch()
    door.check(params, [params.setting(None)])


def test_what_an_interrupted_run_has_written_needs_no_more_room(project, monkeypatch, tmp_path):
    params = project(sample__n=10**6)
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(door.shutil, "disk_usage", lambda place: SimpleNamespace(free=100e6))
    with pytest.raises(InputError, match="samples"):
        door.check(params, [params.setting(None)])

    def written(stage: str, name: str) -> None:
        folder = tmp_path / "elsewhere" / stage / "key"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "wb") as file:
            file.truncate(10**10)

    written("train", "seed_0.safetensors")  # of networks: that leaves no more room for samples
    with pytest.raises(InputError, match="samples"):
        door.check(params, [params.setting(None)])
    written("sample", "part.npy")
    door.check(params, [params.setting(None)])


def test_memory_of_a_later_stage_is_a_remark(project, monkeypatch, capsys):
    """That stage may be run on another machine."""
    params = project()
    monkeypatch.setattr(door, "memory", lambda: 1e6)
    door.check(params, [params.setting(None)], "prepare")
    assert capsys.readouterr().err.startswith("prepare: focus: on this machine training needs at least")
    with pytest.raises(InputError, match=r"^focus: training needs at least"):
        door.check(params, [params.setting(None)], "train")
    Path("artifacts/train").mkdir(parents=True)
    Path("artifacts/train/run.json").touch()
    capsys.readouterr()
    door.check(params, [params.setting(None)], "prepare")
    assert "training" not in capsys.readouterr().err
    with pytest.raises(InputError, match=r"^focus: training needs at least"):
        door.check(params, [params.setting(None)], "train")  # what is there may be of other parameters


def test_memory_that_several_settings_lack_is_one_remark(project, monkeypatch, capsys):
    params = project()
    monkeypatch.setattr(door, "memory", lambda: 1e6)
    door.check(params, params.settings, "prepare")
    said = [line for line in capsys.readouterr().err.splitlines() if "training needs" in line]
    assert len(said) == 1 < len(params.settings)
    assert said[0].startswith(f"prepare: {params.settings[0].title} and {len(params.settings) - 1} more: on this")


def test_of_a_setting_that_lacks_a_section_the_rest_is_checked(project, monkeypatch, capsys):
    raw = {key: value for key, value in project().raw.items() if key != "evaluate"}
    door.check(parameters.Params(raw))
    for section, change, says in (
        ("train", {"steps": 0}, r"train\.steps is 0"),
        ("noise", {"operator": "nose.py:f"}, r"noise\.operator"),
        ("train", {"unet": raw["train"]["unet"] | {"groups": 7}}, r"train\.unet"),
        ("grid", {"settings": {"iso": {"noise": {}, "train": {"lr": -1}}}}, r"grid\.settings\.iso\.train\.lr is -1"),
    ):
        bad = raw | {section: raw[section] | change}
        with pytest.raises(InputError, match=says):
            door.check(parameters.Params(bad))
    monkeypatch.setattr(door, "memory", lambda: 1e6)
    for missing in ("evaluate", "sample"):
        params = parameters.Params({key: value for key, value in project().raw.items() if key != missing})
        with pytest.raises(InputError, match="training needs at least"):
            door.check(params, [params.setting(None)], "train")


def test_what_needs_no_data_is_checked_where_none_are_named(project):
    raw = {key: value for key, value in project(noise__operator="nose.py:f").raw.items() if key != "dataset"}
    with pytest.raises(InputError, match=r"noise\.operator is 'nose.py:f'; there is no file"):
        door.check(parameters.Params(raw))


def test_a_focus_that_cannot_be_run_is_not_refused_for_what_the_grid_can(project):
    raw = project(sample__filtered=True).raw
    with pytest.raises(InputError, match=r"^focus: sample\.filtered takes"):
        door.check(parameters.Params(raw))
    door.check(parameters.Params({key: value for key, value in raw.items() if key != "seed"}))


def test_check_counts_the_settings_that_are_whole(project, capsys):
    params = project()
    check.main(params, argparse.Namespace())
    whole = capsys.readouterr().out
    assert re.fullmatch(r"check: the parameters of [1-9]\d* settings are valid, .*\n", whole)
    check.main(parameters.Params({key: value for key, value in params.raw.items() if key != "evaluate"}), None)
    said = capsys.readouterr().out
    count = whole.split()[4]
    assert said.startswith(f"check: {count} settings are not whole, as params.yaml has no evaluate: the values")


@pytest.mark.parametrize("kept", [{"dataset"}, {"noise"}, {"dataset", "seed", "train"}, set()])
def test_a_file_may_have_some_sections_only(project, kept):
    """As many as a stage needs."""
    raw = {key: value for key, value in project().raw.items() if key in kept}
    door.check(parameters.Params(raw))
    bad = {"dataset": {"name": "mnist_5k"}} | {key: value for key, value in raw.items() if key != "dataset"}
    with pytest.raises(InputError, match=r"dataset\.size is missing"):
        door.check(parameters.Params(bad))


def test_aliases_are_read_and_told(project, capsys):
    """Where dvc exp run -S does what its user may not expect: a scalar or a merge key it leaves as it is elsewhere."""
    text = Path("params.yaml").read_text().replace("repeats: 2 ", "repeats: &two 2 ", 1)
    text = text.replace("steps: 25\n", "steps: *two\n", 1)
    Path("params.yaml").write_text(text.replace("band:  ", "band: &band [0.2, 0.5]  ", 1))
    assert parameters.load().section("sample").steps == 2
    assert capsys.readouterr().err == ""
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "\nclassifier: &c {}\ndatasets: *c\n")
    assert parameters.load().datasets == {}
    said = capsys.readouterr().err
    assert said.startswith("params.yaml has a mapping with a YAML alias (*name), which dvc exp run -S changes wherever")


@pytest.mark.parametrize("change", ["a.x=5", "b.x=5"])
def test_dvc_changes_an_alias_in_all_places_or_in_none(tmp_path, change):
    """Why there is a remark."""
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    file.write_text("a: &m {x: 1}\nb: *m\n")
    apply_overrides(file, [change])
    found = YAML(typ="safe").load(file)
    assert found["a"] == found["b"]


def test_paths_may_hold_spaces_of_any_kind(project):
    for space in ("\u00a0", "\u3000", " "):
        door.check(project(dataset__path=f"my{space}images"))
    for bad in ("\x1b", "\u202e", "\u2028"):
        with pytest.raises(InputError, match="no control characters"):
            door.check(project(dataset__path=f"my{bad}images"))


def test_memory_is_what_the_container_allows(monkeypatch, tmp_path):
    whole = door.memory()
    monkeypatch.setattr(door, "CGROUP", tmp_path / "memory.max")
    for content, expected in (("max", whole), ("1000000", 1_000_000)):
        door.CGROUP.write_text(f"{content}\n")
        assert door.memory() == expected


def test_unknown_setting_names_those_there_are(project):
    with pytest.raises(InputError, match=r"no setting 'plw' in grid\.settings; there are iso, plw_p006"):
        project().chosen(SimpleNamespace(setting="plw", grid=False))


def test_broken_yaml_is_one_line(project):
    Path("params.yaml").write_text("seed: [1\nnoise: }")
    with pytest.raises(InputError, match=r"cannot read params\.yaml") as failure:
        parameters.load()
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["params.yaml", "params.json"])
def test_parameters_that_are_a_pipe_are_refused_at_once(name, tmp_path, monkeypatch):
    """To read one would wait for ever for a writer."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo(name)
    with pytest.raises(InputError, match=rf"^cannot read {name}: it is not a regular file$"):
        parameters.load()


def test_what_settings_left_that_are_no_more_is_removed(project, tmp_path):
    """Of the stage that asks, and nothing of the others; what another process is writing stays."""
    params = project()
    name = params.settings[0].title
    left = [f"{p}/grid/{s}" for p in ("artifacts", "reports") for s in ("corrupt", "train")]
    for folder in left:
        for entry in (name, "gone", f"{name}__gone"):
            (tmp_path / folder / entry).mkdir(parents=True)
        for file in (f"{name}.png", "gone.png", f".{name}.png.host.1.1"):
            (tmp_path / folder / file).touch()
    params.sweep("corrupt")
    kept = {name, f"{name}.png", f".{name}.png.host.1.1"}
    for folder in left:
        found = {p.name for p in (tmp_path / folder).iterdir()}
        assert found == kept if folder.endswith("corrupt") else found > kept


@pytest.mark.slow
def test_in_the_copy_of_a_queued_experiment_a_missing_file_comes_with_its_reason(project, tmp_path):
    project(dataset__name="folder", dataset__path="pictures")
    said = r"^prepare: dataset\.path is pictures; the data set folder needs the path of an existing folder or zip file"
    assert_one_line(stage("prepare", folder=tmp_path), said + "$")
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    copy.mkdir(parents=True)
    shutil.copy(tmp_path / "params.yaml", copy)
    reason = (
        r"\. With --queue or --temp, DVC works in a copy of what git tracks: git add it, or give its absolute path$"
    )
    assert_one_line(stage("prepare", folder=copy), said + reason)


def environment(folder):
    """Two threads, whatever the machine has, so that the seeds of a setting run side by side."""
    return os.environ | {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(folder / "scratch"), "OMP_NUM_THREADS": "2"}


def stage(name, *arguments, folder):
    command = [sys.executable, "-m", f"pipeline.{name}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)


def assert_one_line(done, says):
    assert done.returncode != 0
    assert re.search(says, done.stderr), done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if not re.search(r": \d+ images\b", line)]  # a remark
    assert len(lines) == 1, done.stderr


@pytest.mark.slow
def test_stages_end_in_one_line_and_lose_nothing(project, tmp_path):
    """The scripts themselves, on a small data set of a user's own: what is wrong is told, what was good is kept."""
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for k in range(14):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(pictures / f"{k}.png")
    project(dataset__name="folder", dataset__path=str(pictures), dataset__size=8, dataset__held_out=6)
    project(sample__n=6)
    done = stage("prepare", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load("artifacts/prepare/train.npy", allow_pickle=False).shape == (8, 3, 8, 8)
    good = Path("artifacts/prepare/train.npy").read_bytes()

    whole = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(whole[: len(whole) // 2])
    assert_one_line(stage("prepare", folder=tmp_path), r"(?m)^prepare: .*/3\.png is not a whole image")
    assert Path("artifacts/prepare/train.npy").read_bytes() == good
    (pictures / "3.png").write_bytes(whole)

    project(dataset__path=None)
    assert_one_line(stage("prepare", folder=tmp_path), r"^prepare: dataset\.path is None; .*existing folder or zip")
    project(dataset__path=str(pictures), dataset__held_out=13)
    assert_one_line(stage("prepare", folder=tmp_path), r"dataset\.held_out is 13; .*allowed are 2 to 12")
    project(dataset__held_out=6, train__batch_size=9, train__unet__widths=[8, 8])
    project(train__unet__attention=[False, False], train__unet__groups=4)
    for name in ("corrupt", "encode"):
        assert stage(name, folder=tmp_path).returncode == 0
    assert_one_line(stage("train", folder=tmp_path), r"^train: batch_size is 9; the data set has 8 images")
    array = Path("artifacts/prepare/train.npy")
    array.write_bytes(good[:100])
    assert_one_line(stage("train", folder=tmp_path), r"cannot read artifacts/prepare/train\.npy")


@pytest.mark.slow
def test_stopped_stage_saves_fails_and_goes_on_to_the_same_bits(project, tmp_path):
    """SIGTERM to the real script, two seeds side by side: non-zero exit, then the weights of a run left alone."""
    tiny = {"widths": [8, 8], "layers": 1, "attention": [False, False], "groups": 4}
    project(train__steps=30, train__warmup=5, train__batch_size=4, train__snapshots=3, train__unet=tiny)
    project(sample__n=8)
    rng = np.random.default_rng(0)
    folder = Path("artifacts/prepare")
    folder.mkdir(parents=True)
    np.save(folder / "train.npy", rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), allow_pickle=False)
    Path("reports").mkdir(exist_ok=True)
    Path("reports/prepare.json").write_text('{"train": 40, "held_out": 8, "shape": [1, 8, 8]}')
    for name in ("corrupt", "encode"):
        assert stage(name, folder=tmp_path).returncode == 0
    assert stage("train", folder=tmp_path).returncode == 0
    runs = [f"seed_{k}{end}" for k in (0, 1) for end in ("", *(f"_step_{s}" for s in (10, 20)))]
    weights = [Path(f"artifacts/train/{name}/diffusion_pytorch_model.safetensors") for name in runs]
    assert len({w.read_bytes() for w in weights}) == 6
    whole = [w.read_bytes() for w in weights]
    for w in weights:
        w.unlink()
    # The second run begins anew (its predecessor's checkpoints are gone), and is stopped at a step it chooses itself.
    stopper = (
        "import os, runpy, signal, sagd.training.loop as t; train = t.train\n"
        "def stopping(*a, report, **k):\n"
        "    count = iter(range(1000))\n"
        "    def told(loss):\n"
        "        report(loss)\n"
        "        if next(count) == 12: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return train(*a, report=told, **k)\n"
        "t.train = stopping\n"
        "import sys; sys.argv = ['pipeline/train.py']\n"
        "runpy.run_module('pipeline.train', run_name='__main__', alter_sys=False)"
    )
    done = subprocess.run([sys.executable, "-c", stopper], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "; to resume from " in done.stderr and "run the same command again" in done.stderr
    assert len(list(tmp_path.glob("scratch/train/*/seed_?.safetensors"))) == 2
    assert not any(w.exists() for w in weights)
    assert stage("train", folder=tmp_path).returncode == 0
    assert [w.read_bytes() for w in weights] == whole


@pytest.mark.slow
def test_too_few_samples_are_told(project, tmp_path):
    project(sample__n=4)
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"train": 300, "held_out": 300, "shape": [1, 8, 8]}')
    assert_one_line(
        stage("evaluate", folder=tmp_path), r"^evaluate: focus: sample\.n is 4; evaluate\.metrics take 6 or"
    )
    project(sample__n=301)
    assert_one_line(
        stage("train", folder=tmp_path), r"^train: focus: sample\.n is 301, more than the 300 training images"
    )
    project(sample__n=300)
    Path("reports/prepare.json").write_text('{"train": 300, "held_out": 5, "shape": [1, 8, 8]}')
    assert_one_line(stage("train", folder=tmp_path), r"held-out images \(dataset\.held_out\) is 5; .* take 6 or more")
