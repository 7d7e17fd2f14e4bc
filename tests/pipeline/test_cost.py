"""The cost of shaped noise: what is timed, and how."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import sagd
from pipeline import params as parameters
from pipeline.params.sections import Train
from sagd.runtime.files import read_json
from studies.claims import cost

ROOT = Path(__file__).parent.parent.parent
UNET = {"widths": [8, 8], "layers": 1, "attention": [False, False], "groups": 4}
RECIPE = Train(steps=10, batch_size=4, lr=0.001, warmup=0, unet=UNET)


def test_a_timed_step_is_a_step_of_training():
    network = RECIPE.network((1, 8, 8), 0, 0)
    before = [p.clone() for p in network.parameters()]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Train, "network", lambda *_: network)
        cost.stepper(RECIPE, sagd.power_law((8, 8), -0.06), 8, torch.device("cpu"))()
    assert any(not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


def test_the_two_alternate_and_the_effect_is_the_logarithm_of_their_ratio(monkeypatch):
    """By a clock that the work itself moves: 3 seconds with shaped noise, 2 without."""
    now, order, told = [0.0], [], []
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])

    def work(name, seconds):
        order.append(name)
        now[0] += seconds

    steps = {"shaped": lambda: work("shaped", 3.0), "isotropic": lambda: work("isotropic", 2.0)}
    found = cost.alternated(steps, 6, torch.device("cpu"), lambda: told.append(1))
    assert np.allclose(found["effects"], np.log(1.5)) and len(found["effects"]) == 6
    assert len(told) == 12 and found["shaped"] == [3.0] * 6
    pairs = np.array(order[5:]).reshape(-1, 2)  # after warming up
    assert (pairs[0] == ["isotropic", "shaped"]).all() and (pairs[1] == ["shaped", "isotropic"]).all()


def test_both_networks_are_those_of_the_profiles(tmp_path, monkeypatch):
    taken = {}
    monkeypatch.setattr(cost, "stepper", lambda recipe, noise, size, device: taken.setdefault(size, recipe))
    monkeypatch.setattr(cost, "alternated", lambda steps, *_: {"effects": [0.0], "order": [*steps]})
    shutil.copy(ROOT / "studies/claims/params.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    cost.main(parameters.load(), argparse.Namespace())
    assert taken[16].unet.widths == [16, 32] and taken[32].unet.widths == [32, 64, 128, 256]
    found = read_json(tmp_path / "reports/decide/cost.json")["cost_paper"]
    assert found["order"] == ["shaped", "isotropic", "isotropic", "shaped"] and found["effects"] == [0.0, 0.0]
