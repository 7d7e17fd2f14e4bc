"""The page of the claims: a question, the verdict in a sentence, one picture, one row of numbers, the command."""

import math
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from PIL import Image

from pipeline.run import timings
from pipeline.study import pages
from pipeline.study.contrasts import EQUIVALENT, MEANINGS, SUPPORTED, Decision, Joint, error_rates
from pipeline.study.decided import (
    PRIMARY,
    RINGS,
    Answer,
    Contrast,
    File,
    Question,
    Results,
    answer,
    overall,
    pilot,
    recorded,
    settings_of,
)  # fmt: skip
from pipeline.study.verdicts import number
from sagd.figures import claims as figures
from sagd.figures.study import strips
from sagd.runtime.files import read_json

EARLIER = (0.25, 0.5)  # shares of the training that stand beside its end
MEASURES = {  # of an arm's samples, as the table of all measures calls them
    "kernel distance": PRIMARY,
    "to corrupted images": f"corrupted_{PRIMARY}",
    "sliced distance": "sliced_classifier",
    "precision": "precision_classifier",
    "recall": "recall_classifier",
    "of real images": f"{PRIMARY}_of_real",
    "between halves of the held-out": f"{PRIMARY}_of_halves",
    "of real images without the band": f"{PRIMARY}_of_filtered",
}
UNITS = {  # what an effect is, on the axis of a picture
    "difference": "log ratio of the distances",
    "gains": "log ratio of the distances",
    "every": "log ratio of the distances",
    "share": "share of the gain of filtering that is missing",
    "rings": "slope of log error over alpha",
    "fading": "slope of log error over alpha",
    "slope": "slope of log distance over alpha",
    "recorded": "log ratio",
}


def percent(effect: float) -> str:
    """A logarithm of a ratio as a change in percent, to two digits or whole."""
    return f"{share(math.expm1(effect))} %"


def share(part: float) -> str:
    """A part as a number of percent, to two digits or whole."""
    value = 100 * part
    places = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{value:+.{places}f}"


def told(found: Answer) -> str:
    """What came out of a contrast, in a few words with its 95 % interval."""
    decision, kind = found.decision, found.contrast.kind
    if decision is None:
        return f"not run: {', '.join(found.missing[:3])}{', ...' if len(found.missing) > 3 else ''}"
    if isinstance(decision, Joint):
        if kind in ("rings", "fading"):
            return "; ".join(f"{part} {_slope(d)}" for part, d in zip(found.parts, decision.parts, strict=True))
        means = [d.mean for d in decision.parts]
        clear = sum(d.p_difference < 0.05 for d in decision.parts)
        return f"{percent(min(means))} to {percent(max(means))} on {len(means)} bands, {clear} of them clear of 0"
    if kind == "share":
        return f"{share(decision.mean)} % of the gain ({share(decision.low)} to {share(decision.high)} %)"
    if kind == "slope":
        return _slope(decision)
    if found.contrast.measure == "endpoint":
        return f"slope {decision.mean:+.2f} ({decision.low:+.2f} to {decision.high:+.2f})"
    return f"{percent(decision.mean)} ({share(math.expm1(decision.low))} to {percent(decision.high)})"


def _slope(decision: Decision) -> str:
    """A slope as the change for a quarter of alpha."""
    low, high = share(math.expm1(decision.low / 4)), percent(decision.high / 4)
    return f"{percent(decision.mean / 4)} for each 0.25 of alpha ({low} to {high})"


def summary(found: dict[str, dict[str, Answer]], file: File) -> HTML:
    """The table of all verdicts: primary contrasts alone."""
    rows = [
        {
            "claim": f"{question.claim}. {question.title}",
            "verdict": a.verdict,
            "expected": pages.sentence(a.contrast.says),
            "measured (95 %)": told(a),
        }
        for name, question in file.questions.items()
        for a in found[name].values()
        if a.contrast.primary
    ]
    return pages.table(pd.DataFrame(rows), text=True)


