"""What a setting needs before it is trained: data, weights, memory and time by real steps, and disk.

`python -m pipeline.train --setting NAME --dry` says all of it; on a GPU, training begins with what it will cost.
"""

import itertools
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.params import Params, Setting
from pipeline.params.sections import EXTENSIONS, Dataset, Encode, Train, naming
from pipeline.run import door
from sagd.data import find
from sagd.data.source import Absent
from sagd.errors import InputError
from sagd.metrics.extractors import extractor
from sagd.metrics.frechet import Moments
from sagd.noise.base import Noise
from sagd.runtime.distributed import World
from sagd.runtime.files import read_json, scratch
from sagd.sampling import draw
from sagd.spaces.autoencoder import Autoencoder
from sagd.spaces.latents import Latents
from sagd.spaces.pixels import Encoded, Pixels
from sagd.training.batches import draw_batch
from sagd.training.loop import train

Found = TypeVar("Found")
STEPS = 3  # that are tried, of training and of sampling
TRIAL = 3.0  # seconds that each of the trials may take, about
SLOWEST = 0.05  # of the rate of a matrix product: what the passes of a network reach at least
LONGEST = 60.0  # seconds that a pass over one image may take, by that rate, for it to be run
LARGEST = 3e8  # parameters of a network that is built to be tried


def dry(params: Params, setting: Setting) -> None:
    """Print what a setting needs, and end with all that is missing, as one error.

    What is found is used, and what a later stage would fetch is named. Real images are not needed: time and memory are
    those of random ones of the same shape.
    """
    world = World()
    problems: list[str] = []

    def attempt(label: str, needed: Callable[[], tuple[str, Found]]) -> Found | None:
        found: Found | None = None
        try:
            said, found = needed()
        except Absent as absent:  # it can be fetched
            said = str(absent)
        except InputError as error:
            problems.append(f"{label}: {error}")
            return None
        if world.main:
            print(f"  {label:<12} {said}", flush=True)
        return found

    if world.main:
        print(f"{setting.title}, profile {params.profile or 'none'}:", flush=True)
    dataset = params.dataset_of(setting)
    if dataset is None:
        raise InputError("no data set is named: the section dataset, or datasets")
    shape = door.shape_of(dataset)
    if world.main:
        spoken = "x".join(map(str, shape))
        print(f"  {'images':<12} {spoken} (channels, height, width), as the parameters say", flush=True)
    counts = attempt("data", lambda: _data(setting, dataset)) or (door.images_of(dataset), 0)
    autoencoder = attempt("autoencoder", lambda: _autoencoder(setting, shape, world))
    attempt("features", lambda: _features(setting))
    reference = setting.evaluate.reference
    if reference is not None:
        attempt("reference", lambda: _reference(reference))
    if setting.encode.kind == "pixel" or autoencoder is not None:
        source = _stand_in(setting, shape, door.classes_of(dataset), autoencoder, world)
        noise = attempt("noise", lambda: _noise(setting, source.shape))
        if noise is not None:
            attempt("cost", lambda: (cost(setting, source, noise, world), None))
        size = door.network_size(setting.train, source.shape, source.classes)
        attempt("disk", lambda: (door.disk(setting, shape, source.shape, counts, size), None))
    if problems:
        raise InputError(f"{setting.title} cannot run: {'; '.join(problems)}")


def seconds(setting: Setting, shape: tuple[int, ...]) -> tuple[float, float]:
    """Seconds of a training step of one seed, and of drawing all samples of a setting; data are pixels, (C, H, W)."""
    world, how = World(), setting.sample
    source = _stand_in(setting, shape, 0, None, world)
    noise = door.noise_of(setting, shape)
    parameters = door.network_size(setting.train, shape, 0)
    one, known = _forward(setting.train, source, parameters, world)
    step, _, _ = _training(setting, source, noise, world, one, parameters, known)
    n = min(how.n, how.batch_size)
    batch = _sampling(setting, source, noise, world, one, n)
    return step, len(setting.seeds) * how.n / n * batch * how.steps / min(STEPS, how.steps)


def plan(setting: Setting, source: Pixels | Latents, noise: Noise, world: World) -> None:
    """Print, before a training that is about to begin, what it will cost and what it will write."""
    record = _prepared(setting)
    size = door.network_size(setting.train, source.shape, source.classes)
    disk = door.disk(setting, tuple(record["shape"]), source.shape, _counts(record), size)
    said = cost(setting, source, noise, world)
    if world.main:
        print(f"train {setting.title}: {said}; {disk}", flush=True)


