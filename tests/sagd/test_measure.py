"""Metrics are found by name, seeded, and joined by a user's own."""

import numpy as np
import pytest

from sagd import InputError
from sagd.metrics import measure as module
from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.extractors import extractor
from sagd.metrics.frechet import Moments
from sagd.metrics.measure import METRICS, find, measure

RNG = np.random.default_rng(0)
OF = extractor("efficientnet_lite0")


def test_the_file_of_each_metric_has_its_name():
    assert list(METRICS) == ["fid", "fid_infinity", "kid", "prdc", "sliced"]
    assert all(isinstance(metric, Metric) for metric in METRICS.values())
    assert [name for name, metric in METRICS.items() if metric.moments_suffice] == ["fid", "fid_infinity"]


def test_every_number_is_seeded():
    a, b = RNG.random((2, 30, 8))
    draws = [measure(a, b, OF, METRICS, seed=s, replicates=3, kid_subsets=(3, 20)) for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    drawn = {k for k in draws[0] if draws[0][k] != draws[2][k]}
    assert {k.replace("_efficientnet_lite0", "") for k in drawn} == {
        "fd_sample_se", "fd_of_halves", "fd_infinity", "fd_infinity_fit_se", "kd", "kd_subset_se", "kd_of_halves",
        "sliced", "sliced_of_halves",
    }  # fmt: skip


def test_the_order_of_the_metrics_changes_nothing():
    """Each draws from a stream of its own, and the answer has one order."""
    a, b = RNG.random((2, 30, 8))
    how = {"seed": 3, "replicates": 3, "kid_subsets": (3, 20)}
    together = measure(a, b, OF, ("sliced", "prdc", "kid", "fid_infinity", "fid"), **how)
    apart = {}
    for metric in METRICS:
        apart |= measure(a, b, OF, [metric], **how)
    assert list(together.items()) == list(apart.items())


def test_moments_and_halves_are_computed_once_and_only_when_they_are_needed(monkeypatch):
    a, b = RNG.random((2, 30, 8))
    comparison = Comparison(a, b, OF)
    assert comparison.moments is comparison.moments and comparison.halves is comparison.halves
    assert sorted(np.concatenate(comparison.halves)) == list(range(30))
    given = Moments.of(a)
    assert Comparison(a, None, OF, given).moments is given
    monkeypatch.setattr(Moments, "of", None)  # fails if called
    assert measure(a, b, OF, ["kid", "prdc"])


def test_measure_refuses_what_it_cannot_know():
    with pytest.raises(InputError, match="metric is 'is'; allowed: fid, fid_infinity, kid, prdc, sliced"):
        measure(np.ones((9, 2)), np.ones((9, 2)), OF, ["is"])
    with pytest.raises(InputError, match="3 images in a set; fid and kid need 6 or more"):
        measure(np.ones((9, 2)), np.ones((3, 2)), OF)
    with pytest.raises(InputError, match="kid: the features of the reference are needed, not only its moments"):
        measure(np.ones((9, 2)), None, OF, ["kid"], moments=Moments.of(RNG.random((9, 2))))
    with pytest.raises(InputError, match="reference and moments are both None"):
        measure(np.ones((9, 2)), None, OF, ["fid"])
    with pytest.raises(InputError, match="9 images in a set; fid_infinity need 10 or more"):
        measure(RNG.random((9, 2)), RNG.random((9, 2)), OF, ["fid_infinity"])


@pytest.fixture
def mine(tmp_path):
    """Writes a file of a user's own metrics; gives its folder."""

    def write(code):
        (tmp_path / "mine.py").write_text(code)
        return tmp_path

    return write


def test_a_metric_of_ones_own_needs_no_fork(mine):
    folder = mine(
        """
import numpy as np

def shift(generated, reference):
    assert generated.shape == (9, 4) and reference.shape == (7, 4)
    return np.abs(generated.mean(0) - reference.mean(0)).max()

def spread(generated, reference):
    return {"generated": generated.std(), "reference": reference.std()}
"""
    )
    a, b = RNG.random((9, 4)), RNG.random((7, 4))
    found = measure(a, b, OF, ["mine.py:spread", "kid", "mine.py:shift"], folder=folder)
    name = "efficientnet_lite0"
    assert list(found)[-3:] == [f"shift_{name}", f"spread_{name}_generated", f"spread_{name}_reference"]
    assert found[f"shift_{name}"] == np.abs(a.mean(0) - b.mean(0)).max()
    assert found[f"spread_{name}_reference"] == b.std()
    assert all(type(value) is float for value in found.values())
    assert {key: found[key] for key in list(found)[:-3]} == measure(a, b, OF, ["kid"])


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def d(generated, reference):\n    return 1 / 0", r"metric mine\.py:d: mine\.py, line 2: ZeroDivisionError: "),
        (
            "def d(generated, reference):\n    raise SystemExit(0)",
            r"metric mine\.py:d: mine\.py, line 2: SystemExit: 0",
        ),
        ("def d(generated):\n    return 1.0", r"metric mine\.py:d: .*TypeError: "),
        ("def d(generated, reference):\n    return", r"metric mine\.py:d returns None; it must be a finite number"),
        ("def d(generated, reference):\n    return generated", r"mine\.py:d returns array.*; it must be a finite"),
        ("def d(generated, reference):\n    return {}", r"metric mine\.py:d returns {}; it must be a finite number"),
        ("def d(generated, reference):\n    return float('nan')", r"mine\.py:d returns nan; it must be a finite"),
        ("def d(generated, reference):\n    return True", r"mine\.py:d returns True; it must be a finite"),
        ("def d(generated, reference):\n    return '0.5'", r"mine\.py:d returns '0\.5'; it must be a finite"),
        ("def d(generated, reference):\n    return 1 + 1j", r"mine\.py:d returns \(1\+1j\); it must be a finite"),
        ("def d(generated, reference):\n    return 10**400", r"mine\.py:d returns 1000.*; it must be a finite"),
        ("def d(generated, reference):\n    return {1: 1.0, '1': 2.0}", r"mine\.py:d returns {1: 1.0, .*; it must be"),
        ("def d(generated, reference):\n    return {'': 1.0}", r"mine\.py:d: a number's name is ''; it must be a word"),
        ("def d(generated, reference):\n    return {'a': float('inf')}", r"d returns {'a': inf}; it must be a finite"),
        ("def d(generated, reference):\n    return {'a': 'b'}", r"mine\.py:d returns {'a': 'b'}; it must be a finite"),
        ("def e(generated, reference):\n    return 1.0", r"mine\.py has no function 'd'"),
        ("def d(generated, reference)", r"mine\.py cannot be imported: line 1: SyntaxError"),
    ],
)
def test_a_mistake_in_ones_own_metric_is_one_line(mine, code, says):
    with pytest.raises(InputError, match=says) as error:
        measure(RNG.random((9, 4)), RNG.random((9, 4)), OF, ["mine.py:d"], folder=mine(code))
    assert "\n" not in str(error.value)


