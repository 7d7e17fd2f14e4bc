"""The theory (App. D), in float64: closed-form targets against autograd, dense matrices and the samplers."""

import itertools
import math

import pytest
import torch

import sagd
from sagd.oracle.targets import Mixture, distance, drawn, finite, gaussian_field

SCHEDULE = sagd.Schedule.linear()
DIFFUSION = sagd.Diffusion(SCHEDULE)
SIZE = (6, 6)
SPECTRA = {
    "white": sagd.isotropic(SIZE),
    "low": sagd.power_law(SIZE, -0.5),
    "high": sagd.power_law(SIZE, 0.5),
    "omitted band": sagd.two_band(SIZE, 0.3, low=(0, 0.4), high=(0.7, 1)),
    "varying": sagd.Varying(sagd.power_law(SIZE, -0.5), sagd.power_law(SIZE, 0.5), SCHEDULE.alpha_bar),
}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
full_support = pytest.mark.parametrize("name", ["white", "low", "high", "varying"])


def power_of(spectrum):
    return spectrum.weight.square()[None]


@pytest.fixture
def mixture(generator):
    """Three components, each with a mean image and a spectrum of its own; two channels."""
    means = torch.randn((3, 2, *SIZE), generator=generator, dtype=torch.float64)
    power = torch.stack([power_of(sagd.power_law(SIZE, a)).expand(2, *SIZE) for a in (-1.0, -0.3, 0.4)]) * 0.2
    return Mixture(means, power, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


@pytest.fixture
def field(generator):
    """A Gaussian field with a mean image and a falling spectrum."""
    mean = torch.randn((1, *SIZE), generator=generator, dtype=torch.float64)
    return gaussian_field(mean - 0.7, power_of(sagd.power_law(SIZE, -0.8)))


def steps_of(mixture, t, n=4):
    source = torch.Generator().manual_seed(1)
    x = mixture.sample(n, generator=source)
    return SCHEDULE.q_sample(x, t, torch.randn(x.shape, generator=source, dtype=torch.float64))


def full(x, t):
    return torch.full((len(x),), t)


@every_spectrum
@pytest.mark.parametrize("t", [0, 300, 980])
def test_oracles_score_is_the_gradient_of_its_log_density(mixture, spectrum, t):
    """Eq. 9 and 24 against autograd; where a band is left out, the score of the projected marginal (D.5)."""
    xt = steps_of(mixture, t).requires_grad_()
    mixture.log_density(xt, t, SCHEDULE, spectrum).sum().backward()
    with torch.no_grad():
        eps = mixture.predict(SCHEDULE, spectrum)(xt, full(xt, t))
        score = SCHEDULE.score_from_eps(spectrum.at(t), t, eps)
    torch.testing.assert_close(score, xt.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
def test_log_density_is_that_of_dense_gaussians(mixture, alpha):
    spectrum, t = sagd.power_law(SIZE, alpha), 400
    xt, n, a = steps_of(mixture, t), math.prod(SIZE), SCHEDULE.alpha_bar[t]
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *SIZE)
    each = []
    for mean, power in zip(mixture.means, mixture.power, strict=True):
        total = 0
        for channel in range(2):
            data = sagd.Spectrum(power[channel].sqrt()).covariance(unit).reshape(n, n)
            covariance = a * data + (1 - a) * spectrum.covariance(unit).reshape(n, n)
            law = torch.distributions.MultivariateNormal(a.sqrt() * mean[channel].flatten(), covariance)
            total = total + law.log_prob(xt[:, channel].flatten(1))
        each.append(total)
    expected = (torch.stack(each, 1) + mixture.weights.log()).logsumexp(1)
    torch.testing.assert_close(mixture.log_density(xt, t, SCHEDULE, spectrum), expected, atol=1e-9, rtol=1e-9)


@full_support
def test_tweedie(mixture, name):
    """Eq. 28 and 29: E[x0 | z_t] = z_t + s_t^2 Sigma_w score(z_t); E[x0 | z_t] by importance weights, not by algebra.

    The mean over a million draws of x0, weighted by q(x_t | x0), in the plane, where such an estimate converges.
    """
    t, size = 600, (2,)
    plane = {
        "white": sagd.Spectrum(torch.tensor([1.0, 1.0])),
        "low": sagd.Spectrum(torch.tensor([1.3, 0.5])),
        "high": sagd.Spectrum(torch.tensor([0.5, 1.3])),
        "varying": sagd.Varying(
            sagd.Spectrum(torch.tensor([1.3, 0.5])), sagd.Spectrum(torch.tensor([0.5, 1.3])), SCHEDULE.alpha_bar
        ),
    }
    spectrum = plane[name]
    means = torch.tensor([[[1.0, 0.5]], [[-1.0, 0.3]], [[0.2, -1.2]]], dtype=torch.float64)
    target = Mixture(means, torch.full((1, 1, *size), 0.1).double(), torch.tensor([0.5, 0.3, 0.2]).double())
    xt = torch.tensor([[[0.4, -0.2]], [[-0.9, 0.8]]], dtype=torch.float64)
    signal, sigma = SCHEDULE.alpha_bar[t].sqrt(), (1 - SCHEDULE.alpha_bar[t]).sqrt()
    score = SCHEDULE.score_from_eps(spectrum.at(t), t, target.predict(SCHEDULE, spectrum)(xt, full(xt, t)))
    z, s, score_z = xt / signal, sigma / signal, signal * score
    found = z + s**2 * spectrum.at(t).covariance(score_z)
    draws = target.sample(1_000_000, generator=torch.Generator().manual_seed(0))
    for k in range(len(xt)):
        residual = (xt[k] - signal * draws) / sigma
        weight = torch.softmax(-0.5 * (residual * spectrum.at(t).inverse(residual)).sum((1, 2)), 0)[:, None, None]
        expected = (weight * draws).sum(0)
        error = (weight.square() * (draws - expected).square()).sum(0).sqrt()
        assert (found[k] - expected).abs().lt(5 * error).all()
        assert error.max() < 0.005


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
def test_score_tends_to_the_datas_as_t_tends_to_0(mixture, alpha):
    """Eq. 30: the path depends on the noise, its end does not; the error falls as sigma_t^2, slope one."""
    spectrum = sagd.power_law(SIZE, alpha)
    variances = torch.tensor([1e-3, 1e-4, 1e-5, 1e-6], dtype=torch.float64)
    schedule = sagd.Schedule(1 - variances.flip(0))
    x = mixture.sample(5, generator=torch.Generator().manual_seed(3)).requires_grad_()
    mixture.log_density(x, -1, schedule, spectrum).sum().backward()
    errors = []
    for t in range(4):
        eps = mixture.predict(schedule, spectrum)(x.detach(), full(x, t))
        errors.append((schedule.score_from_eps(spectrum.at(t), t, eps) - x.grad).norm() / x.grad.norm())
    slopes = torch.stack(errors).log().diff() / (1 - schedule.alpha_bar).log().diff()
    assert errors[0] < 1e-3
    torch.testing.assert_close(slopes, torch.ones(3, dtype=torch.float64), atol=0.05, rtol=0)


def marginal(field, spectrum, t):
    """The mean and the power of q(x_t), from eq. 8."""
    a = SCHEDULE.alpha_bar[t]
    return a.sqrt() * field.means[0], a * field.power[0] + (1 - a) * power_of(spectrum.at(t))


@pytest.mark.parametrize("name", ["white", "low", "high"])
@pytest.mark.parametrize(("sampler", "allowed"), [("ddim", 5e-3), ("euler", 5e-3), ("heun", 5e-5)])
def test_probability_flow_has_the_marginals(field, name, sampler, allowed):
    """Eq. 35: along the ODE the moments are those of q(x_t) at every t; what is left is the error of 1000 steps."""
    spectrum = SPECTRA[name]
    timesteps = SCHEDULE.timesteps(1000)
    for t in (800, 400, 100):
        until = [s for s in timesteps if s >= t]
        path = _moments_at(field, spectrum, until, sampler)
        mean, power = marginal(field, spectrum, t)
        torch.testing.assert_close(path.means[0], mean, atol=allowed, rtol=allowed)
        torch.testing.assert_close(path.power[0].sqrt(), power.sqrt(), atol=allowed, rtol=allowed)


def _moments_at(field, spectrum, visited, sampler):
    """The moments of the ODE's state at the last of ``visited``, by unit vectors through the sampler's own steps."""
    n = math.prod(SIZE)
    mean, power = marginal(field, spectrum, visited[0])
    pulse = torch.fft.ifftn(torch.ones(SIZE, dtype=torch.complex128), norm="ortho").real[None]
    x = torch.stack([mean, mean + pulse])
    for t, t_prev in itertools.pairwise(visited):
        x = DIFFUSION.step(field.predict(SCHEDULE, spectrum), spectrum, x, t, t_prev, sagd.Sampler(sampler))
    gain = torch.fft.fftn(x[1] - x[0], dim=(-2, -1), norm="ortho").real
    assert gain.numel() == n
    return gaussian_field(x[0], gain.square() * power)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2)])
