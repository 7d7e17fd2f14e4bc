"""Metrics are found by name, seeded, and joined by a user's own."""

import numpy as np
import pytest

from sagd import InputError
from sagd.metrics import measure as module
from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.extractors import extractor
from sagd.metrics.frechet import Moments
from sagd.metrics.measure import METRICS, measure

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
        ("def d(generated):\n    return 1.0", r"metric mine\.py:d: .*TypeError: "),
        ("def d(generated, reference):\n    return", r"metric mine\.py:d returns None; it must be a finite number"),
        ("def d(generated, reference):\n    return generated", r"mine\.py:d returns array.*; it must be a finite"),
        ("def d(generated, reference):\n    return {}", r"metric mine\.py:d returns {}; it must be a finite number"),
        ("def d(generated, reference):\n    return float('nan')", r"mine\.py:d returns nan; it must be a finite"),
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
    folder = mine("def fd(generated, reference):\n    return 1.0")
    with pytest.raises(InputError, match=r"mine\.py:fd: another one is called fd_efficientnet_lite0, too; rename"):
        measure(RNG.random((9, 4)), RNG.random((9, 4)), OF, ["fid", "mine.py:fd"], folder=folder)
    with pytest.raises(InputError, match=r"mine\.py:fd: the features of the reference are needed"):
        measure(RNG.random((9, 4)), None, OF, ["mine.py:fd"], folder=folder, moments=Moments.of(RNG.random((9, 4))))


def test_caveats_name_the_sets_that_are_too_small():
    assert module.caveats(100, 100, 50) == []
    assert module.caveats(100, None, 50) == []
    (told,) = module.caveats(50, 40, 50)
    assert told.startswith("50 samples and 40 references are no more than the 50 features")
