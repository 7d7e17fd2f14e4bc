"""What is refused before any work begins: values that are not valid, and what this machine has no room for.

Every stage comes through here, so the first one tells a wrong value of the last; `python -m pipeline.check` does this
alone.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.params import Params, Setting
from pipeline.params.sections import EXTENSIONS, Dataset
from sagd.data import SOURCES, channels_of
from sagd.errors import InputError, amount
from sagd.noise.base import Noise
from sagd.runtime.files import scratch

Shape = tuple[int, ...]
LARGEST = 512  # side up to which a noise is made here, to see that it can be
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def check(params: Params, chosen: Sequence[Setting] = ()) -> None:
    """Raise InputError for the first value that is not valid, and for what there is no room for.

    Parameters
    ----------
    chosen
        The settings that are about to be run. Of these it is checked that the machine has room for them, and that their
        noises and networks can be built; of all settings, if none is chosen.
    """
    params.check()
    settings = params.drawn if "grid" in params.raw else [params.setting(None)]
    names = {setting.name for setting in chosen}
    seen: set[str] = set()
    for setting in settings:
        dataset = params.dataset_of(setting)
        if dataset is None or (chosen and setting.name not in names):
            continue
        if chosen or setting.name is None:  # in a study of many settings most files are for some of them
            _check_files(setting, dataset)
        if setting.encode.kind != "pixel":  # of latents the shape is not known yet
            continue
        shape, classes = shape_of(dataset), classes_of(dataset)
        _check_built(setting, shape, classes, seen)
        if chosen:
            parameters = network_size(setting, shape, classes)
            check_memory(setting, shape, parameters)
            disk(setting, shape, shape, (images_of(dataset), 0), parameters)


def shape_of(dataset: Dataset) -> Shape:
    """(C, H, W) of a data set's images."""
    return (dataset.channels or channels_of(dataset.name), dataset.size, dataset.size)


def classes_of(dataset: Dataset) -> int:
    """How many labels there are, as far as that is known before the data are here; 0 without labels."""
    return ((dataset.name in SOURCES and SOURCES[dataset.name].classes) or 1) if dataset.labels else 0


def images_of(dataset: Dataset) -> int:
    """How many images a data set has, if that is known before the data are here."""
    return SOURCES[dataset.name].images if dataset.name in SOURCES else 0


def network_size(setting: Setting, shape: Shape, classes: int) -> int:
    """How many parameters a setting's network has, for data of a shape (C, H, W)."""
    train = setting.train
    with torch.device("meta"):
        return sum(p.numel() for p in train.network(shape, classes, 0).parameters())


def noise_of(setting: Setting, shape: Shape) -> Noise:
    """A setting's noise, with white data where it is made of the data's spectrum; refused if it cannot be sampled."""
    formulation, white = setting.train.formulation(shape), torch.ones(shape[-2:], dtype=torch.float64)
    noise = setting.noise.spectrum(white, formulation.alpha_bar, 0.0 if setting.noise.alpha == "auto" else None)
    setting.check(noise, shape)
    return noise


def _check_built(setting: Setting, shape: Shape, classes: int, seen: set[str]) -> None:
    """Refuse what the library refuses of a noise or a network; what has been ``seen`` is not built again."""

    def new(*described: object) -> bool:
        before = len(seen)
        seen.add(repr((*described, shape)))
        return len(seen) > before

    train = setting.train
    try:
        if setting.noise.file is None and shape[-1] <= LARGEST and new(setting.noise, train.schedule, setting.sample):
            noise_of(setting, shape)
        if new(train.architecture, classes):
            network_size(setting, shape, classes)
    except InputError as error:
        said = str(error)
        known = setting.name is None or said.startswith(setting.title)
        raise InputError(said if known else f"{setting.title}: {said}") from None


