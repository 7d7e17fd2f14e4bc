"""The rules by which a question counts as answered, on data of known truth."""

import numpy as np
import pytest

from sagd.errors import InputError
from studies.claims.contrasts import (
    CONTRADICTED,
    EQUIVALENT,
    PART,
    SUPPORTED,
    UNDECIDED,
    corrected,
    decide,
    error_rates,
    every,
    holm,
    power_of,
    seeds_needed,
    slope,
)  # fmt: skip

CHANCE = 0.012  # three standard errors of a share of 5 % in 4,000 trials


@pytest.fixture(scope="module")
def rates():
    return error_rates(trials=4000)


def test_a_claim_is_supported_where_nothing_is_at_most_as_often_as_stated(rates):
    none = rates["no effect"]
    assert none[SUPPORTED] + none[CONTRADICTED] <= 0.05 + CHANCE
    rng = np.random.default_rng(1)
    words = [decide(rng.normal(size=8).tolist(), "below").verdict for _ in range(4000)]  # without a margin
    wrong = 1 - words.count(UNDECIDED) / 4000
    assert abs(wrong - 0.05) < CHANCE


def test_an_effect_as_large_as_the_margin_is_seldom_called_equivalent(rates):
    assert rates["an effect of exactly the margin, as expected"][EQUIVALENT] <= 0.05 + CHANCE


def test_effects_are_found_and_on_the_right_side(rates):
    assert rates["twice the margin, as expected"][SUPPORTED] > 0.99
    assert rates["twice the margin, the other way"][CONTRADICTED] > 0.99
    assert rates["no effect"][EQUIVALENT] > 0.85


def test_a_claim_of_all_is_not_supported_by_seven_of_eight(rates):
    # A thousand trials here: three standard errors are twice as wide.
    assert rates["every one of 8: true of 7, no effect in one"][SUPPORTED] <= 0.05 + 2 * CHANCE
    assert rates["every one of 8: true"][SUPPORTED] > 0.95
    assert rates["every one of 8: the other way in one"][PART] > 0.95
    nowhere = rates["every one of 8: the other way in one, no effect in 7"]
    assert nowhere[CONTRADICTED] > 0.8 and nowhere[PART] <= 0.05 + 2 * CHANCE and nowhere[SUPPORTED] == 0


@pytest.mark.parametrize(
    ("means", "told"),
    [
        ([-1, -1, -1], "supported"),
        ([-1, -1, 1], "holds in part: 2 of 3"),
        ([-1, 0, 1], "holds in part: 1 of 3"),
        ([0, 0, 1], "contradicted"),
        ([1, 1, 1], "contradicted"),
        ([-1, -1, 0], "undecided"),  # nothing lies on the other side: more seeds might still support it
    ],
)
def test_a_claim_about_every_one_holds_in_part_where_some_lie_on_either_side(means, told):
    effects = [[m - 0.02, m + 0.01, m + 0.01, m] for m in means]
    assert every(effects, ["below"] * 3).told == told


def test_effects_of_a_claim_are_counted_by_holms_method():
    """p one-sided of 0.04 each: enough for a claim of both, too much for either of them alone."""
    weak = [-1.0, -0.2, -0.8, -0.2]
    assert 0.025 < decide(weak, "below").p_difference / 2 < 0.05
    assert every([weak, weak], ["below"] * 2).sides == (SUPPORTED, SUPPORTED)
    clear = [1.0, 1.01, 0.99, 1.0]
    assert every([weak, weak, clear], ["below"] * 3).sides == (UNDECIDED, UNDECIDED, CONTRADICTED)
    assert every([weak, weak, clear], ["below"] * 3).told == CONTRADICTED


def test_the_word_of_a_claim_that_holds_in_part_is_corrected_and_corrects_no_other():
    strong = every([[-1.0, -1.001, -0.999, -1.0], [1.0, 1.01, 0.99, 1.0]], ["below"] * 2)
    weak = every([[-1.0, -0.7, -1.2, -0.6], [1.0, 1.001, 0.999, 1.0]], ["below"] * 2)
    assert strong.verdict == weak.verdict == PART
    single = decide([-1.0, -0.9, -1.1, -0.8], "below")
    found = corrected([strong, weak, single], ["below"] * 3, missing=4)
    assert [d.verdict for d in found] == [PART, CONTRADICTED, SUPPORTED]
    assert found[1].p_part == pytest.approx(9 * weak.p_part)  # two of each joint claim, one of the other, four not run
    assert found[2].p_difference == corrected([strong, weak, single], ["below"] * 3, missing=4)[2].p_difference


