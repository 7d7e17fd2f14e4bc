"""Networks of a study sampled in another way than the study samples them, and measured as it measures them."""

import hashlib
import json
from collections.abc import Sequence

import pandas as pd
import torch

from pipeline.params import Setting
from sagd.errors import InputError
from sagd.formulations.base import Formulation, Sampler
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.measure import measure
from sagd.networks import weights
from sagd.runtime.download import digest
from sagd.runtime.files import read_array, read_json, read_tensors, scratch, sources, write_json
from sagd.sampling import draw_batches
from sagd.spaces.pixels import to_uint8
from studies.claims.decided import logarithms

ROOMS = ("colored", "errors", "formulations", "metrics", "networks", "noise", "sampling", "spaces")


def distance(
    setting: Setting, seed: int, formulation: Formulation, sampler: Sampler, n: int, device: torch.device
) -> float:
    """The kernel distance of n samples of a seed's network to the held-out images.

    A setting of pixels that are neither corrupted nor centred. The starts are those of the study, and the distance is
    kept in the scratch folder, so that a run that was cut off goes on.
    """
    if setting.encode.kind != "pixel" or setting.encode.centre or setting.corrupt.band is not None:
        raise InputError(f"{setting.title} is sampled anew, which is for plain pixels: not corrupted, not centred")
    reference, folder = setting.prepared.array("held_out"), setting.network_folder(seed)
    network, noise, statistics = extractor(setting.evaluate.features), setting.forward_noise(), setting.statistics_file
    described = [
        formulation.to_dict(), repr(sampler), n, seed, setting.sample.batch_size, sources(*ROOMS), torch.__version__,
        network.weights and network.weights.sha256, digest(reference), digest(statistics),
        *(digest(folder / file) for file in (weights.CONFIG, weights.WEIGHTS)),
    ]  # fmt: skip
    kept = scratch() / "resampled" / f"{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]}.json"
    if kept.exists():
        return read_json(kept)["distance"]
    batches = draw_batches(
        setting.network(seed).to(device), formulation, noise, sampler, read_tensors(statistics),
        range(0, n, setting.sample.batch_size), n=n, seed=seed, batch_size=setting.sample.batch_size,
    )  # fmt: skip
    drawn = torch.cat([*batches])
    if not torch.isfinite(drawn).all():
        raise InputError(f"samples of {setting.title}, seed {seed}, with {sampler} are not finite")
    sets = (read_array(reference, memory_map=True), to_uint8(drawn).numpy())
    held_out, found = (
        features(Images(x), network, cache=scratch() / "features", weights=scratch() / "weights", device=device)
        for x in sets
    )
    value = measure(found, held_out, network, {"kid"})[network.metric("kid")]
    write_json(kept, {"distance": value})
    return value


def log_ratio(one: tuple[str, Sequence[float]], other: tuple[str, Sequence[float]], seeds: Sequence[int]) -> dict:
    """What a stage records of two arms, each with the distances of the seeds: ``effects``, or ``why`` there are none.

    So that what was measured is kept, and the page tells what could not be computed from it.
    """
    try:
        logs = [logarithms(f"the kernel distance of {arm}", pd.Series(x, seeds)) for arm, x in (one, other)]
    except InputError as error:
        return {"why": str(error)}
    return {"effects": (logs[0] - logs[1]).tolist()}
