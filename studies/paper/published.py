"""The paper's published numbers beside ours: one row a cell, also of cells that were not run.

The files of `studies/paper/published` are the tables of Scimeca et al. (arXiv 2510.09660) and of its workshop ancestor
(arXiv 2502.10236).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from pipeline.pages import earlier, reading
from pipeline.pages.blocks import folded, keep, table
from pipeline.pages.verdicts import number
from pipeline.params import Params
from pipeline.run import timings
from sagd.figures import study
from studies.plan import code, digits

FOLDER = Path(__file__).with_name("published")
# What the paper shows, and the settings that it takes: a pattern for ONLY of `make paper`.
EXPERIMENTS = {
    "Table 1, F.1, F.2, Fig. F.1, Fig. 4: natural images over alpha": (
        "^(mnist|cifar10|quickdraw|wikiart|ffhq|imagenet)_(iso|[mp][0-9]+)$"
    ),
    "Fig. 3: CIFAR-10 with noise in [0, 0.3]": "^cifar10_low_",
    "Table 2, Fig. 5: selective omission": "^omission_",
    "Workshop paper, Table 1: two-band sweep": "^(mnist|cifar10|quickdraw|wikiart|celeba)_(iso|g[0-9]+)$",
    "Workshop paper, Fig. 3: CIFAR-10 with noise in [0.3, 1]": "^cifar10_high_",
    "Audits": "^audit_",
}
DATASETS = ("mnist", "cifar10", "quickdraw", "wikiart", "ffhq", "imagenet")  # in the order of the paper's Table 1
NAMES = {  # of the data sets, on figures
    "mnist": "MNIST", "cifar10": "CIFAR-10", "quickdraw": "QuickDraw", "wikiart": "WikiArt", "ffhq": "FFHQ",
    "imagenet": "ImageNet", "celeba": "CelebA",
}  # fmt: skip
MEASURED = (
    "fd", "fd_se", "fd_seeds", "seed_list", "kd", "kd_se", "real", "seeds", "samples", "measured", "features", "label",
    "images_per_second", "device",
)  # fmt: skip
ACROSS = 3  # panels side by side
COLUMNS, ROWS = 12, 2  # of the grids that stages write, and how many rows of one Fig. 5 shows
Panels = list[tuple[str, dict[str, pd.DataFrame]]]


def cells(params: Params) -> pd.DataFrame:
    """What was measured in this profile: one row a setting of the study, run or not.

    Returns
    -------
    DataFrame
        Indexed by setting: group, noise (its parameters), run (bool), command, and of those that were run the
        distances' means, standard errors and lists over the seeds (``fd``, ``fd_se``, ``fd_seeds``; ``kd``; and
        ``corrupted_fd``, to the corrupted held-out images), ``real`` (the distance of real images, as many), seeds,
        samples a seed, held-out images, features, ``measured`` (in which profile, and by which version if not by this
        one), images a run saw; and from ``reports/timings.json``, which may lack some settings, images a second and
        device.
    """
    rows, stages, timed = [], params.raw.get("stages") or {}, timings.read()
    old = earlier.results(params)
    for setting in params.settings:
        row: dict[str, Any] = {"setting": setting.name, "group": setting.group, "noise": setting.noise, "run": False}
        row["command"] = f"cd paper && dvc repro measure@{setting.name if setting.name in stages else setting.group}"
        if params.measured(setting):
            found = reading.summary(setting), reading.detail(setting)
            with reading.of(setting.report("evaluate", "seeds.json").parent):
                row |= {"run": True, **_measured(*found)}
            if setting.title in old:
                row["measured"] += f", {old[setting.title]}"
            row["images"] = setting.train.steps * setting.train.batch_size
            row |= {key: timed.get(setting.title, {}).get(key) for key in ("images_per_second", "device")}
        rows.append(row)
    found = pd.DataFrame(rows).set_index("setting")
    for column in MEASURED:
        if column not in found:
            found[column] = np.nan
    return found.astype({"images_per_second": float})


def _measured(result: dict, detail: dict) -> dict:
    names = {"fd": detail["names"]["fid"], "kd": detail["names"]["kid"]}
    names |= {f"corrupted_{short}": f"corrupted_{name}" for short, name in list(names.items())}
    names["best"] = f"{names['fd']}_best"  # the lowest over a run's checkpoints, as the paper's figures plot
    if f"reference_{names['fd']}" in result:  # a reference of its own (evaluate.reference) is what the paper took
        names["fd"] = f"reference_{names['fd']}"
    row = {
        "real": result[f"{names['fd']}_of_real"],
        "seeds": result["seeds"],
        "seed_list": detail["seeds"],
        "samples": result["samples_per_seed"],
        "held_out": result["held_out"],
        "features": detail["features"],
        "label": names["fd"],
        "measured": detail["profile"],
    }
    for short, name in names.items():
        if name in result:
            row |= {short: result[name], f"{short}_se": result[f"{name}_se"]}
            row[f"{short}_seeds"] = detail["per_seed"][name]
    return row


def label_of(ours: pd.DataFrame) -> str:
    """The name of the distances that were measured."""
    return ", ".join(dict.fromkeys(ours.label[ours.run])) or "distance"


def hours(run: pd.DataFrame) -> float:
    """The time that training took, of the settings that were run and whose speed is known."""
    return float((run.images * run.seeds / run.images_per_second).sum() / 3600)


def summary(params: Params, ours: pd.DataFrame) -> str:
    """What was run, how, on what, in Markdown."""
    run, first = ours[ours.run], params.settings[0]
    said = [f"**Profile {params.profile}**, {len(run)} of {len(ours)} settings run."]
    if params.profile == "smoke":
        said.append("Digits stand in for every data set: **no number means anything**.")
    if not len(run):
        return " ".join(said)
    if "fid_" not in label_of(ours):
        said.append(
            f"It measures on the features of {run.features.iloc[0]}, so **its distances are not FIDs** and their size "
            "cannot be compared with the published ones; their order can."
        )
    train, sample = first.train, first.sample
    network = f"{'U-Net' if train.unet else 'DiT'} {train.architecture.widths}"
    said.append(
        f"{_time(run)} Each run takes {train.steps} steps of {train.batch_size}, {network}, "
        f"{sample.sampler.upper()} with {sample.steps} steps ({sample.spacing}). Means and standard errors over the "
        f"seeds; real images in the samples' place have "
        f"{' to '.join(sorted({f'{r:.1f}' for r in (run.real.min(), run.real.max())}))}."
    )
    return " ".join(said)


def _time(run: pd.DataFrame) -> str:
    timed = run[run.images_per_second.notna()]
    if not len(timed):
        return "How long training took is not known (`reports/timings.json`)."
    lacking = f" ({len(timed)} of the settings; the speed of the others is not known)" if len(timed) < len(run) else ""
    return f"Training took {hours(timed):.1f} hours{lacking} on {', '.join(sorted(set(timed.device)))}."


def overview(ours: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Every experiment of the paper: how much of it was run, and the command that runs it alone."""
    rows = []
    for name, pattern in EXPERIMENTS.items():
        run = ours.run[ours.index.str.match(pattern)]
        command = f"make paper PROFILE={profile} ONLY='{pattern}'"
        rows.append({"experiment": name, "settings run": f"{run.sum()} of {len(run)}", "command": command})
    theory = "Fig. 1, 2, D.1, D.2, App. A: the method, the theory, the animations"
    rows.append({"experiment": theory, "settings run": "in theory.html", "command": "make theory"})
    return pd.DataFrame(rows)


