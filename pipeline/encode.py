"""Bring the data to the space that is trained in, pixels or latents, and what follows from their statistics.

These are the noise's spectrum, which may be made of the data's or have an exponent that they suggest, and the start of
sampling from the marginal. Latents go to the scratch folder, where every stage and every setting finds them.
"""

import hashlib

import torch

from pipeline.console import stage
from sagd import latents
from sagd.corruption import Corruption
from sagd.diffusion import Diffusion
from sagd.distributed import World
from sagd.errors import InputError
from sagd.files import read_array, read_json, read_tensors, scratch, write_json, write_tensors
from sagd.moments import statistics
from sagd.progress import Bar
from sagd.sampling import check_sampling
from sagd.suggest import suggest


def main(params, options):
    world = World()
    settings = params.chosen(options) if options.setting else params.all_settings
    spaces = {}
    for setting in settings:
        which = (setting.prepared, setting.encode)
        if which not in spaces:
            spaces[which] = pixels(setting) if setting.encode.kind == "pixel" else encoded(setting, world)
        if world.main:
            write(setting, *spaces[which], params.variants(setting))


def pixels(setting):
    """Images as they are: their moments, and where they are."""
    path = setting.prepared / "train.npy"
    data = statistics(read_array(path, memory_map=True))
    return data, {"images": str(path), "shape": list(data["mean"].shape)}, None


def encoded(setting, world):
    """Latents, stored or probed: their moments, where they are, and their normalisation."""
    choice = setting.encode
    path = setting.prepared / "train.npy"
    images, labels = read_array(path, memory_map=True), setting.labels()
    with world.main_first():
        autoencoder = latents.Autoencoder(choice.kind, choice.path, world.device, images.shape[-1])
    place = {"images": str(path), "size": images.shape[-1]}
    place |= {"autoencoder": choice.path, "autoencoder_sha256": autoencoder.sha256}
    if choice.on_the_fly:
        normal, data = latents.probe(images, autoencoder, choice.batch_size)
        return data, {**place, "shape": list(data["mean"].shape), "latents": None}, normal
    described = [setting.data_sha256(), autoencoder.sha256, choice.model_dump_json(exclude={"path", "batch_size"})]
    key = hashlib.sha256("".join(described).encode()).hexdigest()[:32]
    world.check_alike(key)
    folder = scratch() / "latents" / key
    with Bar(f"encode {setting.prepared.name}", len(images), rank=world.rank, size=world.size) as bar:
        manifest = latents.encode(
            images, labels, autoencoder, folder,
            source=described[0], dtype=getattr(torch, choice.dtype), flips=choice.flips, per_shard=choice.per_shard,
            batch_size=choice.batch_size, world=world, resumed=bar.skip, report=bar.update,
        )  # fmt: skip
    normal = read_tensors(folder / "normalization.safetensors")
    data = latents.statistics(folder)
    return data, {**place, "shape": manifest["shape"], "latents": key, "shards": manifest["shards"]}, normal


def write(setting, data, place, normalization, variants):
    """The files of a setting."""
    corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
    if corruption is not None and place.get("latents"):
        raise InputError(f"{setting.title}: corrupt.band is noise in images; latents need encode.on_the_fly for it")
    if corruption is not None and normalization is None:
        data = dict(zip(("mean", "power"), corruption.moments(data["mean"], data["power"]), strict=True))
    folder = setting.artifacts("encode")
    write_tensors(folder / "statistics.safetensors", data)
    if normalization is not None:
        write_tensors(folder / "normalization.safetensors", normalization)
    write_json(folder / "manifest.json", {"kind": setting.encode.kind, **place})
    spectrum = noise_of(setting, data)
    for variant in variants:
        check(variant, spectrum, data)
    spectrum = spectrum.to_dict()
    write_json(folder / "spectrum.json", spectrum)
    write_json(setting.report("encode", "json"), spectrum)


def noise_of(setting, data):
    """The spectrum of a setting's noise, made of the data's mean and power where it asks for that."""
    noise, formulation = setting.noise, setting.train.formulation(tuple(data["mean"].shape))
    discrete = isinstance(formulation, Diffusion)
    alpha = None
    if noise.alpha == "auto" and noise.operator == "power_law":
        how = setting.sample
        if how.eta > 0 or not discrete:
            raise InputError("noise.alpha is 'auto', which is for sample.eta 0 and for the schedules of diffusion")
        schedule = formulation.schedule
        alpha = suggest(
            data["mean"], data["power"], schedule, schedule.timesteps(how.steps, how.spacing),
            sampler=how.sampler, prediction=setting.train.prediction, start=how.start,
            grid=noise.grid, dc=noise.dc, normalize=noise.normalize,
        ).alpha  # fmt: skip
        print(f"encode: {setting.title}: the data suggest alpha {alpha:g}")
    if noise.schedule == "varying" and not discrete:
        raise InputError(f"noise.schedule is 'varying', along a schedule of diffusion, not {setting.train.schedule}")
    return noise.spectrum(data["power"].mean(0), formulation.schedule.alpha_bar if discrete else None, alpha)


def check(setting, spectrum, data):
    """Refuse, before anything is trained, what could not be sampled."""
    how = setting.sample
    stored = setting.encode.kind != "pixel" and not setting.encode.on_the_fly
    if setting.train.flip and stored and not setting.encode.flips:
        raise InputError(f"{setting.title}: train.flip needs the latents of mirrored images: encode.flips")
    if how.filtered and setting.corrupt.band is None:
        raise InputError(f"{setting.title}: sample.filtered takes the corrupted band out; there is none (corrupt.band)")
    try:
        check_sampling(
            setting.train.formulation(tuple(data["mean"].shape)), spectrum,
            steps=how.steps, spacing=how.spacing, start=how.start, sampler=how.sampler, eta=how.eta,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{setting.title}: {error}") from None


if __name__ == "__main__":
    stage(main, each="group", shared=True)
