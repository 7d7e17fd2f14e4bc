"""`sagd noise` tells what a noise is, draws it, and knows every operator with its arguments."""

import inspect
import re
from typing import get_origin

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import sagd
from sagd.cli import main
from sagd.figures.noise import sheet
from sagd.noise.grid import band_masks, ring_means
from sagd.operators import OPERATORS
from sagd.oracle.drowning import snr

matplotlib.use("Agg")


@pytest.fixture
def picture(tmp_path):
    """A smooth grey picture of 32 x 32, as a file."""
    field = sagd.power_law((32, 32), -1.2).sample((32, 32), generator=torch.Generator().manual_seed(1))
    pixels = ((field / 3 + 1) * 127.5).clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def said(capsys, *arguments):
    main(["noise", *map(str, arguments)])
    return capsys.readouterr().out


def number(pattern, text):
    return float(re.search(pattern, text)[1])


def test_the_table_says_what_the_noise_is(capsys):
    told = said(
        capsys, "--operator", "power_law", "--alpha", -0.5, "--dc", "floor", "--normalize", "none", "--size", 32
    )
    weight = sagd.power_law((32, 32), -0.5, dc="floor", normalize="none").weight
    power = weight.square()
    rings = (ring_means(power) / power.mean()).sqrt()
    assert told.startswith("power_law alpha=-0.5 grid=fftfreq dc=floor normalize=none, 32 x 32\n")
    assert number(r"square: (\S+) at zero", told) == pytest.approx(rings[0].item(), rel=1e-3)
    assert number(r"zero, (\S+) in the lowest", told) == pytest.approx(rings[1].item(), rel=1e-3)
    assert number(r"ring, (\S+) in the highest", told) == pytest.approx(rings[-1].item(), rel=1e-3)
    assert number(r"of a pixel (\S+),", told) == pytest.approx(power.mean().sqrt().item(), rel=1e-3)
    assert number(r"mean of an image (\S+) ", told) == pytest.approx(weight[0, 0].item() / 32, rel=1e-3)
    assert number(r"\nzero +1 +(\S+) %", told) == pytest.approx(100, abs=0.01)


def test_colours_are_power_laws_by_another_name(capsys):
    pink, law = said(capsys, "--operator", "pink"), said(capsys, "--operator", "power_law", "--alpha", -0.5)
    assert pink.startswith("pink alpha=-0.5") and pink.splitlines()[1:] == law.splitlines()[1:]


def test_the_energy_of_the_bands_is_that_of_the_weight(capsys):
    told = said(capsys, "--operator", "exponential", "--beta", 5, "--size", 16)
    power = sagd.exponential((16, 16), 5).weight.square()
    rows = re.findall(r"^(?:zero|\d.\d-\d.\d) +(\d+) +(\S+) % +(\S+) %$", told, re.M)
    masks = band_masks((16, 16))
    assert [int(row[0]) for row in rows] == masks.sum((1, 2)).tolist()
    shares = [100 * float(power[mask].sum() / power.sum()) for mask in masks]
    assert [float(row[1]) for row in rows] == pytest.approx(shares, abs=1e-3)
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.01)


