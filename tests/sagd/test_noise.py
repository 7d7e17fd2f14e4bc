"""The noise is N(0, Sigma_w), exactly, under every convention."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sagd
from sagd.metrics.rapsd import rapsd
from sagd.noise import stored
from sagd.noise.grid import radius
from sagd.operators import build, from_dict

SIZES = [(8, 8), (7, 9), (6, 5), (5, 8), (16,), (9,), (4, 6, 5)]  # images, signals, a volume
SPECTRA = {
    "isotropic": lambda size: sagd.isotropic(size),
    "power law": lambda size: sagd.power_law(size, -0.5),
    "power law, high": lambda size: sagd.power_law(size, 0.3, grid="linspace"),
    "power law, floor": lambda size: sagd.power_law(size, 0.08, dc="floor", normalize="none"),
    "band pass": lambda size: sagd.band_pass(size, (0.2, 0.7)),
    "two-band": lambda size: sagd.two_band(size, 0.3, low=(0, 0.4), high=(0.6, 1)),
    "two-band, per band": lambda size: sagd.two_band(size, 0.3, bands="per_band", units="nyquist", high=(0.5, 1.5)),
    "exponential": lambda size: sagd.exponential(size, 4.0),
}
VARYING = sagd.Varying(sagd.isotropic((8, 8)), sagd.power_law((8, 8), 0.2), sagd.Schedule.linear(10).alpha_bar)


def cases(test):
    """Every convention at every size."""
    sized = pytest.mark.parametrize("size", SIZES, ids=str)
    return sized(pytest.mark.parametrize("make", SPECTRA.values(), ids=SPECTRA.keys())(test))


def basis(size):
    return torch.eye(math.prod(size), dtype=torch.float64).reshape(-1, *size)


def dense_covariance(weight):
    """Sigma_w = F^-1 Diag(w^2) F (eq. 7) as a matrix, from the definition of the DFT."""
    f = torch.ones((1, 1), dtype=torch.complex128)
    for n in weight.shape:
        index = torch.arange(n).double()
        f = torch.kron(f, torch.exp(-2j * math.pi * torch.outer(index, index) / n) / math.sqrt(n))
    return (f.conj().T @ torch.diag(weight.flatten().to(f.dtype) ** 2) @ f).real


@cases
def test_operators_are_the_dense_matrices(make, size):
    spectrum, n = make(size), math.prod(size)
    sigma = dense_covariance(spectrum.weight)
    x = basis(size)
    torch.testing.assert_close(spectrum.covariance(x).reshape(n, n), sigma, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(spectrum.sqrt(spectrum.sqrt(x)), spectrum.covariance(x), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(
        spectrum.inverse(x).reshape(n, n), torch.linalg.pinv(sigma, hermitian=True), atol=1e-9, rtol=1e-7
    )
    torch.testing.assert_close(spectrum.project(x), spectrum.inverse(spectrum.covariance(x)), atol=1e-9, rtol=1e-9)


@cases
def test_sample_has_exactly_the_covariance(make, size, monkeypatch):
    """The draw is linear in its normals, y = A z: feed it unit vectors, and A^T A is the covariance, no statistics."""
    spectrum, n = make(size), math.prod(size)

    def unit_vectors(shape, **_):
        return torch.eye(shape[0], dtype=torch.float64).reshape(shape)

    monkeypatch.setattr(torch, "randn", unit_vectors)
    sigma = dense_covariance(spectrum.weight)
    a = spectrum.sample((n, *size), generator=None, dtype=torch.float64).reshape(n, n)
    torch.testing.assert_close(a.T @ a, sigma, atol=1e-12, rtol=1e-9)
    # Images are shaped in pairs; the other of a pair must not show.
    monkeypatch.setattr(
        torch, "randn", lambda shape, **_: torch.eye(n, dtype=torch.float64)[:1].expand(shape[0], n).reshape(shape)
    )
    one, *others = (spectrum.sample((k, *size), generator=None, dtype=torch.float64) for k in (1, 2, 5))
    for several in others:
        torch.testing.assert_close(several, one.expand_as(several), atol=1e-12, rtol=1e-9)


@cases
def test_weight_is_real_symmetric_and_survives_json(make, size):
    spectrum = make(size)
    w = spectrum.weight
    mirrored = w
    for axis, n in enumerate(size):
        mirrored = mirrored.index_select(axis, -torch.arange(n) % n)
    torch.testing.assert_close(w, mirrored, atol=0, rtol=0)
    again = from_dict(json.loads(json.dumps(spectrum.to_dict())))
    assert torch.equal(again.weight, w) and again.per_sample == spectrum.per_sample


@cases
def test_a_file_of_weights_makes_an_equal_noise(make, size, tmp_path):
    """What stages hand on: the weights, to the last bit, whatever operator made them."""
    spectrum = make(size)
    stored.save(tmp_path / "noise.safetensors", spectrum)
    again = stored.load(tmp_path / "noise.safetensors")
    assert torch.equal(again.weight, spectrum.weight) and again.per_sample == spectrum.per_sample
    draws = (s.sample((3, *size), generator=torch.Generator().manual_seed(0)) for s in (spectrum, again))
    assert torch.equal(*draws)


def test_a_file_of_weights_makes_an_equal_varying_noise(tmp_path):
    schedule = sagd.Schedule.linear(50)
    varying = sagd.Varying(sagd.power_law((6, 6), -0.4), sagd.power_law((6, 6), 0.2), schedule.alpha_bar)
    stored.save(tmp_path / "noise.safetensors", varying)
    again = stored.load(tmp_path / "noise.safetensors")
    assert torch.equal(again.weights, varying.weights) and not again.constant
    assert stored.fingerprint(again.tensors()) == stored.fingerprint(varying.tensors())
    assert stored.fingerprint(varying.first.tensors()) != stored.fingerprint(varying.last.tensors())


def test_a_file_that_holds_no_noise_is_refused(tmp_path):
    from sagd.runtime.files import write_tensors

    write_tensors(tmp_path / "noise.safetensors", {"unet": torch.ones(3)})
    with pytest.raises(sagd.InputError, match="holds no noise; it has the tensors unet"):
        stored.load(tmp_path / "noise.safetensors")


@pytest.fixture
def mine(tmp_path):
    """A file of a user's own operators."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "from sagd.noise.grid import radius\n"
        "def ring(size, middle=0.25): return torch.exp(-100 * (radius(size) - middle) ** 2)\n"
        "def like(size, power): return power.sqrt()\n"
        "def broken(size): return 1 / 0\n"
        "def small(size): return torch.ones(3, 3)\n"
        "def deep(size): return torch.ones(8, 8) @ torch.ones(3, 3)\n"
        "answer = 42\n"
    )
    (tmp_path / "bad.py").write_text("def ring(size):\n    return 1 +\n")
    return tmp_path


