"""What the theory's page computes, on small inputs, and its verdicts on trained networks."""

from types import SimpleNamespace

import matplotlib
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

import sagd
from pipeline.pages.verdicts import interval
from sagd.figures.theory import start_study, toy
from sagd.oracle import Suggestion
from sagd.runtime.files import write_tensors
from studies.theory import curves as theory
from studies.theory import start

matplotlib.use("Agg")
SCHEDULE = sagd.Schedule.linear(100, beta_end=0.2)
ALPHAS = [-0.06, 0.0, 0.06]
SIZE = (8, 8)


@pytest.fixture
def data(generator):
    """A dark data set whose power falls as r^-2: mean and power, (1, 8, 8)."""
    r = torch.fft.fftfreq(8, dtype=torch.float64)
    r = torch.hypot(r[:, None], r[None])
    power = r.clamp(min=1 / 8) ** -2
    return {"mean": torch.full((1, *SIZE), -0.8, dtype=torch.float64), "power": 0.01 * power[None]}


def test_shaped_diffusion_is_a_change_of_basis(generator):
    target, noises = toy()
    white = torch.randn((20, 1, 2), generator=generator, dtype=torch.float64)
    assert theory.change_of_basis(target, noises, white, SCHEDULE, steps=20) < 1e-9


def test_there_is_a_noise_of_every_kind(data):
    noises = theory.every_operator(data["power"].mean(0), SCHEDULE)
    assert len(noises) == 8 and all(noise.size == SIZE for noise in noises.values())
    assert not noises["two-band without 0.25 to 0.35"].support.all()
    assert not noises["varying, alpha -0.5 to +0.5"].constant


def test_a_perfect_network_errs_less_with_more_steps_and_with_ddim_than_with_euler(data):
    found = theory.step_errors(data, SCHEDULE, theory.tilted((0,), SIZE), (5, 50), ("ddim", "euler"))
    errors = found["alpha = 0"]
    assert errors["ddim"][50] < errors["ddim"][5] and errors["ddim"][50] < errors["euler"][50]


def test_the_right_start_takes_off_what_the_wrong_one_adds(data):
    curves = theory.both_starts(data, SCHEDULE, ALPHAS)
    assert curves["marginal"].error(0.0) < curves["noise"].error(0.0)
    # At alpha 0 the noise is white in every convention, so that one error is what all of them are compared with.
    how = sagd.Sampler(steps=20)
    plain = {theory.curve(data, SCHEDULE, [0.0], how, **keys).error(0.0) for keys in theory.CONVENTIONS.values()}
    assert max(plain) == pytest.approx(min(plain), rel=1e-9)


def test_every_convention_is_tried(data):
    table = theory.over_conventions({"b": data, "a": data}, SCHEDULE, ALPHAS, counts=(10, 5))
    assert list(table.columns) == ["data", "spacing", "steps", "right start", *theory.CONVENTIONS]
    assert list(table.data) == ["a"] * 4 + ["b"] * 4 and list(table.steps) == [5, 10] * 4
    assert all(text.startswith("-") for text in table["right start"])


def suggestion(**errors):
    """Errors by alpha, all of them in the mean image; names are m (minus) or p (plus) and hundredths."""
    signs = {"m": -0.01, "p": 0.01}
    return Suggestion({signs[k[0]] * int(k[1:]): {"mean": v, "dc": 0.0, "rest": 0.0} for k, v in errors.items()})


def table(**fids):
    signs = {"m": -0.01, "p": 0.01}
    alphas = [signs[k[0]] * int(k[1:]) for k in fids]
    return pd.DataFrame({"alpha": alphas, "fid_mean": fids.values(), "fid_stderr": 0.1})


