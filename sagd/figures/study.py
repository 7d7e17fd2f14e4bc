"""The charts of the study, one function each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sagd.figures.style import BLUE, GREEN, GREY, ORANGE, axes_of, panels
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
    axes.margins(x=0.15, y=0.15)
    axes.legend()
    return figure


def losses(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Training loss over steps of each setting (frames with step and loss), smoothed over ten rows."""
    figure, axes = axes_of(6, 3.6)
    for name, curve in curves.items():
        axes.plot(curve.step, curve.loss.rolling(10, min_periods=1).mean(), label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="eps loss", yscale="log")
    axes.legend(fontsize=8)
    return figure


def spectra(real: pd.DataFrame, samples: Mapping[str, pd.DataFrame], band: list[float] | None = None) -> Figure:
    """Radially averaged power spectra of samples beside the held-out images (frames of ``rapsd.csv``).

    The corrupted band, in cycles per pixel, is shaded.
    """
    figure, axes = axes_of(6, 3.6)
    axes.plot(real.radius, real.held_out, color="black", label="held-out images", linewidth=2)
    for (name, frame), color in zip(samples.items(), itertools.cycle((ORANGE, BLUE, GREEN)), strict=False):
        axes.plot(frame.radius, frame.samples, color=color, marker="o", markersize=3, label=name)
    if band is not None:
        axes.axvspan(*band, color=GREY, alpha=0.25, label="corrupted band")
    axes.set(xlabel="radius (cycles per pixel)", ylabel="power", yscale="log")
    axes.legend(fontsize=8)
    return figure


def weights(noises: Mapping[str, Noise]) -> Figure:
    """w(f) over the radius of the settings' noises."""
    figure, axes = axes_of(6, 3.2)
    for name, noise in noises.items():
        spectrum = noise.at(999)  # a varying one at the end
        r = radius(spectrum.size).flatten()
        order = r.argsort()
        axes.plot(r[order], spectrum.weight.flatten()[order], ".-", markersize=3, linewidth=0.8, label=name)
    axes.set(xlabel="radius (cycles per pixel)", ylabel="w(f)")
    axes.legend(fontsize=8)
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


def bar_panels(rows: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Bars with their standard errors, one panel a table; a panel without numbers says so.

    Parameters
    ----------
    rows
        The label of a row of panels, to {title: frame}, as many in each row. A frame has ``x`` (what stands below a
        bar), ``mean``, ``error`` and perhaps ``kind`` (two kinds stand side by side); without kinds the bar ``0`` or
        ``0.5``, isotropic noise, is grey and the lowest of several orange. Missing means leave their place empty.
    """
    columns = max(map(len, rows.values()))
    figure, axes = panels(len(rows), columns, 1 + 2.9 * columns, 2.5 * len(rows), font_scale=0.8)
    for line, (label, tables) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for panel in line[len(tables) :]:
            panel.set_axis_off()
        for panel, (title, frame) in zip(line, tables.items(), strict=False):
            panel.set_title(title)
            panel.grid(axis="x", visible=False)
            ticks = list(dict.fromkeys(frame.x))
            panel.set_xticks(range(len(ticks)), ticks, rotation=90 if len("".join(ticks)) > 26 else 0)
            panel.set_xlim(-0.7, len(ticks) - 0.3)
            if not frame["mean"].notna().any():
                panel.text(0.5, 0.5, "not run", ha="center", va="center", transform=panel.transAxes, color=GREY)
                panel.set_yticks([])
                continue
            _bars(panel, frame, ticks)
    return figure


def _bars(panel: Axes, frame: pd.DataFrame, ticks: list) -> None:
    style: dict[str, Any] = {"capsize": 2, "error_kw": {"linewidth": 1}}
    if "kind" in frame:
        kinds = list(dict.fromkeys(frame.kind))
        for k, (kind, color) in enumerate(zip(kinds, (GREY, ORANGE, BLUE), strict=False)):
            part = frame[frame.kind == kind].set_index("x").reindex(ticks)
            places = np.arange(len(ticks)) + (k - (len(kinds) - 1) / 2) * 0.8 / len(kinds)
            panel.bar(places, part["mean"], 0.8 / len(kinds), yerr=part.error, color=color, label=kind, **style)
        panel.legend(fontsize=7, loc="lower right", framealpha=0.9)
        return
    frame = frame.set_index("x").reindex(ticks)
    lowest = frame["mean"].idxmin() if frame["mean"].count() > 1 else None
    colors = [ORANGE if x == lowest else GREY if x in ("0", "0.5") else BLUE for x in ticks]
    panel.bar(range(len(ticks)), frame["mean"], 0.8, yerr=frame.error, color=colors, **style)