def test_an_operator_of_ones_own(mine):
    """A function of a file, without a fork: of the size, its arguments, and the data's power where it asks."""
    spectrum = build("mine.py:ring", (8, 8), arguments={"middle": 0.3}, folder=mine)
    torch.testing.assert_close(spectrum.weight, torch.exp(-100 * (radius((8, 8)) - 0.3) ** 2))
    power = torch.rand(8, 8, dtype=torch.float64) + 0.1
    power = (power + power.flip(0, 1).roll((1, 1), (0, 1))) / 2
    torch.testing.assert_close(build("mine.py:like", (8, 8), power, folder=mine).weight, power.sqrt())


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("mine.py:broken", {}, "mine.py, line 5: ZeroDivisionError"),
        ("mine.py:deep", {}, "mine.py, line 7: RuntimeError"),
        ("mine.py:small", {}, r"returns a weight of \(3, 3\); it must be \(8, 8\)"),
        ("mine.py:ring", {"center": 0.3}, "center"),
        ("mine.py:rung", {}, "has no function 'rung'"),
        ("mine.py:answer", {}, "has no function 'answer'"),
        ("yours.py:ring", {}, "there is no file"),
        ("bad.py:ring", {}, "line 2: SyntaxError"),
        ("pink", {}, "allowed: band_pass, data_matched"),
        ("power_law", {"alpha": 0.1, "slope": 1}, "slope"),
        ("power_law", {}, "alpha"),
    ],
)
def test_a_mistake_in_it_is_told_in_one_line(mine, name, arguments, says):
    with pytest.raises(sagd.InputError, match=says) as failure:
        build(name, (8, 8), arguments=arguments, folder=mine)
    assert "\n" not in str(failure.value)