def test_a_suggestion_hits_within_two_standard_errors_of_the_best():
    noise = suggestion(m6=1.0, p0=2.0, p6=3.0)
    curves = {name: {"noise": noise} for name in ("near", "far")}
    tables = {"near": table(m6=1.2, p0=1.0, p6=2.0), "far": table(m6=1.4, p0=1.0, p6=2.0)}
    found = theory.suggestions(curves, tables).set_index("data")
    assert found.verdict.to_dict() == {"near": "hit", "far": "miss"}
    assert found.loc["near", "suggested alpha"] == -0.06 and found.loc["near", "predicted gain"] == "50%"
    assert theory.hits_text(found).startswith("1 of the 2 data sets")


def test_the_oracle_is_compared_with_what_was_published():
    noise, marginal = suggestion(m6=1.0, p0=2.0, p6=6.0), suggestion(m6=1.0, p0=1.0, p6=1.0)
    tables = {"MNIST": table(m6=0.3, p0=0.4, p6=0.6)}
    text = theory.beside_published({"MNIST": {"noise": noise, "marginal": marginal}}, tables)
    assert "published FID over the 3 alphas +1.00; that of alpha itself +1.00" in text
    assert "so the order alone is no evidence" in text
    assert "Least error at -0.06 (the edge of what was tried), least published FID at -0.06" in text
    assert "error grows 3.0 times, the published FID 1.5 times" in text


def test_the_power_law_of_data_is_found(data):
    row = theory.spectra({"digits": data}).iloc[0]
    assert row["power falls as"].startswith("r^-1.") or row["power falls as"].startswith("r^-2.")
    assert row["mean pixel"] == "-0.800"


SEEDS = 3


def networks(**distances):
    """Networks of every name that the verdicts need, at distance 100 and a mean image of 50, but for those given."""
    rows = {}
    for t in start.TRAINED:
        for n in start.NOISES:
            for s in start.STARTS:
                name = n + t + s
                values = distances.get(name.replace(", ", "__"), [100.0, 101.0, 99.0])
                mean = sum(values) / SEEDS
                rows[name] = {
                    "distance": mean,
                    "distance_se": 0.5,
                    "per_seed": values,
                    "seed_list": list(range(len(values))),
                    "pixels_mean": [50.0, 51.0, 49.0],
                }
                rows[name]["measured"] = {
                    f"pixels_{part}{end}": 1.5 for part in start.PARTS for end in ("", "_of_real")
                }
                rows[name]["measured"] |= {"pixels_mean": 50.0, "pixels_mean_se": 0.5}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return start.Networks(None, frame, {"names": {"fid": "fd_x"}, "features": "x"})


def test_every_network_is_a_row_of_the_table():
    found = start.cells(networks(iso=[80.0, 81.0, 79.0]))
    assert len(found) == 27
    iso = found[(found.trained == "linear, eps") & (found.alpha == "0") & (found.start == "noise")].iloc[0]
    assert iso["fd_x"] == "80.0 ± 0.5" and iso.pixels_dc == "1.50"
    assert "1.50, 1.50, 1.50" in start.parts_text(networks())


def test_differences_are_those_of_the_comparisons():
    found = start.differences(networks(iso__marginal=[90.0, 91.5, 89.0]))
    assert len(found) == 28 and list(dict.fromkeys(found.comparison)) == list(start.COMPARISONS)
    row = found[found.setting == "iso, marginal"].iloc[0]
    assert row.verdict == "smaller" and row.difference == pytest.approx(-9.8333, abs=1e-3)
    assert row.mean_image == "+0" and "Of 28 such intervals" in start.intervals_text(found)
    shown = start.differences_table(found, "A right start", "fd_x")
    assert len(shown) == 6 and "verdict on the mean image" in shown
    assert shown.networks.iloc[1] == "alpha 0, predicts ε"
    assert set(start.TITLES) == set(start.COMPARISONS)


