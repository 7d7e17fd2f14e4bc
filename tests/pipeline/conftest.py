"""Results of the study `decide` that are made up, to have a known answer."""

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import params as parameters
from studies.claims.decided import PRIMARY, Results

STUDY = Path(__file__).parent.parent.parent / "studies" / "claims"
RADII = (0.0, 0.0625, 0.125, 0.3, 0.6)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A function that writes results: takes the distance of a setting and seed, and the denoising error over alpha."""
    (tmp_path / "params.json").write_bytes((STUDY / "params.json").read_bytes())
    (tmp_path / "contrasts.yaml").write_bytes((STUDY / "contrasts.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    results = Results(parameters.load())

    def write(distance, error=lambda alpha, radius, at: 1.0, only=lambda name: True):
        for setting in results.params.drawn:
            if not only(setting.name):
                continue
            name, rng = setting.title.replace(", ", "/"), np.random.default_rng(zlib.crc32(setting.title.encode()))
            values = [distance(name) * np.exp(0.01 * rng.normal()) for _ in setting.seeds]
            floors = (f"{PRIMARY}_of_real", f"{PRIMARY}_of_filtered")
            keys = (PRIMARY, f"{PRIMARY}_step_750", f"corrupted_{PRIMARY}", *floors)
            run, made = {"checkpoints": [750, 1500, 3000]}, results.params.made(setting)
            detail = {"seeds": setting.seeds, "run": run, "made": made}
            path = setting.report("evaluate", "seeds.json")
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(detail | {"per_seed": dict.fromkeys(keys, values)}))
            alpha = setting.noise.alpha
            rows = [
                (seed, step, 1.0, r, error(alpha, r, step / 3000) * np.exp(0.01 * rng.normal()))
                for seed in setting.seeds for step in (750, 1500, 3000) for r in RADII
            ]  # fmt: skip
            table = pd.DataFrame(rows, columns=["seed", "step", "snr", "radius", "error"])
            table.to_csv(setting.report("evaluate", "denoising.csv"), index=False)
        return results

    return write