def test_own_weight_survives_json():
    spectrum = sagd.Spectrum(torch.rand(4, 6, dtype=torch.float64), per_sample=True)
    again = from_dict(json.loads(json.dumps(spectrum.to_dict())))
    assert torch.equal(again.weight, spectrum.weight) and again.per_sample


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [-0.5, -0.06, 0.06, 0.5])
def test_power_law_is_equation_10_with_unit_pixel_variance(size, alpha):
    spectrum, r = sagd.power_law(size, alpha), radius(size)
    ratio = spectrum.weight[r > 0] / r[r > 0] ** alpha
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-7, atol=0)
    assert spectrum.weight.square().mean().item() == pytest.approx(1, abs=1e-12)
    assert spectrum.weight.flatten()[0].item() == pytest.approx(spectrum.weight[r == r[r > 0].min()][0].item())


def test_floor_is_the_papers_listing():
    weight = sagd.power_law((32, 32), -0.5, dc="floor", normalize="none").weight
    assert weight[0, 0].item() == pytest.approx(1e-10**-0.5)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
def test_slope_of_rapsd_is_twice_alpha(alpha, generator):
    """Section 2.3, by regression; the tolerance is four standard errors of the slope."""
    radii, power = rapsd(sagd.power_law((64, 64), alpha).sample((400, 64, 64), generator=generator))
    x, y = radii[1:33].log(), power[1:33].log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    error = ((y - slope * x).square().sum() / (len(x) - 2) / (x @ x)).sqrt()
    assert abs(slope - 2 * alpha) < 4 * error + 0.01


def test_even_strong_tilts_are_well_scaled(generator):
    """The paper's listing draws images of mean std 1698 at alpha -0.5; here a user's first experiment is finite."""
    x = sagd.power_law((32, 32), -0.5).sample((4000, 32, 32), generator=generator)
    assert torch.isfinite(x).all() and x.mean((-2, -1)).std() < 0.2
    assert x.std().item() == pytest.approx(1, abs=0.02)


def test_isotropic_is_randn(generator):
    same = torch.Generator().manual_seed(0)
    for spectrum in (sagd.isotropic((8, 6)), sagd.power_law((8, 6), 0.0), sagd.two_band((8, 6), 0.5)):
        x = spectrum.sample((3, 2, 8, 6), generator=generator)
        assert torch.equal(x, torch.randn((3, 2, 8, 6), generator=same))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [None, slice(1, 4)], ids=["all", "rows"])
@pytest.mark.parametrize("one_each", [False, True], ids=["one generator", "one an image"])
def test_every_operator_shapes_the_same_white_pixels(dtype, rows, one_each):
    """eps_w = T_w xi (eq. 5): what separates two settings with one seed goes to 0 as their weights come together."""
    shape, schedule = (7, 2, 16, 16), sagd.Schedule.linear()
    t = torch.full((7,), 500)

    def draw(noise):
        source = [torch.Generator().manual_seed(k) for k in range(7)] if one_each else torch.Generator().manual_seed(0)
        return noise.sample(shape, generator=source, t=t, rows=rows, dtype=dtype).double().flatten()

    def correlation(noise):
        return torch.corrcoef(torch.stack([draw(sagd.isotropic((16, 16))), draw(noise)]))[0, 1].item()

    assert correlation(sagd.power_law((16, 16), -0.001)) > 0.999
    assert correlation(sagd.power_law((16, 16), -0.06)) > 0.98
    mild = sagd.Varying(sagd.power_law((16, 16), -0.001), sagd.isotropic((16, 16)), schedule.alpha_bar)
    assert correlation(mild) > 0.999
    omitting = sagd.two_band((16, 16), 0.5, (0.0, 0.4), (0.5, 1.0))
    share = omitting.support.double().mean().item() ** 0.5  # of white noise that stays
    assert correlation(omitting) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16), (8, 1, 16, 16), (5, 3, 16, 16)], ids=str)
