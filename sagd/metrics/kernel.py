"""The kernel distance: KID on Inception's features."""

from typing import Any

import numpy as np

from sagd.errors import InputError, check_whole
from sagd.metrics.checks import BLOCK, check_features, check_rng
from sagd.runtime.parallel import blocks


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kernel distance over all pairs (KID: Binkowski et al. 2018): unbiased MMD^2, kernel (x.y / D + 1)^3.

    Parameters
    ----------
    a, b
        Features (N, D) and (M, D), N and M at least 3.

    Returns
    -------
    value, error
        The value is unbiased, so it may fall below 0 where the sets are alike. The standard error is by the jackknife
        over both sets, in closed form.

    Raises
    ------
    InputError
        Features that are not finite, of different D, or too few.
    """
    check_features(3, a=a, b=b)
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
    """Kernel distance averaged over random subsets, as in most of the literature; see `kernel_distance`.

    Parameters
    ----------
    subsets, size
        How many pairs of subsets, each of ``size`` drawn without replacement, at most N and M.
    rng
        Draws of ``a`` and of ``b`` in turn. A NumPy ``RandomState`` also works, and gives torch-fidelity's subsets.

    Returns
    -------
    mean, error
        Over the subsets; where these overlap much, the standard error is too small.
    """
    check_features(3, a=a, b=b)
    check_subsets(subsets, size, len(a), len(b))
    check_rng(rng, "choice")
    draws = [[rng.choice(len(x), size, replace=False) for x in (a, b)] for _ in range(subsets)]
    n, m = len(a), len(b)
    if n * n / 2 + m * m / 2 + n * m <= subsets * 2 * size**2:  # all pairs are fewer than those of the subsets
        u, v = (np.zeros((len(x), subsets)) for x in (a, b))
        for s, (i, j) in enumerate(draws):
            u[i, s] = v[j, s] = 1
        products = _kernel_within(a, u), _kernel_within(b, v), _kernel_times(a, b, u, v)[0]
        aa, bb, ab = ((w * x).sum(0) for w, x in zip((u, v, u), products, strict=True))
        values = _mmd(aa, bb, ab, size, size)
    else:
        one = np.ones((size, 1))
        values = []
        for x, y in ((a[i], b[j]) for i, j in draws):
            products = _kernel_within(x, one), _kernel_within(y, one), _kernel_times(x, y, one, one)[0]
            aa, bb, ab = (p.sum() for p in products)
            values.append(_mmd(aa, bb, ab, size, size))
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets))


def _mmd(aa: Any, bb: Any, ab: Any, n: int, m: int) -> Any:
    """The unbiased MMD^2, from sums of the kernel over pairs: those within a set without the diagonal."""
    return aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)


def check_subsets(subsets: int, size: int, n: int, m: int) -> None:
    """Refuse subsets that `kernel_distance_of_subsets` cannot draw from n and m features."""
    check_whole("the number of subsets", subsets, 0)
    check_whole("the size of the subsets", size, 0)
    if not 3 <= size <= min(n, m) or subsets < 2:
        raise InputError(
            f"{subsets} subsets of {size}, from {n} and {m} images; allowed: 2 or more, of 3 to {min(n, m)}"
        )


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
