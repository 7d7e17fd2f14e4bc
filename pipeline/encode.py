"""Bring the data to the space that is trained in (pixels, as they are), and what follows from their statistics.

These are the noise's spectrum, which may be made of the data's or have an exponent that they suggest, and the start of
sampling from the marginal.
"""

import sagd
from pipeline.console import stage
from sagd.corruption import Corruption
from sagd.diffusion import check_sampler
from sagd.errors import InputError
from sagd.files import read_array, read_json, write_json, write_tensors
from sagd.moments import statistics
from sagd.suggest import suggest


def main(params, options):
    kind = params.section("encode").kind
    settings = params.chosen(options) if options.setting else params.all_settings
    clean = {
        path: statistics(read_array(path / "train.npy", memory_map=True)) for path in {s.prepared for s in settings}
    }
    for setting in settings:
        data = clean[setting.prepared]
        corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
        if corruption is not None:
            data = dict(zip(("mean", "power"), corruption.moments(data["mean"], data["power"]), strict=True))
        folder = setting.artifacts("encode")
        write_tensors(folder / "statistics.safetensors", data)
        write_json(
            folder / "manifest.json",
            {"kind": kind, "images": str(setting.prepared / "train.npy"), "shape": list(data["mean"].shape)},
        )
        spectrum = noise_of(setting, data)
        for variant in params.variants(setting):
            check(variant, spectrum)
        spectrum = spectrum.to_dict()
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
            sampler=how.sampler, prediction=setting.train.prediction, start=how.start,
            grid=noise.grid, dc=noise.dc, normalize=noise.normalize,
        ).alpha  # fmt: skip
        print(f"encode: {setting.title}: the data suggest alpha {alpha:g}")
    return noise.spectrum(data["power"].mean(0), schedule.alpha_bar, alpha)


def check(setting, spectrum):
    """Refuse, before anything is trained, what could not be sampled."""
    how, schedule = setting.sample, sagd.Schedule.named(setting.train.schedule)
    if how.filtered and setting.corrupt.band is None:
        raise InputError(f"{setting.title}: sample.filtered takes the corrupted band out; there is none (corrupt.band)")
    timesteps = schedule.timesteps(how.steps, how.spacing)
    try:
        check_sampler(schedule, spectrum, timesteps, how.sampler, setting.train.prediction, how.eta, how.start)
    except InputError as error:
        raise InputError(f"{setting.title}: {error}") from None


if __name__ == "__main__":
    stage(main, each="group")
