"""Measure a setting's samples against the held-out images: distances with their errors, and the spectrum."""

import argparse
import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from pipeline.params import Params, Setting
from pipeline.params.sections import EXTENSIONS
from pipeline.params.setting import at, run_of
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.images import Images, Rows
from sagd.metrics.denoising import DENOISING, SNRS, denoising_errors
from sagd.metrics.extractors import extractor
from sagd.metrics.features import Extractor, features
from sagd.metrics.frechet import Moments, chosen_on_half, frechet_distance
from sagd.metrics.measure import caveats, measure
from sagd.metrics.rapsd import rapsd
from sagd.networks.weights import predictor
from sagd.noise.corruption import Corruption
from sagd.noise.grid import radius, ring_means
from sagd.noise.randomness import generator
from sagd.runtime.distributed import World
from sagd.runtime.files import scratch, shape_of, write_bytes, write_json
from sagd.runtime.parallel import blocks
from sagd.runtime.progress import Bar
from sagd.spaces.moments import ImageSet, field_distance, statistics
from sagd.spaces.pixels import corrupted, from_uint8, to_uint8

FLOORS = ("_of_halves", "_of_real", "_of_filtered")
DENOISED = 256  # held-out images
COUNTS = ("seeds", "samples_per_seed", "held_out")


def main(params: Params, options: argparse.Namespace) -> None:
    world = World()
    if world.main and options.grid:
        params.sweep("evaluate")
    for setting in params.chosen(options):
        for variant in params.variants(setting):
            evaluate(variant, params.made(variant), world)


def evaluate(setting: Setting, made: dict, world: World) -> None:
    """Write the numbers of a setting, and beside them what made them (`Params.made`)."""
    choice = setting.evaluate
    run = setting.run()
    archive = setting.samples_file
    *earlier, _ = run["checkpoints"]
    ends = setting.sample.drawn(earlier)
    held_out, train = setting.prepared.images("held_out"), setting.prepared.images()
    n = shape_of(archive, run_of(setting.seeds[0]))[0]
    world.check_alike(f"{setting.title} {setting.seeds} {ends}")
    network = extractor(choice.features)
    given = given_moments(choice.reference) if choice.reference else None
    # Where the training images are corrupted, the held-out images are, too, in a second reference.
    corrupts = setting.corruption()
    twice = corrupts is not None and not corrupts.filtered
    found, floors, filtered, pixels, spectra = {}, {}, {}, {}, []
    total = len(held_out) * (1 + twice) + len(setting.seeds) * (n * (1 + (corrupts is not None)) + sum(ends.values()))
    with Bar(f"evaluate {setting.title}", total, rank=world.rank, size=world.size) as bar:
        places = {"cache": scratch() / "features", "weights": scratch() / "weights"}

        def of(images: np.ndarray | Rows | Images) -> np.ndarray:
            images = images if isinstance(images, Images) else Images(images)
            return features(images, network, **places, device=world.device, world=world, report=bar.update)

        references, field = {"": of(held_out)}, (len(held_out), statistics(held_out))
        if given is not None and len(given.mean) != references[""].shape[1]:
            raise InputError(f"{choice.reference} is of {len(given.mean)} features, not of {network.name}'s")
        if twice:
            references["corrupted_"] = of(corrupted(held_out, corrupts, generator(0, "held out")))
        for seed in setting.seeds:
            # Real images in the samples' place, as many: the distance that a perfect model would have. And without
            # the corrupted band, of which a model can know nothing.
            rows = np.random.default_rng(seed).permutation(len(train))[:n]
            images = Rows(train, rows)
            floors[seed] = of(images)
            if corrupts is not None:
                filtered[seed] = of(Rows(train, rows, lambda x: to_uint8(corrupts.remove(from_uint8(x))).numpy()))
            if world.main:
                real = {f"{part}_of_real": value for part, value in _pixels(images, field).items()}
            for step, count in ends.items():
                samples = setting.samples(seed, step)
                if len(samples) != count:
                    raise InputError(f"{archive} holds {len(samples)} samples, not {count}: run the stage sample again")
                found[seed, step] = of(samples)
                if world.main and step is None:
                    pixels[seed] = _pixels(samples, field) | real
                    spectra.append(_mean_rapsd(samples)[1])
    if not world.main:
        return
    reference = references[""]
    moments = {prefix: Moments.of(x) for prefix, x in references.items()}
    per_seed = []
    for seed in setting.seeds:
        values: dict[str, float] = {}
        for prefix, to in references.items():
            distances = measure(
                found[seed, None], to, network, {"fid", *choice.of_samples},
                moments=moments[prefix], seed=seed, replicates=choice.bootstrap, folder=EXTENSIONS / "metrics",
            )  # fmt: skip
            values |= {f"{prefix}{name}": value for name, value in distances.items()}
        for name, of_images in (("real", floors), ("filtered", filtered)):
            if seed in of_images:
                values |= _floor(name, of_images[seed], reference, moments[""], network, {"kid"} & set(choice.metrics))
        if given is not None:
            floor = Moments.of(floors[seed])
            name = f"reference_{network.metric('fid')}"
            values[name] = frechet_distance(Moments.of(found[seed, None]), given)
            values[f"{name}_of_real"] = frechet_distance(floor, given)
        values |= pixels[seed]
        if len(ends) > 1:
            checkpoints = {step: found[seed, step] for step in ends}
            if setting.sample.earlier is None:
                values |= _best(list(checkpoints.values()), moments[""], network.metric("fid"), seed)
            for step, x in list(checkpoints.items())[1:]:
                distances = measure(x, reference, network, {"fid", "kid"} & set(choice.metrics), moments=moments[""])
                values |= {
                    f"{name}{at(step)}": distances[name]
                    for name in map(network.metric, ("fid", "kid"))
                    if name in distances
                }
        per_seed.append(values)

    counts = dict(zip(COUNTS, (len(setting.seeds), n, len(held_out)), strict=True))
    result = _summary(per_seed) | counts
    write_json(setting.report("evaluate", "json"), result)
    if setting.name is None:
        write_json(setting.report("metrics", "json"), _headline(result))
    detail = {
        "setting": setting.title,
        "profile": setting.profile,
        "features": network.name,
        "names": {family: network.metric(family) for family in ("fid", "kid")},
        "preprocessing": network.preprocessing,
        "weights_sha256": network.weights and network.weights.sha256,
        "reference": f"the {len(held_out)} held-out images; `corrupted_`: with the noise of the training images"
        + (f"; `reference_`: the moments in {choice.reference}" if given else ""),
        "samples_per_seed": n,
        "seeds": setting.seeds,
        "per_seed": {key: [values[key] for values in per_seed] for key in per_seed[0]},
        "caveats": caveats(n, len(held_out), reference.shape[1]),
        "run": run,
        "made": made,
    }
    write_json(setting.report("evaluate", "seeds.json"), detail)
    write_bytes(setting.report("evaluate", "rapsd.csv"), _spectra(held_out, spectra))
    asked = DENOISING in choice.metrics and setting.variant is None
    if asked or setting.name is None:  # of the focus dvc.yaml names the file
        errors = denoising(setting, held_out, corrupts, world.device) if asked else []
        heads = ["seed", "step", "snr", "radius", "error"]
        write_bytes(setting.report("evaluate", "denoising.csv"), _csv(heads, errors))