def test_the_names_of_settings_in_words():
    assert start.words("plw_m006_v, marginal") == "alpha -0.06, predicts v, from the marginal"
    assert start.words("iso_zero, trailing") == "alpha 0, predicts v on zero terminal SNR, trailing spacing"
    # Beside another one, what the two have in common; and the noise, which a row must name.
    assert start.words("plw_p006, marginal", "plw_p006") == "alpha +0.06, predicts ε"
    assert start.words("plw_p006_v", "iso_v") == "alpha +0.06, predicts v, from noise"
    frame = networks().frame
    assert len({start.words(name) for name in frame.index}) == len(frame)


def test_the_figure_of_the_networks_names_each_arm_beside_zero():
    found = start.differences(networks(iso__marginal=[90.0, 91.5, 89.0], plw_m006=[120.0, 121.0, 119.5]))
    figure = start_study(start.drawn(found), "fd_x")
    assert [panel.get_title(loc="left") for panel in figure.axes] == [start.TITLES[name] for name in start.DRAWN]
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == list(found.arm[found.comparison == "A right start"])
    # From top to bottom; at zero a line.
    assert first.yaxis_inverted() and any(list(line.get_xdata()) == [0, 0] for line in first.lines)
    text = figure.get_supxlabel()
    assert "fd_x" in text and "left of zero is better" in text
    pyplot.close(figure)
    said = start.seen(found)
    assert f"{start.TITLES['A right start']}: 6 rows, 2 better, 0 worse, 4 within the noise, from -20 to" in said


@pytest.mark.parametrize(
    ("shaped", "after", "judged", "said"),
    [
        # alpha -0.06 gains 20 from noise, and nothing after a right start
        ([80.0, 81.5, 79.0], [100.0, 101.0, 99.5], "confirmed", "hides a part of the wrong start"),
        # it gains 20 after a right start alone
        ([100.0, 101.0, 99.5], [80.0, 81.5, 79.0], "refuted", "the explanation does not predict"),
        ([80.0, 81.5, 79.0], [80.0, 81.0, 79.5], "undecided", "do not show that shaping hides any part"),
    ],
)
def test_hiding_the_wrong_start_is_judged_by_the_interaction(shaped, after, judged, said):
    found = networks(plw_m006=shaped, plw_m006__marginal=after)
    helps, _, hides, _ = start.predictions(found.frame).values()
    assert said in start.conclusion(helps, hides)
    text = start.verdicts_text(found)
    assert f"(it hides the wrong start): **{judged}**" in text
    assert "The least distance is that of alpha " in text


def test_a_conclusion_says_whether_shaping_helps_in_total():
    smaller, larger, unclear = (interval(d) for d in ([-1.0, -1.1, -0.9], [1.0, 1.1, 0.9], [1.0, -1.0, 0.1]))
    assert start.conclusion(smaller, unclear).endswith("in total it helps them.")
    assert start.conclusion(larger, unclear).endswith("in total it costs them more than it gains.")
    assert (
        start.conclusion(unclear, interval([1.0]))
        == "One seed decides nothing; in total its effect is within the noise."
    )


def test_settings_near_the_best_are_those_not_clearly_worse():
    near = start.near_the_best(networks(iso=[10.0, 10.1, 9.9], iso_v=[10.2, 10.0, 10.0]).frame)
    assert near == ["iso", "iso_v"]


def test_the_share_of_the_start_is_predicted_and_measured(data, tmp_path):
    write_tensors(tmp_path / "moments.safetensors", data)
    found = networks(iso__marginal=[90.0, 91.5, 89.0])
    sample = SimpleNamespace(settings=lambda clip: sagd.Sampler(steps=20, clip=clip))
    found = start.Networks(SimpleNamespace(settings=[SimpleNamespace(sample=sample)]), found.frame, found.detail)
    shown, text = start.mean_image(found, sagd.Schedule.linear(100), tmp_path / "moments.safetensors")
    assert list(shown.alpha) == ["-0.06", "0", "+0.06"] and shown["measured error, from noise"][0] == "50.00 ± 0.50"
    assert all(float(change) < 0 for change in shown["predicted change"])
    times = 50 / float(shown["predicted error, from noise"][1])
    assert f" {times:.0f} times what the start explains" in text
