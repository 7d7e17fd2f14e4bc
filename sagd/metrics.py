"""Distances between two sets of features, in float64: Fréchet, kernel, and what nearest neighbours tell.

On Inception's features the first two are FID and KID; on others they are not, whatever their size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagd.errors import InputError
from sagd.parallel import blocks

BLOCK = 1024  # features at a time in float64


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, the covariance as A^T A.

    Parameters
    ----------
    mean
        (D,)
    factor
        A, (R, D), R at least the rank of the covariance and at most D.
    """

    mean: np.ndarray
    factor: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        return self.factor.T @ self.factor

    @classmethod
    def of(cls, features: np.ndarray, counts: np.ndarray | None = None) -> "Moments":
        """Of features (N, D), streamed: memory does not grow with N.

        Parameters
        ----------
        counts
            (N,), how often each row counts: of a subset 0 or 1, of a resample more. They add up to 2 or more.
        """
        counts = np.broadcast_to(1.0, len(features)) if counts is None else counts
        n = counts.sum()
        if n < 2:
            raise InputError(f"{n:.0f} row of features; moments need two or more")

        def parts():
            for rows in blocks(len(features), BLOCK):
                kept = counts[rows] > 0
                yield features[rows][kept].astype(np.float64), counts[rows][kept, None]

        mean = sum((count * x).sum(0) for x, count in parts()) / n
        centred = (np.sqrt(count) * (x - mean) for x, count in parts())
        if n <= len(mean):
            return cls(mean, np.concatenate(list(centred)) / np.sqrt(n - 1))
        return cls.given(mean, sum(x.T @ x for x in centred) / (n - 1))

    @classmethod
    def given(cls, mean: np.ndarray, covariance: np.ndarray) -> "Moments":
        """Of a mean and a covariance, as reference files hold them."""
        from scipy.linalg import LinAlgError, cholesky, eigh

        if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
            raise InputError(f"mean of shape {mean.shape}, covariance {covariance.shape}; they must be (D,) and (D, D)")
        scale = np.abs(covariance).max(initial=0)
        if not np.isfinite(mean).all() or not np.abs(covariance - covariance.T).max(initial=0) <= 1e-6 * scale < np.inf:
            raise InputError("mean or covariance is not finite, or the covariance is not symmetric")
        try:
            return cls(mean, cholesky(covariance))
        except LinAlgError:  # deficient rank
            values, vectors = eigh(covariance, driver="evd")
            if values[0] < -1e-6 * scale:
                raise InputError(f"the covariance has an eigenvalue of {values[0]:g}: it is none") from None
            kept = values > values[-1] * len(mean) * np.finfo(float).eps
            return cls(mean, (vectors[:, kept] * np.sqrt(values[kept])).T)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance between two Gaussians (Dowson and Landau 1982; FID: Heusel et al. 2017).

    ``|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``. The eigenvalues of S_a S_b are those of the symmetric
    A S_b A^T, S_a = A^T A. The side of lower rank gives A: then none of them is zero but for rounding, whose root
    would be 1e-8, not 1e-16.

    Of finite sets it is biased upward, the more so the fewer: compare at equal counts alone.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions; they must be of one network")
    from scipy.linalg import eigvalsh

    if len(a.factor) > len(b.factor):
        a, b = b, a
    cross = a.factor @ b.factor.T
    roots = np.sqrt(np.maximum(eigvalsh(cross @ cross.T), 0)).sum()
    return float(np.square(a.mean - b.mean).sum() + np.square(a.factor).sum() + np.square(b.factor).sum() - 2 * roots)


