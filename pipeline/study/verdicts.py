"""What differences between settings say: intervals of paired and of pooled differences, and verdicts in words."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from sagd.errors import InputError


def comparisons(results: pd.DataFrame) -> pd.DataFrame:
    """Differences of distance between settings trained on the same data, each against isotropic noise.

    The standard deviation over seeds is pooled over all settings, because two or three seeds do not give one of their
    own; the interval is Student's, at 95 %. A difference whose interval holds 0 is within the noise.
    """
    from scipy.stats import t

    freedom = sum(len(v) - 1 for v in results.per_seed)
    pooled = math.sqrt(sum(np.var(v) * len(v) for v in results.per_seed) / freedom) if freedom else math.nan
    rows = []
    for a, b in itertools.permutations(results.itertuples(), 2):
        if a.data != b.data or b.operator != "isotropic" or a.operator == "isotropic":
            continue
        difference = a.distance - b.distance
        half = t.ppf(0.975, freedom) * pooled * math.sqrt(1 / a.seeds + 1 / b.seeds) if freedom else math.nan
        verdict = "undecided: one seed a setting" if not freedom else "within the noise"
        if a.protocol != b.protocol:
            verdict = "not comparable: trained or sampled in another way"
        elif abs(difference) > half:
            verdict = f"{a.Index} is {'closer to' if difference < 0 else 'further from'} the held-out images"
        rows.append({"setting": a.Index, "against": b.Index, "difference": difference, "±": half, "verdict": verdict})
    return pd.DataFrame(rows, columns=["setting", "against", "difference", "±", "verdict"])


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


def difference(results: pd.DataFrame, a: str, b: str, column: str = "per_seed") -> "Interval":
    """The difference of one pair, as in `paired`."""
    return interval(_differences(results, a, b, column))


def interaction(
    results: pd.DataFrame, pair: tuple[str, str], other: tuple[str, str], column: str = "per_seed"
) -> "Interval":
    """How much more the first of a pair gains on the second than it does in another pair, seed by seed."""
    return interval(_differences(results, *pair, column) - _differences(results, *other, column))


def _differences(results: pd.DataFrame, a: str, b: str, column: str) -> np.ndarray:
    values = [np.array(results[column][name], dtype=float) for name in (a, b)]
    if values[0].shape != values[1].shape:
        raise InputError(f"{a} has {len(values[0])} seeds, {b} {len(values[1])}: they cannot be compared seed by seed")
    return values[0] - values[1]


class Interval(NamedTuple):
    """A mean difference, half of its 95 % interval, and in a word where it lies."""

    difference: float
    half: float
    verdict: str

    def __str__(self) -> str:
        return number(self.difference, self.half, signed=True)


def interval(differences: np.ndarray, tests: int = 1) -> Interval:
    """Student's interval of paired differences, at 95 % for ``tests`` intervals together (Bonferroni)."""
    from scipy.stats import t

    mean, n = float(np.mean(differences)), len(differences)
    if math.isnan(mean):
        return Interval(mean, math.nan, "not measured")
    if n < 2:
        return Interval(mean, math.nan, "undecided: one seed")
    half = float(t.ppf(1 - 0.025 / tests, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    verdict = "within the noise"
    if abs(mean) > half:
        verdict = "smaller" if mean < 0 else "larger"
    return Interval(mean, half, verdict)


def number(value: float, error: float, signed: bool = False) -> str:
    """A value and its error, to the two leading digits of the error."""
    sign = "+" if signed else ""
    if not error > 0:
        return f"{value:{sign}.3g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:{sign}.{places}f} ± {error:.{places}f}"


def judged(found: Interval) -> str:
    """The verdict on a prediction that a difference is below 0."""
    return {"smaller": "confirmed", "larger": "refuted"}.get(found.verdict, "undecided")
