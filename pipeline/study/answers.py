"""The page of the claims: a question, the verdict in a sentence, one picture, one row of numbers, the command."""

import math
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from PIL import Image

from pipeline.params import Params
from pipeline.run import timings
from pipeline.study import pages
from pipeline.study.contrasts import EQUIVALENT, LEVEL, MEANINGS, SUPPORTED, Decision, Joint, error_rates
from pipeline.study.decided import (
    FILE,
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
    "recorded": "log ratio of the times, or slope",
}
SIDES = ("below", "above")


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
        return found.why
    if isinstance(decision, Joint):
        if kind in ("rings", "fading"):
            return "; ".join(f"{part} {_slope(d)}" for part, d in zip(found.parts, decision.parts, strict=True))
        means = [d.mean for d in decision.parts]
        sides = {side: sum(_clear(d) and (d.mean < 0) == (side == "below") for d in decision.parts) for side in SIDES}
        clear = ", ".join(f"{count} {side} 0" for side, count in sides.items() if count) or "none clear of 0"
        return f"means of {percent(min(means))} to {percent(max(means))} on {len(means)} bands; {clear}"
    if kind == "share":
        return f"lacks {share(decision.mean)} % of the gain ({share(decision.low)} to {share(decision.high)} %)"
    if kind in ("slope", "rings"):
        return f"{' '.join(found.parts)} {_slope(decision)}".strip()
    if found.contrast.measure.startswith("endpoint"):
        return f"slope {decision.mean:+.2f} ({decision.low:+.2f} to {decision.high:+.2f})"
    return f"{percent(decision.mean)} ({share(math.expm1(decision.low))} to {percent(decision.high)})"


def _clear(decision: Decision) -> bool:
    """Whether an effect of a claim about several is clear of 0: one-sided, 5 %, as that rule has it."""
    return decision.p_difference / 2 < LEVEL


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
        return f"**Not run.** {pages.sentence(contrast.says)[:-1]} ({told(found)})."
    if found.verdict == SUPPORTED:
        return f"**Supported.** {pages.sentence(contrast.says)[:-1]}: {told(found)}."
    why = ""
    if found.verdict == EQUIVALENT and contrast.margin:
        low, high = share(math.expm1(-contrast.margin)), percent(contrast.margin)
        why = f", which is within the margin ({low} to {high})"
    return f"**{found.verdict.capitalize()}.** Expected: {contrast.says}. Measured: {told(found)}{why}."


