"""What came out of each question of studies/claims/contrasts.yaml, in a sentence for the pages.

People wrote these, for verdicts that the rules gave (`studies.claims.contrasts`). Where a verdict has become another,
a sentence is left out of claims.html, and `make docs` asks for a new one. Numbers are filled in by contrast.
"""

from typing import NamedTuple

from studies.claims.contrasts import CONTRADICTED, EQUIVALENT, PART, SUPPORTED, UNDECIDED


class Sentence(NamedTuple):
    """A sentence, and the verdicts that it was written for, by contrast."""

    text: str
    of: dict[str, str]


SENTENCES = {
    "spectrum": Sentence(
        "The more high-frequency the noise, the worse networks denoise low frequencies, and the better high ones. This "
        "grows as training goes on, so it is not only the speed of learning.",
        {"rings": SUPPORTED, "rings_drowned": SUPPORTED, "fading": CONTRADICTED},
    ),
    "tilt": Sentence(
        "The paper's listing at -0.06 makes distances larger: {listing}. On images minus their mean it makes no "
        "difference that matters.",
        {"listing": CONTRADICTED, "listing_right_start": CONTRADICTED, "listing_centred": EQUIVALENT},
    ),
    "omission": Sentence(
        "Against white noise, leaving the band out is {projected_isotropic}. It is as good as filtering the images.",
        {"projected_isotropic": f"{PART}: 7 of 8", "projected_filtered": SUPPORTED},
    ),
    "endpoint": Sentence(
        "Relative to two seeds of one alpha, the scores of two alphas come closer, only because the seeds differ more "
        "near the data; the scores themselves do not converge: {by_itself}.",
        {"beside_seeds": SUPPORTED, "by_itself": CONTRADICTED},
    ),
    "cost": Sentence(
        "Timings spread too much to tell whether a step takes as long within 2 %: {paper_network}.",
        {"paper_network": UNDECIDED},
    ),
    "tiny": Sentence(
        "Neither makes a difference that matters: {plus} at +0.001, {minus} at -0.001.",
        {"plus": EQUIVALENT, "minus": EQUIVALENT},
    ),
    "colored": Sentence(
        "Colored steps make distances much larger: {formula}.",
        {"formula": CONTRADICTED},
    ),
    "flicker": Sentence(
        "15 steps with 1/f noise are worse than 50 with white noise: {15_against_50_steps}.",
        {"15_against_50_steps": CONTRADICTED},
    ),
}
