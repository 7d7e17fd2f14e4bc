"""Sliced Wasserstein distance of features, and that between two halves of the reference."""

from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.sliced import sliced_distance


def _compute(comparison: Comparison) -> dict[str, float]:
    generated, reference, name = comparison.generated, comparison.reference_features, comparison.extractor.name
    halves = [reference[half] for half in comparison.halves]
    return {
        f"sliced_{name}": sliced_distance(generated, reference, rng=comparison.rng("sliced")),
        f"sliced_{name}_of_halves": sliced_distance(*halves, rng=comparison.rng("sliced")),
    }


sliced = Metric(_compute)
