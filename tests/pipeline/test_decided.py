"""The contrasts that were written down, on results that were made up to have a known answer."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline import params as parameters
from studies.claims import decided
from studies.claims.answers import arms as arms_of
from studies.claims.answers import heading, outcome, power, ran, sentence
from studies.claims.contrasts import CONTRADICTED, EQUIVALENT, PART, SUPPORTED, UNDECIDED, decide
from studies.claims.decided import (
    FAILED,
    NOT_RUN,
    PRIMARY,
    Answer,
    Contrast,
    Results,
    answer,
    answers,
    overall,
    settings_of,
    written,
)
from studies.claims.resampled import log_ratio
from studies.claims.screens import picture
from studies.plan import decided as arms

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "studies" / "claims" / "contrasts.yaml"


def test_every_setting_that_a_contrast_names_is_an_arm_of_the_study(monkeypatch):
    monkeypatch.chdir(ROOT)
    named, file = arms(), written(FILE)
    places = {*named, *(f"{n}/{v}" for n, s in named.items() for v in s.get("variants", {}))}
    bands = ["01_02", "08_09"]
    for question in file.questions.values():
        assert any(contrast.primary for contrast in question.contrasts.values())
        for contrast in question.contrasts.values():
            assert set(settings_of(contrast, bands)) <= places


def test_the_committed_parameters_are_those_of_the_contrasts(monkeypatch):
    from studies.plan import parameters as made

    monkeypatch.chdir(ROOT)
    assert json.loads((ROOT / "studies/claims/params.json").read_text()) == made("decide")


def test_networks_that_are_compared_are_trained_alike(monkeypatch):
    """Two arms of a contrast differ in what it is about; not in the number of steps, say."""
    monkeypatch.chdir(ROOT / "studies" / "claims")
    settings = {s.name: s for s in parameters.load().settings}
    for question in written(FILE).questions.values():
        for contrast in question.contrasts.values():
            named = settings_of(contrast, Results(parameters.load()).bands)
            compared = [settings[n.split("/")[0]] for n in named]
            # What a contrast is about stands in its sentence.
            about = {"prediction", "project"} | ({"linear"} if "times" in contrast.says else set())
            recipes = {s.train.model_dump_json(exclude=about) for s in compared}
            samplings = {s.sample.model_dump_json(exclude={"earlier", "start"}) for s in compared}
            assert len(recipes) <= 1 and len(samplings) <= 1, contrast.says


def test_what_was_not_run_is_told(study):
    results = study(lambda name: 1.0, only=lambda name: "omission" not in name)
    found = answers(results, written())
    assert found["omission"]["projected_isotropic"].verdict == NOT_RUN
    assert "omission_01_02_bpm" in found["omission"]["projected_isotropic"].why
    assert overall(found["omission"]) == NOT_RUN


def test_without_any_effect_nothing_is_supported(study):
    found = answers(study(lambda name: 1.0), written())
    secondary = [a for its in found.values() for a in its.values() if not a.contrast.primary]
    assert {a.verdict for a in secondary} <= {EQUIVALENT, UNDECIDED, NOT_RUN}
    assert found["tilt"]["listing"].verdict == found["tiny"]["plus"].verdict == EQUIVALENT
    assert overall(found["tiny"]) == EQUIVALENT


def test_a_gain_that_only_the_mean_image_brings(study):
    found = answers(study(lambda name: 0.7 if name.startswith("tilt_eps_m006_floor") else 1.0), written())["tilt"]
    words = {name: found[name].verdict for name in ("listing", "listing_centred", "listing_right_start", "mean_image")}
    assert words == dict(zip(words, [SUPPORTED, EQUIVALENT, SUPPORTED, SUPPORTED], strict=True))
    assert found["listing"].decision.mean == pytest.approx(np.log(0.7), abs=0.01)
    assert overall(found) == "supported; equivalent"


def test_a_band_where_omission_fails_spoils_the_claim_of_all(study):
    arm = {"iso": 1.0, "literal": 0.6, "bpm": 0.51, "filtered": 0.5}
    found = answers(study(lambda name: arm.get(name.split("_")[-1], 1.0)), written())["omission"]
    assert found["projected_isotropic"].verdict == found["projected_literal"].verdict == SUPPORTED
    assert found["projected_filtered"].verdict == SUPPORTED  # 0.01 of 0.5 is within a tenth
    assert found["projected_filtered"].decision.mean == pytest.approx(0.02, abs=0.01)


def test_a_claim_that_one_band_contradicts_holds_in_part(study):
    distance = {"omission_03_04_bpm": 1.2, "omission_03_04_iso": 1.0}
    found = answers(study(lambda name: distance.get(name, 0.5 if name.endswith("bpm") else 1.0)), written())
    assert found["omission"]["projected_isotropic"].verdict == "holds in part: 7 of 8"
    assert found["omission"]["projected_isotropic"].decision.verdict == PART


def test_a_claim_that_holds_on_no_band_is_contradicted(study):
    found = answers(study(lambda name: 1.2 if name.endswith("bpm") else 1.0), written())["omission"]
    assert found["projected_isotropic"].verdict == CONTRADICTED


@pytest.mark.parametrize(
    ("primary", "secondary", "said"),
    [
        (["supported"] * 2, ["undecided"], "supported"),
        (["supported"], ["supported", "contradicted"], "supported, with a reservation"),
        (["supported"], ["holds in part"], "supported, with a reservation"),
        (["contradicted", "equivalent", "contradicted"], ["contradicted"], "contradicted; equivalent"),
    ],
)
def test_a_question_has_the_verdicts_of_its_primary_contrasts(primary, secondary, said):
    def answer(verdict, decides):
        decision = replace(decide([0.1, 0.2], "below"), verdict=verdict)
        how = Contrast(kind="difference", says="it is", expected="below", primary=decides)
        return Answer("", how, decision)

    each = [*(answer(word, True) for word in primary), *(answer(word, False) for word in secondary)]
    assert overall({str(k): a for k, a in enumerate(each)}) == said


def test_slopes_of_the_rings(study):
    found = answers(study(lambda name: 1.0, lambda alpha, r, at: np.exp(alpha * (0.3 if r < 0.2 else -0.4))), written())
    rings = found["spectrum"]["rings"]
    assert rings.verdict == SUPPORTED and rings.parts == ("low rings", "high rings")
    assert [d.mean for d in rings.decision.parts] == pytest.approx([0.3, -0.4], abs=0.02)
    assert found["spectrum"]["fading"].verdict == UNDECIDED  # as large at a quarter of the training as at its end


@pytest.mark.parametrize("distance", [-1.0, 0.0])
def test_a_distance_without_a_logarithm_is_told_and_stops_nothing_else(study, distance):
    """An arm that is too good was run: it is not said that it was not."""
    results = study(lambda name: distance if name == "tilt_eps_iso" else 1.0)
    found = answers(results, written())["tilt"]
    listing = found["listing"]
    assert listing.verdict == FAILED == "could not be computed"
    assert re.fullmatch(r"kd_classifier of tilt_eps_iso is -?[01].* at seed 0, which has no logarithm", listing.why)
    assert sentence(listing).startswith("**Could not be computed.** Predicting eps, ") and listing.why in sentence(
        listing
    )
    assert overall(found) == "could not be computed; equivalent"
    assert found["v_listing"].verdict == EQUIVALENT
    assert "**Could not be computed.**" in heading("tilt", written().questions["tilt"], found)


def test_a_constant_that_was_written_down_first_gives_small_distances_a_logarithm(study):
    results = study(lambda name: -0.001 if name == "tilt_eps_m006_floor" else 0.03)
    contrast = written().questions["tilt"].contrasts["listing"].model_copy(update={"plus": 0.013})
    found = answer("listing", contrast, results)
    assert found.decision.mean == pytest.approx(np.log(0.012 / 0.043), abs=0.01)
    assert outcome(found).startswith("distance plus 0.013 -")
    plain = answer("listing", contrast.model_copy(update={"plus": 0.0}), results)
    assert plain.verdict == FAILED


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("share", "plus is for kinds difference, gains, every, slope; this one is share"),
        ("recorded", "measure is kd_classifier; of kind recorded it begins with colored, cost, endpoint, flicker"),
    ],
)
def test_a_contrast_that_cannot_be_meant_is_refused(kind, says):
    with pytest.raises(ValidationError, match=says):
        Contrast(kind=kind, says="", expected="below", plus=0.1)


def test_a_misspelt_measure_is_an_error_and_not_a_run_that_is_missing(study):
    results = study(lambda name: 1.0)
    contrast = written().questions["tilt"].contrasts["listing"].model_copy(update={"measure": "kd_classifer"})
    found = answer("listing", contrast, results)
    assert (found.verdict, found.why) == (FAILED, "tilt_eps_m006_floor has no kd_classifer at 1 of its training")


def test_what_a_stage_could_not_record_is_told(study):
    results = study(lambda name: 1.0)
    (contrast,) = (c for c in written().questions["flicker"].contrasts.values() if c.measure == "flicker_fewer")
    file = decided.recorded(contrast, results.params)
    assert answer("fewer", contrast, results).why == "missing: stage flicker"
    told = log_ratio(("alpha -0.5, 15 steps", [0.1, -0.2]), ("alpha 0, 50 steps", [0.1, 0.2]), [4, 5])
    assert told == {"why": "the kernel distance of alpha -0.5, 15 steps is -0.2 at seed 5, which has no logarithm"}
    file.write_text(json.dumps({"flicker_fewer": told}))
    found = answer("fewer", contrast, results)
    assert (found.verdict, found.why) == (FAILED, told["why"])
    file.write_text(json.dumps({"flicker_fewest": told}))
    assert answer("fewer", contrast, results).why == f"{file} has no flicker_fewer"
    ratio = log_ratio(("a", [0.2, 0.4]), ("b", [0.1, 0.1]), [4, 5])
    assert ratio == {"effects": pytest.approx([np.log(2), np.log(4)])}


def test_what_was_run_with_other_parameters_is_told(study):
    results = study(lambda name: 1.0)
    path = results.params.setting("tilt_eps_iso").report("evaluate", "seeds.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": [77], "made": {"seeds": [77]}}))
    found = answers(results, written())["tilt"]["listing"]
    assert (found.verdict, found.why) == (NOT_RUN, "missing: tilt_eps_iso (there with other parameters)")


def test_a_pilot_without_a_logarithm_is_told(study):
    results = study(lambda name: -1.0 if name == "pilot_v_iso" else 1.0)
    said = power(written(), results)
    assert re.search(r"could not be computed: kd_classifier of pilot_v_iso is -[01].* has no logarithm\.$", said)


def test_a_share_of_nothing_is_told(study):
    found = answers(study(lambda name: 2.0 if name.endswith("filtered") else 1.0), written())["omission"]
    assert "there is no share of it" in found["projected_filtered"].why


def test_slopes_that_grow_do_not_fade(study):
    grown = study(lambda name: 1.0, lambda alpha, r, at: np.exp(alpha * at * (0.3 if r < 0.2 else -0.4)))
    found = answers(grown, written())["spectrum"]["fading"]
    assert found.verdict == CONTRADICTED and all(d.mean < 0 for d in found.decision.parts)
    assert found.parts == ("low rings", "high rings")


def test_bands_are_those_of_the_file(study):
    assert Results(parameters.load()).bands == [f"0{k}_0{k + 1}" for k in range(1, 9)]
    assert decided.FILE == Path("contrasts.yaml")


@pytest.mark.parametrize("question", ["endpoint", "colored", "flicker"])
def test_a_stage_depends_on_the_networks_that_its_contrasts_name(question):
    stages = YAML(typ="safe").load((FILE.parent / "dvc.yaml").read_text())["stages"]
    needed = {setting for contrast in written(FILE).questions[question].contrasts.values() for setting in contrast.over}
    trained = "artifacts/${profile}/train/"
    assert {Path(d).name for d in stages[question]["deps"] if d.startswith(trained)} == needed


def changed(path, **content):
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


DAMAGES = {  # of evaluate.seeds.json
    "empty": lambda path: path.write_text(""),
    "cut off": lambda path: path.write_text(path.read_text()[:-50]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "made a list": lambda path: changed(path, made=["seeds"]),
    "no per_seed": lambda path: changed(path, per_seed=None),
    "per_seed a list": lambda path: changed(path, per_seed=[1.0] * 8),
    "a seed without a value": lambda path: changed(path, per_seed={PRIMARY: [1.0] * 7}),
    "a word": lambda path: changed(path, per_seed={PRIMARY: [1.0] * 7 + ["1.0"]}),
    "nested": lambda path: changed(path, per_seed={PRIMARY: [[1.0]] * 8}),
    "a scalar": lambda path: changed(path, per_seed={PRIMARY: 2.0}),
    "not finite": lambda path: changed(path, per_seed={PRIMARY: [1.0] * 7 + [float("nan")]}),
    "other seeds": lambda path: changed(path, seeds=[*range(1, 9)]),
    "seeds twice": lambda path: changed(path, seeds=[0] * 8),
    "no such measure": lambda path: changed(path, per_seed={}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_takes_its_own_contrast_and_no_more(study, damage):
    """Of the page too: pictures, tables and what is told of the runs are made of what can be read."""
    results = study(lambda name: 1.0, only=lambda name: name.startswith(("tilt_eps", "tilt_v")))
    path = results.params.setting("tilt_eps_iso").report("evaluate", "seeds.json")
    DAMAGES[damage](path)
    contrasts = written().questions["tilt"].contrasts
    its = {name: answer(name, contrasts[name], results) for name in ("listing", "v_listing")}
    assert its["listing"].verdict == FAILED and its["v_listing"].verdict == EQUIVALENT
    assert (str(path) if damage != "no such measure" else "tilt_eps_iso has no kd_classifier") in its["listing"].why
    assert "could not be computed" in heading("tilt", written().questions["tilt"], its).lower()
    assert "<img" in picture("tilt", its, results).data
    assert "tilt_v_iso" in arms_of(its, results).data and "settings were run" in ran(results)


ROWS = {  # of evaluate.denoising.csv, by its lines
    "none": lambda lines: [],
    "the header alone": lambda lines: lines[:1],
    "a seed less": lambda lines: [line for line in lines if not line.startswith(b"0,")],
    "cut off": lambda lines: lines[:-3],
    "cut off in a number": lambda lines: [*lines[:-1], lines[-1][:-4]],
    "a word": lambda lines: [*lines[:-1], b"0,3000,1.0,0.6,none\n"],
    "not UTF-8": lambda lines: [*lines[:-1], b"\xff\n"],
    "negative": lambda lines: [*lines[:-1], re.sub(rb"[^,]+$", b"-0.5\n", lines[-1])],
    "not finite": lambda lines: [*lines[:-1], re.sub(rb"[^,]+$", b"nan\n", lines[-1])],
    "a row twice": lambda lines: [*lines, lines[-1]],
}


@pytest.mark.parametrize("damage", [*ROWS, "missing"])
def test_denoising_errors_that_are_damaged_are_not_left_out(study, damage):
    tilted = study(lambda name: 1.0, lambda a, r, at: np.exp(a * (0.3 if r < 0.2 else -0.4)), spectra)
    path = tilted.params.setting("spectrum_iso").report("evaluate", "denoising.csv")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"".join(ROWS[damage](path.read_bytes().splitlines(keepends=True))))
    for name in ("rings", "fading"):
        found = answer(name, written().questions["spectrum"].contrasts[name], tilted)
        assert found.verdict == FAILED and str(path) in found.why


def spectra(name):
    return name.startswith("spectrum")


@pytest.mark.parametrize("effects", [None, 0.5, "down", [[1.0], [2.0]], [0.5], [0.1, "0.2"], [0.1, float("nan")], {}])
def test_effects_of_a_stage_that_are_none_are_told(study, effects):
    results = study(lambda name: 1.0, only=lambda name: False)
    (contrast,) = (c for c in written().questions["flicker"].contrasts.values() if c.measure == "flicker_fewer")
    file = decided.recorded(contrast, results.params)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"flicker_fewer": {"effects": effects}}))
    found = answer("fewer", contrast, results)
    assert found.verdict == FAILED and ("flicker_fewer is" in found.why or "two or more" in found.why)


def test_a_picture_that_cannot_be_drawn_is_told(study):
    """What a stage has decided stays, though what it drew beside is gone."""
    results = study(lambda name: 1.0, only=lambda name: False)
    (contrast,) = (c for c in written().questions["flicker"].contrasts.values() if c.measure == "flicker_fewer")
    file = decided.recorded(contrast, results.params)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"flicker_fewer": {"effects": [0.1, 0.2]}, "steps": [5, 10], "distances": {"0": [[1]]}}))
    its = {"fewer": answer("fewer", contrast, results)}
    said = picture("flicker", its, results).data
    assert its["fewer"].decision and "could not be drawn" in said and str(file) in said