def test_a_draw_is_the_shaped_randn(shape):
    spectrum = sagd.power_law((16, 16), -0.4)
    drawn = spectrum.sample(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    white = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(drawn, spectrum.shape(white), atol=1e-12, rtol=1e-9)


def test_one_generator_an_image():
    spectrum = sagd.power_law((8, 8), -0.3)
    sources = [torch.Generator().manual_seed(k) for k in range(4)]
    together = spectrum.sample((4, 1, 8, 8), generator=sources)
    third = spectrum.sample((1, 8, 8), generator=torch.Generator().manual_seed(2))
    assert torch.equal(together[2], third)


def test_per_sample_normalisation_divides_by_each_images_deviation(generator):
    x = sagd.power_law((16, 16), -0.5, normalize="sample").sample((5, 3, 16, 16), generator=generator)
    torch.testing.assert_close(x.std((-2, -1), correction=0), torch.ones(5, 3))


def test_sampling_uses_the_noise_that_training_saw(generator):
    """Per-sample normalisation holds in `shape`, and so in every start and step, as it does in `sample`."""
    spectrum = sagd.power_law((16, 16), -0.5, dc="floor", normalize="sample")
    start = spectrum.shape(torch.randn((5, 1, 16, 16), generator=generator))
    torch.testing.assert_close(start.std((-2, -1), correction=0), torch.ones(5, 1))


def test_bands():
    low, high = sagd.band_pass((32, 32), (0, 0.5)), sagd.band_pass((32, 32), (0.5, 1))
    assert low.support[0, 0] and not high.support[0, 0]
    assert (low.support | high.support).all() and high.support[16, 16]
    omitted = sagd.band_pass((32, 32), (0.4, 0.5)).support
    kept = sagd.two_band((32, 32), 0.5, low=(0, 0.4), high=(0.5, 1)).support
    assert not (omitted & kept).any() and (omitted | kept).all()
    # (8, 8) lies at exactly half the corner radius: an edge decides it by the rule, not by rounding.
    assert omitted[8, 8]


def test_two_band_weighs_as_asked():
    w = sagd.two_band((32, 32), 0.3).weight
    assert w[0, 0] / w[16, 16] == pytest.approx(0.3 / 0.7)


def test_half_precision_and_shapes(generator):
    spectrum = sagd.power_law((8, 6), -0.2)
    assert spectrum.sample((2, 8, 6), generator=generator, dtype=torch.bfloat16).dtype == torch.bfloat16
    x = torch.randn((2, 3, 8, 6), generator=generator).bfloat16()
    assert spectrum.sqrt(x).dtype == torch.bfloat16 and spectrum.sqrt(x).shape == x.shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sagd.power_law((8, 8), math.nan), "alpha"),
        (lambda: sagd.power_law((8, 8), math.inf), "alpha"),
        (lambda: sagd.power_law((8, 8), -40.0, dc="floor"), "alpha"),
        (lambda: sagd.power_law((8, 8), 4000.0), "alpha"),
        (lambda: sagd.power_law((8, 8), 0.1, dc="zero"), "lowest, floor"),
        (lambda: sagd.power_law((8, 8), 0.1, grid="dct"), "fftfreq, linspace"),
        (lambda: sagd.power_law((), 0.1), "size"),
        (lambda: sagd.power_law(8, 0.1), "size is 8; it must be"),
        (lambda: sagd.power_law((8, 1), 0.1), "size"),
        (lambda: sagd.power_law((8, 8, 8, 8), 0.1), "size"),
        (lambda: sagd.band_pass((8, 8), (0.5, 0.4)), "low < high"),
        (lambda: sagd.band_pass((8, 8), (0.41, 0.42)), "no frequency"),
        (lambda: sagd.two_band((8, 8), 1.5), "gamma_low"),
        (lambda: sagd.two_band((8, 8), 0.5, low=(0, 0.6)), "overlap"),
        (lambda: sagd.exponential((8, 8), math.inf), "beta"),
        (lambda: sagd.Spectrum(torch.zeros(4, 4)), "> 0"),
        (lambda: sagd.Spectrum(-torch.ones(4, 4)), ">= 0"),
        (lambda: from_dict({"operator": "pink", "size": [8, 8]}), "pink"),
        (lambda: from_dict({"operator": "power_law", "size": [8, 8], "slope": 1}), "slope"),
        (lambda: from_dict({"operator": "custom"}), "weight"),
        (lambda: from_dict({"operator": "custom", "weight": [[1, 2], [3]]}), "weight"),
        (lambda: from_dict({"operator": "varying", "first": {"operator": "isotropic", "size": [8, 8]}}), "last"),
        (lambda: from_dict({"operator": ["power_law"]}), "power_law"),
        (lambda: from_dict({}), "operator is None"),
        (lambda: build("equal_snr", (8, 8)), "needs their power"),
        (lambda: sagd.band_pass((8, 8), (0, 0.01), normalize="sample"), "zero frequency alone"),
        (lambda: sagd.isotropic((8, 8)).sample((2, 8, 9), generator=None), "size"),
        (lambda: sagd.power_law((8, 8), 0.1).shape(torch.zeros(2, 8, 9)), "does not end in this spectrum's size"),
        (lambda: sagd.power_law((8, 8), 0.1).inverse(torch.zeros(2, 1, 8)), "does not end in this spectrum's size"),
        (lambda: sagd.power_law((8, 8), 0.1).project(torch.zeros(2, 4, 4)), "does not end in this spectrum's size"),
        (lambda: VARYING.sample((2, 8, 8), generator=None, t=torch.zeros(3, dtype=torch.int64)), "one for each of 2"),
        (lambda: sagd.Varying(VARYING, VARYING, VARYING.alpha_bar), "do not vary"),
    ],
)
def test_bad_input_is_told_in_one_line(make, says):
    with pytest.raises(sagd.InputError, match=says) as failure:
        make()
    assert "\n" not in str(failure.value)


