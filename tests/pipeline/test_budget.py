"""What `train --dry` says before anything is there."""

import contextlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline import params as parameters
from pipeline.run import budget
from pipeline.run.budget import dry, plan
from sagd import power_law
from sagd.errors import InputError
from sagd.runtime.distributed import World
from sagd.spaces.pixels import Pixels

STUDY = """
dataset: {name: mnist_5k, size: 16, channels: 3, held_out: 100, labels: true}
encode: {kind: rae, path: random}
evaluate: {features: efficientnet_lite0}
seed: 0
train: {steps: 1000, batch_size: 8, micro_batch_size: 4, lr: 0.001, snapshots: 2, repeats: 3,
        schedule: flow, prediction: velocity, dit: {patch: 1, widths: [16, 32], depths: [1, 1], heads: [2, 2]}}
sample: {n: 20, steps: 4, sampler: euler, clip: "off"}
grid:
  settings:
    good: {noise: {operator: power_law, alpha: -0.04}}
    stored: {noise: {}, encode: {flips: true}}
    lacking: {noise: {}, encode: {path: nowhere}, evaluate: {reference: batch.npz}}
    mirrored: {noise: {}, train: {flip: true}}
    unsampled: {noise: {}, sample: {sampler: ddpm}}
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Runs a setting of the study above dry, in an empty folder, and gives what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(name, **replaced):
        text = STUDY
        for old, new in replaced.items():
            text = text.replace(old, new)
        Path("params.yaml").write_text(text)
        params = parameters.load()
        try:
            dry(params, params.setting(name))
        finally:
            run.said = capsys.readouterr().out
        return run.said

    return run


def test_what_is_there_is_counted_and_timed(said):
    text = said("good")
    assert "4,900 to train on, 100 held out" in text
    assert "power_law, alpha -0.04, on [64, 4, 4]" in text
    assert "3 x 1,000 steps of 8 images" in text and "for 120 samples" in text
    assert "MB" in text.split("disk")[1] and "M parameters" in text
    assert not Path("artifacts").exists() and not Path("reports").exists()


def test_another_runs_data_are_not_told(said, monkeypatch):
    """What is prepared of the section that stood there before is not what will be trained on."""
    prepared = {
        "source": "mnist_5k: x",
        "shape": [3, 16, 16],
        "split_seed": 0,
        "train": 7,
        "held_out": 100,
        "classes": 10,
    }
    Path("reports").mkdir()
    Path("artifacts/prepare").mkdir(parents=True)
    Path("artifacts/prepare/train.npy").touch()

    monkeypatch.setattr(budget, "cost", lambda *_: "none")

    def told(**changed):
        Path("reports/prepare.json").write_text(json.dumps(prepared | changed))
        return said("good", **{"kind: rae, path: random": "kind: pixel"})

    assert "prepared in artifacts/prepare: 7 to train on" in told()
    for changed in (
        {"source": "mnist: /data/MNIST/raw"},
        {"shape": [1, 16, 16]},
        {"split_seed": 1},
        {"held_out": 50},
        {"source": "folder: /pictures"},
    ):
        text = told(**changed)
        assert "4,900 to train on, 100 held out" in text and "prepared in" not in text
        assert "3x16x16 (channels, height, width), as the parameters say" in text


@pytest.mark.parametrize(
    "seconds, remark, tried", [(1e-2, "by batches of 4", [1, 4]), (10.0, "by one image alone", [])]
)
def test_a_long_training_is_extrapolated(said, monkeypatch, seconds, remark, tried):
    trained, plain = [], budget.train
    monkeypatch.setattr(budget, "_forward", lambda *_: (seconds, "by one image alone"))
    monkeypatch.setattr(budget, "train", lambda *a, **k: trained.append(a[4].batch_size) or plain(*a, **k))
    text = said("good", **{"kind: rae, path: random": "kind: pixel", "batch_size: 8": "batch_size: 512"})
    assert f"({remark})" in text and "3 x 1,000 steps of 512 images" in text and "for 120 samples" in text
    assert trained == tried
    if not tried:  # 512 images of three passes; 20 samples and 3 of 4 steps
        found = re.search(r"(\d+) h for 3 x 1,000", text)
        assert int(found[1]) == pytest.approx(3 * 1000 * 512 * 3 * seconds / 3600, rel=0.05)


def test_a_network_that_could_not_be_run_here_is_answered_at_once(said, monkeypatch):
    """Nine hundred million parameters and 1024 pixels: only the pass over one image is counted, on no data."""
    built = []
    plain = parameters.sections.Train.network
    monkeypatch.setattr(
        parameters.sections.Train, "network", lambda *a: built.append(torch.empty(0).device.type) or plain(*a)
    )
    network = "patch: 16, widths: [1536, 1536], depths: [24, 2], heads: [16, 16]"
    tiny = "patch: 1, widths: [16, 32], depths: [1, 1], heads: [2, 2]"
    text = said("good", **{"kind: rae, path: random": "kind: pixel", "size: 16": "size: 1024", tiny: network})
    assert "(at most, by the multiplications of one image)" in text
    assert set(built) == {"meta"}


@pytest.mark.parametrize(
    "product, found",
    [(0.5, (0.5, "by one image alone")), (5.0, (100.0, "at most, by the multiplications of one image"))],
)
def test_a_pass_is_run_unless_it_may_take_a_minute(monkeypatch, product, found):
    """The bound by multiplications is many times too high: it is no answer for 10 seconds, and is told as a bound."""
    counted = SimpleNamespace(get_total_flops=lambda: 2 * 1024**3)
    monkeypatch.setattr(budget, "FlopCounterMode", lambda **_: contextlib.nullcontext(counted))
    monkeypatch.setattr(budget, "_one", lambda *_: None)
    monkeypatch.setattr(budget, "_seconds", lambda *_: product)
    choice = SimpleNamespace(network=lambda *_: torch.nn.Identity())
    source = SimpleNamespace(shape=(1, 4, 4), classes=0)
    assert budget._forward(choice, source, 1, World()) == found


def test_the_disk_is_that_of_both_views(said):
    one_view = 4900 * 64 * 4 * 4 * 2 / 1e6  # float16
    assert f"latents {one_view:.0f} MB" in said("good")
    assert f"latents {2 * one_view:.0f} MB" in said("stored")
    assert "latents" not in said("good", **{"path: random": "path: random, on_the_fly: true"}).split("disk")[1]


def test_a_training_says_its_cost_first_on_a_gpu(said, capsys, monkeypatch):
    """The lines of a GPU's training, on a CPU: a few steps of real images, and the disk."""
    said("good", **{"kind: rae, path: random": "kind: pixel"})
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"shape": [3, 16, 16], "train": 4900, "held_out": 100}')
    setting, world = parameters.load().setting("good"), World()
    source = Pixels(torch.zeros(20, 3, 16, 16, dtype=torch.uint8), np.arange(20) % 10)
    plan(setting, source, power_law((16, 16), -0.04), world)
    text = capsys.readouterr().out
    assert text.startswith("train good: about ") and "for 120 samples" in text and "checkpoints" in text
    assert "images" in text.split("; ")[-2]
    Path("artifacts/prepare").mkdir(parents=True)
    Path("artifacts/prepare/train.npy").touch()
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("usage", (), {"free": 1000})())
    with pytest.raises(
        InputError, match=r"of 1 kB that are free \(networks 957 kB\)"
    ):  # and no images, which are there
        plan(setting, source, power_law((16, 16), -0.04), world)


def test_all_that_is_missing_is_told_at_once(said):
    with pytest.raises(InputError, match=r"autoencoder: encode\.path is nowhere.*; reference: cannot read batch\.npz"):
        said("lacking")
    assert "4,900 to train on" in said.said


def test_what_cannot_be_sampled_is_told(said):
    with pytest.raises(InputError, match=r"noise: .*Flow is sampled by euler or heun"):
        said("unsampled")


def test_what_does_not_fit_the_autoencoder_is_told(said):
    with pytest.raises(InputError, match=r"autoencoder: the rae decodes latents to images of \(3, 16, 16\)"):
        said("good", **{"channels: 3": "channels: 1"})
    with pytest.raises(InputError, match=r"noise: mirrored: train\.flip needs .* encode\.flips"):
        said("mirrored")
    assert "M parameters" in said("mirrored", **{"path: random": "path: random, on_the_fly: true"})


def test_what_can_be_fetched_is_no_error(said):
    text = said("good", mnist_5k="cifar10")
    assert "170 MB to download to data" in text and "CC" not in text


def test_a_full_disk_is_an_error(said, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("usage", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"disk: good needs at least 5 MB in .*\(images 4 MB, networks 983 kB\)"):
        said("good")
