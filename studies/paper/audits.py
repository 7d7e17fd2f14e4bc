"""The audits: what the paper leaves open or does not compare with, each a small study with a table of its own."""

from dataclasses import dataclass
from html import escape

import pandas as pd
from IPython.display import HTML

from pipeline.pages import blocks, verdicts
from pipeline.pages.verdicts import Interval, number


@dataclass(frozen=True)
class Audit:
    """A question, and the settings that answer it.

    Parameters
    ----------
    rows
        (what it is, setting, the setting that it is compared with or None).
    """

    title: str
    question: str
    rows: tuple[tuple[str, str, str | None], ...]


AUDITS = (
    Audit(
        "The conventions of the noise",
        "Where the paper is silent or contradicts itself, does the choice move the result?",
        (
            ("alpha -0.06 as everywhere here", "audit_m006", None),
            ("zero frequency with the listing's weight", "audit_m006_floor", "audit_m006"),
            ("frequencies by linspace", "audit_m006_linspace", "audit_m006"),
            ("each image divided by its own deviation", "audit_m006_sample", "audit_m006"),
            ("no normalisation", "audit_m006_none", "audit_m006"),
            ("two-band 0.3, one field", "audit_g03", None),
            ("two-band 0.3, each band normalised first", "audit_g03_per_band", "audit_g03"),
            ("isotropic, which is two-band 0.5 as one field", "audit_iso", None),
            ("two-band 0.5, each band normalised first", "audit_g05_per_band", "audit_iso"),
        ),
    ),
    Audit(
        "The unit of the bands' edges",
        "The band [0.4, 0.5] is another one in each unit; does leaving it out help in all of them?",
        tuple(
            row
            for units, told in (
                ("corner", "fractions of the corner radius"),
                ("nyquist", "fractions of the Nyquist radius"),
                ("cycles", "cycles per pixel"),
            )
            for row in (
                (f"{told}, isotropic", f"audit_{units}_iso", None),
                (f"{told}, left out", f"audit_{units}_bpm", f"audit_{units}_iso"),
            )
        ),
    ),
    Audit(
        "Tilt, or brightness?",
        "The listing's noise at alpha -0.06 tilts the spectrum and boosts the zero frequency; which of the two acts?",
        (
            ("isotropic", "audit_iso", None),
            ("tilt alone", "audit_m006", "audit_iso"),
            ("tilt and boost, the listing", "audit_m006_floor", "audit_iso"),
            ("the same boost alone", "audit_boost", "audit_iso"),
            ("offset noise 0.1, as others use it", "audit_offset", "audit_iso"),
        ),
    ),
    Audit(
        "Shape, or energy?",
        "Without normalisation the noise of alpha -0.06 has 14 % more energy; is it that?",
        (
            ("isotropic", "audit_iso", None),
            ("shape alone", "audit_m006", "audit_iso"),
            ("energy alone: isotropic, as much stronger", "audit_energy", "audit_iso"),
            ("both", "audit_m006_none", "audit_iso"),
        ),
    ),
    Audit(
        "Leaving a band out, or filtering it?",
        "Against images with noise in [0.4, 0.5] there are plainer remedies than to leave that band out of the forward "
        "noise: to filter it out of the training images, or out of the samples. And where the band is left out, the "
        "loss is projected onto the rest (App. D.5); with the paper's literal loss the networks see the band.",
        (
            ("isotropic, no remedy", "audit_corner_iso", None),
            ("band left out, the paper's literal loss", "audit_literal_bpm", "audit_corner_iso"),
            ("band left out, as everywhere here", "audit_corner_bpm", "audit_corner_iso"),
            ("training images filtered", "audit_filtered_data", "audit_corner_iso"),
            ("samples filtered", "audit_filtered_samples", "audit_corner_iso"),
            ("band left out, as everywhere here", "audit_corner_bpm", "audit_literal_bpm"),
            ("band left out, as everywhere here", "audit_corner_bpm", "audit_filtered_data"),
            ("band left out, as everywhere here", "audit_corner_bpm", "audit_filtered_samples"),
        ),
    ),
    Audit(
        "How strong is the corruption, and how is it normalised?",
        "Everywhere else the noise in the band has unit variance in the pixels and the weight 1. Weaker corruption, by "
        "half, or the band of eq. 13 without the normalisation of eq. 15: does leaving the band out still help? With "
        "the projected loss neither can matter, as training never sees the band (tests/sagd/test_partial_support.py), "
        "so that one setting stands for all; the other networks see it.",
        tuple(
            row
            for strength, told in (("half", "half as strong"), ("bare", "not normalised"))
            for row in (
                (f"{told}, isotropic", f"audit_{strength}_iso", None),
                (f"{told}, left out, literal loss", f"audit_{strength}_literal", f"audit_{strength}_iso"),
                ("left out, projected loss", "audit_corner_bpm", f"audit_{strength}_iso"),
                ("left out, projected loss", "audit_corner_bpm", f"audit_{strength}_literal"),
            )
        ),
    ),
)


