"""The exponent, the bands and the errors are those of their formulas."""

import sys

import numpy as np
import pytest
import torch

import sagd
from sagd import InputError
from sagd.metrics import rapsd
from sagd.noise.grid import band_masks, band_means, radius, ring_means


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
    with pytest.raises(InputError, match="the power is 0 at every frequency"):
        rapsd.exponent(torch.zeros(16, 16))


def test_a_common_edge_belongs_to_the_higher_band_as_in_two_band_noise():
    masks = band_masks((16, 16), ((0, 0.5), (0.5, 1)))
    low = sagd.two_band((16, 16), 1.0).support
    assert torch.equal(masks[0] | masks[1], low)


def test_the_jackknife_is_that_of_leaving_each_image_out(generator):
    x = torch.rand((7, 6, 6), generator=generator, dtype=torch.float64)
    masks = band_masks((6, 6), ((0, 0.5), (0.5, 1)))

    def each(images):
        return band_means(torch.fft.fft2(images - images.mean(0), norm="ortho").abs().square(), masks)

    power, error = rapsd.jackknife(each(x))
    left = torch.stack([each(x[torch.arange(7) != k]).sum(0) / 5 for k in range(7)])
    torch.testing.assert_close(error, (6 / 7 * (left - left.mean(0)).square().sum(0)).sqrt())
    torch.testing.assert_close(power, band_means(torch.fft.fft2(x, norm="ortho").var(0), masks))


def test_errors_of_the_ratio_are_its_scatter(generator):
    """Of pairs of sets of 30 images that are alike, two standard errors mark about one band in 20."""
    masks, marked = band_masks((8, 8), ((0, 0.5), (0.5, 1))), []
    for _ in range(300):
        x = sagd.power_law((8, 8), -0.5).sample((2, 30, 8, 8), generator=generator, dtype=torch.float64)
        each = band_means(torch.fft.fft2(x - x.mean(1, True), norm="ortho").abs().square(), masks)
        marked.append(rapsd.compare(*each)[2][1:])
    assert 0.02 < torch.stack(marked).double().mean() < 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_power_that_is_none_is_told_and_not_left_out(value):
    power = sagd.power_law((16, 16), -1.0).weight.square()
    power[3, 4] = value
    with pytest.raises(InputError, match=f"power has the value {value:g}; it must be finite, 0 or more"):
        rapsd.exponent(power)


@pytest.mark.parametrize("x", [torch.ones(8), torch.ones(0, 8, 8), torch.ones(8, 8, dtype=torch.complex64)])
def test_a_spectrum_is_of_real_images(x):
    for measure in (rapsd.rapsd, rapsd.exponent):
        with pytest.raises(InputError, match="it must be real"):
            measure(x)


@pytest.mark.parametrize("measure", [rapsd.rapsd, rapsd.exponent])
def test_an_array_is_no_tensor(measure):
    with pytest.raises(InputError, match="is a ndarray; it must be a tensor"):
        measure(np.ones((8, 8)))


def test_two_sets_are_compared_in_the_same_bands():
    """One band of the data counted for all of the samples'."""
    with pytest.raises(InputError, match="the samples have 3 bands and the data 1"):
        rapsd.compare(torch.rand(7, 3), torch.rand(7, 1))
    for shares in (torch.ones(7, 3, dtype=torch.int64), np.ones((7, 3))):
        with pytest.raises(InputError, match=r"shares is (int64|a ndarray)"):
            rapsd.compare(shares, torch.rand(7, 3))


def test_an_image_whose_power_is_not_finite_is_told(generator):
    each = torch.rand((7, 3), generator=generator)
    each[4, 1] = torch.nan
    with pytest.raises(InputError, match="image 4 has a share that is not finite"):
        rapsd.compare(each, torch.rand((7, 3), generator=generator))


def test_power_where_the_data_have_none_differs(generator):
    data, samples = torch.rand((2, 7, 3), generator=generator)
    data[:, 0] = samples[:, 1] = data[:, 1] = 0
    _, _, differs = rapsd.compare(samples, data)
    assert differs[:2].tolist() == [True, False]


def test_a_missing_scipy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"scipy.*; in the clone of sagd: pip install '\.\[metrics\]'"):
        rapsd.exponent(torch.ones(16, 16))
