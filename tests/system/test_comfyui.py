"""integrations/comfyui, without ComfyUI: its documented interface of NOISE, SAMPLER and custom nodes."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

import sagd

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nodes():
    """The folder, loaded as ComfyUI loads a custom node: by its path, under a name of its own."""
    path = ROOT / "integrations" / "comfyui" / "__init__.py"
    spec = importlib.util.spec_from_file_location("custom_nodes_sagd", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KSampler:
    """The part of ComfyUI's KSAMPLER that nodes see: how it is made, and what it calls."""

    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function = sampler_function
        self.extra_options, self.inpaint_options = extra_options or {}, inpaint_options or {}

    def sample(self, model, sigmas, noise):
        return self.sampler_function(
            model, noise, sigmas, extra_args={}, callback=None, disable=True, **self.extra_options
        )


def ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, s_noise=1.0):
    noise_sampler = noise_sampler or (lambda *_: torch.randn_like(x))
    for sigma, after in itertools.pairwise(sigmas):
        x = x / 2 + s_noise * noise_sampler(sigma, after)
    return x


def plain(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return x


def noise_of(nodes, seed=7, operator="power_law", arguments='{"alpha": -0.5}'):
    return nodes.SAGDNoise().get_noise(seed, operator, arguments)[0]


def test_comfyui_finds_the_nodes(nodes):
    for name, kind in nodes.NODE_CLASS_MAPPINGS.items():
        assert name in nodes.NODE_DISPLAY_NAME_MAPPINGS
        assert callable(getattr(kind, kind.FUNCTION))
        assert kind.CATEGORY and isinstance(kind.RETURN_TYPES, tuple)
        for socket, *options in kind.INPUT_TYPES()["required"].values():
            assert isinstance(socket, str | list)
            assert all(isinstance(option, dict) for option in options)
    choices, default = nodes.SAGDNoise.INPUT_TYPES()["required"]["operator"]
    assert default["default"] in choices
    assert "data_matched" not in choices  # ComfyUI has no data set to take it from


@pytest.mark.parametrize("shape", [(2, 4, 8, 12), (1, 16, 5, 8, 12)])
def test_the_start_is_the_white_noise_of_comfyui_shaped(nodes, shape):
    latent = {"samples": torch.zeros(shape, dtype=torch.float16)}
    white = torch.randn(shape, generator=torch.manual_seed(7))  # as ComfyUI draws it
    found = noise_of(nodes).generate_noise(latent)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, sagd.power_law((8, 12), -0.5).sqrt(white).half())
    isotropic = noise_of(nodes, operator="isotropic", arguments="").generate_noise(latent)
    torch.testing.assert_close(isotropic, white.half(), atol=2e-3, rtol=0)
    assert noise_of(nodes).seed == 7


def test_an_image_of_a_batch_is_the_one_of_its_index(nodes):
    whole = noise_of(nodes).generate_noise({"samples": torch.zeros(4, 2, 8, 8), "batch_index": [0, 1, 2, 3]})
    some = noise_of(nodes).generate_noise({"samples": torch.zeros(3, 2, 8, 8), "batch_index": [3, 1, 3]})
    torch.testing.assert_close(some, whole[[3, 1, 3]])


def test_steps_draw_shaped_noise(nodes):
    noise, sigmas, x = noise_of(nodes), torch.tensor([2.0, 1.0, 0.0]), torch.zeros(200, 1, 8, 8)
    (sampler,) = nodes.SAGDSampler().get_sampler(KSampler(ancestral, {"s_noise": 0.5}), noise)
    found = sampler.sample(None, sigmas, x)
    spectrum = sagd.power_law((8, 8), -0.5)
    power = torch.fft.fft2(found.double(), norm="ortho").abs().square()
    expected = 0.25 * (1 + 0.25) * spectrum.weight**2
    error = power.std(0) / len(power) ** 0.5
    assert ((power.mean(0) - expected).abs() < 5 * error).all()
    assert torch.equal(sampler.sample(None, sigmas, x), found)  # the seed says all


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_every_seed_that_comfyui_allows_draws_start_and_steps(nodes, seed):
    noise, x = noise_of(nodes, seed=seed), torch.zeros(1, 1, 8, 8)
    start = noise.generate_noise({"samples": x})
    torch.testing.assert_close(
        start, sagd.power_law((8, 8), -0.5).sqrt(torch.randn(x.shape, generator=torch.manual_seed(seed)))
    )
    (sampler,) = nodes.SAGDSampler().get_sampler(KSampler(ancestral), noise)
    steps = sampler.sample(None, torch.tensor([1.0, 0.0]), x)
    following = torch.Generator().manual_seed((seed + 1) % 2**64)
    torch.testing.assert_close(steps, sagd.power_law((8, 8), -0.5).sqrt(torch.randn(x.shape, generator=following)))


def test_bad_use_is_told_in_one_line(nodes):
    for operator, arguments, says in (
        ("power_law", "alpha: 1", "no JSON"),
        ("power_law", "[1]", "allowed is an object"),
        ("power_law", '{"beta": 1}', "operator power_law"),
        ("power_law", '{"alpha": "low"}', "alpha"),
    ):
        with pytest.raises(sagd.InputError, match=says) as error:
            noise_of(nodes, operator=operator, arguments=arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(sagd.InputError, match=r"latents are \(1, 16, 64\)"):
        noise_of(nodes).generate_noise({"samples": torch.zeros(1, 16, 64)})
    with pytest.raises(sagd.InputError, match="latents is uint8"):  # the noise would be cut to 0 or wrap round
        noise_of(nodes).generate_noise({"samples": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)})
    for places in ([0, -1], [0], [0, 1.5], [[0, 1]], []):
        with pytest.raises(sagd.InputError, match=r"batch_index is .* for each of 2 images"):
            noise_of(nodes).generate_noise({"samples": torch.zeros(2, 1, 8, 8), "batch_index": places})
    for seed in (2**64, -(2**64), 1.5, None):
        with pytest.raises(sagd.InputError, match="noise_seed is "):
            noise_of(nodes, seed=seed)
    with pytest.raises(sagd.InputError, match="the noise is a object; take the node Shaped noise"):
        nodes.SAGDSampler().get_sampler(KSampler(ancestral), object())
    with pytest.raises(sagd.InputError, match="takes no noise_sampler"):
        nodes.SAGDSampler().get_sampler(KSampler(plain), noise_of(nodes))
