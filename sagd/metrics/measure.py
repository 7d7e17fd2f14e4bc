"""Measure distances between two sets of features."""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sagd.errors import InputError, check_whole, shortened
from sagd.metrics.checks import BLOCK, check_features
from sagd.metrics.comparison import Comparison, Metric, check_begin, check_end
from sagd.metrics.distances import METRICS
from sagd.metrics.features import Extractor
from sagd.metrics.frechet import Moments
from sagd.runtime.parallel import blocks
from sagd.runtime.registry import own, theirs

__all__ = ["METRICS", "caveats", "check_names", "copies", "find", "measure", "needing_images"]

ALIKE = 1e-5  # of the largest feature: by how much those of one image may differ, as its place in a batch moves them


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
        An unknown metric, features that are not finite, too few images, a reference that is missing, a mistake in a
        metric of your own.
    """
    found = find(metrics, folder)
    check_whole("seed", seed, 0)
    if replicates != 0:
        check_whole("replicates, unless it is 0,", replicates, 2)
    check_features(0, generated=generated, **({} if reference is None else {"reference": reference}))
    if moments is not None and len(moments.mean) != generated.shape[1]:
        raise InputError(f"moments of {len(moments.mean)} features for generated of {generated.shape[1]}")
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
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"metric {metric}: {name} is {value}; it must be a finite number")
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
        ``distance_{extractor}``, or a dict of names to numbers, ``distance_{extractor}_{name}``. Not every name will
        do: see `sagd.metrics.comparison.check_begin` (of the function) and `check_end` (of the numbers).

    Raises
    ------
    InputError
        An unknown name, or one that is taken; no such file or function.
    """
    if isinstance(metrics, str):
        raise InputError(f"metrics is {metrics!r}; it must be a list of names")
    names = {str(name) for name in metrics}
    theirs = sorted(name for name in names if ":" in name)
    ours = sorted(names.difference(theirs))
    check_names(theirs)
    return {name: METRICS[name] for name in ours} | {name: _own(name, folder) for name in theirs}


def check_names(places: Iterable[str]) -> None:
    """Refuse functions of a user's own, such as ``mine.py:distance``, with names that are taken, or that two have."""
    seen: dict[str, str] = {}
    for place in places:
        function = place.rpartition(":")[2]
        check_begin(f"metric {place}", function)
        if function in seen:
            raise InputError(f"metric {place}: {seen[function]} has the same name; rename one of the functions")
        seen[function] = place


def needing_images(metrics: dict[str, Metric]) -> list[str]:
    """Names of the metrics that need the features of the reference, not only its moments."""
    return [name for name, metric in metrics.items() if not metric.moments_suffice]


def _own(place: str, folder: Path) -> Metric:
    """A user's own function as a metric."""
    function = own(place, folder, "metric")

    def compute(comparison: Comparison) -> dict[str, float]:
        name = f"{place.rpartition(':')[2]}_{comparison.extractor.name}"
        with theirs(f"metric {place}"):
            returned = function(*map(_locked, (comparison.generated, comparison.reference_features)))
        values = _numbers(returned if isinstance(returned, dict) else {"": returned})
        if not values:
            told = shortened(" ".join(repr(returned).split()), 60)
            raise InputError(f"metric {place} returns {told}; it must be a finite number, or a dict of finite numbers")
        if not isinstance(returned, dict):
            return {name: values[""]}
        for key in values:
            if not key or not key.isprintable():
                raise InputError(f"metric {place}: a number's name is {shortened(repr(key), 60)}; it must be a word")
            check_end(f"metric {place}", key)
        return {f"{name}_{key}": value for key, value in values.items()}

    return Metric(compute, least=2)


def _locked(features: np.ndarray) -> np.ndarray:
    """The same features, which a user's function can't change under the other metrics."""
    view = features.view()
    view.flags.writeable = False
    return view


def _numbers(returned: dict[Any, Any]) -> dict[str, float]:
    """The numbers that a user's function returned, by name; none where one is no finite number."""
    try:
        values = {str(key): math.nan if isinstance(v, (str, bytes, bool)) else float(v) for key, v in returned.items()}
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one torch's
        return {}
    return values if len(values) == len(returned) and all(map(math.isfinite, values.values())) else {}


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


def copies(generated: np.ndarray, reference: np.ndarray | None) -> list[str]:
    """What to know before believing a distance: images that are in both sets, or more than once in one.

    Images are the same where their features are, but for rounding.

    Parameters
    ----------
    generated, reference
        Features (N, D) and (M, D); None where only moments of the reference are known.
    """
    sets = {"generated": generated} | ({} if reference is None else {"reference": reference})
    check_features(1, **sets)
    kinds = dict(zip(sets, _kinds(*sets.values()), strict=True))
    told = []
    if reference is not None:
        found = int(np.isin(kinds["generated"], kinds["reference"]).sum())
        if np.array_equal(np.sort(kinds["generated"]), np.sort(kinds["reference"])):
            told.append(
                f"generated and reference are the same {found} images: distances between them are 0 but for chance and "
                "rounding (an unbiased one may fall below 0), and say nothing of a model"
            )
        elif found:
            told.append(f"{found} of the {len(generated)} generated images are in the reference, too")
    for name, its in kinds.items():
        if repeats := len(its) - len(np.unique(its)):
            told.append(f"{repeats} of the {len(its)} {name} images repeat others of them")
    return told


def _kinds(*sets: np.ndarray) -> Iterator[np.ndarray]:
    """For each row of each set, (N,), a number that equal rows share, of whatever set."""
    places = list(itertools.pairwise(np.cumsum([0, *map(len, sets)]).tolist()))
    width = sets[0].shape[1]
    direction = np.random.default_rng(0).standard_normal(width)
    parts = [(x, i) for x in sets for i in blocks(len(x), BLOCK)]
    along: np.ndarray = np.concatenate([x[i].astype(np.float64) @ direction for x, i in parts])
    size = max(float(np.abs(x[i].astype(np.float64)).max()) for x, i in parts)
    # Equal rows are neighbours in this order, unless another one comes between by chance.
    order = np.argsort(along, kind="stable")

    def rows(wanted: np.ndarray) -> np.ndarray:
        found = np.empty((len(wanted), width))
        for x, (start, stop) in zip(sets, places, strict=True):
            inside = (wanted >= start) & (wanted < stop)
            found[inside] = x[wanted[inside] - start]
        return found

    new = np.ones(len(order), dtype=bool)
    for i in blocks(len(order) - 1, BLOCK):
        apart = np.abs(np.diff(rows(order[i.start : i.stop + 1]), axis=0)).max(1)
        new[i.start + 1 : i.stop + 1] = apart > ALIKE * size
    kinds = np.empty(len(order), dtype=np.int64)
    kinds[order] = np.cumsum(new)
    return (kinds[start:stop] for start, stop in places)
