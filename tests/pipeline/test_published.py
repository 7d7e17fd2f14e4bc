"""The paper's study: its plan, the published tables beside ours, and verdicts that follow from numbers."""

import json
import re
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

import sagd
from pipeline import params as parameters
from pipeline.pages import earlier
from pipeline.params.sections import GridSetting, Noise
from sagd.errors import InputError
from sagd.previews import save_grid
from sagd.runtime.download import digest
from sagd.runtime.files import read_json, write_json
from studies import plan
from studies.paper import audits, published

matplotlib.use("Agg")
AUDIT_ROWS = [row for audit in audits.AUDITS for row in audit.rows]
PROFILES = sorted(p.stem for p in Path("studies/paper/profiles").glob("*.yaml"))


@pytest.fixture
def in_paper(monkeypatch):
    monkeypatch.chdir("studies/paper")


def test_params_are_what_the_plan_makes_of_their_profile():
    content = read_json("studies/paper/params.json")
    assert content == json.loads(json.dumps(plan.parameters(content["profile"])))


def test_every_published_number_has_a_setting(in_paper):
    tables = [published.over_alpha(), published.over_bands(), published.over_gamma()]
    assert [len(t) for t in tables] == [72, 16, 45]
    settings = plan.settings()
    assert {name for t in tables for name in t.setting} <= set(settings)
    # And what has no table: Fig. 3 and the workshop paper's Fig. 3.
    others = set(settings) - {n for t in tables for n in t.setting} - {s for _, s, _ in AUDIT_ROWS}
    assert {s.rsplit("_", 1)[0] for s in others} == {
        "cifar10_low",
        "cifar10_high",
    }


