"""Pyramid noise: the weight is the covariance of what trainers compute, averaged over all shifts, exactly."""

import itertools
import json
import math
import random

import pytest
import torch
import torch.nn.functional as F

import sagd
from sagd.operators import from_dict
from sagd.operators._upsampling import banded, by_row

SIZES = [(8, 8), (7, 9), (6, 5), (16,), (9,), (4, 6, 5)]
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grids(size, iterations, sizes, ratio):
    """The grids of one batch, as trainers compute them; ``ratio`` gives the next r."""
    grid = size
    for i in range(iterations):
        r = ratio()
        grid = tuple(max(1, int(n / r**i)) for n in (size if sizes == "kohya" else grid))
        yield grid
        if min(grid) == 1:
            return


def pyramid_noise(noise, draw, iterations, discount, sizes, ratio):
    """What trainers make of noise (B, 1, ...), before they divide it; ``draw`` gives more normal numbers."""
    size = tuple(noise.shape[2:])
    for i, grid in enumerate(grids(size, iterations, sizes, ratio)):
        noise = noise + F.interpolate(draw(grid), size=size, mode=MODES[len(size)]) * discount**i
    return noise


def linear_map(noise, size):
    """(normals, *size): what each normal number that a formula draws adds to the image."""
    counts = []
    noise(lambda shape: counts.append(math.prod(shape)) or torch.zeros((1, 1, *shape), dtype=torch.float64))
    unit_vectors = iter(torch.eye(sum(counts), dtype=torch.float64).split(counts, dim=1))
    return noise(lambda shape: next(unit_vectors).reshape(-1, 1, *shape)).reshape(-1, *size)


def power(rows):
    """E |F eps|^2 at each frequency, of a linear map."""
    axes = tuple(range(1, rows.ndim))
    return torch.fft.fftn(rows, dim=axes, norm="ortho").abs().square().sum(0)


def over_shifts(rows):
    """The covariance, averaged over all shifts of the image: (pixels, pixels)."""
    size, n = rows.shape[1:], rows[0].numel()
    axes = tuple(range(1, rows.ndim))
    shifts = [rows.roll(shift, axes).reshape(-1, n) for shift in itertools.product(*map(range, size))]
    return sum(shifted.T @ shifted for shifted in shifts) / n


