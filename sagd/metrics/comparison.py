"""What a metric is, and what it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sagd.metrics.features import Extractor
from sagd.metrics.frechet import Moments


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sets of features to compare, and how.

    Parameters
    ----------
    generated
        (N, D).
    reference
        (M, D); None where only its moments are given.
    extractor
        The network that gave the features: it names the distances.
    given
        Moments of the reference, where they are not to be computed from its features.
    seed
        Of all that is drawn.
    replicates
        Of the bootstrap, for the standard error of the Fréchet distance over the samples; 0: none.
    kid_subsets
        Count and size: the kernel distance over random subsets, in place of that over all pairs.
    report
        Called with 1 after each resample.
    """

    generated: np.ndarray
    reference: np.ndarray | None
    extractor: Extractor
    given: Moments | None = None
    seed: int = 0
    replicates: int = 0
    kid_subsets: tuple[int, int] | None = None
    report: Callable[[int], None] = lambda resamples: None

    @property
    def reference_features(self) -> np.ndarray:
        """The reference, for metrics that need more than moments: `measure` refuses them if it has only moments."""
        assert self.reference is not None
        return self.reference

    @cached_property
    def moments(self) -> Moments:
        """Of the reference, given or computed."""
        return Moments.of(self.reference_features) if self.given is None else self.given

    @cached_property
    def halves(self) -> list[np.ndarray]:
        """Rows of two random halves of the reference, each sorted."""
        order = self.rng(0).permutation(len(self.reference_features))
        return [np.sort(order[k::2]) for k in range(2)]

    def rng(self, stream: int) -> np.random.Generator:
        """A fresh generator. Each user has a stream of its own, so that no metric changes what another draws.

        Taken are 0 by the halves, 1 by fid, 2 by fid_infinity, 3 by kid, 4 by sliced.
        """
        return np.random.default_rng([self.seed, stream])


@dataclass(frozen=True)
class Metric:
    """A distance, or several, between two sets of features.

    Parameters
    ----------
    compute
        Takes a `Comparison`; returns names, with the extractor's in them, to values.
    moments_suffice
        Whether the moments of the reference are enough, without its features.
    least
        How many images each set must have.
    """

    compute: Callable[[Comparison], dict[str, float]]
    moments_suffice: bool = False
    least: int = 6
