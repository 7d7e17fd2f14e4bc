"""The library on a device that is not the CPU; `test_accelerator` runs these tests in a process of their own."""

import contextlib

import pytest
import torch

import sagd
from sagd.colored import Colored, ColoredNoise, calibrate
from sagd.metrics.denoising import denoising_errors
from sagd.metrics.scores import score_difference
from sagd.networks.unet import unet
from sagd.noise.corruption import Corruption
from sagd.noise.grid import band_masks, band_means, radius, ring_means
from sagd.noise.randomness import generator
from sagd.oracle.targets import finite, gaussian_field
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe
from tests.accelerator import WAITS, without_float64

SIZE = (8, 8)
SHAPE = (3, 1, *SIZE)
LINEAR = sagd.Schedule.linear()
DIFFUSIONS = {
    "eps": sagd.Diffusion(LINEAR),
    "v, log-normal": sagd.Diffusion(sagd.Schedule.zero_terminal_snr(), "v", "log_normal"),
}
FORMULATIONS = {**DIFFUSIONS, "flow": sagd.Flow("logit_normal", 2.0), "edm": sagd.EDM()}
NOISES = {
    "white": sagd.isotropic(SIZE),
    "shaped": sagd.power_law(SIZE, -0.4),
    "partial": sagd.two_band(SIZE, 0.5, (0.0, 0.4), (0.6, 1.0)),
    "varying": sagd.Varying(sagd.power_law(SIZE, -0.4), sagd.isotropic(SIZE), LINEAR.alpha_bar),
}
BAND = sagd.band_pass(SIZE, (0.4, 0.6))
POWER = 1 / (0.05 + radius(SIZE)[None] ** 2)
MOMENTS = {"mean": torch.full((1, *SIZE), 0.1, dtype=torch.float64), "power": POWER}
IMAGES = torch.randint(0, 256, (24, 1, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["float64", "no float64"], autouse=True)
def precision(request):
    """Every test with float64 on the device, and without."""
    with without_float64() if request.param == "no float64" else contextlib.nullcontext():
        yield


def network(x, t):
    return (x.sin() + 0.3 * x.roll(1, -1)) * (1 + t.reshape(-1, 1, 1, 1) / 1000)


def waits(work):
    """What work gives, and how often it waited."""
    WAITS.clear()
    return work(), len(WAITS)


def same(found, wanted, **tolerance):
    assert found.device.type == "emu"
    torch.testing.assert_close(found.cpu(), wanted, **tolerance)


@pytest.mark.parametrize("name", ["sqrt", "covariance", "inverse", "project", "shape"])
def test_operators(name):
    for noise in (NOISES["shaped"], NOISES["partial"], sagd.exponential(SIZE, 100.0)):
        same(getattr(noise, name)(X.to("emu")), getattr(noise, name)(X))


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_is_drawn_where_the_generator_is(noise):
    t = torch.tensor([10, 500, 990])

    def draw(source, **where):
        return noise.sample(SHAPE, generator=torch.Generator(source).manual_seed(0), t=t, **where)

    same(draw("emu"), draw("cpu"))
    same(draw("cpu", device="emu"), draw("cpu"))


@pytest.mark.parametrize(
    ("of", "optimizer"), [("eps", "adamw"), ("v, log-normal", "muon"), ("flow", "adamw"), ("edm", "adamw")]
)
def test_training(of, optimizer):
    """With corruption and labels; waits do not grow with the steps, but for what reads a loss."""

    def run(device, steps):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = unet(SIZE, 1, [8], 1, [False], 4, classes=3)
        source = Pixels(IMAGES.to(device), (torch.arange(24) % 3).numpy())
        recipe = Recipe(steps, 4, warmup=1, optimizer=optimizer, flip=True, precision="fp32")
        corruption = Corruption(BAND, 0.7)
        return train(built, source, NOISES["partial"], FORMULATIONS[of], recipe, seed=0, corruption=corruption)

    run("emu", 1)
    (_, some), (found, others) = (waits(lambda k=k: run("emu", k)) for k in (1, 2))
    assert some == others
    torch.testing.assert_close(found.losses, run("cpu", 2).losses, rtol=1e-4, atol=1e-5)


SAMPLERS = [
    *((of, how) for of in DIFFUSIONS for how in (sagd.Sampler("ddim"), sagd.Sampler("ddpm", spacing="trailing"))),
    *(("eps", sagd.Sampler(name)) for name in ("euler", "heun")),
    ("eps", sagd.Sampler("ddim", eta=0.5, clip=True)),
    ("eps", sagd.Sampler("ddim", start="marginal")),
    *((of, sagd.Sampler(name)) for of in ("flow", "edm") for name in ("euler", "heun")),
]
VARYING = [("eps", sagd.Sampler(name), "varying") for name in ("ddim", "ddpm")]


@pytest.mark.parametrize(("of", "sampler", "noise"), [*((*each, "partial") for each in SAMPLERS), *VARYING], ids=str)
def test_samplers(of, sampler, noise):

    def run(device, steps, where="cpu"):
        return sagd.sample(
            network, FORMULATIONS[of], NOISES[noise], sagd.Sampler(**{**vars(sampler), "steps": steps}), shape=SHAPE,
            generator=torch.Generator(where).manual_seed(0), data=MOMENTS, device=device,
        )  # fmt: skip

    run("emu", 2, "emu"), run("emu", 4, "emu")
    (few, some), (_, others) = (waits(lambda k=k: run("emu", k, "emu")) for k in (2, 4))
    assert some == others
    same(few, run("cpu", 2), rtol=1e-4, atol=1e-5)
    same(run("emu", 2), run("cpu", 2), rtol=1e-4, atol=1e-5)


def test_colored_steps():
    def run(device, steps):
        rings = len(ring_means(radius(SIZE)))
        gamma = torch.linspace(0.9, 0.0, 2 * rings, dtype=torch.float64).reshape(2, rings)
        colored = Colored.of(DIFFUSIONS["eps"], ColoredNoise(SIZE, torch.tensor([-5.0, 5.0]).double(), gamma))
        draws = torch.Generator(device).manual_seed(0)
        how = sagd.Sampler("ddpm", steps)
        return sagd.sample(network, colored, NOISES["white"], how, shape=SHAPE, generator=draws, device=device)

    run("emu", 4)
    (few, _), (_, _) = (waits(lambda k=k: run("emu", k)) for k in (2, 4))
    same(few, run("cpu", 2), rtol=1e-4, atol=1e-5)


def test_calibration():
    found, wanted = (calibrate(network, DIFFUSIONS["eps"], X.to(to), sagd.Sampler(steps=5)) for to in ("emu", "cpu"))
    torch.testing.assert_close(found.gamma, wanted.gamma, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("of", ["field", "finite"])
def test_the_oracle(of, noise):
    target = gaussian_field(MOMENTS["mean"], POWER) if of == "field" else finite(X.double(), 0.01)
    predict = target.predict(LINEAR, NOISES[noise])
    for t in (torch.full((3,), 400), torch.tensor([10, 400, 10]), torch.tensor([700])):
        same(predict(X.to("emu"), t.to("emu")), predict(X, t), rtol=1e-4, atol=1e-5)
    same(
        target.log_density(X.to("emu"), 400, LINEAR, NOISES[noise]).float(),
        target.log_density(X, 400, LINEAR, NOISES[noise]).float(),
    )
    if noise != "varying":
        same(target.denoised(X.to("emu"), 0.5, NOISES[noise]), target.denoised(X, 0.5, NOISES[noise]))
        t = torch.tensor([100.0, 500.0, 500.0])
        velocity = target.velocity(NOISES[noise])
        same(velocity(X.to("emu"), t.to("emu")), velocity(X, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of", ["field", "finite"])
def test_the_oracle_waits_for_nothing(of, precision, request):
    if "no float64" in request.node.name:
        return  # there it computes on the CPU
    target = gaussian_field(MOMENTS["mean"], POWER) if of == "field" else finite(X.double(), 0.01)

    def run(steps):
        predict = target.predict(LINEAR, NOISES["shaped"])
        how, draws = sagd.Sampler("ddim", steps), torch.Generator("emu").manual_seed(0)
        return sagd.sample(
            predict, DIFFUSIONS["eps"], NOISES["shaped"], how, shape=SHAPE, generator=draws, device="emu"
        )

    run(2)
    (_, some), (_, others) = (waits(lambda k=k: run(k)) for k in (2, 4))
    assert some == others


@pytest.mark.parametrize(
    "corruption", [Corruption(BAND, 0.7), Corruption(BAND, 0.7, filtered=True)], ids=["noise", "filter"]
)
def test_what_evaluate_computes(corruption):
    """The denoising error of corrupted images, as the stage evaluate asks for it: with generators on the CPU."""

    def errors(device):
        x0 = corruption(IMAGES.to(device).float() / 127.5 - 1, generator(0, "corruption"))
        return denoising_errors(
            network, DIFFUSIONS["eps"], NOISES["partial"], x0, generator=generator(0, "denoising"), batch_size=16
        )

    torch.testing.assert_close(errors("emu"), errors("cpu"), rtol=1e-3, atol=1e-5, equal_nan=True)


def test_moments_means_and_scores():
    power = POWER.float()
    for corruption in (Corruption(BAND, 0.7), Corruption(BAND, 0.7, filtered=True)):
        found, wanted = (corruption.moments(power.to(to), power.to(to)) for to in ("emu", "cpu"))
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one.cpu().double(), other.double())
    masks = band_masks(SIZE)
    found, wanted = (band_means(power.to(to), masks) for to in ("emu", "cpu"))
    torch.testing.assert_close(found.cpu(), wanted, equal_nan=True)
    pairs = [
        ((network, NOISES["white"]), (lambda x, t: -x, NOISES["shaped"]), DIFFUSIONS["eps"], X.to(to), X.to(to))
        for to in ("emu", "cpu")
    ]
    assert score_difference(*pairs[0], t=400) == pytest.approx(score_difference(*pairs[1], t=400), rel=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the emulation
@pytest.mark.parametrize("name", ["DDIM", "DDPM", "EulerDiscrete", "FlowMatchEulerDiscrete"])
def test_a_pipeline_of_diffusers(name):
    import diffusers

    import sagd.diffusers

    def run(device, steps):
        scheduler = getattr(sagd.diffusers, f"Shaped{name}Scheduler")(spectrum=NOISES["shaped"])
        torch.manual_seed(0)
        built = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        )  # fmt: skip
        pipeline = sagd.diffusers.SAGDPipeline(scheduler, built).to(device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            2, generator=torch.Generator().manual_seed(0), num_inference_steps=steps, output_type="pt"
        ).images

    with torch.random.fork_rng(devices=[]):
        (few, some), (_, others) = (waits(lambda k=k: run("emu", k)) for k in (2, 4))
        same(few, run("cpu", 2), rtol=1e-3, atol=1e-4)
    if name != "DDPM":  # whose variances diffusers reads from the device in every step
        assert some == others
