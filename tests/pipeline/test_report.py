"""The default study's page: statistics say what the numbers allow, no more, and nothing depends on the machine."""

import json
import re
import shutil
import statistics
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from pipeline import params as parameters
from pipeline import report
from pipeline.study import default, pages, results, verdicts
from sagd.errors import InputError
from sagd.runtime.files import write_json

NOTEBOOKS = sorted(Path("notebooks").resolve().glob("*.ipynb"))
PAGES = {"report": "reports", "paper": "paper/reports", "theory": "theory/reports"}  # the folder of each one's page


def frame(**distances):
    """A results table of settings with these distances per seed; ``iso`` is the baseline."""
    rows = {
        name: {
            "noise": "isotropic" if name == "iso" else "power law",
            "operator": "isotropic" if name == "iso" else "power_law",
            "data": "clean",
            "protocol": "780 steps",
            "distance": sum(values) / len(values),
            "per_seed": values,
            "seeds": len(values),
        }
        for name, values in distances.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def test_difference_within_the_noise_is_said_to_be():
    found = verdicts.comparisons(frame(iso=[10.0, 12.0], plw=[9.0, 11.5])).iloc[0]
    assert found.verdict == "within the noise"
    assert found.difference == pytest.approx(-0.75)


def test_clear_difference_is_said_to_be():
    found = verdicts.comparisons(frame(iso=[10.0, 10.2], plw=[5.0, 5.2])).iloc[0]
    assert found.verdict == "plw is closer to the held-out images"


def test_interval_is_students_with_the_pooled_deviation():
    """Two groups of two: the classical two-sample t interval, t(0.975, 2) = 4.3027 times the pooled s times 1."""
    found = verdicts.comparisons(frame(iso=[1.0, 3.0], plw=[2.0, 6.0])).iloc[0]
    pooled = ((2 + 8) / 2) ** 0.5
    assert found["±"] == pytest.approx(4.302653 * pooled, rel=1e-6)


def test_one_seed_decides_nothing():
    found = verdicts.comparisons(frame(iso=[10.0], plw=[1.0])).iloc[0]
    assert found.verdict.startswith("undecided")


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


def test_settings_of_unlike_seeds_are_not_paired():
    with pytest.raises(InputError, match="a has 1 seeds, b 2"):
        verdicts.paired(frame(a=[1.0], b=[9.0, 8.0]), [("a", "b")])


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
  seeds: [0, 1]
  train: {steps: 3, batch_size: 4, lr: 0.001,
          unet: {widths: [8, 8], layers: 1, attention: [false, false], groups: 4}}
  sample: {n: 6, steps: 3}
  variants: {marginal: {start: marginal}}
  settings:
    iso: {noise: {operator: isotropic}}
    omit_iso: {noise: {operator: isotropic}, corrupt: {band: [0.4, 0.5]}}
    omit: {noise: {operator: two_band, low: [0.0, 0.4]}, corrupt: {band: [0.4, 0.5]}}
"""
LAW = {"operator": "power_law", "size": [8, 8], "alpha": -0.07, "grid": "fftfreq", "dc": "lowest"}
WHITE = {"operator": "isotropic", "size": [8, 8], "normalize": "expected"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a few settings: the small files that its stages write, without any training."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(STUDY)
    data = {"source": "digits", "train": 20, "held_out": 10, "split_seed": 0, "shape": [1, 8, 8]}
    write_json(Path("reports/prepare.json"), data)
    params, numbers = parameters.load(), {"fd_x": 9.0, "kd_x": 0.0123, "precision_x": 0.5}
    parts = {f"pixels_{part}": [1.0, 2.0] for part in ("mean", "dc", "rest")}
    for setting in params.drawn:
        write_json(setting.report("encode", "json"), {"noise": LAW if setting.name is None else WHITE})
        result = numbers | {f"{name}_se": 0.25 for name in numbers} | {"fd_x_sample_se": 0.5, "fd_x_of_real": 2.0}
        result |= {"fd_x_of_halves": 1.0, "seeds": 2, "samples_per_seed": 6, "held_out": 10}
        write_json(setting.report("evaluate", "json"), result)
        detail = {"per_seed": {"fd_x": [8.0, 10.0], **parts}, "caveats": ["few samples"], "seeds": [0, 1]}
        detail |= {"names": {"fid": "fd_x", "kid": "kd_x"}, "features": "x", "preprocessing": "none"}
        write_json(setting.report("evaluate", "seeds.json"), detail | {"run": {"seeds": [0, 1], "checkpoints": [3]}})
        power = 3.0 if setting.name == "omit_iso" else 0.5
        curve = f"radius,held_out,samples\n0.1,2,2\n0.3,1,{power}\n0.6,1,1\n"
        setting.report("evaluate", "rapsd.csv").write_text(curve)
    return default.read()


def test_a_study_without_facts_of_the_machine_is_a_table(study):
    table = study.frame
    assert len(table) == 7 and study.label == "fd_x"
    assert table.alpha["focus"] == -0.07 and table.noise["focus"] == "power law, alpha -0.07 (auto)"
    assert table.alpha["iso"] == 0 and pd.isna(table.alpha["omit_iso"])
    assert table.protocol["iso"] != table.protocol["iso, marginal"]
    assert table.pixels_mean["iso"] == [1.0, 2.0]
    assert {"device", "images_per_second"}.isdisjoint(table.columns)


def test_the_tables_of_the_page(study):
    shown = default.distances(study)
    assert shown.loc["iso", "fd_x"] == "9.0 ± 0.2" and shown.loc["omit", "corrupted band"] == "[0.4, 0.5]"
    others, meaning = default.others(study)
    assert list(others) == ["kd_x", "precision_x"] and others.loc["iso", "kd_x"] == "0.0123 ± 0.2500"
    assert meaning.startswith("`kd_x`: the kernel distance") and meaning.endswith("reference.")
    study.frame.measured["iso"].pop("kd_x")
    assert default.others(study)[0].loc["iso", "kd_x"] == "not measured"
    text = default.how_measured(study)
    assert "10 held-out images" in text and "not an FID" in text and "Few samples." in text
    assert "[timings.json](timings.json)" in default.data_text(study)


def test_settings_on_the_same_corrupted_images_stand_together(study):
    (omission,) = default.omissions(study)
    assert omission.name == "04_05" and len(omission.pictures) == 5 and omission.pictures[0].name == "omit_iso.png"
    assert omission.band == pytest.approx([0.4 / 2**0.5, 0.5 / 2**0.5])
    assert "omit_iso 3.00" in omission.power and "omit 0.50" in omission.power


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
    """Ten lines a cell at most, no functions, no outputs in git."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert len(source.splitlines()) <= 10, source
            assert not re.search(r"^\s*(def|class) |lambda", source, flags=re.M), source
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_pages_lead_to_files(path):
    cells = json.loads(path.read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) >= 2
    assert [link for link in links if not (path.parents[1] / PAGES[path.stem] / link).is_file()] == []


@pytest.mark.slow
def test_the_report_is_the_same_on_every_machine_and_at_every_run(tmp_path, monkeypatch):
    for name in ("params.yaml", "notebooks/report.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(name, tmp_path / name)
    shutil.copytree("reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    made = []
    for device, speed in (("an abacus", 4321.5), ("a slide rule", 9876.5)):
        timed = {name: {"images_per_second": speed, "device": device} for name in ("focus", "iso")}
        write_json(Path("reports/timings.json"), timed)
        report.main(None, None)
        outs = [Path("reports/index.html"), Path("artifacts/report/report.ipynb"), *Path("reports/figures").iterdir()]
        made.append({path: path.read_bytes() for path in outs})
        page = made[-1][outs[0]].decode()
        for word in ("abacus", "slide rule", "4321", "9876", "images/s", "images a second", "CPU, "):
            assert word not in page
    assert made[0] == made[1]
    links = [link for link in re.findall(r'<a[^>]*href="([^"#]+)"', page) if "://" not in link]
    assert "timings.json" in links and "../theory/reports/theory.html" in links


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
        shown = pages.keep(figure, "line", svg=True)
        assert shown.alt == "line" and not pyplot.fignum_exists(figure.number)
        made.append([(pages.FIGURES / f"line.{kind}").read_bytes() for kind in ("png", "svg")])
    assert made[0] == made[1]


def test_a_table_of_sentences_is_aligned_to_the_left():
    told = pd.DataFrame({"claim": ["<b>"], "n": [1]})
    assert "left" in pages.table(told, text=True).data and "left" not in pages.table(told).data
    assert "&lt;b&gt;" in pages.table(told).data
