"""What a metric is, what it is given, and how it may be called."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sagd.errors import InputError, shortened
from sagd.metrics.features import Extractor
from sagd.metrics.frechet import Moments

# The streams that had numbers before they had names: their draws stay as they were.
STREAMS = {"halves": 0, "fid": 1, "fid_infinity": 2, "kid": 3, "sliced": 4}

# How names of distances begin and end, by which the pipeline and its tables tell errors, floors and checkpoints.
FIRST = tuple("fid fd kid kd sliced precision recall density coverage pixels corrupted reference".split())
LAST = ("se", "best", "on_half", "of_halves", "of_real", "of_filtered", "step_NUMBER")
_LAST = re.compile(rf"(^|.*_)({'|'.join(LAST)})$".replace("NUMBER", "[0-9]+"), re.S)


def check_begin(what: str, name: str) -> None:
    """Refuse a function of a user's own whose numbers would pass for, or get lost among, those of other metrics."""
    if name in FIRST or name.startswith(tuple(f"{first}_" for first in FIRST)):
        raise InputError(f"{what}: names that begin with {', '.join(FIRST)} are sagd's own; rename the function {name}")


def check_end(what: str, name: str) -> None:
    """Refuse a name, of a network or of one of several numbers, with an end that has a meaning in tables."""
    if _LAST.match(name):
        own = shortened(repr(name), 60)
        raise InputError(f"{what}: names that end with {', '.join(LAST)} have a meaning in tables; rename {own}")


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
        order = self.rng("halves").permutation(len(self.reference_features))
        return [np.sort(order[k::2]) for k in range(2)]

    def rng(self, stream: str) -> np.random.Generator:
        """A fresh generator of a stream by name, such as that of the metric, so that no metric changes another's draws.

        Of equal seeds and names the draws are equal.
        """
        if not isinstance(stream, str):
            raise InputError(f"stream is {stream!r}; it must be a name, such as that of your metric")
        number = STREAMS.get(stream)
        if number is None:
            number = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big")
        return np.random.default_rng([self.seed, number])


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
