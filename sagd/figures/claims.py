"""The pictures of the claims: effects with their intervals and margins beside the distances or curves of every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#000000", GREY)
MARKERS = "osD^vP*X"
HEIGHT = 0.42  # inches a line


@dataclass(frozen=True)
class Effect:
    """A line in the picture of effects.

    Parameters
    ----------
    label
        In a few words.
    mean, low, high
        Of the effect, and its 95 % interval.
    seeds
        The effect of each seed.
    margin
        The smallest effect that matters, if one was stated.
    earlier
        Means at earlier parts of the training, the earliest first.
    primary
        Whether it decides.
    """

    label: str
    mean: float
    low: float
    high: float
    seeds: Sequence[float]
    margin: float | None = None
    earlier: Sequence[float] = ()
    primary: bool = True


def distances(
    values: Mapping[str, Sequence[float]], floors: Mapping[str, float], label: str, effects: Sequence[Effect], x: str
) -> Figure:
    """Distances of each arm, a dot a seed, and floors; beside them the effects."""
    figure, (left, right) = _pair(len(values), len(effects))
    for k, seeds in enumerate(values.values()):
        left.plot(seeds, np.full(len(seeds), k) + _jitter(len(seeds)), ".", color=BLUE, alpha=0.6)
        left.plot(np.mean(seeds), k, "|", color="black", markersize=14, markeredgewidth=2)
    for (name, floor), style in zip(floors.items(), ("--", ":"), strict=False):
        left.axvline(floor, color=GREEN, linestyle=style, label=name)
    left.set(yticks=range(len(values)), yticklabels=list(values), xlabel=label)
    left.set_xlim(left=-0.03 * left.get_xlim()[1])  # a floor of nearly 0 shows beside the axis
    left.invert_yaxis()
    if floors:
        left.legend(fontsize=8)
    forest(right, effects, x)
    return figure


def curves(
    x: Sequence[float],
    lines: Mapping[str, np.ndarray],
    labels: tuple[str, str],
    effects: Sequence[Effect],
    effect: str,
    *,
    logarithmic: bool = False,
    floors: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Curves (seeds, points) of each arm over x, each seed thin and their mean thick; beside them the effects.

    Points that were not measured are NaN.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, (left, right) = _pair(7, len(effects))
    drawn = {name: values for name, values in lines.items() if len(values)}
    for (name, values), color, marker in zip(drawn.items(), COLORS, MARKERS, strict=False):
        left.plot(x, values.T, color=color, linewidth=0.5, alpha=0.4)
        left.plot(x, values.mean(0), color=color, marker=marker, markersize=4, label=name)
    for (name, floor), style in zip((floors or {}).items(), ("--", ":"), strict=False):
        left.plot(x, floor, color=GREY, linestyle=style, label=name)
    left.set(xlabel=labels[0], ylabel=labels[1])
    if logarithmic:
        left.set(xscale="log", yscale="log")
        for ticks, (low, high) in ((left.xaxis, left.get_xlim()), (left.yaxis, left.get_ylim())):
            if high < 200 * low:  # powers of ten would be too few
                ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ticks.set_major_formatter("{x:g}")
                ticks.set_minor_formatter(NullFormatter())
    left.legend(fontsize=8)
    forest(right, effects, effect)
    return figure


def forest(axes: Axes, effects: Sequence[Effect], label: str) -> None:
    """Effects below each other: mean and 95 % interval, a dot a seed, the margin shaded, earlier means as rings."""
    for k, e in enumerate(effects):
        if e.margin is not None:
            axes.fill_betweenx([k - 0.4, k + 0.4], -e.margin, e.margin, color=GREY, alpha=0.25, linewidth=0)
        color = BLUE if e.primary else GREY
        axes.plot([e.low, e.high], [k, k], color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot(e.seeds, np.full(len(e.seeds), k) + _jitter(len(e.seeds)), ".", color=color, markersize=4, alpha=0.6)
        axes.plot(e.mean, k, "D", color=color, markersize=6, markeredgecolor="white")
        for size, earlier in zip((3, 5)[-len(e.earlier) :], e.earlier[-2:], strict=False):
            axes.plot(earlier, k + 0.3, "o", color="none", markeredgecolor=ORANGE, markersize=size)
    axes.axvline(0, color="black", linewidth=1)
    axes.set(yticks=range(len(effects)), yticklabels=[e.label for e in effects], xlabel=label)
    axes.set_ylim(len(effects) - 0.4, -0.6)
    axes.margins(x=0.08)


def _pair(left: int, right: int) -> tuple[Figure, tuple[Axes, Axes]]:
    lines = max(left, right, 4)
    figure, axes = panels(1, 2, 12, 1.1 + HEIGHT * lines)
    return figure, (axes[0, 0], axes[0, 1])


def _jitter(count: int) -> np.ndarray:
    """Heights that keep dots apart, the same for a seed in every line."""
    return np.linspace(-0.22, 0.22, count) if count > 1 else np.zeros(1)
