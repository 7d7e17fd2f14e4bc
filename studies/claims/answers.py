"""The page of the claims: a question, the verdict in a sentence, one picture, one row of numbers, the command."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML

from pipeline.pages import blocks, earlier
from pipeline.pages.verdicts import number
from pipeline.run import timings
from sagd.errors import InputError
from sagd.runtime.files import read_json
from studies.claims.contrasts import EQUIVALENT, MEANINGS, SUPPORTED, UNDECIDED, Decision, Joint, error_rates
from studies.claims.decided import (
    NOT_RUN,
    PRIMARY,
    Answer,
    Contrast,
    File,
    Question,
    Results,
    answer,
    answers,
    overall,
    pilot,
    recorded,
    settings_of,
)  # fmt: skip
from studies.claims.history import HISTORY
from studies.claims.sentences import SENTENCES

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
WHAT = {  # an effect is of, by the kind of its contrast, or by the stage that wrote it
    "difference": "distance",
    "gains": "the one effect on the distance over the other",
    "every": "distance",
    "share": "against filtering",
    "rings": "denoising error",
    "fading": "slope at a quarter of the training minus that at its end",
    "slope": "distance",
    "endpoint": "power of sigma (above 0: it falls)",
    "cost": "time of a step",
    "colored": "distance",
    "flicker": "distance",
}


def percent(effect: float) -> str:
    """A logarithm of a ratio as a change in percent, to two digits or whole."""
    return f"{share(math.expm1(effect))} %"


def share(part: float) -> str:
    """A part as a number of percent, to two digits or whole."""
    value = 100 * part
    places = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{value:+.{places}f}"


def edges(band: str) -> str:
    """The edges of a band that is named 04_05: [0.4, 0.5]."""
    low, high = (f"{edge[0]}.{edge[1:]}" for edge in band.split("_"))
    return f"[{low}, {high}]"


def told(found: Answer) -> str:
    """What came out of a contrast, in a few words with its 95 % interval."""
    decision, kind = found.decision, found.contrast.kind
    if decision is None:
        return found.why
    if isinstance(decision, Joint):
        if kind in ("rings", "fading"):
            return "; ".join(f"{part} {_slope(d)}" for part, d in zip(found.parts, decision.parts, strict=True))
        means = [d.mean for d in decision.parts]
        return f"{_over_bands(found.parts, decision)} (means of {percent(min(means))} to {percent(max(means))})"
    if kind == "share":
        return f"gains {share(-decision.mean)} % more ({share(-decision.high)} to {share(-decision.low)} %)"
    if kind in ("slope", "rings"):
        return f"{' '.join(found.parts)} {_slope(decision)}".strip()
    if found.contrast.measure.startswith("endpoint"):
        return f"slope {decision.mean:+.2f} ({decision.low:+.2f} to {decision.high:+.2f})"
    return f"{percent(decision.mean)} ({_between(decision.low, decision.high)})"


def _over_bands(bands: Sequence[str], decision: Joint) -> str:
    """On how many bands a distance is clearly smaller, and larger; a band that is alone in it is named."""
    clear: dict[str, list[str]] = {"better": [], "worse": []}
    for band, part, side in zip(bands, decision.parts, decision.sides, strict=True):
        if side != UNDECIDED:
            clear["better" if part.mean < 0 else "worse"].append(band)
    told = [
        f"{word} on {edges(*named) if len(named) == 1 else f'{len(named)} of {len(bands)} bands'}"
        for word, named in clear.items() if named
    ]  # fmt: skip
    return ", ".join(told) or f"neither better nor worse on any of {len(bands)} bands"


def _between(low: float, high: float) -> str:
    """An interval of logarithms of ratios, with a digit more where its ends would look the same."""
    ends = [100 * math.expm1(end) for end in (low, high)]
    told = [share(end / 100) for end in ends]
    if told[0] == told[1]:
        told = [f"{end:+.{1 + len(told[0].partition('.')[2])}f}" for end in ends]
    return f"{told[0]} to {told[1]} %"


def in_words(name: str, its: dict[str, Answer]) -> str:
    """What came out of a question, in a sentence; empty where none was written for these verdicts."""
    verdicts = {k: a.verdict for k, a in its.items()}
    sentence = SENTENCES.get(name)
    if sentence is None or any(verdicts.get(k) != verdict for k, verdict in sentence.of.items()):
        return ""
    return sentence.text.format_map({k: told(a) for k, a in its.items()})


def what(contrast: Contrast) -> str:
    """What the effects of a contrast are of, in a word or two."""
    plus = f" plus {contrast.plus:g}" if contrast.plus else ""
    return WHAT[contrast.measure.partition("_")[0] if contrast.kind == "recorded" else contrast.kind] + plus


def outcome(found: Answer) -> str:
    """What was measured, and how it came out."""
    said = told(found)
    if found.decision is None:
        return said
    return f"{what(found.contrast)}{',' if said[0].isalpha() else ''} {said}"


def _slope(decision: Decision) -> str:
    """A slope as the change for a quarter of alpha."""
    return f"{percent(decision.mean / 4)} for each 0.25 of alpha ({_between(decision.low / 4, decision.high / 4)})"


def summary(found: dict[str, dict[str, Answer]], file: File) -> HTML:
    """The table of all verdicts, by the number of the claim: primary contrasts, with a count of the secondary ones."""
    rows = [
        {
            "claim": f"{question.claim}. {question.title}" if question.claim else f"{question.title} (others' claim)",
            "verdict": a.verdict,
            "expected": blocks.sentence(a.contrast.says),
            "measured (95 %)": outcome(a),
            "seeds": _count(a),
            "its secondary contrasts": _beside(found[name]),
        }
        for name, question in sorted(file.questions.items(), key=lambda item: item[1].claim or math.inf)
        for a in found[name].values()
        if a.contrast.primary
    ]
    frame = pd.DataFrame(rows)
    frame.loc[frame.claim.duplicated(), "its secondary contrasts"] = ""
    return _table(frame)


def _table(frame: pd.DataFrame) -> HTML:
    """A table of sentences, in which numbers stay with their signs of percent."""
    return HTML(blocks.table(frame, text=True).data.replace(" %", "\N{NO-BREAK SPACE}%"))


def _beside(its: dict[str, Answer]) -> str:
    """How many of a question's secondary contrasts came out how."""
    words = [a.verdict for a in its.values() if not a.contrast.primary]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def heading(name: str, question: Question, its: dict[str, Answer]) -> str:
    """The title of a claim, what came out in a sentence, the paper's sentence, and ours, in Markdown."""
    verdicts = "\n".join(f"- {sentence(a)}" for a in its.values() if a.contrast.primary)
    beside = {name: a for name, a in its.items() if not a.contrast.primary and a.verdict != NOT_RUN}
    return "\n\n".join([
        f"## {question.title}",
        f"**{blocks.sentence(overall(its))}** {in_words(name, its)}".rstrip(),
        f"**{question.whose}{f' (claim {question.claim})' if question.claim else ''}.** {question.paper}",
        f"**The question.** {question.asks}",
        verdicts,
        *(["Beside it, secondary:\n\n" + "\n".join(f"- {sentence(a)}" for a in beside.values())] if beside else []),
    ])  # fmt: skip


