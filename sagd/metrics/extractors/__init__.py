"""Feature networks by name. A new one is one file here, with an `Extractor` of its own name."""

from pathlib import Path

from sagd.errors import InputError
from sagd.metrics.comparison import check_end
from sagd.metrics.extractors._own import ENDINGS, of_file
from sagd.metrics.features import Extractor
from sagd.runtime.registry import Registry

EXTRACTORS: Registry[Extractor] = Registry(__name__, Extractor, "extractor")
DEFAULT = "efficientnet_lite0"  # it needs no download


def extractor(name: str) -> Extractor:
    """Look an extractor up by name, or take a user's own file.

    Parameters
    ----------
    name
        A key of `EXTRACTORS`; or a file, TorchScript (``.pt``) or ONNX (``.onnx``): a function of images
        (B, 3, H, W), float32 from 0 to 255, which normalises them itself and returns features (B, D). TorchScript
        gets the images in their own size. So does ONNX, unless its input has a fixed size: then they are resized to
        it (bicubic, antialiased).

    Raises
    ------
    InputError
        An unknown name, a file that cannot be read, a file with the name of another network, or one that ends as the
        names of errors and floors do.
    """
    if not name.endswith(ENDINGS):
        if name not in EXTRACTORS:
            raise InputError(f"extractor is {name!r}; allowed: {', '.join(EXTRACTORS)}, or a file (.pt, .onnx)")
        return EXTRACTORS[name]
    path = Path(name).expanduser()
    if path.stem in EXTRACTORS:
        raise InputError(f"{path} has the name of another network; rename it")
    check_end(str(path), path.stem)  # which names the distances
    return of_file(path)
