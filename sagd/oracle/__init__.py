"""Targets with a score in closed form, and what follows from them: the error of a sampler, a choice of alpha."""

from sagd.oracle.drowning import Band, band_table, snr
from sagd.oracle.suggest import Suggestion, suggest, verdict
from sagd.oracle.targets import Mixture, distance, drawn, finite, gaussian_field

__all__ = [
    "Band",
    "Mixture",
    "Suggestion",
    "band_table",
    "distance",
    "drawn",
    "finite",
    "gaussian_field",
    "snr",
    "suggest",
    "verdict",
]
