"""A noise at a glance: a draw, its weight and its spectrum, and what it does to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sagd.figures.style import BLUE, GREY, ORANGE, panels
from sagd.noise.grid import radius, ring_means, rings
from sagd.oracle.drowning import snr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from sagd.formulations.schedule import Schedule
    from sagd.noise.spectrum import Spectrum


def sheet(title: str, eps: Tensor, spectrum: Spectrum, x0: Tensor | None, t: int, schedule: Schedule) -> Figure:
    """A noise, its weight and its spectrum; with an image also x_t, and the rings that have drowned in it.

    All grey scales are fixed, so that pictures of several noises can be compared.

    Parameters
    ----------
    title
        Of the noise.
    eps
        (H, W): a draw.
    spectrum
        Of the draw.
    x0
        (H, W), in [-1, 1]; None for the noise alone.
    t
        The step of x_t.
    schedule
        Of the variances.
    """
    weight, size = spectrum.weight, spectrum.size
    over_rms = (weight / weight.square().mean().sqrt()).log10().clamp(min=-9)  # nothing where w = 0
    scale = "over its rms: black 0.1, white 10"
    radii, noise = ring_means(radius(size)), ring_means(weight.square())
    if x0 is None:
        figure, (axes,) = panels(1, 3, 10, 3.8)
        figure.suptitle(title, fontsize=9)
        _picture(axes[0], eps, 3, "noise", "black −3, white 3")
        _picture(axes[1], torch.fft.fftshift(over_rms), 1, "weight w(f)", scale)
        _powers(axes[2], radii, {"noise, w²": noise, "white noise": torch.ones_like(noise)})
        return figure
    figure, axes = panels(2, 3, 10, 7.2)
    figure.suptitle(title, fontsize=9)
    power = torch.fft.fft2(x0, norm="ortho").abs().square()
    drowned = snr(power, schedule, spectrum, [t])[0] < 1
    alpha_bar = schedule.alpha_bar[t]
    _picture(axes[0, 0], x0, 1, "image", "black −1, white 1")
    _picture(axes[0, 1], eps, 3, "noise", "black −3, white 3")
    _picture(axes[0, 2], schedule.q_sample(x0[None], t, eps[None])[0], 1, f"$x_t$ at t = {t}", "black −1, white 1")
    _picture(axes[1, 0], torch.fft.fftshift(over_rms), 1, "weight w(f)", scale)
    # As bright as the image's power says; orange where the ring has drowned.
    grey = ((power.log10() + 4) / 8).clamp(0, 1)[..., None].expand(-1, -1, 3)
    orange = (0.4 + 0.6 * grey) * torch.tensor([213, 94, 0], device="cpu") / 255
    tinted = torch.where(drowned[rings(size)][..., None], orange, grey)
    says = "power of the image: black $10^{-4}$, white $10^4$"
    _picture(axes[1, 1], torch.fft.fftshift(tinted, dim=(0, 1)), 1, "drowned rings (orange)", says)
    lines = {"image": alpha_bar * ring_means(power), "noise": (1 - alpha_bar) * noise}
    lines["white noise"] = torch.full_like(noise, 1 - float(alpha_bar))
    _powers(axes[1, 2], radii, lines, drowned)
    return figure


def _picture(panel: Axes, field: Tensor, white: float, title: str, scale: str) -> None:
    panel.imshow(field.numpy(), cmap="gray", vmin=-white, vmax=white, interpolation="nearest")
    panel.set_title(title)
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(scale, fontsize=8.5)


def _powers(panel: Axes, radii: Tensor, lines: dict[str, Tensor], drowned: Tensor | None = None) -> None:
    """Power over radius, both logarithmic; the zero frequency is at the left end."""
    lowest = float(radii[1])
    r = radii.clamp(min=lowest / 2).numpy()
    styles = {"image": ("black", "-"), "white noise": (GREY, "--")}
    for name, values in lines.items():
        color, style = styles.get(name, (BLUE, "-"))
        panel.plot(r, np.ma.masked_less_equal(values.numpy(), 0), label=name, color=color, linestyle=style)
    if drowned is not None:
        edges = np.concatenate([r[:1], (r[1:] + r[:-1]) / 2, r[-1:]])
        panel.fill_between(
            np.repeat(edges, 2)[1:-1], 0, 1, where=np.repeat(drowned.numpy(), 2), color=ORANGE, alpha=0.2, linewidth=0,
            label="drowned", transform=panel.get_xaxis_transform(),
        )  # fmt: skip
    panel.set_title("power")
    panel.set(xscale="log", yscale="log", xlabel="radius (cycles per pixel)")
    ticks = [k for k in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if k >= lowest]
    panel.set_xticks([lowest / 2, *ticks], ["0", *map(str, ticks)])
    panel.minorticks_off()
    panel.legend(fontsize=8)
