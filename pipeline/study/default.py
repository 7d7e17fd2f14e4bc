"""The page of the default study: its tables, and the sentences that follow from its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline import params as parameters
from pipeline.params import Params, Setting
from pipeline.study import results, verdicts
from pipeline.study.pages import sentence
from sagd.noise.grid import cycles
from sagd.runtime.files import read_json

PRDC = {
    "precision": "share of the samples within the reference",
    "recall": "share of the reference within the samples",
    "density": "how often, on average",
    "coverage": "share of the reference with a sample near it",
}


@dataclass(frozen=True)
class Study:
    """What the page is made of.

    Parameters
    ----------
    frame
        Of `results.table`: one row a setting.
    detail
        How the setting in focus was measured (``evaluate.seeds.json``).
    data
        What `prepare` says of the images.
    """

    params: Params
    frame: pd.DataFrame
    detail: dict
    data: dict

    @property
    def label(self) -> str:
        """The name of the Fréchet distance, such as ``fd_efficientnet_lite0``."""
        return self.detail["names"]["fid"]

    @property
    def drawn(self) -> dict[str, Setting]:
        """Everything that was sampled, by title."""
        return {setting.title: setting for setting in self.params.drawn}


def read() -> Study:
    """Read the study from params.yaml and reports/."""
    params = parameters.load()
    detail = read_json(params.setting(None).report("evaluate", "seeds.json"))
    frame = results.table(params, detail["names"]["fid"])
    return Study(params, frame, detail, read_json(params.setting(None).prepared_record))


def how_measured(study: Study) -> str:
    """What the numbers of the tables are, in Markdown."""
    detail, frame = study.detail, study.frame
    no_fid = "It is not an FID, and its size cannot be compared with published FIDs. "
    return (
        f"Each distance is that of one seed's samples, averaged over the seeds (the table says how many), to the "
        f"**{study.data['held_out']} held-out images**, on the features of {detail['features']} "
        f"({detail['preprocessing']}). {'' if study.label.startswith('fid') else no_fid}"
        "± is one standard error over the seeds; with so few seeds it is itself only a rough number. *se over samples* "
        "is the bootstrap's standard error of the same number over the samples, for fixed networks. "
        "*Real* is the same distance of real training images, as many as there are samples: what a perfect model "
        "would get. *Halves* is the distance between two halves of the held-out images. "
        + "".join(f"\n\n{sentence(text)}" for text in frame.caveats.explode().dropna().unique())
    )


def _column(frame: pd.DataFrame, name: str, digits: int) -> list[str]:
    """A measured quantity of every setting, with its standard error over the seeds."""

    def shown(measured: dict) -> str:
        if name not in measured:
            return "not measured"
        value, error = measured[name], measured[f"{name}_se"]
        return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if pd.notna(error) else "")

    return [shown(measured) for measured in frame.measured]


def distances(study: Study) -> pd.DataFrame:
    """The main table: the distance of every setting, and what it rests on."""
    frame = study.frame
    return pd.DataFrame(
        {
            "noise": frame.noise,
            "corrupted band": frame.corrupted,
            study.label: _column(frame, study.label, 1),
            "se over samples": [f"{v:.1f}" for v in frame.sample_se],
            "real": [f"{v:.1f}" for v in frame.real],
            "halves": [f"{v:.1f}" for v in frame.halves],
            "seeds": frame.seeds,
            "samples a seed": frame.samples,
        }
    )


def others(study: Study) -> tuple[pd.DataFrame, str]:
    """What else was measured, a column a quantity, and what each of them is, in Markdown."""
    label, features = study.label, study.detail["features"]
    known = {
        f"{label}_infinity": (1, "the distance extrapolated to infinitely many samples"),
        study.detail["names"]["kid"]: (4, "the kernel distance, whose mean does not depend on the number of samples"),
        **{f"{name}_{features}": (2, what) for name, what in PRDC.items()},
        f"{label}_best": (1, "the lowest of a run's checkpoints, an optimistic choice"),
        f"{label}_chosen_on_half": (1, "of the checkpoint that half the samples choose, on the other half"),
        f"{label}_last_on_half": (1, "the last checkpoint, on half the samples, to compare that with"),
    }
    measured = set().union(*study.frame.measured)
    found = {name: what for name, what in known.items() if name in measured}
    columns = {name: _column(study.frame, name, digits) for name, (digits, _) in found.items()}
    meaning = sentence("; ".join(f"`{name}`: {what}" for name, (_, what) in found.items()))
    return pd.DataFrame(columns, study.frame.index), meaning


def against_isotropic(study: Study) -> pd.DataFrame:
    """`verdicts.comparisons`, to show."""
    found = verdicts.comparisons(study.frame)
    found["difference"] = [f"{d:+.1f} ± {h:.1f}" for d, h in zip(found.difference, found["±"], strict=True)]
    return found.drop(columns="±")


def samples(study: Study) -> Iterator[tuple[str, Path]]:
    """What each setting is, in Markdown, and the picture of its samples."""
    for name, setting in study.drawn.items():
        corrupted = f", data corrupted in {setting.corrupt.band}" if setting.corrupt.band else ""
        yield f"**{name}**: {results.describe(setting)}{corrupted}", setting.report("sample", "png")


@dataclass(frozen=True)
class Omission:
    """Settings that were trained on the same corrupted images.

    Parameters
    ----------
    name
        Of files, such as ``04_05``.
    told
        The settings by name, in a list of words.
    shown
        What the pictures show, in Markdown.
    pictures
        The corrupted training images, then the samples of each setting.
    curves
        Of each setting, the power spectra of its samples and of the held-out images (``rapsd.csv``).
    band
        Its edges in cycles per pixel.
    power
        How much power samples have in the band, in Markdown.
    """

    name: str
    told: str
    shown: str
    pictures: list[Path]
    curves: dict[str, pd.DataFrame]
    band: list[float]
    power: str

    @property
    def real(self) -> pd.DataFrame:
        """The frame whose column ``held_out`` is that of the held-out images."""
        return next(iter(self.curves.values()))


def omissions(study: Study) -> list[Omission]:
    """The settings with corrupted training images, together where they have the same ones."""
    return [_omission(study, data) for data in sorted(set(study.frame.data) - {"clean"})]


def _omission(study: Study, data: str) -> Omission:
    settings = {name: study.drawn[name] for name in study.frame.index[study.frame.data == data]}
    first = next(iter(settings.values()))
    edges, told = first.corrupt.band, ", then ".join(settings)
    assert edges is not None  # as the data are not clean
    curves = {name: pd.read_csv(s.report("evaluate", "rapsd.csv")) for name, s in settings.items()}
    band = [edge * cycles(first.corrupt.units) for edge in edges]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in powers_in(band, curves).items())
    return Omission(
        name="_".join(f"{edge:g}" for edge in edges).replace(".", ""),
        told=told,
        shown=f"Training images with noise in {edges} ({first.corrupt.units} units); samples of {told}:",
        pictures=[first.report("corrupt", "png"), *(s.report("sample", "png") for s in settings.values())],
        curves=curves,
        band=band,
        power=f"Power in the band, divided by that of the held-out images: {ratios}.",
    )


def powers_in(band: list[float], curves: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Mean power of samples over that of the held-out images, on the rings of a band (cycles per pixel)."""
    found = {}
    for name, curve in curves.items():
        inside = curve.radius.between(*band)
        found[name] = curve.samples[inside].mean() / curve.held_out[inside].mean()
    return found


def losses(study: Study) -> dict[str, pd.DataFrame]:
    """The training loss of each setting."""
    return {s.title: pd.read_csv(s.report("train", "csv")) for s in study.params.all_settings}


def data_text(study: Study) -> str:
    """Which images the study is about, in Markdown."""
    data = study.data
    return (
        f"Data: {data['source']}; {data['train']} images to train on, {data['held_out']} held out (split seed "
        f"{data['split_seed']}, indices in `reports/prepare.json`), {data['shape']}. The hardware of each training and "
        "its speed are in [timings.json](timings.json)."
    )