def test_samplers_have_their_order(field, sampler, order, alpha):
    """Without an error of the start, the distance falls as steps^(-2 order): it is a square."""
    spectrum = sagd.power_law(SIZE, alpha)
    counts = (90, 180)
    errors = []
    for n in counts:
        # From 990 to 90: the last steps to clean data are coarse in sigma at any count.
        visited = [90 + i * (900 // n) for i in reversed(range(n + 1))]
        target = gaussian_field(*marginal(field, spectrum, 90))
        errors.append(math.sqrt(sum(distance(_moments_at(field, spectrum, visited, sampler), target).values())))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@every_spectrum
@pytest.mark.parametrize("start", ["noise", "marginal"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "heun"])
def test_drawn_is_what_the_sampler_draws(field, spectrum, sampler, start, generator):
    """The exact mean and covariance against 5,000 samples drawn by `sagd.sample`, within five standard errors."""
    n, how = 5_000, sagd.Sampler(sampler, 10, start=start)
    if not spectrum.constant and sampler in ("euler", "heun"):
        with pytest.raises(sagd.InputError, match="varying"):
            drawn(field, DIFFUSION, spectrum, how)
        return
    exact = drawn(field, DIFFUSION, spectrum, how)

    def white():
        return torch.randn((n, 1, *SIZE), generator=generator, dtype=torch.float64)

    x = DIFFUSION.start(spectrum, how, white(), {"mean": field.means[0], "power": field.power[0]})
    x = DIFFUSION.sample(field.predict(SCHEDULE, spectrum), spectrum, x, how, white=white)
    assert (x.mean(0) - exact.means[0]).abs().lt(5 * x.std(0) / n**0.5 + 1e-12).all()
    power = torch.fft.fft2(x - exact.means[0], norm="ortho").abs().square().mean(0)
    # A real frequency has the variance 2 P^2 / n, a complex one P^2 / n.
    assert (power - exact.power[0]).abs().lt(5 * (2 / n) ** 0.5 * exact.power[0] + 1e-12).all()


@every_spectrum
def test_ancestral_steps_keep_the_marginals(spectrum, generator):
    """Eq. 31-33, and 36 where w varies: with the true x0, x_{t-1} given x_0 is as in eq. 8, at every step."""
    x0 = finite(torch.randn((1, 1, *SIZE), generator=generator, dtype=torch.float64))
    pulse = torch.fft.ifftn(torch.ones(SIZE, dtype=torch.complex128), norm="ortho").real[None]
    white = torch.stack([torch.zeros_like(pulse), torch.zeros_like(pulse), pulse])
    for strides in (1, 40):
        visited = SCHEDULE.timesteps(1000 // strides)
        on = spectrum.support
        for t, t_prev in list(itertools.pairwise(visited))[:: max(1, len(visited) // 12)]:
            mean = SCHEDULE.alpha_bar[t].sqrt() * spectrum.project(x0.means[0])
            probes = torch.stack([mean, mean + spectrum.project(pulse), mean])
            exact = x0.predict(SCHEDULE, spectrum)
            there = DIFFUSION.step(exact, spectrum, probes, t, t_prev, sagd.Sampler("ddpm"), white=lambda: white)
            gain, noise = (torch.fft.fftn(there[k] - there[0], dim=(-2, -1), norm="ortho").real[0] for k in (1, 2))
            v, v_prev = ((1 - SCHEDULE.alpha_bar[s]) * spectrum.at(s).weight.square() for s in (t, t_prev))
            torch.testing.assert_close(gain.square() * v + noise.square(), v_prev * on, atol=1e-9, rtol=1e-9)


def test_white_step_noise_draws_another_covariance(field):
    """App. D.4: an ancestral sampler that injects white noise is wrong, with a perfect network and a thousand steps."""
    spectrum, how = SPECTRA["low"], sagd.Sampler("ddpm", 1000, start="marginal")
    right = sum(distance(drawn(field, DIFFUSION, spectrum, how), field).values())

    class White(sagd.Spectrum):
        def shape(self, white, t=None):
            return white

    wrong_noise = White(spectrum.weight)
    wrong = sum(distance(drawn(field, DIFFUSION, wrong_noise, how), field).values())
    assert right < 0.01 < 20 * right < wrong


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "heun"])
def test_omitted_band_is_empty_at_every_step(mixture, sampler, generator):
    """D.5: with the projected score nothing ever enters the band that the noise leaves out."""
    spectrum = SPECTRA["omitted band"]

    def white():
        return torch.randn((3, 2, *SIZE), generator=generator, dtype=torch.float64)

    x, exact = spectrum.shape(white()), mixture.predict(SCHEDULE, spectrum)
    for t, t_prev in itertools.pairwise([*SCHEDULE.timesteps(20), -1]):
        x = DIFFUSION.step(exact, spectrum, x, t, t_prev, sagd.Sampler(sampler), white=white)
        outside = torch.fft.fft2(x, norm="ortho")[..., ~spectrum.support]
        assert outside.abs().max() < 1e-12
    assert x.std() > 0.1


def test_varying_noise_gathers_as_equation_36():
    """The recursion against the sum over s as the paper writes it, and against simulated steps x_t of x_{t-1}."""
    schedule = sagd.Schedule.linear(steps=40, beta_start=0.01, beta_end=0.2)
    spectrum = sagd.Varying(sagd.power_law(SIZE, -0.5), sagd.power_law(SIZE, 0.5), schedule.alpha_bar)
    alphas = torch.cat([schedule.alpha_bar[:1], schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]])
    source = torch.Generator().manual_seed(0)
    n = 40_000
    x = torch.zeros((n, *SIZE), dtype=torch.float64)
    for t in range(40):
        entering = sagd.Spectrum(spectrum.entering(t)).sample(x.shape, generator=source, dtype=torch.float64)
        x = alphas[t].sqrt() * x + (1 - alphas[t]).sqrt() * entering
        if t in (0, 5, 20, 39):
            terms = [(1 - alphas[s]) * alphas[s + 1 : t + 1].prod() * spectrum.entering(s) ** 2 for s in range(t + 1)]
            expected = sum(terms)
            variance = (1 - schedule.alpha_bar[t]) * spectrum.at(t).weight.square()
            torch.testing.assert_close(variance, expected, atol=1e-12, rtol=1e-12)
            power = torch.fft.fft2(x, norm="ortho").abs().square().mean(0)
            assert (power / expected - 1).abs().max() < 5 * (2 / n) ** 0.5


def test_varying_noise_is_drawn_for_each_images_own_step(generator):
    """`sample` with (B,) steps: image k has the spectrum of step t[k]."""
    spectrum = SPECTRA["varying"]
    t = torch.tensor([0, 500, 999]).repeat_interleave(20_000)
    x = spectrum.sample((len(t), 1, *SIZE), generator=generator, t=t, dtype=torch.float64)
    power = torch.fft.fft2(x, norm="ortho").abs().square().reshape(3, -1, *SIZE).mean(1)
    for k, step in enumerate((0, 500, 999)):
        assert (power[k] / spectrum.at(step).weight.square() - 1).abs().max() < 5 * (2 / 20_000) ** 0.5
    same = spectrum.sample((2, 1, *SIZE), generator=torch.Generator().manual_seed(0), t=torch.tensor([3, 3]))
    torch.testing.assert_close(same, spectrum.sample((2, 1, *SIZE), generator=torch.Generator().manual_seed(0), t=3))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_varying_spectrum_that_does_not_vary_is_a_constant_one(field, sampler):
    constant = SPECTRA["low"]
    still = sagd.Varying(constant, constant, SCHEDULE.alpha_bar)
    a, b = (drawn(field, DIFFUSION, s, sagd.Sampler(sampler, 25)) for s in (constant, still))
    torch.testing.assert_close(a.means, b.means, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(a.power, b.power, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "heun"])
def test_shaped_diffusion_is_white_diffusion_of_whitened_data(mixture, sampler):
    """A change of basis: with exact scores, x = T_w y for every trajectory, step by step.

    What a network sees and what its loss weighs is another matter: |eps_w - eps_theta|^2 is |T_w (xi - xi_theta)|^2.
    """
    spectrum, white_noise = SPECTRA["low"], SPECTRA["white"]
    inverse = sagd.Spectrum(1 / spectrum.weight)
    whitened = Mixture(inverse.sqrt(mixture.means), mixture.power / spectrum.weight.square(), mixture.weights)

    def run(target, noise):
        source = torch.Generator().manual_seed(0)

        def white():
            return torch.randn((4, 2, *SIZE), generator=source, dtype=torch.float64)

        exact = target.predict(SCHEDULE, noise)
        return DIFFUSION.sample(exact, noise, noise.shape(white()), sagd.Sampler(sampler, 50), white=white)

    shaped, plain = run(mixture, spectrum), run(whitened, white_noise)
    torch.testing.assert_close(spectrum.sqrt(plain), shaped, atol=1e-9, rtol=1e-9)
    assert shaped.std() > 0.1


def test_finite_data_draws_the_data(generator):
    """The empirical score memorises: DDIM lands on the images of the set, on each of them."""
    images = torch.randn((5, 1, *SIZE), generator=generator, dtype=torch.float64)
    for spectrum in (SPECTRA["white"], SPECTRA["low"]):
        target = finite(images)
        start = spectrum.shape(torch.randn((60, 1, *SIZE), generator=generator, dtype=torch.float64))
        x = DIFFUSION.sample(target.predict(SCHEDULE, spectrum), spectrum, start, sagd.Sampler(steps=100))
        gaps = torch.cdist(x.flatten(1), images.flatten(1))
        assert gaps.min(1).values.max() < 1e-6
        assert len(gaps.argmin(1).unique()) == 5


def test_finite_data_is_the_softmax_over_its_images(generator):
    """Against weights written out in pixels, for white noise."""
    images = torch.randn((7, 1, *SIZE), generator=generator, dtype=torch.float64)
    xt, t = torch.randn((3, 1, *SIZE), generator=generator, dtype=torch.float64), 500
    signal, sigma = SCHEDULE.alpha_bar[t].sqrt(), (1 - SCHEDULE.alpha_bar[t]).sqrt()
    distances = (xt[:, None] - signal * images[None]).square().flatten(2).sum(2)
    x0 = torch.einsum("bk,kchw->bchw", torch.softmax(-distances / (2 * sigma**2), 1), images)
    found = finite(images).predict(SCHEDULE, SPECTRA["white"])(xt, full(xt, t))
    torch.testing.assert_close(found, (xt - signal * x0) / sigma, atol=1e-9, rtol=1e-9)


def test_the_oracle_has_the_least_loss(mixture, generator):
    """Eq. 26: no other predictor has a smaller l2 loss; a scaled oracle has a larger one, on the same draws."""
    spectrum, t = SPECTRA["low"], torch.full((20_000,), 300)
    x0 = mixture.sample(len(t), generator=generator)
    eps = spectrum.sample(x0.shape, generator=generator, dtype=torch.float64)
    oracle = mixture.predict(SCHEDULE, spectrum)
    best = sagd.eps_loss(oracle, SCHEDULE, x0, t, eps)
    for scale in (0.95, 1.05):
        worse = sagd.eps_loss(lambda x, t, scale=scale: scale * oracle(x, t), SCHEDULE, x0, t, eps)
        assert worse > best * 1.0005


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_oracle_predicts_each_example_at_its_own_time(mixture, prediction, generator):
    """As a network in training is asked: a batch of random t gives what each t gives alone."""
    spectrum, t = SPECTRA["low"], torch.tensor([3, 900, 3, 41])
    x = torch.randn((4, 2, *SIZE), generator=generator, dtype=torch.float64)
    oracle = mixture.predict(SCHEDULE, spectrum, prediction)
    alone = torch.cat([oracle(x[k : k + 1], t[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(oracle(x, t), alone, atol=1e-12, rtol=1e-12)
    eps = spectrum.sample(x.shape, generator=generator, dtype=torch.float64)
    assert sagd.eps_loss(mixture.predict(SCHEDULE, spectrum), SCHEDULE, x, t, eps).isfinite()


def test_distance_is_the_frechet_distance_of_pixels(field, generator):
    """Against `sagd.metrics.frechet_distance` of the dense moments."""
    from sagd.metrics.frechet import Moments, frechet_distance

    other = gaussian_field(field.means[0] + 0.1, power_of(sagd.power_law(SIZE, 0.3)))
    unit = torch.eye(36, dtype=torch.float64).reshape(36, *SIZE)

    def dense(f):
        return Moments.given(
            f.means[0].flatten().numpy(), sagd.Spectrum(f.power[0, 0].sqrt()).covariance(unit).reshape(36, 36).numpy()
        )

    expected = frechet_distance(dense(field), dense(other))
    assert sum(distance(field, other).values()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: drawn(m, DIFFUSION, SPECTRA["white"], sagd.Sampler()), "3 components"),
        (lambda m: Mixture(m.means, m.power[:2], m.weights), "do not fit"),
        (lambda m: Mixture(m.means, -m.power, m.weights), "negative"),
        (lambda m: Mixture(m.means, m.power, -m.weights), "negative"),
        (lambda m: Mixture(m.means, m.power, 2 * m.weights), "the sum of weights is 2; it must be 1"),
        (lambda m: Mixture(m.means, m.power.cumsum(-1), m.weights), "the same at f and -f"),
        (lambda m: sagd.Varying(SPECTRA["white"], SPECTRA["omitted band"], SCHEDULE.alpha_bar), "same frequencies"),
    ],
)
def test_bad_input_is_told(mixture, call, says):
    with pytest.raises(sagd.InputError, match=says):
        call(mixture)


@pytest.mark.parametrize("steps", [1, 20])
def test_the_oracle_is_right_where_the_signal_ends(steps):
    """At zero terminal SNR x_T says nothing of x0: v there is minus the mean of the data, and samples are the data."""
    schedule = sagd.Schedule.zero_terminal_snr()
    mean = torch.full((1, 8, 8), -0.7, dtype=torch.float64)
    field = gaussian_field(mean, torch.full_like(mean, 0.3))
    spectrum = SPECTRA["white"] if SPECTRA["white"].size == (8, 8) else sagd.isotropic((8, 8))
    x = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = field.predict(schedule, spectrum, "v")(x, full(x, 999))
    assert torch.allclose(v, -mean.expand_as(v), atol=1e-12)
    diffusion = sagd.Diffusion(schedule, "v")
    found = [
        drawn(field, diffusion, spectrum, sagd.Sampler("ddim", steps, "trailing", start)).means
        for start in ("noise", "marginal")
    ]
    assert torch.allclose(found[0], mean[None], atol=1e-12) and torch.equal(*found)


def test_varying_noise_keeps_its_precision_where_weights_span_decades():
    """One multiplier near 1, not w^-1 and then w: in float32 the difference is that between right and garbage."""
    first, last = (sagd.power_law((8, 8), alpha, dc="floor") for alpha in (1.0, 0.5))
    varying = sagd.Varying(first, last, SCHEDULE.alpha_bar)
    eps = varying.at(980).sqrt(torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).double())
    exact, single = varying.transfer(eps, 980, 960), varying.transfer(eps.float(), 980, 960)
    assert (exact - single).abs().max() < 1e-5


def test_varying_noise_of_another_schedule_is_refused():
    varying = sagd.Varying(*(sagd.power_law((8, 8), a) for a in (0.5, -0.5)), SCHEDULE.alpha_bar)
    other = sagd.Schedule.linear(100)
    with pytest.raises(sagd.InputError, match="another schedule"):
        sagd.Diffusion(other).sample(lambda x, t: x, varying, torch.zeros(1, 1, 8, 8), sagd.Sampler(steps=5))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda f: finite(f.means).log_density(f.means, -1, SCHEDULE, sagd.isotropic((8, 8))), "no density"),
        (lambda f: gaussian_field(f.means[0] * math.nan, f.power[0]), "not finite"),
        (
            lambda f: drawn(f, DIFFUSION, sagd.isotropic((8, 8), normalize="sample"), sagd.Sampler()),
            "no Gaussian noise",
        ),
        (lambda f: drawn(f, DIFFUSION, sagd.isotropic((8, 8)), sagd.Sampler(clip=True)), "clip must be off"),
    ],
)
def test_what_has_no_answer_is_refused(bad, says):
    field = gaussian_field(torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
    with pytest.raises(sagd.InputError, match=says):
        bad(field)
