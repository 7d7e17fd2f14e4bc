"""The paper's published numbers beside ours: one row a cell, also of cells that were not run, and what follows.

The files of `paper/published` are the tables of Scimeca et al. (arXiv 2510.09660) and of its workshop ancestor
(arXiv 2502.10236).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.params import Params
from pipeline.plan import code, digits
from pipeline.results import Interval, interval, number
from sagd.files import read_json

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


def cells(params: Params) -> pd.DataFrame:
    """What was measured in this profile: one row a setting of params.yaml, run or not.

    Returns
    -------
    DataFrame
        Indexed by setting: group, noise (its parameters), run (bool), command, and of those that were run the
        distances' means, standard errors and lists over the seeds (``fd``, ``fd_se``, ``fd_seeds``; ``kd``; and
        ``corrupted_fd``, to the corrupted held-out images), ``real`` (the distance of real images, as many), seeds,
        samples a seed, held-out images, images a second, device, features, profile, images a run saw.
    """
    rows = []
    for setting in params.settings:
        row = {"setting": setting.name, "group": setting.group, "noise": setting.noise, "run": False}
        row["command"] = f"dvc repro paper/dvc.yaml:grid_evaluate@{setting.name}"
        files = [setting.report("evaluate", ending) for ending in ("json", "seeds.json")]
        if all(file.is_file() for file in files):
            row |= {"run": True, **_measured(*map(read_json, files))}
            row["images"] = setting.train.steps * setting.train.batch_size
        rows.append(row)
    found = pd.DataFrame(rows).set_index("setting")
    for column in MEASURED:
        if column not in found:
            found[column] = np.nan
    return found


MEASURED = ("fd", "fd_se", "fd_seeds", "kd", "kd_se", "real", "seeds", "samples", "device", "profile", "features")


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
        "images_per_second": result["train_images_per_second"],
        "device": detail["run"]["device"],
        "features": detail["features"],
        "label": names["fd"],
        "profile": detail["profile"],
    }
    for short, name in names.items():
        if name in result:
            row |= {short: result[name], f"{short}_se": result[f"{name}_se"]}
            row[f"{short}_seeds"] = detail["per_seed"][name]
    return row


def hours(run: pd.DataFrame) -> float:
    """The time that training took, of the settings that were run; where a run was taken up again, none is counted."""
    return float((run.images * run.seeds / run.images_per_second).sum() / 3600)


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
    """Table 1, F.1 and F.2: setting, dataset, alpha, fid_mean, fid_stderr, kid_mean, kid_stderr (no KID: NaN)."""
    keys = ["dataset", "alpha"]
    fid = pd.read_csv(FOLDER / "table_f1_fid.csv").drop(columns="feature_dim")
    kid = pd.read_csv(FOLDER / "table_f2_kid.csv").drop(columns="feature_dim")
    found = fid.merge(kid, on=keys, how="left").sort_values(keys)
    names = [f"{d}_{code(a) if a else 'iso'}" for d, a in zip(found.dataset, found.alpha, strict=True)]
    return found.assign(setting=names)


def over_bands() -> pd.DataFrame:
    """Table 2: setting, band (its edges), sampler (isotropic, bpm), and the distances."""
    found = pd.read_csv(FOLDER / "table_2_omission.csv")
    short = found.sampler.map({"isotropic": "iso", "bpm": "bpm"})
    edges = found.band_low.map(digits) + "_" + found.band_high.map(digits)
    band = [f"{low:g}-{high:g}" for low, high in zip(found.band_low, found.band_high, strict=True)]
    return found.assign(setting="omission_" + edges + "_" + short, band=band)


def over_gamma() -> pd.DataFrame:
    """The workshop paper's Table 1: setting, dataset, gamma_low, and the distances."""
    found = pd.read_csv(FOLDER / "workshop_table_1_two_band.csv").sort_values(["dataset", "gamma_low"])
    names = [
        f"{d}_{'iso' if g == 0.5 else 'g' + digits(g)}" for d, g in zip(found.dataset, found.gamma_low, strict=True)
    ]
    return found.assign(setting=names)


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


