"""Distances in closed form, against their definitions, and against the packages that the field uses."""

import tracemalloc

import numpy as np
import pytest
import torch

from sagd import InputError
from sagd.metrics.frechet import Moments, bootstrap_error, chosen_on_half, frechet_distance, frechet_distance_infinity
from sagd.metrics.kernel import kernel_distance, kernel_distance_of_subsets
from sagd.metrics.neighbours import precision_recall_density_coverage as prdc
from sagd.metrics.sliced import sliced_distance

RNG = np.random.default_rng(0)
GOOD = np.random.default_rng(1).standard_normal((9, 3))


def prdc_with_itself(x):
    return prdc(x, x)


def like_inception(n, dimensions, shift, seed):
    """Features as a network's: not negative, of a falling spectrum, float32."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).standard_normal((dimensions, dimensions)) / np.sqrt(dimensions)
    mixing *= np.exp(-3 * np.arange(dimensions) / dimensions)
    return np.maximum(rng.standard_normal((n, dimensions)) @ mixing + 0.3 + shift, 0).astype(np.float32)


def with_moments(mean, root, n=400):
    """Features whose sample mean and covariance are exactly mean and root root^T."""
    x = RNG.standard_normal((n, len(mean)))
    x -= x.mean(0)
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x, rowvar=False)), x.T).T
    return mean + x @ root.T


def frechet(a, b):
    return frechet_distance(Moments.of(a), Moments.of(b))


def test_frechet_distance_of_gaussians_that_commute():
    a = with_moments(np.zeros(3), np.diag([1.0, 2.0, 3.0]))
    b = with_moments(np.array([1.0, 0.0, 2.0]), np.diag([2.0, 2.0, 1.0]))
    assert frechet(a, b) == pytest.approx(5 + 1 + 0 + 4, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(3000, 2000), (300, 400), (300, 2000), (513, 513)])
def test_frechet_distance_is_clean_fids_and_torch_fidelitys(n, m):
    """At full rank (d = 512), at deficient rank, one of each, and at the edge."""
    from cleanfid.fid import frechet_distance as clean_fid
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    sets = [like_inception(n, 512, 0, 2), like_inception(m, 512, 0.02, 3)]
    moments = [(x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)) for x in sets]
    ours = frechet(*sets)
    assert ours == pytest.approx(clean_fid(*moments[0], *moments[1]), rel=1e-6)
    statistics = ({"mu": mu, "sigma": sigma} for mu, sigma in moments)
    assert ours == pytest.approx(fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID], rel=1e-6)
    given = frechet_distance(*(Moments.given(*m) for m in moments))
    assert given == pytest.approx(ours, rel=1e-9)


def test_frechet_distance_is_that_of_the_singular_values_at_deficient_rank():
    """tr (S_a S_b)^(1/2) is the sum of the singular values of A B^T: nothing is squared, so nothing is lost."""
    a, b = like_inception(300, 512, 0, 2), like_inception(400, 512, 0.02, 3)
    means, factors = zip(
        *((x.mean(0), (x - x.mean(0)) / np.sqrt(len(x) - 1)) for x in map(np.float64, (a, b))), strict=True
    )
    roots = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    expected = np.square(means[0] - means[1]).sum() + sum(np.square(f).sum() for f in factors) - 2 * roots
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_to_itself_is_zero():
    for x in (RNG.standard_normal((20, 50)), RNG.standard_normal((200, 50)), like_inception(300, 768, 0, 4)):
        assert frechet(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_with_features_that_never_fire():
    """Columns of zeros make the covariance singular, whatever the number of samples."""
    a, b = (np.pad(with_moments(np.ones(3) * k, np.eye(3)), ((0, 0), (0, 4))) for k in range(2))
    assert frechet(a, b) == pytest.approx(3, rel=1e-9)


def test_moments_are_numpys():
    x = RNG.standard_normal((3000, 6)).astype(np.float32) + 100
    found = Moments.of(x)
    np.testing.assert_allclose(found.mean, x.mean(0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("n", [3000, 5])
def test_moments_of_counted_rows_are_those_of_the_repeated_rows(n):
    x, counts = RNG.standard_normal((n, 6)), RNG.integers(0, 3, n)
    found, expected = Moments.of(x, counts), Moments.of(np.repeat(x, counts, 0))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-10, atol=1e-14)


def test_memory_of_moments_does_not_grow_with_the_set(tmp_path):
    np.save(tmp_path / "x.npy", RNG.standard_normal((60_000, 32)).astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    peaks = []
    for n in (20_000, 60_000):
        tracemalloc.start()
        Moments.of(x[:n])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < x[:20_000].nbytes


def test_frechet_distance_falls_with_the_samples_and_infinity_takes_that_out():
    """Samples of the reference's own distribution: the distance of ever more of them is 0."""
    d = 40
    reference = Moments(np.zeros(d), np.eye(d))
    raw, limit, errors = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((1000, d))
        raw.append(frechet_distance(Moments.of(x), reference))
        value, error = frechet_distance_infinity(x, reference, rng=rng)
        limit.append(value)
        errors.append(error)
    assert np.mean(raw) > 0.3
    assert abs(np.mean(limit)) < 0.1 * np.mean(raw)
    assert 0 < np.mean(errors) < np.mean(raw)
    again = frechet_distance_infinity(x, reference, rng=np.random.default_rng(5))
    assert again == frechet_distance_infinity(x, reference, rng=np.random.default_rng(5))


