"""Noise that leaves frequencies out: what is there in the data is neither seen, nor learnt, nor drawn (App. D.5)."""

import functools

import pytest
import torch

import sagd
from sagd.formulations.base import trained_on
from sagd.formulations.edm import EDM
from sagd.formulations.flow import Flow
from sagd.networks.unet import unet
from sagd.noise.randomness import seeded
from sagd.oracle import Mixture
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe

SIZE, BAND = (8, 8), (0.4, 0.6)
SCHEDULE = sagd.Schedule.linear()
OMITTING = sagd.two_band(SIZE, 0.5, (0.0, BAND[0]), (BAND[1], 1.0))
FULL = sagd.power_law(SIZE, -0.5)
FORMULATIONS = {
    "eps": sagd.Diffusion(SCHEDULE, "eps"),
    "v": sagd.Diffusion(SCHEDULE, "v"),
    "flow": Flow(),
    "edm": EDM(),
}
each_formulation = pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)


def trained(formulation, noise, corruption, project=True, steps=8) -> torch.Tensor:
    """All weights of a network after some steps on the same images."""
    images = torch.randint(0, 256, (32, 1, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with seeded(0, "weights"):
        network = unet(SIZE, 1, widths=[8], layers=1, attention=[False], groups=4)
    recipe = Recipe(steps, 8, lr=1e-3, warmup=0, ema=0.5, precision="fp32", project=project)
    found = train(network, Pixels(images), noise, formulation, recipe, seed=0, corruption=corruption).weights
    return torch.cat([w.flatten() for w in found.values()])


def corruption(gamma: float, filtered: bool = False) -> sagd.Corruption:
    return sagd.Corruption(sagd.band_pass(SIZE, BAND), gamma, filtered)


@each_formulation
def test_what_the_noise_leaves_out_does_not_change_training(formulation):
    """Neither the strength of the corruption, nor whether the band was filtered out of the images before."""
    weak, strong = (trained(formulation, OMITTING, corruption(gamma)) for gamma in (0.1, 10.0))
    filtered, clean = (trained(formulation, OMITTING, c) for c in (corruption(1.0, filtered=True), None))
    for other in (strong, filtered, clean):
        torch.testing.assert_close(other, weak, rtol=1e-3, atol=1e-4)
    literal = [trained(formulation, OMITTING, corruption(gamma), project=False) for gamma in (0.1, 10.0)]
    assert (literal[0] - literal[1]).norm() > 100 * (weak - strong).norm()


@each_formulation
def test_at_full_support_projection_changes_no_bit(formulation):
    assert torch.equal(trained(formulation, FULL, None, steps=2), trained(formulation, FULL, None, False, steps=2))
    x0 = torch.randn((2, 1, *SIZE), generator=torch.Generator().manual_seed(0))
    assert trained_on(FULL, x0, project=True) is x0


def edm_network(edm: EDM, denoised):
    """F of EDM's preconditioning, for a known D."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma = (t[0] * 4 / 1000).exp().item()
        total, data = sigma**2 + edm.sigma_data**2, edm.sigma_data
        x = x * total**0.5
        return (denoised(x, sigma) - data**2 / total * x) / (sigma * data / total**0.5)

    return network


@pytest.fixture
def mixture():
    """Two images, each with variance at every frequency, much of it in the band that the noise leaves out."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((2, 1, *SIZE), generator=generator, dtype=torch.float64) * 0.3
    power = 0.05 + 0.5 * sagd.band_pass(SIZE, BAND).support.double()
    return Mixture(means, power.expand(1, 1, *SIZE).clone(), torch.tensor([0.3, 0.7], dtype=torch.float64))


@pytest.mark.parametrize("project", [True, False], ids=["projected", "literal"])
@each_formulation
def test_the_oracle_is_the_optimum_of_the_loss(formulation, project, mixture):
    """Its error is orthogonal to whatever else a network could add: the gradient of the loss there is 0."""
    n, generator = 6_000, torch.Generator().manual_seed(1)
    x0 = mixture.sample(n, generator=generator)
    eps = OMITTING.sample(x0.shape, generator=generator, dtype=torch.float64)
    if isinstance(formulation, EDM):
        t = torch.full((n,), 0.8, dtype=torch.float64)
        denoised = functools.partial(mixture.denoised, spectrum=OMITTING, project=project)
        oracle = edm_network(formulation, denoised)
    elif isinstance(formulation, Flow):
        t, oracle = torch.full((n,), 0.6, dtype=torch.float64), mixture.velocity(OMITTING, project)
    else:
        t, oracle = torch.full((n,), 500), mixture.predict(SCHEDULE, OMITTING, formulation.prediction, project)
    band = sagd.band_pass(SIZE, BAND)
    directions = [
        lambda x: x,
        torch.sin,
        band.project,
        OMITTING.project,
        lambda x: torch.ones_like(x),
        lambda x: x.roll(1, -1),
        lambda x: band.project(torch.tanh(3 * x)),
    ]

    def loss(direction, scale: float) -> float:
        def network(x, t):
            return oracle(x, t) + scale * direction(x)

        return formulation.loss(network, OMITTING, x0, t, eps, project=project).item()

    best = loss(lambda x: x, 0.0)
    for direction in directions:
        # A parabola in the scale, least at 0 up to the chance of the draws.
        left, right = loss(direction, -0.1), loss(direction, 0.1)
        curvature = (left + right - 2 * best) / 0.01
        if curvature < 1e-9:  # the network sees nothing there
            continue
        lowest = (left - right) / 0.2 / curvature
        assert abs(lowest) < 0.03, (direction, lowest)


def test_the_literal_loss_has_another_optimum(mixture):
    """Its network sees the band without noise, and may use it to tell the images apart."""
    x0 = mixture.sample(5000, generator=torch.Generator().manual_seed(1))
    eps = OMITTING.sample(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t, diffusion = torch.full((5000,), 800), FORMULATIONS["eps"]

    def loss(asked: bool, oracle: bool) -> float:
        network = mixture.predict(SCHEDULE, OMITTING, project=oracle)
        return diffusion.loss(network, OMITTING, x0, t, eps, project=asked).item()

    assert loss(False, oracle=False) < loss(False, oracle=True)
    assert loss(True, oracle=True) < loss(True, oracle=False)
    target = Mixture(mixture.means, torch.zeros_like(mixture.power), mixture.weights)
    with pytest.raises(sagd.InputError, match="variance at every frequency that the noise leaves out"):
        target.predict(SCHEDULE, OMITTING, project=False)(x0[:1], t[:1])


SAMPLERS = [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("euler", 0.0), ("heun", 0.0)]


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("start", ["noise", "marginal"])
@pytest.mark.parametrize(("name", "eta"), SAMPLERS)
def test_the_band_stays_empty_through_every_sampler(name, eta, start, clip):
    """Whatever the network says, and where clipping bites."""
    sampler = sagd.Sampler(name, 6, start=start, eta=eta, clip=clip)
    generator, outside = torch.Generator().manual_seed(0), []

    def network(x, t):
        outside.append(off_support(x))
        return 3 * torch.cos(7 * x) + x.flip(-1)

    data = {"mean": torch.ones((1, *SIZE)), "power": torch.ones((1, *SIZE))}
    for prediction in ("eps", "v"):
        diffusion = sagd.Diffusion(SCHEDULE, prediction)
        x = sagd.sample(network, diffusion, OMITTING, sampler, shape=(4, 1, *SIZE), generator=generator, data=data)
        assert x.abs().max() > 0.5
        assert max(*outside, off_support(x)) < 1e-6


@pytest.mark.parametrize("formulation", [Flow(), EDM()], ids=["flow", "edm"])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_the_band_stays_empty_in_continuous_time(formulation, name):
    generator = torch.Generator().manual_seed(0)
    x = sagd.sample(
        lambda x, t: torch.cos(7 * x), formulation, OMITTING, sagd.Sampler(name, 6),
        shape=(4, 1, *SIZE), generator=generator,
    )  # fmt: skip
    assert off_support(x) < 1e-6


def off_support(x: torch.Tensor) -> float:
    """The largest amplitude off the support, over the largest of all."""
    amplitudes = torch.fft.fft2(x.double()).abs()
    return (amplitudes[..., ~OMITTING.support].max() / amplitudes.max()).item()


def test_a_leak_is_counted():
    """On the listing's grid a band and the noise that should leave it out share frequencies."""
    band = sagd.Corruption(sagd.band_pass((32, 32), (0.4, 0.5)))
    edges = ((0.0, 0.4), (0.5, 1.0))
    assert band.reached_by(sagd.two_band((32, 32), 0.5, *edges)) == 0
    assert band.reached_by(sagd.two_band((32, 32), 0.5, *edges, grid="linspace")) == 80
    assert band.reached_by(sagd.isotropic((32, 32))) == int(band.spectrum.support.sum())
    assert band.reached_by(sagd.two_band((8, 8), 0.5, *edges)) == int(band.spectrum.support.sum())  # of latents
