"""The particles of the theory as animations, a GIF and an MP4 of each noise."""

from pathlib import Path

import numpy as np
from torch import Tensor

from sagd.errors import needs
from sagd.figures.theory import Spectra, colours, draw_tails, name_frequencies, outline, plane_panel, trajectories
from sagd.formulations.schedule import Schedule
from sagd.noise.base import Noise
from sagd.oracle.targets import Mixture
from sagd.runtime.files import writing


def animate(
    files: dict[str, Path],
    target: Mixture,
    schedule: Schedule,
    spectra: Spectra,
    white: Tensor,
    *,
    frames: int = 120,
    pixels: int = 360,
    rate: int = 24,
) -> list[Path]:
    """Write the particles as animations, a GIF and an MP4 for each noise; a frame is of the same t in all of them.

    From frame to frame the particles move equally far, averaged over all noises: most of their motion happens in few
    of the steps.

    Parameters
    ----------
    files
        Of each noise, the path without its suffix.
    white
        (B, 1, 2), float64: the particles.
    rate
        Frames a second.
    """
    runs = trajectories(target, schedule, spectra, white)
    moved = sum(states.diff(dim=0).norm(dim=-1).mean((1, 2)) for states in runs.values())
    travelled = np.concatenate([[0.0], moved.cumsum(0)])
    chosen = np.interp(np.linspace(0, travelled[-1], frames), travelled, np.arange(len(travelled))).round().astype(int)
    written = []
    for name, stem in files.items():
        drawn = _frames(name, target, schedule, spectra[name], runs[name], chosen, white, pixels)
        written += [stem.with_name(f"{stem.name}.{kind}") for kind in ("gif", "mp4")]
        _write_gif(written[-2], drawn, rate)
        _write_mp4(written[-1], drawn, rate)
    return written


def _frames(
    name: str,
    target: Mixture,
    schedule: Schedule,
    spectrum: Noise,
    states: Tensor,
    chosen: np.ndarray,
    white: Tensor,
    pixels: int,
) -> list[np.ndarray]:
    """Pictures (pixels, pixels, 3), uint8. What does not move is drawn once, which is ten times as fast."""
    with needs("figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=pixels / 4)
    canvas = FigureCanvasAgg(figure)
    panel = figure.add_axes((0.01, 0.01, 0.98, 0.9))
    plane_panel(panel, False, False)
    outline(panel, target, schedule, spectrum)
    name_frequencies(panel)
    figure.text(0.02, 0.955, name, va="center", fontsize=12, fontweight="bold")
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    x, y = states[0, :, 0].T
    dots = panel.scatter(x, y, s=11, c=colours(white), linewidths=0)
    tails = draw_tails(panel, states[:1, :, 0], white)
    clock = figure.text(0.98, 0.955, "", va="center", ha="right", fontsize=12)
    drawn = []
    for k, now in enumerate(chosen):
        canvas.restore_region(still)
        t = len(schedule) - 1 - int(now)
        clock.set_text("data" if t < 0 else f"t = {t}")
        dots.set_offsets(states[now, :, 0])
        tails.set_segments(list(states[chosen[max(0, k - 5) : k + 1], :, 0].transpose(0, 1).numpy()))
        for artist in (tails, dots, clock):
            figure.draw_artist(artist)
        drawn.append(np.array(canvas.buffer_rgba())[..., :3])
    return drawn


def _write_gif(path: Path, drawn: list[np.ndarray], rate: int) -> None:
    """A GIF of one palette of 64 colours, undithered; the first and the last picture are shown for longer."""
    with needs("figures"):
        from PIL import Image

    # The palette of the first, the middle and the last picture together serves all, so that colours do not flicker.
    sheet = np.concatenate([drawn[0], drawn[len(drawn) // 2], drawn[-1]])
    palette = Image.fromarray(sheet).quantize(64, dither=Image.Dither.NONE)
    entries = np.array(palette.getpalette()).reshape(-1, 3)
    entries[entries.min(1) > 240] = 255  # averages of the paper's white and of what is nearly so
    palette.putpalette(entries.flatten().tolist())
    first, *others = (Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in drawn)
    each = round(100 / rate) * 10  # a GIF counts in hundredths of a second
    durations = [800, *[each] * (len(drawn) - 2), 1600]
    with writing(path) as beside:
        first.save(beside, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _write_mp4(path: Path, drawn: list[np.ndarray], rate: int) -> None:
    """An MP4 that any browser plays (H.264, yuv420p), with the same bytes at every run.

    The first and the last picture are shown for longer, as in the GIF.
    """
    with needs("figures"):
        import imageio_ffmpeg

    options = "-crf 25 -preset slow -threads 1 -fflags +bitexact -flags:v +bitexact -movflags +faststart -f mp4"
    rested = [*[drawn[0]] * round(0.8 * rate), *drawn[1:-1], *[drawn[-1]] * round(1.6 * rate)]
    height, width = drawn[0].shape[:2]
    with writing(path) as beside:
        film = imageio_ffmpeg.write_frames(
            beside, (width, height), fps=rate, quality=None, macro_block_size=2, output_params=options.split()
        )
        film.send(None)
        for picture in rested:
            film.send(np.ascontiguousarray(picture))
        film.close()