def numbers(its: dict[str, Answer], results: Results) -> HTML:
    """Every contrast of a question in a row; p-values of the secondary ones are corrected, intervals are not."""
    rows = [
        {
            "contrast": pages.sentence(a.contrast.says),
            "verdict": a.verdict,
            "measured (95 %)": told(a),
            "p": _p(a.decision),
            "effects": _count(a.decision),
            **{
                f"at {share_} of training": _verdict(a, results, part) for share_, part in (("1/4", 0.25), ("1/2", 0.5))
            },
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
        against = f"; against {decision.p_against:.2g}" if decision.p_against < decision.p_support else ""
        return f"{decision.p_support:.2g}{against}"
    same = f"; equivalent {decision.p_equivalence:.2g}" if decision.p_equivalence < 1 else ""
    return f"{decision.p_difference:.2g}{same}"


def _count(decision: Decision | Joint | None) -> str:
    if decision is None:
        return ""
    parts = decision.parts if isinstance(decision, Joint) else (decision,)
    return str(min(len(d.effects) for d in parts))


def command(its: dict[str, Answer], results: Results) -> str:
    """How to run a question's arms, in Markdown."""
    named = dict.fromkeys(n.split("/")[0] for a in its.values() for n in settings_of(a.contrast, results.bands))
    groups: dict[str, list[str]] = {}
    for name in named:
        groups.setdefault(str(results.params.setting(name).group), []).append(name)
    whole = {g: [str(s.name) for s in results.params.settings if s.group == g] for g in groups}
    patterns = [f"{g}_.*" if sorted(names) == sorted(whole[g]) else "|".join(names) for g, names in groups.items()]
    of_stages = [a.contrast for a in its.values() if a.contrast.kind == "recorded"]
    stages = dict.fromkeys(recorded(contrast, results.params).stem for contrast in of_stages)
    told = [f"`make decide ONLY='^({'|'.join(patterns)})$'`"] if patterns else []
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


def _verdict(found: Answer, results: Results, share: float) -> str:
    """The verdict, not corrected, at a share of the training; empty where nothing was measured then."""
    if found.decision is None or not _measured(found.contrast, results, share):
        return ""
    return answer(found.name, found.contrast, results, share).verdict


def _earlier(contrast: Contrast, results: Results, share: float) -> list[float]:
    """The means of a contrast's effects at a share of the training; none where nothing was measured then."""
    decision = answer("", contrast, results, share).decision if _measured(contrast, results, share) else None
    parts = decision.parts if isinstance(decision, Joint) else (decision,) if decision else ()
    return [d.mean for d in parts]


def _measured(contrast: Contrast, results: Results, share: float) -> bool:
    if contrast.kind in ("recorded", "fading"):
        return False
    named = settings_of(contrast, results.bands)
    return contrast.kind == "rings" or all(results.has(name, contrast.measure, share) for name in named)


def picture(name: str, its: dict[str, Answer], results: Results) -> HTML:
    """The picture of a claim: what was measured on the left, and the effects on the right."""
    # Of claims about every band only what decides, eight lines each; a share is no ratio.
    lines = [
        line for a in its.values() for line in effects(a, results)
        if a.contrast.kind != "share" and (a.contrast.primary or a.contrast.kind != "every")
    ]  # fmt: skip
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
    bands = results.bands
    curves = {label: _over_bands(results, [f"omission_{b}_{arm}" for b in bands]) for label, arm in arms.items()}
    floor = _over_bands(results, [f"omission_{b}_bpm" for b in bands], f"{PRIMARY}_of_filtered").mean(0)
    middles = [(int(b[:2]) + int(b[3:])) / 20 for b in bands]
    labels = ("corrupted band (fraction of the largest radius)", "kernel distance to clean images")
    floors = {"real images without the band": floor}
    return figures.curves(middles, curves, labels, lines, axis, floors=floors)


def _over_bands(results: Results, names: list[str], measure: str = PRIMARY) -> np.ndarray:
    """A measure of some settings, (seeds, settings): NaN where one was not run."""
    columns = {name: results.of(name, measure) for name in names if results.run(name)}
    return pd.DataFrame(columns, columns=names).to_numpy(dtype=float)


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
    curves = {
        "alpha ±0.25 against 0": np.array(found["of_alphas"]),
        "two seeds of alpha 0": np.array(found["of_seeds"]),
    }
    labels = ("sigma", "relative difference of scores")
    return figures.curves(found["sigma"], curves, labels, lines, axis, logarithmic=True)


def _cost(its: dict[str, Answer], results: Results, lines: list, axis: str):
    """Times of a step."""
    found = read_json(_file(results, "cost"))
    values = {
        f"{label}, {noise}": np.multiply(found[key][noise], 1000).tolist()
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
    display(numbers(its, results))
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
        f"{len(done)} of {len(settings)} settings were run, with the pilot: {trainings} trainings, {hours:.1f} hours, "
        f"one or two at a time ({'; '.join(machines)}), and sampling and measuring beside."
    )


@cache
def _history() -> list[tuple[str, list[str]]]:
    """The commits of the contrasts and of what was measured, oldest first: hash, date and subject; the files."""
    command = ["git", "log", "--reverse", "--format=%x00%h %cs %s", "--name-only", "--", str(FILE), "reports"]
    try:
        if subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=True
        ).stdout.startswith("true"):
            return []
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    commits = (commit.strip().splitlines() for commit in said.split("\0") if commit.strip())
    return [(first, [file for file in files if file]) for first, *files in commits]


def stated(params: Params) -> str:
    """When the contrasts were written down, and when the first arm of each group was measured, in Markdown."""
    history = _history()
    if not history:
        return "The history of contrasts.yaml is not here (no git, or a shallow clone)."
    groups = dict.fromkeys(str(s.group) for s in params.settings)
    first: dict[str, int] = {}
    written_at = []
    for k, (_, files) in enumerate(history):
        if any(file.endswith(f"/{FILE}") for file in files):
            written_at.append(k)
        for group in groups:
            if any(f"/measure/{group}/" in file for file in files):
                first.setdefault(group, k)
    lines = []
    for k in written_at:
        before = [group for group in groups if first.get(group, len(history)) <= k]
        after = f"after {', '.join(before)} had been measured" if before else "before anything had been measured"
        commit, date, *subject = history[k][0].split()
        lines.append(f"- `{commit}` ({date}), {after}: {' '.join(subject)}")
    return "When contrasts.yaml was written, and changed:\n\n" + "\n".join(lines)


def rules(file: File) -> HTML:
    """What the verdicts mean, and how often the rules are wrong."""
    rows = pd.DataFrame(
        [{"truth": truth, **{word: f"{100 * share:.1f} %" for word, share in shares.items()}}
         for truth, shares in error_rates().items()]
    )  # fmt: skip
    meanings = "".join(f"<li><b>{word}</b>: {text}</li>" for word, text in MEANINGS.items())
    how = (
        "How often each verdict comes out, of effects that were drawn at random about a known truth: 8 seeds, and a "
        "margin of 1.33 standard deviations of an effect over the seeds; 4,000 trials, 1,000 of 8 effects each. "
        "The p of a claim about several effects is that of the weakest of them; of one that was expected to be small, "
        "that it is beyond the margin. Of secondary contrasts p is Holm's, and the interval is not corrected."
    )
    return HTML(f"<p>{file.rules}</p><ul>{meanings}</ul><p>{how}</p>{pages.table(rows, text=True).data}")


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
