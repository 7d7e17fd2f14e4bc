"""The charts of the study, one function each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sagd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, axes_of, panels
from sagd.noise.grid import radius

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from sagd.noise.base import Noise


def distance_by_alpha(rows: pd.DataFrame, label: str, floor: float) -> Figure:
    """Distance over alpha with error bars (setting, alpha, distance, standard_error); ``floor``: of real images."""
    figure, axes = axes_of(6, 3.6)
    axes.errorbar(rows.alpha, rows.distance, yerr=rows.standard_error, fmt="o-", color=BLUE, capsize=4, label="samples")
    for row in rows.itertuples():
        axes.annotate(row.setting, (row.alpha, row.distance), (6, 6), textcoords="offset points", fontsize=8)
    axes.axhline(floor, color=GREY, linestyle="--", label="real images, as many")
    axes.set(xlabel="alpha", ylabel=label, ylim=(0, None))
    axes.margins(x=0.25, y=0.15)
    axes.legend()
    return figure


def strips(rows: Mapping[str, np.ndarray]) -> Figure:
    """Pictures of one width below each other, (H, W) or (H, W, 3), uint8, each with its label on the left."""
    heights = [picture.shape[0] / picture.shape[1] for picture in rows.values()]
    height = 6.3 * sum(heights) + 0.1 * len(rows)
    figure, axes = panels(len(rows), 2, 8, height, height_ratios=heights, width_ratios=[1.7, 6.3])
    for (beside, panel), (label, picture) in zip(axes, rows.items(), strict=True):
        beside.text(1, 0.5, label, ha="right", va="center", transform=beside.transAxes)
        panel.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        beside.set_axis_off()
        panel.set_axis_off()
    return figure


def losses(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Training loss over steps of each setting (frames with step and loss): moving means over ten rows, whole ones."""
    figure, axes = axes_of(7.2, 3.6)
    for name, curve in curves.items():
        axes.plot(curve.step, curve.loss.rolling(10, center=True).mean(), label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def spectra(real: pd.DataFrame, samples: Mapping[str, pd.DataFrame], band: list[float] | None = None) -> Figure:
    """Radially averaged power spectra of samples beside the held-out images (frames of ``rapsd.csv``).

    The corrupted band, in cycles per pixel, is shaded.
    """
    figure, axes = axes_of(6, 4)
    axes.plot(real.radius, real.held_out, color="black", label="held-out images", linewidth=2)
    for (name, frame), color in zip(samples.items(), itertools.cycle((ORANGE, BLUE, GREEN, PURPLE)), strict=False):
        axes.plot(frame.radius, frame.samples, color=color, marker="o", markersize=3, label=name)
    if band is not None:
        axes.axvspan(*band, color=GREY, alpha=0.25, label="corrupted band")
    axes.set(xlabel="radius (cycles per pixel)", ylabel="power", yscale="log")
    figure.legend(fontsize=8, loc="outside upper left", ncols=2)
    return figure


def weights(noises: Mapping[str, Noise]) -> Figure:
    """w(f) over the radius of the settings' noises."""
    figure, axes = axes_of(6, 4)
    for name, noise in noises.items():
        spectrum = noise.at(999)  # a varying one at the end
        r = radius(spectrum.size).flatten()
        order = r.argsort()
        axes.plot(r[order], spectrum.weight.flatten()[order], ".-", markersize=3, linewidth=0.8, label=name)
    axes.set(xlabel="radius (cycles per pixel)", ylabel="w(f)")
    figure.legend(fontsize=8, loc="outside upper left")
    return figure


def data_spectrum(radii: Tensor, powers: Mapping[str, Tensor], fit: Any) -> Figure:
    """Power over radius, both on logarithmic axes, of the data and perhaps of samples, with the data's power law.

    Parameters
    ----------
    radii
        (K,), cycles per pixel; the zero frequency has no place on the axis and is left out.
    powers
        Names to (K,): the data, then the samples if there are any.
    fit
        `sagd.metrics.rapsd.Exponent` of the data.
    """
    figure, axes = axes_of(6, 4)
    r = np.asarray(radii)
    # Thin on thick, so that samples that are right hide nothing.
    for (name, power), (color, width) in zip(powers.items(), (("black", 2.5), (ORANGE, 1)), strict=False):
        there = (r > 0) & (np.asarray(power) > 0)
        style: dict[str, Any] = {"color": color, "linewidth": width, "marker": "o", "markersize": 2.2 * width}
        axes.plot(r[there], np.asarray(power)[there], label=name, **style)
    inside = r[(r > 0) & (r <= 0.5)]
    line = np.exp(fit.intercept) * inside**fit.slope
    axes.plot(inside, line, "--", color=BLUE, label=f"r^{fit.slope:.2f} (95 %: {fit.low:.2f} to {fit.high:.2f})")
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":", label="Nyquist")
    axes.set(xlabel="radius (cycles per pixel)", ylabel="power", xscale="log", yscale="log")
    axes.set_xticks(ticks := [k for k in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if k >= r[r > 0].min()], map(str, ticks))
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def bar_panels(rows: Sequence[tuple[str, Mapping[str, pd.DataFrame]]]) -> Figure:
    """Bars with their standard errors, one panel a table; below them what the colours say.

    Parameters
    ----------
    rows
        Of each row of panels its label, and {title: frame}. A frame has ``x`` (what stands below a bar), ``mean``,
        ``error`` and perhaps ``kind`` (two kinds stand side by side, the first in grey). Without kinds the bar ``0`` or
        ``0.5``, isotropic noise, is grey, and the lowest orange where all bars of a panel are there, five or more.
        Missing means leave their place empty; a panel without numbers is left out, and so is a row without panels.
    """
    from matplotlib.patches import Patch

    shown = [(label, {t: f for t, f in tables.items() if f["mean"].notna().any()}) for label, tables in rows]
    shown = [(label, tables) for label, tables in shown if tables]
    columns = max(len(tables) for _, tables in shown)
    width = max(6.5, 1 + 2.9 * columns)
    figure, axes = panels(len(shown), columns, width, 2.5 * len(shown) + 0.3, font_scale=0.8)
    colors: dict[str, str] = {}
    for line, (label, tables) in zip(axes, shown, strict=True):
        line[0].set_ylabel(label)
        for panel in line[len(tables) :]:
            panel.set_axis_off()
        for panel, (title, frame) in zip(line, tables.items(), strict=False):
            panel.set_title(title)
            panel.grid(axis="x", visible=False)
            ticks = list(dict.fromkeys(frame.x))
            panel.set_xticks(range(len(ticks)), ticks, rotation=90 if len("".join(ticks)) > 26 else 0)
            panel.set_xlim(-0.7, len(ticks) - 0.3)
            colors |= _bars(panel, frame, ticks)
    squares = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=squares, loc="outside lower center", ncols=len(squares), frameon=False)
    return figure


