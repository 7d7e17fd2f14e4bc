"""When a question counts as answered: the rules, which are stated before the runs and tried on data of known truth.

An effect is one number a seed, such as the logarithm of the ratio of two distances. Seeds are independent, and what is
compared shares all random numbers of a seed. The rules are Student's tests of those numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sagd.errors import InputError

LEVEL = 0.05
SUPPORTED, PART, CONTRADICTED = "supported", "holds in part", "contradicted"
EQUIVALENT, UNDECIDED = "equivalent", "undecided"
MEANINGS = {
    SUPPORTED: "the effect lies on the side that was expected (two-sided test, 5 %); of several effects, each does "
    "(one-sided, 5 % each); one that was expected to be small lies within the margin (two one-sided tests, 5 % each)",
    PART: "of several effects, one or more lie on the other side (Holm, 5 %) and one or more on the side that was "
    "expected (Holm, 5 %): the claim about every one is false, and holds for as many as are counted",
    CONTRADICTED: "it lies on the other side (two-sided test, 5 %); of several effects, one or more do (Holm, 5 %), "
    "and none is seen to lie as expected; one that was expected to be small lies beyond the margin (one-sided, 5 %)",
    EQUIVALENT: "it was expected on one side, and is smaller than the margin (two one-sided tests, 5 % each); this "
    "comes first, even where the effect differs from 0. The other two do not say that an effect exceeds the margin",
    UNDECIDED: "none of these can be told from these seeds",
}


@dataclass(frozen=True)
class Decision:
    """What the effects of the seeds say.

    Parameters
    ----------
    verdict
        A key of `MEANINGS`.
    mean, low, high
        Of the effect; ``low`` and ``high`` are its 95 % interval.
    p_difference, p_equivalence
        Of the two-sided test against 0 (of an effect that was expected within the margin: of the one-sided test that it
        lies beyond), and of the two one-sided tests against the margin (1 without one).
    effects
        One a seed.
    """

    verdict: str
    mean: float
    low: float
    high: float
    p_difference: float
    p_equivalence: float
    effects: tuple[float, ...]

    @property
    def parts(self) -> tuple["Decision", ...]:
        """As of a `Joint` one: itself."""
        return (self,)

    @property
    def told(self) -> str:
        """The verdict in words."""
        return self.verdict


def decide(effects: Sequence[float], expected: str, margin: float | None = None) -> Decision:
    """The verdict on one effect.

    Equivalent comes first: an effect smaller than the margin does not matter, even if it differs from 0.

    Parameters
    ----------
    effects
        One a seed, two or more, finite.
    expected
        ``below`` or ``above``: the side of 0 on which the claim puts the effect; ``within``: in the margin.
    margin
        The smallest effect that matters, above 0; None where none was stated.

    Raises
    ------
    InputError
        Fewer than two effects, or one that is not finite.
    """
    from scipy.special import stdtr, stdtrit  # Student's distribution; scipy.stats is slow to import, and slower

    x = np.asarray(effects, dtype=float)
    mean, error, free = _student(x)
    half = float(stdtrit(free, 1 - LEVEL / 2)) * error

    def upper(distance: float) -> float:
        """The one-sided p-value of an effect that lies ``distance`` beyond what is tested."""
        return float(stdtr(free, -distance / error)) if error > 0 else float(distance <= 0)

    p_equivalence = 1.0 if margin is None else upper(margin - abs(mean))
    if expected == "within":
        if margin is None:
            raise InputError("an effect is expected within a margin; state one")
        p_difference = upper(abs(mean) - margin)
    else:
        p_difference = min(1.0, 2 * upper(abs(mean)))
    verdict = _word(mean, p_difference, p_equivalence, expected)
    return Decision(verdict, mean, mean - half, mean + half, p_difference, p_equivalence, tuple(x.tolist()))


@dataclass(frozen=True)
class Joint:
    """What several effects say of a claim about every one of them.

    Parameters
    ----------
    p_support, p_against, p_part
        Of the intersection-union test of the claim; of the test that some effect lies on the other side; and of the
        test that some effect lies on its expected side.
    parts
        The effects, each by itself.
    sides
        Of each effect ``supported``, ``contradicted`` or ``undecided``: all are supported if the claim is; else Holm's
        method over the effects tells, for one side and for the other.
    """

    verdict: str
    p_support: float
    p_against: float
    p_part: float
    parts: tuple[Decision, ...]
    sides: tuple[str, ...]

    @property
    def told(self) -> str:
        """The verdict in words; of a claim that holds in part, for how many effects it does."""
        return f"{PART}: {self.sides.count(SUPPORTED)} of {len(self.sides)}" if self.verdict == PART else self.verdict


def every(effects: Sequence[Sequence[float]], expected: Sequence[str]) -> Joint:
    """The verdict on a claim about every one of several effects (intersection-union).

    Supported if each of them lies on its expected side, one-sided at 5 % each: the claim of all is then wrongly
    supported in at most 5 % of the cases, without any correction. If one lies on the other side, after Holm's
    correction, the claim is false: it holds in part where one lies on its expected side, after Holm's correction too,
    and else is contradicted.
    """
    found = tuple(decide(x, side) for x, side in zip(effects, expected, strict=True))
    ones = [
        d.p_difference / 2 if _side(d.mean, side) else 1 - d.p_difference / 2
        for d, side in zip(found, expected, strict=True)
    ]
    holding, opposite = holm(ones), holm([1 - p for p in ones])
    support, against, part = max(ones), min(opposite), min(holding)
    verdict = _joint_word(support, against, part)
    sides = tuple(
        SUPPORTED if verdict == SUPPORTED or one < LEVEL else CONTRADICTED if other < LEVEL else UNDECIDED
        for one, other in zip(holding, opposite, strict=True)
    )
    return Joint(verdict, support, against, part, found, sides)


def corrected(found: Sequence[Decision | Joint], expected: Sequence[str], missing: int = 0) -> list[Decision | Joint]:
    """Verdicts on secondary contrasts: both tests of each, all corrected together by Holm's method.

    Of a single effect at most one of the two hypotheses that are tested is true, no effect or an effect beyond the
    margin: such a contrast counts once. ``missing`` is the count of contrasts that were not run yet, so that the
    correction does not change when they are. That a claim holds in part is told by a third test, of those claims alone
    that the others have found false: it is corrected by itself (Bonferroni, for as many hypotheses), so that it changes
    nothing in the others.
    """
    tests = [(d.p_support, d.p_against) if isinstance(d, Joint) else (d.p_difference, d.p_equivalence) for d in found]
    most = sum(2 if isinstance(d, Joint) else 1 for d in found) + missing
    adjusted = holm([p for pair in tests for p in pair] + [1.0] * missing, most)
    return [
        _adjusted(d, side, one, other, most)
        for d, side, one, other in zip(found, expected, adjusted[0::2], adjusted[1::2], strict=False)
    ]


def _adjusted(d: Decision | Joint, expected: str, one: float, other: float, most: int) -> Decision | Joint:
    """A decision with corrected p-values, and the verdict that follows from them."""
    if isinstance(d, Joint):
        part = min(1.0, most * d.p_part)
        return replace(d, verdict=_joint_word(one, other, part), p_support=one, p_against=other, p_part=part)
    return replace(d, verdict=_word(d.mean, one, other, expected), p_difference=one, p_equivalence=other)


def holm(p: Sequence[float], most: int | None = None) -> list[float]:
    """Adjusted p-values, so that all tests together are wrong in at most 5 % of the cases (Holm 1979).

    ``most``: how many of the hypotheses can be true together, if not all can (Shaffer 1986).
    """
    order, found, largest = np.argsort(p), np.empty(len(p)), 0.0
    for rank, k in enumerate(order):
        left = min(most or len(p), len(p) - rank)
        largest = max(largest, min(1.0, left * p[k]))
        found[k] = largest
    return found.tolist()


def seeds_needed(spread: float, effect: float, power: float = 0.9, margin: float | None = None) -> int:
    """How many seeds decide: the least number, from 3 on, with the given power.

    Parameters
    ----------
    spread
        Standard deviation of the effect over the seeds.
    effect
        The true effect that the two-sided test should find; or with a margin the true effect (such as 0) that the
        equivalence test should find to be smaller.
    """
    return next((n for n in range(3, 200) if power_of(spread, effect, n, margin) >= power), 200)


def power_of(spread: float, effect: float, seeds: int, margin: float | None = None) -> float:
    """The probability that ``seeds`` seeds tell an effect from 0, or (margin) that they tell it to be smaller."""
    from scipy.stats import nct, t

    free, error = seeds - 1, spread / math.sqrt(seeds)
    if margin is None:
        limit = t.ppf(1 - LEVEL / 2, free)
        return float(nct.sf(limit, free, effect / error) + nct.cdf(-limit, free, effect / error))
    # The probability that both one-sided tests reject is at least this (Bonferroni's inequality), and near it.
    limit = t.ppf(1 - LEVEL, free)
    each = [nct.sf(limit, free, (margin - side * effect) / error) for side in (1, -1)]
    return float(max(0.0, sum(each) - 1))


def error_rates(
    seeds: int = 8, margin: float = 1.0, spread: float = 0.75, trials: int = 4000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How often each verdict comes out on simulated effects of known truth; normal, independent.

    Parameters
    ----------
    seeds
        Effects in a trial.
    margin, spread
        Of the rule, and the standard deviation of an effect over the seeds.

    Returns
    -------
    dict
        For each truth (in words) the share of each verdict.
    """
    rng = np.random.default_rng(seed)
    words = tuple(MEANINGS)

    def shares(verdicts: list[str]) -> dict[str, float]:
        return {word: verdicts.count(word) / len(verdicts) for word in words}

    def one(true: float) -> dict[str, float]:
        found = (rng.normal(true, spread, seeds).tolist() for _ in range(trials))
        return shares([decide(x, "below", margin).verdict for x in found])

    def small(true: float) -> dict[str, float]:
        found = (rng.normal(true, spread, seeds).tolist() for _ in range(trials))
        return shares([decide(x, "within", margin).verdict for x in found])

    def all_of(true: list[float]) -> dict[str, float]:
        found = ([rng.normal(m, spread, seeds).tolist() for m in true] for _ in range(trials // 4))
        return shares([every(x, ["below"] * len(x)).verdict for x in found])

    return {
        "no effect": one(0.0),
        "an effect of exactly the margin, as expected": one(-margin),
        "twice the margin, as expected": one(-2 * margin),
        "twice the margin, the other way": one(2 * margin),
        "expected within the margin: exactly at it": small(margin),
        "expected within the margin: no effect": small(0.0),
        "every one of 8: no effect in any": all_of([0.0] * 8),
        "every one of 8: true of 7, no effect in one": all_of([-2 * margin] * 7 + [0.0]),
        "every one of 8: true": all_of([-2 * margin] * 8),
        "every one of 8: the other way in one": all_of([-2 * margin] * 7 + [2 * margin]),
        "every one of 8: the other way in one, no effect in 7": all_of([0.0] * 7 + [2 * margin]),
    }


def _student(x: np.ndarray) -> tuple[float, float, int]:
    """Mean, its standard error, degrees of freedom."""
    if len(x) < 2 or not np.isfinite(x).all():
        raise InputError(f"effects of {len(x)} seeds, {x.tolist()}; a test needs two or more, all finite")
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))), len(x) - 1


def _side(mean: float, expected: str) -> bool:
    """Whether an effect lies on its expected side; beyond a margin, none does."""
    return {"below": mean < 0, "above": mean > 0, "within": False}[expected]


def _word(mean: float, p_difference: float, p_equivalence: float, expected: str) -> str:
    if p_equivalence < LEVEL:
        return SUPPORTED if expected == "within" else EQUIVALENT
    if p_difference < LEVEL:
        return SUPPORTED if _side(mean, expected) else CONTRADICTED
    return UNDECIDED


def _joint_word(support: float, against: float, part: float) -> str:
    if support < LEVEL:
        return SUPPORTED
    if against < LEVEL:
        return PART if part < LEVEL else CONTRADICTED
    return UNDECIDED


def slope(alphas: Sequence[float], values: Sequence[float]) -> float:
    """The least-squares slope of values over exponents."""
    a = np.asarray(alphas, dtype=float)
    a = a - a.mean()
    return float(a @ np.asarray(values, dtype=float) / (a @ a))
