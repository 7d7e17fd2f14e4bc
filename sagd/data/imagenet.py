"""ImageNet-1k."""

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import File, Source, root_of, unpacked
from sagd.errors import InputError, amount


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """ImageNet-1k as torchvision.datasets.ImageNet unpacks it: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    root = root_of(path) / "imagenet"
    for part in ("train", "val"):
        if not unpacked(root / part):
            raise InputError(
                f"{root / part} is missing: from {source.page} ({source.licence}) download "
                f"{', '.join(f.name for f in source.files)} ({amount(sum(f.size for f in source.files))}) into {root}, "
                f"and unpack them with torchvision.datasets.ImageNet({str(root)!r}, {part!r})"
            )
    return of_files(
        root, f"imagenet: {root}", lambda n: n.startswith("val/"), lambda n: n.startswith(("train/", "val/"))
    )


imagenet = Source(
    open=_open,
    page="https://image-net.org/challenges/LSVRC/2012",
    licence="non-commercial research, after registration",
    images=1_331_167,
    files=(
        File("ILSVRC2012_devkit_t12.tar.gz", 2_568_145, "fa75699e90414af021442c21a62c3abf"),
        File("ILSVRC2012_img_train.tar", 147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
        File("ILSVRC2012_img_val.tar", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
    ),
    classes=1000,
)
