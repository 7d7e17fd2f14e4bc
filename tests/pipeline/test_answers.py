"""What the page of the claims says of an answer."""

import pytest

from pipeline.study import answers
from pipeline.study.answers import percent, sentence, stated, told
from pipeline.study.contrasts import decide, every
from pipeline.study.decided import Answer, Contrast

SAYS = "the distance is smaller than at 0"


def answered(effects, **contrast):
    how = Contrast(**{"kind": "difference", "says": SAYS, "expected": "below", "primary": True, **contrast})
    return Answer("listing", how, decide(effects, how.expected, how.margin), ("",))


@pytest.mark.parametrize(("effect", "said"), [(0.0, "+0.00 %"), (-0.5, "-39 %"), (0.0198, "+2.0 %"), (0.7, "+101 %")])
def test_a_logarithm_is_told_in_percent(effect, said):
    assert percent(effect) == said


def test_a_verdict_is_a_sentence():
    supported = sentence(answered([-0.5, -0.51, -0.49]))
    assert supported == "**Supported.** The distance is smaller than at 0: -39 % (-41 to -38 %)."
    against = sentence(answered([0.5, 0.51, 0.49]))
    assert against == f"**Contradicted.** Expected: {SAYS}. Measured: +65 % (+61 to +69 %)."
    same = sentence(answered([0.001, 0.0, -0.001], margin=0.1))
    assert same.startswith("**Equivalent.** Expected:") and same.endswith("surely less than the margin of 11 %.")
    absent = Answer("listing", answered([0, 1]).contrast, None, missing=("tilt_eps_iso",))
    assert sentence(absent) == "**Not run.** The distance is smaller than at 0. Missing: tilt_eps_iso."


def test_every_band_is_told_by_the_range():
    how = Contrast(kind="every", says=SAYS, expected="below")
    found = every([[-0.5, -0.51, -0.49], [-1.0, -1.1, -0.9], [0.2, -0.2, 0.1]], ["below"] * 3)
    said = told(Answer("omission", how, found, ("01_02", "02_03", "03_04")))
    assert said == "-63 % to +3.4 % on 3 bands, 2 of them clear of 0"


def test_slopes_are_told_for_a_quarter_of_alpha():
    said = told(answered([0.4, 0.41, 0.39], kind="slope", expected="above"))
    assert said.startswith("+11 % for each 0.25 of alpha (")


def test_a_changed_contrast_is_told(monkeypatch):
    lines = ["abc 2026-11-25 State what decides", "def 2026-11-26 Change a margin"]
    monkeypatch.setattr(answers, "_history", lambda file: lines)
    assert "changed after that: `def` (2026-11-26 Change a margin)" in stated()
    monkeypatch.setattr(answers, "_history", lambda file: lines[:1])
    assert "has not been changed since" in stated()
    monkeypatch.setattr(answers, "_history", lambda file: [])
    assert "no git" in stated()
