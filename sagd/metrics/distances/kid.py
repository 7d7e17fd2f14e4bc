"""Kernel distance, over all pairs or over subsets, and that between two halves of the reference."""

from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.kernel import kernel_distance, kernel_distance_of_subsets


def _compute(comparison: Comparison) -> dict[str, float]:
    generated, reference = comparison.generated, comparison.reference_features
    name = comparison.extractor.metric("kid")
    found = {}
    if comparison.kid_subsets is None:
        found[name], found[f"{name}_sample_se"] = kernel_distance(generated, reference)
    else:
        count, size = comparison.kid_subsets
        found[name], found[f"{name}_subset_se"] = kernel_distance_of_subsets(
            generated, reference, subsets=count, size=size, rng=comparison.rng("kid")
        )
    found[f"{name}_of_halves"], _ = kernel_distance(*(reference[half] for half in comparison.halves))
    return found


kid = Metric(_compute)