def test_kernel_distance_is_its_definition():
    a, b = RNG.standard_normal((2, 5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = np.mean([k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs]) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b)[0] == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_in_blocks_is_that_in_one(monkeypatch):
    from sagd.metrics import kernel

    a, b = like_inception(50, 8, 0, 5), like_inception(37, 8, 0.1, 6)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "BLOCK", 11)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-12)


def test_error_of_the_kernel_distance_is_the_jackknifes():
    """The closed form against leaving out one after the other."""
    a, b = like_inception(9, 4, 0, 7), like_inception(7, 4, 0.3, 8)
    variance = 0.0
    for side in range(2):
        n = len((a, b)[side])
        kept = [np.arange(n) != k for k in range(n)]
        left = [kernel_distance(a[k], b)[0] if side == 0 else kernel_distance(a, b[k])[0] for k in kept]
        variance += (n - 1) * np.var(left)
    assert kernel_distance(a, b)[1] == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_error_of_the_kernel_distance_is_the_spread_over_data_sets():
    found = np.array(
        [kernel_distance(like_inception(400, 6, 0, 2 * s), like_inception(300, 6, 0.3, 2 * s + 1)) for s in range(150)]
    )
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)


def test_kernel_distance_of_a_set_to_itself_is_that_to_its_copy():
    a = like_inception(30, 8, 0, 9)
    assert kernel_distance(a, a) == kernel_distance(a, a.copy())


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    near, far = [], []
    for seed in range(40):
        a, b = np.random.default_rng(seed).standard_normal((2, 60, 8))
        near.append(kernel_distance(a, b)[0])
        far.append(kernel_distance(a, b + 1)[0])
    assert abs(np.mean(near)) < 3 * np.std(near) / np.sqrt(len(near))
    assert np.mean(far) > 10 * np.std(near)


def test_kernel_distance_is_torch_fidelitys_on_the_same_subsets():
    from torch_fidelity import metric_kid

    a, b = (like_inception(n, 64, shift, n).astype(np.float64) for n, shift in ((300, 0), (200, 0.05)))
    theirs = metric_kid.kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=7, kid_subset_size=120, rng_seed=3, verbose=False
    )
    mean, error = kernel_distance_of_subsets(a, b, subsets=7, size=120, rng=np.random.RandomState(3))
    assert mean == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert error == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_STD] / np.sqrt(6), rel=1e-9)


def test_kernel_distance_is_clean_fids_on_the_same_subsets(monkeypatch):
    from cleanfid.fid import kernel_distance as clean_fid

    a, b = (like_inception(n, 64, shift, n).astype(np.float64) for n, shift in ((300, 0), (200, 0.05)))
    monkeypatch.setattr(np.random, "choice", np.random.RandomState(4).choice)  # clean-fid draws from a global state
    theirs = clean_fid(b, a, num_subsets=5, max_subset_size=100)  # of its second argument first
    mean, _ = kernel_distance_of_subsets(a, b, subsets=5, size=100, rng=np.random.RandomState(4))
    assert mean == pytest.approx(theirs, rel=1e-9)