def sentence(found: Answer) -> str:
    """A verdict in a sentence, in Markdown."""
    contrast = found.contrast
    if found.decision is None:
        return f"**{found.verdict.capitalize()}.** {blocks.sentence(contrast.says)[:-1]} ({told(found)})."
    said = outcome(found)
    if found.verdict == SUPPORTED:
        return f"**Supported.** {blocks.sentence(contrast.says)} Measured: {said}."
    why = ""
    if found.verdict == EQUIVALENT and contrast.margin:
        low, high = share(math.expm1(-contrast.margin)), percent(contrast.margin)
        why = f", which is within the margin ({low} to {high})"
    return f"**{found.verdict.capitalize()}.** Expected: {contrast.says}. Measured: {said}{why}."


def numbers(its: dict[str, Answer], results: Results) -> HTML:
    """Every contrast of a question in a row; p-values of the secondary ones are corrected, intervals are not."""
    rows = [
        {
            "contrast": blocks.sentence(a.contrast.says),
            "in the picture": ("bands" if a.contrast.kind == "every" else a.name.replace("_", " ")) if drawn(a) else "",
            "verdict": a.verdict,
            "measured (95 %)": outcome(a),
            "p": _p(a),
            "seeds": _count(a),
            **{f"at {part} of training": _verdict(a, results, at) for part, at in (("1/4", 0.25), ("1/2", 0.5))},
            "decides": "yes" if a.contrast.primary else "no (Holm)",
        }
        for a in its.values()
    ]
    frame = pd.DataFrame(rows)
    return _table(frame.loc[:, (frame != "").any()])