def test_holm_is_wrong_in_one_family_of_twenty():
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(1000):
        found = [decide(rng.normal(size=8).tolist(), "below") for _ in range(10)]
        wrong += any(d.verdict != UNDECIDED for d in corrected(found, ["below"] * 10))
    assert abs(wrong / 1000 - 0.05) < 2 * CHANCE


def test_holm_is_the_published_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm (1979), by hand
    assert holm([0.9, 0.9]) == [1, 1]
    assert holm([0.01, 0.02, 0.03], most=2) == pytest.approx([0.02, 0.04, 0.04])


def test_correcting_keeps_what_is_clear_and_joint_claims():
    clear = decide([-1.0, -1.1, -0.9, -1.05], "below", margin=0.1)
    joint = every([[-1.0, -1.1, -0.9], [1.0, 1.1, 0.9]], ["below", "above"])
    weak = decide([-1.0, -0.2, -0.5, -0.1], "below")
    found = corrected([clear, joint, weak], ["below"] * 3)
    assert [d.verdict for d in found] == [SUPPORTED, SUPPORTED, UNDECIDED]
    # Four tests can be true together, one of each single effect and both of the joint one; before it is one smaller.
    assert found[1].p_support == pytest.approx(4 * joint.p_support)


def test_equivalence_needs_a_margin():
    tiny = [0.01, -0.01, 0.005, -0.004]
    assert decide(tiny, "below", margin=0.1).verdict == EQUIVALENT
    assert decide(tiny, "below").verdict == UNDECIDED


def test_an_effect_that_was_expected_to_be_small():
    assert decide([0.01, -0.01, 0.005, -0.004], "within", margin=0.1).verdict == SUPPORTED
    assert decide([0.2, 0.21, 0.19, 0.2], "within", margin=0.1).verdict == CONTRADICTED
    assert decide([-0.2, -0.21, -0.19, -0.2], "within", margin=0.1).verdict == CONTRADICTED
    assert decide([0.05, 0.15, 0.1, 0.08], "within", margin=0.1).verdict == UNDECIDED
    rng = np.random.default_rng(4)  # at the margin itself each of the two is wrong in 5 %
    found = [decide(rng.normal(1, 0.5, 8).tolist(), "within", margin=1.0).verdict for _ in range(4000)]
    for wrong in (SUPPORTED, CONTRADICTED):
        assert abs(found.count(wrong) / 4000 - 0.05) < CHANCE
    with pytest.raises(InputError, match="state one"):
        decide([0.1, 0.2], "within")


@pytest.mark.parametrize("effects", [[], [0.1], [0.1, np.nan], [0.1, np.inf]])
def test_what_no_test_can_judge_is_refused(effects):
    with pytest.raises(InputError, match="a test needs two or more, all finite"):
        decide(effects, "below", margin=0.2)


def test_what_was_not_run_yet_counts_in_the_correction():
    found = decide([-1.0, -0.9, -1.1, -0.8], "below")
    alone, later = (corrected([found], ["below"], missing)[0].p_difference for missing in (0, 9))
    assert alone == found.p_difference and later == pytest.approx(10 * found.p_difference)


def test_seeds_that_all_agree_are_decided():
    assert decide([0.0, 0.0, 0.0], "below", margin=0.1).verdict == EQUIVALENT
    assert decide([-1.0, -1.0, -1.0], "below").verdict == SUPPORTED


@pytest.mark.parametrize("margin", [None, 1.0])
def test_power_is_that_of_the_rule(margin):
    rng, true = np.random.default_rng(3), 0.0 if margin else 0.8
    told = [decide(rng.normal(true, 0.75, 8).tolist(), "above", margin).verdict for _ in range(3000)]
    share = told.count(EQUIVALENT if margin else SUPPORTED) / 3000
    assert share == pytest.approx(power_of(0.75, true, 8, margin), abs=0.03)
    needed = seeds_needed(0.75, true, 0.9, margin)
    assert power_of(0.75, true, needed, margin) >= 0.9 > power_of(0.75, true, needed - 1, margin)


def test_slope():
    assert slope([-0.5, 0, 0.5], [3, 2, 1]) == pytest.approx(-2)
