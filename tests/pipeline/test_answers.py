"""What the page of the claims says of an answer."""

import json
import os
import re
import subprocess
from types import SimpleNamespace

import pytest

from studies.claims import answers, history
from studies.claims.answers import percent, sentence, told
from studies.claims.contrasts import decide, every
from studies.claims.decided import Answer, Contrast, Question

SAYS = "the distance is smaller than at 0"


def answered(effects, **contrast):
    how = Contrast(**{"kind": "difference", "says": SAYS, "expected": "below", "primary": True, **contrast})
    return Answer("listing", how, decide(effects, how.expected, how.margin), ("",))


@pytest.mark.parametrize(("effect", "said"), [(0.0, "+0.00 %"), (-0.5, "-39 %"), (0.0198, "+2.0 %"), (0.7, "+101 %")])
def test_a_logarithm_is_told_in_percent(effect, said):
    assert percent(effect) == said


def test_a_verdict_is_a_sentence():
    supported = sentence(answered([-0.5, -0.51, -0.49]))
    assert supported == "**Supported.** The distance is smaller than at 0. Measured: distance -39 % (-41 to -38 %)."
    against = sentence(answered([0.5, 0.51, 0.49]))
    assert against == f"**Contradicted.** Expected: {SAYS}. Measured: distance +65 % (+61 to +69 %)."
    same = sentence(answered([0.001, 0.0, -0.001], margin=0.1))
    assert same.startswith("**Equivalent.** Expected:") and same.endswith("which is within the margin (-9.5 to +11 %).")
    absent = Answer("listing", answered([0, 1]).contrast, None, why="missing: tilt_eps_iso")
    assert sentence(absent) == "**Not run.** The distance is smaller than at 0 (missing: tilt_eps_iso)."


def test_every_band_is_told_by_the_range():
    how = Contrast(kind="every", says=SAYS, expected="below")
    found = every([[-0.5, -0.51, -0.49], [-1.0, -1.1, -0.9], [0.2, -0.2, 0.1]], ["below"] * 3)
    said = told(Answer("omission", how, found, ("01_02", "02_03", "03_04")))
    assert said == "better on 2 of 3 bands (means of -63 % to +3.4 %)"
    other = every([[0.5, 0.51, 0.49], [-1.0, -1.1, -0.9]], ["below"] * 2)
    answer = Answer("omission", how, other, ("01_02", "02_03"))
    assert told(answer).startswith("better on [0.2, 0.3], worse on [0.1, 0.2] (means of ")
    assert sentence(answer).startswith(f"**Holds in part: 1 of 2.** Expected: {SAYS}. Measured: distance, better on")
    unclear = every([[0.2, -0.2, 0.1]] * 2, ["below"] * 2)
    assert told(Answer("omission", how, unclear, ("01_02", "02_03"))).startswith("neither better nor worse on any of 2")


def test_a_share_is_what_is_missing():
    found = answered([0.02, 0.021, 0.019], kind="share", expected="within", margin=0.1)
    assert sentence(found).endswith(": against filtering, gains -2.0 % more (-2.2 to -1.8 %).")


def test_slopes_are_told_for_a_quarter_of_alpha():
    said = told(answered([0.4, 0.41, 0.39], kind="slope", expected="above"))
    assert said.startswith("+11 % for each 0.25 of alpha (")


def test_one_part_of_the_rings_is_named():
    how = Contrast(kind="rings", says=SAYS, expected="above", rings=["high rings"])
    said = told(Answer("drowned", how, decide([-0.4, -0.41, -0.39], "below"), ("high rings",)))
    assert said.startswith("high rings -9.5 % for each 0.25 of alpha")


def test_the_page_says_what_had_been_measured_when_a_contrast_was_written(tmp_path, monkeypatch):
    written = [
        {"commit": "abc", "date": "2026-11-25", "subject": "State what decides", "measured": []},
        {"commit": "ghi", "date": "2026-11-26", "subject": "Change a margin", "measured": ["pilot", "tilt"]},
    ]
    (tmp_path / "history.json").write_text(json.dumps({"commits": written}))
    monkeypatch.setattr(answers, "HISTORY", tmp_path / "history.json")
    told = answers.stated()
    assert "`abc` (2026-11-25), before anything had been measured: State" in told
    assert "`ghi` (2026-11-26), after pilot, tilt had been measured: Change a margin" in told