def over_alpha() -> pd.DataFrame:
    """Table 1, F.1 and F.2: setting, dataset, alpha, fid_mean, fid_stderr, kid_mean, kid_stderr (no KID: NaN).

    ``x``, in this table and in the others, is what stands below a bar.
    """
    keys = ["dataset", "alpha"]
    fid = pd.read_csv(FOLDER / "table_f1_fid.csv").drop(columns="feature_dim")
    kid = pd.read_csv(FOLDER / "table_f2_kid.csv").drop(columns="feature_dim")
    found = fid.merge(kid, on=keys, how="left").sort_values(keys)
    names = [f"{d}_{code(a) if a else 'iso'}" for d, a in zip(found.dataset, found.alpha, strict=True)]
    return found.assign(setting=names, x=_signed(found.alpha))


def over_bands() -> pd.DataFrame:
    """Table 2: setting, band (its edges), sampler (isotropic, bpm), and the distances."""
    found = pd.read_csv(FOLDER / "table_2_omission.csv")
    short = found.sampler.map({"isotropic": "iso", "bpm": "bpm"})
    edges = found.band_low.map(digits) + "_" + found.band_high.map(digits)
    pairs = list(zip(found.band_low, found.band_high, strict=True))
    band, x = ([said.format(*pair) for pair in pairs] for said in ("[{:g},\u00a0{:g}]", "{:g}-{:g}"))
    return found.assign(setting="omission_" + edges + "_" + short, band=band, x=x, kind=found.sampler)