def test_a_metric_of_ones_own_may_not_take_anothers_name(mine):
    folder = mine("def fd(generated, reference):\n    return 1.0\n\ndensity_of_mine = gap = fd")
    (folder / "yours.py").write_text("def gap(generated, reference):\n    return 1.0")
    a = RNG.random((9, 4))
    for name in ("fd", "density_of_mine"):  # before it is even looked for: `find` is called at the door
        with pytest.raises(InputError, match=rf"mine\.py:{name}: names that begin with fid, .* are sagd's own; rename"):
            find(["kid", f"mine.py:{name}"], folder)
    with pytest.raises(InputError, match=r"yours\.py:gap: mine\.py:gap has the same name; rename one of"):
        measure(a, a, OF, ["mine.py:gap", "yours.py:gap"], folder=folder)
    with pytest.raises(InputError, match=r"mine\.py:gap: the features of the reference are needed"):
        measure(a, None, OF, ["mine.py:gap"], folder=folder, moments=Moments.of(a))


@pytest.mark.parametrize("end", ["se", "mine_se", "best", "on_half", "of_real", "of_halves", "of_filtered", "step_750"])
def test_a_name_that_tables_would_take_for_an_error_or_a_floor_is_refused(mine, end):
    folder = mine(f"def gap(generated, reference):\n    return {{'good': 1.0, {end!r}: 2.0}}")
    with pytest.raises(InputError, match=rf"mine\.py:gap: names that end with se, best, .*; rename '{end}'"):
        measure(RNG.random((9, 4)), RNG.random((9, 4)), OF, ["mine.py:gap"], folder=folder)
    (folder / f"{end}.pt").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{end}\.pt: names that end with se, best, .*; rename '{end}'"):
        extractor(str(folder / f"{end}.pt"))