def denoising(setting: Setting, held_out: np.ndarray, corrupts: Corruption | None, device: torch.device) -> list[list]:
    """Rows of `denoising_errors` of each seed's networks, on the first held-out images as the networks know images."""
    shape = tuple(setting.manifest(shape=list)["shape"])
    alpha_bar = setting.train.formulation(shape).alpha_bar
    assert alpha_bar is not None  # or the door has refused
    diffusion = Diffusion(Schedule(alpha_bar), setting.train.prediction)
    x0 = from_uint8(held_out[:DENOISED], device)
    if corrupts is not None:
        x0 = corrupts(x0, generator(0, "denoising corruption"))
    if setting.encode.centre:
        x0 = x0 - setting.mean_image(device)
    noise = setting.forward_noise()
    radii = ring_means(radius(shape[-2:])).tolist()
    checkpoints = setting.run()["checkpoints"]
    rows: list[list] = []
    most = 2 * len(x0) * len(radii) * len(SNRS)  # rings may share a step
    with Bar(f"denoise {setting.title}", len(setting.seeds) * len(checkpoints) * most) as bar:
        for seed in setting.seeds:
            for step in checkpoints:
                network = predictor(setting.network(seed, None if step == checkpoints[-1] else step).to(device))
                before = bar.done
                errors = denoising_errors(
                    network, diffusion, noise, x0, generator=generator(0, "denoising"), report=bar.update
                )
                bar.skip(before + most - bar.done)
                for snr, row in zip(SNRS, errors.tolist(), strict=True):
                    known = [(r, e) for r, e in zip(radii, row, strict=True) if not math.isnan(e)]
                    rows += ([seed, step, snr, f"{r:.6g}", f"{e:.6g}"] for r, e in known)
    return rows


