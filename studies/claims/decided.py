"""The contrasts of studies/claims/contrasts.yaml, on what was measured: an effect for each seed, and the verdict.

Which settings are compared, how, and what is expected stands in that file; the rules are in `studies.claims.contrasts`.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from pipeline.pages import reading
from pipeline.params import Params, Setting
from pipeline.params.sections import Section
from pipeline.params.setting import at as ending_of
from sagd.errors import InputError
from sagd.runtime.files import read_bytes, read_json
from studies.claims.contrasts import (
    CONTRADICTED,
    PART,
    SUPPORTED,
    Decision,
    Joint,
    corrected,
    decide,
    every,
    seeds_needed,
    slope,
)
from studies.plan import digits

FILE = Path("contrasts.yaml")  # in the study's folder, where its stages run
PRIMARY = "kd_classifier"
NOT_RUN, FAILED = "not run", "could not be computed"
RECORDING = ("colored", "cost", "endpoint", "flicker")  # stages that write effects of their own
LOW, HIGH = 0.25, 0.75  # of the largest radius: below the one are the low rings, above the other the high ones
LARGEST = math.sqrt(0.5)  # radius, cycles per pixel
RINGS = {"low rings": "above", "high rings": "below"}  # where the claim puts the slopes over alpha
LOGARITHMIC = ("difference", "gains", "every", "slope")  # kinds whose effects are logarithms of distances
Kind = Literal["difference", "gains", "every", "share", "rings", "fading", "slope", "recorded"]


class Contrast(Section):
    """A comparison that was written down before the runs.

    ``kind`` says what the effect of a seed is. ``difference``: log(a / b), of distances. ``gains``: log(a / b) less
    log(c / d). ``every``: log(a / b) in each band. ``share``: (a - b) / (c - b), of means over the bands: the fraction
    of b's improvement over c that a misses. ``slope``: of the logarithm of the distance over alpha. ``rings``: the
    slopes over alpha of the logarithm of the denoising error, in low rings and in high ones; ``fading``: how much
    smaller they are, in size, at the end than at a quarter of the training. ``recorded``: as a stage of its own has
    written it.

    An unbiased distance near its floor may fall below 0, and has no logarithm then. Where that can happen, ``plus`` is
    written down before the runs: a constant, such as the distance of real images, that is added to every distance
    before its logarithm is taken. A contrast without it whose distances fall below 0 could not be computed.
    """

    kind: Kind
    says: str
    primary: bool = False
    expected: Literal["below", "above", "within"]
    margin: Annotated[float, Field(gt=0)] | None = None
    measure: str = PRIMARY
    plus: Annotated[float, Field(ge=0)] = Field(0.0, description="added to distances before their logarithm is taken")
    a: str = ""
    b: str = ""
    c: str = ""
    d: str = ""
    over: dict[str, float] = Field({}, description="settings and their alphas")
    rings: list[Literal["low rings", "high rings"]] = Field(["low rings", "high rings"], description="of kind rings")

    @model_validator(mode="after")
    def _checked(self) -> "Contrast":
        if self.kind == "recorded" and _stage(self) not in RECORDING:
            raise ValueError(f"measure is {self.measure}; of kind recorded it begins with {', '.join(RECORDING)}")
        if self.plus and self.kind not in LOGARITHMIC:
            raise ValueError(f"plus is for kinds {', '.join(LOGARITHMIC)}; this one is {self.kind}")
        return self


class Question(Section):
    """A claim, and the contrasts that answer it: one of the paper, by its number, or of another one."""

    claim: int | None = None
    whose: str = Field("The paper", description="claim it is")
    title: str
    paper: str
    asks: str
    note: str = ""
    contrasts: dict[str, Contrast]


class Power(Section):
    """Why there are so many seeds: pairs of arms of a pilot, whose spread over its seeds is pooled."""

    why: str
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    effect: float
    margin: float


class File(Section):
    """contrasts.yaml."""

    measures: dict[str, str]
    rules: str
    power: Power
    questions: dict[str, Question]
    arms: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A contrast and what came out: a decision and the names of its parts, such as bands; or None, and why.

    ``failed`` tells what was run but gives no answer from what was not run.
    """

    name: str
    contrast: Contrast
    decision: Decision | Joint | None
    parts: tuple[str, ...] = ()
    why: str = ""
    failed: bool = False

    @property
    def verdict(self) -> str:
        """A key of `contrasts.MEANINGS`, with a count where a claim holds in part; or why there is none."""
        if self.decision:
            return self.decision.told
        return FAILED if self.failed else NOT_RUN


