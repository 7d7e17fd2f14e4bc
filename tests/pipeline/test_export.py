"""The card of an exported network says what was trained and measured."""

import json
from pathlib import Path

from pipeline import export, params
from pipeline.export import card
from sagd.runtime.files import read_json

ROOT = Path(__file__).parents[2]


def test_the_card_has_the_data_the_settings_and_the_measurements(monkeypatch):
    monkeypatch.chdir(ROOT)
    text, measured = card(params.load().setting(None)), read_json(Path("reports/evaluate.json"))
    name = "kd_efficientnet_lite0"
    row = f"| {name} | {measured[name]:.4g} | {measured[f'{name}_se']:.2g} | {measured[f'{name}_of_real']:.4g} |"
    assert row in text.splitlines()
    assert f"Means over {measured['seeds']} seeds, {measured['samples_per_seed']} samples each" in text
    assert read_json(Path("reports/prepare.json"))["source"] in text
    settings = json.loads(text.split("```json")[1].split("```")[0])
    assert settings["noise"]["alpha"] == params.load().setting(None).noise.alpha
    assert settings["train"]["prediction"] == "v"


def test_one_seed_has_no_error(monkeypatch):
    monkeypatch.chdir(ROOT)
    measured = read_json(Path("reports/evaluate.json"))
    alone = {key: None if key.endswith("_se") else value for key, value in measured.items()}
    read = {"reports/evaluate.json": alone}
    monkeypatch.setattr(export, "read_json", lambda path, **kinds: read.get(str(path)) or read_json(path, **kinds))
    name = "kd_efficientnet_lite0"
    assert f"| {name} | {measured[name]:.4g} |  | {measured[f'{name}_of_real']:.4g} |" in card(
        params.load().setting(None)
    )
