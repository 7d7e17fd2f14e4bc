"""The screens of the page of the claims, on results that were made up."""

import json
import re

import numpy as np
import pytest

from studies.claims import screens as claims
from studies.claims.answers import arms, command, heading
from studies.claims.decided import answers, written
from tests.pipeline.conftest import STUDY

QUESTIONS = ("spectrum", "tilt", "omission", "endpoint", "cost", "tiny", "colored", "flicker")
STEPS = 13


@pytest.fixture
def whole(study):
    """Results of every setting, and of the stages that write their own."""
    results = study(lambda name: 0.5 if name.endswith("bpm") else 0.4 if name.endswith("filtered") else 1.0)
    curves = {"of_alphas": np.full((4, STEPS), 0.2).tolist(), "of_seeds": np.full((4, STEPS), 0.1).tolist()}
    slopes = {name: {"effects": [0.3, 0.31, 0.29, 0.3]} for name in ("endpoint_ratio", "endpoint_difference")}
    ends = curves | slopes | {"sigma": np.geomspace(0.01, 1, STEPS).tolist()}
    times = {"effects": [0.001, -0.001, 0.002], "shaped": [1.0, 1.1, 0.9], "isotropic": [1.0, 1.1, 0.9]}
    folder = results.params.settings[0].report("evaluate", "seeds.json").parents[3]
    (folder / "endpoint.json").write_text(json.dumps(ends))
    (folder / "cost.json").write_text(json.dumps({"cost_paper": times, "cost_study": times}))
    arms, effects = ("ode", "white", "paper", "tuned"), {"effects": [-0.2, -0.21, -0.19]}
    colored = {"distances": {arm: [0.2, 0.21, 0.19] for arm in arms}}
    (folder / "colored.json").write_text(json.dumps(colored | {f"colored_{arm}": effects for arm in arms}))
    flicker = {"steps": [5, 15, 50], "distances": {alpha: [[0.5, 0.3, 0.2]] * 3 for alpha in ("-0.5", "0")}}
    (folder / "flicker.json").write_text(
        json.dumps(flicker | {f"flicker_{name}": effects for name in ("fewer", "few", "many")})
    )
    return results


def test_every_question_of_the_file_has_a_screen():
    assert tuple(written(STUDY / "contrasts.yaml").questions) == QUESTIONS
    assert set(claims.LEFT) | set(claims.CAPTIONS) <= set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_screen_has_its_verdict_its_picture_and_its_command(whole, name):
    file = written()
    found = answers(whole, file)
    its = found[name]
    said = heading(name, file.questions[name], its)
    assert re.match(rf"## {file.questions[name].title}\n\n\*\*(Supported|Equivalent|Contradicted|Undecided)", said)
    shown = claims.picture(name, its, whole).data
    assert shown.count("<img") == 1 and "95 %" in shown
    for answer in its.values():
        assert f"{answer.name.replace('_', ' ')}: {answer.verdict}" in shown
    assert "make decide ONLY=" in command(its, whole) or name == "cost"
    assert ("All measures" in arms(its, whole).data) == (name != "cost")


def test_a_screen_of_what_was_not_run_says_so(study):
    results = study(lambda name: 1.0, only=lambda name: name.startswith("tilt"))
    its = answers(results, written())["omission"]
    assert claims.picture("omission", its, results).data == ""
    assert "**Not run.**" in heading("omission", written().questions["omission"], its)


def test_bands_of_which_some_arms_are_missing_are_drawn(study):
    results = study(lambda name: 1.0, only=lambda name: not name.endswith("literal"))
    assert "<img" in claims.picture("omission", answers(results, written())["omission"], results).data


def test_bands_that_no_network_can_leave_out_are_named(study):
    distances = {"omission_01_02_bpm": 2.0, "omission_02_03_bpm": 0.5}  # real images' without the band are the same
    results = study(lambda name: distances.get(name, 1.0), only=lambda name: re.match(r"omission_0[12]_", name))
    said = claims.out_of_reach(results)
    assert said.startswith("On band [0.1, 0.2] even real images without the band are") and said.count("On band") == 1
    assert "leaving the band out of the noise 2.0" in said and "filtering the images 1.0" in said


def test_a_command_names_what_it_needs_and_no_more(whole):
    found = answers(whole, written())
    assert "'^(tiny_.*|tilt_v_iso)$'" in command(found["tiny"], whole)
    assert "'^(omission_.*)$'" in command(found["omission"], whole)
    assert "dvc repro endpoint" in command(found["endpoint"], whole)
    assert "ONLY='^(tilt_v_iso)$'`, then `cd studies/claims && dvc repro colored`" in command(found["colored"], whole)
