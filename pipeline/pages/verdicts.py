"""What differences between settings say: intervals of paired differences, and verdicts in words."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from sagd.errors import InputError


def comparisons(results: pd.DataFrame) -> pd.DataFrame:
    """Differences of distance between settings that start from the same data, seed by seed (`compared`).

    Each is compared with isotropic noise; and of the remedies for corrupted images, the projected loss with the others.
    """
    rows = []
    for a, b in itertools.permutations(results.index, 2):
        one, other = results.loc[a], results.loc[b]
        remedy = one.operator != "isotropic" or one.arm == "filtered"
        against_none = remedy and other.operator == "isotropic" and other.arm != "filtered"
        among_remedies = one.arm == "projected" and other.arm in ("literal", "filtered")
        if one.data == other.data and (against_none or among_remedies):
            found, seeds = compared(results, a, b)
            rows.append({"setting": a, "against": b, **found._asdict(), "seeds": seeds})
    columns = ["setting", "against", "difference", "half", "verdict", "seeds"]
    return pd.DataFrame(rows, columns=columns).rename(columns={"half": "±"})


def compared(results: pd.DataFrame, a: str, b: str) -> tuple["Interval", int]:
    """The distance of one setting less that of another, over the seeds that both have, and the number of these.

    Settings share with a seed the initial weights, the order of the images, times, white noise and starts of sampling,
    so that their difference says more than each of their distances. The interval is Student's, at 95 %, from this
    pair's own differences.
    """
    one, other = results.loc[a], results.loc[b]
    why = "" if set(one.seed_list) & set(other.seed_list) else "no seed in common"
    why = why if one.protocol == other.protocol else "trained, sampled or measured in another way"
    if why:
        return Interval(one.distance - other.distance, math.nan, f"not comparable: {why}"), 0
    found = _differences(results, a, b)
    return interval(found), len(found)


def paired(results: pd.DataFrame, pairs: list[tuple[str, str]], column: str = "per_seed") -> pd.DataFrame:
    """Differences between settings that share their seeds, seed by seed: the first of a pair less the second.

    The interval is Student's, at 95 %, from the pair's own differences: their spread is not that of other pairs.

    Parameters
    ----------
    column
        Of lists with one value a seed.
    """
    rows = [{"setting": a, "against": b, **difference(results, a, b, column)._asdict()} for a, b in pairs]
    return pd.DataFrame(rows).rename(columns={"half": "±"})


def difference(results: pd.DataFrame, a: str, b: str, column: str = "per_seed", tests: int = 1) -> "Interval":
    """The difference of one pair, as in `paired`, at 95 % for so many tests together."""
    return interval(_differences(results, a, b, column), tests)


def interaction(
    results: pd.DataFrame, pair: tuple[str, str], other: tuple[str, str], column: str = "per_seed"
) -> "Interval":
    """How much more the first of a pair gains on the second than it does in another pair, seed by seed."""
    return interval(_less(_differences(results, *pair, column), _differences(results, *other, column)))


def _differences(results: pd.DataFrame, a: str, b: str, column: str = "per_seed") -> pd.Series:
    return _less(*(pd.Series(results[column][name], results.seed_list[name], dtype=float) for name in (a, b)))


def _less(one: pd.Series, other: pd.Series) -> pd.Series:
    """The difference of two series, of the seeds that both have."""
    seeds = one.index.intersection(other.index)
    if not len(seeds):
        raise InputError(f"seeds {list(one.index)} and {list(other.index)} cannot be compared: none is in both")
    return one[seeds] - other[seeds]


class Interval(NamedTuple):
    """A mean difference, half of its 95 % interval, and in a word where it lies."""

    difference: float
    half: float
    verdict: str

    def __str__(self) -> str:
        return number(self.difference, self.half, signed=True)


def interval(differences: np.ndarray | pd.Series, tests: int = 1) -> Interval:
    """Student's interval of paired differences, at 95 % for ``tests`` intervals together (Bonferroni)."""
    from scipy.special import stdtrit

    mean, n = float(np.mean(differences)), len(differences)
    if math.isnan(mean):
        return Interval(mean, math.nan, "not measured")
    if n < 2:
        return Interval(mean, math.nan, "undecided: one seed")
    half = float(stdtrit(n - 1, 1 - 0.025 / tests) * np.std(differences, ddof=1) / math.sqrt(n))
    verdict = "within the noise"
    if abs(mean) > half:
        verdict = "smaller" if mean < 0 else "larger"
    return Interval(mean, half, verdict)


def number(value: float, error: float | None, signed: bool = False) -> str:
    """A value and its error, to the two leading digits of the error; one seed has none."""
    sign = "+" if signed else ""
    if error is None or not error > 0:
        return f"{value:{sign}.3g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:{sign}.{places}f} ± {error:.{places}f}"


def judged(found: Interval) -> str:
    """The verdict on a prediction that a difference is below 0."""
    return {"smaller": "confirmed", "larger": "refuted"}.get(found.verdict, "undecided")
