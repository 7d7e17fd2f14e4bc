"""Does a right start do what shaping does? Verdicts on the networks of theory/, each sampled in three ways."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pipeline import params as parameters
from pipeline.pages import reading, results
from pipeline.pages.verdicts import Interval, difference, interaction, judged, number, paired
from pipeline.params import Params
from sagd.runtime.files import read_tensors
from studies.theory.curves import STATISTICS, curve

# A setting's name is that of its noise, then of its training, then of its start: `plw_m006_v, marginal`.
NOISES = {"plw_m006": "-0.06", "iso": "0", "plw_p006": "+0.06"}
TRAINED = {"": "linear, eps", "_v": "linear, v", "_zero": "zero terminal SNR, v"}
STARTS = {"": "noise", ", marginal": "marginal", ", trailing": "trailing, noise"}
PARTS = ("mean", "dc", "rest")
VERDICTS = {"better": "smaller", "worse": "larger", "within the noise": "within the noise"}
COMPARISONS = {
    "A right start": [(f"{n}{t}, marginal", f"{n}{t}") for t in ("", "_v") for n in NOISES],
    "Shaping": [
        (f"{n}{t}{s}", f"iso{t}{s}")
        for t, s in (("", ""), ("", ", marginal"), ("_v", ""), ("_v", ", marginal"), ("_zero", ", trailing"))
        for n in ("plw_m006", "plw_p006")
    ],
    "Predicting v": [(f"{n}_v", n) for n in NOISES],
    "A schedule that ends in noise": [(f"{n}_zero, trailing", f"{n}_v, trailing") for n in NOISES],
    "Trailing spacing": [(f"{n}{t}, trailing", f"{n}{t}") for t in ("", "_v") for n in NOISES],
}
TITLES = {  # what is compared
    "A right start": "A right start: the marginal, against noise",
    "Shaping": "Shaping: alpha -0.06 or +0.06, against alpha 0",
    "Predicting v": "Predicting v, against predicting ε",
    "A schedule that ends in noise": "Zero terminal SNR, against the linear schedule, both predicting v",
    "Trailing spacing": "Trailing spacing, against leading, from noise",
}
DRAWN = ("A right start", "Shaping", "Predicting v")  # of these, in the figure
IN_WORDS = (  # the parts of a name
    {noise: f"alpha {alpha}" for noise, alpha in NOISES.items()},
    {"": "predicts ε", "_v": "predicts v", "_zero": "predicts v on zero terminal SNR"},
    {"": "from noise", ", marginal": "from the marginal", ", trailing": "trailing spacing"},
)


@dataclass(frozen=True)
class Networks:
    """What was measured of the trained networks.

    Parameters
    ----------
    frame
        Of `results.table`: one row a setting and start.
    detail
        How they were measured (``evaluate.seeds.json`` of the first).
    """

    params: Params
    frame: pd.DataFrame
    detail: dict

    @property
    def label(self) -> str:
        """The name of the Fréchet distance."""
        return self.detail["names"]["fid"]


def read() -> Networks:
    """Read the study from theory/."""
    params = parameters.load()
    of_seeds = reading.detail(params.settings[0])
    with reading.of(params.settings[0].report("evaluate", "seeds.json")):
        frechet = str(of_seeds["names"]["fid"])
    return Networks(params, results.table(params, frechet), of_seeds)


def words(name: str, against: str | None = None) -> str:
    """The name of a setting in words; beside ``against`` without what differs, but for alpha."""
    (noise, trained, start), other = _parts(name), _parts(against or name)
    kept = (True, trained == other[1], start == other[2])
    found = zip((noise, trained, start), IN_WORDS, kept, strict=True)
    return ", ".join(said[part] for part, said, keep in found if keep)


def _parts(name: str) -> tuple[str, str, str]:
    """The noise, the training and the start in a setting's name."""
    return next((n, t, s) for n in NOISES for t in TRAINED for s in STARTS if n + t + s == name)


