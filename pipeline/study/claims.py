"""The paper's claims, each with a verdict that follows from a statistic; and its theorem, checked in numbers."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from IPython.display import HTML

from pipeline.study import pages
from pipeline.study.published import NAMES
from pipeline.study.verdicts import Interval, interval


@dataclass(frozen=True)
class Finding:
    """A claim of the paper beside what was measured here.

    Parameters
    ----------
    claim
        In a sentence.
    verdict
        ``supported``, ``contradicted``, ``undecided`` or ``not run``; of a theorem ``holds`` or ``fails``.
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
        name = NAMES[dataset]
        claim = f"{name}: alpha {best:g} is better than isotropic noise ({plain:.3g} to {table.fid_mean[best]:.3g})."
        if not helps:
            claim = f"{name}: no alpha is better than isotropic noise ({plain:.3g})."
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
    from sagd.oracle.targets import Mixture

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
        "holds" if least > 50 else "fails",
        f"Exact scores of a mixture at sigma_t^2 = 0.01 and 0.0001, relative difference from the data's score: "
        f"{'; '.join(told)}.",
    )


def findings(ours: pd.DataFrame, alphas: pd.DataFrame, bands: pd.DataFrame) -> list[Finding]:
    """Every claim about networks; ``alphas`` and ``bands`` are the published tables (`over_alpha`, `over_bands`)."""
    return [
        follows_the_spectrum(ours),
        *best_alphas(ours, alphas),
        omits(ours, bands),
        costs_little(ours),
    ]


def shown(found: list[Finding]) -> HTML:
    """The claims that could be tested, and below them, folded, those of which too little was run."""
    run, rest = ([f for f in found if (f.verdict == "not run") is missing] for missing in (False, True))
    content = pages.table(pd.DataFrame(run), text=True).data if run else ""
    if rest:
        frame = pd.DataFrame([{"claim": f.claim, "what was run": f.statistic or "nothing"} for f in rest])
        content += pages.folded("Not tested", f"{len(rest)} of {len(found)} claims", frame, unfolded=False).data
    return HTML(content)


def theorem(found: Finding) -> str:
    """A theorem and its check, in Markdown."""
    return (
        f"**A theorem, checked in numbers (eq. 30).** {found.claim} It {found.verdict}. {found.statistic} This says "
        "nothing about trained networks."
    )


def tally(found: list[Finding]) -> str:
    """How many claims have which verdict, and what a verdict means, in Markdown."""
    verdicts = [finding.verdict for finding in found]
    order = ("supported", "contradicted", "undecided", "not run")
    return (
        ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in order if verdict in verdicts)
        + ". A claim is supported or contradicted where chance alone gives such a statistic in less than 5 % of cases, "
        "and undecided otherwise. The networks of this profile may be much smaller than the paper's (see above): then "
        "a contradicted claim is contradicted for such networks only."
    )
