"""Bring the data to the space that is trained in (pixels, as they are), and what follows from their statistics.

These are the noise's spectrum, which may be made of the data's or have an exponent that they suggest, and the start of
sampling from the marginal.
"""

import sagd
from pipeline.console import stage
from pipeline.corrupt import corruption
from sagd.data import statistics
from sagd.errors import InputError
from sagd.files import read_array, read_json, write_json, write_tensors
from sagd.suggest import suggest


def main(params, options):
    kind = params.section("encode").kind
    images = "artifacts/prepare/train.npy"
    clean = statistics(read_array(images, memory_map=True))
    for setting in params.all_settings:
        noise = corruption(read_json(setting.artifacts("corrupt") / "corruption.json"))
        power = clean["power"]
        if noise is not None:
            spectrum, gamma = noise
            power = power + (gamma * spectrum.weight) ** 2
        data = {"mean": clean["mean"], "power": power}
        folder = setting.artifacts("encode")
        write_tensors(folder / "statistics.safetensors", data)
        write_json(folder / "manifest.json", {"kind": kind, "images": images, "shape": list(power.shape)})
        spectrum = noise_of(setting, data).to_dict()
        write_json(folder / "spectrum.json", spectrum)
        write_json(setting.report("encode", "json"), spectrum)


def noise_of(setting, data):
    """The spectrum of a setting's noise, made of the data's mean and power where it asks for that."""
    noise, schedule = setting.noise, sagd.Schedule.named(setting.train.schedule)
    alpha = None
    if noise.alpha == "auto" and noise.operator == "power_law":
        how = setting.sample
        if how.eta > 0:
            raise InputError("noise.alpha is 'auto', which is for sample.eta 0")
        alpha = suggest(
            data["mean"], data["power"], schedule, schedule.timesteps(how.steps, how.spacing),
            sampler=how.sampler, start=how.start, grid=noise.grid, dc=noise.dc, normalize=noise.normalize,
        ).alpha  # fmt: skip
        print(f"encode: {setting.title}: the data suggest alpha {alpha:g}")
    return noise.spectrum(data["power"].mean(0), schedule.alpha_bar, alpha)


if __name__ == "__main__":
    stage(main, settings=False)