def arms(its: dict[str, Answer], results: Results) -> HTML:
    """All measures of a question's arms, mean and standard error over the seeds, folded."""
    named = dict.fromkeys(n for a in its.values() for n in settings_of(a.contrast, results.bands))
    rows = []
    for name in named:
        found = {title: results.of(name, m) for title, m in MEASURES.items() if results.has(name, m)}
        if found:
            row = {title: number(values.mean(), values.sem()) for title, values in found.items()}
            rows.append({"arm": name, **row, "seeds": str(len(next(iter(found.values()))))})
    if not rows:
        return HTML("")
    return blocks.folded("All measures", f"{len(rows)} of {len(named)} arms", pd.DataFrame(rows).fillna(""), False)


def _p(found: Answer) -> str:
    """The p-values of a contrast's hypotheses, each by the name of what a small one rejects."""
    decision = found.decision
    if decision is None:
        return ""
    if isinstance(decision, Joint):
        return (
            f"not all as expected: {decision.p_support:.2g}; none the other way: {decision.p_against:.2g}; "
            f"none as expected: {decision.p_part:.2g}"
        )
    if found.contrast.expected == "within":
        return f"outside: {decision.p_equivalence:.2g}; inside: {decision.p_difference:.2g}"
    outside = f"; outside the margin: {decision.p_equivalence:.2g}" if found.contrast.margin else ""
    return f"no effect: {decision.p_difference:.2g}{outside}"


def _count(found: Answer) -> str:
    """How many seeds there are, or timings."""
    if found.decision is None:
        return ""
    count = str(min(len(d.effects) for d in found.decision.parts))
    return count if counted(found.contrast) == "seeds" else f"{count} {counted(found.contrast)}"


def counted(contrast: Contrast) -> str:
    """What has an effect each."""
    recorded = {"cost": "timings", "endpoint": "pairs of seeds"} if contrast.kind == "recorded" else {}
    return recorded.get(contrast.measure.partition("_")[0], "seeds")


def drawn(found: Answer) -> bool:
    """Whether a contrast is in its picture: of claims about every band only what decides; a share is no ratio."""
    return bool(
        found.decision and found.contrast.kind != "share" and (found.contrast.primary or found.contrast.kind != "every")
    )


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
    told += [f"`cd studies/claims && dvc repro {stage}`" for stage in stages]
    return f"Run it: {', then '.join(told)}."


def _verdict(found: Answer, results: Results, at: float) -> str:
    """The verdict, not corrected, at a share of the training; empty where nothing was measured then."""
    if found.decision is None or not measured(found.contrast, results, at):
        return ""
    return answer(found.name, found.contrast, results, at).verdict


def measured(contrast: Contrast, results: Results, at: float) -> bool:
    """Whether all that a contrast needs was measured at a share of the training."""
    if contrast.kind in ("recorded", "fading"):
        return False
    named = settings_of(contrast, results.bands)
    return contrast.kind == "rings" or all(results.has(name, contrast.measure, at) for name in named)