def given_moments(path: str) -> Moments:
    """The mean and covariance of features that a file holds, such as ADM's reference batch."""
    moments = Moments.read(Path(path))
    if moments is None:
        raise InputError(f"evaluate.reference is {path}; it must be an npz file with mu and sigma")
    return moments


def _headline(result: dict) -> dict:
    """What `dvc exp show` has columns for: the distances to the held-out images, and their standard errors."""
    left_out = ("corrupted_", "pixels_", "density_", "coverage_")
    endings = (*FLOORS, "_sample_se", "_fit_se", "_subset_se", "_best_se", "_on_half", "_on_half_se")
    found = {k: v for k, v in result.items() if not k.startswith(left_out) and not k.endswith(endings)}
    shares = ("precision_", "recall_")
    return {k: v for k, v in found.items() if not (k.endswith("_se") and k.startswith(shares)) and k not in COUNTS}


def _floor(
    name: str, images: np.ndarray, reference: np.ndarray, moments: Moments, network: Extractor, metrics: set[str]
) -> dict[str, float]:
    """The Fréchet and perhaps the kernel distance of real images, with the ending ``_of_{name}``."""
    distances = measure(images, reference, network, {"fid", *metrics}, moments=moments)
    return {f"{network.metric(metric)}_of_{name}": distances[network.metric(metric)] for metric in ("fid", *metrics)}


def _pixels(samples: ImageSet, held_out: tuple[int, dict]) -> dict[str, float]:
    """The Fréchet distance of the pixels as Gaussian fields, in its three parts (`field_distance`).

    The means of finite sets differ by chance; what that adds is known, and is taken off the part ``mean``, so that it
    is unbiased (and may fall below 0). The other parts keep theirs, which `_of_real` shows. Of the held-out images
    their number and `statistics` are given.
    """
    found = [(len(samples), statistics(samples)), held_out]
    parts = field_distance(*(moments for _, moments in found))
    parts["mean"] -= sum(moments["power"].sum().item() / (n - 1) for n, moments in found)
    return {f"pixels_{part}": value for part, value in parts.items()}


def _best(found: list[np.ndarray], reference: Moments, name: str, seed: int) -> dict[str, float]:
    """The best of a run's checkpoints; and the one that half the samples choose, and the last, on half the samples."""
    order = np.random.default_rng(seed).permutation(len(found[0]))
    halves = np.array([[frechet_distance(Moments.of(x[order[k::2]]), reference) for x in found] for k in range(2)])
    return {
        f"{name}_best": min(frechet_distance(Moments.of(x), reference) for x in found),
        f"{name}_chosen_on_half": chosen_on_half(halves),
        f"{name}_last_on_half": float(halves[:, 0].mean()),
    }


def _summary(per_seed: list[dict[str, float]]) -> dict[str, float | None]:
    """Means over the seeds, with standard errors (``_se``) but for floors; errors over the samples are of the mean."""
    result: dict[str, float | None] = {}
    for key in per_seed[0]:
        values = np.array([v[key] for v in per_seed])
        if key.endswith(("_sample_se", "_fit_se")):
            result[key] = float(np.sqrt(np.square(values).sum()) / len(values))
            continue
        result[key] = float(values.mean())
        if key.endswith(FLOORS):
            continue  # floors
        result[f"{key}_se"] = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return result


def _mean_rapsd(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """`rapsd` of images in uint8, a few at a time."""
    total = torch.zeros(())
    for rows in blocks(len(images), 1024):
        some = torch.from_numpy(np.array(images[rows]))
        radii, power = rapsd(some.double() / 127.5 - 1)
        total = total + len(some) * power
    return radii, total / len(images)


def _spectra(held_out: np.ndarray, samples: list[torch.Tensor]) -> bytes:
    """CSV of the radially averaged power spectra of the held-out images and of the seeds' samples."""
    radii, real = _mean_rapsd(held_out)
    drawn = torch.stack(samples).mean(0)
    rows = zip(radii.tolist(), real.tolist(), drawn.tolist(), strict=True)
    return _csv(["radius", "held_out", "samples"], ([f"{v:.6g}" for v in row] for row in rows))


def _csv(heads: list[str], rows: Iterable[list]) -> bytes:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([heads, *rows])
    return table.getvalue().encode()


if __name__ == "__main__":
    stage(main, shared=True)
