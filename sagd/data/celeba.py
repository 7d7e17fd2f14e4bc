"""CelebA: aligned faces."""

from pathlib import Path

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import File, Source, drive, read_bytes, root_of, unpacked
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """Packed or not; the test part is held out, the validation part is trained on."""
    folder = root_of(path)
    archive, listed = source.files
    parts = source.fetch(folder, listed)[0]
    root = folder / "celeba" / "img_align_celeba"
    root = root if unpacked(root) else source.fetch(folder, archive)[0]
    part = dict(line.split() for line in read_bytes(parts).decode().splitlines() if line.strip())

    def held_out(name: str) -> bool:
        if Path(name).name not in part:
            raise InputError(f"{root / name} is not in {parts}")
        return part[Path(name).name] == "2"

    return of_files(root, f"celeba: {root}", held_out)


celeba = Source(
    open=_open,
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="non-commercial research",
    images=202_599,
    files=(
        File(
            "celeba/img_align_celeba.zip",
            1.44e9,
            "00d2c5bc6d35e252742224ab0c1e8fcb",
            drive("0B7EVK8r0v71pZjFTYXZWM3FlRnM"),
        ),
        File(
            "celeba/list_eval_partition.txt",
            2.8e6,
            "d32c9cbf5e040fd4025c592c306e6668",
            drive("0B7EVK8r0v71pY0NSMzRuSXJEVkk"),
        ),
    ),
)
