"""Compare two sets of images: ``python -m sagd.evaluate GENERATED REFERENCE --features inception_768``.

A set is a folder or zip file of images, an npy file, or an npz file (``file.npz:member``). An npz file with ``mu`` and
``sigma``, such as ADM's reference batches, gives the reference moments of the Fréchet distance. The answer is JSON, on
the standard output.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch

from sagd.errors import InputError
from sagd.extractors import EXTRACTORS, Extractor, extractor, features
from sagd.files import scratch
from sagd.images import Images, statistics
from sagd.metrics import (
    Moments,
    bootstrap_error,
    check_subsets,
    frechet_distance,
    frechet_distance_infinity,
    kernel_distance,
    kernel_distance_of_subsets,
    prdc,
)
from sagd.progress import Bar

METRICS = ("fid", "kid", "prdc", "fid_infinity")


def measure(
    generated: np.ndarray,
    reference: np.ndarray | None,
    of: Extractor,
    metrics: Collection[str] = ("fid", "kid"),
    *,
    moments: Moments | None = None,
    seed: int = 0,
    replicates: int = 0,
    kid_subsets: tuple[int, int] | None = None,
    report: Callable[[int], None] = lambda resamples: None,
) -> dict[str, float]:
    """All distances between two sets of features, by the names that they deserve on these features.

    Parameters
    ----------
    generated, reference
        Features (N, D) and (M, D); the reference may be missing where its moments are given, and only Fréchet
        distances are asked for.
    metrics
        Of ``fid``, ``kid``, ``prdc``, ``fid_infinity``.
    moments
        Of the reference, if they are not to be computed from its features.
    seed
        Of the resamples, subsets and halves.
    replicates
        Of the bootstrap, for the standard error of the Fréchet distance over the samples; 0: none.
    kid_subsets
        How many, of how many: the kernel distance over random subsets, in place of that over all pairs.
    report
        Called with 1 after each resample.

    Returns
    -------
    dict
        Names to values. Endings: ``_sample_se``, a standard error over the samples; ``_subset_se``, over the subsets
        alone; ``_fit_se``, of a line; ``_of_halves``, the same distance between two random halves of the reference: a
        floor, though at fewer samples.
    """
    if unknown := set(metrics) - set(METRICS):
        raise InputError(f"metrics are {', '.join(sorted(unknown))}; allowed: {', '.join(METRICS)}")
    if reference is None and (moments is None or {"kid", "prdc"} & set(metrics)):
        raise InputError("kid and prdc need the images of the reference; its file holds moments alone")
    if reference is not None and (few := min(len(generated), len(reference))) < 6:
        raise InputError(f"{few} images in a set; the distances need 6 or more")
    if moments is None and {"fid", "fid_infinity"} & set(metrics):
        moments = Moments.of(reference)
    if reference is not None:
        order = np.random.default_rng([seed, 0]).permutation(len(reference))
        halves = [np.sort(order[k::2]) for k in range(2)]
    found = {}
    if "fid" in metrics:
        name = of.metric("fid")
        found[name] = frechet_distance(Moments.of(generated), moments)
        if replicates:
            found[f"{name}_sample_se"] = bootstrap_error(
                lambda counts: frechet_distance(Moments.of(generated, counts), moments), len(generated),
                replicates=replicates, rng=np.random.default_rng([seed, 1]), report=report,
            )  # fmt: skip
        if reference is not None:
            counts = (np.bincount(half, minlength=len(reference)) for half in halves)
            found[f"{name}_of_halves"] = frechet_distance(*(Moments.of(reference, c) for c in counts))
    if "fid_infinity" in metrics:
        name = of.metric("fid") + "_infinity"
        rng = np.random.default_rng([seed, 2])
        found[name], found[f"{name}_fit_se"] = frechet_distance_infinity(generated, moments, rng=rng)
    if "kid" in metrics:
        name = of.metric("kid")
        if kid_subsets is None:
            found[name], found[f"{name}_sample_se"] = kernel_distance(generated, reference)
        else:
            rng, (count, size) = np.random.default_rng([seed, 3]), kid_subsets
            found[name], found[f"{name}_subset_se"] = kernel_distance_of_subsets(
                generated, reference, subsets=count, size=size, rng=rng
            )
        found[f"{name}_of_halves"], _ = kernel_distance(*(reference[half] for half in halves))
    if "prdc" in metrics:
        found |= {f"{key}_{of.name}": value for key, value in prdc(generated, reference).items()}
    return found


def caveats(samples: int, reference: int | None, dimensions: int) -> list[str]:
    """What a reader must know before comparing the numbers."""
    counts = {"samples": samples, "references": reference}
    few = [f"{n} {what}" for what, n in counts.items() if n is not None and n <= dimensions]
    if not few:
        return []
    return [
        f"{' and '.join(few)} are no more than the {dimensions} features: their covariance is singular, and a Fréchet "
        "distance is biased upward by an amount that depends on their number; compare at equal counts alone, or read "
        "the kernel distance, which is not"
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sagd.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("generated", help="images to judge")
    parser.add_argument("reference", help="images, or moments, to judge them by")
    parser.add_argument(
        "--features", default="inception_2048", help=f"{', '.join(EXTRACTORS)}, or a .pt or .onnx file of your own"
    )
    parser.add_argument("--metrics", default="fid,kid", help=f"of {','.join(METRICS)} (default: fid,kid)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--bootstrap", type=int, default=20, help="resamples for FID's standard error (default: 20)")
    parser.add_argument(
        "--kid-subsets", metavar="COUNT,SIZE", help="such as 100,1000: subsets in place of all pairs for KID"
    )
    parser.add_argument("--cache", type=Path, default=scratch(), help="folder of features and weights (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(_compare(options), indent=1, ensure_ascii=False))
    except InputError as error:
        sys.exit(f"sagd.evaluate: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _compare(options: argparse.Namespace) -> dict:
    metrics = [m for m in options.metrics.split(",") if m]
    if (unknown := set(metrics) - set(METRICS)) or not metrics:
        raise InputError(f"--metrics: {', '.join(sorted(unknown)) or 'none'}; allowed: {', '.join(METRICS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda; this machine, or this PyTorch, has none: cpu is left")
    if options.bootstrap < 0 or options.bootstrap == 1 or options.seed < 0:
        raise InputError("--bootstrap is 0 (none) or 2 and more; --seed is 0 or more")
    subsets = _pair(options.kid_subsets)
    network = extractor(options.features)
    given = statistics(Path(options.reference))
    sets = [Images(options.generated)]
    if given is None or {"kid", "prdc"} & set(metrics):
        sets.append(Images(options.reference))
    least = 10 if "fid_infinity" in metrics else 6  # known now, and not after hours
    for images in sets:
        if len(images) < least:
            raise InputError(f"{images.name} holds {len(images)} images; these metrics need {least} or more")
    if subsets and "kid" in metrics:
        check_subsets(*subsets, *map(len, sets))
    with Bar("features", sum(map(len, sets))) as bar:
        places = {"cache": options.cache / "features", "weights": options.cache / "weights"}
        found = [features(s, network, **places, device=options.device, report=bar.update) for s in sets]
    generated, reference = (*found, None)[:2]
    moments = Moments.given(*given) if given else None
    resamples = options.bootstrap if "fid" in metrics else 0
    with Bar("distances", resamples, "resamples") as bar:
        distances = measure(
            generated, reference, network, metrics, moments=moments, seed=options.seed, replicates=resamples,
            kid_subsets=subsets, report=bar.update,
        )  # fmt: skip
    count = None if reference is None else len(reference)
    told = []
    if {"fid", "fid_infinity"} & set(metrics):
        told = caveats(len(generated), None if given else count, generated.shape[1])
        if given:
            told.append(
                "the moments of the reference were given: the file does not say of which images, network and resizing "
                "they are; a Fréchet distance means something only if of the same as here"
            )
    return {
        "features": network.name,
        "preprocessing": network.preprocessing,
        "weights_sha256": network.weights and network.weights.sha256,
        "generated": {"path": options.generated, "images": len(generated)},
        "reference": {"path": options.reference, "images": count, "moments": "given" if given else "computed"},
        **distances,
        "caveats": told,
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


if __name__ == "__main__":
    main()