def table(ours: pd.DataFrame, audit: Audit) -> pd.DataFrame:
    """The lines of an audit that were run, with what they are compared with: distances, and differences seed by seed.

    The intervals hold at 95 % for all of an audit's comparisons together (Bonferroni).
    """
    tests = sum(against is not None for _, _, against in audit.rows)
    labels = {setting: label for label, setting, against in audit.rows if against is None}
    labels |= {setting: label for label, setting, _ in audit.rows if setting not in labels}
    run = ours[ours.run.astype(bool)]
    measure = run.label.iloc[0] if len(run) else "fd"
    rows = []
    for label, setting, against in audit.rows:
        if setting not in run.index or (against and against not in run.index):
            continue
        own = run.loc[setting]
        row = {"noise": label, f"ours, {measure}": number(own.fd, own.fd_se), "seeds": f"{own.seeds:.0f}"}
        row["compared with"] = labels[against] if against else ""
        found = difference(ours, setting, against, tests) if against else None
        row["difference"] = "" if found is None else str(found)
        row["that is"] = "" if found is None else found.verdict
        row["measured in profile"] = own.measured
        rows.append(row)
    return pd.DataFrame(rows)


def not_run(ours: pd.DataFrame, audit: Audit) -> pd.DataFrame:
    """The settings of an audit that were not run, and the commands that run them."""
    missing = {setting: label for label, setting, _ in reversed(audit.rows) if not ours.run[setting]}
    rows = [{"noise": missing[s], "command": ours.command[s]} for s in reversed(missing)]
    return pd.DataFrame(rows, columns=["noise", "command"])


def answered(ours: pd.DataFrame, audit: Audit) -> bool:
    """Whether at least two settings that are compared were run."""
    return any(against and ours.run[setting] and ours.run[against] for _, setting, against in audit.rows)


def shown(ours: pd.DataFrame, audits: tuple[Audit, ...] = AUDITS) -> HTML:
    """The audits that say something, each with what was run of it first; the others at the end, folded."""
    found, rest = "", ""
    for audit in audits:
        missing = not_run(ours, audit)
        if answered(ours, audit):
            found += f"<h3>{escape(audit.title)}</h3><p>{escape(audit.question)}</p>"
            found += blocks.table(table(ours, audit), text=True).data
            if len(missing):
                said = f"{len(missing)} of {len({s for _, s, _ in audit.rows})} settings"
                found += blocks.folded("Not run", said, missing, unfolded=False).data
        else:
            rest += f"<h3>{escape(audit.title)}</h3><p>{escape(audit.question)}</p>"
            rest += blocks.table(missing, text=True).data
    if rest:
        count = sum(not answered(ours, audit) for audit in audits)
        found += f"<details><summary><b>Audits not run</b>: {count} of {len(audits)}</summary>{rest}</details>"
    return HTML(found)


def difference(ours: pd.DataFrame, setting: str, against: str, tests: int = 1) -> Interval | None:
    """The difference of distance, seed by seed; None where one of the two was not run."""
    if not (ours.run[setting] and ours.run[against]):
        return None
    return verdicts.difference(ours, setting, against, "fd_seeds", tests)
