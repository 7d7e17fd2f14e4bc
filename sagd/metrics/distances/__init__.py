"""Metrics by name. A new one is one file here, with a `Metric` of its own name."""

from sagd.metrics.comparison import Metric
from sagd.runtime.registry import Registry

METRICS: Registry[Metric] = Registry(__name__, Metric, "metric")
