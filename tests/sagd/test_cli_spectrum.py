"""`sagd spectrum` describes the data, and finds the band in which samples are wrong, alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sagd
from sagd.cli import main
from sagd.metrics.rapsd import exponent
from sagd.noise.grid import band_masks
from sagd.oracle.drowning import band_table
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import to_uint8


def field(weight, count):
    """Images of 16 x 16, uint8, of a Gaussian field with this weight; few pixels of them are clipped."""
    drawn = sagd.Spectrum(weight).sample((count, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    return to_uint8(0.25 * drawn).numpy()


@pytest.fixture
def two_sets(tmp_path):
    """npy files of data, and of samples with half the power in the band 0.4-0.5 of the corner.

    Both are of the same white noise, so that chance sets them apart in no other band.
    """
    weight = sagd.power_law((16, 16), -0.5).weight
    changed = torch.where(band_masks((16, 16))[5], weight * 0.5**0.5, weight)
    for name, w in (("data", weight), ("changed", changed)):
        np.save(tmp_path / f"{name}.npy", field(w, 400))
    return tmp_path


def test_samples_that_are_wrong_in_one_band_are_marked_there_alone(two_sets, capsys):
    main(["spectrum", f"{two_sets}/data.npy", "--samples", f"{two_sets}/changed.npy", "--json"])
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert [row["low"] for row in compared if row["differs"]] == [0.4]
    ratio = next(row for row in compared if row["differs"])
    assert abs(ratio["ratio"] - 0.5) < 4 * ratio["ratio_se"] < 0.1


def test_the_command_tells_the_spectrum(two_sets, capsys):
    plot = two_sets / "spectrum.png"
    main(["spectrum", f"{two_sets}/data.npy", "--samples", f"{two_sets}/changed.npy", "--plot", str(plot)])
    printed = capsys.readouterr().out
    images = np.load(two_sets / "data.npy")
    means = images.mean((1, 2, 3)) / 127.5 - 1
    assert "data.npy: 400 images, 1 x 16 x 16" in printed
    assert f"mean pixel {means.mean():.4f}, standard deviation of the images' means {means.std(ddof=1):.4f}" in printed
    power = statistics(images)["power"]
    fit = exponent(power)
    assert f"r^{fit.slope:.2f} (95 %: {fit.low:.2f} to {fit.high:.2f})" in printed
    assert fit.low < -1 < fit.high
    assert f"This describes the data; it is not advice: `sagd suggest {two_sets}/data.npy` tells" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith(("zero", "0."))]
    for row, band in zip(rows[:11], band_table(power), strict=True):
        assert row[1] == str(band.frequencies) and row[2] == f"{100 * band.share:.2f}" and row[-1] == str(band.drowns)
    assert [row[0] for row in rows[11:] if row[-1] in ("much", "little")] == ["0.4-0.5"]
    assert Image.open(plot).format == "PNG"


def test_the_module_runs_and_warns_of_nothing(two_sets):
    arguments = [sys.executable, "-W", "error", "-m", "sagd", "spectrum", f"{two_sets}/data.npy"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{two_sets}/data.npy: 400 images") and "Warning" not in done.stderr


BAD = {
    "nothing there": (["{}/nowhere"], "neither a folder nor a whole zip file"),
    "array to resize": (
        ["{}/data.npy", "--size", "8"],
        "is an array of 16x16 images; only pictures can be resized to 8",
    ),
    "size": (["mnist_5k", "--size", "1"], "size is 1; it must be a whole number from 2 to 4096"),
    "vast": (["mnist_5k", "--size", "100000"], "size is 100000; it must be a whole number from 2 to 4096"),
    "sizes": (["mnist_5k", "--samples", "{}/data.npy"], "mnist_5k has images of 28x28, .*data.npy of 16x16; --size"),
    "plot": (["{}/data.npy", "--plot", "spectrum.pdf"], "--plot is spectrum.pdf; it must end in .png"),
    "few": (["{}/few.npy"], "few.npy has 2 images; a standard error needs 3 or more"),
    "no variance": (["{}/same.npy"], "the power is 0 at every frequency"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(case, two_sets):
    np.save(two_sets / "few.npy", np.zeros((2, 1, 16, 16), np.uint8))
    np.save(two_sets / "same.npy", np.full((9, 1, 16, 16), 128, np.uint8))
    arguments, says = BAD[case]
    with pytest.raises(SystemExit, match=f"^sagd spectrum: .*{says}") as stopped:
        main(["spectrum", *(a.format(two_sets) for a in arguments)])
    assert "\n" not in str(stopped.value)


def test_a_missing_package_for_plots_is_told_before_anything_is_read(two_sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(SystemExit, match=r"^sagd spectrum: .*seaborn.*: pip install '\.\[figures\]'$"):
        main(["spectrum", "/nowhere", "--plot", f"{two_sets}/spectrum.png"])
