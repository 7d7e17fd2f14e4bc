"""What the library's functions accept: the rest is refused in one line, and nothing depends on the default dtype."""

import copy
import functools
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import sagd
from sagd import oracle
from sagd.colored import ColoredNoise, calibrate
from sagd.formulations.base import predicted
from sagd.formulations.flow import dimension_shift
from sagd.k_diffusion import noise_sampler
from sagd.metrics.classifier import Fit
from sagd.metrics.denoising import denoising_errors
from sagd.metrics.scores import score_difference
from sagd.networks.dit import DiTDH
from sagd.networks.unet import UNet2DModel, unet
from sagd.noise.devices import Keeps
from sagd.noise.grid import band_masks, band_means, radius, ring_means
from sagd.noise.randomness import generator
from sagd.noise.spectrum import posterior
from sagd.previews import grid, save_grid
from sagd.spaces.moments import field_distance, statistics
from sagd.spaces.pixels import Pixels, corrupted, from_uint8, to_uint8
from sagd.training.loop import train
from sagd.training.recipe import Recipe

SHAPE = (4, 1, 8, 8)
SCHEDULE = sagd.Schedule.linear()
NOISE = sagd.power_law((8, 8), -0.4)
VARYING = sagd.Varying(sagd.power_law((8, 8), -0.5), sagd.power_law((8, 8), 0.5), SCHEDULE.alpha_bar)
X0, EPS = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
STEPS, TIMES, LEVELS = (
    torch.tensor([0, 10, 500, 999]),
    torch.tensor([0.0, 0.2, 0.5, 1.0]),
    torch.tensor([0.1, 1, 2, 80]),
)
FORMULATIONS = {
    "eps": (sagd.Diffusion(SCHEDULE), STEPS),
    "v": (sagd.Diffusion(SCHEDULE, "v"), STEPS),
    "flow": (sagd.Flow(), TIMES),
    "edm": (sagd.EDM(), LEVELS),
}
IMAGES = torch.randint(0, 256, (16, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def network(x, t):
    return 0.3 * x


def refused(call, says="."):
    with pytest.raises(sagd.InputError, match=says) as failure:
        call()
    assert "\n" not in str(failure.value)


def flawed_examples(good):
    """x0, t and eps with something wrong in them, and what is said of it."""
    yield (X0 > 0, good, X0 > 0), "x0 is bool"
    yield (IMAGES[:4], good, EPS), "x0 is uint8; .* sagd.spaces.pixels.from_uint8"
    yield (X0.long(), good, EPS), "x0 is int64"
    yield (X0.to(torch.complex64), good, EPS), "x0 is complex64"
    yield (X0, good, EPS.long()), "eps is int64"
    yield (X0, good, EPS[:1]), r"\(1, 1, 8, 8\)"
    yield (X0, good, EPS[:, 0]), r"\(4, 8, 8\)"
    yield (X0.numpy(), good, EPS), "x0 is a ndarray"
    yield (X0, good[:2], EPS), r"t has the shape \(2,\)"
    yield (X0, good[:, None], EPS), r"t has the shape \(4, 1\)"
    yield (X0, 3, EPS), r"t has the shape \(\)"
    yield (X0, good.double().round().bool(), EPS), "t is bool|sigma is bool"


@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_loss_takes_floating_point_examples_that_are_alike(name):
    """Of a uint8 x0 the v loss was exactly 0; an eps of one image counted for all."""
    formulation, good = FORMULATIONS[name]
    assert torch.isfinite(formulation.loss(network, NOISE, X0, good, EPS))
    for eps in (EPS.half(), EPS):  # noise is drawn in float32, unless it is asked for otherwise
        assert torch.isfinite(formulation.loss(network, NOISE, X0.half(), good, eps))
    for example, says in flawed_examples(good):
        refused(lambda example=example: formulation.loss(network, NOISE, *example), says)
    if formulation.alpha_bar is not None:  # the same in the plain functions
        loss = {"eps": sagd.eps_loss, "v": sagd.v_loss}[formulation.prediction]
        for (x0, t, eps), says in flawed_examples(good):
            refused(lambda x0=x0, t=t, eps=eps, loss=loss: loss(network, SCHEDULE, x0, t, eps), says)


@pytest.mark.parametrize(
    ("name", "t"),
    [
        ("eps", [0, 1, 2, 1000]),
        ("v", [0, 1, 2, 1000]),
        ("eps", [-1, 1, 2, 3]),
        ("v", [-5, 1, 2, 3]),
        ("eps", [0.1, 0.2, 0.3, 0.4]),
        ("v", [0.1, 0.2, 0.3, 0.4]),
        ("flow", [0, 1, 500, 999]),
        ("flow", [0.0, 1.0, 500.0, 999.0]),
        ("flow", [-0.1, 0.1, 0.2, 0.3]),
        ("flow", [math.nan, 0.1, 0.2, 0.3]),
        ("edm", [0.0, 1.0, 1.0, 1.0]),
        ("edm", [-1.0, 1.0, 1.0, 1.0]),
        ("edm", [math.inf, 1.0, 1.0, 1.0]),
        ("edm", [1, 2, 3, 4]),
    ],
)
def test_a_loss_takes_times_in_their_range(name, t):
    formulation, _ = FORMULATIONS[name]
    refused(lambda: formulation.loss(network, NOISE, X0, torch.tensor(t), EPS), r"^(t|sigma) is ")


def test_drawn_times_are_in_the_range_that_losses_take():
    """`Flow.shifted` rounds: a shift below 1 may give a t a little above 1."""
    for shift in (0.02, 0.1, 0.3, 0.7, 3.0, 50.0):
        flow = sagd.Flow(shift=shift)
        ends = flow.shifted(torch.tensor([0.0, 1 - 2**-24, 1.0, 1.0]))
        assert torch.isfinite(flow.loss(network, NOISE, X0, ends, EPS))
        assert torch.isfinite(
            sagd.sample(network, flow, NOISE, sagd.Sampler("heun", 3), shape=SHAPE, generator=source()).sum()
        )


OUTPUTS = {
    "no channels": lambda x: x[:, 0],
    "one image": lambda x: x[:1],
    "one channel more": lambda x: torch.cat([x, x], 1),
    "one number": lambda x: x.mean(),
    "flat": lambda x: x.flatten(1),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_network_whose_output_has_another_shape_is_refused_wherever_it_is_called(output):
    """A (B, H, W) for (B, 1, H, W) was broadcast: a loss of 1.67 in place of 0.0005."""

    def other(x, t):
        return OUTPUTS[output](x)

    says = r"the network returns \(.*\) for x_t of \(\d, 1, 8, 8\)"
    for formulation, t in FORMULATIONS.values():
        refused(lambda f=formulation, t=t: f.loss(other, NOISE, X0, t, EPS), says)
        for name in ("ddim", "ddpm", "euler", "heun") if formulation.alpha_bar is not None else ("euler", "heun"):
            how = sagd.Sampler(name, 4)
            refused(
                lambda f=formulation, how=how: sagd.sample(other, f, NOISE, how, shape=SHAPE, generator=source()), says
            )
    diffusion = sagd.Diffusion(SCHEDULE)
    refused(lambda: denoising_errors(other, diffusion, NOISE, X0, generator=source()), says)
    refused(lambda: score_difference((network, NOISE), (other, NOISE), diffusion, X0, EPS, 500), says)
    refused(lambda: calibrate(other, diffusion, EPS, sagd.Sampler(steps=4)), says)
    refused(lambda: sagd.draw(Module(other), diffusion, NOISE, sagd.Sampler(steps=4), MOMENTS, n=4, seed=0), says)


class Module(nn.Module):
    """A network without weights, and without a configuration."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, t):
        return self.function(x, t)


MOMENTS = statistics(IMAGES.numpy())


def test_learned_variances_are_refused_in_words():
    refused(lambda: predicted(lambda x, t: torch.cat([x, x], 1), X0, STEPS), "learned variances are not supported")


@pytest.mark.parametrize("wrap", [lambda x: SimpleNamespace(sample=x), lambda x: (x,), lambda x: (x, None)])
def test_what_a_model_of_diffusers_returns_is_unpacked(wrap):
    def packed(x, t):
        return wrap(network(x, t))

    for formulation, t in FORMULATIONS.values():
        plain, found = (formulation.loss(predict, NOISE, X0, t, EPS) for predict in (network, packed))
        assert torch.equal(plain, found)
        how = sagd.Sampler("heun", 4)
        plain, found = (
            sagd.sample(predict, formulation, NOISE, how, shape=SHAPE, generator=source())
            for predict in (network, packed)
        )
        assert torch.equal(plain, found)


@pytest.mark.parametrize("output", [None, 3.0, {"sample": X0}, (), [X0], np.zeros(SHAPE), SimpleNamespace(sample=None)])
def test_an_output_that_is_no_tensor_is_refused(output):
    refused(lambda: sagd.eps_loss(lambda x, t: output, SCHEDULE, X0, STEPS, EPS), "the network returns a")


GAMMA = torch.tensor([-1.0, 1.0]), torch.zeros(2, len(ring_means(radius((8, 8)))))
DIT = functools.partial(DiTDH, 8, 1, 2, (16, 32), (1, 1), (2, 4))
NUMBERS = {
    "alpha": lambda v: sagd.power_law((8, 8), v),
    "beta": lambda v: sagd.exponential((8, 8), v),
    "gain": lambda v: sagd.isotropic((8, 8), v),
    "strength": lambda v: sagd.offset((8, 8), v),
    "discount": lambda v: sagd.pyramid((8, 8), discount=v),
    "gamma_low": lambda v: sagd.two_band((8, 8), v),
    "low": lambda v: sagd.band_pass((8, 8), (v, 0.5)),
    "eta": lambda v: sagd.Sampler(eta=v),
    "eta of a step": lambda v: sagd.ddim_step(SCHEDULE, X0, 5, 4, EPS, eta=v, noise=EPS),
    "shift": lambda v: sagd.Flow(shift=v),
    "beta_end": lambda v: sagd.Schedule.linear(10, 1e-4, v),
    "gamma": lambda v: sagd.Corruption(NOISE, v),
    "divider": lambda v: ColoredNoise((8, 8), *GAMMA, divider=v),
    "lr of Fit": lambda v: Fit(lr=v),
    "mlp_ratio": lambda v: DIT(mlp_ratio=v),
    "power": lambda v: oracle.finite(X0, v),
    "betas": lambda v: Recipe(1, 1, betas=(0.9, v)),
    **{k: lambda v, k=k: sagd.EDM(**{k: v}) for k in ("sigma_data", "log_mean", "log_std", "sigma_min", "rho")},
    **{
        k: lambda v, k=k: Recipe(1, 1, **{k: v})
        for k in ("lr", "lr_last", "weight_decay", "ema", "label_dropout", "clip_norm")
    },
}
WHOLE = {
    "steps": lambda v: sagd.Sampler(steps=v),
    "timesteps": SCHEDULE.timesteps,
    "steps of a schedule": lambda v: sagd.Schedule.linear(v),
    "steps of a grid": lambda v: sagd.EDM().grid(v),
    "a side": lambda v: sagd.isotropic((8, v)),
    "a side of a draw": lambda v: NOISE.sample((v, 8, 8), generator=None),
    "times": lambda v: sagd.Flow().draw_times(v, generator=source()),
    "iterations": lambda v: sagd.pyramid((8, 8), v),
    "n": lambda v: sagd.draw(Module(network), sagd.Flow(), NOISE, sagd.Sampler("euler", 2), MOMENTS, n=v, seed=0),
    "points": lambda v: oracle.finite(X0).sample(v, generator=source()),
    "columns": lambda v: grid(IMAGES.numpy(), v),
    "block": lambda v: statistics(IMAGES.numpy(), v),
    "classes": lambda v: unet((8, 8), 1, [8], 1, [False], 4, classes=v),
    "num_class_embeds": lambda v: UNet2DModel(num_class_embeds=v),
    **{k: lambda v, k=k: Recipe(**{"steps": 1, "batch_size": 1, k: v}) for k in ("steps", "batch_size", "warmup")},
    **{f"{k} of Fit": lambda v, k=k: Fit(**{k: v}) for k in ("features", "epochs", "batch_size")},
}


@pytest.mark.parametrize("value", [True, "1", (), math.nan, np.ones(2), torch.ones(2)], ids=str)
@pytest.mark.parametrize("name", {**NUMBERS, **{f"whole {name}": call for name, call in WHOLE.items()}})
def test_what_is_no_number_is_refused(name, value):
    call = WHOLE[name.removeprefix("whole ")] if name.startswith("whole ") else NUMBERS[name]
    refused(lambda: call(value))


@pytest.mark.parametrize("name", WHOLE)
def test_a_count_is_whole_and_not_below_nothing(name):
    """Half a step ended in a traceback of `range`."""
    for value in (-1, 2.5, 8.0):
        refused(lambda value=value: WHOLE[name](value))


@pytest.mark.parametrize(
    "call",
    [
        lambda: sagd.Sampler(clip="off"),
        lambda: sagd.Sampler(eta=1.1),
        lambda: sagd.Flow(shift=0),
        lambda: sagd.EDM(sigma_data=0),
        lambda: Recipe(1, 1, clip_norm=-1),
        lambda: Recipe(1, 1, clip_norm=0),
        lambda: Recipe(1, 1, lr=0),
        lambda: Recipe(1, 1, lr=-1e-3),
        lambda: Recipe(1, 1, lr_last=-1e-3),
        lambda: Recipe(1, 1, weight_decay=-1),
        lambda: Recipe(1, 1, ema=1.5),
        lambda: Recipe(1, 1, betas=(0.9, 1.0)),
        lambda: Recipe(1, 1, betas=(-0.1, 0.9)),
        lambda: Recipe(1, 1, betas=0.9),
        lambda: Recipe(1, 1, label_dropout=-0.1),
        lambda: Recipe(1, 1, flip="off"),
        lambda: Recipe(1, 1, micro_batch_size=0),
        lambda: sagd.Corruption(NOISE, -1.0),
        lambda: sagd.Corruption(NOISE, filtered="no"),
        lambda: sagd.Corruption("band_pass"),
        lambda: sagd.Spectrum(torch.ones(8, 8), per_sample="sample"),
        lambda: sagd.Spectrum("white"),
        lambda: sagd.Spectrum(torch.ones(8, 8, dtype=torch.complex64)),
        lambda: sagd.Spectrum(torch.ones(0, 8)),
        lambda: sagd.Diffusion("linear"),
        lambda: sagd.Varying(VARYING.first, VARYING.last, torch.tensor([0.5, 0.9])),
        lambda: sagd.Varying(VARYING.first.weight, VARYING.last, SCHEDULE.alpha_bar),
        lambda: sagd.isotropic("88"),
        lambda: sagd.band_pass((8, 8), 0.5),
        lambda: sagd.band_pass((8, 8), ("0", "1")),
        lambda: sagd.isotropic((8, 8)).sample((2, 8, 8), generator=0),
        lambda: sagd.isotropic((8, 8)).sample((2, 8, 8), generator=[source(), 1]),
        lambda: sagd.isotropic((8, 8)).sample(8, generator=None),
        lambda: sagd.isotropic((8, 8)).sample((2, 8, 8), generator=None, dtype=torch.uint8),
        lambda: VARYING.sample((2, 8, 8), generator=0, t=3),
        lambda: sagd.sample(network, sagd.Flow(), NOISE, sagd.Sampler("euler"), shape=SHAPE, generator=None),
        lambda: sagd.sample(network, sagd.Flow(), NOISE, sagd.Sampler("euler"), shape=SHAPE, generator=[source()]),
        lambda: sagd.sample(network, sagd.Flow(), NOISE, "euler", shape=SHAPE, generator=source()),
        lambda: sagd.sample(network, sagd.Flow(), NOISE.weight, sagd.Sampler("euler"), shape=SHAPE, generator=source()),
        lambda: noise_sampler(NOISE, X0.long()),
        lambda: noise_sampler(NOISE, X0, generator=0),
        lambda: noise_sampler(ColoredNoise((8, 8), *GAMMA), X0)(torch.zeros(()), torch.zeros(())),
    ],
)
def test_what_means_nothing_is_refused(call):
    refused(call)


@pytest.mark.parametrize("operation", ["sqrt", "covariance", "inverse", "project", "shape"])
def test_noise_shapes_floating_point_alone(operation):
    """The root of uint8 wrapped around; of complex numbers the imaginary part was lost."""
    for noise in (NOISE, sagd.isotropic((8, 8))):
        for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
            refused(lambda n=noise, dtype=dtype: getattr(n, operation)(torch.ones(SHAPE).to(dtype)), "x is")
        assert getattr(noise, operation)(X0.bfloat16()).dtype == torch.bfloat16


def test_images_are_scaled_once():
    """Floating-point images in [-1, 1] were divided by 127.5 again, so that all data were about -1."""
    x = from_uint8(IMAGES.numpy())
    for call in (
        lambda: Pixels(x),
        lambda: Pixels(IMAGES[0]),
        lambda: Pixels(IMAGES, np.zeros(3, dtype=np.int64)),
        lambda: Pixels(IMAGES, np.zeros(16)),
        lambda: Pixels(IMAGES, np.full(16, -1)),
        lambda: Pixels(IMAGES, np.full(16, 2**64 - 1, dtype=np.uint64)),
        lambda: save_grid("never.png", IMAGES[:0].numpy(), 4),
        lambda: save_grid("never.png", IMAGES.expand(16, 2, 8, 8).numpy(), 4),
        lambda: from_uint8(x.numpy()),
        lambda: from_uint8(IMAGES.numpy().astype(np.int64)),
        lambda: to_uint8(IMAGES),
        lambda: corrupted(x.numpy(), sagd.Corruption(NOISE), source()),
        lambda: sagd.Corruption(NOISE)(IMAGES, source()),
        lambda: sagd.Corruption(NOISE, filtered=True)(IMAGES, source()),
        lambda: statistics(x.numpy()),
        lambda: statistics(IMAGES[:0].numpy()),
        lambda: grid(x.numpy(), 4),
        lambda: oracle.finite(IMAGES),
    ):
        refused(call)
    assert torch.equal(to_uint8(x), IMAGES)


def test_a_step_leads_from_t_to_an_earlier_one():
    """With t_prev above t the deviation of a step was the root of a negative number, which is complex."""
    for t, t_prev in ((500, 500), (500, 600), (1000, 10), (-1, -2), (5, -2), (5.0, 4), (500, 4.5), (True, 0)):
        refused(lambda t=t, s=t_prev: sagd.ddim_step(SCHEDULE, X0, t, s, EPS), "^t(_prev)? is")
        refused(lambda t=t, s=t_prev: sagd.ddpm_step(SCHEDULE, X0, t, s, EPS, noise=EPS), "^t(_prev)? is")
        refused(lambda t=t, s=t_prev: sagd.euler_step(SCHEDULE, X0, t, s, EPS), "^t(_prev)? is")
        refused(lambda t=t, s=t_prev: VARYING.between(t, s), "^t(_prev)? is")
    refused(lambda: posterior(X0, X0, 0.9, 0.5), "alpha_bar_prev is 0.5")
    refused(lambda: NOISE.posterior(X0, X0, 5, 4, 0.5, 1.5, EPS), "alpha_bar_prev is 1.5")
    refused(lambda: sagd.ddim_step(SCHEDULE, X0, 5, 4, EPS[:, 0]), "shape")
    refused(lambda: sagd.ddpm_step(SCHEDULE, X0, 5, 4, EPS, noise=EPS[:, 0]), "shape")


def test_steps_and_times_are_in_range_wherever_they_are_given():
    few = sagd.Varying(VARYING.first, VARYING.last, sagd.Schedule.linear(50).alpha_bar)
    terminal, flow, edm, field = sagd.Schedule.zero_terminal_snr(), sagd.Flow(), sagd.EDM(), oracle.finite(X0, 1.0)
    t = torch.tensor([-5, 1, 2, 3])
    for call in (
        lambda: SCHEDULE.q_sample(X0, -5, EPS),
        lambda: SCHEDULE.q_sample(X0, t, EPS),
        lambda: SCHEDULE.q_sample(X0, 1000, EPS),
        lambda: SCHEDULE.q_sample(X0, 0.5, EPS),
        lambda: SCHEDULE.q_sample(X0, t[:3], EPS),
        lambda: SCHEDULE.x0_and_eps(X0, t, EPS),
        lambda: SCHEDULE.eps_from_x0(X0, -1, X0),
        lambda: terminal.x0_from_eps(X0, 999, EPS),
        lambda: sagd.euler_step(terminal, X0, 999, 900, EPS),
        lambda: few.at(995),
        lambda: few.at(-1),
        lambda: few.at(0.5),
        lambda: few.shape(EPS, 995),
        lambda: few.sample(SHAPE, generator=source(), t=995),
        lambda: few.sample(SHAPE, generator=source(), t=torch.tensor([0, 1, 2, 50])),
        lambda: few.sample(SHAPE, generator=source(), t=torch.tensor([0.0, 0.1, 0.2, 0.3])),
        lambda: flow.interpolate(X0, 1000 * TIMES, EPS),
        lambda: flow.x0_and_eps(X0, 1000 * TIMES, EPS),
        lambda: flow.score_from_velocity(NOISE, X0, TIMES, EPS),  # at t = 0 there is no noise
        lambda: flow.velocity_from_score(NOISE, X0, TIMES, EPS),  # at t = 1 no data
        lambda: edm.denoise(network, X0, -LEVELS),
        lambda: edm.score_from_denoised(NOISE, X0, 0.0, X0),
        lambda: edm.denoised_from_score(NOISE, X0, 0 * LEVELS, X0),
        lambda: sagd.start_from_marginal(SCHEDULE, NOISE, 1000, MOMENTS["mean"], MOMENTS["power"], X0),
        lambda: sagd.start_from_marginal(SCHEDULE, NOISE, 980, MOMENTS["mean"][0], MOMENTS["power"], X0),
        lambda: field.predict(SCHEDULE, NOISE)(X0, TIMES[1:2]),
        lambda: field.predict(SCHEDULE, NOISE)(X0, t[:2]),
        lambda: field.velocity(NOISE)(X0, 0 * TIMES),
        lambda: field.denoised(X0, 0.0, NOISE),
        lambda: field.log_density(X0, 1000, SCHEDULE, NOISE),
        lambda: oracle.snr(torch.ones(8, 8), SCHEDULE, NOISE, [-1]),
        lambda: oracle.snr(torch.ones(8, 8), SCHEDULE, NOISE, torch.tensor([0.5])),
    ):
        refused(call)
    clean = SCHEDULE.q_sample(X0, torch.tensor([-1, 0, 0, 0]), EPS)
    assert torch.equal(clean[0], X0[0])  # -1 stands for clean data


def test_checks_of_values_wait_for_no_device_and_need_no_values():
    """On an accelerator, in a trace and under vmap the values of t are not looked at; a meta tensor has none at all."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(SHAPE)
        assert sagd.Flow().loss(network, NOISE, x, torch.empty(4), x, project=False).shape == ()
        assert sagd.EDM().loss(network, NOISE, x, torch.empty(4), x, project=False).shape == ()
    x = torch.empty(SHAPE, device="meta")
    assert sagd.Flow().loss(network, NOISE, x, torch.empty(4, device="meta"), x, project=False).shape == ()

    def one(x0, t, eps):
        return sagd.eps_loss(network, SCHEDULE, x0[None], t[None], eps[None])

    assert torch.func.vmap(one)(X0, STEPS, EPS).mean().item() == pytest.approx(
        sagd.eps_loss(network, SCHEDULE, X0, STEPS, EPS).item()
    )


@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_whole_loss_is_one_graph(name):
    formulation, t = FORMULATIONS[name]

    def loss(x0, t, eps):
        return formulation.loss(network, NOISE, x0, t, eps, project=False)

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert torch.equal(compiled(X0, t, EPS), loss(X0, t, EPS))


def test_a_sequence_of_generators_gives_one_to_each_sample():
    """So a sample does not depend on what is drawn beside it."""
    how, diffusion = sagd.Sampler("ddpm", 5), sagd.Diffusion(SCHEDULE)
    draw = functools.partial(sagd.sample, network, diffusion, NOISE, how)
    both = draw(shape=(2, 1, 8, 8), generator=[source(1), source(2)])
    alone = draw(shape=(1, 1, 8, 8), generator=[source(2)])
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[0], both[1])


def test_a_network_without_weights_is_sampled():
    found = sagd.draw(Module(network), sagd.Flow(), NOISE, sagd.Sampler("euler", 2), MOMENTS, n=3, seed=0)
    assert found.shape == (3, 1, 8, 8)
    module = Module(network)
    module.config = {}
    refused(
        lambda: train(module, Pixels(IMAGES), NOISE, sagd.Flow(), Recipe(1, 4), seed=0),
        "no weights that can be trained",
    )


def networks():
    """Of both kinds, with small random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = {"unet": unet((8, 8), 1, [8, 8], 1, [False, True], 4), "dit": DIT(num_classes=0)}
        for p in found["dit"].parameters():
            p.data.add_(0.05 * torch.randn(p.shape, dtype=torch.float32))
    return {name: each.eval().requires_grad_(False) for name, each in found.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_networks_of_half_precision_give_samples_of_single_precision(kind, dtype):
    plain = networks()[kind]
    half = copy.deepcopy(plain).to(dtype)
    for formulation, _ in FORMULATIONS.values():
        how = sagd.Sampler("heun", 3)
        full, found = (
            sagd.sample(predict, formulation, NOISE, how, shape=SHAPE, generator=source()) for predict in (plain, half)
        )
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, full, rtol=0.1, atol=0.05 * full.abs().max().item())


def everything(nets):
    """A bit of all that makes numbers: losses, samplers, operators, a training, statistics, measurements."""
    found = {}
    for name, (formulation, _) in FORMULATIONS.items():
        t = formulation.draw_times(4, generator=source(1))
        eps = NOISE.sample(SHAPE, generator=source(2), t=t)
        found[f"times {name}"] = t
        for kind, net in nets.items():
            found[f"loss {name} {kind}"] = formulation.loss(net, NOISE, X0, t, eps)
            found[f"heun {name} {kind}"] = sagd.sample(
                net, formulation, NOISE, sagd.Sampler("heun", 3), shape=SHAPE, generator=source(3)
            )
    found["log_normal"] = sagd.Diffusion(SCHEDULE, times="log_normal").draw_times(9, generator=source())
    for sampler in (sagd.Sampler("ddpm", 3), sagd.Sampler("ddim", 3, start="marginal", spacing="trailing")):
        how = sagd.Diffusion(SCHEDULE), NOISE, sampler, MOMENTS
        found[sampler.name] = sagd.draw(nets["unet"], *how, n=3, seed=0, batch_size=2)
    for name, make in {"pyramid": sagd.pyramid, "offset": sagd.offset, "exponential": sagd.exponential}.items():
        found[name] = make((8, 6)).weight
    found["power_law"] = sagd.power_law((8, 8), -0.4).weight
    found["two_band"] = sagd.two_band((8, 8), 0.4, (0, 0.3), (0.5, 1)).weight
    found["varying"] = VARYING.sample(SHAPE, generator=source(), t=STEPS)
    found |= statistics(IMAGES.numpy())
    found["pixels"] = from_uint8(IMAGES.numpy())
    found["corrupted"] = sagd.Corruption(sagd.band_pass((8, 8), (0.3, 0.5)), 0.5)(found["pixels"], source())
    diffusion = sagd.Diffusion(SCHEDULE)
    found["denoising"] = denoising_errors(nets["unet"], diffusion, NOISE, found["pixels"], generator=source())
    found["scores"] = torch.tensor(
        score_difference((nets["unet"], NOISE), (nets["dit"], NOISE), diffusion, X0, EPS, 500), dtype=torch.float64
    )
    found["gamma"] = calibrate(nets["unet"], diffusion, EPS, sagd.Sampler(steps=4)).gamma
    field = oracle.gaussian_field(MOMENTS["mean"], MOMENTS["power"])
    found["oracle"] = field.predict(SCHEDULE, NOISE)(X0, STEPS)
    found["drawn"] = oracle.drawn(field, diffusion, NOISE, sagd.Sampler(steps=5)).power
    for kind, formulation in (("unet", diffusion), ("dit", sagd.EDM())):
        net = copy.deepcopy(nets[kind]).requires_grad_(True)
        recipe = Recipe(2, 8, warmup=1, precision="fp32", flip=True, micro_batch_size=3, optimizer="muon")
        trained = train(net, Pixels(IMAGES), NOISE, formulation, recipe, seed=0)
        found |= {f"{kind} {name}": weight for name, weight in trained.weights.items()}
        found[f"losses {kind}"] = trained.losses
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_nothing_depends_on_the_default_dtype(dtype):
    """Flow and EDM handed the network 668 for 666.7 where the default was bfloat16."""
    nets = networks()
    plain = everything(nets)
    torch.set_default_dtype(dtype)
    try:
        found = everything(nets)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, tensor in plain.items():
        assert found[name].dtype == tensor.dtype, name
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def test_no_cache_grows_with_every_call():
    for t in range(3):
        assert VARYING.at(torch.tensor(t)) is VARYING.at(np.int64(t)) is VARYING.at(t)
    few = sagd.Varying(VARYING.first, VARYING.last, sagd.Schedule.linear(6).alpha_bar)
    for t in range(6):
        for t_prev in range(t):
            assert few.between(t, t_prev).weight.equal(few.between(torch.tensor(t), torch.tensor(t_prev)).weight)

    def kept(noise, method):
        return len([name for name in vars(noise) if name.startswith(f"_kept_{method}")])

    assert 3 <= kept(VARYING, "_gathered") <= len(VARYING.weights) and kept(few, "_ratio") == 15


def from_marginal(mean, power, shape=SHAPE):
    data, how = {"mean": mean, "power": power}, sagd.Sampler(steps=5, start="marginal")
    return sagd.sample(network, sagd.Diffusion(SCHEDULE), NOISE, how, shape=shape, generator=source(), data=data)


ONE, THREE, ASKEW = torch.ones(1, 8, 8), torch.ones(3, 8, 8), torch.ones(1, 8, 8)
ASKEW[0, 0, 1] = 3
NO_MOMENTS = {
    "more channels": (THREE, THREE),
    "two shapes": (ONE, THREE),
    "whole numbers": (ONE, ONE.byte()),
    "complex": (ONE, ONE + 0j),
    "negative": (ONE, -ONE),
    "nan": (math.nan * ONE, ONE),
    "infinite": (ONE, math.inf * ONE),
    "other at -f": (ONE, ASKEW),
    "an array": (ONE.numpy(), ONE.numpy()),
}


@pytest.mark.parametrize("which", NO_MOMENTS)
def test_moments_that_no_data_of_this_shape_have_are_refused_wherever_they_are_given(which):
    """A mean image of three channels made (2, 3, 8, 8) of white noise (2, 1, 8, 8); grey ones spread over colours."""
    mean, power = NO_MOMENTS[which]
    refused(lambda: from_marginal(mean, power))
    refused(lambda: field_distance({"mean": mean, "power": power}, {"mean": ONE, "power": ONE}))
    if which != "more channels":
        refused(lambda: sagd.Corruption(NOISE).moments(mean, power))
        refused(lambda: oracle.gaussian_field(mean, power))
    if which not in ("more channels", "two shapes", "nan", "other at -f"):
        refused(lambda: oracle.snr(power, SCHEDULE, NOISE, [1]))
        refused(lambda: oracle.band_table(power))
    refused(lambda: from_marginal(ONE, ONE, (2, 3, 8, 8)))
    assert from_marginal(ONE, ONE).shape == SHAPE


def test_each_image_of_a_step_has_noise_of_its_own():
    """Of one image's noise for a batch, or one x_t for several predictions, a step made what nobody asked for."""
    diffusion, one = sagd.Diffusion(SCHEDULE), X0[:1]
    for call in (
        lambda: diffusion.sample(network, NOISE, X0, sagd.Sampler("ddpm", 5), white=lambda: one),
        lambda: diffusion.sample(network, NOISE, X0, sagd.Sampler("ddim", 5, eta=0.5), white=lambda: one),
        lambda: diffusion.sample(network, VARYING, X0, sagd.Sampler("ddpm", 5), white=lambda: one),
        lambda: sagd.ddpm_step(SCHEDULE, X0, 500, 480, EPS, noise=one),
        lambda: sagd.ddim_step(SCHEDULE, X0, 500, 480, EPS, eta=0.5, noise=one),
        lambda: sagd.ddpm_step(SCHEDULE, one, 500, 480, EPS, noise=one),
        lambda: sagd.ddim_step(SCHEDULE, one, 500, 480, EPS),
        lambda: sagd.euler_step(SCHEDULE, one, 500, 480, EPS),
        lambda: NOISE.posterior(one, one, 500, 480, 0.1, 0.12, X0[:3]),
        lambda: VARYING.posterior(one, one, 500, 480, 0.1, 0.12, X0[:3]),
        lambda: VARYING.posterior(one, X0, 500, 480, 0.1, 0.12, one),
        lambda: noise_sampler(NOISE, X0, white=lambda sigma, after: one)(1, 0),
        lambda: noise_sampler(NOISE, X0, white=lambda sigma, after: X0.double())(1, 0),
        lambda: sagd.Corruption(NOISE)(X0[:3], source(), slice(0, 1), 4),
        lambda: sagd.Corruption(NOISE)(X0, source(), None, 1),
    ):
        refused(call)


def test_one_example_may_stand_for_all_where_nothing_is_drawn():
    for x0, eps in ((X0[:1], EPS), (X0, EPS[:1])):
        each = [SCHEDULE.q_sample(x0[k % len(x0)][None], int(t), eps[k % len(eps)][None]) for k, t in enumerate(STEPS)]
        torch.testing.assert_close(SCHEDULE.q_sample(x0, STEPS, eps), torch.cat(each))
        assert sagd.Flow().interpolate(x0, TIMES, eps).shape == SHAPE
        assert SCHEDULE.x0_from_eps(x0, 500, eps).shape == SCHEDULE.eps_from_x0(eps, 500, x0).shape == SHAPE
    assert sagd.ddim_step(SCHEDULE, X0, 500, 480, EPS[:1]).shape == SHAPE


def sampled(predict=network, formulation=None, sampler=None, **more):
    formulation = formulation or sagd.Diffusion(SCHEDULE)
    return sagd.sample(predict, formulation, NOISE, sampler, shape=SHAPE, generator=source(), **more)


def trained(**other):
    given = {"network": networks()["unet"], "source": Pixels(IMAGES), "noise": NOISE, "formulation": sagd.Flow()}
    return train(**given | {"recipe": Recipe(1, 4), "seed": 0} | other)


MARGINAL = sagd.Sampler(steps=5, start="marginal")
FIELD = oracle.gaussian_field(MOMENTS["mean"], MOMENTS["power"])
SMALL = sagd.isotropic((4, 4))
WRONG = {
    "entering at 999 of 50": lambda: sagd.Varying(NOISE, NOISE, sagd.Schedule.linear(50).alpha_bar).entering(999),
    "entering at 2.5": lambda: VARYING.entering(2.5),
    "transfer to -5": lambda: VARYING.transfer(EPS, 5, -5),
    "posterior at -5": lambda: VARYING.posterior(X0, X0, 5, -5, 0.1, 0.2, EPS),
    "velocity at 5": lambda: FIELD.velocity(NOISE)(X0, torch.tensor(5000.0)),
    "dimension_shift of nan": lambda: dimension_shift((3, 8, 8), math.nan),
    "dimension_shift of a number": lambda: dimension_shift(5),
    "dimension_shift of less than nothing": lambda: dimension_shift((-1, 8, 8)),
    "10^9 steps": lambda: sagd.Sampler("euler", 10**9),
    "10^400 steps": lambda: sagd.Sampler("euler", 10**400),
    "a grid of 10^9 steps": lambda: sagd.Flow().grid(10**9),
    "levels of 10^9 steps": lambda: sagd.EDM().grid(10**9),
    "two devices": lambda: SCHEDULE.q_sample(X0, 5, EPS.to("meta")),
    "a loss on two devices": lambda: sagd.Flow().loss(network, NOISE, X0, TIMES, EPS.to("meta")),
    "no axes": lambda: SCHEDULE.q_sample(torch.tensor(1.0), 5, torch.tensor(1.0)),
    "no axes in a flow": lambda: sagd.Flow().interpolate(torch.tensor(1.0), 0.5, torch.tensor(1.0)),
    "a name for a formulation": lambda: sampled(formulation="eps", sampler=sagd.Sampler()),
    "a schedule for a formulation": lambda: sampled(formulation=SCHEDULE, sampler=sagd.Sampler()),
    "no sampler": lambda: sampled(),
    "a name for a network": lambda: sampled("net", sampler=sagd.Sampler()),
    "no data": lambda: sampled(sampler=MARGINAL, data={}),
    "no power": lambda: sampled(sampler=MARGINAL, data={"mean": ONE}),
    "arrays": lambda: sampled(sampler=MARGINAL, data={"mean": ONE.numpy(), "power": ONE.numpy()}),
    "a function drawn with": lambda: sagd.draw(network, sagd.Flow(), NOISE, sagd.Sampler("heun"), MOMENTS, n=1, seed=0),
    "nothing to draw": lambda: sagd.draw(Module(network), sagd.Flow(), NOISE, sagd.Sampler("heun"), None, n=1, seed=0),
    "trained on a tensor": lambda: trained(source=X0),
    "trained on colours": lambda: trained(source=Pixels(IMAGES.repeat(1, 3, 1, 1))),
    "trained without weights": lambda: trained(network=network),
    **{
        f"trained with {k}": lambda k=k: trained(**{k: "x"})
        for k in ("formulation", "recipe", "corruption", "snapshots")
    },
    "snapshots of a word": lambda: trained(snapshots="x"),
    "snapshots of words": lambda: trained(snapshots=["x"]),
    "calibrated by a name": lambda: calibrate(network, sagd.Diffusion(SCHEDULE), EPS, "ddim"),
    "calibrated for a flow": lambda: calibrate(network, sagd.Flow(), EPS, sagd.Sampler()),
    "calibrated for a list": lambda: calibrate(network, sagd.Diffusion(SCHEDULE), EPS, sagd.Sampler(), labels=[0] * 4),
    "colored noise of size 8": lambda: ColoredNoise(8, *GAMMA),
    **{
        f"times of {name}, {type(drawn).__name__}": lambda f=formulation, drawn=drawn: f.draw_times(4, generator=drawn)
        for name, (formulation, _) in FORMULATIONS.items()
        for drawn in (0, [source()])
    },
    "points of no generator": lambda: FIELD.sample(3, generator=0),
    "half a step": lambda: FIELD.predict(SCHEDULE, NOISE)(X0, 5.5),
    "x_t of another size": lambda: FIELD.predict(SCHEDULE, NOISE)(X0[..., :4], torch.tensor(5)),
    "noise of another size": lambda: FIELD.predict(SCHEDULE, SMALL)(X0, torch.tensor(5)),
    "drawn with another size": lambda: oracle.drawn(FIELD, sagd.Diffusion(SCHEDULE), SMALL, sagd.Sampler(steps=5)),
    "density of colours": lambda: FIELD.log_density(X0.repeat(1, 3, 1, 1), 5, SCHEDULE, NOISE),
    "density of uint8": lambda: FIELD.log_density(IMAGES, 5, SCHEDULE, NOISE),
    "denoised uint8": lambda: FIELD.denoised(IMAGES, 0.3, NOISE),
    "no images": lambda: oracle.finite(X0[:0]),
    "images of one axis": lambda: oracle.finite(X0[0, 0, 0]),
    "a weight of 10^400": lambda: sagd.Spectrum(10**400),
    "rings of a line": lambda: ring_means(torch.ones(8)),
    "bands of another size": lambda: band_means(torch.ones(4, 16), band_masks((8, 8))),
    "five for bands": lambda: band_masks((8, 8), 5),
    "statistics of a list": lambda: statistics([1, 2]),
    "zero for alphas": lambda: oracle.suggest(ONE, ONE, sagd.Diffusion(SCHEDULE), sagd.Sampler(), alphas=0),
    "no alphas": lambda: oracle.suggest(ONE, ONE, sagd.Diffusion(SCHEDULE), sagd.Sampler(), alphas=[]),
    "rows in reverse": lambda: NOISE.sample((4, 8, 8), generator=source(), rows=slice(None, None, -1)),
    "rows that are not there": lambda: NOISE.sample((2, 8, 8), generator=[source()] * 2, rows=slice(5, 9)),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_has_no_sense_there_is_refused(which):
    refused(WRONG[which])


def test_a_schedule_of_more_steps_than_float64_holds_says_so():
    refused(lambda: sagd.Schedule.linear(10**5), "steps is 100,000; .* after about 70,016")
    assert len(sagd.Schedule.linear(70_000)) == 70_000


def test_a_schedule_keeps_numbers_of_its_own():
    theirs = SCHEDULE.alpha_bar.clone()
    schedule = sagd.Schedule(theirs)
    theirs.mul_(0.5)
    assert schedule.alpha_bar.equal(SCHEDULE.alpha_bar)


def test_a_network_of_edm_is_given_one_time_for_each_example():
    """0.3 as a plain number: its time was rounded to the default dtype, and of no axes."""
    seen = []
    torch.set_default_dtype(torch.bfloat16)
    try:
        for sigma in (0.3, *(torch.tensor(each, dtype=torch.float32) for each in (0.3, [0.3], [0.3] * 4))):
            sagd.EDM().denoise(lambda x, t: seen.append(t) or x, X0, sigma)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(t.shape == (4,) and t.equal(seen[-1]) for t in seen)


def test_plain_numbers_and_numbers_of_numpy_do_as_tensors():
    predict = FIELD.predict(SCHEDULE, NOISE)
    assert predict(X0, 5).equal(predict(X0, torch.tensor(5)))
    assert generator(0, "x", np.int64(3)).initial_seed() == generator(0, "x", 3).initial_seed()
    assert Pixels(IMAGES[:0], np.zeros(0, dtype=np.int64)).classes == 0


def test_corrupted_images_keep_their_precision():
    for filtered in (False, True):
        assert sagd.Corruption(NOISE, filtered=filtered)(X0.half(), source()).dtype == torch.float16


def test_what_is_kept_outlives_that_other_threads_put_it_away():
    """Eight threads at once put away each other's: a KeyError, or an attribute that was gone."""

    class Squares(Keeps):
        _most = 4

        def _square(self, k):
            return k * k

    squares, wanted = Squares(), [k % 9 for k in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: squares._kept("_square", k), wanted)) == [k * k for k in wanted]
    assert len(squares._names) == len([name for name in vars(squares) if name.startswith("_kept")]) == 4


def test_fewer_spectra_of_large_images_are_kept():
    large = ColoredNoise((8, 8), *GAMMA)
    assert large._most == 1000
    object.__setattr__(large, "size", (1024, 1024))
    assert large._most == 64