def test_the_draw_is_the_librarys(capsys, tmp_path):
    said(capsys, "--operator", "power_law", "--alpha", 0.3, "--size", 16, "--seed", 7, "--out", tmp_path / "eps.npy")
    generator = torch.Generator().manual_seed(7)
    eps = sagd.power_law((16, 16), 0.3).sample((16, 16), generator=generator, dtype=torch.float64)
    assert (np.load(tmp_path / "eps.npy") == eps.numpy()).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_known_by_its_signature(capsys, tmp_path, picture, name):
    """Also one that is added later: what has no default is given a number, or two."""
    given, drawn = {}, {}
    for argument in list(inspect.signature(OPERATORS[name], eval_str=True).parameters.values())[1:]:
        if argument.name != "power" and argument.default is argument.empty:
            pair = get_origin(argument.annotation) is tuple
            given[argument.name] = (0.2, 0.7) if pair else 0.25
    words = [
        str(w) for k, v in given.items() for w in (f"--{k}".replace("_", "-"), *(v if isinstance(v, tuple) else [v]))
    ]
    for normalize in ("expected", "sample"):
        out = tmp_path / f"{normalize}.npy"
        options = ["--size", 16, "--image", picture, "--normalize", normalize, "--out", out]
        assert said(capsys, "--operator", name, *words, *options).startswith(name)
        drawn[normalize] = np.load(out)
    power = _power(picture, 16)
    arguments = given | ({"power": power} if "power" in inspect.signature(OPERATORS[name]).parameters else {})
    spectrum = OPERATORS[name]((16, 16), **arguments)
    eps = spectrum.sample((16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    assert np.allclose(drawn["expected"], eps, rtol=0, atol=1e-12)
    assert drawn["sample"].std() == pytest.approx(1)


def _power(path, size):
    pixels = Image.open(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.fft.fft2(torch.from_numpy(np.asarray(pixels) / 127.5 - 1), norm="ortho").abs().square()


def test_pairs_and_words_reach_the_operator(capsys):
    options = ["--low", 0, 0.3, "--high", 0.5, 1, "--gamma-low", 0.2, "--bands", "per_band", "--size", 16]
    told = said(capsys, "--operator", "two_band", *options)
    spectrum = sagd.two_band((16, 16), 0.2, (0, 0.3), (0.5, 1), bands="per_band")
    rings = ring_means(spectrum.weight.square()).sqrt()
    assert "gamma_low=0.2 low=[0.0, 0.3] high=[0.5, 1.0] bands=per_band" in told
    assert number(r"square: (\S+) at zero", told) == pytest.approx(rings[0].item(), rel=1e-3)


@pytest.mark.parametrize("normalize", ["expected", "sample"])
def test_rings_drown_when_the_library_says(capsys, picture, normalize):
    options = ["--operator", "power_law", "--alpha", -0.5, "--size", 32, "--image", picture, "--normalize", normalize]
    for t in (20, 300):
        told = said(capsys, *options, *(["--t", t] if t != 300 else []))
        spectrum = sagd.power_law((32, 32), -0.5)
        if normalize == "sample":
            eps = spectrum.sample((32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            spectrum = sagd.Spectrum(spectrum.weight / eps.std(correction=0))
        drowned = snr(_power(picture, 32), sagd.Schedule.linear(), spectrum, [t])[0] < 1
        assert 0 < drowned.sum()
        assert f"At t = {t}, {int(drowned.sum())} of 24 rings of this image have drowned" in told


def test_an_operator_of_ones_own(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\ndef flat(size): return torch.ones(size)\ndef bad(size): return 1 / 0"
    )
    assert said(capsys, "--operator", "mine.py:flat").startswith("mine.py:flat, 128 x 128\n")
    with pytest.raises(SystemExit, match=r"operator mine\.py:bad: mine\.py, line 3: ZeroDivisionError"):
        main(["noise", "--operator", "mine.py:bad"])


@pytest.mark.slow  # it imports matplotlib
def test_the_picture_is_written(capsys, tmp_path, picture):
    for name, options in (("noise", []), ("image", ["--image", picture, "--t", 100])):
        file, bands = tmp_path / f"{name}.png", ["--operator", "band_pass", "--band", 0.2, 0.4, "--size", 32]
        assert said(capsys, *bands, "--plot", file, *options).endswith(f"wrote {file}\n")
        assert Image.open(file).width == 1500


def test_the_picture_shows_the_numbers(generator):
    schedule, spectrum = sagd.Schedule.linear(), sagd.two_band((16, 16), 0.5, (0.0, 0.3), (0.5, 1.0))
    x0 = 0.1 * sagd.power_law((16, 16), -1).sample((16, 16), generator=generator, dtype=torch.float64)
    eps = spectrum.sample((16, 16), generator=generator, dtype=torch.float64)
    figure = sheet("two bands", eps, spectrum, x0, 50, schedule)
    image, noise, xt, weight, rings = (torch.as_tensor(axes.images[0].get_array().data) for axes in figure.axes[:5])
    assert torch.equal(image, x0) and torch.equal(noise, eps)
    assert torch.equal(xt, schedule.q_sample(x0[None], 50, eps[None])[0])
    assert [axes.images[0].get_clim() for axes in figure.axes[:3]] == [(-1, 1), (-3, 3), (-1, 1)]
    assert ((torch.fft.ifftshift(weight) > -9) == spectrum.support).all()
    power = torch.fft.fft2(x0, norm="ortho").abs().square()
    drowned = snr(power, schedule, spectrum, [50])[0] < 1
    assert 0 < drowned.sum() < len(drowned)
    tinted = (rings[..., 0] > rings[..., 2]).sum()  # more red than blue
    counts = torch.bincount(sagd.noise.grid.rings((16, 16)).flatten())
    assert tinted == counts[drowned].sum()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--operator", "pink", "--alpha", "1"), "operator pink has its own alpha, -0.5"),
        (["--operator", "bogus"], "operator is 'bogus'; allowed: band_pass"),
        (["--alpha", "1"], "operator isotropic has no --alpha; it has --gain, --normalize"),
        (["--operator", "power_law"], "missing a required argument: 'alpha'"),
        (["--operator", "power_law", "--alpha", "nan"], "alpha is nan; it must be a finite number"),
        (["--operator", "equal_snr"], "takes the data's power: it needs --image"),
        (["--operator", "two_band", "--low", "0", "0.5", "--high", "0.4", "1"], "overlap"),
        (["--operator", "nowhere.py:ring"], "there is no file nowhere.py"),
        (["--t", "3"], "--t is the step of x_t: it needs --image"),
        (["--image", "picture.png", "--t", "1000"], "--t is 1000; allowed: 0 to 999"),
        (["--image", "nowhere.png"], "cannot read nowhere.png"),
        (["--image", "words.png"], "words.png is not a whole image"),
        (["--size", "1"], "--size is 1; allowed: 2 to 2048"),
        (["--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["--plot", "noise.jpg"], "--plot is noise.jpg; it must end in .png"),
        (["--out", "noise.txt"], "--out is noise.txt; it must end in .npy"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, picture, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(SystemExit, match=f"^sagd noise: .*{re.escape(says)}") as failure:
        main(["noise", *arguments])
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--alpha", "x"], "argument --alpha: it is 'x'; allowed: a number"),
        (["--band", "0.1"], "argument --band: expected 2 arguments"),
        (["--dc", "x"], "argument --dc: invalid choice: 'x'"),
    ],
)
def test_a_bad_command_line_is_one_line(arguments, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["noise", *arguments])
    told = capsys.readouterr().err
    assert told.startswith(f"sagd noise: {says}") and told.count("\n") == 1
