"""Pictures: what they compute and show, the files of the animations, and what they need."""

import sys

import imageio_ffmpeg
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import sagd
from sagd.errors import InputError
from sagd.figures import study, style
from sagd.figures.animation import animate
from sagd.figures.theory import (
    drowning,
    forward_process,
    log_snr,
    over_rings,
    particles,
    toy,
    trajectories,
    trajectory,
)

matplotlib.use("Agg")
SCHEDULE = sagd.Schedule.linear(100, beta_end=0.2)
SIZE = (8, 8)


@pytest.fixture
def white(generator):
    return torch.randn((30, 1, 2), generator=generator, dtype=torch.float64)


def test_the_noise_of_the_plane_is_a_power_law_of_unit_variance():
    for alpha, spectrum in zip((-0.5, 0, 0.5), toy()[1].values(), strict=True):
        assert spectrum.weight.square().mean() == pytest.approx(1)
        assert spectrum.weight[1] / spectrum.weight[0] == pytest.approx(4**alpha)


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_a_trajectory_ends_where_sampling_ends(white, sampler):
    (target, spectra), diffusion = toy(), sagd.Diffusion(SCHEDULE)
    for spectrum in spectra.values():
        predict, start = target.predict(SCHEDULE, spectrum), spectrum.sqrt(white)
        states = trajectory(predict, SCHEDULE, spectrum, start, SCHEDULE.timesteps(20), sampler=sampler)
        assert len(states) == 21
        assert torch.equal(states[0], start)
        assert torch.equal(states[-1], diffusion.sample(predict, spectrum, start, sagd.Sampler(sampler, 20)))


def test_the_particles_start_from_the_same_white_noise_and_end_at_the_target(white):
    target, spectra = toy()
    runs = trajectories(target, SCHEDULE, spectra, white)
    starts = torch.stack([spectra[name].sqrt(spectra[name].inverse(runs[name][0])) for name in spectra])
    torch.testing.assert_close(starts, white.expand_as(starts))
    for states in runs.values():
        # Components are round, of deviation 0.2; all particles within five of them of a mean.
        assert torch.cdist(states[-1, :, 0], target.means[:, 0]).amin(1).max() < 1
    figure = particles(target, SCHEDULE, spectra, white, times=(99, 20, -1))
    for row, states in enumerate(runs.values()):
        for column, k in enumerate((0, 79, 100)):
            (dots,) = [c for c in figure.axes[3 * row + column].collections if len(c.get_offsets()) == len(white)]
            assert (dots.get_offsets() == states[k, :, 0].numpy()).all()


def test_the_forward_process_shows_the_same_noise_shaped(generator):
    spectra = {"low": sagd.power_law(SIZE, -0.5), "white": sagd.isotropic(SIZE)}
    figure = forward_process(torch.zeros((1, *SIZE)), SCHEDULE, spectra, (-1, 50), generator)
    # Log power spectra of the noise alone, the zero frequency in the middle.
    low, flat = (torch.as_tensor(figure.axes[k].images[0].get_array()) for k in (3, 7))
    expected = torch.fft.fftshift(2 * spectra["low"].weight.log10())
    torch.testing.assert_close(low - flat, expected)


@pytest.mark.parametrize(
    "spectrum",
    [
        sagd.power_law(SIZE, 0.5),
        sagd.two_band(SIZE, 0.3, low=(0, 0.3), high=(0.6, 1)),
        sagd.Varying(sagd.power_law(SIZE, -0.5), sagd.power_law(SIZE, 0.5), SCHEDULE.alpha_bar),
    ],
    ids=["power law", "omitted band", "varying"],
)
def test_a_frequency_drowns_where_its_powers_are_equal(spectrum, generator):
    power = torch.rand((3, *SIZE), generator=generator, dtype=torch.float64) * 4 + 0.1
    at = drowning(log_snr(SCHEDULE, power, spectrum))
    assert torch.equal(at.isinf(), ~spectrum.support)
    # alpha_bar P = sigma^2 w^2 lies between the two steps around.
    for t, sign in ((at.floor(), 1), (at.ceil(), -1)):
        t = t.where(spectrum.support, 0).long()
        alpha_bar = SCHEDULE.alpha_bar[t]
        weight = torch.stack([spectrum.at(int(k)).weight.flatten()[i] for i, k in enumerate(t.flatten())]).reshape(SIZE)
        excess = alpha_bar * power.mean(0) - (1 - alpha_bar) * weight.square()
        assert (sign * excess[spectrum.support] >= 0).all()


def test_drowning_is_interpolated_between_steps():
    """log SNR falls on a line: it crosses 0 where the line does."""
    line = torch.linspace(1.0, -2.0, 11, dtype=torch.float64)[:, None, None].expand(11, 2, 2)
    assert torch.allclose(drowning(line), torch.full((2, 2), 10 / 3, dtype=torch.float64))


def test_noise_stronger_or_weaker_throughout_drowns_at_the_ends():
    power = torch.full((1, *SIZE), 1e-9)
    assert (drowning(log_snr(SCHEDULE, power, sagd.isotropic(SIZE))) == 0).all()
    assert drowning(log_snr(SCHEDULE, 1e18 * power, sagd.isotropic(SIZE))).isinf().all()


