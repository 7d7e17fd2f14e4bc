"""Bring the data to the space that is trained in, pixels or latents, and what follows from their statistics.

These are the noise's weight, which may be made of the data's spectrum or have an exponent that the data suggest, and
the start of sampling from the marginal. Latents go to the scratch folder, where every stage and every setting finds
them.
"""

import argparse
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.params import Params, Setting
from pipeline.params.sections import Encode, naming
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.noise import stored
from sagd.noise.base import Noise
from sagd.oracle.suggest import suggest
from sagd.runtime.distributed import World
from sagd.runtime.download import digest
from sagd.runtime.files import holds, read_tensors, scratch, sources, write_json, write_tensors
from sagd.runtime.progress import Bar
from sagd.spaces import latents
from sagd.spaces.autoencoder import Autoencoder
from sagd.spaces.moments import statistics

Moments = dict[str, Tensor]
WORSE = (
    -0.5,
    0.0,
)  # from, below: exponents that the study of the claims found worse than 0, on MNIST (docs/results.md)
Space = tuple[Moments, dict, Moments | None]  # the data's moments, where they are, the normalisation of latents


def main(params: Params, options: argparse.Namespace) -> None:
    world = World()
    settings = params.chosen(options) if options.setting else params.all_settings
    if world.main and not options.setting:
        params.sweep("encode")
    spaces: dict[tuple, Space] = {}
    for setting in settings:
        # What encodes during training has the statistics of corrupted images; other corrupted latents are refused.
        which = (setting.prepared, setting.encode, setting.corrupt if setting.encode.on_the_fly else None)
        if which not in spaces:
            spaces[which] = pixels(setting) if setting.encode.kind == "pixel" else encoded(setting, world)
        if world.main:
            write(setting, *spaces[which], params.variants(setting))


def pixels(setting: Setting) -> Space:
    """Images as they are: their moments, and where they are."""
    path = setting.prepared.array("train")
    data = statistics(setting.prepared.images())
    return data, {"images": str(path), "shape": list(data["mean"].shape)}, None


def encoded(setting: Setting, world: World) -> Space:
    """Latents, stored or probed: their moments, where they are, and their normalisation."""
    choice = setting.encode
    assert choice.path is not None  # or `Encode` has refused
    path = setting.prepared.array("train")
    images, labels = setting.prepared.images(), setting.prepared.labels()
    with naming("encode", Encode), world.main_first():
        autoencoder = Autoencoder(choice.kind, choice.path, world.device, images.shape[-1])
    place = {"images": str(path), "size": images.shape[-1]}
    place |= {"autoencoder": choice.path, "autoencoder_sha256": autoencoder.sha256}
    if choice.on_the_fly:
        normal, data = latents.probe(images, autoencoder, choice.batch_size, corruption=setting.corruption())
        return data, {**place, "shape": list(data["mean"].shape), "latents": None}, normal
    how = choice.model_dump_json(exclude={"path", "batch_size"})
    described = [setting.prepared.sha256(), autoencoder.sha256, how, sources("spaces")]
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


def write(
    setting: Setting, data: Moments, place: dict, normalization: Moments | None, variants: Sequence[Setting]
) -> None:
    """The files of a setting."""
    corrupts = setting.corruption()
    if corrupts is not None and place.get("latents"):
        raise InputError(f"{setting.title}: corrupt.band is noise in images; latents need encode.on_the_fly for it")
    if corrupts is not None and setting.encode.kind == "pixel":
        data = dict(zip(("mean", "power"), corrupts.moments(data["mean"], data["power"]), strict=True))
    if setting.encode.centre:
        place, normalization = place | {"centred": True}, {"mean": data["mean"]}
        data = data | {"mean": torch.zeros_like(data["mean"])}
    for file, tensors in ((setting.statistics_file, data), (setting.normalization_file, normalization)):
        if tensors is not None and not holds(file, tensors):
            write_tensors(file, tensors)
    write_json(setting.manifest_file, {"kind": setting.encode.kind, **place})
    noise = noise_of(setting, data)
    for variant in variants:
        variant.check(noise, tuple(data["mean"].shape))
    if not holds(setting.noise_file("encode"), noise.tensors()):
        stored.save(setting.noise_file("encode"), noise)
    description: dict[str, Any] = {"noise": noise.to_dict()}
    if corrupts is not None:
        band, reached = int(corrupts.spectrum.support.sum()), corrupts.reached_by(noise)
        description["corrupted_frequencies"] = {"in_the_band": band, "reached_by_the_noise": reached}
        if 0 < reached < band:
            said = f"the noise leaves out {band - reached} of the {band} corrupted frequencies and reaches the others"
            print(f"encode: {setting.title}: {said}, so the band is not omitted (noise.grid, noise.low, noise.high)")
    if (of := setting.noise.file) is not None:
        own = {"operator": setting.noise.operator, "arguments": setting.noise.arguments, "sha256": digest(of)}
        description["own"] = own
    write_json(setting.report("encode", "json"), description)


def noise_of(setting: Setting, data: Moments) -> Noise:
    """A setting's noise, made of the data's mean and power where it asks for that."""
    noise, formulation = setting.noise, setting.train.formulation(tuple(data["mean"].shape))
    alpha = None
    if noise.alpha == "auto" and noise.operator == "power_law":
        how = setting.sample.settings(clip=False)  # clipping is not linear: the oracle knows none
        if how.eta > 0 or formulation.alpha_bar is None:
            raise InputError("noise.alpha is 'auto', which is for sample.eta 0 and for the schedules of diffusion")
        conventions = {"grid": noise.grid, "dc": noise.dc, "normalize": noise.normalize}
        diffusion = Diffusion(Schedule(formulation.alpha_bar), setting.train.prediction)
        alpha = suggest(data["mean"], data["power"], diffusion, how, **conventions).alpha
        print(f"encode: {setting.title}: the data suggest alpha {alpha:g}")
        if WORSE[0] <= alpha < WORSE[1]:
            said = f"digits came out worse with alpha below 0 than with 0 (docs/results.md); compare {alpha:g} with 0"
            print(f"encode: {setting.title}: warning: {said}")
    return noise.spectrum(data["power"].mean(0), formulation.alpha_bar, alpha)


if __name__ == "__main__":
    stage(main, each="group", shared=True)
