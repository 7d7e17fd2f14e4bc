"""The study's statistics say what the numbers allow, no more."""

import statistics

import pandas as pd
import pytest

from pipeline import params as parameters
from pipeline.study import results
from sagd.errors import InputError


def frame(**distances):
    """A results table of settings with these distances per seed; ``iso`` is the baseline."""
    rows = {
        name: {
            "noise": "isotropic" if name == "iso" else "power law",
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
    found = results.comparisons(frame(iso=[10.0, 12.0], plw=[9.0, 11.5])).iloc[0]
    assert found.verdict == "within the noise"
    assert found.difference == pytest.approx(-0.75)


def test_clear_difference_is_said_to_be():
    found = results.comparisons(frame(iso=[10.0, 10.2], plw=[5.0, 5.2])).iloc[0]
    assert found.verdict == "plw is closer to the held-out images"


def test_interval_is_students_with_the_pooled_deviation():
    """Two groups of two: the classical two-sample t interval, t(0.975, 2) = 4.3027 times the pooled s times 1."""
    found = results.comparisons(frame(iso=[1.0, 3.0], plw=[2.0, 6.0])).iloc[0]
    pooled = ((2 + 8) / 2) ** 0.5
    assert found["±"] == pytest.approx(4.302653 * pooled, rel=1e-6)


def test_one_seed_decides_nothing():
    found = results.comparisons(frame(iso=[10.0], plw=[1.0])).iloc[0]
    assert found.verdict.startswith("undecided")


def test_settings_on_other_data_are_not_compared():
    table = frame(iso=[10.0, 10.1], plw=[1.0, 1.1])
    table.loc["plw", "data"] = "[0.4, 0.5]"
    assert results.comparisons(table).empty


def test_more_snapshots_are_no_other_protocol():
    """They are taken on the way; the weights at the end are the same."""
    raw = parameters.load().raw
    raw["train"] = raw["train"] | {"snapshots": 4, "repeats": 2}
    settings = [parameters.Params(raw).setting(None), *parameters.load().settings]
    assert len({results.protocol(s) for s in settings}) == 1


def test_settings_trained_in_another_way_get_no_verdict():
    table = frame(iso=[10.0, 10.1], plw=[1.0, 1.1])
    table.loc["plw", "protocol"] = "2000 steps"
    assert results.comparisons(table).verdict[0].startswith("not comparable")


def test_paired_differences_are_students():
    """Three seeds each: t(0.975, 2) = 4.302653 times the differences' own deviation over sqrt(3)."""
    table = frame(a=[3.0, 4.0, 5.5], b=[1.0, 2.5, 3.0], c=[1.0, 2.0, 3.0])
    found = results.paired(table, [("a", "b"), ("b", "c")])
    own = [4.302653 * statistics.stdev(d) / 3**0.5 for d in ([2.0, 1.5, 2.5], [0.0, 0.5, 0.0])]
    assert found["±"].tolist() == pytest.approx(own, rel=1e-6)
    assert found.difference.tolist() == pytest.approx([2.0, 0.5 / 3])
    assert found.verdict.tolist() == ["larger", "within the noise"]


def test_interaction_is_the_difference_of_differences():
    table = frame(a=[3.0, 4.0, 5.5], b=[1.0, 2.5, 3.0], c=[5.0, 7.0, 9.0], d=[2.0, 3.0, 3.0])
    found = results.interaction(table, ("a", "b"), ("c", "d"))
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
    found = results.interval(differences)
    assert (found.verdict, results.judged(found)) == (verdict, judged)


def test_numbers_show_two_digits_of_their_error():
    assert results.number(-0.0712, 0.0568, signed=True) == "-0.071 ± 0.057"
    assert results.number(68.4, 44.3, signed=True) == "+68 ± 44"
    assert results.number(11.42, 4.71) == "11.4 ± 4.7"
    assert results.number(1.234, float("nan")) == "1.23"


def test_settings_of_unlike_seeds_are_not_paired():
    with pytest.raises(InputError, match="a has 1 seeds, b 2"):
        results.paired(frame(a=[1.0], b=[9.0, 8.0]), [("a", "b")])


def test_one_seed_decides_no_pair():
    assert results.paired(frame(a=[1.0], b=[9.0]), [("a", "b")]).verdict[0].startswith("undecided")
