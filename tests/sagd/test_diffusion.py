"""Schedule, conversions and samplers: equal to diffusers' at isotropic noise, right at any other."""

import functools

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

import sagd

SCHEDULE = sagd.Schedule.linear()
DIFFUSION = sagd.Diffusion(SCHEDULE)
SHAPE = (2, 1, 8, 8)


def network(x, t):
    """Anything that depends on both arguments, in float64."""
    return torch.tanh(x * 1.3 + t.reshape(-1, 1, 1, 1) / 1000)


def test_forward_process_is_diffusers(generator):
    x0, eps = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    t = torch.tensor([3, 977])
    theirs = DDPMScheduler().add_noise(x0, eps, t)
    torch.testing.assert_close(SCHEDULE.q_sample(x0, t, eps), theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [50, 20, 1000])
def test_timesteps_are_diffusers(spacing, steps):
    theirs = DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    assert SCHEDULE.timesteps(steps, spacing) == theirs.timesteps.tolist()


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_is_diffusers_step_by_step(eta, clip, spacing, generator):
    theirs = DDIMScheduler(clip_sample=clip, timestep_spacing=spacing)
    theirs.set_timesteps(50)
    visited = SCHEDULE.timesteps(50, spacing)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    for t, t_prev in zip(visited, [*visited[1:], -1], strict=True):
        eps = network(x, torch.full((2,), t))
        noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        expected = theirs.step(eps, t, x, eta=eta, variance_noise=noise if eta else None).prev_sample
        x = sagd.ddim_step(SCHEDULE, x, t, t_prev, eps, eta=eta, clip=clip, noise=noise)
        torch.testing.assert_close(x, expected, atol=2e-4, rtol=1e-4)  # their alpha_bar is float32
        x = expected


def test_zero_terminal_snr_is_diffusers():
    theirs = DDPMScheduler(rescale_betas_zero_snr=True)
    mine = sagd.Schedule.zero_terminal_snr()
    assert mine.alpha_bar[-1] == 0
    # Their last steps have little left to hold on to: they are products of float32 betas.
    torch.testing.assert_close(mine.alpha_bar.float(), theirs.alphas_cumprod, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_v_prediction_from_zero_snr_is_diffusers(sampler):
    """A whole loop, from the step where alpha_bar is 0."""
    keys = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    theirs = (DDIMScheduler if sampler == "ddim" else DDPMScheduler)(clip_sample=True, **keys)
    theirs.set_timesteps(20)
    mine, their = (torch.Generator().manual_seed(1) for _ in range(2))
    x = start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        x = theirs.step(
            network(x, t.expand(2)), t, x, **({} if sampler == "ddim" else {"generator": their})
        ).prev_sample
    diffusion = sagd.Diffusion(sagd.Schedule.zero_terminal_snr(), "v")
    how = sagd.Sampler(sampler, 20, "trailing", clip=True)
    found = diffusion.sample(
        network, sagd.isotropic((8, 8)), start, how, white=lambda: torch.randn(SHAPE, generator=mine)
    )
    torch.testing.assert_close(found, x, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("t", [0, 400, 999])
def test_v_says_the_same_as_eps(t, generator):
    """v = sqrt(alpha_bar) eps - sigma x0, at any noise; its loss is 0 where it is met."""
    x0 = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    eps = sagd.power_law((8, 8), -0.4).sample(SHAPE, generator=generator, dtype=torch.float64)
    alpha_bar = SCHEDULE.alpha_bar[t]
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0
    found = SCHEDULE.x0_and_eps(SCHEDULE.q_sample(x0, t, eps), t, v, "v")
    torch.testing.assert_close(torch.stack(found), torch.stack([x0, eps]), atol=1e-12, rtol=1e-12)
    steps = torch.full((2,), t)
    assert sagd.v_loss(lambda x, t: v, SCHEDULE, x0, steps, eps) < 1e-20
    assert sagd.v_loss(lambda x, t: v + 0.5, SCHEDULE, x0, steps, eps).item() == pytest.approx(0.25)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1000, 50])
