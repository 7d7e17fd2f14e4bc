"""QuickDraw, the sketches of DomainNet."""

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import File, Source, read_bytes, root_of, unpacked
from sagd.errors import InputError


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """DomainNet's quickdraw/CLASS/NUMBER.png, packed or not, and its two lists, which name every image once."""
    folder = root_of(path)
    archive, *texts = source.files
    lists = source.fetch(folder, *texts)
    train, test = (
        {line.split()[0] for line in read_bytes(listed).decode().splitlines() if line.strip()} for listed in lists
    )
    root = folder / "domainnet" / "quickdraw"
    root, top = (root, "quickdraw/") if unpacked(root) else (source.fetch(folder, archive)[0], "")
    listed = train | test
    pictures = of_files(root, f"quickdraw: {root}", lambda n: top + n in test, lambda n: top + n in listed)
    missing = listed.difference(top + name for name in pictures.names)
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} of the files that {lists[0].name} and {lists[1].name} name, such as "
            f"{min(missing)}: unpack or download it again"
        )
    return pictures


_DOMAINNET = "http://csr.bu.edu/ftp/visda/2019/multi-source/"

quickdraw = Source(
    open=_open,
    page="https://ai.bu.edu/M3SDA",
    licence="DomainNet for research; its sketches are Quick, Draw!'s, CC BY 4.0",
    images=172_500,  # 120,750 to train on, 51,750 to test
    files=(
        File(
            "domainnet/quickdraw.zip",
            0.46e9,
            "bdc1b6f09f277da1a263389efe0c7a66",
            (f"{_DOMAINNET}quickdraw.zip",),
        ),
        File(
            "domainnet/quickdraw_train.txt",
            6e6,
            "b732ced3939ac8efdd8c0a889dca56cc",
            (f"{_DOMAINNET}domainnet/txt/quickdraw_train.txt",),
        ),
        File(
            "domainnet/quickdraw_test.txt",
            3e6,
            "c1a828fdfe216fb109f1c0083a252c6f",
            (f"{_DOMAINNET}domainnet/txt/quickdraw_test.txt",),
        ),
    ),
)