def heading(question: Question, its: dict[str, Answer]) -> str:
    """The title of a claim, the paper's sentence, and ours, in Markdown."""
    verdicts = "\n".join(f"- {sentence(a)}" for a in its.values() if a.contrast.primary)
    return "\n\n".join([
        f"## {question.title}: {overall(its)}",
        f"**The paper (claim {question.claim}).** {question.paper}",
        f"**The question.** {question.asks}",
        verdicts,
    ])  # fmt: skip


def sentence(found: Answer) -> str:
    """A verdict in a sentence, in Markdown."""
    contrast = found.contrast
    if found.decision is None:
        return f"**Not run.** {pages.sentence(contrast.says)} Missing: {told(found).removeprefix('not run: ')}."
    if found.verdict == SUPPORTED:
        return f"**Supported.** {pages.sentence(contrast.says)[:-1]}: {told(found)}."
    why = ""
    if found.verdict == EQUIVALENT and contrast.margin:
        why = f", surely less than the margin of {share(math.expm1(contrast.margin)).lstrip('+')} %"
    return f"**{found.verdict.capitalize()}.** Expected: {contrast.says}. Measured: {told(found)}{why}."


def numbers(its: dict[str, Answer]) -> HTML:
    """Every contrast of a question in a row: the secondary ones corrected."""
    rows = [
        {
            "contrast": pages.sentence(a.contrast.says),
            "verdict": a.verdict,
            "measured (95 %)": told(a),
            "p": _p(a.decision),
            "seeds": _seeds(a.decision),
            "decides": "yes" if a.contrast.primary else "no (Holm)",
        }
        for a in its.values()
    ]
    return pages.table(pd.DataFrame(rows), text=True)


def arms(its: dict[str, Answer], results: Results) -> HTML:
    """All measures of a question's arms, mean and standard error over the seeds, folded."""
    named = dict.fromkeys(n for a in its.values() for n in settings_of(a.contrast, results.bands))
    rows = []
    for name in named:
        if not results.run(name):
            continue
        row = {"arm": name}
        for title, measure in MEASURES.items():
            if results.has(name, measure, 1.0):
                values = results.of(name, measure)
                row[title] = number(values.mean(), values.sem())
        rows.append(row | {"seeds": str(len(results.of(name)))})
    if not rows:
        return HTML("")
    return pages.folded("All measures", f"{len(rows)} of {len(named)} arms", pd.DataFrame(rows).fillna(""), False)


def _p(decision: Decision | Joint | None) -> str:
    if decision is None:
        return ""
    if isinstance(decision, Joint):
        return f"{decision.p_support:.2g}"
    same = f"; equivalent {decision.p_equivalence:.2g}" if decision.p_equivalence < 1 else ""
    return f"{decision.p_difference:.2g}{same}"


def _seeds(decision: Decision | Joint | None) -> str:
    if decision is None:
        return ""
    parts = decision.parts if isinstance(decision, Joint) else (decision,)
    return str(min(len(d.effects) for d in parts))


def command(its: dict[str, Answer], results: Results) -> str:
    """How to run a question's arms, in Markdown."""
    named = [n.split("/")[0] for a in its.values() for n in settings_of(a.contrast, results.bands)]
    groups = dict.fromkeys(str(results.params.setting(name).group) for name in named)
    stages = dict.fromkeys(
        recorded(a.contrast, results.params).stem for a in its.values() if a.contrast.kind == "recorded"
    )
    told = [f"`make decide ONLY='^({'|'.join(groups)})_'`"] if groups else []
    told += [f"`cd paper/decide && dvc repro {stage}`" for stage in stages]
    return f"Run it: {', then '.join(told)}."


