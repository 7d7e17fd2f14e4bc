"""One place for one thing: an operator, formulation, data set, extractor and metric are each one file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "sagd/operators/comb.py": '''
"""Noise at every other frequency, a little of it between."""
import torch
from sagd.noise.grid import Size, radius
from sagd.noise.spectrum import Normalize, Spectrum, normalized

def comb(size: Size, floor: float = 0.1, *, normalize: Normalize = "expected") -> Spectrum:
    """A comb.

    Parameters
    ----------
    floor
        Weight between its teeth.
    """
    weight = torch.full_like(radius(size), floor)
    weight[..., ::2] = 1.0
    return normalized(weight, normalize, {"operator": "comb", "size": size, "floor": floor})
''',
    "sagd/formulations/halfway.py": '''
"""Flow matching whose times are raised to a power."""
from dataclasses import dataclass
from sagd.formulations.base import Family
from sagd.formulations.flow import Flow

@dataclass(frozen=True)
class Halfway(Flow):
    power: float = 2.0

    def draw_times(self, n, *, generator, device="cpu"):
        return super().draw_times(n, generator=generator, device=device) ** self.power

def _build(prediction: str, shape: tuple, *, power: float = 2.0) -> Halfway:
    return Halfway(power=power)

halfway = {"halfway": Family(("velocity",), _build)}
''',
    "sagd/data/stripes.py": '''
"""Stripes of two directions."""
import numpy as np
from sagd.data.pictures import of_array
from sagd.data.source import Source

def _open(source, path, size):
    rng = np.random.default_rng(0)
    images = np.zeros((120, size, size), dtype=np.uint8)
    for k, image in enumerate(images):
        (image if k % 2 else image.T)[rng.integers(2) :: 2] = rng.integers(100, 256)
    return of_array(images, "stripes", classes=np.arange(120) % 2)

stripes = Source(open=_open, licence="none", channels=1, classes=2)
''',
    "sagd/metrics/extractors/coarse.py": '''
"""The image itself, on a grid of 4 x 4."""
from torch.nn.functional import adaptive_avg_pool2d
from sagd.metrics.features import Extractor

coarse = Extractor(
    "coarse", "none", lambda device, weights: (lambda x: x.float(), lambda x: adaptive_avg_pool2d(x, 4).flatten(1))
)
''',
    "sagd/metrics/distances/brightness.py": '''
"""How much brighter the generated images' features are."""
from sagd.metrics.comparison import Metric

def _compute(comparison):
    gap = comparison.generated.mean() - comparison.reference.mean()
    return {f"brightness_{comparison.extractor.name}": float(gap)}

brightness = Metric(_compute)
''',
}
PARAMS = """
seed: 0
dataset: {name: stripes, size: 8, held_out: 20, labels: true}
noise: {operator: comb, floor: 0.2}
encode: {kind: pixel}
train:
  steps: 3
  batch_size: 4
  lr: 0.001
  warmup: 1
  schedule: halfway
  prediction: velocity
  halfway: {power: 3.0}
  unet: {widths: [8, 8], layers: 1, attention: [false, false], groups: 4}
sample: {n: 8, steps: 2, sampler: euler}
evaluate: {features: coarse, metrics: [brightness], bootstrap: 2}
grid:
  settings: {}
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the tree with one file of each kind more, and a study that uses them all."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("sagd", "pipeline", "extensions"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in FILES.items():
        (folder / name).write_text(content.lstrip())
    (folder / "params.yaml").write_text(PARAMS)
    for stage in ("prepare", "corrupt"):
        done = run(folder, f"pipeline.{stage}")
        assert done.returncode == 0, f"{stage}: {done.stderr}"
    return folder


def run(folder, *command):
    environment = {**os.environ, "SAGD_SCRATCH": str(folder / "scratch"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_toy_of_each_kind_runs_through_its_stage(copy):
    for stage in ("encode", "train", "sample", "evaluate"):
        done = run(copy, f"pipeline.{stage}")
        assert done.returncode == 0, f"{stage}: {done.stderr}"
    described = json.loads((copy / "reports/encode.json").read_text())["noise"]
    assert (described["operator"], described["floor"]) == ("comb", 0.2)
    assert np.load(copy / "artifacts/prepare/train.npy").shape == (100, 1, 8, 8)
    result = json.loads((copy / "reports/evaluate.json").read_text())
    assert {"fd_coarse", "brightness_coarse", "brightness_coarse_se"} <= set(result)


@pytest.mark.slow
def test_they_are_in_the_table_of_parameters_and_in_the_refusals(copy):
    table = run(copy, "pipeline.params.table")
    assert table.returncode == 0, table.stderr
    for told in ("noise.floor", "eight between its teeth", "train.halfway.power"):
        assert told in table.stdout
    for key, value, allowed in (("operator", "cone", "comb"), ("floor", "low", "number")):
        text = PARAMS.replace("{operator: comb, floor: 0.2}", f"{{operator: comb, {key}: {value}}}")
        text = text.replace("operator: comb, operator: cone", "operator: cone")
        (copy / "params.yaml").write_text(text)
        refused = run(copy, "pipeline.encode")
        (copy / "params.yaml").write_text(PARAMS)
        assert refused.returncode == 1 and f"noise.{key} is '{value}'" in refused.stderr and allowed in refused.stderr
        assert refused.stderr.count("\n") == 1
