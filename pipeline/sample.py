"""Draw samples of a setting's networks: one compressed file of arrays, and a picture of the first ones."""

import numpy as np
import torch

import sagd
from pipeline.console import stage
from sagd import models
from sagd.corruption import Corruption
from sagd.errors import InputError
from sagd.figures import save_grid
from sagd.files import read_json, read_tensors, writing
from sagd.progress import Bar
from sagd.sampling import draw, to_uint8
from sagd.spectrum.varying import from_dict

PREVIEW = 60


def main(params, options):
    for setting in params.chosen(options):
        for variant in params.variants(setting):
            sample(variant)


def sample(setting):
    choice = setting.sample
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = setting.artifacts("train")
    spectrum = from_dict(read_json(trained / "spectrum.json"))
    schedule = sagd.Schedule.named(setting.train.schedule)
    data = read_tensors(setting.artifacts("encode") / "statistics.safetensors")
    # Clipping is not linear: it would put energy back into a band that the noise leaves out.
    clip = setting.corrupt.band is None if choice.clip == "auto" else choice.clip == "on"
    *earlier, _ = read_json(trained / "run.json")["checkpoints"]
    names = {f"seed_{seed}{at}": seed for seed in setting.seeds for at in ("", *(f"_step_{s}" for s in earlier))}
    corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
    images = {}
    with Bar(f"sample {setting.title}", choice.n * len(names)) as bar:
        for name, seed in names.items():
            x = draw(
                models.load(trained / name).to(device), schedule, spectrum, data,
                n=choice.n, steps=choice.steps, seed=seed, spacing=choice.spacing, start=choice.start,
                sampler=choice.sampler, prediction=setting.train.prediction, eta=choice.eta, clip=clip,
                batch_size=choice.batch_size, report=bar.update,
            )  # fmt: skip
            if not torch.isfinite(x).all():
                raise InputError(f"samples of {name} are not finite; train longer, or with a smaller train.lr")
            if choice.filtered:
                x = corruption.remove(x)
            images[name] = to_uint8(x).numpy()
    with writing(setting.artifacts("sample") / "samples.npz") as beside, open(beside, "wb") as file:
        np.savez_compressed(file, **images)
    save_grid(setting.report("sample", "png"), images[f"seed_{setting.seeds[0]}"][:PREVIEW], columns=12)


if __name__ == "__main__":
    stage(main)
