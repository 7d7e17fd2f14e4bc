"""Fréchet distance, with its standard error over the samples, and that between two halves of the reference."""

import numpy as np

from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.frechet import Moments, bootstrap_error, frechet_distance


def _compute(comparison: Comparison) -> dict[str, float]:
    generated, reference, moments = comparison.generated, comparison.reference, comparison.moments
    name = comparison.extractor.metric("fid")
    found = {name: frechet_distance(Moments.of(generated), moments)}
    if comparison.replicates:
        found[f"{name}_sample_se"] = bootstrap_error(
            lambda counts: frechet_distance(Moments.of(generated, counts), moments),
            len(generated),
            replicates=comparison.replicates,
            rng=comparison.rng("fid"),
            report=comparison.report,
        )
    if reference is not None:
        counts = (np.bincount(half, minlength=len(reference)) for half in comparison.halves)
        found[f"{name}_of_halves"] = frechet_distance(*(Moments.of(reference, c) for c in counts))
    return found


fid = Metric(_compute, moments_suffice=True)
