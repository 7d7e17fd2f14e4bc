"""A screen of the page for each claim: the sentences, what was measured beside the effects, samples, and tables."""

import contextlib
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from PIL import Image

from pipeline.pages import blocks, reading
from sagd.errors import InputError
from sagd.figures import claims as figures
from sagd.figures.study import strips
from sagd.runtime.files import read_json
from studies.claims.answers import arms, command, counted, drawn, edges, heading, measured, numbers, told
from studies.claims.decided import PRIMARY, RINGS, Answer, Contrast, File, Results, answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EARLIER = (0.25, 0.5)  # shares of the training that stand beside its end
UNITS = {  # what an effect is, on the axis of a picture
    "difference": "log ratio of the distances",
    "gains": "log ratio of the distances",
    "every": "log ratio of the distances",
    "share": "share of the gain of filtering that is missing",
    "rings": "change of log error for 0.25 of alpha",
    "fading": "change of log error for 0.25 of alpha",
    "slope": "change of log distance for 0.25 of alpha",
}


def shown(name: str, found: dict[str, dict[str, Answer]], file: File, results: Results) -> None:
    """A screen of the page: a claim."""
    question, its = file.questions[name], found[name]
    display(Markdown(heading(name, question, its)))
    display(picture(name, its, results))
    display(samples(name, results))
    display(numbers(its, results))
    display(arms(its, results))
    display(Markdown(BESIDE[name](results) if name in BESIDE else question.note))
    display(Markdown(command(its, results)))


def picture(name: str, its: dict[str, Answer], results: Results) -> HTML:
    """The picture of a claim: what was measured on the left, and the effects on the right."""
    lines = [line for a in its.values() if drawn(a) for line in effects(a, results)]
    run = [a for a in its.values() if a.decision]
    if not lines:
        return HTML("")
    axes = {axis_label(a.contrast) for a in run if a.contrast.kind != "share"}
    axis = axes.pop() if len(axes) == 1 else "log ratio, or its change for 0.25 of alpha"
    try:
        figure = LEFT.get(name, _distances)(its, results, lines, axis)
    except InputError as error:
        return HTML(f"<p>The picture could not be drawn: {escape(str(error))}.</p>")
    margins = "Grey bands: margins, within which an effect does not matter." if any(e.margin for e in lines) else ""
    before = "Orange rings: the effect at a quarter (small ring) and at half of the training (large)."
    dots, left = counted(run[0].contrast), CAPTIONS.get(name, DISTANCES)
    caption = " ".join([
        f"{left} Right: the effects, diamonds with their 95 % intervals, dots for the {dots}; blue decides, "
        "grey is secondary (intervals not corrected).", margins, before if any(e.earlier for e in lines) else "",
    ]).strip()  # fmt: skip
    alt = "; ".join(f"{a.name.replace('_', ' ')}: {a.verdict}, {told(a)}" for a in run)
    return blocks.keep(figure, name, caption, alt)


def axis_label(contrast: Contrast) -> str:
    """What an effect is, on the axis of a picture."""
    recorded = {"endpoint": "slope over log sigma", "cost": "log ratio of the times"}
    return UNITS.get(contrast.kind) or recorded.get(contrast.measure.partition("_")[0], UNITS["difference"])


def effects(found: Answer, results: Results) -> list[figures.Effect]:
    """The lines of a contrast in its picture."""
    if found.decision is None:
        return []
    contrast = found.contrast
    before = [_earlier(contrast, results, at) for at in EARLIER]
    part_of = 4 if contrast.kind in ("rings", "fading", "slope") else 1  # slopes are told for a quarter of alpha
    return [
        figures.Effect(
            label=_label(found, part), mean=d.mean / part_of, low=d.low / part_of, high=d.high / part_of,
            seeds=[e / part_of for e in d.effects], margin=contrast.margin,
            earlier=[b[k] / part_of for b in before if b], primary=contrast.primary,
        )
        for k, (part, d) in enumerate(zip(found.parts, found.decision.parts, strict=True))
    ]  # fmt: skip


def _label(found: Answer, part: str) -> str:
    if not part:
        return found.name.replace("_", " ")
    if part in RINGS:
        return f"{found.name.replace('_', ' ')}: {part}"
    return f"band {edges(part)}"


def _earlier(contrast: Contrast, results: Results, at: float) -> list[float]:
    """The means of a contrast's effects at a share of the training; none where nothing was measured then."""
    decision = answer("", contrast, results, at).decision if measured(contrast, results, at) else None
    return [d.mean for d in decision.parts] if decision else []