def over_gamma() -> pd.DataFrame:
    """The workshop paper's Table 1: setting, dataset, gamma_low, and the distances."""
    found = pd.read_csv(FOLDER / "workshop_table_1_two_band.csv").sort_values(["dataset", "gamma_low"])
    names = [
        f"{d}_{'iso' if g == 0.5 else 'g' + digits(g)}" for d, g in zip(found.dataset, found.gamma_low, strict=True)
    ]
    return found.assign(setting=names, x=[f"{g:g}" for g in found.gamma_low])


def by_dataset(table: pd.DataFrame, names: tuple[str, ...] | None = None) -> dict[str, pd.DataFrame]:
    """A published table in parts, one a data set; in alphabetical order if no other is given."""
    return {name: table[table.dataset == name] for name in names or sorted(set(table.dataset))}


def own_sweep(ours: pd.DataFrame, group: str, key: str) -> pd.DataFrame:
    """The settings of a group without a published table, sorted by a key of their noise: columns of `cells`, and x."""
    rows = ours[ours.group == group].rename_axis("setting").reset_index()
    rows[key] = [0.0 if key == "alpha" and n.operator != "power_law" else getattr(n, key) for n in rows.noise]
    rows = rows.sort_values(key)
    return rows.assign(x=_signed(rows[key]) if key == "alpha" else [f"{v:g}" for v in rows[key]])


def _signed(values) -> list[str]:
    return [f"{v:+g}" if v else "0" for v in values]


def panels(tables: dict[str, pd.DataFrame], ours: pd.DataFrame) -> Panels:
    """What `sagd.figures.study.bar_panels` draws: of each data set published FIDs, and below them ours."""
    published = {_name(n): _bars(t, t.fid_mean.to_numpy(), t.fid_stderr.to_numpy()) for n, t in tables.items()}
    own = {_name(name): own_bars(table, ours) for name, table in tables.items()}
    names, found = list(published), []
    for start in range(0, len(names), ACROSS):
        some = names[start : start + ACROSS]
        found.append(("published FID", {name: published[name] for name in some}))
        found.append((f"ours, {label_of(ours)}", {name: own[name] for name in some}))
    return found


def own_panels(rows: pd.DataFrame, ours: pd.DataFrame) -> Panels:
    """The same for `own_sweep`: distances to the clean held-out images, and to the corrupted ones."""
    kinds = {"to clean images": "fd", "to corrupted images": "corrupted_fd"}
    return [(f"ours, {label_of(ours)}", {name: own_bars(rows, ours, quantity) for name, quantity in kinds.items()})]


def _name(dataset: str) -> str:
    return NAMES.get(dataset, dataset)


