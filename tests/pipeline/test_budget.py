"""What `train --dry` says before anything is there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import params as parameters
from pipeline.run.budget import dry, plan
from sagd import power_law
from sagd.errors import InputError
from sagd.runtime.distributed import World
from sagd.spaces.pixels import Pixels

STUDY = """
dataset: {name: mnist_5k, size: 16, channels: 3, held_out: 100, labels: true}
encode: {kind: rae, path: random}
evaluate: {features: efficientnet_lite0}
grid:
  seeds: [0, 1, 2]
  train: {steps: 1000, batch_size: 8, micro_batch_size: 4, lr: 0.001, snapshots: 2,
          schedule: flow, prediction: velocity, dit: {patch: 1, widths: [16, 32], depths: [1, 1], heads: [2, 2]}}
  sample: {n: 20, steps: 4, sampler: euler, clip: "off"}
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