def cost(setting: Setting, source: Pixels | Latents, noise: Noise, world: World) -> str:
    """Time and memory of the whole training and sampling, from a few real steps of each, whose results are dropped.

    Where a batch would take longer than `TRIAL`, fewer images are timed, and the answer is extrapolated.
    """
    choice, how = setting.train, setting.sample
    parameters = door.network_size(choice, source.shape, source.classes)
    try:
        one, how_known = _forward(choice, source, parameters, world)
        training_step, used, note = _training(setting, source, noise, world, one, parameters, how_known)
        n = min(how.n, how.batch_size)
        batch = _sampling(setting, source, noise, world, one, n)
    except torch.OutOfMemoryError as error:
        part = choice.micro_batch_size or choice.batch_size
        raise InputError(
            f"{torch.cuda.get_device_name()} has too little memory for {part} images at a time: lower "
            "train.micro_batch_size, which changes no result, or sample.batch_size"
        ) from error
    runs = len(setting.seeds)
    training = runs * choice.steps * training_step * world.size
    drawn = runs * sum(how.drawn(choice.earlier).values())
    sampling = drawn / n * batch * how.steps / min(STEPS, how.steps)
    if world.device.type == "cuda":
        device = torch.cuda.get_device_name()
        memory = f"{used / 1e9:.1f} of its {torch.cuda.get_device_properties(world.device).total_memory / 1e9:.0f} GB"
    else:
        device = f"{torch.get_num_threads()} CPU threads"
        memory = f"{used / 1e9:.1f} GB"
    shared = f" on {world.size} of them" if world.size > 1 else ""
    return (
        f"about {_time(training + sampling)} of {device}: {_time(training)} for {runs} x {choice.steps:,} steps of "
        f"{choice.batch_size} images, {_time(training_step)} each{shared}{note}, and {_time(sampling)} for "
        f"{drawn:,} samples; {memory} of memory; {parameters / 1e6:.1f} M parameters"
    )


def _seconds(world: World, work: Callable[[], object]) -> float:
    """How long some work takes, that of a GPU included."""
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    began = time.monotonic()
    work()
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began


def _peak(world: World) -> int:
    """Bytes of memory that were in use at once, so far."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forward(choice: Train, source: Pixels | Latents, parameters: int, world: World) -> tuple[float, str]:
    """Seconds of a network's pass over one image, and how they are known: by its multiplications if it may be long."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        _one(choice.network(source.shape, source.classes, 0), source, "meta")
    square = torch.ones(1024, 1024, device=world.device)
    product = min(_seconds(world, lambda: square @ square) for _ in range(3))
    took = counted.get_total_flops() / (2 * 1024**3) * product / SLOWEST
    how = "at most, by the multiplications of one image"
    if world.most(int(1e9 * took))[0] / 1e9 < LONGEST and parameters < LARGEST:
        network = choice.network(source.shape, source.classes, 0).to(world.device)
        took, how = _seconds(world, lambda: _one(network, source, world.device)), "by one image alone"
        if took < TRIAL:  # the first pass is the slower one
            took = min(took, _seconds(world, lambda: _one(network, source, world.device)))
    return world.most(int(1e9 * took))[0] / 1e9, how  # all processes choose alike


def _one(network: torch.nn.Module, source: Pixels | Latents, device: torch.device | str) -> None:
    """A pass over one image."""
    labels = {"class_labels": torch.zeros(1, dtype=torch.int64, device=device)} if source.classes else {}
    with torch.no_grad():
        network(torch.zeros(1, *source.shape, device=device), torch.zeros(1, device=device), **labels)