def effects(found: Answer, results: Results) -> list[figures.Effect]:
    """The lines of a contrast in its picture."""
    if found.decision is None:
        return []
    contrast = found.contrast
    parts = found.decision.parts if isinstance(found.decision, Joint) else (found.decision,)
    before = [_earlier(contrast, results, share) for share in EARLIER]
    return [
        figures.Effect(
            label=_label(found, part), mean=d.mean, low=d.low, high=d.high, seeds=d.effects, margin=contrast.margin,
            earlier=[b[k] for b in before if b], primary=contrast.primary,
        )
        for k, (part, d) in enumerate(zip(found.parts, parts, strict=True))
    ]  # fmt: skip


def _label(found: Answer, part: str) -> str:
    if not part:
        return found.name.replace("_", " ")
    if part in RINGS:
        return f"{found.name.replace('_', ' ')}: {part}"
    low, high = (f"{edge[0]}.{edge[1:]}" for edge in part.split("_"))
    return f"band {low} to {high}"


def _earlier(contrast: Contrast, results: Results, share: float) -> list[float]:
    """The means of a contrast's effects at a share of the training; none where nothing was measured then."""
    if contrast.kind in ("recorded", "fading") or not _measured(contrast, results, share):
        return []
    decision = answer("", contrast, results, share).decision
    assert decision is not None  # it was run
    return [d.mean for d in (decision.parts if isinstance(decision, Joint) else (decision,))]


def _measured(contrast: Contrast, results: Results, share: float) -> bool:
    named = settings_of(contrast, results.bands)
    return contrast.kind == "rings" or all(results.has(name, contrast.measure, share) for name in named)


def picture(name: str, its: dict[str, Answer], results: Results) -> HTML:
    """The picture of a claim: what was measured on the left, and the effects on the right."""
    # Of a claim about every band only what decides: eight lines each.
    lines = [
        line for a in its.values() for line in effects(a, results) if a.contrast.primary or a.contrast.kind != "every"
    ]
    run = [a for a in its.values() if a.decision]
    if not lines:
        return HTML("<p>Not run.</p>")
    axis = UNITS[run[0].contrast.kind] if len({UNITS[a.contrast.kind] for a in run}) == 1 else "effect"
    figure = LEFT[name](its, results, lines, axis)
    caption = (
        f"{CAPTIONS[name]} Right: the effects, diamonds with their 95 % intervals, dots for the seeds; blue decides, "
        "grey is secondary (intervals not corrected). Grey bands: margins, within which an effect does not matter. "
        "Orange rings: the effect at a quarter and at half of the training, where it was measured."
    )
    alt = "; ".join(f"{a.name.replace('_', ' ')}: {a.verdict}, {told(a)}" for a in run)
    return pages.keep(figure, name, caption, alt)