def setup(networks: Networks) -> str:
    """How the networks were trained, sampled and measured, in Markdown."""
    frame, first = networks.frame, networks.params.settings[0]
    train, how, size = first.train, first.sample, networks.params.section("dataset").size
    return (
        f"{frame.seeds.iloc[0]} seeds a cell, {frame.samples.iloc[0]} samples a seed, against the "
        f"{frame.measured.iloc[0]['held_out']} test images of MNIST at {size} x {size}; {train.steps} steps of "
        f"{train.batch_size}, U-Net {train.architecture.widths}; {how.sampler}, {how.steps} steps. A short training of "
        f"a small network, on the hardware in [timings.json](timings.json). Distances on the features of "
        f"{networks.detail['features']} are not FIDs. Means and standard errors over the seeds."
    )


def cells(networks: Networks) -> pd.DataFrame:
    """Every network and start: its distance, and the parts of the distance of the pixels."""
    rows = []
    for t, trained in TRAINED.items():
        for n, noise in NOISES.items():
            for s, start in STARTS.items():
                row = networks.frame.loc[n + t + s]
                parts = {f"pixels_{part}": f"{row.measured[f'pixels_{part}']:.2f}" for part in PARTS}
                distance = f"{row.distance:.1f} ± {row.distance_se:.1f}"
                rows.append({"trained": trained, "alpha": noise, "start": start, **parts, networks.label: distance})
    return pd.DataFrame(rows)


def parts_text(networks: Networks) -> str:
    """What the parts of `cells` are, and how large they are for real images, in Markdown."""
    real = networks.frame.measured.iloc[0]
    return (
        "`pixels_mean`, `pixels_dc` and `pixels_rest` are the parts that the oracle predicts (squared distance of "
        "the pixels as a Gaussian field), measured on the samples. For real training images, as many as there are "
        "samples, they are " + ", ".join(f"{real[f'pixels_{part}_of_real']:.2f}" for part in PARTS) + "."
    )


def differences(networks: Networks, titles: tuple[str, ...] = tuple(COMPARISONS)) -> pd.DataFrame:
    """Every comparison, seed by seed: comparison, arm (what a pair has in common, in words), setting, against,
    difference, half (of the interval), verdict.

    ``mean_image`` and ``mean_image_verdict`` are the same of the pixels' mean images.
    """
    found = []
    for title in titles:
        rows, pixels = (paired(networks.frame, COMPARISONS[title], of) for of in ("per_seed", "pixels_mean"))
        shown = [number(d, h, signed=True) for d, h in zip(pixels.difference, pixels["±"], strict=True)]
        rows = rows.rename(columns={"±": "half"})
        arms = [words(a, b) for a, b in zip(rows.setting, rows.against, strict=True)]
        rows = rows.assign(comparison=title, arm=arms, mean_image=shown, mean_image_verdict=pixels.verdict)
        found.append(rows)
    return pd.concat(found, ignore_index=True)


def intervals_text(found: pd.DataFrame) -> str:
    """How to read the tables of `differences`, in Markdown."""
    return (
        "All differences, seed by seed, with 95 % intervals (Student's, of each row's own few differences, so wide); "
        f"below zero is better. Of {len(found)} such intervals about one in twenty excludes 0 by chance."
    )