def test_subsets_are_the_same_one_by_one_or_in_one_pass():
    """Many small sets' worth of pairs go through one pass over all pairs; of large sets only the subsets' are made."""
    a, b = like_inception(60, 8, 0, 5), like_inception(50, 8, 0.1, 6)
    one_pass = kernel_distance_of_subsets(a, b, subsets=8, size=20, rng=np.random.default_rng(0))
    wide = [np.concatenate([x, np.full((500, 8), 1e3, np.float32)]) for x in (a, b)]

    class Within:
        """Draws from the first rows alone, which are those of the smaller sets."""

        rng = np.random.default_rng(0)

        def choice(self, n, size, replace):
            return self.rng.choice(n - 500, size, replace=replace)

    one_by_one = kernel_distance_of_subsets(*wide, subsets=8, size=20, rng=Within())
    assert one_by_one == pytest.approx(one_pass, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "nearest"), [(200, 150, 5), (40, 60, 3)])
def test_prdc_is_that_of_the_prdc_package(n, m, nearest, monkeypatch, capsys):
    from prdc import compute_prdc

    from sagd.metrics import neighbours

    generated, reference = (like_inception(k, 32, s, k).astype(np.float64) for k, s in ((n, 0.1), (m, 0)))
    theirs = compute_prdc(reference, generated, nearest)
    monkeypatch.setattr(neighbours, "BLOCK", 52)
    assert prdc(generated, reference, nearest) == pytest.approx(theirs, rel=1e-12)
    assert 0 < min(theirs.values()) and min(theirs["precision"], theirs["recall"]) < 1  # not the trivial ends


def test_bootstrap_error_of_a_mean_is_the_textbooks():
    x = RNG.standard_normal((500, 1)) * 3
    found = bootstrap_error(lambda counts: counts @ x[:, 0] / 500, 500, replicates=400, rng=np.random.default_rng(0))
    assert found == pytest.approx(3 / np.sqrt(500), rel=0.15)


def test_a_checkpoint_is_chosen_on_one_half_and_measured_on_the_other():
    assert chosen_on_half(np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]])) == (6 + 2) / 2


def test_moments_are_read_where_there_are_some(tmp_path):
    images = np.zeros((5, 3, 8, 6), np.uint8)
    np.savez(tmp_path / "adm.npz", mu=np.arange(3), sigma=np.diag([1, 2, 3]), arr_0=images)
    found = Moments.read(tmp_path / "adm.npz")
    np.testing.assert_allclose(found.covariance, np.diag([1.0, 2.0, 3.0]), atol=1e-12)
    np.savez(tmp_path / "images.npz", arr_0=images)
    assert Moments.read(tmp_path / "images.npz") is None
    assert Moments.read(tmp_path) is None