def written(file: Path = FILE) -> File:
    """What was written down."""
    try:
        return File.model_validate(YAML(typ="safe").load(read_bytes(file)))
    except (ValidationError, YAMLError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Results:
    """What was measured in the profile, by setting; a variant's name follows the setting's after a slash."""

    params: Params

    @cached_property
    def _settings(self) -> dict[str, Setting]:
        return {f"{s.name}/{s.variant}" if s.variant else str(s.name): s for s in self.params.drawn}

    def _setting(self, name: str) -> Setting:
        if name not in self._settings:
            raise InputError(f"{FILE.name} names {name}, which is none of its arms")
        return self._settings[name]

    def _report(self, name: str, ending: str) -> Path:
        return self._setting(name).report("evaluate", ending)

    def run(self, name: str) -> bool:
        """Whether a setting was measured, with the parameters as they are, and it can be read that it was."""
        try:
            return not self.lacking(name)
        except InputError:
            return False

    def lacking(self, name: str) -> str:
        """Why a setting does not count as run; empty where it does."""
        if self.params.measured(self._setting(name)):
            return ""
        return f"{name} (there with other parameters)" if self._report(name, "seeds.json").is_file() else name

    def has(self, name: str, measure: str = PRIMARY, at: float = 1.0) -> bool:
        """Whether a setting was measured, and has a measure at a share of its training."""
        try:
            return self.run(name) and len(self.of(name, measure, at)) > 0
        except InputError:
            return False

    def of(self, name: str, measure: str = PRIMARY, at: float = 1.0) -> pd.Series:
        """A measure of a setting at a share of its training, by seed."""
        file = self._report(name, "seeds.json")
        found = read_json(file, seeds=list, per_seed=dict)
        ending = ending_of(None if at == 1 else round(at * self._checkpoints(name)[-1]))
        if measure + ending not in found["per_seed"]:
            raise InputError(f"{name} has no {measure} at {at:g} of its training")
        found = reading.detail(self._setting(name), [measure + ending])
        if found["seeds"] != self._setting(name).seeds:
            raise InputError(f"{file}: seeds are {found['seeds']}, not {self._setting(name).seeds} as trained")
        return pd.Series(found["per_seed"][measure + ending], found["seeds"], dtype=float)

    def denoising(self, name: str, at: float = 1.0) -> pd.DataFrame:
        """The denoising error of a setting at a share of its training: seed, snr, radius, error.

        Each is above 0, and every seed and checkpoint has the same: which ratios a schedule reaches is no network's.
        """
        file, steps = self._report(name, "denoising.csv"), self._checkpoints(name)
        rows = reading.table(file, "seed", "step", "snr", "radius", "error")
        with reading.of(file):
            whole = rows.pivot(index=["snr", "radius"], columns=["seed", "step"], values="error")
            asked = set(itertools.product(reading.detail(self._setting(name), [])["seeds"], steps))
            if set(whole) != asked or whole.isna().any(axis=None):
                raise InputError("it lacks errors of a seed or a checkpoint; run the stage that writes it again")
            if not (rows.error > 0).all():
                raise InputError(f"it has an error of {rows.error.min():g}; it must be above 0")
        return rows[rows.step == round(at * steps[-1])]

    def _checkpoints(self, name: str) -> list[int]:
        """The steps of a training at which it was measured; the last is its end."""
        file = self._report(name, "seeds.json")
        run = read_json(file, run=dict)["run"]
        with reading.of(file):
            return [int(step) for step in reading.finite("checkpoints", run["checkpoints"], None)]

    @cached_property
    def bands(self) -> list[str]:
        """The names of the bands, such as 04_05."""
        return [f"{digits(low)}_{digits(high)}" for low, high in written().arms["omission"]["bands"]]


def compared(stage: str) -> dict[str, float]:
    """The settings, and their alphas, that a stage compares whose effects are recorded, such as `endpoint`."""
    contrasts = [contrast for question in written().questions.values() for contrast in question.contrasts.values()]
    over = [c.over for c in contrasts if c.kind == "recorded" and _stage(c) == stage]
    if not over:
        raise InputError(f"{FILE.name} has no contrast that the stage {stage} records")
    return over[0]


def _stage(contrast: Contrast) -> str:
    """The stage of its own that records the effects of a contrast."""
    return contrast.measure.partition("_")[0]


def settings_of(contrast: Contrast, bands: list[str]) -> list[str]:
    """The settings that a contrast needs."""
    named = [n for n in (contrast.a, contrast.b, contrast.c, contrast.d) if n]
    each = [n.format(band=band) for n in named for band in (bands if "{band}" in n else [""])]
    return [*dict.fromkeys([*each, *contrast.over])]


def effects(contrast: Contrast, results: Results, at: float = 1.0) -> dict[str, list[float]]:
    """The effects of a contrast, one a seed: of each band or part by its name, or of the whole ("")."""
    measure = contrast.measure

    def logs(name: str) -> pd.Series:
        return logarithms(f"{measure} of {name}", results.of(name, measure, at) + contrast.plus)

    def ratio(a: str, b: str) -> pd.Series:
        return (logs(a) - logs(b)).dropna()  # the seeds that both have

    bands = results.bands
    if contrast.kind == "difference":
        return {"": ratio(contrast.a, contrast.b).tolist()}
    if contrast.kind == "gains":
        return {"": (ratio(contrast.a, contrast.b) - ratio(contrast.c, contrast.d)).dropna().tolist()}
    if contrast.kind == "every":
        return {b: ratio(contrast.a.format(band=b), contrast.b.format(band=b)).tolist() for b in bands}
    if contrast.kind == "share":
        a, b, c = (
            pd.concat([results.of(name.format(band=band), measure, at) for band in bands], axis=1).mean(
                axis=1, skipna=False
            )
            for name in (contrast.a, contrast.b, contrast.c)
        )
        for name, values in ((contrast.a, a), (contrast.b, b), (contrast.c, c)):
            if not np.isfinite(values.to_numpy()).all():
                raise InputError(f"{measure} of {name} is not finite, or not of the same seeds in all bands")
        if not (c > b).all():
            raise InputError(f"{contrast.b} gains nothing on {contrast.c}: there is no share of it")
        return {"": ((a - b) / (c - b)).dropna().tolist()}
    if contrast.kind == "slope":
        return {"": _slopes({alpha: logs(name) for name, alpha in contrast.over.items()})}
    if contrast.kind == "rings":
        return _rings(contrast, results, at)
    if contrast.kind == "fading":
        first, last = (_rings(contrast, results, share) for share in (0.25, 1.0))
        sizes = ({part: np.sign(np.mean(x)) * np.array(x) for part, x in slopes.items()} for slopes in (first, last))
        before, after = sizes
        return {part: (before[part] - after[part]).tolist() for part in before}
    return {"": _recorded(contrast, results.params)}


def _recorded(contrast: Contrast, params: Params) -> list[float]:
    """The effects that a stage has written."""
    file = recorded(contrast, params)
    entry = read_json(file).get(contrast.measure)
    if not isinstance(entry, dict) or not {"effects", "why"} & entry.keys():
        raise InputError(f"{file} has no {contrast.measure}")
    if "effects" not in entry:  # the stage says why
        raise InputError(str(entry["why"]))
    with reading.of(file):
        return reading.finite(f"effects of {contrast.measure}", entry["effects"], None).tolist()


def logarithms(what: str, distances: pd.Series) -> pd.Series:
    """Of distances, by seed; an unbiased one may fall below 0, and has none (see `Contrast`)."""
    for seed, distance in distances.items():
        if not distance > 0:
            raise InputError(f"{what} is {distance:g} at seed {seed}, which has no logarithm")
    return np.log(distances)


def recorded(contrast: Contrast, params: Params) -> Path:
    """The file of a stage that writes effects of its own, such as endpoint.json."""
    return Path("reports", params.profile or "", f"{_stage(contrast)}.json")


def _rings(contrast: Contrast, results: Results, at: float) -> dict[str, list[float]]:
    """Per seed, the slope over alpha of the mean logarithm of the denoising error in low and in high rings."""
    tables = {alpha: results.denoising(name, at) for name, alpha in contrast.over.items()}
    found: dict[str, list[float]] = {}
    for part, inside in {
        "low rings": lambda r: (r > 0) & (r < LOW * LARGEST),
        "high rings": lambda r: r > HIGH * LARGEST,
    }.items():
        if part not in contrast.rings:
            continue
        rows = {alpha: table[inside(table.radius)] for alpha, table in tables.items()}
        logs = {a: np.log(t.set_index(["seed", "snr", "radius"]).error) for a, t in rows.items()}
        common = pd.DataFrame(logs).dropna()  # where the schedule reaches the SNR with every noise
        if common.empty:
            raise InputError(f"there is no error in {part} that all of {', '.join(contrast.over)} have")
        means = common.groupby(level="seed").mean()
        found[part] = _slopes({alpha: means[alpha] for alpha in means})
    return found


def _slopes(by_alpha: dict[float, pd.Series]) -> list[float]:
    table = pd.DataFrame(by_alpha).dropna()
    return [slope(list(table.columns), row) for row in table.to_numpy()]


def answer(name: str, contrast: Contrast, results: Results, at: float = 1.0) -> Answer:
    """The verdict on a contrast, before any correction."""
    try:
        if contrast.kind == "recorded":
            file = recorded(contrast, results.params)
            missing = [] if file.exists() else [f"stage {file.stem}"]
        else:
            missing = [lacks for s in settings_of(contrast, results.bands) if (lacks := results.lacking(s))]
        if missing:
            why = f"missing: {', '.join(missing[:3])}{', ...' if missing[3:] else ''}"
            return Answer(name, contrast, None, why=why)
        found = effects(contrast, results, at)
        return Answer(name, contrast, judged(contrast, found), tuple(found))
    except InputError as error:  # a file that is damaged, no logarithm: the other contrasts have their answers
        return Answer(name, contrast, None, why=str(error), failed=True)


def judged(contrast: Contrast, found: dict[str, list[float]]) -> Decision | Joint:
    """The verdict on effects."""
    sides = RINGS if contrast.kind == "rings" else dict.fromkeys(found, contrast.expected)
    if len(found) == 1:
        (part,) = found
        return decide(found[part], sides[part], contrast.margin)
    return every(list(found.values()), [sides[part] for part in found])


def answers(results: Results, file: File) -> dict[str, dict[str, Answer]]:
    """Every contrast's answer, by question: the secondary ones are corrected together (Holm), over all questions."""
    found = {
        q: {k: answer(k, c, results) for k, c in question.contrasts.items()} for q, question in file.questions.items()
    }
    missing = sum(
        2 if a.contrast.kind in ("every", "rings", "fading") else 1
        for its in found.values() for a in its.values() if not a.contrast.primary and not a.decision
    )  # fmt: skip
    rest = [(q, k) for q, its in found.items() for k, a in its.items() if not a.contrast.primary and a.decision]
    listed = [found[q][k] for q, k in rest]
    adjusted = corrected([a.decision for a in listed if a.decision], [a.contrast.expected for a in listed], missing)
    for (q, k), decision in zip(rest, adjusted, strict=True):
        found[q][k] = replace(found[q][k], decision=decision)
    return found


@dataclass(frozen=True)
class Pilot:
    """What the pilot says of the number of seeds.

    Parameters
    ----------
    spread, upper
        Standard deviation of an effect over the seeds, pooled over the pairs, and its upper bound at 90 %.
    freedom
        Degrees of freedom.
    for_effect, for_margin
        Seeds that find the effect, and that tell no effect to be smaller than the margin, with a power of 90 %, at the
        spread and at its upper bound.
    """

    spread: float
    upper: float
    freedom: int
    for_effect: tuple[int, int]
    for_margin: tuple[int, int]


def pilot(results: Results, power: Power) -> Pilot:
    """The number of seeds that the pilot asks for."""
    from scipy.stats import chi2

    for name in (name for pair in power.pairs for name in pair):
        logarithms(f"{PRIMARY} of {name}", results.of(name))
    effects = [np.log(results.of(a) / results.of(b)).dropna().to_numpy() for a, b in power.pairs]
    if any(len(x) < 2 for x in effects):
        raise InputError("a pair of arms has fewer than two seeds in common")
    freedom = sum(len(x) - 1 for x in effects)
    spread = math.sqrt(sum(np.square(x - x.mean()).sum() for x in effects) / freedom)
    upper = spread * math.sqrt(freedom / chi2.ppf(0.1, freedom))
    for_effect = (seeds_needed(spread, power.effect), seeds_needed(upper, power.effect))
    for_margin = (seeds_needed(spread, 0.0, margin=power.margin), seeds_needed(upper, 0.0, margin=power.margin))
    return Pilot(spread, upper, freedom, for_effect, for_margin)


def overall(its: dict[str, Answer]) -> str:
    """The verdicts of a question's primary contrasts; with a reservation where a secondary one is against them."""
    verdicts = list(dict.fromkeys(a.verdict for a in its.values() if a.contrast.primary))
    secondary = (a.decision for a in its.values() if not a.contrast.primary and a.decision)
    against = any(decision.verdict in (CONTRADICTED, PART) for decision in secondary)
    return f"{SUPPORTED}, with a reservation" if verdicts == [SUPPORTED] and against else "; ".join(verdicts)