def samples(name: str, results: Results) -> HTML:
    """The first samples of some arms, which begin with the same white noise."""
    named = {label: results.params.setting(arm) for label, arm in STRIPS.get(name, {}).items()}
    files = {label: file for label, s in named.items() if (file := s.report("sample", "png")).is_file()}
    if len(files) < 2:
        return HTML("")
    rows = {}
    for label, file in files.items():
        with contextlib.suppress(InputError), reading.of(file):  # one that is damaged is left out
            grid = np.asarray(Image.open(file))
            rows[label] = grid[: grid.shape[1] // 12]  # twelve in a row
    if len(rows) < 2:
        return HTML("")
    band = next(iter(named.values())).corrupt.band
    where = f", of images with noise in the band {list(band)}" if band else ""
    caption = (
        f"The first twelve samples of each arm ({'; '.join(rows)}){where}, not selected: "
        "those in one place begin with the same white noise, and the networks with the same weights."
    )
    return blocks.keep(strips(rows), f"{name}_samples", caption, f"Rows of digits: {', '.join(rows)}")


def _distances(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Every arm that was run, with the distance of real images in the samples' place."""
    named = [n for a in its.values() for n in (a.contrast.a, a.contrast.b, a.contrast.c, a.contrast.d) if n]
    arms = [n for n in dict.fromkeys(named) if results.has(n)]
    values, real = {_arm(n, results): n for n in arms}, f"{PRIMARY}_of_real"
    means = [results.of(n, real).mean() for n in arms if results.has(n, real)]
    floors = {"real images": float(np.mean(means))} if means else {}
    shown = {label: results.of(n).tolist() for label, n in values.items()}
    return figures.distances(shown, floors, "kernel distance", lines, axis)


def _arm(name: str, results: Results) -> str:
    """An arm in words, such as eps, listing at -0.06."""
    base, _, variant = name.partition("/")
    setting = results.params.setting(base)
    noise, train = setting.noise, setting.train
    words = [train.prediction, f"{'listing at' if noise.dc == 'floor' else 'alpha'} {noise.alpha:g}"]
    uniform = train.model_dump().get("linear", {}).get("times") == "uniform"
    words += ["uniform times"] if uniform and train.prediction == "v" else []
    words += ["minus the mean image"] if setting.encode.centre else []
    return ", ".join([*words, *(["right start"] if variant == "marginal" else [])])


def _bands(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Distances over the corrupted bands."""
    arms = {
        "isotropic": "iso", "band left out, literal loss": "literal", "band left out, projected": "bpm",
        "images filtered": "filtered",
    }  # fmt: skip
    bands = results.bands
    curves = {label: _over_bands(results, [f"omission_{b}_{arm}" for b in bands]) for label, arm in arms.items()}
    floor = _over_bands(results, [f"omission_{b}_bpm" for b in bands], f"{PRIMARY}_of_filtered")
    middles = [(int(b[:2]) + int(b[3:])) / 20 for b in bands]
    labels = ("corrupted band (fraction of the largest radius)", "kernel distance to clean images")
    floors = {"real images without the band": floor.mean(0)} if len(floor) else {}
    return figures.curves(middles, curves, labels, lines, axis, floors=floors)


def out_of_reach(results: Results) -> str:
    """Bands where real images without it are further away than samples of isotropic noise, in Markdown; or empty."""
    said = []
    for band in results.bands:
        arm, plain = f"omission_{band}_bpm", f"omission_{band}_iso"
        filtered = f"{PRIMARY}_of_filtered"
        if results.has(arm, filtered) and results.has(plain):
            floor, distance = results.of(arm, filtered).mean(), results.of(plain).mean()
            if floor > distance:
                arms = {"leaving the band out of the noise": arm, "filtering the images": f"omission_{band}_filtered"}
                others = (f"{what} {results.of(name).mean():.2f}" for what, name in arms.items() if results.has(name))
                said.append(
                    f"On band {edges(band)} even real images without the band are further from clean ones, "
                    f"{floor:.2f}, than samples of isotropic noise are, {distance:.2f}, which have its corruption: no "
                    f"network trained without the band can win there. Networks are further still: "
                    f"{', '.join(others)}; the rest is their own error."
                )
    return " ".join(said)


def _over_bands(results: Results, names: list[str], measure: str = PRIMARY) -> np.ndarray:
    """A measure of some settings, (seeds, settings): NaN where one was not run."""
    columns = {name: results.of(name, measure) for name in names if results.has(name, measure)}
    return pd.DataFrame(columns, columns=names).to_numpy(dtype=float)


def _rings_picture(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """The denoising error of each alpha over that of alpha 0, over the radius."""
    over = next((a.contrast.over for a in its.values() if a.contrast.kind == "rings" and a.decision), None)
    if over is None:
        raise InputError("the denoising errors of its arms can't be compared")
    errors = {alpha: results.denoising(name).set_index(["seed", "snr", "radius"]).error for name, alpha in over.items()}
    logs = np.log(pd.DataFrame(errors)).dropna()  # where the schedule reaches the SNR with every noise
    means = logs.sub(logs[0.0], axis=0).groupby(["seed", "radius"]).mean()
    x = sorted(means.index.unique("radius"))[1:]
    curves = {f"alpha {alpha:+g}": np.exp(means[alpha].unstack()[x]).to_numpy() for alpha in means if alpha}
    band = results.params.setting(next(iter(over))).corrupt.band
    images = f", of images with noise in {band}" if band else ""
    labels = (f"radius (cycles per pixel){images}", "denoising error over that of alpha 0")
    return figures.curves(x, curves, labels, lines, axis)


def _endpoint(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Differences of learnt scores over sigma."""
    file = _file(results, "endpoint")
    with reading.of(file):
        found = read_json(file)
        sigma = reading.finite("sigma", found["sigma"], None)
        curves = {
            label: reading.finite(key, found[key], None, len(sigma))
            for label, key in (("alpha ±0.25 against 0", "of_alphas"), ("two seeds of alpha 0", "of_seeds"))
        }
    labels = ("sigma", "relative difference of scores")
    return figures.curves(sigma.tolist(), curves, labels, lines, axis, logarithmic=True)


def _cost(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Times of a step."""
    file = _file(results, "cost")
    with reading.of(file):
        found = read_json(file)
        values = {
            f"{label}, {noise}": (reading.finite(f"{noise} of {key}", found[key][noise], None) * 1000).tolist()
            for key, label in (("cost_paper", "paper's U-Net"), ("cost_study", "study's U-Net"))
            for noise in ("isotropic", "shaped")
        }
    return figures.distances(values, {}, "milliseconds a step", lines, axis)


def _colored(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Distances by the sampler."""
    file = _file(results, "colored")
    labels = {"ode": "ddim", "white": "ddpm, white", "paper": "ddpm, colored", "tuned": "ddpm, colored gently"}
    floors = {"real images": float(results.of("tilt_v_iso", f"{PRIMARY}_of_real").mean())}
    with reading.of(file):
        found = read_json(file)["distances"]
        shown = {label: reading.finite(arm, found[arm], None).tolist() for arm, label in labels.items()}
    return figures.distances(shown, floors, "kernel distance", lines, axis)


def _flicker(its: dict[str, Answer], results: Results, lines: list[figures.Effect], axis: str) -> "Figure":
    """Distances over the number of steps."""
    file = _file(results, "flicker")
    with reading.of(file):
        found = read_json(file)
        steps = reading.finite("steps", found["steps"], None)
        curves = {
            f"alpha {alpha}": reading.finite(f"alpha {alpha}", values, None, len(steps))
            for alpha, values in found["distances"].items()
        }
    labels = ("steps of ddim", "kernel distance")
    return figures.curves(steps.tolist(), curves, labels, lines, axis, logarithmic=True)


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
    "spectrum": _rings_picture, "omission": _bands, "endpoint": _endpoint, "cost": _cost,
    "colored": _colored, "flicker": _flicker,
}  # fmt: skip
BESIDE = {"omission": out_of_reach}  # what is said below the numbers, where it takes numbers to say it
DISTANCES = "Left: kernel distances of the arms, a dot a seed; the green line is that of real images."
CAPTIONS = {
    "spectrum": "Left: the denoising error at matched signal-to-noise ratio, over that of isotropic noise; thin lines "
    "are seeds.",
    "omission": "Left: kernel distances to clean images, over the band; thin lines are seeds; dashed: real images "
    "without the band.",
    "endpoint": "Left: how much learnt scores differ, over the noise level: of two alphas, and of two seeds of one; "
    "thin lines are seeds.",
    "cost": "Left: times of a training step, a dot a timing.",
    "tiny": "Left: kernel distances at alpha 0 and ±0.001, a dot a seed; the green line is that of real images.",
    "colored": "Left: kernel distances of the same networks by four samplers, a dot a seed; the green line is that of "
    "real images.",
    "flicker": "Left: kernel distances over the number of steps; thin lines are seeds.",
}