def _training(
    setting: Setting,
    source: Pixels | Latents,
    noise: Noise,
    world: World,
    one: float,
    parameters: int,
    how: str,
) -> tuple[float, int, str]:
    """Seconds of a training step, bytes of memory, and a remark if not whole batches were timed."""
    choice = setting.train
    formulation, whole = choice.formulation(source.shape), choice.batch_size
    part = choice.micro_batch_size or whole
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def timed(images: int) -> float:
        recipe = replace(choice.recipe(), steps=STEPS, batch_size=images, compile=False)
        recipe = recipe if images == whole else replace(recipe, micro_batch_size=None)
        times: list[float] = []

        def now(loss: torch.Tensor) -> None:
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic())

        network = choice.network(source.shape, source.classes, 0)
        train(network, source, noise, formulation, recipe, seed=0, world=world, report=now)
        return min(after - before for before, after in itertools.pairwise(times))

    # An image, its encoding too, forward and backward.
    single = replace(choice.recipe(), batch_size=1, micro_batch_size=None)
    drawing = _seconds(
        world, lambda: draw_batch(source, formulation, noise, None, single, 0, 0, classes=source.classes)
    )
    image = 3 * one + world.most(int(1e9 * drawing))[0] / 1e9
    images = int(TRIAL * world.size / (STEPS * image))
    if parameters >= LARGEST or images < world.size:
        state = 4 * 4 * parameters  # gradients, moments, average
        return image * whole / world.size, _peak(world) + state, f" ({how})"
    if images >= whole:
        return timed(whole), _peak(world), ""
    images = min(max(images // world.size, 1) * world.size, part)
    fewest = timed(world.size)
    before = _peak(world)
    step = timed(images)
    each = max(0.0, step - fewest) / (images - world.size) if images > world.size else step / images
    used = before + max(0, _peak(world) - before) * part // images
    return step + each * (whole - images), used, f" (by batches of {images})"


def _sampling(setting: Setting, source: Pixels | Latents, noise: Noise, world: World, one: float, n: int) -> float:
    """Seconds of a few steps of sampling, for n images."""
    choice, how = setting.train, setting.sample
    steps = min(STEPS, how.steps)
    images = min(n, int(TRIAL / (2 * steps * one + 1e-9)))  # Heun asks twice a step
    if images < 1:
        return one * n * steps
    moments = {"mean": torch.zeros(source.shape, dtype=torch.float64), "power": torch.ones(source.shape).double()}
    network = choice.network(source.shape, source.classes, 0).to(world.device).eval().requires_grad_(False)
    sampler, formulation = replace(how.settings(clip=False), steps=steps), choice.formulation(source.shape)
    took = _seconds(
        world, lambda: draw(network, formulation, noise, sampler, moments, n=images, batch_size=images, seed=0)
    )
    return took * n / images


def _time(seconds: float) -> str:
    """In the unit that suits."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def _data(setting: Setting, dataset: Dataset) -> tuple[str, tuple[int, int]]:
    """How many images there are to train on and to hold out."""
    if setting.prepared.here and _is_of(_prepared(setting), dataset):
        counts = _counts(_prepared(setting))
        where = f"prepared in {setting.prepared.folder}"
    else:
        pictures = find(dataset.name, dataset.path, dataset.size, fetching=False, folder=EXTENSIONS / "data")
        held_out = dataset.held_out if pictures.held_out is None else int(pictures.held_out.sum())
        counts = len(pictures.names) - held_out, held_out
        where = pictures.source
    return f"{where}: {counts[0]:,} to train on, {counts[1]:,} held out", counts


def _is_of(record: dict, dataset: Dataset) -> bool:
    """Whether what `prepare` has written is of this section of params.yaml, and not of one before it was changed."""
    name, _, where = record["source"].partition(": ")
    drawn = record["split_seed"] is not None  # or the data set has a test part of its own
    return (
        name == dataset.name
        and record["shape"] == list(door.shape_of(dataset))
        and ("classes" in record) == dataset.labels
        and (not drawn or (record["held_out"], record["split_seed"]) == (dataset.held_out, dataset.split_seed))
        and (name != "huggingface" or where == dataset.path)
        and (name != "folder" or Path(where).absolute() == Path(dataset.path or "").expanduser().absolute())
    )


def _prepared(setting: Setting) -> dict:
    """What `prepare` said of a setting's images."""
    return read_json(setting.prepared.record)


def _counts(record: dict) -> tuple[int, int]:
    return record["train"], record["held_out"]


def _autoencoder(setting: Setting, images: tuple, world: World) -> tuple[str, Autoencoder | None]:
    choice = setting.encode
    if choice.kind == "pixel":
        return "none: pixels", None
    assert choice.path is not None  # or `Encode` has refused
    with naming("encode", Encode), world.main_first():
        autoencoder = Autoencoder(choice.kind, choice.path, world.device, images[-1])
    autoencoder.shape(images)
    return f"{choice.kind} {choice.path}, sha256 {autoencoder.sha256[:16]}", autoencoder


def _features(setting: Setting) -> tuple[str, None]:
    network = extractor(setting.evaluate.features)
    weights = network.weights
    if weights is None or weights.url is None or (scratch() / "weights" / weights.file).exists():
        return network.name, None
    return f"{network.name}: its weights, {weights.file}, are to be fetched to {scratch() / 'weights'}", None


def _reference(path: str) -> tuple[str, None]:
    given = Moments.read(Path(path))
    if given is None:
        raise InputError(f"evaluate.reference is {path}; it must be an npz file with mu and sigma")
    return f"{path}: the moments of {len(given.mean)} features", None


def _stand_in(setting: Setting, images: tuple, classes: int, autoencoder: Autoencoder | None, world: World) -> Pixels:
    """A batch of random images or latents, for what is trained on."""
    shape = images
    if autoencoder is not None:
        shape = autoencoder.shape(images)
    n = setting.train.batch_size
    of = images if setting.encode.on_the_fly else shape
    drawn = torch.randint(256, (n, *of), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n).remainder(classes).numpy() if classes else None
    if labels is not None:
        labels[-1] = classes - 1  # which says how many there are
    pixels = Pixels(drawn.to(world.device), labels)
    return Encoded(pixels, autoencoder.encode, shape) if autoencoder and setting.encode.on_the_fly else pixels


def _noise(setting: Setting, shape: tuple) -> tuple[str, Noise]:
    noise = door.noise_of(setting, shape)
    exponent = f", alpha {setting.noise.alpha}" if setting.noise.operator == "power_law" else ""
    return f"{setting.noise.operator}{exponent}, on {list(shape)}", noise
