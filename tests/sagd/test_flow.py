"""Flow matching and EDM with shaped noise, against exact Gaussians and against diffusers at white noise."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

import sagd
from sagd.formulations import build
from sagd.formulations.base import EMBEDDED
from sagd.formulations.edm import EDM
from sagd.formulations.flow import Flow, dimension_shift
from sagd.oracle import targets as oracle

SIZE = (8, 8)
SPECTRA = {
    "white": sagd.isotropic(SIZE),
    "low": sagd.power_law(SIZE, -0.4),
    "omitting": sagd.two_band(SIZE, 0.5, (0.0, 0.4), (0.6, 1.0)),
}


def field():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn((1, *SIZE), generator=generator, dtype=torch.float64) * 0.3
    power = sagd.power_law(SIZE, -1.0).weight.square()[None] * 0.5
    return oracle.gaussian_field(mean, power)


def white(n, seed=1):
    return torch.randn((n, 1, *SIZE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_score(data, spectrum, x, signal, sigma):
    """Of x = signal x0 + sigma eps_w at a Gaussian field: -(signal^2 S + sigma^2 w^2)^-1 (x - signal mean)."""
    variance = signal**2 * data.power + (sigma * spectrum.weight).square()
    gain = torch.where(spectrum.support, 1 / variance, 0.0)
    return -torch.fft.ifft2(torch.fft.fft2(x - signal * data.means) * gain).real


@pytest.mark.parametrize("name", SPECTRA)
def test_scores_of_each_parameterisation_are_the_gaussians(name):
    spectrum, data, flow, edm = SPECTRA[name], field(), Flow(), EDM()
    t = 0.3
    times, levels = torch.full((4,), t, dtype=torch.float64), torch.full((4,), 2.5, dtype=torch.float64)
    xt = 0.7 * data.sample(4, generator=torch.Generator().manual_seed(2)) + t * spectrum.sqrt(white(4))
    velocity = data.velocity(spectrum)(xt, EMBEDDED * times)
    score = flow.score_from_velocity(spectrum, xt, times, velocity)
    assert torch.allclose(score, exact_score(data, spectrum, xt, 0.7, t), atol=1e-9)
    back = flow.velocity_from_score(spectrum, xt, times, score)
    assert torch.allclose(spectrum.project(back), spectrum.project(velocity), atol=1e-9)

    x = data.sample(4, generator=torch.Generator().manual_seed(2)) + 2.5 * spectrum.sqrt(white(4))
    denoised = data.denoised(x, 2.5, spectrum)
    score = edm.score_from_denoised(spectrum, x, levels, denoised)
    assert torch.allclose(score, exact_score(data, spectrum, x, 1.0, 2.5), atol=1e-9)
    assert torch.allclose(edm.denoised_from_score(spectrum, x, levels, score), denoised, atol=1e-9)


def raw(edm, data, spectrum):
    """The network F that makes EDM's D exact."""

    def predict(scaled, t):
        sigma = (4 * t[0] / EMBEDDED).exp().item()
        total = sigma**2 + edm.sigma_data**2
        x = scaled * total**0.5
        c_skip, c_out = edm.sigma_data**2 / total, sigma * edm.sigma_data / total**0.5
        return (data.denoised(x, sigma, spectrum) - c_skip * x) / c_out

    return predict


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("name", ["white", "low"])
def test_samplers_reach_a_gaussian_under_any_weight(name, sampler):
    """The exact ODE maps noise to data frequency by frequency: x = mean + sqrt(S) / w times the noise."""
    spectrum, data = SPECTRA[name], field()
    start = spectrum.sqrt(white(3))
    wanted = data.means + torch.fft.ifft2(torch.fft.fft2(white(3)) * data.power.sqrt()).real
    found = Flow(shift=2.0).sample(data.velocity(spectrum), spectrum, start, sagd.Sampler(sampler, 400))
    assert (found - wanted).abs().max() < (2e-2 if sampler == "euler" else 2e-3)
    edm = EDM(sigma_max=500.0, sigma_min=1e-4)
    found = edm.sample(raw(edm, data, spectrum), spectrum, start, sagd.Sampler(sampler, 400))
    assert (found - wanted).abs().max() < (5e-2 if sampler == "euler" else 5e-3)


def test_an_omitted_band_stays_empty():
    spectrum, data, edm = SPECTRA["omitting"], field(), EDM()
    start = spectrum.sqrt(white(2))
    drawn = [
        Flow().sample(data.velocity(spectrum), spectrum, start, sagd.Sampler("euler", 20)),
        edm.sample(lambda x, t: torch.ones_like(x) + x, spectrum, start, sagd.Sampler("heun", 5)),
    ]
    for x in drawn:
        off = torch.fft.fft2(x).abs()[..., ~spectrum.support]
        assert off.max() < 1e-9 * torch.fft.fft2(x).abs().max()