def drawn(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What the figure shows of `differences`: a title to the rows of its panel."""
    return {TITLES[comparison]: found[found.comparison == comparison] for comparison in DRAWN}


def seen(found: pd.DataFrame) -> str:
    """The figure in words, for those who do not see it."""
    told = []
    for title, rows in drawn(found).items():
        counts = {word: (rows.verdict == verdict).sum() for word, verdict in VERDICTS.items()}
        said = ", ".join(f"{count} {word}" for word, count in counts.items())
        low, high = rows.difference.min(), rows.difference.max()
        told.append(f"{title}: {len(rows)} rows, {said}, from {low:+.2g} to {high:+.2g}")
    return f"Dots with intervals beside a line at zero. {'. '.join(told)}."


def differences_table(found: pd.DataFrame, title: str, label: str) -> pd.DataFrame:
    """The rows of one comparison, to show."""
    rows = found[found.comparison == title]
    return pd.DataFrame(
        {
            "networks": rows.arm,
            label: [number(d, h, signed=True) for d, h in zip(rows.difference, rows.half, strict=True)],
            "verdict": rows.verdict,
            "pixels_mean": rows.mean_image,
            "verdict on the mean image": rows.mean_image_verdict,
        }
    )


def predictions(frame: pd.DataFrame) -> dict[str, Interval]:
    """What the explanation predicts, each the claim that a difference is below 0."""
    shaping, right = ("plw_m006", "iso"), ("iso, marginal", "iso")
    after = ("plw_m006, marginal", "iso, marginal")
    with_v = ("plw_m006_v", "iso_v"), ("plw_m006_v, marginal", "iso_v, marginal")
    hides = "Alpha -0.06 gains more from noise than after a right start (it hides the wrong start)"
    return {
        "From noise, alpha -0.06 helps": difference(frame, *shaping),
        "A right start helps at alpha 0": difference(frame, *right),
        hides: interaction(frame, shaping, after),
        "The same, with networks that predict v": interaction(frame, *with_v),
    }


def conclusion(helps: Interval, hides: Interval) -> str:
    """What follows from two of the `predictions`: that shaping helps, and that it hides the wrong start."""
    said = {
        "smaller": "Shaping hides a part of the wrong start from these networks",
        "larger": "Shaping gains more after a right start, which the explanation does not predict",
        "within the noise": "These networks do not show that shaping hides any part of the wrong start",
    }.get(hides.verdict, "One seed decides nothing")
    return said + {
        "smaller": "; in total it helps them.",
        "larger": "; in total it costs them more than it gains.",
    }.get(helps.verdict, "; in total its effect is within the noise.")


def near_the_best(frame: pd.DataFrame) -> list[str]:
    """The settings whose distance is not clearly different from the least."""
    least = frame.distance.idxmin()
    found = ((name, difference(frame, name, least)) for name in frame.index)
    return [name for name, gap in found if not abs(gap.difference) > gap.half]


def verdicts_text(networks: Networks) -> str:
    """The predictions with their verdicts, and what follows, in Markdown."""
    frame, found = networks.frame, predictions(networks.frame)
    helps, _, hides, _ = found.values()
    lines = "".join(f"\n- {claim}: **{judged(value)}** ({value})." for claim, value in found.items())
    best = words(frame.distance.idxmin())
    of_v = ", ".join(f"{difference(frame, f'{n}_v', n)} at {alpha}" for n, alpha in NOISES.items())
    return (
        f"What the explanation predicts, compared with the networks (difference of {networks.label}):\n{lines}\n\n"
        f"{conclusion(helps, hides)} Predicting v changes the distance by {of_v}. The least distance is that of "
        f"{best}; {len(near_the_best(frame)) - 1} of the other {len(frame) - 1} are not clearly different from it. "
        "The networks are small and their training is short, so this says nothing about the published ones, which "
        "were trained for longer."
    )


def mean_image(networks: Networks, schedule, statistics: Path = STATISTICS / "mnist_16.safetensors"):
    """What a right start changes in the mean image: predicted by the oracle for this data and sampler, and measured.

    Returns
    -------
    DataFrame, str
        One row an alpha; and in Markdown how much of the networks' error the start explains.
    """
    data, frame, sampler = (
        read_tensors(statistics),
        networks.frame,
        networks.params.settings[0].sample.settings(clip=False),
    )
    rows, predicted = [], {}
    for noise, alpha in NOISES.items():
        value, mean = float(alpha), {}
        for start in ("noise", "marginal"):
            how = replace(sampler, start=start)
            mean[start] = curve(data, schedule, [value], how, dc="floor").curve[value]["mean"]
        predicted[noise] = mean["noise"]
        level, error = (frame.loc[noise].measured[f"pixels_mean{ending}"] for ending in ("", "_se"))
        rows.append(
            {
                "alpha": alpha,
                "predicted change": f"{mean['marginal'] - mean['noise']:+.3f}",
                "measured change": str(difference(frame, f"{noise}, marginal", noise, "pixels_mean")),
                "predicted error, from noise": f"{mean['noise']:.3f}",
                "measured error, from noise": number(level, error),
            }
        )
    times = frame.loc["iso"].measured["pixels_mean"] / round(predicted["iso"], 3)  # as the table has it
    return pd.DataFrame(rows), (
        f"At alpha 0 the networks' error of the mean image is {times:.0f} times what the start explains: "
        + ("most of it has another cause." if times > 3 else "the start explains much of it.")
    )
