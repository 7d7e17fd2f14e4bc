"""The study's numbers as tables, read from the small files in reports/ for the settings that the parameters list."""

import inspect
import json

import pandas as pd

from pipeline.pages import reading
from pipeline.params import Params, Setting
from sagd.noise.base import Noise
from sagd.operators import OPERATORS, from_dict
from sagd.runtime.files import read_json


def noise_of(setting: Setting) -> Noise:
    """The noise that a setting was trained with, as `encode` wrote it."""
    file = setting.report("encode", "json")
    with reading.of(file):
        return from_dict(read_json(file, noise=dict)["noise"])


# What reads better than an operator's name and its keys.
PHRASES = {
    "two_band": lambda n: f"two-band {n.low} {n.gamma_low:g}, {n.high} {1 - n.gamma_low:g}",
    "band_pass": lambda n: f"band pass {n.band}",
    "offset": lambda n: f"offset noise {n.strength:g}",
    "equal_snr": lambda n: "EqualSNR, the data's own spectrum",
    "data_matched": lambda n: "the data's spectrum, radially averaged",
}


def describe(setting: Setting) -> str:
    """The noise of a setting in a few words: its operator, and the keys that differ from their defaults."""
    noise = setting.noise
    if noise.schedule == "varying":
        return f"power law, alpha {noise.alpha:g} to {noise.alpha_last:g}"
    if noise.operator in PHRASES:
        return PHRASES[noise.operator](noise)
    name, given = noise.operator, noise.arguments
    if noise.file is None:  # an operator of the library
        name, given = name.replace("_", " "), _given(setting)
    return ", ".join([name, *(f"{key} {_short(value)}" for key, value in given.items())])


def _given(setting: Setting) -> dict:
    """The keys of an operator of the library that differ from their defaults."""
    noise, found = setting.noise, {}
    for name, argument in inspect.signature(OPERATORS[noise.operator]).parameters.items():
        value = getattr(noise, name, None)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and value != argument.default:
            found[name] = f"{alpha_of(setting):g} (auto)" if value == "auto" else value
    return found


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def alpha_of(setting: Setting) -> float:
    """The exponent of a constant power law, also where it is ``auto``."""
    return noise_of(setting).to_dict()["alpha"]


def alpha(setting: Setting) -> float | None:
    """The exponent, of settings that have one and whose data are clean."""
    constant = setting.noise.operator in ("isotropic", "power_law") and setting.noise.schedule == "constant"
    if setting.corrupt.band is not None or not constant:
        return None
    return alpha_of(setting) if setting.noise.operator == "power_law" else 0.0


def arm(setting: Setting) -> str:
    """Which remedy a setting with corrupted training images is.

    ``isotropic``: none; ``projected``, ``literal``: the noise leaves all of the band out, and the loss is projected or
    the paper's; ``filtered``: the band is filtered out of the images; ``other``. ``clean``: images without corruption.
    """
    if setting.corrupt.band is None:
        return "clean"
    if setting.corrupt.filtered:
        return "filtered"
    if setting.noise.operator == "isotropic":
        return "isotropic"
    file = setting.report("encode", "json")
    with reading.of(file):
        reached = read_json(file)["corrupted_frequencies"]["reached_by_the_noise"]
    if reached:
        return "other"
    return "projected" if setting.train.project else "literal"


def data(setting: Setting) -> str:
    """The images that a setting starts from: settings with the same ones can be compared."""
    return setting.corrupt.model_dump_json(exclude={"filtered"}) if setting.corrupt.band else "clean"


def protocol(setting: Setting) -> str:
    """How a setting is trained, sampled and measured, without what changes no number, and without what makes its `arm`.

    What changes only the rounding, such as how many images are computed at a time, is left out as well.
    """
    described = {
        "encode": setting.encode.model_dump(exclude={"on_the_fly", "per_shard", "batch_size"}),
        "train": setting.train.model_dump(exclude={"repeats", "snapshots", "project", "micro_batch_size", "compile"}),
        "sample": setting.sample.model_dump(exclude={"earlier", "batch_size"}),
        "evaluate": setting.evaluate.model_dump(include={"features"}),
    }
    return json.dumps(described)


def table(params: Params, distance: str) -> pd.DataFrame:
    """One row a setting: what it is, its distances with their standard errors, and what they rest on.

    Parameters
    ----------
    distance
        The name of the Fréchet or of the kernel distance, such as ``fd_efficientnet_lite0``.
    """
    rows = []
    for setting in params.drawn:
        result, of_seeds = reading.summary(setting), reading.detail(setting)
        with reading.of(setting.report("evaluate", "seeds.json")):
            of = {"per_seed": distance} | {part: part for part in ("pixels_mean", "pixels_dc", "pixels_rest")}
            measures = {column: of_seeds["per_seed"][name] for column, name in of.items()}
        rows.append(
            {
                "setting": setting.title,
                "noise": describe(setting),
                "operator": setting.noise.operator,
                "alpha": alpha(setting),
                "corrupted": str(setting.corrupt.band or "no"),
                "data": data(setting),
                "arm": arm(setting),
                "protocol": protocol(setting),
                "distance": result[distance],
                "distance_se": result[f"{distance}_se"],
                "sample_se": result[f"{distance}_sample_se"],
                "real": result[f"{distance}_of_real"],
                "filtered": result.get(f"{distance}_of_filtered"),
                **measures,
                "measured": result,
                "caveats": of_seeds["caveats"],
                "seeds": len(of_seeds["seeds"]),
                "seed_list": of_seeds["seeds"],
                "samples": result["samples_per_seed"],
            }
        )
    return pd.DataFrame(rows).set_index("setting")


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