def _bars(panel: Axes, frame: pd.DataFrame, ticks: list) -> dict[str, str]:
    """Draw the bars of a panel; what its colours say."""
    style: dict[str, Any] = {"capsize": 2, "error_kw": {"linewidth": 1}}
    if "kind" in frame:
        colors = dict(zip(dict.fromkeys(frame.kind), (GREY, BLUE), strict=False))
        for k, (kind, color) in enumerate(colors.items()):
            part = frame[frame.kind == kind].set_index("x").reindex(ticks)
            places = np.arange(len(ticks)) + (k - (len(colors) - 1) / 2) * 0.8 / len(colors)
            panel.bar(places, part["mean"], 0.8 / len(colors), yerr=part.error, color=color, **style)
        return colors
    frame = frame.set_index("x").reindex(ticks)
    # Of two bars one is always the lower: that says nothing.
    lowest = frame["mean"].idxmin() if frame["mean"].notna().all() and len(ticks) >= 5 else None
    kinds = ["isotropic" if x in ("0", "0.5") else "shaped" for x in ticks]
    kinds = ["lowest of the panel" if x == lowest else kind for x, kind in zip(ticks, kinds, strict=True)]
    colors = {"isotropic": GREY, "shaped": BLUE, "lowest of the panel": ORANGE}
    panel.bar(range(len(ticks)), frame["mean"], 0.8, yerr=frame.error, color=[colors[k] for k in kinds], **style)
    return {name: color for name, color in colors.items() if name in kinds}