@dataclass(frozen=True)
class Finding:
    """A claim of the paper beside what was measured here.

    Parameters
    ----------
    claim
        In a sentence.
    verdict
        ``supported``, ``contradicted``, ``undecided`` or ``not run``.
    statistic
        What the verdict rests on.
    """

    claim: str
    verdict: str
    statistic: str


def difference(ours: pd.DataFrame, setting: str, against: str, tests: int = 1) -> Interval | None:
    """The difference of distance, seed by seed; None where one of the two was not run."""
    if not (ours.run[setting] and ours.run[against]):
        return None
    return interval(np.subtract(ours.fd_seeds[setting], ours.fd_seeds[against]), tests)


def word(found: Interval | None) -> str:
    """The verdict on a claim that a difference is below 0."""
    if found is None:
        return "not run"
    return {"smaller": "supported", "larger": "contradicted"}.get(found.verdict, "undecided")


def follows_the_spectrum(ours: pd.DataFrame, group: str = "cifar10_low") -> Finding:
    """Claim 1, Fig. 3: where the information is in the high frequencies, the distance falls as alpha rises."""
    claim = "Learning follows the spectrum of the forward noise: on CIFAR-10 with its low frequencies drowned, the "
    claim += "distance falls as alpha rises."
    rows = ours[(ours.group == group) & ours.run]
    if len(rows) < 5:
        return Finding(claim, "not run", f"{len(rows)} of 13 alphas were run; a rank correlation needs 5.")
    from scipy.stats import spearmanr

    alphas = [noise.alpha if noise.operator == "power_law" else 0.0 for noise in rows.noise]
    found = spearmanr(alphas, rows.fd)
    clear = found.pvalue < 0.05
    verdict = ("supported" if found.statistic < 0 else "contradicted") if clear else "undecided"
    return Finding(
        claim,
        verdict,
        f"Spearman of distance and alpha {found.statistic:+.2f} (p = {found.pvalue:.2g}, n = {len(rows)}).",
    )


def best_alphas(ours: pd.DataFrame, published: pd.DataFrame) -> list[Finding]:
    """Claim 2, Table 1: on each data set the published best alpha is better than isotropic noise, or none is."""
    found = []
    for dataset, table in published.groupby("dataset", sort=False):
        table = table.set_index("alpha")
        best, plain = table.fid_mean.idxmin(), table.fid_mean[0.0]
        helps = table.fid_mean[best] < plain
        claim = f"{dataset}: alpha {best:g} is better than isotropic noise ({plain:g} to {table.fid_mean[best]:g})."
        if not helps:
            claim = f"{dataset}: no alpha is better than isotropic noise ({plain:g})."
            tried = [s for a, s in table.setting.items() if a and ours.run[s]]
            values = {s: difference(ours, s, f"{dataset}_iso", len(tried)) for s in tried}
            better = [s for s, v in values.items() if word(v) == "supported"]
            verdict = "not run" if len(tried) < len(table) - 1 else "contradicted" if better else "supported"
            statistic = f"{len(tried)} of {len(table) - 1} alphas were run, {len(better)} of them better (Bonferroni)."
        else:
            value = difference(ours, table.setting[best], f"{dataset}_iso")
            verdict = word(value)
            statistic = "" if value is None else f"Paired difference {value} (95 %)."
        found.append(Finding(claim, verdict, f"{statistic} {_ranks(ours, table)}".strip()))
    return found


def _ranks(ours: pd.DataFrame, table: pd.DataFrame) -> str:
    """How our distances over alpha follow the published ones."""
    run = [s for s in table.setting if ours.run[s]]
    if len(run) < 5:
        return f"{len(run)} of {len(table)} alphas were run."
    from scipy.stats import spearmanr

    found = spearmanr(ours.fd[run], table.set_index("setting").fid_mean[run])
    return f"Spearman with the published FID over {len(run)} alphas {found.statistic:+.2f} (p = {found.pvalue:.2g})."


