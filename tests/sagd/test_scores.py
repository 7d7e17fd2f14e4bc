"""Differences of learnt scores, on targets whose score is known."""

import pytest
import torch

import sagd
from sagd.errors import InputError
from sagd.metrics.scores import score_difference
from sagd.noise.randomness import generator
from sagd.oracle.targets import Mixture

SIZE, DIFFUSION = (8, 8), sagd.Diffusion(sagd.Schedule.linear(), "v")
MEANS = torch.randn((3, 1, *SIZE), generator=generator(0, "means"), dtype=torch.float64)
TARGET = Mixture(MEANS, torch.full_like(MEANS[:1], 0.1), torch.full((3,), 1 / 3, dtype=torch.float64))
X0 = TARGET.sample(40, generator=generator(0, "data"))
WHITE = torch.randn(X0.shape, generator=generator(0, "white"), dtype=torch.float64)


def learnt(alpha):
    noise = sagd.power_law(SIZE, alpha)
    return TARGET.predict(DIFFUSION.schedule, noise, "v"), noise.at(0)


def test_perfect_scores_of_two_noises_approach_each_other_at_the_end():
    found = [score_difference(learnt(-0.25), learnt(0.25), DIFFUSION, X0, WHITE, t) for t in (0, 20, 100)]
    assert found[0] < 1e-4 and found == sorted(found) and found[-1] > 10 * found[0]


def test_a_score_is_that_of_the_density():
    """Against the gradient of the exact density, through v, eps and Sigma_w (eq. 9)."""
    noise, t = sagd.power_law(SIZE, -0.25), 300
    x = X0.clone().requires_grad_()
    exact = torch.autograd.grad(TARGET.log_density(x, t, DIFFUSION.schedule, noise).sum(), x)[0]
    other = (lambda xt, ts: torch.zeros_like(xt), noise.at(t))  # v = 0: eps = sigma x_t
    alone = DIFFUSION.schedule.score_from_eps(noise.at(t), t, DIFFUSION.schedule.signal_and_sigma(t, x)[1] * x)
    expected = 2 * (exact - alone).square().sum() / (exact.square().sum() + alone.square().sum())
    schedule = sagd.Schedule(DIFFUSION.schedule.alpha_bar)
    # q_sample must give x itself: x0 is chosen so, without noise.
    x0 = (x / schedule.signal_and_sigma(t, x)[0]).detach()
    found = score_difference(learnt(-0.25), other, DIFFUSION, x0, torch.zeros_like(x0), t)
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_a_network_equals_itself_and_batches_change_nothing():
    one, other = learnt(0.25), learnt(-0.25)
    assert score_difference(one, one, DIFFUSION, X0, WHITE, 50) == 0
    whole, parts = (score_difference(one, other, DIFFUSION, X0, WHITE, 50, size) for size in (40, 7))
    assert whole == pytest.approx(parts, rel=1e-10)


def test_scores_that_are_not_finite_are_told():
    broken = (lambda xt, ts: torch.full_like(xt, torch.nan), learnt(0.0)[1])
    with pytest.raises(InputError, match="the scores at step 50 are not finite"):
        score_difference(broken, learnt(0.25), DIFFUSION, X0, WHITE, 50)
    with pytest.raises(InputError, match=r"x0 has shape \(40, 1, 8, 8\), white \(39, 1, 8, 8\)"):
        score_difference(learnt(0.0), learnt(0.25), DIFFUSION, X0, WHITE[1:], 50)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"t": None}, "t is None; it must be a whole number from 0 to 999"),
        ({"t": 1000}, "t is 1000"),
        ({"t": -1}, "t is -1"),
        ({"x0": X0.numpy()}, "x0 is a ndarray"),
        ({"white": WHITE.long()}, "white is int64"),
    ],
)
def test_bad_input_is_told(changed, says):
    good = {"one": learnt(0.0), "other": learnt(0.25), "diffusion": DIFFUSION, "x0": X0, "white": WHITE, "t": 50}
    with pytest.raises(InputError, match=says):
        score_difference(**good | changed)
