"""Choosing alpha from the data's statistics: what the oracle says."""

import re

import pytest
import torch

import sagd
from sagd.formulations.base import Sampler
from sagd.oracle.suggest import ALPHAS, Suggestion, suggest, verdict
from sagd.oracle.targets import distance, drawn, gaussian_field

DIFFUSION = sagd.Diffusion(sagd.Schedule.linear())


@pytest.fixture
def dark():
    """Statistics of dark images with a falling spectrum, as digits have."""
    power = sagd.power_law((8, 8), -0.7).weight.square()[None] * 0.1
    return {"mean": torch.full((1, 8, 8), -0.8, dtype=torch.float64), "power": power}


def test_curve_is_the_oracles_distance(dark):
    found = suggest(**dark, diffusion=DIFFUSION, sampler=Sampler(steps=10), alphas=(-0.1, 0.2), dc="floor")
    for alpha in (-0.1, 0.2):
        spectrum = sagd.power_law((8, 8), alpha, dc="floor")
        field = gaussian_field(**dark)
        expected = distance(drawn(field, DIFFUSION, spectrum, Sampler(steps=10)), field)
        assert found.curve[alpha] == pytest.approx(expected, rel=1e-12)


def test_dark_images_want_noise_of_changing_brightness_or_a_right_start(dark):
    """paper.md, section 4: the error is in the mean image; low-frequency noise hides it, the right start removes it."""
    noise = suggest(**dark, diffusion=DIFFUSION, sampler=Sampler(), alphas=ALPHAS[::2], dc="floor")
    right = Sampler(start="marginal")
    marginal = suggest(**dark, diffusion=DIFFUSION, sampler=right, alphas=(0.0,), dc="floor")
    assert -0.2 < noise.alpha < 0
    assert noise.curve[0.0]["mean"] > 1e-4 and marginal.curve[0.0]["mean"] < 1e-20
    assert marginal.curve[0.0]["rest"] == pytest.approx(noise.curve[0.0]["rest"], rel=0.01)


def test_without_a_mean_image_there_is_nothing_to_hide(dark):
    still = {"mean": torch.zeros_like(dark["mean"]), "power": dark["power"]}
    noise = suggest(**still, diffusion=DIFFUSION, sampler=Sampler(), alphas=(-0.1, 0.0, 0.1), dc="floor")
    assert noise.curve[0.0]["mean"] == 0
    assert max(noise.error(a) for a in (-0.1, 0.1)) < 1.2 * noise.error(0.0)


def curve(**errors):
    return Suggestion({a: {"mean": e, "dc": 0.0, "rest": 1.0} for a, e in errors["of"].items()})


def test_flat_range_and_verdict_follow_from_the_numbers():
    best = curve(of={-0.2: 0.5, -0.1: 0.001, 0.0: 0.2, 0.1: 0.0})
    assert best.best == best.alpha == 0.1 and best.flat == (0.1, 0.1)
    wide = curve(of={-0.2: 0.5, -0.1: 0.001, 0.0: 0.005, 0.1: 0.0, 0.2: 9.0})
    assert wide.best == 0.1 and wide.flat == (-0.1, 0.1)
    assert wide.alpha == 0.0  # as good, and shapes less


@pytest.mark.parametrize(
    ("noise", "right", "says"),
    [
        ({-0.1: 0.0, 0.0: 1.0}, 1.0, "takes 50.0% off .* So shaping does more than the right start"),
        ({-0.1: 0.0, 0.0: 1.0}, 0.0, "takes off 50.0% at alpha 0. So the right start does about as much"),
        ({-0.1: 0.8, 0.0: 1.0}, 0.0, "So the right start does more"),
        ({0.0: 0.0, 0.1: 1.0}, 0.0, "^No alpha is better than 0 .* takes off 0.0% .* Neither matters"),
        ({0.0: 1.0, 0.1: 0.8}, 1.3, "adds 15.0% at alpha 0. So shaping does more"),
        ({-0.1: 0.9, 0.0: 1.0}, 0.93, "takes 5.0% off .* takes off 3.5% .* about as much"),
    ],
)
def test_the_verdict_follows_from_the_numbers(noise, right, says):
    said = verdict(curve(of=noise), curve(of={0.0: right}))
    assert re.search(says, said)
    assert "start from the marginal" not in said  # networks that were trained gained nothing by it


def test_the_verdict_tells_the_parts_of_the_gain():
    noise = Suggestion({-0.1: {"mean": 0.1, "dc": 0.3, "rest": 0.2}, 0.0: {"mean": 0.7, "dc": 0.2, "rest": 0.1}})
    said = verdict(noise, Suggestion({0.0: {"mean": 0.0, "dc": 0.2, "rest": 0.1}}))
    assert "(-60.0% in the mean image, +10.0% in the spread of the brightness, +10.0% in all else)" in said


def test_a_suggestion_is_for_the_sampler_asked_for(dark):
    """Every argument goes to the oracle: another sampler, start or convention has another error."""
    field = gaussian_field(**dark)
    errors, right = set(), Sampler(steps=10, start="marginal")
    for sampler in (Sampler("heun", 10), Sampler("ddpm", 10), Sampler("euler", 10), right):
        found = suggest(**dark, diffusion=DIFFUSION, sampler=sampler, alphas=(0.2,), dc="floor")
        spectrum = sagd.power_law((8, 8), 0.2, dc="floor")
        assert found.curve[0.2] == pytest.approx(distance(drawn(field, DIFFUSION, spectrum, sampler), field))
        errors.add(round(found.error(0.2), 9))
    assert len(errors) == 4
