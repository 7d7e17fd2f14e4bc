"""The denoising error ring by ring, against Gaussian data whose least error is known."""

import pytest
import torch

import sagd
from sagd.errors import InputError
from sagd.metrics.denoising import denoising_errors
from sagd.noise.grid import radius, ring_means
from sagd.noise.randomness import generator
from sagd.oracle.targets import gaussian_field

SIZE = (8, 8)
DIFFUSION = sagd.Diffusion(sagd.Schedule.linear())
POWER = 1 / (0.05 + radius(SIZE) ** 2)
DATA = torch.fft.ifft2(
    torch.fft.fft2(torch.randn(400, 1, *SIZE, generator=generator(0, "data"), dtype=torch.float64)) * POWER.sqrt()
).real


def wiener(noise):
    """The best linear denoiser of these data, as a network that predicts eps."""
    return gaussian_field(torch.zeros(1, *SIZE), POWER[None]).predict(DIFFUSION.schedule, noise)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
def test_of_a_gaussian_field_the_error_is_one_over_one_plus_snr_whatever_the_noise(alpha):
    noise = sagd.power_law(SIZE, alpha)
    found = denoising_errors(wiener(noise), DIFFUSION, noise, DATA, generator=generator(0, "white"))
    assert found.shape == (3, len(ring_means(radius(SIZE))))
    for snr, errors in zip((0.1, 1.0, 10.0), found, strict=True):
        assert errors.mean() == pytest.approx(1 / (1 + snr), rel=0.03)
        assert torch.allclose(errors, torch.tensor(1 / (1 + snr), dtype=torch.float64), rtol=0.25)


def test_where_steps_are_coarse_the_snr_is_still_matched():
    """Weak rings reach a high SNR at the first steps, whose SNRs are apart by factors; noises must not differ there."""
    power = torch.where(radius(SIZE) > 0.4, 0.0008, 5.0)
    white = torch.randn(400, 1, *SIZE, generator=generator(0, "weak"), dtype=torch.float64)
    data = torch.fft.ifft2(torch.fft.fft2(white) * power.sqrt()).real
    found = []
    for alpha in (-0.5, 0.0, 0.5):
        noise = sagd.power_law(SIZE, alpha)
        oracle = gaussian_field(torch.zeros(1, *SIZE), power[None]).predict(DIFFUSION.schedule, noise)
        found.append(denoising_errors(oracle, DIFFUSION, noise, data, generator=generator(0, "white")))
    high = ring_means(radius(SIZE)) > 0.45
    for errors in found:
        known = errors[:, high]
        best = (1 / (1 + torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)))[:, None].expand_as(known)
        assert torch.allclose(known[known > 0], best[known > 0], rtol=0.12)
    assert (found[-1][-1, high]).isnan().any()  # more high-frequency noise than the first step's SNR allows
    assert not found[1][:2].isnan().any()


def test_a_network_that_knows_nothing_has_the_variance_of_the_noise():
    noise = sagd.isotropic(SIZE)
    found = denoising_errors(lambda xt, t: torch.zeros_like(xt), DIFFUSION, noise, DATA, generator=generator(0, "w"))
    for snr, errors in zip((0.1, 1.0, 10.0), found, strict=True):  # x0hat = x_t / sqrt(alpha_bar)
        assert errors.mean() == pytest.approx(1 / snr, rel=0.05)


def test_rings_that_the_noise_leaves_out_have_no_error():
    noise = sagd.two_band(SIZE, 0.5, (0.0, 0.4), (0.5, 1.0))
    found = denoising_errors(wiener(noise), DIFFUSION, noise, DATA, generator=generator(0, "w"))
    reached = ring_means(noise.support.double()) == 1
    assert found.isnan().any(0).tolist() == (~reached).tolist()
    assert 0 < reached.sum() < len(reached)


def test_the_batch_size_changes_nothing():
    noise = sagd.power_law(SIZE, 0.25)
    one, other = (
        denoising_errors(wiener(noise), DIFFUSION, noise, DATA[:50], generator=generator(0, "w"), batch_size=size)
        for size in (50, 7)
    )
    assert torch.allclose(one, other, rtol=1e-10)


def test_one_image_has_no_variance():
    with pytest.raises(InputError, match="two images or more; there are 1"):
        denoising_errors(wiener(sagd.isotropic(SIZE)), DIFFUSION, sagd.isotropic(SIZE), DATA[:1], generator=None)


def test_an_output_that_is_not_finite_is_told():
    """Else it would look like a ratio that the schedule does not reach."""
    noise = sagd.isotropic(SIZE)
    with pytest.raises(InputError, match=r"the network's output at step [0-9]+ is not finite"):
        denoising_errors(lambda xt, t: xt * torch.inf, DIFFUSION, noise, DATA[:9], generator=generator(0, "w"))


@pytest.mark.parametrize(
    ("x0", "how", "says"),
    [
        (DATA[:9] * torch.nan, {}, "x0 has numbers that are not finite"),
        (DATA[:9, 0], {}, r"x0 has shape \(9, 8, 8\)"),
        (DATA[:9].to(torch.uint8), {}, "x0 is uint8; it must be floating-point"),
        (DATA[:9], {"snrs": (1.0, -1.0)}, "an entry of snrs is -1.0; it must be above 0"),
        (DATA[:9], {"snrs": ()}, r"snrs are \(\)"),
        (DATA[:9], {"snrs": 5}, "snrs are 5; they must be a sequence"),
        (DATA[:9], {"batch_size": 0}, "batch_size is 0"),
        (DATA[:9], {"batch_size": 2.5}, "batch_size is 2.5"),
        (DATA[:9], {"generator": 0}, "generator is 0"),
        (None, {}, "x0 is a NoneType"),
    ],
)
def test_bad_input_is_told(x0, how, says):
    noise = sagd.isotropic(SIZE)
    with pytest.raises(InputError, match=says):
        denoising_errors(wiener(noise), DIFFUSION, noise, x0, **{"generator": generator(0, "w")} | how)