def ran(results: Results) -> str:
    """What was run, how long it took, and on what, in Markdown."""
    settings = results.params.settings
    done = [s for s in settings if results.run(str(s.name))]
    try:
        noted = timings.read()
    except InputError:  # it is told below that no speed is known
        noted = {}
    timed = sum(s.title in noted for s in done)
    trainings = sum(len(s.seeds) for s in done)
    hours = sum(
        len(s.seeds) * s.train.steps * s.train.batch_size / noted[s.title]["images_per_second"] / 3600
        for s in done if s.title in noted
    )  # fmt: skip
    machines = sorted({f"{n['cpu']}, {n['device']}, torch {n['torch']}" for s, n in noted.items()})
    each, others = settings[0].train, earlier.left_out(results.params)
    return (
        f"{len(done)} of {len(settings)} settings were run, with the pilot: {trainings} trainings (most of "
        f"{each.steps * each.batch_size:,} images in batches of {each.batch_size}), {hours:.1f} hours"
        f"{'' if timed == len(done) else f' (of the {timed} settings whose speed was noted)'}, "
        f"one or two at a time ({'; '.join(machines)}), and sampling and measuring beside. {others}"
    ).rstrip()


def stated() -> str:
    """When the contrasts were written down, and which groups had been measured by then (`history`), in Markdown."""
    lines = []
    for commit in read_json(HISTORY, commits=list)["commits"]:
        before = f"after {', '.join(commit['measured'])} had been measured"
        after = before if commit["measured"] else "before anything had been measured"
        lines.append(f"- `{commit['commit']}` ({commit['date']}), {after}: {commit['subject']}")
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
        "margin that was taken as 1.33 standard deviations of an effect over the seeds; 4,000 trials, 1,000 of 8 "
        "effects each. In the tables above a small p rejects what stands before it. The p of a claim about several "
        "effects is that of the weakest of them. Of secondary contrasts p is Holm's; that of none as expected is "
        "Bonferroni's, so that it changes no other. Intervals and the count of what holds in part are not corrected."
    )
    return HTML(f"<p>{file.rules}</p><ul>{meanings}</ul><p>{how}</p>{_table(rows).data}")


def power(file: File, results: Results) -> str:
    """Why there are so many seeds, in Markdown."""
    named = [name for pair in file.power.pairs for name in pair]
    try:
        if any(results.lacking(name) for name in named):
            return f"{file.power.why} The pilot's results are not here."
        p = pilot(results, file.power)
    except InputError as error:
        return f"{file.power.why} What the pilot says could not be computed: {error}."
    return (
        f"{file.power.why} Pooled over {len(file.power.pairs)} pairs of arms ({p.freedom} degrees of freedom) the "
        f"logarithm of a ratio of distances spreads by {p.spread:.3f} over the seeds, by {p.upper:.3f} at most (90 %). "
        f"To find an effect of {percent(file.power.effect)} with a power of 90 % takes {p.for_effect[0]} seeds, "
        f"{p.for_effect[1]} at the upper bound; to tell that there is none of {percent(file.power.margin)} takes "
        f"{p.for_margin[0]} seeds and {p.for_margin[1]}.{_spreads(file, results, p.upper)}"
    )


def _spreads(file: File, results: Results, upper: float) -> str:
    """How much the effects of the study itself varied, beside what the pilot said."""
    found = [
        d.effects for its in answers(results, file).values() for a in its.values()
        if a.contrast.primary and a.contrast.kind == "difference" and "/" not in a.contrast.a  # no variant of another
        and a.decision for d in a.decision.parts
    ]  # fmt: skip
    if not found:
        return ""
    spreads = [float(np.std(effects, ddof=1)) for effects in found]
    listed, above = ", ".join(f"{spread:.3f}" for spread in spreads), sum(spread > upper for spread in spreads)
    less = f": {above} of {len(spreads)} above that bound, so that the power was less than planned" if above else ""
    return (
        f" In the study itself it spread by {listed} (primary contrasts of two arms that were trained for them){less}."
    )
