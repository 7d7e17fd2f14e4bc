"""Every picture of the study, one function each. matplotlib is loaded only where a chart is drawn."""

import itertools
from pathlib import Path

import numpy as np

from sagd.files import writing


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Tile images (N, C, H, W), uint8, row by row into one of (rows * H, columns * W, C); missing ones are black."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    filled = np.zeros((rows * columns, channels, height, width), dtype=np.uint8)
    filled[:n] = images
    tiled = filled.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return tiled.reshape(rows * height, columns * width, channels)


def save_grid(path: Path, images: np.ndarray, columns: int, pixels: int = 960) -> None:
    """Write a PNG of tiled images, enlarged by a whole factor, without smoothing, towards ``pixels`` of width."""
    from PIL import Image

    tiled = grid(images, columns)
    picture = Image.fromarray(tiled[..., 0] if tiled.shape[-1] == 1 else tiled)
    factor = max(1, round(pixels / picture.width))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    with writing(path) as beside:
        picture.save(beside, format="PNG", optimize=True)


def save_stack(path: Path, pictures: list[Path], height: int, gap: int = 12) -> None:
    """Write one PNG of pictures of equal width, the top ``height`` pixels of each, one below the other."""
    from PIL import Image

    opened = [Image.open(p).convert("RGB") for p in pictures]
    opened = [p.crop((0, 0, p.width, min(p.height, height))) for p in opened]
    canvas = Image.new("RGB", (opened[0].width, sum(p.height + gap for p in opened) - gap), "white")
    top = 0
    for picture in opened:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    with writing(path) as beside:
        canvas.save(beside, format="PNG", optimize=True)


def distance_by_alpha(rows, label: str, floor: float):
    """Distance over alpha with error bars (setting, alpha, distance, standard_error); ``floor``: of real images."""
    figure, axes = _axes(6, 3.6)
    axes.errorbar(rows.alpha, rows.distance, yerr=rows.standard_error, fmt="o-", color=BLUE, capsize=4, label="samples")
    for row in rows.itertuples():
        axes.annotate(row.setting, (row.alpha, row.distance), (6, 6), textcoords="offset points", fontsize=8)
    axes.axhline(floor, color=GREY, linestyle="--", label="real images, as many")
    axes.set(xlabel="alpha", ylabel=label, ylim=(0, None))
    axes.margins(x=0.15, y=0.15)
    axes.legend()
    return figure


def losses(curves: dict):
    """Training loss over steps of each setting (frames with step and loss), smoothed over ten rows."""
    figure, axes = _axes(6, 3.6)
    for name, curve in curves.items():
        axes.plot(curve.step, curve.loss.rolling(10, min_periods=1).mean(), label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="eps loss", yscale="log")
    axes.legend(fontsize=8)
    return figure


def spectra(real, samples: dict, band: list[float] | None = None):
    """Radially averaged power spectra of samples beside the held-out images (frames of ``rapsd.csv``).

    The corrupted band, in cycles per pixel, is shaded.
    """
    figure, axes = _axes(6, 3.6)
    axes.plot(real.radius, real.held_out, color="black", label="held-out images", linewidth=2)
    for (name, frame), color in zip(samples.items(), itertools.cycle((ORANGE, BLUE, GREEN)), strict=False):
        axes.plot(frame.radius, frame.samples, color=color, marker="o", markersize=3, label=name)
    if band is not None:
        axes.axvspan(*band, color=GREY, alpha=0.25, label="corrupted band")
    axes.set(xlabel="radius (cycles per pixel)", ylabel="power", yscale="log")
    axes.legend(fontsize=8)
    return figure


def weights(spectra_by_name: dict):
    """w(f) over the radius of the settings' noises."""
    from sagd.spectrum import radius

    figure, axes = _axes(6, 3.2)
    for name, spectrum in spectra_by_name.items():
        spectrum = spectrum.at(999)  # a varying one at the end
        r = radius(spectrum.size).flatten()
        order = r.argsort()
        axes.plot(r[order], spectrum.weight.flatten()[order], ".-", markersize=3, linewidth=0.8, label=name)
    axes.set(xlabel="radius (cycles per pixel)", ylabel="w(f)")
    axes.legend(fontsize=8)
    return figure


# Wong's palette: distinct to colour-blind readers, and in grey print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def _axes(width: float, height: float):
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=0.9)
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axes


def data_spectrum(radii, powers: dict, fit):
    """Power over radius, both on logarithmic axes, of the data and perhaps of samples, with the data's power law.

    Parameters
    ----------
    radii
        (K,), cycles per pixel; the zero frequency has no place on the axis and is left out.
    powers
        Names to (K,): the data, then the samples if there are any.
    fit
        `sagd.rapsd.Exponent` of the data.
    """
    figure, axes = _axes(6, 4)
    r = np.asarray(radii)
    # Thin on thick, so that samples that are right hide nothing.
    for (name, power), (color, width) in zip(powers.items(), (("black", 2.5), (ORANGE, 1)), strict=False):
        there = (r > 0) & (np.asarray(power) > 0)
        style = {"color": color, "linewidth": width, "marker": "o", "markersize": 2.2 * width}
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


def bar_panels(rows: dict):
    """Bars with their standard errors, one panel a table; a panel without numbers says so.

    Parameters
    ----------
    rows
        The label of a row of panels, to {title: frame}, as many in each row. A frame has ``x`` (what stands below a
        bar), ``mean``, ``error`` and perhaps ``kind`` (two kinds stand side by side); without kinds the bar ``0`` or
        ``0.5``, isotropic noise, is grey and the lowest of several orange. Missing means leave their place empty.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", font_scale=0.8)
    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1 + 2.9 * columns, 2.5 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, (label, panels) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for panel in line[len(panels) :]:
            panel.set_axis_off()
        for panel, (title, frame) in zip(line, panels.items(), strict=False):
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


def _bars(panel, frame, ticks: list) -> None:
    style = {"capsize": 2, "error_kw": {"linewidth": 1}}
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