def _check_files(setting: Setting, dataset: Dataset) -> None:
    """Refuse the name of a user's own file that is not there."""
    named = [("dataset.name", "data", dataset.name), ("noise.operator", "operators", setting.noise.operator)]
    named += [("evaluate.metrics", "metrics", metric) for metric in setting.evaluate.metrics]
    for key, folder, name in named:
        path = EXTENSIONS / folder / name.rpartition(":")[0]
        if ":" in name and not path.is_file():
            raise InputError(f"{key} is {name!r}; there is no file {path}")
    chosen = setting.evaluate
    files = [("evaluate.features", chosen.features)] if chosen.features.endswith((".pt", ".onnx")) else []
    for key, name in [*files, *([("evaluate.reference", chosen.reference)] if chosen.reference else [])]:
        if not Path(name).is_file() and Path(name).parts[0] != "reports":  # where the stage classifier makes one
            raise InputError(f"{key} is {name!r}; there is no such file")


def memory() -> int:
    """Bytes that this process may use, of the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", 0))).total_memory
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return min(whole, int(allowed)) if allowed.isdigit() else whole


def check_memory(setting: Setting, shape: Shape, parameters: int) -> None:
    """Refuse a training or sampling that needs more memory than there is: by what it needs at least, in float32."""
    train, sample, pixels = setting.train, setting.sample, torch.Size(shape).numel()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    side_by_side = 1 if torch.cuda.is_available() or processes > 1 else min(torch.get_num_threads(), len(setting.seeds))
    # Weights, gradients, two moments, average; the data, their noise, and both together; two maps a block.
    part = train.micro_batch_size or train.batch_size
    maps = 0 if train.unet is None else train.unet.widths[0] * shape[-1] * shape[-2]
    blocks = 0 if train.unet is None else train.unet.layers
    training = side_by_side * 4 * (5 * parameters + 3 * train.batch_size * pixels + 2 * blocks * part * maps)
    needs = [
        ("training", training // processes, "train.unet, train.dit, train.batch_size, train.micro_batch_size"),
        ("a run's losses", 4 * train.steps, "train.steps"),
        ("sampling", 4 * (parameters + 3 * sample.batch_size * pixels + sample.batch_size * maps), "sample.batch_size"),
    ]
    there = memory()
    for what, needed, keys in needs:
        if needed > there:
            raise InputError(
                f"{setting.title}: {what} needs at least {amount(needed)} of memory; there are {amount(there)} ({keys})"
            )


def disk(setting: Setting, images: Shape, shape: Shape, counts: tuple[int, int], parameters: int) -> str:
    """What is still to be written, in words; refused if it has no room.

    What goes to DVC's cache is there twice, where the file system cannot share.

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
    stored = setting.encode.stored
    latents = counts[0] * (1 + setting.encode.flips) * torch.Size(shape).numel() * 2 if stored else 0
    prepared = (setting.prepared / "train.npy").exists()
    encoded = (setting.artifacts("encode") / "manifest.json").exists()
    trained = (setting.artifacts("train") / "run.json").exists()
    sampled = (setting.artifacts("sample") / "samples.json").exists()
    drawn = 0 if sampled else sum(setting.sample.drawn(choice.earlier).values()) * runs * pixels
    networks = 0 if trained else 4 * parameters * runs
    here = {
        "images": 0 if prepared else 2 * numbers * pixels,
        "networks": 2 * networks * choice.checkpoints,
        "samples": 2 * drawn,
    }
    below_scratch = {
        "images": 0 if prepared else numbers * pixels,
        "latents": 0 if encoded else latents,
        "checkpoints": networks * (3 + choice.checkpoints),
        "samples": 2 * drawn,
    }
    said = []
    for place, needs in ((Path.cwd(), here), (scratch(), below_scratch)):
        there = next(p for p in (place, *place.parents) if p.exists())
        free = shutil.disk_usage(there).free
        each = ", ".join(f"{name} {amount(size)}" for name, size in needs.items() if size)
        said.append(f"{amount(sum(needs.values()))} in {place}, of {amount(free)} that are free ({each or 'nothing'})")
        if sum(needs.values()) > free:
            raise InputError(
                f"{setting.title} needs {said[-1]}: SAGD_SCRATCH names another scratch folder, `dvc cache dir` another "
                "cache"
            )
    return "; ".join(said)
