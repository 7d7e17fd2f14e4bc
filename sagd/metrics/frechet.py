"""The Fréchet distance: FID on Inception's features."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sagd.errors import InputError, check_whole, needs, shortened
from sagd.metrics.checks import BLOCK, LARGEST, check_array, check_rng, check_rows
from sagd.runtime.files import BROKEN, entry, read_array, regular
from sagd.runtime.parallel import blocks

WIDEST = 8 * 2**28  # bytes of a covariance that is read: of 16,384 features


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, the covariance as A^T A.

    Parameters
    ----------
    mean
        (D,)
    factor
        A, (R, D), R at least the rank of the covariance and at most D.

    Raises
    ------
    InputError
        Other shapes, or numbers that are not finite.
    """

    mean: np.ndarray
    factor: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what has no Fréchet distance."""
        mean, factor = np.shape(self.mean), np.shape(self.factor)
        if len(mean) != 1 or not mean[0] or len(factor) != 2 or factor[1] != mean[0]:
            raise InputError(f"mean of shape {mean}, factor of the covariance {factor}; they must be (D,) and (R, D)")
        for name, x in (("mean", self.mean), ("covariance", self.factor)):
            if not np.abs(x).max(initial=0) <= LARGEST:
                raise InputError(f"the {name} of the features is not finite, or has numbers above {LARGEST:g}")

    @property
    def covariance(self) -> np.ndarray:
        """(D, D)."""
        return self.factor.T @ self.factor

    @classmethod
    def of(cls, features: np.ndarray, counts: np.ndarray | None = None) -> "Moments":
        """Moments of features (N, D), streamed: memory does not grow with N.

        Parameters
        ----------
        counts
            (N,), how often each row counts: of a subset 0 or 1, of a resample more. They add up to 2 or more.

        Raises
        ------
        InputError
            Features that are no array (N, D), or not finite, and fewer than two.
        """
        check_array("features", features)
        counts = np.broadcast_to(1.0, len(features)) if counts is None else counts
        if counts.shape != (len(features),) or not counts.min(initial=0) >= 0:
            raise InputError(f"counts of shape {counts.shape} for {len(features)} rows; each is 0 or more, one a row")
        n = counts.sum()
        if n < 2:
            raise InputError(f"{n:.0f} row of features; moments need two or more")

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for rows in blocks(len(features), BLOCK):
                kept = counts[rows] > 0
                yield features[rows][kept].astype(np.float64), counts[rows][kept, None]

        with np.errstate(invalid="ignore"):  # told with its row
            mean = sum((count * x).sum(0) for x, count in parts()) / n
        if not np.abs(mean).max() <= LARGEST:
            check_rows("features", features)
        centred = (np.sqrt(count) * (x - mean) for x, count in parts())
        if n <= len(mean):
            return cls(mean, np.concatenate(list(centred)) / np.sqrt(n - 1))
        return cls.given(mean, sum(x.T @ x for x in centred) / (n - 1))

    @classmethod
    def read(cls, path: Path) -> "Moments | None":
        """Moments of an npz file with ``mu`` (D,) and ``sigma`` (D, D), such as ADM's reference batches; else None."""
        if path.suffix.lower() != ".npz" or path.is_dir():
            return None
        try:
            with zipfile.ZipFile(regular(path)) as archive:
                if not {"mu.npy", "sigma.npy"} <= set(archive.namelist()):
                    return None
                for name in ("mu.npy", "sigma.npy"):
                    entry(archive, name, WIDEST)
            return cls.given(*(read_array(path, member=name) for name in ("mu", "sigma")))
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        except BROKEN as error:
            raise InputError(f"cannot read {path}: {shortened(str(error), 200)}") from error

    @classmethod
    def given(cls, mean: np.ndarray, covariance: np.ndarray) -> "Moments":
        """Moments from a mean (D,) and a covariance (D, D), as reference files hold them.

        Raises
        ------
        InputError
            Other shapes or types; not finite; a covariance that is not symmetric, or has an eigenvalue below 0.
        """
        with needs("metrics"):
            from scipy.linalg import LinAlgError, cholesky, eigh

        for name, x in (("mean", mean), ("covariance", covariance)):
            if np.asarray(x).dtype.kind not in "fiu":
                raise InputError(f"{name} is of type {np.asarray(x).dtype}; it must be of real numbers")
        mean, covariance = (np.asarray(x, dtype=np.float64) for x in (mean, covariance))
        if mean.ndim != 1 or covariance.shape != 2 * mean.shape or not len(mean):
            raise InputError(
                f"mean of shape {mean.shape}, covariance {covariance.shape}; they must be (D,) and (D, D), D at least 1"
            )
        for name, x in (("mean", mean), ("covariance", covariance)):
            if not np.isfinite(x).all():
                raise InputError(f"the {name} is not finite: it has {x[~np.isfinite(x)][0]:g}")
        scale = np.abs(covariance).max(initial=0)
        apart = np.abs(covariance - covariance.T)
        if not apart.max(initial=0) <= 1e-6 * scale:
            row, column = np.unravel_index(apart.argmax(), apart.shape)
            raise InputError(
                f"the covariance is not symmetric: {covariance[row, column]:g} at ({row}, {column}), "
                f"{covariance[column, row]:g} at ({column}, {row})"
            )
        try:
            return cls(mean, cholesky(covariance))
        except LinAlgError:  # deficient rank
            values, vectors = eigh(covariance, driver="evd")
            if values[0] < -1e-6 * scale:
                raise InputError(f"the covariance has an eigenvalue of {values[0]:g}: it is not a covariance") from None
            kept = values > values[-1] * len(mean) * np.finfo(float).eps
            return cls(mean, (vectors[:, kept] * np.sqrt(values[kept])).T)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance between two Gaussians (Dowson and Landau 1982; FID: Heusel et al. 2017).

    ``|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``. The eigenvalues of S_a S_b are those of the symmetric
    A S_b A^T, S_a = A^T A. The side of lower rank gives A: then none of them is zero but for rounding, whose root
    would be 1e-8, not 1e-16.

    On finite sets it is biased upward, and more so on smaller ones: compare only at equal counts. It is never below 0,
    but for rounding, of about 1e-9 of the traces: such a number is given as 0.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions; they must be of the same network")
    with needs("metrics"):
        from scipy.linalg import eigvalsh

    if len(a.factor) > len(b.factor):
        a, b = b, a
    cross = a.factor @ b.factor.T
    roots = np.sqrt(np.maximum(eigvalsh(cross @ cross.T), 0)).sum()
    found = np.square(a.mean - b.mean).sum() + np.square(a.factor).sum() + np.square(b.factor).sum() - 2 * roots
    return max(float(found), 0.0)


