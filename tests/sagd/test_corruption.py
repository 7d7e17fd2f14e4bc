"""The corruption of training images, and its remedies."""

import torch

import sagd
from sagd.noise.corruption import Corruption, load, save
from sagd.spaces.moments import statistics

BAND = sagd.band_pass((8, 8), (0.4, 0.6))
IMAGES = torch.randint(0, 256, (400, 2, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
X = IMAGES.double() / 127.5 - 1


def test_noise_has_the_band_and_the_weight(generator):
    added = Corruption(BAND, 2.0)(X, generator) - X
    torch.testing.assert_close(BAND.project(added), added, atol=1e-5, rtol=0)
    assert abs(added.std() / 2 - 1) < 0.02


def test_filtering_leaves_the_rest_as_it_was(generator):
    filtered = Corruption(BAND, 2.0, filtered=True)(X, generator)
    spectrum = torch.fft.fft2(filtered)
    assert spectrum[..., BAND.support].abs().max() < 1e-9
    torch.testing.assert_close(spectrum[..., ~BAND.support], torch.fft.fft2(X)[..., ~BAND.support])
    # It is what filtering corrupted images gives, whatever the noise.
    corrupted = Corruption(BAND, 2.0)(X, generator)
    torch.testing.assert_close(Corruption(BAND).remove(corrupted), filtered, atol=1e-5, rtol=0)


def test_moments_are_those_of_corrupted_images(generator):
    clean = statistics(IMAGES.numpy())
    for filtered in (False, True):
        corruption = Corruption(BAND, 0.5, filtered)
        mean, power = corruption.moments(clean["mean"], clean["power"])
        draws = torch.cat([corruption(X, generator) for _ in range(20)])
        seen = torch.fft.fft2(draws - mean, norm="ortho").abs().square().mean(0)
        torch.testing.assert_close(draws.mean(0), mean, atol=0.03, rtol=0)
        torch.testing.assert_close(seen, power, atol=1e-3, rtol=0.1)


def test_a_file_makes_it_anew(tmp_path):
    for corruption in (Corruption(BAND, 0.3), Corruption(BAND, 1.0, filtered=True)):
        save(tmp_path / "corruption.safetensors", corruption)
        again = load(tmp_path / "corruption.safetensors")
        assert torch.equal(again.spectrum.weight, BAND.weight)
        assert (again.gamma, again.filtered) == (corruption.gamma, corruption.filtered)
    save(tmp_path / "corruption.safetensors", None)
    assert load(tmp_path / "corruption.safetensors") is None
