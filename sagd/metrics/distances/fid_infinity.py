"""Fréchet distance extrapolated to infinitely many samples, with the standard error of the fit."""

from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.frechet import frechet_distance_infinity


def _compute(comparison: Comparison) -> dict[str, float]:
    name = f"{comparison.extractor.metric('fid')}_infinity"
    value, error = frechet_distance_infinity(
        comparison.generated, comparison.moments, rng=comparison.rng("fid_infinity")
    )
    return {name: value, f"{name}_fit_se": error}


fid_infinity = Metric(_compute, moments_suffice=True, least=10)
