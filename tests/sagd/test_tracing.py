"""What traces or fakes tensors (torch.compile, torch.export, torch.jit.trace, FakeTensorMode) sees the eager numbers.

Everything is made anew in each test, so that what is kept is first made while something traces.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import sagd
from sagd.colored import Colored, ColoredNoise
from sagd.noise.grid import radius, ring_means

SIZE = (4, 6)
SHAPE = (2, 1, *SIZE)
NOISES = {
    "white": lambda: sagd.isotropic(SIZE),
    "shaped": lambda: sagd.power_law(SIZE, -0.4),
    "partial": lambda: sagd.two_band(SIZE, 0.5, (0.0, 0.4), (0.6, 1.0)),
    "per sample": lambda: sagd.power_law(SIZE, -0.4, normalize="sample"),
    "overflowing": lambda: sagd.exponential(SIZE, 100.0),
}
# Shapes become numbers while jit.trace looks on; that the values do not is what the tests compare.
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

X, XT, WHITE = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)) for k in range(3))
T = torch.tensor([100, 700])


class Called(nn.Module):
    """A function as a module, for torch.export."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def traced(how, function, *tensors):
    """What a function gives once traced; another call than the one that was traced."""
    if how == "compile":
        torch._dynamo.reset()
        return torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
    others = tuple(t.flip(0) for t in tensors)
    if how == "jit":
        return torch.jit.trace(function, others)(*tensors)
    return torch.export.export(Called(function), others, strict=how == "strict").module()(*tensors)


every_way = pytest.mark.parametrize("how", ["compile", "export", "jit"])
every_noise = pytest.mark.parametrize("make", NOISES.values(), ids=NOISES.keys())


def network(x, t):
    return (x.sin() + x.roll(1, -1)) * (1 + t.reshape(-1, 1, 1, 1) / 1000)


def varying():
    alpha_bar = sagd.Schedule.linear(1000).alpha_bar
    return sagd.Varying(sagd.power_law(SIZE, -0.4), sagd.isotropic(SIZE), alpha_bar)


def colored():
    levels = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64, device="cpu")
    rings = len(ring_means(radius(SIZE)))
    gamma = torch.linspace(0.9, 0.0, 3 * rings, dtype=torch.float64, device="cpu")
    return ColoredNoise(SIZE, levels, gamma.reshape(3, rings))


