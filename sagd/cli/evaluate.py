"""Compare two sets of images: sagd evaluate GENERATED REFERENCE

A set is a folder or zip file of images, an npy file, or an npz file (file.npz:array). An npz file with mu and sigma,
such as ADM's reference batches, gives the reference moments of the Fréchet distance. Prints JSON. To resume after an
interruption, run the same command again.
"""

import argparse
import os
from pathlib import Path

import torch

from sagd.cli import path, place
from sagd.errors import InputError
from sagd.images import Images
from sagd.metrics.extractors import DEFAULT, EXTRACTORS, extractor
from sagd.metrics.features import features
from sagd.metrics.frechet import Moments
from sagd.metrics.kernel import check_subsets
from sagd.metrics.measure import METRICS, caveats, copies, find, measure, needing_images
from sagd.runtime.files import scratch
from sagd.runtime.progress import Bar

GIVEN = (
    "the moments of the reference were given: the file does not say from which images, network and resizing they come; "
    "a Fréchet distance is meaningful only if these are the same as here"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("generated", metavar="GENERATED", type=place, help="images to judge")
    add("reference", metavar="REFERENCE", type=place, help="images, or moments, to compare them with")
    add(
        "--features",
        metavar="NAME",
        default=DEFAULT,
        help=f"{', '.join(EXTRACTORS)}, or your own network, a file .pt or .onnx (default: %(default)s)",
    )
    add(
        "--metrics",
        metavar="NAMES",
        default="fid,kid",
        help=f"{', '.join(METRICS)}, or your own function, such as mine.py:distance; separated by commas "
        "(default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="for everything that is drawn (default: %(default)s)")
    add(
        "--bootstrap",
        type=int,
        default=20,
        metavar="N",
        help="resamples for the standard error of the Fréchet distance, 0 for none (default: %(default)s)",
    )
    add(
        "--kid-subsets",
        metavar="COUNT,SIZE",
        help="compute the kernel distance over random subsets, such as 100,1000 (default: over all pairs)",
    )
    add(
        "--cache",
        type=path,
        default=scratch(),
        metavar="FOLDER",
        help="folder of cached features and network weights (default: %(default)s)",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=("cpu", "cuda"),
        help="where the network runs (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> dict:
    """The distances, and what they are of."""
    metrics = find(m for m in options.metrics.split(",") if m)
    if not metrics:
        raise InputError(f"--metrics is empty; allowed: {', '.join(METRICS)}, or your own, such as mine.py:distance")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("CUDA is not available; use --device cpu")
    if options.bootstrap < 0 or options.bootstrap == 1:
        raise InputError(f"--bootstrap is {options.bootstrap}; it must be 0 (none), or 2 or more")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; it must be 0 or more")
    subsets = _pair(options.kid_subsets)
    if subsets and "kid" not in metrics:
        raise InputError("--kid-subsets is for the metric kid, which --metrics leaves out")
    network = extractor(options.features)
    given = Moments.read(Path(options.reference))
    sets = [Images(options.generated)]
    if given is None or needing_images(metrics):
        sets.append(Images(options.reference))
    least = max(metric.least for metric in metrics.values())  # refused now, not after hours of computing features
    for images in sets:
        if len(images) < least:
            raise InputError(f"{images.name} has {len(images)} images; {' and '.join(metrics)} need {least} or more")
    if subsets:
        check_subsets(*subsets, *map(len, sets))
    with Bar("features", sum(map(len, sets))) as bar:
        places = {"cache": options.cache / "features", "weights": options.cache / "weights"}
        found = [features(s, network, **places, device=options.device, report=bar.update) for s in sets]
    generated, reference = found[0], found[1] if len(found) > 1 else None
    resamples = options.bootstrap if "fid" in metrics else 0
    with Bar("distances", resamples, "resamples") as bar:
        distances = measure(
            generated,
            reference,
            network,
            tuple(metrics),
            moments=given,
            seed=options.seed,
            replicates=resamples,
            kid_subsets=subsets,
            report=bar.update,
        )
    count = None if reference is None else len(reference)
    notes = []
    if any(metric.moments_suffice for metric in metrics.values()):  # a Fréchet distance
        notes = caveats(len(generated), None if given else count, generated.shape[1]) + ([GIVEN] if given else [])
    return {
        "features": network.name,
        "preprocessing": network.preprocessing,
        "weights_sha256": network.weights and network.weights.sha256,
        "generated": {"path": options.generated, "images": len(generated)},
        "reference": {"path": options.reference, "images": count, "moments": "given" if given else "computed"},
        **distances,
        "caveats": notes + copies(generated, reference),
        "seed": options.seed,
        "bootstrap": resamples,
        "kid_subsets": subsets,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }


def _pair(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        count, size = map(int, text.split(","))
    except ValueError:
        raise InputError(f"--kid-subsets is {text!r}; it must be COUNT,SIZE, such as 100,1000") from None
    return count, size