def frechet_distance_infinity(
    features: np.ndarray, reference: Moments, *, rng: np.random.Generator, points: int = 15
) -> tuple[float, float]:
    """The Fréchet distance that ever more samples would have (Chong and Forsyth 2020).

    A line through the distances of random subsets, over the reciprocals of their sizes, from a fifth of the features
    to all. The reference is not extrapolated. Below as many samples as dimensions the distance is no line.

    Returns
    -------
    intercept, its standard error in the fit. The subsets overlap, so the error is somewhat too small.
    """
    n = len(features)
    if n < 10:
        raise InputError(f"{n} samples; the extrapolation needs 10 or more")
    sizes = np.linspace(n / 5, n, points).astype(int)
    subsets = (np.bincount(rng.choice(n, size, replace=False), minlength=n) for size in sizes)
    distances = [frechet_distance(Moments.of(features, counts), reference) for counts in subsets]
    (_, intercept), covariance = np.polyfit(1 / sizes, distances, 1, cov=True)
    return float(intercept), float(np.sqrt(covariance[1, 1]))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kernel distance over all pairs (KID: Binkowski et al. 2018): unbiased MMD^2, kernel (x.y / D + 1)^3.

    Parameters
    ----------
    a, b
        Features (N, D) and (M, D), N and M at least 3.

    Returns
    -------
    value, standard error : by the jackknife over both sets, in closed form
    """
    _fitting(a, b, 3)
    n, m = len(a), len(b)
    one_a, one_b = np.ones((n, 1)), np.ones((m, 1))
    rows, columns = (x[:, 0] for x in _kernel_times(a, b, one_a, one_b))
    within_a, within_b = (_kernel_within(x, one)[:, 0] for x, one in ((a, one_a), (b, one_b)))
    sums = within_a.sum(), within_b.sum(), rows.sum()
    without_a = _mmd(sums[0] - 2 * within_a, sums[1], sums[2] - rows, n - 1, m)
    without_b = _mmd(sums[0], sums[1] - 2 * within_b, sums[2] - columns, n, m - 1)
    variance = (n - 1) * without_a.var() + (m - 1) * without_b.var()
    return float(_mmd(*sums, n, m)), float(np.sqrt(variance))


def kernel_distance_of_subsets(
    a: np.ndarray, b: np.ndarray, *, subsets: int, size: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Kernel distance averaged over random subsets, as most of the literature has it; see `kernel_distance`.

    Parameters
    ----------
    subsets, size
        How many pairs of subsets, each of ``size`` drawn without replacement, at most N and M.
    rng
        Draws of ``a`` and of ``b`` in turn. A NumPy ``RandomState`` will do, and gives torch-fidelity's subsets.

    Returns
    -------
    mean, standard error : over the subsets; where these overlap much, the error is too small
    """
    _fitting(a, b, 3)
    check_subsets(subsets, size, len(a), len(b))
    draws = [[rng.choice(len(x), size, replace=False) for x in (a, b)] for _ in range(subsets)]
    n, m = len(a), len(b)
    if n * n / 2 + m * m / 2 + n * m <= subsets * 2 * size**2:  # all pairs are fewer than those of the subsets
        u, v = (np.zeros((len(x), subsets)) for x in (a, b))
        for s, (i, j) in enumerate(draws):
            u[i, s] = v[j, s] = 1
        products = _kernel_within(a, u), _kernel_within(b, v), _kernel_times(a, b, u, v)[0]
        values = _mmd(*((w * x).sum(0) for w, x in zip((u, v, u), products, strict=True)), size, size)
    else:
        one = np.ones((size, 1))
        values = []
        for x, y in ((a[i], b[j]) for i, j in draws):
            products = _kernel_within(x, one), _kernel_within(y, one), _kernel_times(x, y, one, one)[0]
            values.append(_mmd(*(p.sum() for p in products), size, size))
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets))


def _mmd(aa, bb, ab, n: int, m: int):
    """The unbiased MMD^2, from sums of the kernel over pairs: those within a set without the diagonal."""
    return aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)


def check_subsets(subsets: int, size: int, n: int, m: int) -> None:
    """Refuse what `kernel_distance_of_subsets` cannot draw from n and m features."""
    if not 3 <= size <= min(n, m) or subsets < 2:
        raise InputError(f"{subsets} subsets of {size}, from {n} and {m} images; 2 or more, of 3 to {min(n, m)}")