@pytest.mark.parametrize("sizes", ["kohya", "original"])
@pytest.mark.parametrize("shrink", [2, 1.7, 3.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_covariance_is_that_of_the_linear_map_over_all_shifts(size, shrink, sizes):
    spectrum = sagd.pyramid(size, 4, 0.7, shrink=shrink, sizes=sizes, normalize="none")
    rows = linear_map(lambda draw: pyramid_noise(draw(size), draw, 4, 0.7, sizes, lambda: shrink), size)
    torch.testing.assert_close(spectrum.weight.square(), power(rows), atol=1e-12, rtol=1e-12)
    n = math.prod(size)
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *size)
    torch.testing.assert_close(spectrum.covariance(basis).reshape(n, n), over_shifts(rows), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("n", [12, 17])
def test_random_ratios_are_averaged_exactly(n):
    """A side n becomes k = int(n / r^i) where r is between (n / (k + 1))^(1/i) and (n / k)^(1/i)."""
    wanted, reached = torch.full((n, n), 2.0, dtype=torch.float64), 1.0  # white noise, and that of i = 0
    for i in range(1, 5):
        for k in range(1, n + 1):
            low, high = max(2.0, (n / (k + 1)) ** (1 / i)), min(4.0, (n / k) ** (1 / i) if k > 1 else 4.0)
            grid = (k, k)
            rows = linear_map(lambda draw, grid=grid: F.interpolate(draw(grid), size=(n, n), mode="bilinear"), (n, n))
            wanted += reached * max(0.0, high - low) / 2 * 0.6 ** (2 * i) * power(rows)
        reached *= 1 - max(0.0, 4 - max(2.0, (n / 2) ** (1 / i))) / 2  # it ends with a grid that is 1 wide
    found = sagd.pyramid((n, n), 5, 0.6, normalize="none").weight.square()
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("size", [(12, 10), (9, 15)], ids=str)
@pytest.mark.parametrize(("sizes", "discount"), [("kohya", 0.3), ("kohya", 0.8), ("original", 0.8)])
def test_the_weight_is_the_mean_power_of_many_draws(size, sizes, discount):
    """Of kohya's and EveryDream2's noise, random ratios and the division by the batch's deviation included."""
    generator, ratios = torch.Generator().manual_seed(0), random.Random(0)

    def draw(shape):
        return torch.randn((64, 1, *shape), generator=generator)

    means = []
    for _ in range(300):
        noise = pyramid_noise(draw(size), draw, 10, discount, sizes, lambda: ratios.random() * 2 + 2)
        noise = noise / noise.std()
        means.append(torch.fft.fft2(noise[:, 0], norm="ortho").abs().square().mean(0).double())
    means = torch.stack(means)
    error = means.std(0) / len(means) ** 0.5
    wanted = sagd.pyramid(size, 10, discount, sizes=sizes).weight.square()
    assert (error / wanted).max() < 0.05
    # The division knows the batch, which moves the mean power of a frequency by up to 2 %.
    assert ((means.mean(0) - wanted).abs() <= 5 * error + 0.02 * wanted).all()


# Of a 64 x 64 latent, as docs/trainers.md states them: the off-diagonal share of the covariance's squared norm; the
# variance of the pixel that varies most, and the power of the zero frequency, over their means.
STATED = {
    ("kohya", 6, 0.3): (0.0005, 1.03, 2.65),
    ("kohya", 10, 0.8): (0.018, 1.22, 345),
    ("original", 10, 0.8): (0.010, 1.16, 531),
}


@pytest.mark.parametrize(("sizes", "iterations", "discount"), STATED)
def test_what_the_diagonal_leaves_out_is_as_stated(sizes, iterations, discount):
    """tr(Sigma^2), from products of the grids' one-dimensional covariances, over the sum of squares on the diagonal."""
    ratios, n, draws, variances = random.Random(0), 64, 3000, {}
    for _ in range(draws):
        for i, (side, _) in enumerate(grids((n, n), iterations, sizes, lambda: ratios.random() * 2 + 2)):
            variances[side] = variances.get(side, 0.0) + discount ** (2 * i) / draws
    variances[n] += 1.0
    rows = [F.interpolate(torch.eye(k, dtype=torch.float64)[:, None], size=n, mode="linear")[:, 0] for k in variances]
    along = torch.stack([(r.T @ r).flatten() for r in rows])  # covariance of an axis, for each grid
    weights = torch.tensor(list(variances.values()), dtype=torch.float64)
    total = weights @ (along @ along.T).square() @ weights
    axis = torch.stack([torch.fft.fft(r, norm="ortho").abs().square().sum(0) for r in rows])
    diagonal = torch.einsum("k,ki,kj->ij", weights, axis, axis)
    share, most, boost = STATED[sizes, iterations, discount]
    assert (1 - diagonal.square().sum() / total).item() == pytest.approx(share, rel=0.1)
    pixels = along.reshape(-1, n, n).diagonal(dim1=1, dim2=2)
    variance = torch.einsum("k,ki,kj->ij", weights, pixels, pixels)
    assert (variance.max() / variance.mean()).item() == pytest.approx(most, abs=0.01)
    weight = sagd.pyramid((n, n), iterations, discount, sizes=sizes).weight.square()
    assert weight[0, 0].item() == pytest.approx(boost, rel=0.005)


@pytest.mark.parametrize(("n", "into"), [(1, 8), (2, 9), (5, 12), (12, 12), (11, 12), (17, 100)])
def test_large_sides_are_upsampled_as_small_ones(n, into):
    torch.testing.assert_close(banded(n, into), by_row(n, into), atol=1e-13, rtol=1e-13)


def test_a_side_too_wide_to_try_all_ratios_is_refused():
    with pytest.raises(sagd.InputError, match=r"size is \(5000,\); under random ratios a side has 4,096 pixels"):
        sagd.pyramid((5000,))
    assert sagd.pyramid((5000,), shrink=2).size == (5000,)


@pytest.mark.parametrize("arguments", [{"iterations": 1}, {"discount": 0.0}])
def test_grids_of_full_size_alone_are_white(arguments):
    torch.testing.assert_close(sagd.pyramid((8, 6), **arguments).weight, torch.ones(8, 6, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_has_unit_variance_and_survives_json(size):
    spectrum = sagd.pyramid(size, 3, 0.5, shrink=2, sizes="original")
    assert spectrum.weight.square().mean().item() == pytest.approx(1, abs=1e-12)
    again = from_dict(json.loads(json.dumps(spectrum.to_dict())))
    assert torch.equal(again.weight, spectrum.weight)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"iterations": 0}, "iterations is 0; it must be a whole number from 1 to 10000"),
        ({"iterations": 10**9}, "iterations is 1000000000; it must be a whole number from 1 to 10000"),
        ({"iterations": True}, "iterations is True"),
        ({"discount": "0.3"}, "discount is '0.3'"),
        ({"iterations": 2.5}, "iterations is 2.5"),
        ({"discount": -0.1}, r"discount is -0.1; it must lie in \[0, 1\]"),
        ({"discount": math.nan}, "discount is nan"),
        ({"shrink": 1}, "shrink is 1; it must be random, or a number above 1"),
        ({"shrink": "halves"}, "shrink is 'halves'"),
        ({"sizes": "everydream"}, "sizes is 'everydream'; allowed: kohya, original"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, says):
    with pytest.raises(sagd.InputError, match=says) as failure:
        sagd.pyramid((8, 8), **arguments)
    assert "\n" not in str(failure.value)