def test_training_noise_is_the_only_random_thing_in_a_loss():
    """At its exact minimum the flow loss is E || eps - x0 - v ||^2 of the Gaussian, in closed form."""
    spectrum, data, n, t = SPECTRA["low"], field(), 4000, 0.6
    x0 = data.sample(n, generator=torch.Generator().manual_seed(3))
    eps = spectrum.sqrt(white(n, 4))
    loss = Flow().loss(data.velocity(spectrum), spectrum, x0, torch.full((n,), t, dtype=torch.float64), eps).item()
    noise, signal = spectrum.weight.square(), data.power[0, 0]
    # Var(eps - x0 | x_t) at each frequency: of two independent Gaussians, given (1 - t) x0 + t eps.
    variance = (noise * signal / ((1 - t) ** 2 * signal + t**2 * noise)).mean().item()
    assert loss == pytest.approx(variance, rel=0.02)

    edm, sigma = EDM(sigma_data=0.7), 1.3
    levels = torch.full((n,), sigma, dtype=torch.float64)
    weighted = edm.loss(raw(edm, data, spectrum), spectrum, x0, levels, eps).item()
    remains = (sigma**2 * noise * signal / (signal + sigma**2 * noise)).mean().item()
    assert weighted == pytest.approx(remains * (sigma**2 + 0.49) / (sigma * 0.7) ** 2, rel=0.02)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_flow_sampler_equals_diffusers(sampler):
    peer = {"euler": FlowMatchEulerDiscreteScheduler, "heun": FlowMatchHeunDiscreteScheduler}[sampler]()
    flow, data, spectrum = Flow(), field(), SPECTRA["white"]
    predict, x = data.velocity(spectrum), white(2)
    sigmas = flow.grid(10)
    if sampler == "euler":
        peer.set_timesteps(sigmas=sigmas[:-1].tolist())
    else:
        peer.set_timesteps(10)
        sigmas = torch.cat([peer.sigmas[:-1:2].double(), torch.zeros(1, dtype=torch.float64)])
        flow = type("Given", (Flow,), {"grid": lambda self, steps: sigmas})()
    theirs = x
    for t, sigma in zip(peer.timesteps, peer.sigmas, strict=False):
        theirs = peer.step(predict(theirs, torch.full((2,), EMBEDDED * sigma.item())), t, theirs).prev_sample
    ours = flow.sample(predict, spectrum, x, sagd.Sampler(sampler, 10))
    assert torch.allclose(ours, theirs.double(), atol=1e-4)


def test_edm_preconditioning_and_levels_equal_diffusers():
    peer, edm = EDMEulerScheduler(sigma_data=0.5), EDM()
    peer.set_timesteps(12)
    assert torch.allclose(edm.grid(12).float(), peer.sigmas, rtol=1e-5)
    x, data, spectrum = white(2), field(), SPECTRA["white"]
    predict = raw(edm, data, spectrum)
    theirs = x * peer.init_noise_sigma * (edm.sigma_max / (edm.sigma_max**2 + 1) ** 0.5)  # theirs adds unit data
    for t in peer.timesteps:
        scaled = peer.scale_model_input(theirs, t)
        output = predict(scaled, torch.full((2,), EMBEDDED * t.item(), dtype=torch.float64))
        theirs = peer.step(output, t, theirs).prev_sample
    ours = edm.sample(predict, spectrum, x, sagd.Sampler("euler", 12))
    assert torch.allclose(ours, theirs.double(), atol=2e-4)


def test_times_follow_their_laws():
    source = torch.Generator().manual_seed(0)
    assert dimension_shift((768, 16, 16)) == pytest.approx(6.928, abs=1e-3)
    shift = Flow(shift=6.928)
    assert shift.grid(49)[[0, -1]].tolist() == [1.0, 0.0] and len(shift.grid(49)) == 50
    t = shift.draw_times(20_000, generator=source)
    assert t.median().item() == pytest.approx(6.928 / 7.928, abs=0.01)
    t = Flow("logit_normal").draw_times(20_000, generator=source)
    assert t.logit().std().item() == pytest.approx(1, abs=0.02) and abs(t.median().item() - 0.5) < 0.01
    sigma = EDM().draw_times(20_000, generator=source)
    assert sigma.log().mean().item() == pytest.approx(-1.2, abs=0.03)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Flow("cosine"), "times is 'cosine'"),
        (lambda: Flow(shift=0), "shift is 0"),
        (lambda: Flow().grid(0), "steps is 0"),
        (lambda: EDM().grid(1), "steps is 1"),
        (lambda: EDM(sigma_min=1, sigma_max=0.5), "sigma_min < sigma_max"),
        (lambda: EDM(rho=math.nan), "finite"),
        (lambda: EDM().sample(None, SPECTRA["white"], white(1), sagd.Sampler("ddim")), "sampler is 'ddim'"),
        (lambda: Flow().check(SPECTRA["white"], sagd.Sampler("euler", start="marginal")), "from noise alone"),
        (lambda: Flow().check(SPECTRA["white"], sagd.Sampler("euler", clip=True)), "clip is on; Flow is sampled"),
        (lambda: build("linear", "eps", (1, 8, 8), {"shift": 2.0}), "schedule linear: .*shift"),
        (
            lambda: Flow().check(sagd.Varying(SPECTRA["white"], SPECTRA["low"], sagd.Schedule.linear().alpha_bar)),
            "discrete schedule",
        ),
    ],
)
def test_refuses(make, says):
    with pytest.raises(sagd.InputError, match=says):
        make()
