"""WikiArt, of ArtGAN."""

from pathlib import Path

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import File, Source, drive, root_of, unpacked


def _open(source: Source, path: str | None, size: int) -> Pictures:
    """STYLE/ARTIST_TITLE.jpg, packed or not."""
    folder = root_of(path)
    root = folder / "wikiart" / "wikiart"
    root = root if unpacked(root) else source.fetch(folder, *source.files)[0]
    return of_files(root, f"wikiart: {root}", only=lambda name: "/".join(Path(name).parts[-2:]) not in source.bad)


wikiart = Source(
    open=_open,
    page="https://github.com/cs-chan/ArtGAN",
    licence="non-commercial research",
    images=81_444,
    files=(File("wikiart/wikiart.zip", 25.4e9, None, drive("1vTChp3nU5GQeLkPwotrybpUGUXj12BTK")),),
    # cs-chan/ArtGAN, issues 4 and 14: broken in the archive itself
    bad=(
        "Baroque/rembrandt_woman-standing-with-raised-hands.jpg",
        "Post_Impressionism/vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890.jpg",
    ),
)