def drawn(name: str, tables: dict[str, pd.DataFrame], ours: pd.DataFrame, caption: str) -> HTML:
    """The figure of a published table, where two cells or more were run of a data set; the other data sets folded.

    Parameters
    ----------
    name
        Of the file below `FIGURES`; that of the folded figure ends with ``_published``.
    caption
        HTML.
    """
    compared = {n: t for n, t in tables.items() if ours.run[t.setting].sum() > 1}
    others = {n: t for n, t in tables.items() if n not in compared}
    shown = _figure(name, panels(compared, ours), caption) if compared else ""
    if others:
        published = [row for row in panels(others, ours) if row[0] == "published FID"]
        told = ", ".join(map(_name, others))
        folded_caption = f"The published numbers of {told}, of which nothing was run that could stand beside them."
        content = _figure(f"{name}_published", published, folded_caption)
        shown += f"<details><summary><b>Published alone</b>: {told}</summary>{content}</details>"
    return HTML(shown)


def own_drawn(name: str, rows: pd.DataFrame, ours: pd.DataFrame, caption: str) -> HTML:
    """The same for `own_sweep`; nothing where less than two cells were run."""
    return HTML(_figure(name, own_panels(rows, ours), caption) if rows.run.sum() > 1 else "")


def _figure(name: str, rows: Panels, caption: str) -> str:
    return keep(study.bar_panels(rows), name, caption, seen(rows), svg=True).data


def seen(rows: Panels) -> str:
    """The bars of a figure in words, for those who do not see them."""
    told = []
    for label, tables in rows:
        for name, frame in tables.items():
            kinds = frame.groupby("kind", sort=False) if "kind" in frame else [("", frame)]
            for kind, some in kinds:
                there = some[some["mean"].notna()]
                if not len(there):
                    continue
                low, high = there.loc[there["mean"].idxmin()], there.loc[there["mean"].idxmax()]
                told.append(
                    f"{name}, {label}{f', {kind}' if kind else ''}: {len(there)} of {len(some)} bars, from "
                    f"{low['mean']:.3g} at {low.x} to {high['mean']:.3g} at {high.x}"
                )
    return f"Bar charts. {'; '.join(told)}."


def own_bars(table: pd.DataFrame, ours: pd.DataFrame, quantity: str = "fd") -> pd.DataFrame:
    """The bars of our numbers for the cells of a table with the columns setting and x."""
    own = ours.reindex(table.setting)
    missing = np.full(len(own), np.nan)
    mean, error = (own[q].to_numpy(float) if q in own else missing for q in (quantity, f"{quantity}_se"))
    return _bars(table, mean, error)