def test_offset_noise_is_white_noise_with_a_shift_of_each_channel(generator):
    """What diffusers' scripts add: strength times one normal number for each image and channel."""
    eps = sagd.offset((16, 16), 0.1, normalize="none").sample((4000, 2, 16, 16), generator=generator)
    white = torch.randn((4000, 2, 16, 16), generator=generator) + 0.1 * torch.randn(
        (4000, 2, 1, 1), generator=generator
    )
    for noise in (eps, white):
        assert abs(noise.mean((2, 3)).var() / (0.1**2 + 1 / 256) - 1) < 0.05
        assert abs((noise - noise.mean((2, 3), keepdim=True)).std() - 1) < 0.01
    assert abs(sagd.offset((16, 16), 0.1).weight.square().mean() - 1) < 1e-12


def test_a_weight_that_is_the_same_everywhere_is_exactly_white():
    for spectrum in (sagd.isotropic((32, 32), 0.7), sagd.pyramid((32, 32), 1), sagd.two_band((32, 32), 0.5)):
        assert spectrum.white and torch.equal(spectrum.weight, torch.ones(32, 32, dtype=torch.float64))
    assert not sagd.isotropic((8, 8), normalize="sample").white and not sagd.power_law((8, 8), 0.1).white
    assert sagd.Varying(sagd.isotropic((8, 8)), sagd.isotropic((8, 8)), VARYING.alpha_bar).white and not VARYING.white