def test_ddpm_is_diffusers_step_by_step(clip, steps):
    theirs = DDPMScheduler(clip_sample=clip)
    theirs.set_timesteps(steps)
    mine, their = (torch.Generator().manual_seed(1) for _ in range(2))
    visited = SCHEDULE.timesteps(steps)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t, t_prev in zip(visited, [*visited[1:], -1], strict=True):
        eps = network(x, torch.full((2,), t))
        expected = theirs.step(eps, t, x, generator=their).prev_sample
        noise = sagd.isotropic((8, 8)).sample(SHAPE, generator=mine) if t > 0 else None
        x = sagd.ddpm_step(SCHEDULE, x, t, t_prev, eps, clip=clip, noise=noise)
        torch.testing.assert_close(x, expected, atol=2e-4, rtol=1e-4)
        x = expected


def test_whole_ddim_loop_is_diffusers(generator):
    theirs = DDIMScheduler()
    theirs.set_timesteps(50)
    x = start = torch.randn(SHAPE, generator=generator)
    for t in theirs.timesteps:
        x = theirs.step(network(x, t.expand(2)), t, x).prev_sample
    mine = DIFFUSION.sample(network, sagd.isotropic((8, 8)), start, sagd.Sampler(steps=50, clip=True))
    torch.testing.assert_close(mine, x, atol=1e-3, rtol=1e-3)


