"""The exponent, the bands and the drowning steps are those of their formulas; a band that is wrong is found, alone."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import sagd
from sagd import InputError, data, rapsd
from sagd.moments import statistics
from sagd.sampling import to_uint8
from sagd.spectrum import __main__ as command
from sagd.spectrum import radius, ring_means, rings


def power_of(x):
    """(N, H, W) to the mean of |F x|^2; the fields drawn here have mean zero."""
    return torch.fft.fft2(x.double(), norm="ortho").abs().square().mean(0)


@pytest.mark.parametrize(("size", "alpha"), [((32, 32), -1.0), ((24, 16), -0.5), ((15, 15), 0.0), ((16, 16), 1.0)])
def test_an_exact_power_law_is_recovered_exactly(size, alpha):
    """No bias from the width of the rings: the innermost spans radii from one bin to the square root of two."""
    fit = rapsd.exponent(sagd.power_law(size, alpha).weight.square())
    assert fit.slope == pytest.approx(2 * alpha, abs=1e-6) and fit.alpha == pytest.approx(alpha, abs=1e-6)
    assert fit.high - fit.low < 1e-5
    middle = ring_means(radius(size))[3]
    amplitude = sagd.power_law(size, alpha).weight.square() / (radius(size) + 1e-10) ** (2 * alpha)
    expected = (amplitude[radius(size) > 0].mean() * middle ** (2 * alpha)).item()
    assert np.exp(fit.intercept) * middle.item() ** fit.slope == pytest.approx(expected, rel=1e-5)


def test_the_interval_of_the_exponent_covers_it_19_times_in_20(generator):
    """Of 200 sets, 181 to 197: the binomial count falls there but for five times in 1000."""
    spectrum, hits = sagd.power_law((16, 16), -1.0), 0
    for _ in range(200):
        fit = rapsd.exponent(power_of(spectrum.sample((20, 16, 16), generator=generator)))
        hits += fit.low <= -2 <= fit.high
    assert 181 <= hits <= 197


def test_an_exponent_needs_three_rings_with_power():
    with pytest.raises(InputError, match="images of 4x4 have 1"):
        rapsd.exponent(torch.ones(4, 4))
    with pytest.raises(InputError, match="images of 16x16 have 0"):
        rapsd.exponent(torch.zeros(16, 16))


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14), (8, 8)])
def test_bands_part_the_grid_and_the_variance(size, generator):
    masks = rapsd.band_masks(size)
    assert (masks.sum(0) == 1).all() and masks[0].sum() == 1
    power = torch.rand((3, *size), generator=generator, dtype=torch.float64)
    table = rapsd.band_table(power)
    assert sum(band.share for band in table) == pytest.approx(1, abs=1e-12)
    assert sum(band.frequencies for band in table) == size[0] * size[1]
    in_band = (radius(size) / 0.5**0.5 >= 0.6 - 1e-12) & (radius(size) / 0.5**0.5 < 0.7 - 1e-12)
    assert table[7].power == pytest.approx(power.mean(0)[in_band].mean().item(), rel=1e-12)
    if size == (8, 8):  # whose lowest frequency is 0.18 of the corner's
        assert table[1].frequencies == 0 and table[1].power is None and table[1].drowns is None


def test_a_common_edge_belongs_to_the_higher_band_as_in_two_band_noise():
    masks = rapsd.band_masks((16, 16), ((0, 0.5), (0.5, 1)))
    low = sagd.two_band((16, 16), 1.0).support
    assert torch.equal(masks[0] | masks[1], low)


def test_a_band_drowns_at_the_step_of_the_formula():
    """Of power P, at the first t with alpha_bar_t P < (1 - alpha_bar_t) w^2, so alpha_bar_t < w^2 / (P + w^2)."""
    schedule, masks = sagd.Schedule.linear(), rapsd.band_masks((16, 16))
    levels = torch.tensor([1e6, 300.0, 30.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-5], dtype=torch.float64)
    power = (levels[:, None, None] * masks).sum(0)
    noise = sagd.power_law((16, 16), 0.3)
    for spectrum in (None, noise):
        weight = torch.ones(16, 16) if spectrum is None else noise.weight
        for band, level, mask in zip(rapsd.band_table(power, spectrum=spectrum), levels, masks, strict=True):
            square = weight[mask].double().square().mean()
            below = (schedule.alpha_bar < square / (level + square)).nonzero()
            assert band.drowns == (below[0].item() if len(below) else None)
    assert rapsd.band_table(power)[0].drowns is None and rapsd.band_table(power)[-1].drowns == 0


def test_snr_is_one_at_equal_power_and_follows_varying_noise():
    schedule, size = sagd.Schedule.linear(), (8, 8)
    power = torch.stack([torch.full(size, 2.0), torch.full(size, 4.0)])
    found = rapsd.snr(power, schedule, sagd.isotropic(size), [0, 400, 999])
    alpha_bar = schedule.alpha_bar[[0, 400, 999]]
    torch.testing.assert_close(found, (3 * alpha_bar / (1 - alpha_bar))[:, None].expand(-1, int(rings(size).max()) + 1))
    varying = sagd.Varying(sagd.power_law(size, -0.5), sagd.power_law(size, 0.5), schedule.alpha_bar)
    moving = rapsd.snr(power, schedule, varying, torch.tensor([0, 400, 999]))
    for k, t in enumerate((0, 400, 999)):
        torch.testing.assert_close(moving[k], rapsd.snr(power, schedule, varying.at(t), [t])[0])
    assert moving[0, 1] < found[0, 1] and moving[0, -1] > found[0, -1]  # it begins in the low frequencies
    with pytest.raises(InputError, match=r"the noise is for \(8, 8\), the data's power for \(4, 4\)"):
        rapsd.snr(torch.ones(4, 4), schedule, varying, [0])


def test_noise_without_weight_never_drowns_a_band():
    table = rapsd.band_table(torch.ones(16, 16), spectrum=sagd.band_pass((16, 16), 0.5, 1))
    assert [band.drowns is None for band in table] == [True] * 6 + [False] * 5


def test_the_jackknife_is_that_of_leaving_each_image_out(generator):
    x = torch.rand((7, 6, 6), generator=generator, dtype=torch.float64)
    masks = rapsd.band_masks((6, 6), ((0, 0.5), (0.5, 1)))

    def each(images):
        return rapsd.band_means(torch.fft.fft2(images - images.mean(0), norm="ortho").abs().square(), masks)

    power, error = rapsd.jackknife(each(x))
    left = torch.stack([each(x[torch.arange(7) != k]).sum(0) / 5 for k in range(7)])
    torch.testing.assert_close(error, (6 / 7 * (left - left.mean(0)).square().sum(0)).sqrt())
    torch.testing.assert_close(power, rapsd.band_means(torch.fft.fft2(x, norm="ortho").var(0), masks))


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
    changed = torch.where(rapsd.band_masks((16, 16))[5], weight * 0.5**0.5, weight)
    for name, w in (("data", weight), ("changed", changed)):
        np.save(tmp_path / f"{name}.npy", field(w, 400))
    return tmp_path


def test_samples_that_are_wrong_in_one_band_are_marked_there_alone(two_sets, capsys):
    command.main([f"{two_sets}/data.npy", "--samples", f"{two_sets}/changed.npy", "--json"])
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert [row["low"] for row in compared if row["differs"]] == [0.4]
    ratio = next(row for row in compared if row["differs"])
    assert abs(ratio["ratio"] - 0.5) < 4 * ratio["ratio_se"] < 0.1


def test_errors_of_the_ratio_are_its_scatter(generator):
    """Of pairs of sets of 30 images that are alike, two standard errors mark about one band in 20."""
    masks, marked = rapsd.band_masks((8, 8), ((0, 0.5), (0.5, 1))), []
    for _ in range(300):
        x = sagd.power_law((8, 8), -0.5).sample((2, 30, 8, 8), generator=generator, dtype=torch.float64)
        each = rapsd.band_means(torch.fft.fft2(x - x.mean(1, True), norm="ortho").abs().square(), masks)
        marked.append(rapsd.compare(*each)[2][1:])
    assert 0.02 < torch.stack(marked).double().mean() < 0.1


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures, grey and coloured, of several sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for k, shape in enumerate([(20, 30, 3), (25, 17, 3), (16, 16, 3), (40, 21), (18, 18, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "set" / f"{k}.png")
    return tmp_path / "set"


def test_load_gives_what_read_gives(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in pictures.iterdir():
            archive.write(file, file.name)
    expected = data.read("folder", str(pictures), 16)
    for source in (pictures, tmp_path / "set.zip"):
        opened = data.load(str(source), 16)
        assert len(opened) == 5 and opened[:2].shape == (2, 3, 16, 16) and opened[:2].dtype == np.uint8
        np.testing.assert_array_equal(np.concatenate([opened[:2], opened[2:]]), expected)
    found = statistics(data.load(str(pictures), 16), block=2)
    torch.testing.assert_close(found, statistics(expected))
    digits = data.load("mnist_5k")
    assert digits.shape == (5000, 1, 28, 28)
    np.testing.assert_array_equal(data.load("mnist_5k", 16), data.read("mnist_5k", None, 16))


def test_load_finds_torchvisions_digits(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digit = np.arange(784, dtype=np.uint8).reshape(28, 28)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + digit.tobytes() * count)
    for source in (tmp_path, tmp_path / "MNIST"):
        digits = data.load(str(source))
        assert digits.shape == (70_000, 1, 28, 28)
        np.testing.assert_array_equal(digits[-1, 0], digit)


def test_statistics_show_each_transform(two_sets):
    images, seen = np.load(two_sets / "data.npy")[:10], []
    found = statistics(images, 4, seen.append)
    transforms = torch.cat(seen)
    assert [len(block) for block in seen] == [4, 4, 2]
    torch.testing.assert_close(transforms.abs().square().mean(0), found["power"])


def test_the_command_tells_the_spectrum(two_sets, capsys):
    plot = two_sets / "spectrum.png"
    command.main([f"{two_sets}/data.npy", "--samples", f"{two_sets}/changed.npy", "--plot", str(plot)])
    printed = capsys.readouterr().out
    images = np.load(two_sets / "data.npy")
    means = images.mean((1, 2, 3)) / 127.5 - 1
    assert "data.npy: 400 images, 1 x 16 x 16" in printed
    assert f"mean pixel {means.mean():.4f}, standard deviation of the images' means {means.std(ddof=1):.4f}" in printed
    power = statistics(images)["power"]
    fit = rapsd.exponent(power)
    assert f"r^{fit.slope:.2f} (95 %: {fit.low:.2f} to {fit.high:.2f})" in printed
    assert fit.low < -1 < fit.high
    rows = [line.split() for line in printed.splitlines() if line.startswith(("zero", "0."))]
    for row, band in zip(rows[:11], rapsd.band_table(power), strict=True):
        assert row[1] == str(band.frequencies) and row[2] == f"{100 * band.share:.2f}" and row[-1] == str(band.drowns)
    assert [row[0] for row in rows[11:] if row[-1] in ("much", "little")] == ["0.4-0.5"]
    assert Image.open(plot).format == "PNG"


def test_the_module_runs_and_warns_of_nothing(two_sets):
    """runpy warns where a package has imported its own __main__."""
    arguments = [sys.executable, "-W", "error", "-m", "sagd.spectrum", f"{two_sets}/data.npy"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{two_sets}/data.npy: 400 images") and "Warning" not in done.stderr


BAD = {
    "nothing there": (["{}/nowhere"], "neither a folder nor a whole zip file"),
    "array to resize": (
        ["{}/data.npy", "--size", "8"],
        "is an array of 16x16 images; only pictures can be resized to 8",
    ),
    "size": (["mnist_5k", "--size", "1"], "size is 1; it must be 2 or more"),
    "sizes": (["mnist_5k", "--samples", "{}/data.npy"], "mnist_5k has images of 28x28, .*data.npy of 16x16; --size"),
    "plot": (["{}/data.npy", "--plot", "spectrum.pdf"], "--plot is spectrum.pdf; it must end in .png"),
    "few": (["{}/few.npy"], "few.npy holds 2 images; a standard error needs 3 or more"),
    "no variance": (["{}/same.npy"], "needs power in 3 rings .*images of 16x16 have 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(case, two_sets):
    np.save(two_sets / "few.npy", np.zeros((2, 1, 16, 16), np.uint8))
    np.save(two_sets / "same.npy", np.full((9, 1, 16, 16), 128, np.uint8))
    arguments, says = BAD[case]
    with pytest.raises(SystemExit, match=f"^sagd.spectrum: .*{says}") as stopped:
        command.main([a.format(two_sets) for a in arguments])
    assert "\n" not in str(stopped.value)
