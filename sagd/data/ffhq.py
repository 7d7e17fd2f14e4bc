"""FFHQ: faces from Flickr."""

import hashlib
import json
import mmap
import re
from pathlib import Path

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import File, Source, drive, root_of, unpacked
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """The thumbnails up to 128 pixels, the images of 1024 pixels above; the last 10,000 are for validation."""
    folder = root_of(path)
    listed, small, large = source.files
    archive = small if size <= 128 else large
    root = (folder / archive.name).with_suffix("")
    sums = _sums(source.fetch(folder, listed)[0], root.name)
    root = root if unpacked(root) else source.fetch(folder, archive)[0]

    def check(name: str, content: bytes) -> None:
        expected, found = sums.get(Path(name).name), hashlib.md5(content).hexdigest()
        if found != expected:
            raise InputError(f"{root / name} has MD5 {found}, but {listed.name} says {expected}: download it again")

    return of_files(root, f"ffhq: {root}", lambda name: Path(name).stem >= "60000", check=check)


def _sums(path: Path, folder: str) -> dict[str, str]:
    """MD5 of every image below a folder, by its name, from the list of 268 MB, which is never whole in memory."""
    sums = {}
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for entry in re.finditer(rb'\{[^{}]*"file_path"[^{}]*\}', content):
                found = json.loads(entry[0])
                if found["file_path"].startswith(f"{folder}/"):
                    sums[Path(found["file_path"]).name] = found["file_md5"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path}: {error}; remove it to download it again") from error
    return sums


ffhq = Source(
    open=_open,
    page="https://github.com/NVlabs/ffhq-dataset",
    licence="CC BY-NC-SA 4.0; each photograph its own",
    images=70_000,
    files=(
        File(
            "ffhq/ffhq-dataset-v2.json",
            267_793_842,
            "425ae20f06a4da1d4dc0f46d40ba5fd6",
            drive("16N0RV4fHI6joBuKbQAoG34V_cQk7vxSA"),
        ),
        # No checksums of the archives are published; each image is checked against the list.
        File("ffhq/thumbnails128x128.zip", 1.95e9, None, drive("1Wrr6qZA1Tr6r9edNL2nSxnwopMW1n6pR")),
        File("ffhq/images1024x1024.zip", 89.1e9, None, drive("1WvlAIvuochQn_L_f9p3OdFdTiSLlnnhv")),
    ),
)