def test_an_edge_that_was_computed_is_the_one_that_is_meant():
    computed, written = (sagd.band_pass((10, 10), (low, 0.4), units="cycles") for low in (0.1 * 3, 0.3))
    assert torch.equal(computed.weight, written.weight)
    assert sagd.two_band((16, 16), 0.5, (0, 0.1 + 0.2), (0.3, 1)).white


@pytest.mark.parametrize("spectrum", [sagd.power_law((16, 16), 2.0, dc="floor"), sagd.exponential((16, 16), 100.0)])
def test_the_inverse_of_small_weights_does_not_overflow(spectrum, generator):
    assert spectrum.weight.min() < 1e-19
    x = spectrum.sample((1, 16, 16), generator=generator)
    found = spectrum.inverse(x)
    assert torch.isfinite(found).all() and torch.equal(found, spectrum.inverse(x.double()).float())


def test_gain_is_a_gain_without_normalisation(generator):
    assert sagd.isotropic((8, 8), 2.0, normalize="none").sample((2000, 8, 8), generator=generator).std() > 1.9
    assert torch.equal(sagd.isotropic((8, 8), 2.0).weight, torch.ones(8, 8, dtype=torch.float64))
    again = from_dict(sagd.isotropic((8, 8), 2.0, normalize="none").to_dict())
    assert torch.equal(again.weight, torch.full((8, 8), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(7, 3, 8, 8), (6, 1, 8, 8), (4, 8, 8)])
@pytest.mark.parametrize("name", ["isotropic", "shaped", "per_sample", "varying"])
def test_rows_of_a_batch_are_those_of_the_whole(name, shape):
    """What lets several processes share a batch: each draws it all, shapes its own part, and no noise changes."""
    schedule = sagd.Schedule.linear()
    spectrum = {
        "isotropic": sagd.isotropic((8, 8)),
        "shaped": sagd.power_law((8, 8), -0.4),
        "per_sample": sagd.power_law((8, 8), -0.4, normalize="sample"),
        "varying": sagd.Varying(sagd.power_law((8, 8), -0.4), sagd.isotropic((8, 8)), schedule.alpha_bar),
    }[name]
    t = torch.arange(shape[0]) * 100

    def draw(**rows):
        return spectrum.sample(shape, generator=torch.Generator().manual_seed(0), t=t, **rows)

    for rows in (slice(0, 2), slice(1, 4), slice(2, None), slice(None)):
        torch.testing.assert_close(draw(rows=rows), draw()[rows])
    sources = [torch.Generator().manual_seed(k) for k in range(shape[0])]
    if name != "varying":
        part = spectrum.sample(shape, generator=sources, rows=slice(1, 3))
        fresh = [torch.Generator().manual_seed(k) for k in range(shape[0])]
        assert torch.equal(part, spectrum.sample(shape, generator=fresh)[1:3])


def test_an_operator_is_one_file(tmp_path):
    """A new file in sagd/operators is `sagd.NAME` and `sagd.operators.NAME`, a function, without any other edit."""
    shutil.copytree(Path(sagd.__file__).parent, tmp_path / "sagd", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sagd/operators/steps.py").write_text(
        "from sagd.noise.spectrum import Spectrum\n"
        "from sagd.operators.isotropic import isotropic\n\n\n"
        "def steps(size) -> Spectrum:\n    return isotropic(size)\n"
    )
    code = (
        "import sagd, sagd.operators.steps\n"
        "assert sagd.steps((4, 4)).size == (4, 4) and sagd.operators.steps is sagd.steps\n"
        "assert sagd.operators.power_law is sagd.power_law and 'steps' in dir(sagd)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_grid_that_no_memory_holds_is_refused():
    """Its size may come from a file, as that of a spectrum in a scheduler's configuration."""
    for make in (lambda size: sagd.isotropic(size), lambda size: from_dict({"operator": "isotropic", "size": [*size]})):
        with pytest.raises(sagd.InputError, match="a grid has 268,435,456 frequencies at most"):
            make((10**6, 10**6))
