"""Bands part the variance of the data, and drown at the steps of the formula."""

import pytest
import torch

import sagd
from sagd import InputError
from sagd.noise.grid import band_masks, radius, rings
from sagd.oracle.drowning import band_table, snr


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14), (8, 8)])
def test_bands_part_the_grid_and_the_variance(size, generator):
    masks = band_masks(size)
    assert (masks.sum(0) == 1).all() and masks[0].sum() == 1
    power = torch.rand((3, *size), generator=generator, dtype=torch.float64)
    table = band_table(power)
    assert sum(band.share for band in table) == pytest.approx(1, abs=1e-12)
    assert sum(band.frequencies for band in table) == size[0] * size[1]
    in_band = (radius(size) / 0.5**0.5 >= 0.6 - 1e-12) & (radius(size) / 0.5**0.5 < 0.7 - 1e-12)
    assert table[7].power == pytest.approx(power.mean(0)[in_band].mean().item(), rel=1e-12)
    if size == (8, 8):  # whose lowest frequency is 0.18 of the corner's
        assert table[1].frequencies == 0 and table[1].power is None and table[1].drowns is None


def test_a_band_drowns_at_the_step_of_the_formula():
    """Of power P, at the first t with alpha_bar_t P < (1 - alpha_bar_t) w^2, so alpha_bar_t < w^2 / (P + w^2)."""
    schedule, masks = sagd.Schedule.linear(), band_masks((16, 16))
    levels = torch.tensor([1e6, 300.0, 30.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-5], dtype=torch.float64)
    power = (levels[:, None, None] * masks).sum(0)
    noise = sagd.power_law((16, 16), 0.3)
    for spectrum in (None, noise):
        weight = torch.ones(16, 16) if spectrum is None else noise.weight
        for band, level, mask in zip(band_table(power, noise=spectrum), levels, masks, strict=True):
            square = weight[mask].double().square().mean()
            below = (schedule.alpha_bar < square / (level + square)).nonzero()
            assert band.drowns == (below[0].item() if len(below) else None)
    assert band_table(power)[0].drowns is None and band_table(power)[-1].drowns == 0


def test_snr_is_one_at_equal_power_and_follows_varying_noise():
    schedule, size = sagd.Schedule.linear(), (8, 8)
    power = torch.stack([torch.full(size, 2.0), torch.full(size, 4.0)])
    found = snr(power, schedule, sagd.isotropic(size), [0, 400, 999])
    alpha_bar = schedule.alpha_bar[[0, 400, 999]]
    torch.testing.assert_close(found, (3 * alpha_bar / (1 - alpha_bar))[:, None].expand(-1, int(rings(size).max()) + 1))
    varying = sagd.Varying(sagd.power_law(size, -0.5), sagd.power_law(size, 0.5), schedule.alpha_bar)
    moving = snr(power, schedule, varying, torch.tensor([0, 400, 999]))
    for k, t in enumerate((0, 400, 999)):
        torch.testing.assert_close(moving[k], snr(power, schedule, varying.at(t), [t])[0])
    assert moving[0, 1] < found[0, 1] and moving[0, -1] > found[0, -1]  # it begins in the low frequencies
    with pytest.raises(InputError, match=r"the noise is for \(8, 8\), the data's power for \(4, 4\)"):
        snr(torch.ones(4, 4), schedule, varying, [0])


def test_noise_without_weight_never_drowns_a_band():
    table = band_table(torch.ones(16, 16), noise=sagd.band_pass((16, 16), (0.5, 1)))
    assert [band.drowns is None for band in table] == [True] * 6 + [False] * 5