def test_the_history_is_gits(tmp_path, monkeypatch):
    """A commit that writes the contrasts is added, with what was measured by then; one that moves them is not."""

    def git(*arguments):
        place = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        names = ("-c", "user.name=x", "-c", "user.email=x@localhost")
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, env=os.environ | place, check=True)

    git("init", "--quiet")
    for folder in ("old", "new"):
        measured = tmp_path / folder / history.MEASURED / "pilot"
        if folder == "old":
            measured.mkdir(parents=True)
            (tmp_path / "old" / "contrasts.yaml").write_text("one\ntwo\nthree\n")
        else:
            git("mv", "old", "new")
            git("commit", "--quiet", "--message", "Move")
            (tmp_path / "new" / "contrasts.yaml").write_text("one\ntwo\nfour\n")
        (measured / f"{folder}.json").write_text("{}")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Write {folder}")
    (tmp_path / "new" / "history.json").write_text('{"commits": []}')
    monkeypatch.setattr(history, "HERE", tmp_path / "new")
    monkeypatch.setattr(history, "HISTORY", tmp_path / "new" / "history.json")
    history.main()
    history.main()
    found = json.loads((tmp_path / "new" / "history.json").read_text())["commits"]
    assert [(c["subject"], c["measured"]) for c in found] == [("Write old", []), ("Write new", ["pilot"])]


def test_a_heading_tells_the_secondary_contrasts_that_came_out():
    primary = answered([-0.5, -0.51, -0.49])
    against = answered([0.5, 0.51, 0.49], primary=False, says="it falls by itself")
    unsure = answered([0.5, -0.51, 0.09], primary=False, says="it may")
    question = Question(claim=4, title="Ends", paper="They meet.", asks="Do they?", contrasts={})
    said = answers.heading("ends", question, {"one": primary, "two": against, "three": unsure})
    main, _, beside = said.partition("Beside it, secondary:")
    assert main.startswith("## Ends\n\n**Supported, with a reservation.**\n\n") and "**Supported.**" in main
    assert "**Contradicted.** Expected: it falls by itself" in beside and "**Undecided.** Expected: it may" in beside


def test_a_sentence_is_for_the_verdicts_that_it_was_written_for(monkeypatch):
    written = answers.SENTENCES["tiny"]._replace(text="It is {one}.", of={"one": "supported"})
    monkeypatch.setitem(answers.SENTENCES, "tiny", written)
    its = {"one": answered([-0.5, -0.51, -0.49])}
    assert answers.in_words("tiny", its) == "It is -39 % (-41 to -38 %)."
    assert answers.in_words("tiny", {"one": answered([0.5, 0.51, 0.49])}) == ""
    assert answers.in_words("tiny", {}) == answers.in_words("nothing", its) == ""
    question = Question(claim=2, title="Tiny", paper="P.", asks="A?", contrasts={})
    assert "**Supported.** It is -39 % (-41 to -38 %).\n" in answers.heading("tiny", question, its)


def test_the_table_is_in_the_order_of_claims_with_counts_of_the_rest():
    def question(**keys):
        return Question(**{"title": "T", "paper": "P.", "asks": "A?", "contrasts": {}} | keys)

    file = SimpleNamespace(questions={"x": question(title="Other"), "b": question(claim=2), "a": question(claim=1)})
    its = {"one": answered([0.5, 0.51, 0.49]), "two": answered([0.5, 0.51, 0.49], primary=False)}
    shown = answers.summary({"x": its, "a": its, "b": its}, file).data
    rows = [re.findall("<td>(.*?)</td>", row) for row in shown.split("<tr>")[1:]]
    assert [row[0] for row in rows] == ["1. T", "2. T", "Other (others' claim)"]
    assert {tuple(row[4:]) for row in rows} == {("3", "1 contradicted")}


def test_p_values_name_what_they_reject():
    assert answers._p(answered([0.5, 0.51, 0.49], margin=0.1)) == "no effect: 0.00013; outside the margin: 1"
    assert answers._p(answered([0.01, 0.0, 0.0], margin=0.1, expected="within")).startswith(
        "outside: 0.00059; inside: 1"
    )
    how = Contrast(kind="every", says=SAYS, expected="below")
    joint = Answer("omission", how, every([[-0.5, -0.51, -0.49]] * 2, ["below"] * 2), ("01_02", "02_03"))
    assert answers._p(joint) == "not all as expected: 6.7e-05; none the other way: 1; none as expected: 0.00013"


def test_an_interval_is_told_with_as_many_digits_as_it_takes():
    assert told(answered([0.131, 0.1311, 0.1309])) == "+14 % (+14.0 to +14.0 %)"
    assert told(answered([0.13, 0.131, 0.129])) == "+14 % (+13.6 to +14.2 %)"


def test_pairs_of_seeds_and_timings_are_no_seeds():
    ends = answered([0.5, 0.51, 0.49, 0.5], kind="recorded", measure="endpoint_ratio")
    assert [answers._count(answered(e.decision.effects, kind="recorded", measure=m)) for e, m in (
        (ends, "endpoint_ratio"), (ends, "cost_paper"), (ends, "flicker_few")
    )] == ["4 pairs of seeds", "4 timings", "4"]  # fmt: skip
