"""The paper's published numbers beside ours: one row a cell, also of cells that were not run.

The files of `paper/published` are the tables of Scimeca et al. (arXiv 2510.09660) and of its workshop ancestor
(arXiv 2502.10236).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.params import Params
from pipeline.plan import code, digits
from pipeline.run import timings
from pipeline.study.pages import folded
from pipeline.study.verdicts import number
from sagd.runtime.files import read_json

FOLDER = Path("published")  # from paper/
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
MEASURED = (
    "fd", "fd_se", "fd_seeds", "kd", "kd_se", "real", "seeds", "samples", "profile", "features", "label",
    "images_per_second", "device",
)  # fmt: skip


def cells(params: Params) -> pd.DataFrame:
    """What was measured in this profile: one row a setting of the study, run or not.

    Returns
    -------
    DataFrame
        Indexed by setting: group, noise (its parameters), run (bool), command, and of those that were run the
        distances' means, standard errors and lists over the seeds (``fd``, ``fd_se``, ``fd_seeds``; ``kd``; and
        ``corrupted_fd``, to the corrupted held-out images), ``real`` (the distance of real images, as many), seeds,
        samples a seed, held-out images, features, profile, images a run saw; and from ``reports/timings.json``, which
        may lack some settings, images a second and device.
    """
    rows, stages, timed = [], params.raw.get("stages") or {}, timings.read()
    for setting in params.settings:
        row: dict[str, Any] = {"setting": setting.name, "group": setting.group, "noise": setting.noise, "run": False}
        row["command"] = f"cd paper && dvc repro measure@{setting.name if setting.name in stages else setting.group}"
        files = [setting.report("evaluate", ending) for ending in ("json", "seeds.json")]
        if all(file.is_file() for file in files):
            row |= {"run": True, **_measured(*map(read_json, files))}
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
        "samples": result["samples_per_seed"],
        "held_out": result["held_out"],
        "features": detail["features"],
        "label": names["fd"],
        "profile": detail["profile"],
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
    band = [f"{low:g}-{high:g}" for low, high in zip(found.band_low, found.band_high, strict=True)]
    return found.assign(setting="omission_" + edges + "_" + short, band=band, x=band, kind=found.sampler)


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


def panels(tables: dict[str, pd.DataFrame], ours: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """What `sagd.figures.study.bar_panels` draws: published FIDs above, ours below, a column a table."""
    published = {
        name: _bars(table, table.fid_mean.to_numpy(), table.fid_stderr.to_numpy()) for name, table in tables.items()
    }
    own = {name: own_bars(table, ours) for name, table in tables.items()}
    return {"published FID": published, f"ours, {label_of(ours)}": own}


def own_panels(rows: pd.DataFrame, ours: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The same for `own_sweep`: distances to the clean held-out images, and to the corrupted ones."""
    kinds = {"clean": "fd", "corrupted": "corrupted_fd"}
    return {f"ours, {label_of(ours)}": {name: own_bars(rows, ours, quantity) for name, quantity in kinds.items()}}


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
    """A table to show: what was published, what was measured here, and for a cell that was not run the command."""
    run = ours[ours.run]
    label = run.label.iloc[0] if len(run) else "fd"
    rows = []
    for cell in published.itertuples():
        own = ours.loc[cell.setting]
        row = {key: f"{value:g}" if isinstance(value := getattr(cell, key), float) else value for key in keys}
        row["published FID"] = number(cell.fid_mean, cell.fid_stderr)
        row["published KID"] = number(cell.kid_mean, cell.kid_stderr) if pd.notna(cell.kid_mean) else "none"
        row[f"ours, {label}"] = number(own.fd, own.fd_se) if own.run else "not run"
        row[f"ours, {label.replace('fd', 'kd').replace('fid', 'kid')}"] = number(own.kd, own.kd_se) if own.run else ""
        if "best" in ours and ours.best.notna().any():
            row["best checkpoint"] = number(own.best, own.best_se) if pd.notna(own.best) else ""
        row["seeds"], row["samples a seed"] = (f"{v:.0f}" if own.run else "" for v in (own.seeds, own.samples))
        row["profile, or the command"] = own.profile if own.run else own.command
        rows.append(row)
    return pd.DataFrame(rows)


def folded_beside(name: str, published: pd.DataFrame, ours: pd.DataFrame, keys: list[str]):
    """`beside`, to show: folded where nothing of it was run."""
    count = int(ours.run[published.setting].sum())
    said = f"{count} of {len(published)} cells run"
    return folded(name, said, beside(published, ours, keys), unfolded=count > 0)


def own_table(rows: pd.DataFrame, ours: pd.DataFrame, key: str) -> pd.DataFrame:
    """A table to show of `own_sweep`; ``key`` is the title of its first column."""
    label, shown = label_of(ours), pd.DataFrame({key: list(rows.x)})
    for name, quantity in (("clean", "fd"), ("corrupted", "corrupted_fd")):
        values = own_bars(rows, ours, quantity)
        pairs = zip(values["mean"], values.error, strict=True)
        shown[f"ours, {label}, to {name}"] = [f"{m:.2f} ± {e:.2f}" if pd.notna(m) else "not run" for m, e in pairs]
    shown["seeds"] = [f"{s:.0f}" if pd.notna(s) else "" for s in rows.seeds]
    shown["samples a seed"] = [f"{s:.0f}" if pd.notna(s) else "" for s in rows.samples]
    last = zip(rows.run, rows.profile, rows.command, strict=True)
    shown["profile, or the command"] = [profile if run else command for run, profile, command in last]
    return shown


def figure_5(params: Params) -> list[Path]:
    """The pictures of Fig. 5: corrupted training images, samples of isotropic noise, samples of bpm; [] if not run."""
    isotropic, omitting = (params.setting(f"omission_04_05_{kind}") for kind in ("iso", "bpm"))
    found = [isotropic.report("corrupt", "png"), isotropic.report("sample", "png"), omitting.report("sample", "png")]
    return found if all(path.is_file() for path in found) else []