def frechet_distance_infinity(
    features: np.ndarray, reference: Moments, *, rng: np.random.Generator, points: int = 15
) -> tuple[float, float]:
    """The Fréchet distance extrapolated to infinitely many samples (Chong and Forsyth 2020).

    A line through the distances of random subsets, over the reciprocals of their sizes, from a fifth of the features
    to all. The reference is not extrapolated. With fewer samples than dimensions the distances do not lie on a line.

    Returns
    -------
    intercept, error
        The standard error is that of the fit. The subsets overlap, so it is somewhat too small. The intercept is
        unbiased, and may fall below 0.
    """
    check_array("features", features)
    check_whole("points", points, 3)
    check_rng(rng, "choice")
    n = len(features)
    if n < 10:
        raise InputError(f"{n} samples; the extrapolation needs 10 or more")
    sizes = np.linspace(n / 5, n, points).astype(int)
    subsets = (np.bincount(rng.choice(n, size, replace=False), minlength=n) for size in sizes)
    distances = [frechet_distance(Moments.of(features, counts), reference) for counts in subsets]
    (_, intercept), covariance = np.polyfit(1 / sizes, distances, 1, cov=True)
    return float(intercept), float(np.sqrt(covariance[1, 1]))


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
        Of how often each sample counts, (n,). Do not use its mean over the resamples if repeated samples bias it, as
        they bias a Fréchet distance.
    replicates
        Resamples, 2 or more.
    report
        Called with 1 after each resample.
    """
    check_whole("n", n, 1)
    check_whole("replicates", replicates, 2)
    check_rng(rng, "integers")
    values = []
    for _ in range(replicates):
        values.append(statistic(np.bincount(rng.integers(n, size=n), minlength=n)))
        report(1)
    return float(np.std(values, ddof=1))


def chosen_on_half(halves: np.ndarray) -> float:
    """The distance of a run's best checkpoint, without the bias of taking a minimum.

    Parameters
    ----------
    halves
        (2, C): the distance of each of C checkpoints, on one half of its samples and on the other.

    Returns
    -------
    float
        The distance on one half of the checkpoint that is best on the other half, averaged over both ways.
    """
    if np.ndim(halves) != 2 or len(halves) != 2 or not halves.size or not np.isfinite(halves).all():
        raise InputError(
            f"halves of shape {np.shape(halves)}, {shortened(str(np.asarray(halves).tolist()), 60)}; they must be "
            "(2, C), of one checkpoint or more, all finite"
        )
    return float(np.mean([halves[1, halves[0].argmin()], halves[0, halves[1].argmin()]]))