def _bars(table: pd.DataFrame, mean: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    kind = {"kind": table.kind.to_numpy()} if "kind" in table else {}
    return pd.DataFrame({"x": table.x.to_numpy(), "mean": mean, "error": error, **kind})


def beside(published: pd.DataFrame, ours: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The cells of a published table that were run: what was published, and what was measured here."""
    label, rows = label_of(ours), []
    for cell in published[ours.run[published.setting].to_numpy(bool)].itertuples():
        own = ours.loc[cell.setting]
        row = _published(cell, keys)
        row[f"ours, {label}"] = number(own.fd, own.fd_se)
        row[f"ours, {label.replace('fd', 'kd').replace('fid', 'kid')}"] = number(own.kd, own.kd_se)
        if "best" in ours and ours.best.notna().any():
            row["best checkpoint"] = number(own.best, own.best_se) if pd.notna(own.best) else ""
        row["seeds"], row["samples a seed"] = f"{own.seeds:.0f}", f"{own.samples:.0f}"
        row["measured in profile"] = own.measured
        rows.append(row)
    return pd.DataFrame(rows)


def not_run(published: pd.DataFrame, ours: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The cells of a published table that were not run: what was published, and the command that runs them."""
    missing = published[~ours.run[published.setting].to_numpy(bool)]
    rows = [{**_published(cell, keys), "command": ours.command[cell.setting]} for cell in missing.itertuples()]
    return pd.DataFrame(rows)


def _published(cell: Any, keys: list[str]) -> dict[str, str]:
    row = {key: f"{value:g}" if isinstance(value := getattr(cell, key), float) else _name(value) for key in keys}
    row["published FID"] = number(cell.fid_mean, cell.fid_stderr)
    row["published KID"] = number(cell.kid_mean, cell.kid_stderr) if pd.notna(cell.kid_mean) else "none"
    return row


def shown(published: pd.DataFrame, ours: pd.DataFrame, keys: list[str]) -> HTML:
    """A published table beside ours: the cells that were run, and below them the others, folded."""
    return run_first(beside(published, ours, keys), not_run(published, ours, keys))


def run_first(run: pd.DataFrame, missing: pd.DataFrame) -> HTML:
    """A table of what was run, and below it, folded, one of what was not; of none there is nothing to see."""
    found = table(run, text=True).data if len(run) else ""
    if len(missing):
        said = f"{len(missing)} of {len(run) + len(missing)} cells"
        found += folded("Not run", said, missing, unfolded=False).data
    return HTML(found)


def own_table(rows: pd.DataFrame, ours: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows of `own_sweep` that were run; ``key`` is the title of the first column."""
    rows = rows[rows.run.astype(bool)]
    label, shown = label_of(ours), pd.DataFrame({key: list(rows.x)})
    for name, quantity in (("clean", "fd"), ("corrupted", "corrupted_fd")):
        values = own_bars(rows, ours, quantity)
        shown[f"ours, {label}, to {name}"] = [number(*v) for v in zip(values["mean"], values.error, strict=True)]
    shown["seeds"], shown["samples a seed"] = ([f"{v:.0f}" for v in rows[k]] for k in ("seeds", "samples"))
    shown["measured in profile"] = list(rows.measured)
    return shown


def own_shown(rows: pd.DataFrame, ours: pd.DataFrame, key: str) -> HTML:
    """`own_table`, and below it, folded, the cells that were not run."""
    missing = rows[~rows.run.astype(bool)]
    return run_first(own_table(rows, ours, key), pd.DataFrame({key: list(missing.x), "command": list(missing.command)}))


def boost(weight: Tensor) -> float:
    """The weight of the zero frequency over the root mean square of the others; 1: white noise."""
    return (weight[0, 0] / weight.flatten()[1:].square().mean().sqrt()).item()


def zero_frequency(params: Params, setting: str = "mnist_m006") -> str:
    """On which noise the claim over alpha is tested, and how it differs from the paper's listing, in Markdown."""
    noise, size = params.setting(setting).noise, params.dataset("mnist").size
    listed = noise.model_copy(update={"dc": "floor"})
    ours, theirs = (boost(n.spectrum(torch.ones(size, size), None).at(0).weight) for n in (noise, listed))
    return (
        f"**On which noise this is tested:** the cells over alpha have `noise.dc: {noise.dc}`. At alpha "
        f"{noise.alpha:g} and {size} x {size} the zero frequency then has {ours:.2f} times the weight of the others "
        f"(their root mean square). In the paper's listing (`noise.dc: floor`) it has {theirs:.2f} times. So what is "
        "tested here is the tilt of the spectrum, without most of the listing's boost of brightness; the two are "
        "compared in the audit *Tilt, or brightness?*"
    )


def figure_5(params: Params) -> dict[str, np.ndarray]:
    """Fig. 5: training images, samples of isotropic noise and of bpm: a label to rows of the grid; {} if not run."""
    isotropic, omitting = (params.setting(f"omission_04_05_{kind}") for kind in ("iso", "bpm"))
    files = {
        "training\nimages": isotropic.report("corrupt", "png"),
        "isotropic": isotropic.report("sample", "png"),
        "bpm": omitting.report("sample", "png"),
    }
    if not all(path.is_file() for path in files.values()):
        return {}
    grids = {label: np.asarray(Image.open(path)) for label, path in files.items()}
    return {label: grid[: ROWS * grid.shape[1] // COLUMNS] for label, grid in grids.items()}