def samples(name: str, results: Results) -> HTML:
    """The first samples of some arms, which begin with the same white noise."""
    named = {label: results.params.setting(arm) for label, arm in STRIPS.get(name, {}).items()}
    files = {label: setting.report("sample", "png") for label, setting in named.items()}
    if not files or not all(file.is_file() for file in files.values()):
        return HTML("")
    rows = {}
    for label, file in files.items():
        grid = np.asarray(Image.open(file))
        rows[label] = grid[: grid.shape[1] // 12]  # twelve in a row
    caption = (
        f"The first twelve samples of {' and '.join(files) if len(files) == 2 else ', '.join(files)}, not selected: "
        "those in one place begin with the same white noise, and the networks with the same weights."
    )
    return pages.keep(strips(rows), f"{name}_samples", caption, f"Rows of digits: {', '.join(files)}")


def _distances(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """Every arm that was run, with the distance of real images in the samples' place."""
    named = [n for a in its.values() for n in (a.contrast.a, a.contrast.b, a.contrast.c, a.contrast.d) if n]
    arms = [n for n in dict.fromkeys(named) if results.run(n)]
    values = {n.partition("_")[2].replace("_", " ") if n.startswith("tilt_") else n.replace("_", " "): n for n in arms}
    floors = {"real images": float(np.mean([results.of(n, f"{PRIMARY}_of_real").mean() for n in arms]))}
    shown = {label: results.of(n).tolist() for label, n in values.items()}
    return figures.distances(shown, floors, "kernel distance", lines, axis)


def _bands(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """Distances over the corrupted bands."""
    arms = {
        "isotropic": "iso", "band left out, literal loss": "literal", "band left out, projected": "bpm",
        "images filtered": "filtered",
    }  # fmt: skip
    bands = [b for b in results.bands if all(results.run(f"omission_{b}_{arm}") for arm in arms.values())]
    curves = {
        label: np.array([results.of(f"omission_{b}_{arm}").to_numpy() for b in bands]).T for label, arm in arms.items()
    }
    floor = np.array([results.of(f"omission_{b}_bpm", f"{PRIMARY}_of_filtered").mean() for b in bands])
    middles = [(int(b[:2]) + int(b[3:])) / 20 for b in bands]
    labels = ("corrupted band (fraction of the largest radius)", "kernel distance to clean images")
    floors = {"real images without the band": floor}
    return figures.curves(middles, curves, labels, lines, axis, floors=floors)


def _rings_picture(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """The denoising error of each alpha over that of alpha 0, over the radius."""
    over = its["rings"].contrast.over
    if its["rings"].decision is None:
        over = its["rings_drowned"].contrast.over
    logs = {alpha: _by_radius(results, name) for name, alpha in over.items()}
    x = logs[0.0].columns.to_numpy()[1:]
    curves = {
        f"alpha {alpha:+g}": np.exp(table - logs[0.0]).to_numpy()[:, 1:] for alpha, table in logs.items() if alpha
    }
    labels = ("radius (cycles per pixel)", "denoising error over that of alpha 0")
    return figures.curves(x, curves, labels, lines, axis)


def _by_radius(results: Results, name: str) -> pd.DataFrame:
    """Mean logarithm of the denoising error over the SNRs: seeds by radii."""
    rows = results.denoising(name)
    return rows.assign(log=np.log(rows.error)).pivot_table(index="seed", columns="radius", values="log")


def _endpoint(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """Differences of learnt scores over sigma."""
    found = read_json(_file(results, "endpoint"))
    curves = {"alpha ±0.25 against 0": np.mean(found["endpoint"]["of_alphas"], axis=2)}
    curves["two seeds of alpha 0"] = np.array(found["endpoint"]["of_seeds"])
    labels = ("sigma", "relative difference of scores")
    return figures.curves(found["sigma"], curves, labels, lines, axis, logarithmic=True)


def _cost(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """Times of a step."""
    found = read_json(_file(results, "cost"))
    values = {
        f"{label}, {noise}": np.multiply(found[key]["seconds_a_step"][noise], 1000).tolist()
        for key, label in (("cost_paper", "paper's U-Net"), ("cost_study", "study's U-Net"))
        for noise in ("isotropic", "shaped")
    }
    return figures.distances(values, {}, "milliseconds a step", lines, axis)


def _file(results: Results, stem: str) -> Path:
    return Path("reports", results.params.profile or "", f"{stem}.json")


STRIPS = {
    "tilt": {
        "alpha 0, eps": "tilt_eps_iso",
        "listing at -0.06, eps": "tilt_eps_m006_floor",
        "alpha 0, v": "tilt_v_iso",
    },
    "omission": {
        "isotropic": "omission_04_05_iso",
        "left out, literal loss": "omission_04_05_literal",
        "left out, projected": "omission_04_05_bpm",
        "images filtered": "omission_04_05_filtered",
    },
}
LEFT = {
    "spectrum": _rings_picture, "tilt": _distances, "omission": _bands, "endpoint": _endpoint, "cost": _cost,
    "tiny": _distances,
}  # fmt: skip
CAPTIONS = {
    "spectrum": "Left: the denoising error at matched signal-to-noise ratio, over that of isotropic noise.",
    "tilt": "Left: kernel distances of the arms, a dot a seed; the green line is that of real images.",
    "omission": "Left: kernel distances to clean images, over the band; dashed: real images without the band.",
    "endpoint": "Left: how much learnt scores differ, over the noise level: of two alphas, and of two seeds of one.",
    "cost": "Left: times of a training step, a dot a timing.",
    "tiny": "Left: kernel distances at alpha 0 and ±0.001, a dot a seed; the green line is that of real images.",
}


def shown(name: str, found: dict[str, dict[str, Answer]], file: File, results: Results) -> None:
    """A screen of the page: a claim."""
    question, its = file.questions[name], found[name]
    display(Markdown(heading(question, its)))
    display(picture(name, its, results))
    display(samples(name, results))
    display(numbers(its))
    display(arms(its, results))
    if question.note:
        display(Markdown(question.note))
    display(Markdown(command(its, results)))


def ran(results: Results) -> str:
    """What was run, how long it took, and on what, in Markdown."""
    settings = results.params.settings
    done = [s for s in settings if results.run(str(s.name))]
    noted = timings.read()
    trainings = sum(len(s.seeds) for s in done)
    hours = sum(
        len(s.seeds) * s.train.steps * s.train.batch_size / noted[s.title]["images_per_second"] / 3600
        for s in done if s.title in noted
    )  # fmt: skip
    machines = sorted({f"{n['cpu']}, {n['device']}, torch {n['torch']}" for s, n in noted.items()})
    return (
        f"{len(done)} of {len(settings)} settings were run: {trainings} trainings, {hours:.1f} hours of one "
        f"core's training ({'; '.join(machines)}), and sampling and measuring beside. No GPU."
    )


@cache
def _history(file: str) -> list[str]:
    """The commits of a file, oldest first: hash, date, subject."""
    lines = subprocess.run(
        ["git", "log", "--reverse", "--format=%h %cs %s", "--", file], capture_output=True, text=True
    ).stdout.splitlines()
    return lines


def stated(file: str = "contrasts.yaml") -> str:
    """When the contrasts were written down, in Markdown."""
    commits = _history(file)
    if not commits:
        return "The history of contrasts.yaml is not here (no git)."
    told = [f"`{line.split()[0]}` ({' '.join(line.split()[1:])})" for line in commits]
    changed = f" It was changed after that: {'; '.join(told[1:])}." if told[1:] else " It has not been changed since."
    return f"contrasts.yaml was committed before the runs: {told[0]}.{changed}"


def rules(file: File) -> HTML:
    """What the verdicts mean, and how often the rules are wrong."""
    rows = pd.DataFrame(
        [{"truth": truth, **{word: f"{100 * share:.1f} %" for word, share in shares.items()}}
         for truth, shares in error_rates().items()]
    )  # fmt: skip
    meanings = "".join(f"<li><b>{word}</b>: {text}</li>" for word, text in MEANINGS.items())
    return HTML(f"<p>{file.rules}</p><ul>{meanings}</ul>{pages.table(rows, text=True).data}")


def power(file: File, results: Results) -> str:
    """Why there are so many seeds, in Markdown."""
    named = [name for pair in file.power.pairs for name in pair]
    if not all(results.run(name) for name in named):
        return f"{file.power.why} The pilot's results are not here."
    p = pilot(results, file.power)
    return (
        f"{file.power.why} Pooled over {len(file.power.pairs)} pairs of arms ({p.freedom} degrees of freedom) the "
        f"logarithm of a ratio of distances spreads by {p.spread:.3f} over the seeds, by {p.upper:.3f} at most (90 %). "
        f"To find an effect of {percent(file.power.effect)} with a power of 90 % takes {p.for_effect[0]} seeds, "
        f"{p.for_effect[1]} at the upper bound; to tell that there is none of {percent(file.power.margin)} takes "
        f"{p.for_margin[0]} and {p.for_margin[1]}."
    )
