"""The page of the default study: its tables, and the sentences that follow from its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline import params as parameters
from pipeline.pages import reading, results, verdicts
from pipeline.pages.blocks import sentence
from pipeline.params import Params, Setting
from sagd.noise.base import Noise
from sagd.noise.grid import cycles
from sagd.runtime.files import read_json

PRDC = {
    "precision": "share of the samples that lie among the real images",
    "recall": "share of the real images that lie among the samples",
    "density": "how many real images' neighbourhoods a sample lies in, 1 for real images",
    "coverage": "share of the real images with a sample near them",
}
COLUMNS, ROWS = 12, 2  # of the grids that stages write, and how many rows of one a strip shows
REMEDIES = {
    "isotropic": "isotropic noise",
    "literal": "band left out,\nliteral loss",
    "projected": "band left out,\nprojected loss",
    "filtered": "isotropic noise,\nfiltered images",
    "other": "another noise",
}


@dataclass(frozen=True)
class Study:
    """What the page is made of.

    Parameters
    ----------
    frame
        Of `results.table`: one row a setting.
    label
        The name of the frame's distance: the kernel distance, which is unbiased, or where that was not measured the
        Fréchet distance.
    detail
        How the setting in focus was measured (``evaluate.seeds.json``).
    data
        What `prepare` says of the images.
    """

    params: Params
    frame: pd.DataFrame
    label: str
    detail: dict
    data: dict

    @property
    def drawn(self) -> dict[str, Setting]:
        """Everything that was sampled, by title."""
        return {setting.title: setting for setting in self.params.drawn}


def read() -> Study:
    """Read the study from params.yaml and reports/."""
    params = parameters.load()
    of_seeds = reading.detail(params.setting(None))
    with reading.of(params.setting(None).report("evaluate", "seeds.json")):
        frechet, kernel = (str(of_seeds["names"][family]) for family in ("fid", "kid"))
    label = kernel if all(f"{kernel}_of_real" in reading.summary(setting) for setting in params.drawn) else frechet
    record = read_json(params.setting(None).prepared.record)
    return Study(params, results.table(params, label), label, of_seeds, record)


def how_measured(study: Study) -> str:
    """What the terms and the numbers of the tables are, in Markdown."""
    detail, frame = study.detail, study.frame
    kernel, frechet = (_short(study, detail["names"][family]) for family in ("kid", "fid"))
    counts = f"{frame.samples.iloc[0]} samples for each of the seeds {', '.join(map(str, frame.seed_list.iloc[0]))}"
    focus = frame.noise.get("focus", "the first")
    no_fid = "" if frechet == "fid" else " Neither is an FID: their size can't be compared with FIDs."
    return (
        f"*Focus* is the setting that the top-level sections of params.yaml describe ({focus}); the others are its "
        f"grid. Distances are those of one seed's samples to the **{study.data['held_out']} held-out images**, in the "
        f"features of {detail['features']} ({detail['preprocessing']}), averaged over the seeds; lower is better. "
        f"There are {counts} (a setting may have others). *{kernel}* is the squared kernel distance (MMD²), unbiased "
        "at any number of samples, and no measure of legibility: a texture, or the lack of one, may count for more "
        f"than a broken digit; *{frechet}* the Fréchet distance.{no_fid} ± is one standard error over the seeds, "
        f"itself a rough number where they are few (*of each seed*: {_short(study, study.label)}); *± over samples* is "
        f"that of {_short(study, study.label)} over the "
        "samples, for fixed networks. The floors: *real* is the distance of real training images, as many as there are "
        "samples; *real without the band* the same with the corrupted band filtered out, of which no network here can "
        "know anything." + "".join(f"\n\n{sentence(text)}" for text in frame.caveats.explode().dropna().unique())
    )


def _column(frame: pd.DataFrame, name: str, digits: int) -> list[str]:
    """A measured quantity of every setting, with its standard error over the seeds."""

    def shown(measured: dict) -> str:
        if name not in measured:
            return "not measured"
        value, error = measured[name], measured[f"{name}_se"]
        return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if pd.notna(error) else "")

    return [shown(measured) for measured in frame.measured]


def _written(study: Study, values: pd.Series, digits: int = 4) -> list[str]:
    """Distances without errors, empty where there is none; kernel distances are small."""
    digits = 1 if study.label == study.detail["names"]["fid"] else digits
    return [f"{value:.{digits}f}" if pd.notna(value) else "" for value in values]


def distances(study: Study) -> pd.DataFrame:
    """The main table: the distance of every setting, its floors, and what it rests on."""
    frame, names = study.frame, study.detail["names"]
    images = [
        "clean" if arm == "clean" else f"noise in {band}{', filtered out' if arm == 'filtered' else ''}"
        for arm, band in zip(frame.arm, frame.corrupted, strict=True)
    ]
    losses = {"projected": ", projected loss", "literal": ", literal loss"}
    return pd.DataFrame(
        {
            "noise": [f"{n}{losses.get(arm, '')}" for n, arm in zip(frame.noise, frame.arm, strict=True)],
            "training images": images,
            _short(study, names["kid"]): _column(frame, names["kid"], 3),
            "of each seed": [", ".join(_written(study, pd.Series(values), 3)) for values in frame.per_seed],
            _short(study, names["fid"]): _column(frame, names["fid"], 1),
            "± over samples": _written(study, frame.sample_se),
            "real": _written(study, frame.real),
            "real without the band": _written(study, frame.filtered),
        },
        frame.index,
    )


def _short(study: Study, name: str) -> str:
    """A quantity without the name of the features, which the page gives once."""
    return name.removesuffix(f"_{study.detail['features']}")


def others(study: Study) -> tuple[pd.DataFrame, str]:
    """What else was measured, a column a quantity, and what each of them is, in Markdown."""
    label, features = study.detail["names"]["fid"], study.detail["features"]
    known = {
        f"{label}_infinity": (1, "the Fréchet distance extrapolated to infinitely many samples"),
        **{f"{name}_{features}": (2, what) for name, what in PRDC.items()},
        f"{label}_best": (1, "the lowest of a run's checkpoints, an optimistic choice"),
        f"{label}_chosen_on_half": (1, "of the checkpoint that half the samples choose, on the other half"),
        f"{label}_last_on_half": (1, "the last checkpoint, on half the samples, to compare that with"),
    }
    measured = set().union(*study.frame.measured)
    found = {name: what for name, what in known.items() if name in measured}
    columns = {_short(study, name): _column(study.frame, name, digits) for name, (digits, _) in found.items()}
    meaning = sentence("; ".join(f"*{_short(study, name)}*: {what}" for name, (_, what) in found.items()))
    return pd.DataFrame(columns, study.frame.index), meaning


def differences(study: Study) -> pd.DataFrame:
    """`verdicts.comparisons`, to show."""
    found = verdicts.comparisons(study.frame)
    intervals = zip(found.difference, found["±"], strict=True)
    found["difference"] = [verdicts.number(d, half, signed=True) for d, half in intervals]
    words = {"smaller": "better", "larger": "worse", "within the noise": "can't be told"}
    return found.replace({"verdict": words}).drop(columns="±")


def clean_strips(study: Study) -> dict[str, np.ndarray]:
    """Of the settings with clean images: the images, then samples of each; a label to rows of the grid."""
    settings = {name: s for name, s in study.drawn.items() if s.corrupt.band is None}
    noise = study.frame.noise
    rows = {name: (f"{noise[name]}\n({name})", s.report("sample", "png")) for name, s in settings.items()}
    images = next((s.report("corrupt", "png") for s in settings.values()), None)
    return _strips(study, rows, {"training images": images} if images else {})


@dataclass(frozen=True)
class Omission:
    """Settings that were trained on images with the same corruption.

    Parameters
    ----------
    name
        Of files, such as ``04_05``.
    edges, units
        Of the band, as params.yaml has them.
    strips
        The corrupted training images, samples of each setting, and the floor: a label to rows of the grid.
    curves
        Of each setting, the power spectra of its samples and of the held-out images (``rapsd.csv``).
    band
        Its edges in cycles per pixel.
    power
        How much power samples have in the band, and how the noise's energy differs from white noise's, in Markdown.
    """

    name: str
    edges: list[float]
    units: str
    strips: dict[str, np.ndarray]
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
    frame = study.frame[study.frame.data == data]
    settings = {name: study.drawn[name] for name in frame.index}
    first = next(iter(settings.values()))
    edges = first.corrupt.band
    assert edges is not None  # as the data are not clean
    curves = {
        f"{_line(REMEDIES[frame.arm[name]])} ({name})": reading.table(
            s.report("evaluate", "rapsd.csv"), "radius", "held_out", "samples"
        )
        for name, s in settings.items()
    }
    band = [edge * cycles(first.corrupt.units) for edge in edges]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in powers_in(band, curves).items())
    rows = {name: (REMEDIES[frame.arm[name]], s.report("sample", "png")) for name, s in settings.items()}
    before, after = {}, {}
    for name, setting in settings.items():
        if frame.arm[name] == "filtered":
            floor = f"real images\nwithout the band\n{study.label.split('_')[0]} {frame.filtered[name]:.3f}"
            after[floor] = setting.report("corrupt", "png")
        else:
            before["training images"] = setting.report("corrupt", "png")
    return Omission(
        name="_".join(f"{edge:g}" for edge in edges).replace(".", ""),
        edges=edges,
        units=first.corrupt.units,
        strips=_strips(study, rows, before, after),
        curves=curves,
        band=band,
        power=f"Power in the band, divided by that of the held-out images: {ratios}.{_energy(settings)}",
    )


def _line(label: str) -> str:
    return label.replace("\n", " ")


def _energy(settings: Mapping[str, Setting]) -> str:
    """What the noises that leave frequencies out have more of in the others."""
    told = {}
    for name, setting in settings.items():
        noise = results.noise_of(setting)
        if noise.constant and not noise.full:
            more = noise.at(0).weight[noise.support].square().mean().item() - 1
            told[name] = f"{100 * more:.0f} % ({name})"
    if not told:
        return ""
    return (
        " Noise that leaves frequencies out has the pixel variance of the others, so it has more energy in what "
        f"remains, by {', '.join(told.values())}: a small difference besides the omission."
    )


def _strips(
    study: Study, rows: Mapping[str, tuple[str, Path]], before: Mapping[str, Path], after: Mapping[str, Path] = {}
) -> dict[str, np.ndarray]:
    """Rows of the grids in PNG files, under labels; those of settings (label, file) with their distance."""
    found = {label: _top(path) for label, path in before.items()}
    for name, (label, path) in rows.items():
        found[f"{label}\n{study.label.split('_')[0]} {study.frame.distance[name]:.3f}"] = _top(path)
    return found | {label: _top(path) for label, path in after.items()}


def _top(path: Path) -> np.ndarray:
    """The first rows of a grid, (height, width) or (height, width, 3), uint8."""
    grid = np.asarray(Image.open(path))
    return grid[: ROWS * grid.shape[1] // COLUMNS]


def powers_in(band: list[float], curves: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Mean power of samples over that of the held-out images, on the rings of a band (cycles per pixel)."""
    found = {}
    for name, curve in curves.items():
        inside = curve.radius.between(*band)
        found[name] = curve.samples[inside].mean() / curve.held_out[inside].mean()
    return found


def noises(study: Study) -> dict[str, Noise]:
    """The noise of each setting, those of the same noise together."""
    found: dict[str, list[Setting]] = {}
    for setting in study.params.all_settings:
        found.setdefault(results.describe(setting), []).append(setting)
    return {
        f"{noise} ({', '.join(s.title for s in settings)})": results.noise_of(settings[0])
        for noise, settings in found.items()
    }


def losses(study: Study) -> dict[str, pd.DataFrame]:
    """The training loss of each setting."""
    return {s.title: reading.table(s.report("train", "csv"), "step", "loss") for s in study.params.all_settings}


def data_text(study: Study) -> str:
    """Which images the study is about, in Markdown."""
    data = study.data
    return (
        f"Data: {data['source']}; {data['train']} images to train on, {data['held_out']} held out (split seed "
        f"{data['split_seed']}, indices in `reports/prepare.json`), {data['shape']}. The hardware of each training and "
        "its speed are in [timings.json](timings.json)."
    )
