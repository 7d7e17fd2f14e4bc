"""The pictures of the theory, one function each: the forward noise, the toy in the plane, and what drowns when."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sagd.figures.style import BLUE, GREEN, GREY, ORANGE, panels
from sagd.formulations.base import Predict, Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.metrics.rapsd import rapsd
from sagd.noise.base import Noise
from sagd.noise.grid import radius, ring_means
from sagd.noise.spectrum import Spectrum
from sagd.oracle.drowning import snr as ratio_of
from sagd.oracle.targets import Mixture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    from sagd.oracle.suggest import Suggestion

Spectra = Mapping[str, Noise]
SECTORS = (BLUE, "#56B4E9", GREEN, "#E69F00", ORANGE, "#CC79A7")  # of Wong's palette, too
EXTENT = 3.3  # of the plane shown, to each side
TIMES = (999, 350, 230, 120, -1)
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}


def toy() -> tuple[Mixture, dict[str, Spectrum]]:
    """Five round Gaussians in the plane, and the noise of three alphas.

    A point (x, y) is a signal of two samples, (1, 2): its two frequencies are the sum (x + y) / sqrt2 and the
    difference (x - y) / sqrt2. The sum is the zero frequency, whose radius is 0: 1/8 stands for it, beside 1/2 of the
    difference, so w = (1/8)^alpha and (1/2)^alpha, brought to the mean square 1 (eq. 15).
    """
    angles = 0.3 + torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    means = 2 * torch.stack([angles.cos(), angles.sin()], 1)[:, None]
    target = Mixture(means, torch.full_like(means[:1], 0.04), torch.full((5,), 0.2, dtype=torch.float64))
    spectra = {}
    for alpha in (-0.5, 0.0, 0.5):
        weight = torch.tensor([1 / 8, 1 / 2], dtype=torch.float64) ** alpha
        spectra[f"alpha = {alpha:+g}" if alpha else "alpha = 0"] = Spectrum(weight * weight.square().mean().rsqrt())
    return target, spectra


def trajectory(
    predict: Predict,
    schedule: Schedule,
    spectrum: Noise,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    sampler: str = "ddim",
) -> Tensor:
    """Every state that `sagd.sample` passes, (len(timesteps) + 1, *x.shape): x first, clean data last."""
    diffusion, states = Diffusion(schedule), [x]
    for t, t_prev in itertools.pairwise([*timesteps, -1]):
        states.append(diffusion.step(predict, spectrum, states[-1], t, t_prev, Sampler(sampler)))
    return torch.stack(states)


def trajectories(target: Mixture, schedule: Schedule, spectra: Spectra, white: Tensor) -> dict[str, Tensor]:
    """The probability-flow ODE (eq. 35) from T_w white to the target, by DDIM over every step: state k is x_{T-1-k}.

    Parameters
    ----------
    white
        (B, C, *size), float64: the particles, the same under every noise.
    """
    timesteps = schedule.timesteps(len(schedule))
    return {
        name: trajectory(
            target.predict(schedule, spectrum),
            schedule,
            spectrum,
            spectrum.shape(white, timesteps[0]),
            timesteps,
        )
        for name, spectrum in spectra.items()
    }


def log_snr(schedule: Schedule, power: Tensor, spectrum: Noise) -> Tensor:
    """log10 of alpha_bar_t P(f) / (sigma_t^2 w(f)^2), (T, H, W); infinite where there is no noise.

    Parameters
    ----------
    power
        (C, H, W): the data's variance at each frequency (`sagd.spaces.moments.statistics`); averaged over channels.
    """
    each = ratio_of(power, schedule, spectrum, range(len(schedule)), average=torch.flatten)
    return each.log10().reshape(len(schedule), *spectrum.size)


def drowning(log_snr: Tensor) -> Tensor:
    """The t at which the SNR falls through 1, alpha_bar P = sigma^2 w^2, interpolated between steps.

    Parameters
    ----------
    log_snr
        (T, ...), falling with t, as the SNR does under any noise.

    Returns
    -------
    Tensor
        (...): 0 where the noise is stronger from the start, infinite where it never is.
    """
    after = (log_snr > 0).sum(0)
    before = (after - 1).clamp(min=0)
    high, low = (log_snr.gather(0, k.clamp(max=len(log_snr) - 1)[None])[0] for k in (before, after))
    t = before + (high / (high - low)).nan_to_num()
    return torch.where(after == 0, 0.0, torch.where(after == len(log_snr), torch.inf, t))


def over_rings(values: Tensor) -> Tensor:
    """Average (..., H, W) over rings (`sagd.noise.grid.rings`), of what is below infinity: (..., K)."""
    noisy = values < torch.inf
    share = ring_means(noisy.double())
    return torch.where(share > 0, ring_means(values.where(noisy, 0)) / share, torch.inf)


def method(image: Tensor, mean: Tensor, power: Tensor, schedule: Schedule, spectra: Spectra) -> Figure:
    """The method in four panels: an image, its spectrum, the noises' spectra, and which frequencies drown when.

    Parameters
    ----------
    image
        (C, H, W), in [-1, 1].
    mean, power
        (C, H, W), of the data set (`sagd.spaces.moments.statistics`); spectra are of what differs from its mean image.
    """
    figure, (axes,) = _packed(1, 4, 10, 2.7, wspace=0.05)
    size = tuple(image.shape[-2:])
    radii = ring_means(radius(size))
    _show(axes[0], image)
    data = ring_means(power.mean(0))
    axes[1].plot(*(v[1:] for v in rapsd(image - mean)), ".-", color=GREY, linewidth=0.8, label="this image")
    axes[1].plot(radii[1:], data[1:], color="black", linewidth=2, label="all images")
    for (name, spectrum), (color, style) in zip(spectra.items(), _lines(), strict=False):
        line = {"color": color, "linestyle": style, "linewidth": 2, "label": name}
        axes[2].plot(radii[1:], ring_means(spectrum.at(0).weight.square())[1:], **line)
        axes[3].plot(radii[1:], drowning(over_rings(log_snr(schedule, power, spectrum)))[1:], **line)
    titles = ("1  An image", "2  Its power falls", "3  The noise we choose", "4  What drowns when")
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, loc="left", fontweight="bold", fontsize=10.5)
    axes[1].set(yscale="log", ylabel="power of the data")
    axes[2].set(yscale="log", ylabel="power of the noise")
    axes[2].set_ylim(0.25 * axes[2].get_ylim()[0])  # room for the legend
    axes[3].set(ylabel="t at which SNR = 1", ylim=(0, 1.35 * axes[3].get_ylim()[1]))
    for panel, corner in zip(axes[1:], ("lower left", "lower right", "upper right"), strict=True):
        panel.set(xscale="log", xlabel="radius (cycles per pixel)")
        panel.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
        panel.set_xticks([], minor=True)
        panel.legend(fontsize=8.5, handlelength=2.2, borderaxespad=0.3, loc=corner)
    axes[0].set_xlabel("coarse: low frequencies\nfine: high frequencies")
    return figure


def forward_process(
    image: Tensor, schedule: Schedule, spectra: Spectra, times: Sequence[int], generator: torch.Generator
) -> Figure:
    """One image under the forward process of several noises: x_t, and below it its power spectrum (Fig. 2).

    Parameters
    ----------
    image
        (C, H, W), grey or RGB, in [-1, 1].
    times
        The steps of the columns; -1 is the image itself.
    generator
        Of the white noise that every noise is shaped from.
    """
    white = torch.randn((1, *image.shape), generator=generator, dtype=torch.float64)
    figure, axes = _packed(2 * len(spectra), len(times), 1.36 * len(times) + 0.4, 2.72 * len(spectra) + 0.8)
    noised, powers = {}, {}
    for (name, spectrum), t in itertools.product(spectra.items(), times):
        eps = spectrum.shape(white, max(t, 0))
        xt = schedule.q_sample(image.double()[None], t, eps)[0]
        noised[name, t] = xt
        power = torch.fft.fft2(xt, norm="ortho").abs().square().mean(0).clamp(min=1e-12)
        powers[name, t] = torch.fft.fftshift(power.log10()).numpy()
    # A few bins far above or below the rest, the mean pixel's above all, would leave no contrast to the others.
    low, high = np.quantile(list(powers.values()), [0.01, 0.998])
    for (row, name), (column, t) in itertools.product(enumerate(spectra), enumerate(times)):
        pixels, spectrum = axes[2 * row : 2 * row + 2, column]
        _show(pixels, noised[name, t])
        shown = spectrum.imshow(powers[name, t], cmap="viridis", vmin=low, vmax=high)
        _bare(spectrum)
        if row == 0:
            pixels.set_title("image" if t < 0 else f"t = {t}")
        if column == 0:
            pixels.set_ylabel(name, fontweight="bold")
            spectrum.set_ylabel("power spectrum")
    bar = figure.colorbar(shown, ax=axes, orientation="horizontal", aspect=60, pad=0.01, extend="both")
    bar.set_label("log10 power (zero frequency in the middle)")
    return figure


def particles(
    target: Mixture, schedule: Schedule, spectra: Spectra, white: Tensor, times: Sequence[int] = TIMES
) -> Figure:
    """Particles of the probability-flow ODE on their way from N(0, Sigma_w) to the target (Fig. D.1).

    A row is a noise, a column a time. Colours are those of the starting points' directions before they are shaped.
    Behind each particle its way since the column before; lines: the target's density; grey: that of x_t.

    Parameters
    ----------
    white
        (B, 1, 2), float64: the same starting points in every row.
    """
    figure, axes = _packed(len(spectra), len(times), 10, 2.08 * len(spectra))
    points, x, y = _plane(120)
    for row, (name, states) in enumerate(trajectories(target, schedule, spectra, white).items()):
        for column, t in enumerate(times):
            now, panel = len(schedule) - 1 - t, axes[row, column]
            density = target.log_density(points, t, schedule, spectra[name]).exp().reshape(x.shape)
            panel.contourf(x, y, density / density.max(), [0.02, 0.1, 0.3, 0.6, 1.01], cmap="Greys", alpha=0.45)
            outline(panel, target, schedule, spectra[name])
            if column:
                way = states[len(schedule) - 1 - times[column - 1] : now + 1, :, 0]
                draw_tails(panel, way[:: max(1, len(way) // 40)], white, alpha=0.3)
            panel.scatter(*states[now, :, 0].T, s=5, c=colours(white), linewidths=0, zorder=3)
            plane_panel(panel, row == 0 and _when(t, schedule), column == 0 and name)
    name_frequencies(axes[0, 0])
    return figure


def score_fields(target: Mixture, schedule: Schedule, spectra: Spectra, times: Sequence[int] = TIMES) -> Figure:
    """The exact score of q(x_t) as arrows over log q(x_t) (Fig. D.2); a row is a noise, a column a time.

    An arrow's length is the square root of the score's, against the longest of its panel. The score of the target
    itself is shown at t = 0, the last step that has noise.
    """
    import seaborn as sns

    figure, axes = _packed(len(spectra), len(times), 10, 2.08 * len(spectra))
    points, x, y = _plane(120)
    sparse, u, v = _plane(15)
    levels = [-1e3, -24, -12, -6, -3, -1.5, -0.5, 0.01]
    for (row, name), (column, t) in itertools.product(enumerate(spectra), enumerate(times)):
        t, panel, spectrum = max(t, 0), axes[row, column], spectra[name]
        logs = target.log_density(points, t, schedule, spectrum).reshape(x.shape)
        panel.contourf(x, y, (logs - logs.max()).clamp(min=levels[0]), levels, colors=sns.color_palette("Blues", 12))
        eps = target.predict(schedule, spectrum)(sparse, torch.full((len(sparse),), t))
        score = schedule.score_from_eps(spectrum.at(t), t, eps)[:, 0]
        length = score.norm(dim=1, keepdim=True)
        arrows = score / length.sqrt() / length.max().sqrt()
        panel.quiver(u, v, *arrows.T, scale=12, width=0.006, headwidth=4, color="black")
        plane_panel(panel, row == 0 and _when(t, schedule), column == 0 and name)
    name_frequencies(axes[0, 0])
    return figure


def snr(schedule: Schedule, power: Tensor, spectra: Spectra, columns: int = 4) -> Figure:
    """Which frequencies drown when: log10 SNR over radius and t, one panel a noise.

    The line is SNR = 1 of a ring's average, each dot that of one frequency. Where there is no noise nothing drowns.

    Parameters
    ----------
    power
        (C, H, W), of the data (`sagd.spaces.moments.statistics`).
    """
    columns = min(columns, len(spectra))
    rows = -(-len(spectra) // columns)
    figure, axes = _packed(rows, columns, 2.3 * columns + 0.8, 2.5 * rows + 0.3, sharex=True, sharey=True)
    radii = radius(tuple(power.shape[-2:]))
    steps = np.arange(len(schedule))
    for panel, (name, spectrum) in zip(axes.flat, spectra.items(), strict=False):
        each = log_snr(schedule, power, spectrum)
        rings = over_rings(each)
        noisy = np.ma.masked_equal(rings.numpy(), np.inf)
        shown = panel.pcolormesh(ring_means(radii), steps, noisy, cmap="cividis", vmin=-4, vmax=4, rasterized=True)
        panel.plot(radii.flatten(), drowning(each).flatten(), ".", color="white", markersize=1.3, label="one frequency")
        panel.plot(ring_means(radii), drowning(rings), color=ORANGE, linewidth=2, label="ring's average")
        panel.patch.set(hatch="///", facecolor="white", edgecolor=GREY)
        never = ring_means(radii)[rings[0] == torch.inf]
        if len(never):
            place = {"rotation": 90, "ha": "center", "va": "center", "bbox": LABEL}
            panel.text(never.median(), len(steps) / 2, "no noise: never drowns", fontsize=8.5, **place)
        panel.grid(False)
        panel.set(xlim=(0, ring_means(radii)[-1]))
        panel.set_title(name, fontsize=10)
    for panel in axes.flat[len(spectra) :]:
        panel.set_axis_off()
    style = {"facecolor": "#00224e", "labelcolor": "white", "markerscale": 5, "fontsize": 8.5, "title_fontsize": 8.5}
    axes.flat[0].legend(title="SNR = 1 of", loc="upper right", **style).get_title().set_color("white")
    figure.supxlabel("radius (cycles per pixel)", fontsize=10)
    figure.supylabel("t (more noise upwards)", fontsize=10)
    bar = figure.colorbar(shown, ax=axes, aspect=30, pad=0.01, extend="both")
    bar.set_label("log10 SNR (below 0: drowned)")
    bar.ax.axhline(0, color=ORANGE, linewidth=2)
    return figure


def sampler_errors(errors: dict[str, dict[str, dict[int, float]]]) -> Figure:
    """The exact distance that a perfect network leaves, over the number of steps; a panel a noise.

    Parameters
    ----------
    errors
        Of each noise, of each sampler: steps to squared distance (`sagd.oracle.distance`).
    """
    figure, axes = _packed(1, len(errors), 10, 3, sharey=True)
    for panel, (name, samplers) in zip(axes[0], errors.items(), strict=True):
        for (sampler, curve), (color, style) in zip(samplers.items(), _lines(), strict=False):
            panel.plot(
                curve.keys(), curve.values(), color=color, linestyle=style, marker="o", markersize=3, label=sampler
            )
        panel.set(xscale="log", yscale="log", xlabel="steps", title=name)
        steps = list(next(iter(samplers.values())))
        panel.set_xticks(steps, map(str, steps))
        panel.set_xticks([], minor=True)
    axes[0, 0].set_ylabel("squared distance to the data")
    axes[0, 0].legend(fontsize=8.5)
    return figure


def explanation(curves: Mapping[str, Mapping[str, Suggestion]], published: Mapping[str, pd.DataFrame]) -> Figure:
    """The oracle's error over alpha, in its parts (above), beside the published FID (below); a column a data set.

    Parameters
    ----------
    curves
        Of each data set, the `sagd.oracle.Suggestion` of each start: ``noise`` and ``marginal``.
    published
        Of each data set, a frame with alpha, fid_mean and fid_stderr.
    """
    figure, axes = _packed(2, len(curves), 9.5, 5.6, sharex=True)
    parts = {
        "rest": ("#BBBBBB", "all other frequencies"),
        "dc": (GREEN, "spread of the brightness"),
        "mean": (ORANGE, "mean image"),
    }
    for (above, below), name in zip(axes.T, curves, strict=True):
        noise, marginal = (curves[name][start] for start in ("noise", "marginal"))
        alphas = sorted(noise.curve)
        stack = [[noise.curve[a][part] for a in alphas] for part in parts]
        above.stackplot(
            alphas, stack, colors=[c for c, _ in parts.values()], labels=[text for _, text in parts.values()]
        )
        above.plot(
            alphas,
            [marginal.error(a) for a in alphas],
            color="black",
            linestyle="--",
            label="all, from the right start",
        )
        for panel in (above, below):
            panel.axvspan(*noise.flat, color=BLUE, alpha=0.15, label="within 1 % of the oracle's least")
            panel.axvline(noise.alpha, color=BLUE, linewidth=1, label="suggested alpha")
        above.set(title=f"{name}: a perfect network", ylim=(0, 2.5 * noise.error(0.0)))
        frame = published[name].sort_values("alpha")
        below.errorbar(
            frame.alpha, frame.fid_mean, yerr=frame.fid_stderr, fmt="o-", color="black", capsize=3, markersize=4
        )
        below.set(title=f"{name}: trained networks (published)", xlabel="alpha", ylim=(0, None))
    axes[0, 0].set_ylabel("squared distance\nof the pixels")
    axes[1, 0].set_ylabel("FID (768 features)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def start_study(comparisons: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """Differences of distance between trained networks, with their intervals; a panel a comparison, each to its scale.

    Parameters
    ----------
    comparisons
        The title of a panel, to its rows from top to bottom: ``arm`` (what is compared, in words), ``difference``,
        ``half`` (of the interval).
    label
        The name of the distance.
    """
    counts = [len(rows) for rows in comparisons.values()]
    height = 0.26 * sum(counts) + 0.75 * len(counts)
    figure, axes = panels(len(counts), 1, 8, height, height_ratios=[n + 0.7 for n in counts])
    for panel, (title, rows) in zip(axes[:, 0], comparisons.items(), strict=True):
        for k, row in enumerate(rows.itertuples()):
            color = GREY if abs(row.difference) <= row.half else BLUE if row.difference < 0 else ORANGE
            panel.errorbar(row.difference, k, xerr=row.half, fmt="o", color=color, capsize=3, markersize=4)
        panel.axvline(0, color="black", linewidth=1)
        panel.set(yticks=range(len(rows)), yticklabels=rows.arm, ylim=(len(rows) - 0.4, -0.6))
        panel.set_title(title, loc="left", fontsize=10.5)
        panel.grid(False, axis="y")
    figure.supxlabel(f"change of {label}: left of zero is better, right of it worse", fontsize=10)
    return figure


def _packed(
    rows: int, columns: int, width: float, height: float, *, wspace: float = 0.0, **options: Any
) -> tuple[Figure, np.ndarray]:
    """`panels`, close to each other."""
    figure, axes = panels(rows, columns, width, height, **options)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=wspace, hspace=0.0)
    return figure, axes


def _bare(panel: Axes) -> None:
    panel.set(xticks=[], yticks=[])
    panel.grid(False)


def _show(panel: Axes, image: Tensor) -> None:
    """An image (C, H, W) of [-1, 1], clipped, in grey or RGB."""
    pixels = ((image + 1) / 2).clamp(0, 1).movedim(0, -1)
    panel.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _bare(panel)


def _lines() -> Iterator[tuple[str, str]]:
    """Colours with line styles, as print may be grey."""
    return itertools.cycle(((BLUE, "--"), ("black", "-"), (ORANGE, "-."), (GREEN, ":")))


def colours(white: Tensor) -> np.ndarray:
    """A colour for each particle (B, 1, 2), by the sixth of the plane that it starts from."""
    angle = torch.atan2(white[:, 0, 1], white[:, 0, 0]) / (2 * math.pi) % 1
    return np.array(SECTORS)[(angle * len(SECTORS)).long().clamp(max=len(SECTORS) - 1)]


def _plane(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The points (count^2, 1, 2) of a grid over the plane, and its x and y, (count, count)."""
    edge = torch.linspace(-EXTENT, EXTENT, count + 1, dtype=torch.float64)
    middle = (edge[1:] + edge[:-1]) / 2
    x, y = torch.meshgrid(middle, middle, indexing="xy")
    return torch.stack([x, y], -1).reshape(-1, 1, 2), x, y


