"""The default study's page: statistics say what the numbers allow, no more, and nothing depends on the machine."""

import json
import re
import shutil
import statistics
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sagd
from pipeline import params as parameters
from pipeline import report, verify
from pipeline.pages import blocks, results, verdicts
from sagd.errors import InputError
from sagd.runtime.files import read_json, write_json
from studies.default import captions, findings, reproduced
from studies.default import tables as default

NOTEBOOKS = sorted(Path("notebooks").resolve().glob("*.ipynb"))
PAGES = {  # the folder of each notebook's page
    "report": "reports", **{name: f"studies/{name}/reports" for name in ("paper", "theory", "claims")},
}  # fmt: skip


def frame(**distances):
    """A results table of settings with these distances per seed; ``iso`` is the baseline."""
    rows = {
        name: {
            "noise": "isotropic" if name == "iso" else "power law",
            "operator": "isotropic" if name == "iso" else "power_law",
            "data": "clean",
            "arm": "clean",
            "protocol": "780 steps",
            "distance": sum(values) / len(values),
            "distance_se": 0.1,
            "real": 0.0002,
            "filtered": None,
            "corrupted": "no",
            "per_seed": values,
            "seeds": len(values),
            "seed_list": list(range(len(values))),
        }
        for name, values in distances.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def test_a_difference_is_paired_by_seed_with_its_own_interval():
    """t(0.975, 2) = 4.302653 times the deviation of the pair's own differences; other settings' spread is not in it."""
    spread = {"iso": [10.0, 20.0, 30.0], "plw": [9.0, 19.5, 29.0], "wild": [1.0, 90.0, 3.0]}
    found = verdicts.comparisons(frame(**spread)).set_index("setting")
    differences = [-1.0, -0.5, -1.0]
    assert found.difference["plw"] == pytest.approx(statistics.mean(differences))
    assert found["±"]["plw"] == pytest.approx(4.302653 * statistics.stdev(differences) / 3**0.5, rel=1e-6)
    assert (found.verdict["plw"], found.verdict["wild"]) == ("smaller", "within the noise")
    assert (found.seeds == 3).all()


def test_only_seeds_that_both_settings_have_are_paired():
    table = frame(iso=[10.0, 12.0, 14.0], plw=[1.0, 3.5])
    table.at["plw", "seed_list"] = [2, 1]
    found = verdicts.comparisons(table).iloc[0]
    assert found.seeds == 2 and found.difference == pytest.approx((1.0 - 14.0 + 3.5 - 12.0) / 2)
    table.at["plw", "seed_list"] = [7, 8]
    assert verdicts.comparisons(table).verdict[0] == "not comparable: no seed in common"


def test_one_seed_decides_nothing():
    found = verdicts.comparisons(frame(iso=[10.0], plw=[1.0])).iloc[0]
    assert found.verdict.startswith("undecided")


def arms(**distances):
    """A table of settings on the same corrupted images, named by their arms."""
    table = frame(**distances)
    table["arm"], table["data"], table["corrupted"], table["filtered"] = table.index, "{band}", "[0.4, 0.5]", 0.16
    table["operator"] = ["isotropic" if name in ("isotropic", "filtered") else "two_band" for name in table.index]
    return table


REMEDIES = {
    "isotropic": [0.70, 0.69],
    "literal": [0.48, 0.50],
    "projected": [0.24, 0.25],
    "filtered": [0.23, 0.26],
}


def test_remedies_are_compared_with_none_and_projection_with_the_others():
    found = verdicts.comparisons(arms(**REMEDIES))
    pairs = {(row.setting, row.against) for row in found.itertuples()}
    against = {("literal", "isotropic"), ("projected", "isotropic"), ("filtered", "isotropic")}
    assert pairs == against | {("projected", "literal"), ("projected", "filtered")}


def test_the_findings_say_what_is_better_by_how_much_and_what_cannot_be_told():
    table = pd.concat([arms(**REMEDIES), frame(iso=[0.05, 0.06], plw=[0.06, 0.05], low=[0.02, 0.031], one=[0.04])])
    omission, shaping = findings.findings(table, "kd_x").split("\n\n")
    assert "noise in the band [0.4, 0.5]" in omission and "kernel distance" in omission
    assert omission.startswith("**Selective omission works.**")
    assert "is 0.695 with isotropic noise" in omission and "it is 0.245 with the band left out" in omission
    assert "which is better (-0.45 ± 0.13 at 95 %, paired over 2 seeds)" in omission
    assert "projection is better (-0.245 ± 0.064" in omission
    assert "whether that makes a difference can't be told from 2 seeds (-0.00 ± 0.13" in omission
    assert "real images without the band are at 0.160, with it at 0.0002" in omission
    harm = arms(isotropic=[0.2, 0.21], projected=[0.7, 0.72])
    assert findings.findings(harm, "kd_x").startswith("**Selective omission does harm.**")
    unclear = arms(isotropic=[0.2, 0.21], projected=[0.3, 0.1])
    assert findings.findings(unclear, "fd_x").startswith("**Selective omission can't be judged from these seeds.**")
    assert "(*low*) it is" in shaping and "which is better (-0.029" in shaping
    assert "(*plw*)" in shaping and "can't be told from 2 seeds" in shaping
    assert "can't be told from one seed" in shaping and "0.0002" in shaping


def test_the_findings_leave_out_what_was_not_run():
    """No remedy, no isotropic noise, no seed in common: nothing is said, or that it can't be compared."""
    assert findings.findings(arms(isotropic=[0.7, 0.7]), "kd_x") == ""
    assert findings.findings(frame(plw=[0.7, 0.7]), "kd_x") == ""
    table = frame(iso=[0.5, 0.5], plw=[0.1, 0.1])
    table.loc["plw", "protocol"] = "more steps"
    assert "not comparable" in findings.findings(table, "fd_x") and "Fréchet" in findings.findings(table, "fd_x")
    worse = findings.findings(frame(iso=[0.1, 0.1], plw=[0.5, 0.5001]), "kd_x")
    assert "which is worse (+0.4" in worse


def test_shaped_noise_is_told_beside_the_isotropic_setting_of_its_own_protocol():
    table = frame(iso=[0.9, 0.9], again=[0.5, 0.5], plw=[0.1, 0.1])
    table.loc["iso", "protocol"], table.loc["again", "operator"] = "more steps", "isotropic"
    said = findings.findings(table, "kd_x")
    assert "With isotropic noise the kernel distance is 0.500." in said and "which is better (-0.4" in said


def test_settings_on_other_data_are_not_compared():
    table = frame(iso=[10.0, 10.1], plw=[1.0, 1.1])
    table.loc["plw", "data"] = "[0.4, 0.5]"
    assert verdicts.comparisons(table).empty


def test_more_snapshots_are_no_other_protocol():
    """They are taken on the way; the weights at the end are the same."""
    raw = parameters.load().raw
    raw["train"] = raw["train"] | {"snapshots": 4, "repeats": 2}
    settings = [parameters.Params(raw).setting(None), *parameters.load().settings]
    assert len({results.protocol(s) for s in settings}) == 1


def test_settings_trained_in_another_way_get_no_verdict():
    table = frame(iso=[10.0, 10.1], plw=[1.0, 1.1])
    table.loc["plw", "protocol"] = "2000 steps"
    assert verdicts.comparisons(table).verdict[0].startswith("not comparable")


def test_paired_differences_are_students():
    """Three seeds each: t(0.975, 2) = 4.302653 times the differences' own deviation over sqrt(3)."""
    table = frame(a=[3.0, 4.0, 5.5], b=[1.0, 2.5, 3.0], c=[1.0, 2.0, 3.0])
    found = verdicts.paired(table, [("a", "b"), ("b", "c")])
    own = [4.302653 * statistics.stdev(d) / 3**0.5 for d in ([2.0, 1.5, 2.5], [0.0, 0.5, 0.0])]
    assert found["±"].tolist() == pytest.approx(own, rel=1e-6)
    assert found.difference.tolist() == pytest.approx([2.0, 0.5 / 3])
    assert found.verdict.tolist() == ["larger", "within the noise"]


def test_interaction_is_the_difference_of_differences():
    table = frame(a=[3.0, 4.0, 5.5], b=[1.0, 2.5, 3.0], c=[5.0, 7.0, 9.0], d=[2.0, 3.0, 3.0])
    found = verdicts.interaction(table, ("a", "b"), ("c", "d"))
    expected = [2.0 - 3.0, 1.5 - 4.0, 2.5 - 6.0]
    assert found.difference == pytest.approx(statistics.mean(expected))
    assert found.half == pytest.approx(4.302653 * statistics.stdev(expected) / 3**0.5, rel=1e-6)
    assert found.verdict == "within the noise"


@pytest.mark.parametrize(
    ("differences", "verdict", "judged"),
    [
        ([-1.0, -1.1, -0.9], "smaller", "confirmed"),
        ([1.0, 1.1, 0.9], "larger", "refuted"),
        ([1.0, -1.0, 0.1], "within the noise", "undecided"),
        ([-5.0], "undecided: one seed", "undecided"),
        ([float("nan"), 1.0], "not measured", "undecided"),
    ],
)
def test_a_verdict_follows_from_the_interval(differences, verdict, judged):
    found = verdicts.interval(differences)
    assert (found.verdict, verdicts.judged(found)) == (verdict, judged)


def test_numbers_show_two_digits_of_their_error():
    assert verdicts.number(-0.0712, 0.0568, signed=True) == "-0.071 ± 0.057"
    assert verdicts.number(68.4, 44.3, signed=True) == "+68 ± 44"
    assert verdicts.number(11.42, 4.71) == "11.4 ± 4.7"
    assert verdicts.number(1.234, float("nan")) == "1.23"


def test_settings_are_paired_by_their_seeds_not_by_their_order():
    table = frame(a=[1.0, 2.0, 3.0], b=[9.0, 8.0])
    table.at["b", "seed_list"] = [2, 1]
    assert verdicts.paired(table, [("a", "b")]).difference[0] == -6.0  # of seeds 1 and 2
    table.at["b", "seed_list"] = [5, 6]
    with pytest.raises(InputError, match="none is in both"):
        verdicts.paired(table, [("a", "b")])


def test_a_setting_that_is_made_in_another_way_is_not_compared():
    ways = [{}, {"train": {"micro_batch_size": 2}, "sample": {"earlier": 0, "batch_size": 7}}]
    ways += [{"encode": {"centre": True}}, {"evaluate": {"features": "inception_768"}}, {"train": {"lr": 0.5}}]
    unet = {"widths": [8], "layers": 1, "attention": [False], "groups": 4}
    train = {"steps": 1, "batch_size": 4, "lr": 0.1, "unet": unet}
    study = {"seed": 0, "train": train, "sample": {"n": 8, "steps": 2}, "encode": {"kind": "pixel"}}
    study["evaluate"] = {"features": "efficientnet_lite0"}
    settings = {f"s{k}": {"noise": {"operator": "isotropic"}, **way} for k, way in enumerate(ways)}
    params = parameters.Params({**study, "grid": {"settings": settings}})
    first, same, *others = (results.protocol(setting) for setting in params.settings)
    assert same == first and first not in others and len(set(others)) == 3


def test_one_seed_has_no_error():
    assert verdicts.number(1.234, None) == "1.23" and verdicts.number(1.234, float("nan")) == "1.23"


def test_one_seed_decides_no_pair():
    assert verdicts.paired(frame(a=[1.0], b=[9.0]), [("a", "b")]).verdict[0].startswith("undecided")


STUDY = """
seed: 0
noise: {operator: power_law, alpha: auto}
corrupt: {band: null}
train: {steps: 3, batch_size: 4, lr: 0.001, repeats: 2,
        unet: {widths: [8, 8], layers: 1, attention: [false, false], groups: 4}}
sample: {n: 6, steps: 3}
evaluate: {features: efficientnet_lite0}
grid:
  variants: {marginal: {start: marginal}}
  settings:
    iso: {noise: {operator: isotropic}}
    omit_iso: {noise: {operator: isotropic}, corrupt: {band: [0.4, 0.5]}}
    omit: {noise: {operator: two_band, low: [0.0, 0.4]}, corrupt: {band: [0.4, 0.5]}}
"""
LAW = {"operator": "power_law", "size": [8, 8], "alpha": -0.07, "grid": "fftfreq", "dc": "lowest"}
OMITTING = {"operator": "two_band", "size": [8, 8], "low": [0.0, 0.4], "high": [0.5, 1.0]}
WHITE = {"operator": "isotropic", "size": [8, 8], "normalize": "expected"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a few settings: the small files that its stages write, without any training."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(STUDY)
    data = {"source": "digits", "sha256": "0", "train": 20, "held_out": 10, "split_seed": 0, "shape": [1, 8, 8]}
    write_json(Path("reports/prepare.json"), data)
    params, numbers = parameters.load(), {"fd_x": 9.0, "kd_x": 0.0123, "precision_x": 0.5}
    parts = {f"pixels_{part}": [1.0, 2.0] for part in ("mean", "dc", "rest")}
    for setting in params.drawn:
        noise = {None: LAW, "omit": OMITTING}.get(setting.name, WHITE)
        reached = {"in_the_band": 8, "reached_by_the_noise": 0 if setting.name == "omit" else 8}
        write_json(setting.report("encode", "json"), {"noise": noise, "corrupted_frequencies": reached})
        result = numbers | {f"{name}_se": 0.25 for name in numbers}
        result |= {f"{d}_{what}": v for d in ("fd_x", "kd_x") for what, v in (("sample_se", 0.5), ("of_real", 2.0))}
        if setting.corrupt.band:
            result["kd_x_of_filtered"] = 0.1604
        result |= {"fd_x_of_halves": 1.0, "seeds": 2, "samples_per_seed": 6, "held_out": 10}
        write_json(setting.report("evaluate", "json"), result)
        detail = {
            "per_seed": {"fd_x": [8.0, 10.0], "kd_x": [0.012, 0.0126], **parts},
            "caveats": ["few samples"],
            "seeds": [0, 1],
        }
        detail |= {"names": {"fid": "fd_x", "kid": "kd_x"}, "features": "x", "preprocessing": "none"}
        write_json(setting.report("evaluate", "seeds.json"), detail | {"run": {"seeds": [0, 1], "checkpoints": [3]}})
        power = 3.0 if setting.name == "omit_iso" else 0.5
        curve = f"radius,held_out,samples\n0.1,2,2\n0.3,1,{power}\n0.6,1,1\n"
        setting.report("evaluate", "rapsd.csv").write_text(curve)
        for stage, shade in (("corrupt", 200), ("sample", 100)):
            grid = np.full((40, 96), shade, np.uint8)
            setting.report(stage, "png").parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grid).save(setting.report(stage, "png"))
        curve = "step,loss,standard_error\n10,0.5,0.1\n20,0.4,0.1\n"
        setting.report("train", "csv").parent.mkdir(parents=True, exist_ok=True)
        setting.report("train", "csv").write_text(curve)
    write_json(Path("reports/timings.json"), {"focus": {"images_per_second": 9.0, "device": "abacus", "torch": "2"}})
    return default.read()


def test_a_study_without_facts_of_the_machine_is_a_table(study):
    table = study.frame
    assert len(table) == 7 and study.label == "kd_x"
    assert table.alpha["focus"] == -0.07 and table.noise["focus"] == "power law, alpha -0.07 (auto)"
    assert table.alpha["iso"] == 0 and pd.isna(table.alpha["omit_iso"])
    assert table.protocol["iso"] != table.protocol["iso, marginal"]
    assert table.pixels_mean["iso"] == [1.0, 2.0]
    assert (table.arm["omit_iso"], table.arm["omit"], table.arm["iso"]) == ("isotropic", "projected", "clean")
    assert {"device", "images_per_second"}.isdisjoint(table.columns)


def test_the_tables_of_the_page(study):
    shown = default.distances(study)
    assert shown.loc["iso", "fd"] == "9.0 ± 0.2" and shown.loc["iso", "kd"] == "0.012 ± 0.250"
    assert shown.loc["iso", "of each seed"] == "0.012, 0.013"
    assert shown.loc["omit", "training images"] == "noise in [0.4, 0.5]"
    assert shown.loc["omit", "noise"].endswith(", projected loss")
    assert (shown.loc["omit", "real without the band"], shown.loc["iso", "real without the band"]) == ("0.1604", "")
    others, meaning = default.others(study)
    assert list(others) == ["precision"] and others.loc["iso", "precision"] == "0.50 ± 0.25"
    assert meaning.startswith("*precision*: share of the samples") and meaning.endswith(".")
    study.frame.measured["iso"].pop("precision_x")
    assert default.others(study)[0].loc["iso", "precision"] == "not measured"
    text = default.how_measured(study)
    assert "10 held-out images" in text and "Neither is an FID" in text and "Few samples." in text
    assert "6 samples for each of the seeds 0, 1" in text and "power law, alpha -0.07" in text
    assert "[timings.json](timings.json)" in default.data_text(study)
    verdicts_of = default.differences(study).set_index(["setting", "against"]).verdict
    assert verdicts_of["focus", "iso"] == "can't be told"


def test_settings_on_the_same_corrupted_images_stand_together(study):
    (omission,) = default.omissions(study)
    assert omission.name == "04_05" and omission.edges == [0.4, 0.5]
    rows = ["training images", "isotropic noise\nkd 0.012", "band left out,\nprojected loss\nkd 0.012"]
    assert [row for row in rows if row not in omission.strips] == []
    assert all(strip.shape == (16, 96) for strip in omission.strips.values())  # whole rows: a cell is 8 pixels
    assert omission.band == pytest.approx([0.4 / 2**0.5, 0.5 / 2**0.5])
    assert "isotropic noise (omit_iso) 3.00" in omission.power and "projected loss (omit) 0.50" in omission.power
    assert omission.units == "corner"
    more = 100 * (1 / sagd.two_band((8, 8), 0.5, (0.0, 0.4), (0.5, 1.0)).support.double().mean().item() - 1)
    assert f"by {more:.0f} % (omit)" in omission.power


def test_every_figure_has_words_of_its_own(study):
    (omission,) = default.omissions(study)
    by_alpha = results.distance_by_alpha(study.frame)
    told = [
        captions.omission(study, omission),
        captions.spectra(omission),
        captions.clean(study),
        captions.alpha(study, by_alpha),
        captions.weights(study),
        captions.losses(study),
    ]
    texts = [text for pair in told for text in pair]
    assert len(set(texts)) == 12 and all(len(text) > 30 for text in texts)
    assert next(iter(default.clean_strips(study))) == "training images"
    assert any("(focus)" in label for label in default.clean_strips(study))
    assert len(default.noises(study)) == 3 and len(default.losses(study)) == 4


def test_a_run_is_compared_with_the_reference_number_by_number(study):
    assert reproduced.compare() is None and "no reference" in reproduced.sentence(None)
    reproduced.accept()
    found = reproduced.compare()
    assert found.count == len(found.identical) == 7 * 5
    assert found.reference == found.here == ["abacus, torch 2"]
    assert reproduced.sentence(found).startswith("**Reproduced**: all 35 numbers are identical")

    reference = read_json(reproduced.FILE)
    numbers = reference["settings"]["iso"]["numbers"]
    numbers["fd_x"] = [8.0, 10.1]  # within two standard errors: 0.05, with errors of 0.56 on both sides
    numbers["kd_x"] = [9.0, 9.0]
    reference["settings"]["omit"]["made"]["train"]["steps"] = 4
    reference["settings"]["gone"] = reference["settings"]["iso"]
    write_json(reproduced.FILE, reference)
    found = reproduced.compare()
    assert [row[:2] for row in found.within] == [("iso", "fd_x")]
    assert [row[:2] for row in found.different] == [("iso", "kd_x")]
    assert found.other == ["omit", "omit, marginal"][:1] and found.missing == ["gone"]
    said = reproduced.sentence(found)
    assert "Not all reproduced" in said and "of 30 numbers, 28 are identical" in said
    assert "not compared: omit" in said and "reference alone: gone" in said
    numbers["kd_x"] = [0.012, 0.0127]
    write_json(reproduced.FILE, reference)
    assert "Reproduced within the errors" in reproduced.sentence(reproduced.compare())


def test_verify_says_which_numbers_differ(study, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["verify", "--accept"])
    verify.main()
    reference = read_json(reproduced.FILE)
    reference["settings"]["iso"]["numbers"]["fd_x"] = [8.0, 10.1]
    write_json(reproduced.FILE, reference)
    monkeypatch.setattr("sys.argv", ["verify"])
    verify.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Reproduced within the errors: of 35 numbers, 34 are identical")
    assert lines[1:3] == ["reference: abacus, torch 2", "this run:  abacus, torch 2"]
    assert lines[3].split() == ["within", "iso", "fd_x", "9", "reference", "9.05"]
    monkeypatch.setattr("sys.argv", ["verify", "--brief"])
    verify.main()
    assert len(capsys.readouterr().out.splitlines()) == 1
    Path("reports/timings.json").unlink()
    with pytest.raises(SystemExit, match=r"verify: .*timings\.json is missing"):
        verify.main()


def described(noise):
    raw = {"seed": 0, "noise": noise}
    return results.describe(parameters.Params(raw).setting(None))


@pytest.mark.parametrize(
    ("noise", "text"),
    [
        ({"operator": "isotropic"}, "isotropic"),
        ({"operator": "power_law", "alpha": -0.06}, "power law, alpha -0.06"),
        ({"operator": "power_law", "alpha": 0.06, "dc": "floor"}, "power law, alpha 0.06, dc floor"),
        ({"operator": "power_law", "alpha": -0.5, "schedule": "varying"}, "power law, alpha -0.5 to 0"),
        ({"operator": "exponential", "beta": 4.0}, "exponential, beta 4"),
        ({"operator": "two_band", "gamma_low": 0.3}, "two-band [0.0, 0.5] 0.3, [0.5, 1.0] 0.7"),
        ({"operator": "equal_snr"}, "EqualSNR, the data's own spectrum"),
        ({"operator": "mine.py:ring"}, "mine.py:ring"),
        ({"operator": "mine.py:ring", "arguments": {"at": 0.25, "name": "x"}}, "mine.py:ring, at 0.25, name x"),
    ],
)
def test_a_noise_is_told_in_a_few_words(noise, text):
    assert described(noise) == text


def test_an_operator_without_words_of_its_own_is_told_by_its_name_and_keys(monkeypatch):
    monkeypatch.setattr(results, "PHRASES", {})
    found = described({"operator": "two_band", "low": [0.0, 0.4], "units": "cycles"})
    assert found == "two band, low [0.0, 0.4], units cycles"
    assert described({"operator": "two_band"}) == "two band"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_loads_calls_and_shows(path):
    """A dozen lines of code a cell at most besides what captions say, no functions, no outputs in git."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            lines = [line for line in source.splitlines() if not line.strip().startswith(('"', 'f"', ")"))]
            assert len(lines) <= 12, source
            assert not re.search(r"^\s*(def|class) |lambda", source, flags=re.M), source
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_pages_lead_to_files(path):
    cells = json.loads(path.read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) >= 2
    assert [link for link in links if not (path.parents[1] / PAGES[path.stem] / link).is_file()] == []


def _put_hostile_text_in_the_study():
    """In what users and tampered files can put on the page: the path of the data, their source, the preprocessing."""
    hostile = "<img src=x onerror=alert(1)>"
    text = Path("params.yaml").read_text()
    assert "  path:  " in text
    Path("params.yaml").write_text(text.replace("  path:  ", f'  path: "{hostile}" '))
    for file, key in (("prepare.json", "source"), ("evaluate.seeds.json", "preprocessing")):
        content = json.loads(Path("reports", file).read_text())
        write_json(Path("reports", file), content | {key: hostile})


@pytest.mark.slow
def test_the_report_is_the_same_on_every_machine_and_at_every_run(tmp_path, monkeypatch):
    for name in ("params.yaml", "notebooks/report.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(name, tmp_path / name)
    shutil.copytree("reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    _put_hostile_text_in_the_study()
    made = []
    for device, speed in (("an abacus", 4321.5), ("a slide rule", 9876.5)):
        timed = {name: {"images_per_second": speed, "device": device} for name in ("focus", "iso")}
        write_json(Path("reports/timings.json"), timed)
        report.main(None, None)
        outs = [Path("reports/index.html"), Path("artifacts/report/report.ipynb"), *Path("reports/figures").iterdir()]
        made.append({path: path.read_bytes() for path in outs})
        page = made[-1][outs[0]].decode()
        assert "<img src=x" not in page and page.count("&lt;img src=x") == 2  # and in colours, the file
        for word in ("abacus", "slide rule", "4321", "9876", "images/s", "images a second"):
            assert word not in page
    assert made[0] == made[1]
    links = [link for link in re.findall(r'<a[^>]*href="([^"#]+)"', page) if "://" not in link]
    assert "timings.json" in links and "../studies/theory/reports/theory.html" in links


def test_a_cell_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    content = json.loads(NOTEBOOKS[0].read_text())
    cell = {"cell_type": "code", "id": "x", "metadata": {}, "execution_count": None, "outputs": [], "source": ["1 / 0"]}
    write_json(Path("broken.ipynb"), content | {"cells": [cell]})
    with pytest.raises(InputError, match=r"^broken\.ipynb: cell 0: ZeroDivisionError: division by zero$"):
        report.render(Path("broken.ipynb"), Path("page.html"), "broken", Path("executed.ipynb"))
    assert not Path("page.html").exists()


def test_a_figure_is_kept_with_the_same_bytes_at_every_run(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(2):
        figure, axes = pyplot.subplots()
        axes.plot([0, 1], [1, 0])
        shown = blocks.keep(figure, "line", "A <b>line</b>", 'It "falls"', svg=True)
        assert "<figcaption>A <b>line</b></figcaption>" in shown.data
        assert 'alt="It &quot;falls&quot;"' in shown.data and not pyplot.fignum_exists(figure.number)
        made.append([(blocks.FIGURES / f"line.{kind}").read_bytes() for kind in ("png", "svg")])
    assert made[0] == made[1]


def test_a_table_of_sentences_is_aligned_to_the_left():
    told = pd.DataFrame({"claim": ["<b>"], "n": [1]})
    assert "left" in blocks.table(told, text=True).data and "left" not in blocks.table(told).data
    assert "&lt;b&gt;" in blocks.table(told).data


def test_a_notebook_runs_on_this_interpreter_and_ends_in_silence(tmp_path, monkeypatch, capfd):
    """Whatever kernel is called python3 on this machine."""
    stale = tmp_path / "jupyter" / "kernels" / "python3"
    stale.mkdir(parents=True)
    (stale / "kernel.json").write_text('{"argv": ["/gone/python"], "display_name": "old", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    cell = nbformat.v4.new_code_cell("import sys; print(sys.executable)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), "which.ipynb")
    report.render(Path("which.ipynb"), Path("page.html"), "which", Path("executed.ipynb"))
    assert sys.executable in Path("page.html").read_text()
    assert capfd.readouterr().err == ""