@pytest.mark.parametrize(
    ("mu", "sigma", "says"),
    [
        (np.zeros(3), np.eye(4), r"adm\.npz: mean of shape \(3,\)"),
        (np.zeros(2), -np.eye(2), r"adm\.npz: .*eigenvalue of -1"),
        (np.full(2, np.nan), np.eye(2), r"adm\.npz: .*not finite"),
        (np.array(["a", "b"]), np.eye(2), r"adm\.npz: mean is of type <U1; it must be of real numbers"),
        (np.zeros(0), np.zeros((0, 0)), r"adm\.npz: "),
    ],
)
def test_a_file_of_bad_moments_is_named(tmp_path, mu, sigma, says):
    np.savez(tmp_path / "adm.npz", mu=mu, sigma=sigma)
    with pytest.raises(InputError, match=says) as failure:
        Moments.read(tmp_path / "adm.npz")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Moments.of(np.zeros((1, 3))), "two or more"),
        (lambda: frechet(np.ones((5, 3)), np.ones((5, 4))), "3 and of 4 dimensions"),
        (lambda: kernel_distance(np.ones((2, 3)), np.ones((5, 3))), "3 rows or more are needed"),
        (lambda: prdc(np.ones((5, 3)), np.ones((9, 3))), "6 rows or more are needed"),
        (lambda: Moments.given(np.zeros(3), np.eye(4)), r"must be \(D,\) and \(D, D\)"),
        (lambda: Moments.given(np.float64(0), np.float64(1)), r"must be \(D,\) and \(D, D\)"),
        (lambda: Moments.given(np.full(2, np.nan), np.eye(2)), "not finite"),
        (lambda: Moments.given(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: Moments.given(np.zeros(2), -np.eye(2)), "eigenvalue of -1"),
        (lambda: Moments.given(np.zeros(2), np.full((2, 2), np.nan)), "not finite"),
        (
            lambda: kernel_distance_of_subsets(np.ones((9, 3)), np.ones((8, 3)), subsets=2, size=9, rng=RNG),
            "2 subsets of 9, from 9 and 8 images; allowed: 2 or more, of 3 to 8",
        ),
        (lambda: Moments.of(GOOD, np.ones(8)), r"counts of shape \(8,\) for 9 rows"),
        (lambda: Moments.of(GOOD, np.full(9, -1.0)), "each is 0 or more"),
        (lambda: Moments.of(np.ones((0, 3))), "two or more"),
        (lambda: Moments.given(np.zeros(2), np.eye(2) * 1j), "covariance is of type complex128"),
        (lambda: sliced_distance(GOOD, GOOD, rng=RNG, directions=0), "directions is 0"),
        (lambda: prdc(GOOD, GOOD, nearest=0), "nearest is 0"),
        (lambda: bootstrap_error(np.sum, 9, replicates=1, rng=RNG), "replicates is 1; .* 2 or more"),
        (lambda: chosen_on_half(np.array([[1.0, np.nan], [2.0, 1.0]])), r"halves of shape \(2, 2\), .*all finite"),
        (lambda: chosen_on_half(np.ones((2, 0))), r"halves of shape \(2, 0\)"),
        (lambda: chosen_on_half(np.ones((3, 2))), r"halves of shape \(3, 2\)"),
        (lambda: frechet_distance_infinity(np.ones((9, 3)), Moments.of(np.eye(3)), rng=RNG), "10 or more"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(InputError, match=says):
        call()


def spoilt(value, row=5):
    x = np.random.default_rng(0).standard_normal((9, 3))
    x[row, 1] = value
    return x


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize(
    "metric",
    [
        Moments.of,
        lambda x: Moments.of(x[:, :2].repeat(9, 1)),  # fewer rows than features
        lambda x: kernel_distance(GOOD, x),
        lambda x: kernel_distance_of_subsets(x, GOOD, subsets=2, size=3, rng=RNG),
        lambda x: kernel_distance_of_subsets(np.tile(GOOD, (9, 1)), x, subsets=2, size=3, rng=RNG),
        lambda x: prdc(x, GOOD),
        lambda x: prdc(GOOD, x),
        lambda x: sliced_distance(GOOD, x, rng=RNG),
        lambda x: frechet_distance_infinity(np.concatenate([x, GOOD]), Moments.of(GOOD), rng=RNG),
    ],
)
def test_the_first_row_that_is_not_finite_is_told(metric, value, recwarn):
    with pytest.raises(InputError, match=rf"row 5 has {value:g}".replace("+", r"\+")):
        metric(spoilt(value))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones(9), r"has shape \(9,\) and type float64; it must be \(N, D\)"),
        (np.ones((9, 3, 1)), r"has shape \(9, 3, 1\)"),
        (np.ones((9, 0)), r"has shape \(9, 0\)"),
        (np.ones((9, 3), complex), "type complex128; it must be .* of real numbers"),
        (np.ones((9, 3), bool), "type bool"),
        (np.ones((9, 3), object), "type object"),
        (torch.ones(9, 3), "is a Tensor; it must be a NumPy array"),
        ([[1.0]], "is a list; it must be a NumPy array"),
        (np.ma.masked_array(np.ones((9, 3)), np.eye(9, 3)), "is a MaskedArray; it must be a NumPy array"),
        (np.asmatrix(np.ones((9, 3))), "is a matrix; it must be a NumPy array"),
    ],
)
def test_what_is_no_array_of_features_is_refused_by_every_metric(x, says):
    for metric in (
        Moments.of,
        lambda x: kernel_distance(x, x),
        lambda x: kernel_distance_of_subsets(x, x, subsets=2, size=3, rng=RNG),
        prdc_with_itself,
        lambda x: sliced_distance(x, x, rng=RNG),
        lambda x: frechet_distance_infinity(x, Moments.of(GOOD), rng=RNG),
    ):
        with pytest.raises(InputError, match=says):
            metric(x)


