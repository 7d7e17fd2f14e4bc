"""What is refused before any work begins: values that are not valid, and what this machine has no room for.

Every stage comes through here, so the first one tells a wrong value of the last; `python -m pipeline.check` does this
alone.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.params import Params, Setting
from pipeline.params.sections import EXTENSIONS, Dataset, Train
from pipeline.params.sections import Noise as NoiseSection
from sagd.data import SOURCES, channels_of
from sagd.errors import InputError, Missing, amount
from sagd.images import tell
from sagd.metrics.comparison import check_end
from sagd.metrics.distances import METRICS
from sagd.metrics.measure import check_names
from sagd.noise.base import Noise
from sagd.operators import band_pass
from sagd.runtime.files import read_json, scratch
from sagd.runtime.registry import own

Shape = tuple[int, ...]
FEWEST = 6  # images that any distance takes, of which halves are compared, too
LARGEST = 512  # side up to which a noise is made here, to see that it can be
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def check(params: Params, chosen: Sequence[Setting] = (), stage: str = "") -> None:
    """Raise InputError for the first value that is not valid, and for what there is no room for.

    Parameters
    ----------
    chosen
        The settings that are about to be run. Of these it is checked that the machine has room for them, and that their
        noises and networks can be built; of all settings, if none is chosen.
    stage
        The stage that is about to run them. What a later one needs of memory is only a remark: it may run elsewhere.
    """
    params.check()
    names = {setting.name for setting in chosen}
    later: dict[str, list[str]] = {}
    for setting in params.drawn:
        if chosen and setting.name not in names:
            continue
        dataset = params.dataset_of(setting)
        if chosen or setting.name is None:  # in a study of many settings most files are for some of them
            _check_files(setting, dataset)
        if dataset is not None and setting.has("sample", "evaluate"):
            _check_counts(setting, prepared=stage not in ("", "prepare"))
        # Of latents the shape is not known yet.
        if dataset is None or not setting.has("train") or setting.encode.kind != "pixel":
            continue
        shape, classes = shape_of(dataset), classes_of(dataset)
        _check_built(setting, shape, classes)
        if chosen and setting.has("seed"):
            parameters = network_size(setting.train, shape, classes)
            for said in check_memory(setting, shape, parameters, stage):
                later.setdefault(said, []).append(setting.title)
            if setting.has("sample"):
                disk(setting, shape, shape, (images_of(dataset), 0), parameters)
    for said, titles in later.items():
        more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
        tell(f"{stage}: {titles[0]}{more}: on this machine {said}")


def shape_of(dataset: Dataset) -> Shape:
    """(C, H, W) of a data set's images."""
    return (dataset.channels or channels_of(dataset.name), dataset.size, dataset.size)


def classes_of(dataset: Dataset) -> int:
    """How many labels there are, as far as that is known before the data are here; 0 without labels."""
    return ((dataset.name in SOURCES and SOURCES[dataset.name].classes) or 1) if dataset.labels else 0


def images_of(dataset: Dataset) -> int:
    """How many images a data set has, if that is known before the data are here."""
    return SOURCES[dataset.name].images if dataset.name in SOURCES else 0


@functools.cache
def network_size(train: Train, shape: Shape, classes: int) -> int:
    """How many parameters the network of a section ``train`` has, for data of a shape (C, H, W)."""
    with torch.device("meta"):
        return sum(p.numel() for p in train.network(shape, classes, 0).parameters())


def noise_of(setting: Setting, shape: Shape) -> Noise:
    """A setting's noise, with white data where it is made of the data's spectrum; refused if it cannot be sampled."""
    noise = _noise(setting.noise, setting.train, shape)
    setting.check(noise, shape)
    return noise


@functools.cache
def _noise(choice: NoiseSection, train: Train, shape: Shape) -> Noise:
    white = torch.ones(shape[-2:], dtype=torch.float64)
    return choice.spectrum(white, train.formulation(shape).alpha_bar, 0.0 if choice.alpha == "auto" else None)


def _check_built(setting: Setting, shape: Shape, classes: int) -> None:
    """Refuse what the library refuses of a noise or a network."""
    try:
        if setting.corrupt.band is not None and shape[-1] <= LARGEST:
            band_pass(shape[-2:], setting.corrupt.edges, units=setting.corrupt.units)
        if setting.noise.file is None and shape[-1] <= LARGEST:
            noise = _noise(setting.noise, setting.train, shape)
            if setting.has("sample", "seed"):
                setting.check(noise, shape)
        network_size(setting.train, shape, classes)
    except InputError as error:
        said = str(error)
        known = setting.name is None or said.startswith(setting.title)
        raise InputError(said if known else f"{setting.title}: {said}") from None


def _check_counts(setting: Setting, prepared: bool) -> None:
    """Refuse too few samples or held-out images for the metrics, and more samples than there are training images.

    How many images there are is known where ``prepared`` is true: `prepare` has written it, of this data set.
    """
    least = max([FEWEST, *(METRICS[name].least for name in setting.evaluate.of_samples if name in METRICS)])
    drawn = setting.sample.drawn(setting.train.earlier)
    counts = {"sample.n": drawn.pop(None), "sample.earlier": min(drawn.values(), default=least)}
    most = 0
    if prepared and setting.prepared.record.is_file():
        record = read_json(setting.prepared.record, train=int, held_out=int)
        counts["the number of held-out images (dataset.held_out)"], most = record["held_out"], record["train"]
    for name, count in counts.items():
        if count < least:
            raise InputError(f"{setting.title}: {name} is {count}; evaluate.metrics take {least} or more")
    if most and counts["sample.n"] > most:
        raise InputError(f"{setting.title}: sample.n is {counts['sample.n']}, more than the {most} training images")