def test_rings_average_the_frequencies_that_carry_noise():
    values = torch.ones(SIZE)
    values[0, 1], values[0, 0] = torch.inf, torch.inf  # one of ring 1, all of ring 0
    assert over_rings(values).tolist() == [torch.inf, *[1.0] * (len(over_rings(values)) - 1)]
    nine = torch.where(torch.isinf(values), values, 9.0)
    nine[1, 0] = 5.0  # one of the seven of ring 1 that carry noise
    assert over_rings(nine)[1:3].tolist() == pytest.approx([(6 * 9 + 5) / 7, 9.0])


def test_the_animations_decode_and_their_bytes_are_the_same_at_every_run(white, tmp_path):
    target, spectra = toy()
    runs = [
        animate(
            {name: tmp_path / str(run) / f"{k}" for k, name in enumerate(spectra)},
            target, SCHEDULE, spectra, white, frames=6, pixels=96, rate=10,
        )
        for run in range(2)
    ]  # fmt: skip
    assert [p.name for p in runs[0]] == ["0.gif", "0.mp4", "1.gif", "1.mp4", "2.gif", "2.mp4"]
    for first, second in zip(*runs, strict=True):
        assert first.read_bytes() == second.read_bytes()
    for path in runs[0]:
        if path.suffix == ".gif":
            with Image.open(path) as picture:
                assert (picture.n_frames, picture.size) == (6, (96, 96))
        else:
            frames = imageio_ffmpeg.read_frames(path)
            about = next(frames)
            # Rests of 0.8 s and of 1.6 s in the place of the first and of the last frame.
            assert (len(list(frames)), about["size"], about["codec"]) == (8 + 4 + 16, (96, 96), "h264")


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, white, tmp_path):
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(InputError, match=r"seaborn.*; in the clone of sagd: pip install '\.\[figures\]'") as failure:
        study.losses({})
    assert "\n" not in str(failure.value)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    target, spectra = toy()
    with pytest.raises(InputError, match=r"imageio_ffmpeg.*; in the clone of sagd: pip install '\.\[figures\]'"):
        animate({"alpha = 0": tmp_path / "x"}, target, SCHEDULE, spectra, white, frames=2, pixels=96)


def bars(count, **means):
    x = [f"{k:+d}" if k else "0" for k in range(count)]
    return pd.DataFrame({"x": x, "mean": [means.get(f"x{k}", np.nan) for k in range(count)], "error": 0.1})


def colors_of(panel):
    return [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in panel.patches]


def test_the_lowest_bar_is_marked_where_there_is_something_to_compare():
    whole = bars(5, x0=2.0, x1=1.0, x2=3.0, x3=4.0, x4=5.0)
    partly, two = bars(6, x0=2.0, x1=1.0, x2=3.0, x3=4.0, x4=5.0), bars(2, x0=2.0, x1=1.0)
    figure = study.bar_panels([("ours", {"whole": whole, "partly": partly, "two": two})])
    found = [colors_of(panel) for panel in figure.axes]
    assert found[0] == [style.GREY, style.ORANGE, *[style.BLUE] * 3]
    assert style.ORANGE not in found[1] and found[2] == [style.GREY, style.BLUE]
    assert figure.axes[0].get_ylabel() == "ours"


def test_panels_and_rows_without_bars_are_left_out():
    rows = [("published", {"a": bars(2, x0=1.0), "b": bars(2, x1=1.0)}), ("ours", {"a": bars(2), "b": bars(2, x0=1.0)})]
    figure = study.bar_panels([*rows, ("nothing", {"a": bars(2)})])
    drawn = [(panel.get_ylabel(), panel.get_title()) for panel in figure.axes if panel.axison]
    assert drawn == [("published", "a"), ("", "b"), ("ours", "b")]


def test_the_legend_lies_over_no_bar():
    table = bars(4, x0=9.0, x1=9.0, x2=9.0, x3=9.0).assign(x=["a", "a", "b", "b"], kind=["isotropic", "bpm"] * 2)
    figure = study.bar_panels([("ours", {"run": table})])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["isotropic", "bpm"]
    assert colors_of(figure.axes[0]) == [style.GREY] * 2 + [style.BLUE] * 2
    assert legend.get_window_extent().y1 < figure.axes[0].get_tightbbox().y0
    assert figure.axes[0].get_legend() is None


def test_strips_are_rows_with_their_labels_on_the_left():
    rows = {"first\nrow": np.full((8, 48), 10, np.uint8), "second": np.full((16, 48, 3), 200, np.uint8)}
    figure = study.strips(rows)
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.images]
    labels = [text for axes in figure.axes for text in axes.texts]
    assert [text.get_text() for text in labels] == list(rows)
    assert [axes.images[0].get_array().shape[:2] for axes in shown] == [(8, 48), (16, 48)]
    for text, axes in zip(labels, shown, strict=True):
        box, picture = text.get_window_extent(), axes.get_window_extent()
        assert 0 <= box.x0 and box.x1 < picture.x0 and picture.y0 < (box.y0 + box.y1) / 2 < picture.y1