def kept(thing):
    """All tensors that an object and what it holds keep."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    held = vars(thing) if hasattr(thing, "__dict__") else thing
    values = held.values() if isinstance(held, dict) else held if isinstance(held, tuple) else ()
    return [tensor for value in values for tensor in kept(value)]


@every_way
@every_noise
def test_operators(make, how):
    for name in ("sqrt", "covariance", "inverse", "project", "shape"):
        noise = make()
        found = traced(how, getattr(noise, name), X)
        torch.testing.assert_close(found, getattr(make(), name)(X), atol=1e-6, rtol=1e-5)
        assert {type(tensor) for tensor in kept(noise)} == {torch.Tensor}


LOSSES = {
    "eps": lambda: (sagd.Diffusion(sagd.Schedule.linear()), T),
    "v": lambda: (sagd.Diffusion(sagd.Schedule.zero_terminal_snr(), "v"), T),
    "flow": lambda: (sagd.Flow(), T / 1000),
    "edm": lambda: (sagd.EDM(), T / 100),
}


@every_way
@pytest.mark.parametrize("of", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("make", [NOISES["shaped"], NOISES["partial"]], ids=["full", "partial"])
def test_losses(of, make, how):
    def loss(formulation, noise):
        return lambda x0, t, eps: formulation.loss(network, noise, x0, t, eps)

    formulation, t = of()
    found = traced(how, loss(formulation, make()), X, t, WHITE)
    torch.testing.assert_close(found, loss(of()[0], make())(X, t, WHITE))


STEPS = {
    "ddim": sagd.Sampler("ddim"),
    "ddim with noise": sagd.Sampler("ddim", eta=0.5),
    "ddpm": sagd.Sampler("ddpm"),
    "clipped": sagd.Sampler("ddpm", clip=True),
    "euler": sagd.Sampler("euler"),
    "heun": sagd.Sampler("heun"),
}


@every_way
@pytest.mark.parametrize("sampler", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("kind", ["partial", "varying", "colored"])
def test_a_step_of_a_sampler(kind, sampler, how):
    if kind == "varying" and sampler.name != "ddpm" and sampler != STEPS["ddim"]:
        sampler = sagd.Sampler(sampler.name if sampler.name in ("ddim", "ddpm") else "ddim", clip=True)

    def step():
        diffusion = sagd.Diffusion(sagd.Schedule.linear())
        if kind == "colored":
            diffusion = Colored.of(diffusion, colored())
        noise = {"partial": NOISES["partial"], "varying": varying, "colored": NOISES["white"]}[kind]()
        return lambda x, white: diffusion.step(network, noise, x, 600, 500, sampler, white=lambda: white)

    found = traced(how, step(), XT, WHITE)
    torch.testing.assert_close(found, step()(XT, WHITE), atol=1e-5, rtol=1e-5)


@every_way
@pytest.mark.parametrize("of", [sagd.Flow, sagd.EDM])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_samplers_in_continuous_time(of, name, how):
    def run():
        return lambda x: of().sample(network, NOISES["partial"](), x, sagd.Sampler(name, 2))

    def outside():
        formulation, noise = of(), NOISES["partial"]()
        return lambda x: formulation.sample(network, noise, x, sagd.Sampler(name, 2))

    torch.testing.assert_close(traced(how, outside(), XT), run()(XT), atol=1e-5, rtol=1e-5)


def test_one_compiled_function_takes_each_noise_as_it_is():
    """Two noises of one size differ in their tables alone: the code of one must not serve for the other."""
    torch._dynamo.reset()
    function = torch.compile(lambda noise, x: noise.sqrt(x), fullgraph=True, backend="eager")
    one, other = sagd.power_law(SIZE, -0.4), sagd.power_law(SIZE, 0.4)
    for noise in (one, other, one, other):
        torch.testing.assert_close(function(noise, X), noise.sqrt(X))


def test_one_compiled_step_takes_every_t():
    torch._dynamo.reset()
    diffusion, noise = sagd.Diffusion(sagd.Schedule.linear()), varying()

    def step(x, t, t_prev):
        return diffusion.step(network, noise, x, t, t_prev, sagd.Sampler("ddpm"), white=lambda: WHITE)

    compiled = torch.compile(step, fullgraph=True, backend="eager", dynamic=False)
    for t, t_prev in ((900, 600), (600, 300), (300, 0), (0, -1)):
        torch.testing.assert_close(compiled(XT, t, t_prev), step(XT, t, t_prev), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_inductor_gives_the_eager_loss():
    diffusion, noise = sagd.Diffusion(sagd.Schedule.linear()), NOISES["partial"]()
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, t, eps: diffusion.loss(network, noise, x, t, eps), fullgraph=True)
    torch.testing.assert_close(compiled(X, T, WHITE), diffusion.loss(network, noise, X, T, WHITE))


@every_noise
def test_nothing_fake_is_kept(make):
    """What a spectrum, a schedule, a varying noise kept under FakeTensorMode is real, and serves afterwards."""
    noise, diffusion, moving = make(), sagd.Diffusion(sagd.Schedule.linear()), varying()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, t, eps = (mode.from_tensor(tensor) for tensor in (X, T, WHITE))
        assert noise.sqrt(x).fake_mode is mode
        assert diffusion.loss(network, noise, x, t, eps).fake_mode is mode
        drawn = moving.sample(SHAPE, generator=None, t=t)
        diffusion.step(network, moving, x, 500, 400, sagd.Sampler("ddpm"), white=lambda: eps)
    assert drawn.fake_mode is mode
    assert {type(tensor) for thing in (noise, diffusion, moving) for tensor in kept(thing)} == {torch.Tensor}
    torch.testing.assert_close(noise.sqrt(X), make().sqrt(X), atol=0, rtol=0)
    again = sagd.Diffusion(sagd.Schedule.linear())
    assert torch.equal(diffusion.loss(network, noise, X, T, WHITE), again.loss(network, make(), X, T, WHITE))


def test_what_is_first_used_in_inference_mode_serves_where_gradients_are_wanted():
    noise, diffusion = NOISES["partial"](), sagd.Diffusion(sagd.Schedule.linear())
    with torch.inference_mode():
        diffusion.loss(network, noise, X, T, WHITE)
    x = X.clone().requires_grad_()
    diffusion.loss(network, noise, x, T, WHITE).backward()
    assert x.grad.abs().sum() > 0


def test_what_is_kept_does_not_grow_without_end():
    noise = colored()
    for k in range(1100):
        noise.at_level(k / 100)
    assert len([name for name in vars(noise) if name.startswith("_kept_")]) <= 1000


def test_a_default_device_changes_nothing():
    """Everything is made on the CPU, and says so: here what forgot it would hold no numbers."""
    wanted = (
        sagd.pyramid((5, 7), 3).weight,
        sagd.Diffusion(sagd.Schedule.linear()).loss(network, varying(), X, T, WHITE),
    )
    torch.set_default_device("meta")
    try:
        noises = [make() for make in NOISES.values()]
        found = (
            sagd.pyramid((5, 7), 3).weight,
            sagd.Diffusion(sagd.Schedule.linear()).loss(network, varying(), X, T, WHITE),
        )
        grids = sagd.Flow().grid(4), sagd.EDM().grid(4), colored().at_level(0.5).weight
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert {tensor.device.type for tensor in (*grids, *(noise.weight for noise in noises))} == {"cpu"}
