"""Shaped noise in the samplers of k-diffusion itself."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import sagd
from sagd.k_diffusion import noise_sampler

SIZE = (8, 8)
TILTED = sagd.power_law(SIZE, -0.5)
SIGMAS = torch.tensor([10.0, 4.0, 1.5, 0.5, 0.1, 0.0])
# Of the samplers that take a noise_sampler, those that are called as model, x, sigmas.
SAMPLERS = [
    "sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_sde",
    "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde",
]  # fmt: skip


@pytest.fixture(scope="module")
def sampling():
    """k_diffusion.sampling, without the rest of the package, which needs packages for training and evaluation."""
    package = ModuleType("k_diffusion")
    package.__path__ = [str(Path(importlib.util.find_spec("k_diffusion").origin).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "k_diffusion", package)
        yield importlib.import_module("k_diffusion.sampling")


def model(x, sigma, **_):
    """The denoiser of N(0, 1) data."""
    return x / (1 + sigma[:, None, None, None] ** 2)


def start(seed=0):
    return 10 * torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SAMPLERS)
def test_isotropic_noise_is_k_diffusions_to_the_bit(sampling, name):
    sampler, x = getattr(sampling, name), start()
    torch.manual_seed(1)
    plain = sampler(model, x, SIGMAS, noise_sampler=lambda *_: torch.randn_like(x), disable=True)
    generator = torch.Generator().manual_seed(1)
    shaped = noise_sampler(sagd.isotropic(SIZE), x, generator=generator)
    assert torch.equal(sampler(model, x, SIGMAS, noise_sampler=shaped, disable=True), plain)
    torch.manual_seed(1)  # without a generator it is torch's global one, as in k-diffusion
    assert torch.equal(
        sampler(model, x, SIGMAS, noise_sampler=noise_sampler(sagd.isotropic(SIZE), x), disable=True), plain
    )


def test_k_diffusions_own_noise_is_the_same(sampling):
    x = start()
    torch.manual_seed(1)
    plain = sampling.sample_euler_ancestral(model, x, SIGMAS, disable=True)
    generator = torch.Generator().manual_seed(1)
    shaped = noise_sampler(sagd.isotropic(SIZE), x, generator=generator)
    assert torch.equal(sampling.sample_euler_ancestral(model, x, SIGMAS, noise_sampler=shaped, disable=True), plain)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_a_linear_model_are_shaped_where_start_and_steps_are(sampling, name):
    """A model that treats all frequencies alike commutes with T_w: shaped noise gives shaped samples, exactly."""
    sampler, x = getattr(sampling, name), start()

    def samples(noise):
        shaped = noise_sampler(noise, x, generator=torch.Generator().manual_seed(1))
        return sampler(model, noise.shape(x), SIGMAS, noise_sampler=shaped, disable=True)

    torch.testing.assert_close(samples(TILTED), TILTED.sqrt(samples(sagd.isotropic(SIZE))), atol=1e-5, rtol=1e-5)


def test_the_noise_of_overlapping_steps_is_shaped(sampling):
    x = start()
    tree = sampling.BrownianTreeNoiseSampler(x, torch.tensor(0.1), torch.tensor(10.0), seed=3)
    shaped = noise_sampler(TILTED, x, white=tree)
    for interval in ((10.0, 4.0), (10.0, 2.0), (4.0, 2.0)):
        sigmas = torch.tensor(interval)
        torch.testing.assert_close(shaped(*sigmas), TILTED.sqrt(tree(*sigmas)))


def test_each_image_has_its_own_generator():
    x = torch.zeros(3, 1, *SIZE, dtype=torch.float64)
    several = noise_sampler(TILTED, x, generator=[torch.Generator().manual_seed(k) for k in range(3)])
    alone = noise_sampler(TILTED, x[:1], generator=[torch.Generator().manual_seed(2)])
    torch.testing.assert_close(several(1.0, 0.5)[2:], alone(1.0, 0.5))
    assert several(1.0, 0.5).dtype == torch.float64


def test_what_does_not_fit_is_refused():
    with pytest.raises(sagd.InputError, match=r"the spectrum is of 8x8, and x has the shape \(1, 1, 16, 16\)"):
        noise_sampler(TILTED, torch.zeros(1, 1, 16, 16))
    varying = sagd.Varying(TILTED, sagd.isotropic(SIZE), sagd.Schedule.linear().alpha_bar)
    with pytest.raises(sagd.InputError, match="another noise at each step"):
        noise_sampler(varying, torch.zeros(1, 1, *SIZE))