def _check_files(setting: Setting, dataset: Dataset | None) -> None:
    """Refuse names that tables can't show, and what is not there: a function, a file of features or of a reference."""
    named = [("noise.operator", "operators", setting.noise.operator)]
    if dataset is not None:
        named += [("dataset.name", "data", dataset.name)]
    if setting.has("evaluate"):
        named += [("evaluate.metrics", "metrics", metric) for metric in setting.evaluate.metrics]
        check_names(sorted({metric for metric in setting.evaluate.metrics if ":" in metric}))
        check_end("evaluate.features", Path(setting.evaluate.features).stem)
    for key, folder, name in named:
        if ":" in name:
            own(name, EXTENSIONS / folder, key)
    if not setting.has("evaluate"):
        return
    chosen = setting.evaluate
    files = [("evaluate.features", chosen.features)] if chosen.features.endswith((".pt", ".onnx")) else []
    for key, name in [*files, *([("evaluate.reference", chosen.reference)] if chosen.reference else [])]:
        if not Path(name).is_file() and Path(name).parts[0] != "reports":  # where the stage classifier makes one
            raise Missing(f"{key} is {name!r}; there is no such file")


def memory() -> int:
    """Bytes that this process may use, of the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", 0))).total_memory
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return min(whole, int(allowed)) if allowed.isdigit() else whole


def check_memory(setting: Setting, shape: Shape, parameters: int, stage: str) -> list[str]:
    """Refuse a training or sampling that needs more memory than there is: by what it needs at least, in float32.

    What only a later stage lacks is returned, a line each.
    """
    train, pixels = setting.train, torch.Size(shape).numel()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    side_by_side = 1 if torch.cuda.is_available() or processes > 1 else min(torch.get_num_threads(), len(setting.seeds))
    # Weights, gradients, two moments, average; the data, their noise, and both together; two maps a block.
    part = train.micro_batch_size or train.batch_size
    maps = 0 if train.unet is None else train.unet.widths[0] * shape[-1] * shape[-2]
    blocks = 0 if train.unet is None else train.unet.layers
    training = side_by_side * 4 * (5 * parameters + 3 * train.batch_size * pixels + 2 * blocks * part * maps)
    losses, needs = 4 * train.steps, []
    if stage == "train" or not _trained(setting):
        keys = "train.unet, train.dit, train.batch_size, train.micro_batch_size"
        needs += [
            ("train", "training", training // processes, keys),
            ("train", "a run's losses", losses, "train.steps"),
        ]
    if setting.has("sample") and (stage == "sample" or not _sampled(setting)):
        batch = setting.sample.batch_size
        needs += [("sample", "sampling", 4 * (parameters + 3 * batch * pixels + batch * maps), "sample.batch_size")]
    there, later = memory(), []
    for which, what, needed, keys in needs:
        if needed > there:
            said = f"{what} needs at least {amount(needed)} of memory; there are {amount(there)} ({keys})"
            if stage in ("", which):
                raise InputError(f"{setting.title}: {said}")
            later.append(said)
    return later


def disk(setting: Setting, images: Shape, shape: Shape, counts: tuple[int, int], parameters: int) -> str:
    """What is still to be written at least, in words; refused if there is no room for it.

    What DVC's cache needs besides, where its file system cannot share, is not counted, nor what is packed, samples.

    Parameters
    ----------
    images, shape
        (C, H, W) of an image, and of what is trained on.
    counts
        Images to train on and held out, 0 if that is not known.
    parameters
        Of the network.
    """
    choice, runs = setting.train, len(setting.seeds)
    pixels, numbers = torch.Size(images).numel(), sum(counts)
    latents = counts[0] * (1 + setting.encode.flips) * torch.Size(shape).numel() * 2 if setting.encode.stored else 0
    prepared, encoded = setting.prepared.here, setting.manifest_file.exists()
    network = 0 if _trained(setting) else 4 * parameters
    drawn = 0 if _sampled(setting) else sum(setting.sample.drawn(choice.earlier).values()) * runs * pixels
    here = {"images": 0 if prepared else numbers * pixels, "networks": network * runs * choice.checkpoints}
    below = {
        "images": here["images"],
        "latents": 0 if encoded else latents,
        "checkpoints": network * (3 + choice.checkpoints),
        "samples": drawn,
    }
    said = []
    elsewhere = "SAGD_SCRATCH names another scratch folder"
    ours = {"images": [setting.prepared.folder], "networks": [setting.artifacts("train")]}
    names = {"images": "prepare", "latents": "latents", "checkpoints": "train", "samples": "sample"}
    begun = {what: [scratch() / name] for what, name in names.items()}
    for place, needs, parts, remedy in (
        (Path("artifacts").absolute(), here, ours, ""),
        (scratch(), below, begun, f": {elsewhere}"),
    ):
        there = next(p for p in (place, *place.parents) if p.exists())
        free, needed = shutil.disk_usage(there).free, sum(needs.values())
        each = ", ".join(f"{name} {amount(size)}" for name, size in needs.items() if size)
        said.append(f"{amount(needed)} in {place}, of {amount(free)} that are free ({each or 'nothing'})")
        # An interrupted run may have written some of it. Which of those that are there are its own is not known yet.
        if needed > free and needed > free + sum(min(needs[w], sum(map(_written, parts[w]))) for w in needs):
            raise InputError(f"{setting.title} needs at least {said[-1]}{remedy}")
    return "; ".join(said)


def _written(folder: Path) -> int:
    """Bytes of the files below a folder, which other processes may change meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found += os.lstat(os.path.join(place, name)).st_size
    return found


def _trained(setting: Setting) -> bool:
    return setting.run_file.exists()


def _sampled(setting: Setting) -> bool:
    return setting.samples_record.exists()
