"""The stage `encode`: what it says of the data is what the networks are trained on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ruamel.yaml import YAML

from pipeline import corrupt, encode
from pipeline import params as parameters
from sagd.noise import corruption
from sagd.runtime.files import read_tensors
from sagd.spaces import latents
from sagd.spaces.autoencoder import Autoencoder

STUDY = """
seed: 0
dataset: {name: cifar10, size: 8, channels: 3, held_out: 20}
noise: {operator: isotropic}
corrupt: {}
encode: {kind: vae, path: random, on_the_fly: true}
train:
  schedule: flow
  prediction: velocity
  steps: 4
  batch_size: 4
  lr: 0.001
  unet: {widths: [8], layers: 1, attention: [false], groups: 4}
sample: {n: 6, steps: 2, sampler: euler, clip: "off"}
evaluate: {features: efficientnet_lite0, metrics: [fid], bootstrap: 2}
grid:
  settings:
    clean: {noise: {operator: isotropic}}
    noisy: {noise: {operator: isotropic}, corrupt: {band: [0.2, 1.0], gamma: 2.0}}
    filtered: {noise: {operator: isotropic}, corrupt: {band: [0.2, 1.0], filtered: true}}
"""


def test_latents_on_the_fly_have_the_statistics_of_corrupted_images_setting_by_setting(tmp_path, monkeypatch):
    """Settings that differ in the corruption alone share no statistics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    Path("artifacts/prepare").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    np.save("artifacts/prepare/train.npy", images)
    Path("reports").mkdir()
    Path("reports/prepare.json").write_text('{"train": 12, "held_out": 12, "shape": [3, 8, 8]}')
    params = parameters.Params(YAML(typ="safe").load(STUDY))
    for stage in (corrupt, encode):
        stage.main(params, SimpleNamespace(grid=True, setting=None, dry=False, dataset=None))
    vae, found = Autoencoder("vae", "random", size=8), {}
    for name in ("clean", "noisy", "filtered"):
        setting = params.setting(name)
        corrupts = corruption.load(setting.artifacts("corrupt") / "corruption.safetensors")
        normal, data = latents.probe(images, vae, corruption=corrupts)
        found[name] = read_tensors(setting.artifacts("encode") / "statistics.safetensors")["power"]
        torch.testing.assert_close(found[name], data["power"])
        torch.testing.assert_close(read_tensors(setting.artifacts("encode") / "normalization.safetensors"), normal)
    assert not torch.allclose(found["clean"], found["noisy"]) and not torch.allclose(found["clean"], found["filtered"])