def test_conversions_are_inverse(generator):
    spectrum = sagd.power_law((8, 8), -0.4)
    x0 = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    eps = spectrum.sample(SHAPE, generator=generator, dtype=torch.float64)
    for t in (0, 400, 999):
        xt = SCHEDULE.q_sample(x0, t, eps)
        torch.testing.assert_close(SCHEDULE.x0_from_eps(xt, t, eps), x0, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(SCHEDULE.eps_from_x0(xt, t, x0), eps, atol=1e-9, rtol=1e-9)
        score = SCHEDULE.score_from_eps(spectrum, t, eps)
        torch.testing.assert_close(SCHEDULE.eps_from_score(spectrum, t, score), eps, atol=1e-9, rtol=1e-9)


def test_score_is_the_gradient_of_the_log_density(generator):
    """Eq. 9 and 24 against autograd: for one data point, q(x_t | x0) is Gaussian with covariance sigma^2 Sigma_w."""
    spectrum = sagd.power_law((6, 6), 0.3)
    n = 36
    sigma_w = spectrum.covariance(torch.eye(n, dtype=torch.float64).reshape(n, 6, 6)).reshape(n, n)
    x0, t = torch.randn((6, 6), generator=generator, dtype=torch.float64), 300
    alpha_bar = SCHEDULE.alpha_bar[t]
    density = torch.distributions.MultivariateNormal(alpha_bar.sqrt() * x0.flatten(), (1 - alpha_bar) * sigma_w)
    xt = torch.randn(n, generator=generator, dtype=torch.float64, requires_grad=True)
    density.log_prob(xt).backward()
    eps = SCHEDULE.eps_from_x0(xt.detach().reshape(6, 6), t, x0)
    torch.testing.assert_close(SCHEDULE.score_from_eps(spectrum, t, eps).flatten(), xt.grad, atol=1e-8, rtol=1e-8)


def posterior_moments(t, t_prev, w2):
    """Exact mean factor of x_t and variance of q(x_prev | x_t, x0), for a scalar frequency, by conditioning."""
    a, ap = SCHEDULE.alpha_bar[t].item(), SCHEDULE.alpha_bar[t_prev].item()
    r = a / ap
    var_prev, var_t = (1 - ap) * w2, (1 - a) * w2
    gain = r**0.5 * var_prev / var_t
    return gain, var_prev - gain**2 * var_t


def test_ddpm_step_has_the_posteriors_moments():
    """Eq. 31-33: with the true x0, one step has the mean and covariance of the Gaussian posterior, in closed form."""
    spectrum = sagd.power_law((8, 8), -0.5)
    t, t_prev = 500, 480
    x0 = torch.zeros((1, 1, 8, 8), dtype=torch.float64)
    xt = spectrum.sample((1, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0, xt = x0.expand(64, -1, -1, -1), xt.expand(64, -1, -1, -1)
    eps = SCHEDULE.eps_from_x0(xt, t, x0)
    gain, unit_variance = posterior_moments(t, t_prev, 1.0)
    still = sagd.ddpm_step(SCHEDULE, xt, t, t_prev, eps, noise=torch.zeros_like(xt))
    torch.testing.assert_close(still, gain * xt, atol=1e-10, rtol=1e-8)
    white = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    moved = sagd.ddpm_step(SCHEDULE, xt, t, t_prev, eps, noise=spectrum.sqrt(white)) - still
    root = moved.reshape(64, 64)
    sigma = spectrum.covariance(white).reshape(64, 64)
    torch.testing.assert_close(root.T @ root, unit_variance * sigma, atol=1e-10, rtol=1e-8)
    # White step noise, as an isotropic sampler would inject, has another covariance (App. D.4).
    wrong = (sagd.ddpm_step(SCHEDULE, xt, t, t_prev, eps, noise=white) - still).reshape(64, 64)
    assert (wrong.T @ wrong - unit_variance * sigma).abs().max() > 0.1 * unit_variance


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.3])
def test_ddim_with_the_oracle_draws_the_gaussian_field_it_knows(alpha):
    """A field with spectrum S: the exact eps is linear, DDIM a linear map, and its output's covariance is S again."""
    spectrum, data = sagd.power_law((8, 8), alpha), sagd.power_law((8, 8), -0.8)
    w2, s = spectrum.weight**2, data.weight**2

    def oracle(x, t):
        alpha_bar = SCHEDULE.alpha_bar[t[0]]
        sigma = (1 - alpha_bar).sqrt()
        gain = sigma * w2 / (alpha_bar * s + sigma**2 * w2)
        return torch.fft.ifft2(torch.fft.fft2(x) * gain).real

    white = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    visited = SCHEDULE.timesteps(1000)
    zero = torch.zeros((1, 8, 8), dtype=torch.float64)
    start = sagd.start_from_marginal(SCHEDULE, spectrum, visited[0], zero, s[None], white)
    root = DIFFUSION.sample(oracle, spectrum, start, sagd.Sampler(steps=1000)).reshape(64, 64)
    found = torch.linalg.eigvalsh(root.T @ root)
    torch.testing.assert_close(found, s.flatten().sort().values, rtol=0.02, atol=0)  # of 1000 steps


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samplers_reach_the_data_with_the_oracle(sampler, generator):
    """Data at one point: the exact eps brings any start to that point."""
    spectrum = sagd.power_law((8, 8), -0.5)
    x0 = torch.randn((1, 1, 8, 8), generator=generator, dtype=torch.float64)

    def oracle(x, t):
        return SCHEDULE.eps_from_x0(x, t, x0)

    def white():
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)

    x = DIFFUSION.sample(oracle, spectrum, spectrum.shape(white()), sagd.Sampler(sampler, 20), white=white)
    torch.testing.assert_close(x, x0.expand(SHAPE), atol=1e-6, rtol=1e-6)


def test_omitted_band_stays_exactly_empty(generator):
    spectrum = sagd.two_band((16, 16), 0.5, low=(0, 0.4), high=(0.5, 1))
    white = torch.randn((2, 1, 16, 16), generator=generator, dtype=torch.float64)
    x = DIFFUSION.sample(network, spectrum, spectrum.shape(white), sagd.Sampler(steps=20))
    torch.testing.assert_close(x, spectrum.project(x), atol=1e-12, rtol=0)
    assert x.std() > 0.1


def test_start_from_the_marginal_has_its_moments(generator):
    """Against the moments of q_sample on the data itself: a field with a mean and a spectrum of its own."""
    spectrum, data = sagd.power_law((8, 8), -0.5), sagd.power_law((8, 8), -1.0, normalize="none")
    mean = torch.randn((1, 8, 8), generator=generator, dtype=torch.float64)
    t, n = 400, 64
    white = torch.eye(n, dtype=torch.float64).reshape(n, 1, 8, 8)
    power = (data.weight**2)[None]
    x = sagd.start_from_marginal(SCHEDULE, spectrum, t, mean, power, white)
    centre = sagd.start_from_marginal(SCHEDULE, spectrum, t, mean, power, torch.zeros_like(white))
    alpha_bar = SCHEDULE.alpha_bar[t]
    torch.testing.assert_close(centre[0], alpha_bar.sqrt() * mean)
    root = (x - centre).reshape(n, n)
    expected = alpha_bar * data.covariance(white) + (1 - alpha_bar) * spectrum.covariance(white)
    torch.testing.assert_close(root.T @ root, expected.reshape(n, n), atol=1e-10, rtol=1e-8)