def test_a_setting_is_what_its_published_row_says():
    settings = plan.settings()
    assert settings["mnist_m006"]["noise"] == {"operator": "power_law", "alpha": -0.06}
    assert settings["imagenet_m004"]["dataset"] == "imagenet"
    omission = settings["omission_04_05_bpm"]
    assert omission["corrupt"] == {"band": [0.4, 0.5]}
    assert (omission["noise"]["low"], omission["noise"]["high"]) == ([0.0, 0.4], [0.5, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_its_stages_fill_every_setting(profile, tmp_path, monkeypatch):
    content, count = plan.parameters(profile), len(plan.decided()) if profile == plan.DECIDE else 176
    monkeypatch.chdir(tmp_path)
    write_json(Path("params.json"), content)
    params, stages = parameters.load(), content["stages"]
    assert params.profile == profile and params.section("evaluate").metrics
    assert len(params.settings) == count
    for setting in params.settings:
        assert params.dataset(setting.prepared.name)
    taken = [s for name in stages for s in params.chosen(Asked(name))]
    assert sorted(s.name for s in taken) == sorted(s.name for s in params.settings)
    for name, stage in stages.items():
        for setting in params.chosen(Asked(name)):
            for script, filled_by in FILLED_BY.items():
                place = Path("artifacts", profile, filled_by, stage["place"])
                assert place in setting.artifacts(script).parents
            assert setting.prepared.folder == Path("artifacts", profile, "prepare", stage["dataset"])


FILLED_BY = {"corrupt": "encode", "encode": "encode", "train": "train", "sample": "measure", "evaluate": "measure"}


class Asked:
    def __init__(self, setting):
        self.setting = setting


def test_an_unknown_profile_is_told_in_one_line():
    with pytest.raises(
        InputError, match="no profile 'fast' in studies/paper/profiles; there are decide, gpu, paper, quick, smoke"
    ):
        plan.parameters("fast")


@pytest.mark.parametrize("content", ["", "a: [", "{grid: {}}"])
def test_a_profile_that_is_none_is_told_in_one_line(content, tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(content)
    monkeypatch.setattr(plan, "PAPER", tmp_path)
    with pytest.raises(InputError, match=r"mine\.yaml: it must be a mapping, with stage and grid") as failure:
        plan.parameters("mine")
    assert "\n" not in str(failure.value)


def test_a_pattern_that_is_none_is_told_in_one_line():
    with pytest.raises(SystemExit, match=r"^plan: the pattern '\*mnist' is no regular expression: "):
        plan.main(["--stages", "*mnist"])


def cells(seeds=3, **distances):
    """A table as `published.cells` gives it, of settings with these distances a seed; the rest was not run."""
    rows = {}
    for name, setting in plan.settings().items():
        run = name in distances
        values = list(distances[name]) if run else np.nan
        rows[name] = {
            "group": setting["group"],
            "noise": Noise(**setting["noise"]),
            "run": run,
            "command": f"run {name}",
        }
        rows[name] |= {
            "seed_list": list(range(len(values))) if run else np.nan,
            "fd_seeds": values,
            "fd": np.mean(values),
            "fd_se": 0.1 if run else np.nan,
        }
        rows[name] |= {"kd": 0.01, "kd_se": 0.001, "label": "fd_x", "seeds": seeds, "samples": 9, "measured": "quick"}
    return pd.DataFrame.from_dict(rows, orient="index")


def test_a_cell_that_was_not_run_names_its_command(in_paper):
    table, ours = published.by_dataset(published.over_alpha())["mnist"], cells(mnist_iso=[2.0, 2.2])
    run = published.beside(table, ours, ["dataset", "alpha"])
    assert len(run) == 1 and run.alpha[0] == "0" and run.dataset[0] == "MNIST"
    assert run["ours, fd_x"][0] == "2.10 ± 0.10" and run["measured in profile"][0] == "quick"
    assert "best checkpoint" not in run
    missing = published.not_run(table, ours, ["alpha"]).set_index("alpha")
    assert len(missing) == 12 and missing.loc["-0.06", "command"] == "run mnist_m006"
    assert missing.loc["-0.06", "published FID"] == "0.280 ± 0.020"
    run = published.beside(table, ours.assign(best=1.5, best_se=0.2), ["alpha"])
    assert run["best checkpoint"][0] == "1.50 ± 0.20"


def test_every_audited_setting_is_in_an_audit():
    audited = {s for _, *pair in AUDIT_ROWS for s in pair if s}
    assert audited == {name for name, s in plan.settings().items() if s["group"] == "audit"}


@pytest.mark.parametrize("size", [16, 32])
def test_boost_and_energy_are_those_of_the_listing(size):
    settings = plan.settings(size)

    def weight(name):
        return Noise(**settings[f"audit_{name}"]["noise"]).spectrum(torch.ones(size, size), None).weight

    def boost(w):
        return w[0, 0] / (w.flatten()[1:].square().mean().sqrt())

    assert abs(boost(weight("boost")) / boost(weight("m006_floor")) - 1) < 0.01
    rms = [weight(name).square().mean().sqrt() for name in ("energy", "m006_none", "boost", "m006_sample")]
    assert abs(rms[0] / rms[1] - 1) < 0.001
    assert abs(rms[0] - 1) > 0.05 and abs(rms[2] - 1) < 1e-12 and abs(rms[3] - 1) < 1e-12


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("units", ["corner", "nyquist", "cycles"])
def test_an_audit_leaves_out_the_band_and_nothing_else(units, size):
    noise = Noise(**plan.settings(size)[f"audit_{units}_bpm"]["noise"]).spectrum(torch.ones(size, size), None)
    assert torch.equal(~noise.support, sagd.band_pass((size, size), (0.4, 0.5), units=units).support)


def test_an_audit_compares_seed_by_seed():
    audit = audits.AUDITS[2]
    ours = cells(audit_iso=[2.0, 3.0, 4.0], audit_m006=[1.0, 2.01, 2.99], audit_boost=[2.1, 2.9, 4.0])
    shown = audits.table(ours, audit).set_index("noise")
    assert shown.loc["tilt alone", "that is"] == "smaller" and shown.loc["tilt alone", "compared with"] == "isotropic"
    assert shown.loc["tilt alone", "difference"].startswith("-1.000 ±")
    assert shown.loc["the same boost alone", "that is"] == "within the noise"
    assert shown.loc["isotropic", "difference"] == "" and shown.loc["isotropic", "that is"] == ""
    missing = audits.not_run(ours, audit).set_index("noise").command
    assert missing["tilt and boost, the listing"] == "run audit_m006_floor" and len(missing) == 2
    assert set(missing.index) & set(shown.index) == set()


def test_audits_that_say_something_come_first_and_the_others_are_folded():
    ours = cells(audit_iso=[2.0, 3.0], audit_m006=[1.0, 2.0])
    opened, closed = audits.shown(ours).data.split("<b>Audits not run</b>")
    titles = [[a.title for a in audits.AUDITS if f"<h3>{escape(a.title)}</h3>" in part] for part in (opened, closed)]
    assert titles[0] == ["Tilt, or brightness?", "Shape, or energy?"]
    assert titles[1] == [a.title for a in audits.AUDITS if a.title not in titles[0]]
    assert ": 4 of 6<" in closed and "run audit_g03" in closed
    # Settings of no use without the other one: an audit compares.
    assert not audits.answered(cells(audit_iso=[2.0], audit_corner_bpm=[2.0]), audits.AUDITS[1])
    everything = audits.shown(cells(**{s: [1.0, 2.0] for _, s, _ in AUDIT_ROWS})).data
    assert "run audit_" not in everything and "<details" not in everything


def test_the_literal_loss_is_audited_where_the_strength_of_the_corruption_matters():
    settings = plan.settings(16)
    plain, literal = (settings[f"audit_{name}_bpm"] for name in ("corner", "literal"))
    assert literal["train"] == {"project": False} and "train" not in plain
    assert GridSetting(**literal | {"train": {}}) == GridSetting(**plain)
    for strength, changes in (("half", {"gamma": 0.5}), ("bare", {"normalize": "none"})):
        pair = [settings[f"audit_{strength}_{kind}"] for kind in ("iso", "literal")]
        assert all(s["corrupt"] == {"band": [0.4, 0.5], **changes} for s in pair)
        assert pair[1] == literal | {"corrupt": pair[1]["corrupt"]}
    # The projected loss sees nothing of the band, whatever its strength, so that one setting stands for all.
    strong = sagd.Corruption(sagd.band_pass((16, 16), (0.4, 0.5)))
    assert strong.reached_by(Noise(**plain["noise"]).spectrum(torch.ones(16, 16), None)) == 0


@pytest.mark.parametrize("profile", ["quick", "smoke"])
def test_a_setting_of_the_plan_trains_with_its_own_loss(profile, tmp_path, monkeypatch):
    content = plan.parameters(profile)
    monkeypatch.chdir(tmp_path)
    write_json(Path("params.json"), content)
    settings = {s.name: s.train.project for s in parameters.load().settings}
    assert {name for name, project in settings.items() if not project} == {
        "audit_literal_bpm", "audit_half_literal", "audit_bare_literal"
    }  # fmt: skip


def test_every_setting_is_of_an_experiment():
    shown = published.overview(cells(mnist_iso=[2.0], audit_iso=[2.0]), "quick")
    assert shown["settings run"].tolist()[:-1] == ["1 of 72", "0 of 13", "0 of 16", "1 of 45", "0 of 9", "1 of 25"]
    patterns = "|".join(published.EXPERIMENTS.values())
    assert all(re.match(patterns, name) for name in plan.settings())


def written(params, name, values, **more):
    """The two files that `evaluate` writes for a setting, with these distances a seed."""
    setting, mean = params.setting(name), sum(values) / len(values)
    result = {"fd_x": mean, "fd_x_se": 0.1, "fd_x_of_real": 0.5, "seeds": len(values), "samples_per_seed": 9}
    write_json(setting.report("evaluate", "json"), result | {"held_out": 10} | more)
    detail = {"names": {"fid": "fd_x", "kid": "kd_x"}, "features": "x", "profile": "quick"}
    detail |= {"seeds": list(range(len(values))), "made": params.made(setting)}
    write_json(setting.report("evaluate", "seeds.json"), detail | {"per_seed": {"fd_x": values}})


@pytest.fixture
def some_run(tmp_path, monkeypatch):
    """The quick profile with two settings that were run, of which the speed of one is known."""
    content = plan.parameters("quick")
    monkeypatch.chdir(tmp_path)
    write_json(Path("params.json"), content)
    params = parameters.load()
    written(params, "mnist_iso", [2.0, 2.2])
    written(params, "mnist_m006", [1.0, 1.4])
    timed = {"images_per_second": 1000.0, "device": "an abacus", "torch": "2.15.0"}
    write_json(Path("reports/timings.json"), {"mnist_iso": timed})
    return params


def test_cells_are_read_for_every_setting_and_speeds_from_their_own_file(some_run):
    ours = published.cells(some_run)
    assert len(ours) == 176 and ours.run.sum() == 2
    assert ours.fd["mnist_iso"] == pytest.approx(2.1) and ours.fd_seeds["mnist_m006"] == [1.0, 1.4]
    assert ours.images_per_second["mnist_iso"] == 1000 and np.isnan(ours.images_per_second["mnist_m006"])
    assert ours.command["mnist_m008"] == "cd paper && dvc repro measure@mnist_m008"
    assert published.label_of(ours) == "fd_x"


def test_a_command_names_the_stage_of_the_group_where_a_stage_takes_one(tmp_path, monkeypatch):
    content = plan.parameters("smoke")
    monkeypatch.chdir(tmp_path)
    write_json(Path("params.json"), content | {"stages": plan.stages("group", plan.settings())})
    assert published.cells(parameters.load()).command["mnist_m008"] == "cd paper && dvc repro measure@mnist"


def test_the_summary_says_what_was_run_and_how_long_it_took_as_far_as_known(some_run):
    ours = published.cells(some_run)
    text = published.summary(some_run, ours)
    first = some_run.settings[0].train
    hours = first.steps * first.batch_size * 2 / 1000 / 3600
    assert "2 of 176 settings run" in text and "its distances are not FIDs" in text
    assert f"Training took {hours:.1f} hours (1 of the settings" in text and "on an abacus" in text
    nothing = published.summary(some_run, ours.assign(run=False))
    assert "0 of 176 settings run" in nothing and "hours" not in nothing
    unknown = published.summary(some_run, ours.assign(images_per_second=np.nan))
    assert "How long training took is not known" in unknown


def test_bars_of_a_table_and_of_ours_stand_at_the_same_places(in_paper):
    table = published.by_dataset(published.over_alpha(), published.DATASETS)["mnist"]
    [(_, theirs), (_, ours)] = published.panels({"mnist": table}, cells(mnist_m006=[2.0, 2.2]))
    assert list(theirs["MNIST"].x) == list(ours["MNIST"].x) and "-0.06" in list(theirs["MNIST"].x)
    own = ours["MNIST"].set_index("x")["mean"]
    assert own["-0.06"] == pytest.approx(2.1) and own.notna().sum() == 1
    [(label, bands), _] = published.panels({"mnist": published.over_bands()}, cells())
    assert label == "published FID" and set(bands["MNIST"].kind) == {"isotropic", "bpm"}


def test_a_sweep_without_a_published_table_is_sorted_by_its_key():
    ours = cells(cifar10_high_g01=[2.0, 2.2]).assign(corrupted_fd=1.5, corrupted_fd_se=0.25)
    rows = published.own_sweep(ours, "cifar10_high", "gamma_low")
    assert list(rows.x) == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
    shown = published.own_table(rows, ours, "gamma_l").set_index("gamma_l")
    assert shown.loc["0.1", "ours, fd_x, to clean"] == "2.10 ± 0.10"
    assert shown.loc["0.1", "ours, fd_x, to corrupted"] == "1.50 ± 0.25"
    assert list(shown.index) == ["0.1"]
    page = published.own_shown(rows, ours, "gamma_l").data
    assert page.index("2.10") < page.index("<details>") < page.index("run cifar10_high_g02")
    low = published.own_sweep(ours, "cifar10_low", "alpha")
    assert list(low.alpha) == sorted(low.alpha) and "0" in list(low.x)


def test_a_table_is_folded_where_nothing_of_it_was_run(in_paper):
    table = published.by_dataset(published.over_alpha())["mnist"]
    some = published.shown(table, cells(mnist_iso=[2.0]), ["alpha"]).data
    assert some.index("2") < some.index("<details>") < some.index("12 of 13 cells") < some.index("run mnist_m008")
    none = published.shown(table, cells(cifar10_iso=[2.0]), ["alpha"]).data
    assert none.startswith("<details>") and "13 of 13 cells" in none
    every = published.shown(table, cells(**{s: [2.0] for s in table.setting}), ["alpha"]).data
    assert "<details" not in every and "run mnist" not in every


def test_a_figure_has_the_data_sets_that_were_run_and_folds_the_others(in_paper, tmp_path, monkeypatch):
    tables = published.by_dataset(published.over_alpha(), published.DATASETS)
    low = published.own_sweep(cells(), "cifar10_low", "alpha")
    monkeypatch.chdir(tmp_path)
    some = published.drawn("some", tables, cells(mnist_iso=[2.0], mnist_m006=[1.0], cifar10_iso=[1.0]), "Here.").data
    opened, closed = some.split("<details>")
    assert "Here." in opened and "MNIST, ours, fd_x: 2 of 13 bars, from 1 at -0.06 to 2 at 0" in opened
    assert "CIFAR-10" not in opened and "WikiArt, published FID: 13 of 13 bars" in closed and "ours" not in closed
    texts = re.findall(r'alt="([^"]*)"', some) + re.findall(r"<figcaption>(.*?)</figcaption>", some)
    assert len(set(texts)) == 4
    nothing = published.drawn("nothing", tables, cells(mnist_iso=[2.0]), "Here.").data
    assert nothing.startswith("<details>") and "Here." not in nothing
    every = published.drawn("all", tables, cells(**{s: [2.0] for t in tables.values() for s in t.setting}), "Here.")
    assert "<details" not in every.data and "ImageNet, ours, fd_x: 7 of 7 bars" in every.data
    assert published.own_drawn("low", low, cells(), "There.").data == ""
    made = {path.name for path in Path("reports/figures").glob("*.png")}
    assert made == {"some.png", "some_published.png", "nothing_published.png", "all.png"}


def test_fig_5_is_shown_once_its_settings_were_run(some_run):
    assert published.figure_5(some_run) == {}
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16), dtype=np.uint8)
    names = ("omission_04_05_iso", "omission_04_05_bpm")
    for path in [some_run.setting(n).report(s, "png") for n in names for s in ("corrupt", "sample")]:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(path, images, columns=12)
    found = published.figure_5(some_run)
    assert list(found) == ["training\nimages", "isotropic", "bpm"]
    # Whole rows of images: the last one of the second row, whole, at the lower right.
    factor = found["bpm"].shape[1] // (12 * 16)
    assert found["bpm"].shape == (2 * 16 * factor, 12 * 16 * factor)
    assert (found["bpm"][::factor, ::factor][-16:, -16:] == images[23, 0]).all()


def test_the_noise_of_the_table_over_alpha_is_not_that_of_the_listing(some_run):
    """A law: w(0) / w(lowest radius) is 1 by default, and (1e-10)^alpha / (1/32)^alpha in the listing."""
    text = published.zero_frequency(some_run)
    assert "`noise.dc: lowest`" in text and "32 x 32" in text
    ours, theirs = (float(n) for n in re.findall(r"([\d.]+) times", text))
    assert theirs / ours == pytest.approx((1e-10 * 32) ** -0.06, rel=0.01)
    assert published.boost(torch.full((8, 8), 3.0)) == pytest.approx(1.0)


def test_the_numbers_in_the_docs_are_those_of_the_code(some_run):
    text = (Path(__file__).parents[2] / "docs" / "paper.md").read_text()
    said = " ".join(text.split())
    ours, theirs = re.findall(r"([\d.]+) times", published.zero_frequency(some_run))
    assert f"its zero frequency has {ours} times the weight of the rest, the listing's {theirs} times" in said
    edges = {"low": (0.0, 0.4), "high": (0.5, 1.0)}
    band = sagd.Corruption(sagd.band_pass((32, 32), (0.4, 0.5)))
    reached = band.reached_by(sagd.two_band((32, 32), 0.5, **edges, grid="linspace"))
    assert f"still reaches {reached} of its {int(band.spectrum.support.sum())} frequencies" in said
    bare = [sagd.band_pass((32, 32), b, normalize="none").weight.square().mean().sqrt().item() for b in plan.BANDS]
    assert f"its standard deviation is {min(bare):.2f} to {max(bare):.2f}" in said
    assert f"{len(plan.settings())} settings on seven data sets" in said


def test_results_of_an_earlier_version_say_so_until_they_are_measured_anew(some_run):
    assert earlier.note(some_run) == "" and earlier.results(some_run) == {}
    file = some_run.setting("mnist_m006").report("evaluate", "seeds.json")
    entry = {"sha256": digest(file), "measured": "version 0.1.0"}
    gone = {"sha256": "0" * 64, "measured": "version 0.1.0"}  # of a setting that was not run
    noted = {"version": "0.1.0", "differs": "Another loss.", "results": {"mnist_m006": entry, "mnist_p006": gone}}
    write_json(Path("reports/quick/earlier.json"), noted)
    assert earlier.note(some_run).startswith("**Not measured with the present code:** 1 of the 2 results")
    assert "version 0.1.0. Another loss. " in earlier.note(some_run)
    ours = published.cells(some_run)
    assert ours.measured["mnist_m006"] == "quick, version 0.1.0" and ours.measured["mnist_iso"] == "quick"
    written(some_run, "mnist_m006", [1.0, 1.5])
    assert earlier.note(some_run) == "" and published.cells(some_run).measured["mnist_m006"] == "quick"


@pytest.mark.parametrize(
    ("section", "change", "kept"),
    [
        ("train", {"steps": 7}, False),
        ("train", {"micro_batch_size": 1}, True),
        ("sample", {"eta": 0.5}, False),
        ("sample", {"batch_size": 3}, True),
    ],
)
def test_results_of_other_parameters_are_left_out(some_run, section, change, kept):
    content = json.loads(Path("params.json").read_text())
    content["grid"]["settings"]["mnist_iso"][section] = change
    write_json(Path("params.json"), content)
    params = parameters.load()
    ours = published.cells(params)
    assert list(ours.index[ours.run]) == (["mnist_iso", "mnist_m006"] if kept else ["mnist_m006"])
    assert ("of 1 settings (mnist_iso)" in earlier.note(params)) != kept


def test_a_result_without_a_key_that_has_come_since_had_its_default(some_run):
    file = some_run.setting("mnist_iso").report("evaluate", "seeds.json")
    detail = read_json(file)
    del detail["made"]["sample"]["eta"]
    write_json(file, detail)
    for eta, measured in ((0.0, True), (0.5, False)):
        content = json.loads(Path("params.json").read_text())
        content["grid"]["settings"]["mnist_iso"]["sample"] = {"eta": eta}
        write_json(Path("params.json"), content)
        params = parameters.load()
        assert params.measured(params.setting("mnist_iso")) == measured
    write_json(file, {key: value for key, value in detail.items() if key != "made"})
    assert not some_run.measured(some_run.setting("mnist_iso"))


@pytest.mark.parametrize("folder", ["studies/paper", "studies/theory"])
def test_what_is_noted_as_earlier_is_of_a_setting_with_shaped_noise(folder, monkeypatch):
    monkeypatch.chdir(folder)
    params = parameters.load()
    noise = {s.title: s.noise.operator for s in params.drawn}
    assert all(noise[title] != "isotropic" for title in earlier.results(params))
