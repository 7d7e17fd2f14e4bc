"""Precision, recall, density and coverage."""

from sagd.metrics.comparison import Comparison, Metric
from sagd.metrics.neighbours import precision_recall_density_coverage


def _compute(comparison: Comparison) -> dict[str, float]:
    found = precision_recall_density_coverage(comparison.generated, comparison.reference_features)
    return {f"{key}_{comparison.extractor.name}": value for key, value in found.items()}


prdc = Metric(_compute)
