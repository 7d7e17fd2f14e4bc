"""A user's own operator, data and metric, through the stages: files below extensions/."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline import corrupt, encode, evaluate, prepare
from pipeline import params as parameters
from pipeline.pages import results
from pipeline.params import sections
from sagd.errors import InputError
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.noise import corruption, stored
from sagd.operators import from_dict
from sagd.runtime.files import read_array, read_json

ROOT = Path(__file__).parents[2]
FOCUS = SimpleNamespace(grid=False, setting=None, dry=False, dataset=None)
STUDY = """
seed: 0
dataset: {name: "shapes.py:shapes", size: 8, channels: 1, held_out: 20, labels: true}
noise: {operator: "ring.py:ring", arguments: {middle: 0.2, width: 0.05}}
corrupt: {}
encode: {kind: pixel}
train: {steps: 4, batch_size: 4, lr: 0.001, unet: {widths: [8], layers: 1, attention: [false], groups: 4}}
sample: {n: 6, steps: 2}
evaluate: {features: efficientnet_lite0, metrics: ["gap.py:gap"], bootstrap: 2}
grid:
  settings: {}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Runs a stage of the study above, with the examples of extensions/ in a folder of its own, which it returns."""
    folder = tmp_path / "extensions"
    shutil.copytree(ROOT / "extensions", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for module in (sections, prepare, evaluate):
        monkeypatch.setattr(module, "EXTENSIONS", folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    Path("artifacts/prepare").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("train", "held_out"):
        np.save(f"artifacts/prepare/{name}.npy", rng.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8))
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"train": 12, "held_out": 12, "shape": [1, 8, 8]}')
    raw = YAML(typ="safe").load(STUDY)

    def run(*stages, **changes):
        for key, value in changes.items():
            section, name = key.split("__")
            raw[section][name] = value
        params = parameters.Params(raw)
        for stage in stages:
            stage.main(params, FOCUS)
        return params.setting(None)

    run.folder = folder
    return run


def test_an_own_operator_is_encoded_as_its_weight(own):
    setting = own(corrupt, encode)
    file = own.folder / "operators" / "ring.py"
    found = read_json("reports/encode.json")
    assert found["own"] == {
        "operator": "ring.py:ring",
        "arguments": {"middle": 0.2, "width": 0.05},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    noise = stored.load("artifacts/encode/noise.safetensors")
    r = torch.fft.fftfreq(8, dtype=torch.float64)
    r = (r[:, None] ** 2 + r[None] ** 2).sqrt()
    torch.testing.assert_close(noise.weight, torch.exp(-((r - 0.2) ** 2) / (2 * 0.05**2)) + 0.01)
    assert torch.equal(from_dict(found["noise"]).weight, noise.weight)
    described = results.describe(setting)
    assert "ring" in described and "middle 0.2" in described and "width 0.05" in described


def test_an_edit_of_an_own_operator_is_another_noise(own):
    own(corrupt, encode)
    before, told = stored.load("artifacts/encode/noise.safetensors"), read_json("reports/encode.json")["own"]["sha256"]
    file = own.folder / "operators" / "ring.py"
    file.write_text(file.read_text().replace("+ 0.01", "+ 0.02"))
    own(encode)
    after = stored.load("artifacts/encode/noise.safetensors")
    torch.testing.assert_close(after.weight, before.weight + 0.01)
    assert read_json("reports/encode.json")["own"]["sha256"] != told


def test_an_own_operator_may_take_the_data_and_give_a_spectrum(own):
    (own.folder / "operators" / "mine.py").write_text(
        "import sagd\n\ndef matched(size, power, share=1.0):\n    return sagd.equal_snr(size, share * power)\n"
    )
    own(corrupt, encode, noise__operator="mine.py:matched", noise__arguments={"share": 2.0})
    found, power = (
        stored.load("artifacts/encode/noise.safetensors"),
        encode.statistics(read_array("artifacts/prepare/train.npy"))["power"].mean(0),
    )
    ratio = found.weight**2 / power
    assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-9)
    assert found.weight.square().mean() == pytest.approx(1)


MISTAKES = {
    "no function": ("", "mine.py:ring", {}, r"has no function 'ring'"),
    "no file": ("", "other.py:ring", {}, r"there is no file .*extensions/operators/other\.py"),
    "syntax": ("def ring(size:\n", "mine.py:ring", {}, r"mine\.py cannot be imported: line 1: SyntaxError"),
    "import": ("import nowhere\n", "mine.py:ring", {}, r"mine\.py, line 1: ModuleNotFoundError"),
    "raises": ("def ring(size):\n    return 1 / 0\n", "mine.py:ring", {}, r"mine\.py, line 2: ZeroDivisionError"),
    "ends": ("import sys\ndef ring(size):\n    sys.exit(0)\n", "mine.py:ring", {}, r"mine\.py, line 3: SystemExit: 0"),
    "argument": ("def ring(size):\n    return None\n", "mine.py:ring", {"width": 1}, r"unexpected .*'width'"),
    "shape": ("import torch\ndef ring(size):\n    return torch.ones(3)\n", "mine.py:ring", {}, r"must be \(8, 8\)"),
    "negative": ("import torch\ndef ring(size):\n    return -torch.ones(size)\n", "mine.py:ring", {}, r"a weight must"),
    "text": ("def ring(size):\n    return 'white'\n", "mine.py:ring", {}, r"operator mine\.py:ring: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_own_operator_is_one_line(own, mistake):
    content, name, arguments, says = MISTAKES[mistake]
    (own.folder / "operators" / "mine.py").write_text(content)
    own(corrupt)
    with pytest.raises(InputError, match=f"^noise[.:].*{says}") as failure:
        own(encode, noise__operator=name, noise__arguments=arguments)
    assert "\n" not in str(failure.value)
    assert not Path("artifacts/encode/noise.safetensors").exists()


def test_own_data_are_prepared_with_their_labels(own):
    own(prepare)
    record = read_json("reports/prepare.json")
    assert (record["train"], record["held_out"], record["shape"], record["classes"]) == (780, 20, [1, 8, 8], 2)
    images, labels = read_array("artifacts/prepare/train.npy"), read_array("artifacts/prepare/labels.npy")
    assert images.shape == (780, 1, 8, 8) and labels.shape == (780,)
    # Bright discs and squares on black: a square fills more than the disc in it.
    assert images[:, :, 0, 0].max() == 0 and images.max(axis=(1, 2, 3)).min() >= 160
    filled = (images > 0).mean(axis=(1, 2, 3))
    assert filled[labels == 0].mean() > filled[labels == 1].mean() > 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("def shapes(path, size):\n    return open('nowhere')\n", r"shapes\.py, line 2: FileNotFoundError"),
        ("import sys\ndef shapes(path, size):\n    sys.exit()\n", r"shapes\.py, line 3: SystemExit"),
        ("def shapes(path, size):\n    return 3\n", r"must return Pictures, an array .* it returns int"),
        ("def shapes():\n    return 3\n", r"it is called as reader\(path, size\)"),
        ("", r"has no function 'shapes'"),
    ],
    ids=["raises", "ends", "number", "arguments", "none"],
)
def test_a_mistake_in_an_own_reader_is_one_line(own, content, says):
    before = Path("artifacts/prepare/train.npy").read_bytes()
    (own.folder / "data" / "shapes.py").write_text(content)
    with pytest.raises(InputError, match=says) as failure:
        own(prepare)
    assert "\n" not in str(failure.value)
    assert Path("artifacts/prepare/train.npy").read_bytes() == before


@pytest.fixture
def sampled(own):
    """The study with samples, as `sample` would have left them."""
    drawn = np.random.default_rng(1).integers(0, 200, (6, 1, 8, 8), dtype=np.uint8)
    Path("artifacts/train").mkdir()
    Path("artifacts/train/run.json").write_text('{"seeds": [0], "checkpoints": [4]}')
    Path("artifacts/sample").mkdir()
    np.savez("artifacts/sample/samples.npz", seed_0=drawn)
    corruption.save("artifacts/corrupt/corruption.safetensors", None)
    return own


def test_an_own_metric_is_measured_beside_the_others(sampled):
    sampled(evaluate)
    found, detail = read_json("reports/evaluate.json"), read_json("reports/evaluate.seeds.json")
    network, places = extractor("efficientnet_lite0"), {"cache": Path("scratch/features"), "weights": Path("scratch")}
    a, b = (
        features(Images(images), network, **places)
        for images in (
            read_array("artifacts/sample/samples.npz", member="seed_0"),
            read_array("artifacts/prepare/held_out.npy"),
        )
    )
    assert found["gap_efficientnet_lite0"] == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)), rel=1e-6)
    assert detail["per_seed"]["gap_efficientnet_lite0"] == [found["gap_efficientnet_lite0"]]
    assert "fd_efficientnet_lite0" in found

    for content, says in (
        ("def gap(a, b):\n    return 1 / 0\n", r"metric gap\.py:gap: gap\.py, line 2: ZeroDivisionError"),
        ("def gap(a, b):\n    return 'far'\n", r"metric gap\.py:gap returns 'far'; it must be a finite number"),
        ("", r"has no function 'gap'"),
    ):
        (sampled.folder / "metrics" / "gap.py").write_text(content)
        with pytest.raises(InputError, match=says) as failure:
            sampled(evaluate)
        assert "\n" not in str(failure.value)
        assert read_json("reports/evaluate.json") == found