def outline(panel: Axes, target: Mixture, schedule: Schedule, spectrum: Noise) -> None:
    points, x, y = _plane(160)
    density = target.log_density(points, -1, schedule, spectrum).exp().reshape(x.shape)
    panel.contour(x, y, density / density.max(), [0.05, 0.4], colors="black", linewidths=0.7)


def draw_tails(panel: Axes, way: Tensor, white: Tensor, **options: Any) -> LineCollection:
    """The ways (steps, B, 2) of the particles, as lines of their colours."""
    from matplotlib.collections import LineCollection

    ways = LineCollection(list(way.transpose(0, 1).numpy()), colors=colours(white), linewidths=0.6, **options)
    panel.add_collection(ways)
    return ways


def plane_panel(panel: Axes, title: str | Literal[False], label: str | Literal[False]) -> None:
    """One square of the plane, with a title where it heads a column and a label where it begins a row."""
    _bare(panel)
    panel.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
    if title:
        panel.set_title(title)
    if label:
        panel.set_ylabel(label, fontweight="bold")


def _when(t: int, schedule: Schedule) -> str:
    return {-1: "data", 0: "t = 0 (data)", len(schedule) - 1: f"t = {t} (noise)"}.get(t, f"t = {t}")


def name_frequencies(panel: Axes) -> None:
    """The two diagonals, along which a point has but one frequency."""
    for slope, name in ((1, "sum (low)"), (-1, "difference (high)")):
        panel.axline((0, 0), slope=slope, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        place: dict[str, Any] = {"ha": "right", "va": "top" if slope > 0 else "bottom", "bbox": LABEL}
        panel.text(EXTENT * 0.95, slope * EXTENT * 0.95, name, fontsize=8, **place)