def test_a_metric_of_ones_own_cannot_change_what_the_others_get(mine):
    folder = mine("def gap(generated, reference):\n    generated -= 1\n    return 1.0")
    with pytest.raises(InputError, match=r"metric mine\.py:gap: mine\.py, line 2: ValueError: .*read-only"):
        measure(RNG.random((9, 4)), RNG.random((9, 4)), OF, ["mine.py:gap"], folder=folder)


@pytest.mark.parametrize(
    ("name", "number"), [("halves", 0), ("fid", 1), ("fid_infinity", 2), ("kid", 3), ("sliced", 4)]
)
def test_streams_by_name_are_those_that_had_numbers(name, number):
    comparison = Comparison(np.ones((9, 2)), np.ones((9, 2)), OF, seed=7)
    assert comparison.rng(name).random() == np.random.default_rng([7, number]).random()


def test_every_name_has_a_stream_of_its_own():
    comparison = Comparison(np.ones((9, 2)), np.ones((9, 2)), OF, seed=7)
    drawn = [comparison.rng(name).random() for name in ("halves", "fid", "fid_infinity", "kid", "sliced", "gap", "gab")]
    assert len(set(drawn)) == 7 and comparison.rng("gap").random() == drawn[5]
    with pytest.raises(InputError, match="stream is 4; it must be a name"):
        comparison.rng(4)


def test_bad_features_are_told_before_any_metric_is_computed(mine):
    good = RNG.random((12, 4))
    bad = good.copy()
    bad[7, 2] = np.nan
    folder = mine("def gap(generated, reference):\n    raise SystemError")
    for metric in ("fid", "fid_infinity", "kid", "prdc", "sliced", "mine.py:gap"):
        for sets, name in (((bad, good), "generated"), ((good, bad), "reference")):
            with pytest.raises(InputError, match=f"^{name}: row 7 has nan; features must be finite"):
                measure(*sets, OF, [metric], folder=folder, kid_subsets=(2, 3))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"seed": -1}, "seed is -1; it must be a whole number, 0 or more"),
        ({"replicates": 1}, "replicates, unless it is 0, is 1; it must be a whole number, 2 or more"),
        ({"kid_subsets": (2.5, 3)}, "the number of subsets is 2.5; it must be a whole number"),
        ({"metrics": "fid"}, "metrics is 'fid'; it must be a list of names"),
        ({"moments": Moments.of(RNG.random((9, 3)))}, "moments of 3 features for generated of 4"),
    ],
)
def test_bad_arguments_are_one_line(how, says):
    with pytest.raises(InputError, match=says):
        measure(RNG.random((9, 4)), RNG.random((9, 4)), OF, **how)


def test_copies_are_told():
    a, b = RNG.random((2, 30, 8)).astype(np.float32)
    assert module.copies(a, b) == module.copies(a, None) == []
    moved = a[::-1] * np.float32(1 + 1e-7)  # another place in a batch
    (told,) = module.copies(a, moved)
    assert told.startswith("generated and reference are the same 30 images")
    assert module.copies(np.concatenate([a, b[:1]]), b) == ["1 of the 31 generated images are in the reference, too"]
    assert module.copies(np.repeat(a[:1], 30, 0), b) == ["29 of the 30 generated images repeat others of them"]
    assert module.copies(np.repeat(a[:1], 30, 0), None) == ["29 of the 30 generated images repeat others of them"]
    assert module.copies(a, np.concatenate([b, b[:2]])) == ["2 of the 32 reference images repeat others of them"]


def test_caveats_name_the_sets_that_are_too_small():
    assert module.caveats(100, 100, 50) == []
    assert module.caveats(100, None, 50) == []
    (told,) = module.caveats(50, 40, 50)
    assert told.startswith("50 samples and 40 references are no more than the 50 features")