@pytest.mark.parametrize(
    "metric",
    [
        lambda rng: kernel_distance_of_subsets(GOOD, GOOD, subsets=2, size=3, rng=rng),
        lambda rng: sliced_distance(GOOD, GOOD, rng=rng),
        lambda rng: frechet_distance_infinity(np.tile(GOOD, (2, 1)), Moments.of(GOOD), rng=rng),
        lambda rng: bootstrap_error(np.sum, 9, replicates=2, rng=rng),
    ],
)
def test_a_seed_is_no_generator(metric):
    with pytest.raises(InputError, match="rng is 0; it must be a generator"):
        metric(0)


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.int8])
def test_short_types_do_not_overflow(dtype):
    """Sums, squares and products are float64's."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 120, (50, 6)).astype(dtype) for _ in range(2))
    wide = [x.astype(np.float64) for x in (a, b)]
    assert frechet(a, b) == frechet(*wide) and kernel_distance(a, b) == kernel_distance(*wide)
    assert prdc(a, b) == prdc(*wide)
    assert sliced_distance(a, b, rng=np.random.default_rng(1)) == sliced_distance(*wide, rng=np.random.default_rng(1))


def test_a_frechet_distance_is_never_below_zero():
    """That of a set to itself is 0 but for rounding, which went below it."""
    found = [frechet(x, x[::-1]) for x in (like_inception(40 + k, 64, 0, k) for k in range(20))]
    assert min(found) == 0 and max(found) < 1e-6


def test_equal_points_have_no_neighbours_to_tell_of():
    with pytest.raises(InputError, match="reference: all 9 rows are equal"):
        prdc(GOOD, np.ones((9, 3)))
    collapsed = prdc(np.ones((9, 3)), GOOD)
    assert collapsed["recall"] == 0


@pytest.mark.parametrize(
    ("mean", "factor", "says"),
    [
        (np.full(2, np.nan), np.eye(2), "the mean of the features is not finite"),
        (np.zeros(2), np.full((2, 2), np.inf), "the covariance of the features is not finite"),
        (np.zeros((1, 2)), np.eye(2), r"mean of shape \(1, 2\), factor of the covariance \(2, 2\)"),
        (np.zeros(2), np.eye(3), r"factor of the covariance \(3, 3\); they must be \(D,\) and \(R, D\)"),
        (np.zeros(0), np.zeros((0, 0)), r"mean of shape \(0,\)"),
    ],
)
def test_bad_moments_are_refused(mean, factor, says):
    with pytest.raises(InputError, match=says):
        Moments(mean, factor)


def test_moments_without_any_variance_have_a_distance():
    assert frechet_distance(Moments.given(np.ones(2), np.zeros((2, 2))), Moments.given(np.zeros(2), np.eye(2))) == 4


def test_the_sliced_distance_of_a_shift_is_its_square_over_the_dimensions():
    a, rng = np.random.default_rng(0).standard_normal((500, 4)), np.random.default_rng(1)
    shifted = a + np.array([3.0, 0, 0, 0])
    # Along a unit vector u the shift is 3 u_1, and u_1 squared is 1/4 on average.
    assert sliced_distance(a, shifted, rng=rng, directions=4000) == pytest.approx(9 / 4, rel=0.05)
    assert sliced_distance(a, a, rng=rng) == 0


def test_the_sliced_distance_of_unequal_counts_is_that_of_the_quantiles():
    a, b = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]])
    assert sliced_distance(a, b, rng=np.random.default_rng(0)) == pytest.approx(0, abs=1e-20)
    c = np.array([[0.0], [1.0], [2.0], [3.0]])
    # By hand: a and c differ by 1 on the quantiles [1/4, 1/3], [1/2, 2/3] and [3/4, 1].
    assert sliced_distance(a, c, rng=np.random.default_rng(0)) == pytest.approx(1 / 12 + 1 / 6 + 1 / 4)