def omits(ours: pd.DataFrame, published: pd.DataFrame, reference: str = "fd") -> Finding:
    """Claim 3, Table 2: leaving the corrupted band out of the noise is better, on all bands."""
    from scipy.stats import binomtest

    claim = "Two-band noise that leaves the corrupted band out is better than isotropic noise, on all 8 bands."
    pairs = [(b, b.removesuffix("bpm") + "iso") for b in published.setting if b.endswith("bpm")]
    run = [(b, i) for b, i in pairs if ours.run[b] and ours.run[i]]
    if not run:
        return Finding(claim, "not run", "No band was run.")
    gains = np.array([ours[reference][b] - ours[reference][i] for b, i in run])
    wins = int((gains < 0).sum())
    p = binomtest(wins, len(run)).pvalue
    clear = sum(word(difference(ours, b, i, len(run))) == "supported" for b, i in run)
    verdict = "undecided"
    if p < 0.05:
        verdict = "supported" if wins > len(run) / 2 else "contradicted"
    return Finding(
        claim,
        verdict,
        f"{len(run)} of {len(pairs)} bands were run; better on {wins} (sign test, p = {p:.2g}), clearly so on "
        f"{clear} (paired over the seeds, 95 % for all together); the differences are "
        f"{gains.min():+.2f} to {gains.max():+.2f}.",
    )


def costs_little(ours: pd.DataFrame) -> Finding:
    """Claim 5: the cost of shaping is negligible."""
    claim = "The cost is negligible: a pair of Fourier transforms in training, nothing in sampling."
    run = ours[ours.run & ours.get("images_per_second", pd.Series(np.nan, ours.index)).notna()]
    ratios = []
    for _, rows in run.groupby("group"):
        plain = rows[[n.operator == "isotropic" for n in rows.noise]].images_per_second
        shaped = rows[[n.operator != "isotropic" for n in rows.noise]].images_per_second
        ratios += [rate / plain.median() for rate in shaped] if len(plain) else []
    if len(ratios) < 3:
        return Finding(claim, "not run", f"{len(ratios)} trainings to compare; 3 are needed.")
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    # Far above 1 the clock, not the noise, is what was measured.
    verdict = "supported" if 0.95 < middle < 1.1 else "contradicted" if high < 0.9 else "undecided"
    return Finding(
        claim,
        verdict,
        f"Images a second of shaped training over isotropic: median {middle:.2f} (quartiles {low:.2f} to {high:.2f}, "
        f"{len(ratios)} trainings). The networks here may be small, which makes the noise's share large.",
    )


def endpoint() -> Finding:
    """Claim 4, eq. 30: under full support the score of x_t tends to the data's as t goes to 0, whatever the noise."""
    import torch

    import sagd
    from sagd.oracle import Mixture

    claim = "The endpoint score is unchanged under full support; only the path changes."
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((3, 1, 8, 8), generator=generator, dtype=torch.float64)
    target = Mixture(means, torch.full_like(means[:1], 0.1), torch.full((3,), 1 / 3, dtype=torch.float64))
    x = target.sample(50, generator=generator).requires_grad_()
    told, least = [], math.inf
    for alpha in (-0.5, 0.0, 0.5):
        spectrum, errors = sagd.power_law((8, 8), alpha), []
        for sigma_squared in (1e-2, 1e-4):
            schedule = sagd.Schedule(torch.tensor([1 - sigma_squared], dtype=torch.float64))
            of_data, of_xt = (
                torch.autograd.grad(target.log_density(x, t, schedule, spectrum).sum(), x)[0] for t in (-1, 0)
            )
            errors.append(((of_xt - of_data).norm() / of_data.norm()).item())
        least = min(least, errors[0] / errors[1])
        told.append(f"alpha {alpha:+g}: {errors[0]:.1e}, {errors[1]:.1e}")
    return Finding(
        claim,
        "supported" if least > 50 else "contradicted",
        f"Exact scores of a mixture at sigma_t^2 = 0.01 and 0.0001, relative difference from the data's score: "
        f"{'; '.join(told)}.",
    )
