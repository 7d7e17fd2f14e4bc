"""Measure a setting's samples against the held-out images: Fréchet distance, KID, and the spectrum, over the seeds."""

import csv
import io
import math

import numpy as np
import torch

from pipeline.console import Bar, scratch, stage
from sagd.errors import InputError
from sagd.files import read_array, read_json, write_bytes, write_json
from sagd.metrics import extractor, features, frechet_distance, kid
from sagd.spectrum import rapsd


def main(params, options):
    choice = params.section("evaluate")
    for setting in params.chosen(options):
        evaluate(setting, choice)


def evaluate(setting, choice):
    samples = read_array(setting.artifacts("sample") / "samples.npz", member="images")  # (seeds, n, C, H, W)
    held_out = read_array("artifacts/prepare/held_out.npy")
    train = read_array("artifacts/prepare/train.npy", memory_map=True)
    n = samples.shape[1]
    if min(n, len(held_out)) < choice.kid_size or n > len(train):
        raise InputError(
            f"evaluate.kid_size is {choice.kid_size}; there are {n} samples a seed (sample.n) and {len(held_out)} "
            f"held-out images (dataset.held_out), and sample.n may not exceed the {len(train)} training images"
        )
    network = extractor(choice.features)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Real images in the samples' place, as many: the distance that a perfect model would have.
    real = [train[np.random.default_rng(seed).permutation(len(train))[:n]] for seed in setting.seeds]
    sets = [held_out, *samples, *real]
    with Bar(f"evaluate {setting.title}", sum(map(len, sets))) as bar:
        cache = scratch() / "features"
        reference, *rest = (features(s, network, cache=cache, device=device, report=bar.update) for s in sets)
    generated, floor = rest[: len(samples)], rest[len(samples) :]

    def kernel_distance(x, seed):
        rng = np.random.default_rng(seed)
        return kid(x, reference, subsets=choice.kid_subsets, size=choice.kid_size, rng=rng)[0]

    name = f"fd_{network.name}"
    values = {
        name: [frechet_distance(x, reference) for x in generated],
        f"kid_{network.name}": [kernel_distance(x, s) for x, s in zip(generated, setting.seeds, strict=True)],
        f"{name}_of_real": [frechet_distance(x, reference) for x in floor],
    }
    result = {}
    for key, per_seed in values.items():
        result[key] = float(np.mean(per_seed))
        result[f"{key}_se"] = float(np.std(per_seed, ddof=1) / math.sqrt(len(per_seed))) if len(per_seed) > 1 else None
    run = read_json(setting.artifacts("train") / "run.json")
    result |= {
        "samples": int(samples.shape[0] * n),
        "held_out": len(held_out),
        "train_images_per_second": run["images_per_second"],
    }
    write_json(setting.report("evaluate", "json"), result)
    detail = {"setting": setting.title, "per_seed": values, "seeds": setting.seeds, "samples_per_seed": n, "run": run}
    write_json(setting.report("evaluate", "seeds.json"), detail)
    write_bytes(setting.report("evaluate", "rapsd.csv"), _spectra(held_out, samples.reshape(-1, *samples.shape[2:])))


def _spectra(held_out: np.ndarray, samples: np.ndarray) -> bytes:
    """CSV of the radially averaged power spectra of the held-out images and the samples."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["radius", "held_out", "samples"])
    pixels = (torch.from_numpy(x).double() / 127.5 - 1 for x in (held_out, samples))
    (radii, real), (_, drawn) = (rapsd(x) for x in pixels)
    for row in zip(radii.tolist(), real.tolist(), drawn.tolist(), strict=True):
        writer.writerow([f"{v:.6g}" for v in row])
    return table.getvalue().encode()


if __name__ == "__main__":
    stage(main)