def test_loss_is_the_mean_square_of_the_noise_error(generator):
    x0, eps = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    t = torch.tensor([10, 900])
    zero = sagd.eps_loss(lambda x, t: torch.zeros_like(x), SCHEDULE, x0, t, eps)
    assert zero.item() == pytest.approx(eps.square().mean().item())
    assert sagd.eps_loss(lambda x, t: SCHEDULE.eps_from_x0(x, t, x0), SCHEDULE, x0, t, eps).item() < 1e-6


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SCHEDULE.timesteps(0), "1 to 1000"),
        (lambda: SCHEDULE.timesteps(1001), "1 to 1000"),
        (lambda: SCHEDULE.timesteps(10, "linspace"), "leading, trailing"),
        (lambda: SCHEDULE.timesteps(600), "600 steps do not divide 1000, and spacing leading would begin at 599"),
        (lambda: sagd.Schedule(torch.linspace(1e-4, 0.02, 10)), "must be .* falling"),
        (lambda: sagd.Schedule.linear(1000, 1e-4, 1.5), "must be .* falling"),
        (lambda: sagd.Schedule(torch.ones(2, 2)), r"this one has shape \(2, 2\)"),
        (
            lambda: DIFFUSION.sample(network, sagd.isotropic((8, 8)), torch.zeros(SHAPE), sagd.Sampler(eta=1.0)),
            "white",
        ),
        (lambda: sagd.Sampler("sde"), "ddim"),
        (lambda: sagd.Sampler("ddpm", eta=0.5), "it must be 0"),
        (lambda: sagd.Sampler(start="zero"), "noise, marginal"),
        (lambda: sagd.Diffusion(SCHEDULE, "x0"), "eps, v"),
        (
            lambda: sagd.Diffusion(sagd.Schedule.zero_terminal_snr()).check(
                sagd.isotropic((8, 8)), sagd.Sampler(spacing="trailing")
            ),
            "alpha_bar is 0",
        ),
        (lambda: DIFFUSION.start(sagd.isotropic((8, 8)), sagd.Sampler(start="marginal"), torch.zeros(SHAPE)), "mean"),
        (lambda: sagd.Schedule.named("cosine"), "linear, zero_terminal_snr"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(sagd.InputError, match=says):
        call()


def test_a_schedule_is_kept_in_float64():
    assert sagd.Schedule(SCHEDULE.alpha_bar.float()).alpha_bar.dtype == torch.float64


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "heun"])
def test_samplers_keep_no_graph_unless_asked(name, generator):
    """Of 50 steps with a graph, the memory would grow with every one."""
    scale = torch.ones((), requires_grad=True)
    white = torch.randn(SHAPE, generator=generator)
    run = functools.partial(
        DIFFUSION.sample, lambda x, t: scale * network(x, t), sagd.isotropic((8, 8)), white, sagd.Sampler(name, 3)
    )
    assert not run(white=lambda: white).requires_grad
    run(white=lambda: white, gradients=True).sum().backward()
    assert scale.grad.abs() > 0


def test_sample_draws_start_and_steps_from_one_generator():
    """`sagd.sample` is `Diffusion.sample` from the shaped start; the same generator gives the same images."""
    spectrum, how = sagd.power_law((8, 8), -0.4), sagd.Sampler("ddpm", 5)
    first, again = (
        sagd.sample(network, DIFFUSION, spectrum, how, shape=SHAPE, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(first, again)
    source = torch.Generator().manual_seed(3)

    def white():
        return torch.randn(SHAPE, generator=source)

    start = DIFFUSION.start(spectrum, how, white())
    assert torch.equal(DIFFUSION.sample(network, spectrum, start, how, white=white), first)
