"""Measure distances between two sets of features."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

from sagd.errors import InputError
from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.distances import METRICS
from sagd.metrics.features import Extractor
from sagd.metrics.frechet import Moments
from sagd.runtime.registry import own, where

__all__ = ["METRICS", "caveats", "find", "measure", "needing_images"]


def measure(
    generated: np.ndarray,
    reference: np.ndarray | None,
    of: Extractor,
    metrics: Collection[str] = ("fid", "kid"),
    *,
    moments: Moments | None = None,
    seed: int = 0,
    replicates: int = 0,
    kid_subsets: tuple[int, int] | None = None,
    folder: Path = Path(),
    report: Callable[[int], None] = lambda resamples: None,
) -> dict[str, float]:
    """Measure distances between two sets of features.

    Parameters
    ----------
    generated, reference
        Features (N, D) and (M, D). The reference may be None if its moments are given and all metrics are Fréchet
        distances.
    of
        The network that gave the features. Keys are ``fid_*`` and ``kid_*`` on Inception features, ``fd_*`` and
        ``kd_*`` on any other.
    metrics
        Keys of `METRICS`; or functions of your own, see `find`.
    moments
        Of the reference, if they are not to be computed from its features.
    seed
        Of the resamples, subsets and halves.
    replicates
        Of the bootstrap, for the standard error of the Fréchet distance over the samples; 0: none.
    kid_subsets
        Count and size: the kernel distance over random subsets, in place of that over all pairs.
    folder
        Where the files of your own metrics lie.
    report
        Called with 1 after each resample.

    Returns
    -------
    dict
        Names to values. Endings: ``_sample_se``, a standard error over the samples; ``_subset_se``, only over the
        subsets; ``_fit_se``, of a line; ``_of_halves``, the same distance between two random halves of the reference:
        a floor, though at fewer samples.

    Raises
    ------
    InputError
        An unknown metric, too few images, a reference that is missing, a mistake in a metric of your own.
    """
    found = find(metrics, folder)
    if reference is None:
        if needing := needing_images(found):
            raise InputError(f"{' and '.join(needing)}: the features of the reference are needed, not only its moments")
        if moments is None:
            raise InputError("reference and moments are both None; give one of them")
    else:
        least, few = max((metric.least for metric in found.values()), default=0), min(len(generated), len(reference))
        if few < least:
            raise InputError(f"{few} images in a set; {' and '.join(found)} need {least} or more")
    comparison = Comparison(generated, reference, of, moments, seed, replicates, kid_subsets, report)
    distances: dict[str, float] = {}
    for metric, its in found.items():
        values = its.compute(comparison)
        if twice := values.keys() & distances.keys():
            raise InputError(f"metric {metric}: another one is called {min(twice)}, too; rename the function")
        distances |= values
    return distances


def find(metrics: Iterable[str], folder: Path = Path()) -> dict[str, Metric]:
    """Metrics by name, those of `METRICS` first, each part in alphabetical order.

    Parameters
    ----------
    metrics
        Keys of `METRICS`; or functions of your own, such as ``mine.py:distance`` in the folder. Such a function takes
        the features of the samples (N, D) and of the reference (M, D), and returns a number, which is called
        ``distance_{extractor}``, or a dict of names to numbers, ``distance_{extractor}_{name}``.
    """
    names = set(metrics)
    theirs = sorted(name for name in names if ":" in name)
    ours = sorted(names.difference(theirs))
    return {name: METRICS[name] for name in ours} | {name: _own(name, folder) for name in theirs}


def needing_images(metrics: dict[str, Metric]) -> list[str]:
    """Names of the metrics that need the features of the reference, not only its moments."""
    return [name for name, metric in metrics.items() if not metric.moments_suffice]


def _own(place: str, folder: Path) -> Metric:
    """A user's own function as a metric."""
    function = own(place, folder, "metric")

    def compute(comparison: Comparison) -> dict[str, float]:
        name = f"{place.rpartition(':')[2]}_{comparison.extractor.name}"
        try:
            returned = function(comparison.generated, comparison.reference)
        except Exception as error:  # whatever a user's file raises
            raise InputError(f"metric {place}: {where(error)}") from error
        named = {f"{name}_{key}": v for key, v in returned.items()} if isinstance(returned, dict) else {name: returned}
        try:
            values = {key: float(value) for key, value in named.items()}
        except (TypeError, ValueError, RuntimeError):  # the last one torch's
            values = {}
        if not values or not np.isfinite(list(values.values())).all():
            told = " ".join(repr(returned).split())[:60]
            raise InputError(f"metric {place} returns {told}; it must be a finite number, or a dict of finite numbers")
        return values

    return Metric(compute, least=2)


def caveats(samples: int, reference: int | None, dimensions: int) -> list[str]:
    """What to know before comparing Fréchet distances: where they are biased.

    Parameters
    ----------
    samples, reference
        How many images; None where only moments of the reference are known.
    dimensions
        Of the features.
    """
    counts = {"samples": samples, "references": reference}
    few = [f"{n} {what}" for what, n in counts.items() if n is not None and n <= dimensions]
    if not few:
        return []
    return [
        f"{' and '.join(few)} are no more than the {dimensions} features: their covariance is singular, and a Fréchet "
        "distance is biased upward by an amount that depends on their number; compare only at equal counts, or use the "
        "kernel distance, which is unbiased"
    ]
