"""The card of an exported network says what was trained and measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

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


def card_of(monkeypatch, **prepared):
    """The card of the focus, with other words of `prepare`."""
    monkeypatch.chdir(ROOT)
    read = {"reports/prepare.json": read_json(Path("reports/prepare.json")) | prepared}
    monkeypatch.setattr(export, "read_json", lambda path, **kinds: read.get(str(path)) or read_json(path, **kinds))
    return card(params.load().setting(None))


@pytest.mark.parametrize(
    "source, said",
    [
        ("folder: /home/me/secret/cats", "Data: folder: cats\n"),
        ("folder: pictures", "Data: folder: pictures\n"),
        ("mnist: /data/MNIST/raw", "Data: mnist\n"),
        ("celeba: data/celeba", "Data: celeba\n"),
        ("huggingface: owner/name:plain", "Data: huggingface: owner/name:plain\n"),
        ("huggingface: /home/me/set", "Data: huggingface: set\n"),
        ("mine.py:reader: ~/secret/set.h5", "Data: mine.py:reader: set.h5\n"),
        ("mine.py:reader", "Data: mine.py:reader\n"),
        ("folder: /a/<img src=x onerror=alert(1)>", "Data: folder: &lt;img src=x onerror=alert(1)&gt;\n"),
        ("folder: /a/`*b*` [c](d) _e_ f_g |\n# h", r"Data: folder: \`\*b\*\` \[c\](d) \_e\_ f_g \|\\n# h" + "\n"),
    ],
)
def test_the_card_names_the_data_without_folders_and_without_markup(monkeypatch, source, said):
    text = card_of(monkeypatch, source=source)
    assert said in text
    assert "secret" not in text


def test_the_card_says_what_labels_stand_for(monkeypatch):
    assert "Labels" not in card_of(monkeypatch)
    text = card_of(monkeypatch, classes=3, class_names=["cat", "<b>dog", "a_b"])
    assert "Labels: 0 to 2; 3 stands for none. They are: 0 cat, 1 &lt;b&gt;dog, 2 a_b.\n" in text
    assert "Labels: 0 to 2; 3 stands for none.\n" in card_of(monkeypatch, classes=3)  # prepared by an earlier version


def test_the_settings_hold_no_path_of_this_machine(monkeypatch):
    monkeypatch.chdir(ROOT)
    setting = params.load().setting(None)
    long = "word " * 100  # longer than a file's name may be
    of, encode = setting.section, setting.encode.model_copy(update={"path": "/home/me/secret/vae", "kind": long})
    encode.model_fields_set.update(("path", "kind"))
    changed = replace(setting, section=lambda name: encode if name == "encode" else of(name))
    settings = json.loads(card(changed).split("```json")[1].split("```")[0])
    assert settings["encode"]["path"] == "vae" and settings["encode"]["kind"] == long


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
