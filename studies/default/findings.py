"""What the default study found, in words: the paragraphs that its page begins with follow from its numbers."""

import pandas as pd

from pipeline.pages.verdicts import Interval, compared

NAMES = {"kd": "kernel distance", "kid": "kernel distance", "fd": "Fréchet distance", "fid": "FID"}
ARMS = {
    "isotropic": "isotropic noise",
    "literal": "the band left out of the noise, with the paper's literal loss",
    "projected": "the band left out of the noise",
    "filtered": "the band filtered out of the training images",
}


def findings(frame: pd.DataFrame, label: str) -> str:
    """One paragraph a set of training images, in Markdown.

    Parameters
    ----------
    frame
        Of `results.table`.
    label
        The name of its distance, such as ``kd_efficientnet_lite0``.
    """
    found = [omission(frame[frame.data == data], label) for data in dict.fromkeys(frame.data) if data != "clean"]
    return "\n\n".join(part for part in [*found, shaping(frame[frame.data == "clean"], label)] if part)


def omission(frame: pd.DataFrame, label: str) -> str:
    """What leaving the corrupted band out of the noise does, against none, the literal loss, and filtered images."""
    arms = {row.arm: name for name, row in frame.iterrows() if row.arm in ARMS}
    if not {"isotropic", "projected"} <= arms.keys():
        return ""
    told = {arm: _written(frame.distance[name], label) for arm, name in arms.items()}
    against_none = compared(frame, arms["projected"], arms["isotropic"])
    works = {"smaller": "works", "larger": "does harm"}.get(against_none[0].verdict, "can't be judged from these seeds")
    said = [
        f"**Selective omission {works}.** The training images have noise in the band {frame.corrupted.iloc[0]}.",
        f"The {_name(label)} of samples to clean held-out images is {told['isotropic']} with isotropic noise, whose "
        "networks learn that noise as well;",
        f"it is {told['projected']} with the band left out of the noise{_gain(*against_none)}",
    ]
    if "literal" in arms:
        said.append(
            f"With the paper's literal loss, not projected, it is {told['literal']}; "
            + _against("projection", *compared(frame, arms["projected"], arms["literal"]))
        )
    if "filtered" in arms:
        said.append(
            f"The plain remedy, to filter the band out of the training images, gives {told['filtered']} with isotropic "
            "noise; " + _against("leaving it out of the noise", *compared(frame, arms["projected"], arms["filtered"]))
        )
    floor = frame.filtered[arms["projected"]]
    if pd.notna(floor):
        said.append(
            "What the clean images have in the band is lost with it: real images without the band are at "
            f"{floor:.3f}, with it at {frame.real[arms['projected']]:.4f}."
        )
    return " ".join(said)


def shaping(frame: pd.DataFrame, label: str) -> str:
    """What shaped noise does where the training images are clean."""
    plain = [name for name, row in frame.iterrows() if row.operator == "isotropic"]
    others = [name for name in frame.index if name not in plain]
    if not plain or not others:
        return ""
    base = max(plain, key=lambda name: sum(frame.protocol[name] == frame.protocol[o] for o in others))
    told = _written(frame.distance[base], label)
    said = [f"**Shaped noise on clean images.** With isotropic noise the {_name(label)} is {told}."]
    for name in others:
        found, seeds = compared(frame, name, base)
        told = _written(frame.distance[name], label)
        said.append(f"With {frame.noise[name]} (*{name}*) it is {told}{_gain(found, seeds)}")
    said.append(f"Real images, as many, are at {frame.real[base]:.4f}.")
    return " ".join(said)


def _name(label: str) -> str:
    return NAMES[label.split("_")[0]]


def _written(distance: float, label: str) -> str:
    """A distance without its error: what is compared is differences, which are known better. Kernel ones are small."""
    return f"{distance:.3f}" if _name(label) == "kernel distance" else f"{distance:.1f}"


def _sure(found: Interval, seeds: int) -> str:
    return f"{found} at 95 %, paired over {seeds} seeds"


def _gain(found: Interval, seeds: int) -> str:
    """Continues a sentence that has named a distance: how it compares with the one named before."""
    if found.verdict == "smaller":
        return f", which is better ({_sure(found, seeds)})."
    if found.verdict == "larger":
        return f", which is worse ({_sure(found, seeds)})."
    return f"; {_undecided(found, seeds)}."


def _against(what: str, found: Interval, seeds: int) -> str:
    """A clause on what is better than the distance named before."""
    if found.verdict in ("smaller", "larger"):
        return f"{what} is {'better' if found.verdict == 'smaller' else 'worse'} ({_sure(found, seeds)})."
    return f"{_undecided(found, seeds)}."


def _undecided(found: Interval, seeds: int) -> str:
    if found.verdict == "within the noise":
        return f"whether that makes a difference can't be told from {seeds} seeds ({found} at 95 %)"
    if found.verdict.startswith("undecided"):
        return f"whether {found} is chance can't be told from one seed"
    return f"the two are {found.verdict}"
