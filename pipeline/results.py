"""The study's numbers as tables, read from the small files in reports/ for the settings that params.yaml lists."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.params import Params, Setting
from sagd.errors import InputError
from sagd.files import read_json
from sagd.spectrum import Spectrum
from sagd.spectrum.varying import Varying, from_dict


def spectrum_of(setting: Setting) -> Spectrum | Varying:
    """The noise that a setting was trained with, as `encode` wrote it."""
    return from_dict(read_json(setting.report("encode", "json")))


def describe(setting: Setting) -> str:
    """The noise of a setting, in a few words."""
    noise = setting.noise
    if noise.schedule == "varying":
        return f"power law, alpha {noise.alpha:g} to {noise.alpha_last:g}"
    if noise.operator == "power_law":
        return f"power law, alpha {alpha_of(setting):g}{' (auto)' if noise.alpha == 'auto' else ''}"
    return {
        "isotropic": "isotropic",
        "band_pass": f"band pass {noise.band}",
        "two_band": f"two-band {noise.low} {noise.gamma_low:g}, {noise.high} {1 - noise.gamma_low:g}",
        "exponential": f"exponential, beta {noise.beta:g}",
        "offset": f"offset noise {noise.strength:g}",
        "equal_snr": "EqualSNR, the data's own spectrum",
        "data_matched": "the data's spectrum, radially averaged",
    }[noise.operator]


def alpha_of(setting: Setting) -> float:
    """The exponent of a constant power law, also where it is ``auto``."""
    return spectrum_of(setting).to_dict()["alpha"]


def alpha(setting: Setting) -> float | None:
    """The exponent, of settings that have one and whose data are clean."""
    constant = setting.noise.operator in ("isotropic", "power_law") and setting.noise.schedule == "constant"
    if setting.corrupt.band is not None or not constant:
        return None
    return alpha_of(setting) if setting.noise.operator == "power_law" else 0.0


def protocol(setting: Setting) -> str:
    """How a setting is trained and sampled, up to what leaves its samples as they are."""
    left_out = {"repeats", "snapshots"}
    return setting.train.model_dump_json(exclude=left_out) + setting.sample.model_dump_json()


def table(params: Params, distance: str) -> pd.DataFrame:
    """One row a setting: what it is, its distances with their standard errors, and what they rest on.

    Parameters
    ----------
    distance
        The name of the Fréchet distance, such as ``fd_efficientnet_lite0``.
    """
    rows = []
    for setting in params.drawn:
        result = read_json(setting.report("evaluate", "json"))
        detail = read_json(setting.report("evaluate", "seeds.json"))
        rows.append(
            {
                "setting": setting.title,
                "noise": describe(setting),
                "alpha": alpha(setting),
                "corrupted": str(setting.corrupt.band or "no"),
                "data": setting.corrupt.model_dump_json() if setting.corrupt.band else "clean",
                "protocol": protocol(setting),
                "distance": result[distance],
                "distance_se": result[f"{distance}_se"],
                "sample_se": result[f"{distance}_sample_se"],
                "real": result[f"{distance}_of_real"],
                "halves": result[f"{distance}_of_halves"],
                "per_seed": detail["per_seed"][distance],
                **{part: detail["per_seed"][part] for part in ("pixels_mean", "pixels_dc", "pixels_rest")},
                "measured": result,
                "caveats": detail["caveats"],
                "seeds": len(detail["seeds"]),
                "samples": result["samples_per_seed"],
                "images_per_second": result["train_images_per_second"],
                "device": detail["run"]["device"],
            }
        )
    return pd.DataFrame(rows).set_index("setting")


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
        if a.data != b.data or b.noise != "isotropic" or a.noise == "isotropic":
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
    """Student's interval of paired differences, at 95 %; of ``tests`` together, by Bonferroni."""
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
    """A value and its error, to the error's two leading digits."""
    sign = "+" if signed else ""
    if not error > 0:
        return f"{value:{sign}.3g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:{sign}.{places}f} ± {error:.{places}f}"


def judged(found: Interval) -> str:
    """The verdict on a prediction that a difference is below 0."""
    return {"smaller": "confirmed", "larger": "refuted"}.get(found.verdict, "undecided")


def distance_by_alpha(results: pd.DataFrame) -> pd.DataFrame:
    """The rows that `dvc plots` draws: distance over alpha, with one standard error on each side."""
    rows = results[results.alpha.notna()].sort_values("alpha")
    error = rows.distance_se.astype(float)
    return pd.DataFrame(
        {
            "setting": rows.index,
            "alpha": rows.alpha.astype(float),
            "distance": rows.distance,
            "standard_error": error,
            "low": rows.distance - error,
            "high": rows.distance + error,
        }
    )