def _kernel_times(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K v and K^T u of the kernel matrix K between two sets, in blocks; u is (N, S), v (M, S)."""
    rows, columns = np.zeros_like(u), np.zeros_like(v)
    for i in blocks(len(a), BLOCK):
        for j in blocks(len(b), BLOCK):
            k = _kernel(a[i], b[j])
            rows[i] += k @ v[j]
            columns[j] += k.T @ u[i]
    return rows, columns


def _kernel_within(a: np.ndarray, u: np.ndarray) -> np.ndarray:
    """K u of the kernel matrix K of a set with itself, without its diagonal, in blocks; u is (N, S)."""
    rows = np.zeros_like(u)
    for i in blocks(len(a), BLOCK):
        for j in blocks(len(a), BLOCK):
            if j.start < i.start:
                continue  # the transpose of a block that is done
            k = _kernel(a[i], a[j])
            if i == j:
                np.fill_diagonal(k, 0)
            else:
                rows[j] += k.T @ u[i]
            rows[i] += k @ u[j]
    return rows


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = x.astype(np.float64) @ y.astype(np.float64).T
    k /= x.shape[1]
    k += 1
    k *= k * k
    return k


def prdc(generated: np.ndarray, reference: np.ndarray, nearest: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Parameters
    ----------
    generated, reference
        Features (N, D) and (M, D), N and M above ``nearest``.
    nearest
        The ball around a point reaches to its neighbour of this rank.
    """
    _fitting(generated, reference, nearest + 1)
    reach, reach_generated = (_neighbour(x, nearest) for x in (reference, generated))
    inside = np.zeros(len(generated))  # in how many balls around references each sample is
    recalled = covered = 0
    for i in blocks(len(reference), BLOCK // 4):  # by all samples: a few of these at a time
        squared = _squared_distances(reference[i], generated)
        within = squared < reach[i, None]
        inside += within.sum(0)
        covered += within.any(1).sum()
        recalled += (squared < reach_generated).any(1).sum()
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled / len(reference)),
        "density": float(inside.mean() / nearest),
        "coverage": float(covered / len(reference)),
    }


def _neighbour(x: np.ndarray, rank: int) -> np.ndarray:
    """(N,), the squared distance of each row to its neighbour of this rank."""
    reach = np.empty(len(x))
    for i in blocks(len(x), BLOCK // 4):
        squared = _squared_distances(x[i], x)
        squared[np.arange(len(squared)), np.arange(i.start, i.stop)] = -1  # itself, before any twin
        reach[i] = np.partition(squared, rank)[:, rank]
    return reach


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    columns = []
    for j in blocks(len(y), BLOCK):
        z = y[j].astype(np.float64)
        columns.append(np.square(x).sum(1)[:, None] + np.square(z).sum(1) - 2 * x @ z.T)
    return np.maximum(np.concatenate(columns, 1), 0)


def bootstrap_error(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    replicates: int,
    rng: np.random.Generator,
    report: Callable[[int], None] = lambda resamples: None,
) -> float:
    """Standard error of a statistic over its n samples: the spread over resamples with replacement (Efron 1979).

    Parameters
    ----------
    statistic
        Of how often each sample counts, (n,). Its mean over the resamples is of no use where repeated samples bias it,
        as they do a Fréchet distance.
    report
        Called with 1 after each resample.
    """
    values = []
    for _ in range(replicates):
        values.append(statistic(np.bincount(rng.integers(n, size=n), minlength=n)))
        report(1)
    return float(np.std(values, ddof=1))


def chosen_on_half(halves: np.ndarray) -> float:
    """The distance of a run's best checkpoint without a minimum's optimism.

    Parameters
    ----------
    halves
        (2, C): the distance of each of C checkpoints, on one half of its samples and on the other.

    Returns
    -------
    The distance on one half of the checkpoint that is best on the other, averaged over both ways.
    """
    return float(np.mean([halves[1, halves[0].argmin()], halves[0, halves[1].argmin()]]))


def _fitting(a: np.ndarray, b: np.ndarray, least: int) -> None:
    if min(len(a), len(b)) < least or a.shape[1] != b.shape[1]:
        raise InputError(f"features of shapes {a.shape} and {b.shape}; {least} or more are needed, of equal width")
