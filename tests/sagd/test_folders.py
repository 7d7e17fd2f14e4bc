"""Folders of images are read as a photographer's disk is: once, whole, upright; what is left out is told."""

import io
import os
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from sagd import InputError
from sagd.data import find
from sagd.data.load import load, read
from sagd.data.pictures import of_files
from sagd.data.prepare import prepare
from sagd.images import Files, Images, decode, endings, listing, walk
from sagd.metrics.features import Extractor, features

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 8, 3), dtype=np.uint8)


def put(path, pixels=PIXELS, **how):
    """Write an image, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def root(tmp_path):
    """A folder of two images."""
    for name in ("1.png", "2.png"):
        put(tmp_path / "set" / name)
    return tmp_path / "set"


def told(root, capsys):
    """What is said of a folder, without its name."""
    capsys.readouterr()
    Images(root)
    return capsys.readouterr().err.removeprefix(f"{root}: ").removesuffix("\n")


def test_links_to_folders_and_files_are_followed(root, tmp_path, capsys):
    put(tmp_path / "disk" / "cats" / "3.png")
    put(tmp_path / "disk" / "4.png")
    (root / "cats").symlink_to(tmp_path / "disk" / "cats")
    (root / "4.png").symlink_to(tmp_path / "disk" / "4.png")
    assert Files(root).names == ["1.png", "2.png", "4.png", "cats/3.png"]
    assert told(root, capsys) == "4 images"


def test_a_link_to_the_root_is_followed(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert Files(tmp_path / "link").names == ["1.png", "2.png"]


@pytest.mark.parametrize("target", ["set", "set/sub", ".", "/"])
def test_a_link_to_a_folder_above_it_is_not_followed(root, tmp_path, capsys, target):
    """Not even if that is above the whole set: its other folders were not asked for."""
    put(tmp_path / "other" / "9.png")
    put(root / "sub" / "3.png")
    (root / "sub" / "loop").symlink_to(tmp_path / target)
    assert told(root, capsys) == "3 images; left out: 1 link back to a folder above it (sub/loop)"


def test_a_loop_of_two_links_ends(root, tmp_path, capsys):
    put(tmp_path / "disk" / "3.png")
    (root / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(root)
    assert told(root, capsys) == "3 images; left out: 1 link back to a folder above it (disk/back)"


def test_a_folder_with_several_names_is_read_once(root, tmp_path, capsys):
    """Under the name without links, or else under the first."""
    put(root / "z" / "3.png")
    (root / "a").symlink_to(root / "z")
    put(tmp_path / "disk" / "sub" / "4.png")
    (root / "c").symlink_to(tmp_path / "disk" / "sub")
    (root / "b").symlink_to(tmp_path / "disk")
    assert Files(root).names == ["1.png", "2.png", "b/sub/4.png", "z/3.png"]
    assert told(root, capsys) == "4 images; left out: 2 folders that are read under another name (such as a)"


def test_a_file_with_several_names_is_an_image_under_each(root):
    """As a copy would be: stores of data link equal files to one."""
    (root / "3.png").symlink_to("1.png")
    os.link(root / "1.png", root / "4.png")
    assert Files(root).names == ["1.png", "2.png", "3.png", "4.png"]


def test_what_leads_nowhere_or_is_no_file_is_told(root, capsys):
    (root / "a.png").symlink_to("gone.png")
    (root / "folder").symlink_to("gone")
    (root / "b.png").symlink_to("b.png")  # to itself
    os.mkfifo(root / "c.png")
    put(root / "d.png" / "3.png")  # a folder
    assert told(root, capsys) == (
        "3 images; left out: 1 pipe or device (c.png), 2 links to nowhere (such as a.png), "
        "1 that cannot be read (b.png: Too many levels of symbolic links)"
    )


def test_a_folder_that_cannot_be_read_is_told(root, capsys, monkeypatch):
    put(root / "raw" / "3.png")
    put(root / "sub" / "4.png")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("raw"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert told(root, capsys) == "3 images; left out: 1 that cannot be read (raw: Permission denied)"
    (root / "sub" / "4.png").unlink()
    (root / "1.png").unlink()
    (root / "2.png").unlink()
    with pytest.raises(InputError, match=r"holds no images; .* left out: 1 that cannot be read \(raw: Permission den"):
        Files(root)
    monkeypatch.setattr(os, "scandir", lambda path: guarded("raw"))
    with pytest.raises(InputError, match=r"Permission denied"):
        Files(root)


HIDDEN = [
    ".ipynb_checkpoints",
    ".thumbnails",
    "__MACOSX",
    ".git",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
]


def test_hidden_and_housekeeping_folders_are_neither_images_nor_classes(root, tmp_path, capsys):
    for name in ("1.png", "2.png"):
        (root / name).rename(root / name.replace(".png", ".bak"))
    for name in ("cat/1.png", "dog/2.png", "dog/.3.png", *(f"{hidden}/9.png" for hidden in HIDDEN)):
        put(root / name)
    (root / "Thumbs.db").write_bytes(b"")
    pack(root, tmp_path / "set.zip")
    for source in (root, tmp_path / "set.zip"):
        capsys.readouterr()
        pictures = of_files(source, "set")
        assert pictures.names == ["cat/1.png", "dog/2.png"]
        assert list(pictures.labels()) == [0, 1]
        assert "2 images; left out: 9 hidden (such as $RECYCLE.BIN), 2 of no" in capsys.readouterr().err


def test_a_hidden_root_is_read(tmp_path):
    put(tmp_path / ".cache" / "sub" / "1.png")
    assert Files(tmp_path / ".cache").names == ["sub/1.png"]


def test_linked_folders_are_classes(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        put(tmp_path / "disk" / name)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "disk" / "a")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "disk" / "b")
    pictures = of_files(tmp_path / "set", "set")
    assert pictures.names == ["cat/2.png", "dog/1.png"] and list(pictures.classes) == ["cat", "dog"]


def pack(root, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))


def test_links_in_a_zip_file_are_told_and_a_name_counts_once(root, tmp_path, capsys):
    pack(root, tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        link = zipfile.ZipInfo("3.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "1.png")
        archive.write(root / "1.png", "1.png")
        archive.write(root / "1.png", "./a/4.png")
    says = "3 images; left out: 1 link in a zip file (3.png), "
    says += "1 that a later file of the same name replaces (1.png)"
    assert told(tmp_path / "set.zip", capsys) == says


def test_names_are_as_the_disk_has_them(root):
    """In upper case, alike but for their case, no text, long, with a point at the end."""
    odd = ["A.PNG", "a.png", "a.Png", "B.JPG", os.fsdecode(b"\xff.png"), "x" * 251 + ".png", "é ü.png", "a.b.c.png"]
    for name in odd:
        put(root / name, format="PNG")
    for name in ("png", "no_ending", "c.png.", "d.png~", "e.png.txt"):
        put(root / name, format="PNG")
    assert Files(root).names == sorted(["1.png", "2.png", *odd])
    assert len(Images(root).sha256()) == 64


PILLOWS = ["avif", "bmp", "dds", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "mpo", "pbm", "pcx", "pgm", "pnm", "ppm"]
PILLOWS += ["sgi", "tga", "tif", "webp", "JPEG"]


def test_what_pillow_decodes_is_read(root):
    """Of these formats, all that it has here."""
    Image.init()
    here = [e for e in PILLOWS if Image.registered_extensions().get(f".{e.lower()}") in Image.SAVE]
    assert len(here) >= len(PILLOWS) - 4  # AVIF, WebP and JPEG 2000 are options of Pillow
    for ending in here:
        put(root / f"a.{ending}")
    files = Files(root)
    assert files.names == sorted(["1.png", "2.png", *(f"a.{ending}" for ending in here)])
    assert {files.picture(name).size for name in files.names} == {(8, 4)}


def test_no_other_program_and_no_film_is_needed():
    """EPS needs Ghostscript; of the others Pillow knows the beginning only."""
    assert endings().isdisjoint(
        {".eps", ".ps", ".pdf", ".mpg", ".mpeg", ".wmf", ".emf", ".h5", ".hdf", ".grib", ".bufr"}
    )
    assert endings().isdisjoint({".fits", ".fit", ".iim", ".txt", ""})
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "EPS")
    with pytest.raises(InputError, match=r"a\.png is not a whole image: it is in no format that is known"):
        decode(content.getvalue(), "a.png")


def later(content, orientation):
    """A PNG file whose EXIF data stand behind its pixels."""
    exif = turned(orientation).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return content[:-12] + chunk + content[-12:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "late PNG", "TIFF", "WEBP", "JPEG", "MPO", "AVIF"])
def test_images_are_upright(kind, orientation):
    """As Pillow's own function makes them; the size is known from the head."""
    content = io.BytesIO()
    exif = {} if kind == "late PNG" else {"exif": turned(orientation)}
    Image.fromarray(PIXELS).save(content, kind.split()[-1], **exif, **({"lossless": True} if kind == "WEBP" else {}))
    whole = later(content.getvalue(), orientation) if kind == "late PNG" else content.getvalue()
    plain = np.asarray(Image.fromarray(PIXELS))
    if kind in ("JPEG", "MPO", "AVIF"):  # which lose something
        upright = Image.open(io.BytesIO(whole))
        plain = np.asarray(upright)
    turns = {
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2),
        6: np.rot90(plain, -1), 7: np.rot90(plain, 2).transpose(1, 0, 2), 8: np.rot90(plain),
    }  # fmt: skip
    found = decode(whole, "a")
    np.testing.assert_array_equal(np.asarray(found), turns[orientation])
    assert decode(whole, "a", whole=False).size == found.size


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_says_nothing_changes_nothing(value):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "PNG", exif=turned(value))
    np.testing.assert_array_equal(np.asarray(decode(content.getvalue(), "a")), PIXELS)


def test_broken_exif_data_do_not_make_a_picture_broken():
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "PNG", exif=b"Exif\0\0no tables")
    np.testing.assert_array_equal(np.asarray(decode(content.getvalue(), "a")), PIXELS)


@pytest.fixture
def cameras(tmp_path):
    """The same pictures upright, and as a camera writes them; in a zip file, too."""
    for k in range(4):
        pixels = RNG.integers(0, 256, (4, 8, 3), dtype=np.uint8)
        put(tmp_path / "upright" / f"{k}.png", pixels)
        put(tmp_path / "held" / f"{k}.png", np.ascontiguousarray(np.rot90(pixels)), exif=turned(6))
    pack(tmp_path / "held", tmp_path / "held.zip")
    return tmp_path


def test_every_reader_gives_the_upright_picture(cameras):
    upright = cameras / "upright"
    for held in (cameras / "held", cameras / "held.zip"):
        np.testing.assert_array_equal(Images(held)[:4], Images(upright)[:4])
        np.testing.assert_array_equal(load(str(held), 4)[:4], load(str(upright), 4)[:4])
        np.testing.assert_array_equal(read("folder", str(held), 4), read("folder", str(upright), 4))
        Images(held).sha256()  # whose heads have the upright sizes
        for source, out in ((upright, "a"), (held, "b")):
            prepare(of_files(source, "four"), np.arange(4) >= 2, 4, 3, cameras / out)
        assert (cameras / "a" / "train.npy").read_bytes() == (cameras / "b" / "train.npy").read_bytes()


def test_an_image_that_lies_among_upright_ones_is_refused_by_its_head(root):
    """If all have one size, then upright."""
    put(root / "3.png", exif=turned(6))
    with pytest.raises(InputError, match=r"3\.png is 4x8, 1\.png is 8x4"):
        Images(root).sha256()


def animation(path, **how):
    frames = [Image.fromarray(RNG.integers(0, 256, (4, 8, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **how)
    return np.asarray(frames[0])


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff", "mpo"])
def test_of_an_animation_the_first_frame_is_read_and_it_is_told(root, tmp_path, capsys, ending):
    how = {"lossless": True} if ending == "webp" else {}
    first = animation(root / f"3.{ending}", **how)
    says = f"3.{ending} has several frames or pages, of which the first is read\n"
    found = read("folder", str(root), 4)[2]
    assert capsys.readouterr().err.count(says) == 1
    if ending not in ("gif", "mpo"):
        np.testing.assert_array_equal(found, first[:, 2:6].transpose(2, 0, 1))
    load(str(root), 4)[:3]
    assert capsys.readouterr().err.count(says) == 1
    prepare(of_files(root, "set"), np.array([True, False, False]), 4, 3, tmp_path / "out")
    assert capsys.readouterr().err.count(says) == 1
    if ending == "gif":  # a palette, which `Images` refuses
        return
    images = Images(root)
    images.sha256()
    images[:3]
    assert capsys.readouterr().err.count(says) == 1


def test_a_turned_animation_is_told(root, capsys):
    animation(root / "3.webp", exif=turned(3))
    animation(root / "4.webp", exif=turned(3))
    read("folder", str(root), 4)
    assert (
        "2 images have several frames or pages, of which the first is read, such as 3.webp\n" in capsys.readouterr().err
    )


def test_a_broken_second_frame_does_not_spoil_the_first(root):
    animation(root / "3.gif")
    whole = (root / "3.gif").read_bytes()
    expected = np.asarray(Files(root).picture("3.gif"))
    (root / "3.gif").write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(np.asarray(Files(root).picture("3.gif")), expected)
    read("folder", str(root), 4)


def test_transparency_is_told_by_images_too(root, capsys):
    """An RGB image with one transparent colour passes as RGB."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    put(root / "3.png", pixels, transparency=(0, 0, 0))
    Images(root)[:3]
    assert "3.png (RGB) has transparency, which is dropped" in capsys.readouterr().err


def test_a_file_that_goes_between_listing_and_reading_is_named(root, tmp_path):
    files, images, pictures = Files(root), Images(root), of_files(root, "set")
    (root / "2.png").unlink()
    for use in (
        lambda: files.read("2.png"),
        lambda: images[:2],
        lambda: images.sha256(),
        lambda: prepare(pictures, np.array([True, False]), 4, 3, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match=r"^cannot read .*2\.png: .*No such file"):
            use()


def test_the_listing_is_that_of_the_files(root, tmp_path):
    put(tmp_path / "disk" / "3.png")
    (root / "b").symlink_to(tmp_path / "disk")
    (root / "a-b").mkdir()
    (root / "loop").symlink_to(root)
    for name in ("a-b/x.jpg", "notes.txt", ".hidden.png", "gone.png"):
        (root / name).write_bytes(b"four")
    (root / "gone.png").unlink()
    (root / "gone.png").symlink_to("nowhere")
    found = listing(root)
    assert [name for name, *_ in found] == Files(root).names == ["1.png", "2.png", "a-b/x.jpg", "b/3.png"]
    os.utime(root / "a-b" / "x.jpg", ns=(1, 500_000_000_000_000_007))
    assert ("a-b/x.jpg", 4, 500_000_000_000_000_007) in listing(root)
    assert ("b/3.png", (tmp_path / "disk" / "3.png").stat().st_size) in [entry[:2] for entry in found]
    pack(root / "a-b", tmp_path / "set.zip")
    packed = (tmp_path / "set.zip").stat()
    assert listing(tmp_path / "set.zip") == [("set.zip", packed.st_size, packed.st_mtime_ns)]
    with pytest.raises(InputError, match=r"cannot read .*nowhere: .*No such file"):
        listing(tmp_path / "nowhere")


def test_a_walk_opens_no_file_and_holds_no_folder(root, monkeypatch):
    """It needs one call to the system for each folder, however many files are in it, and ends where it is left."""
    for k in range(50):
        (root / f"{k}.txt").touch()
    asked = []
    told_of = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: asked.append(path) or told_of(path, **how))
    monkeypatch.setattr("builtins.open", None)
    assert len(list(walk(root))) == 52
    assert len(asked) == 1
    next(walk(root))


def test_features_of_other_code_are_not_taken_up(root, tmp_path, monkeypatch):
    """The cache's key has the code that decodes: pixels that were not turned are not taken for those that are."""
    from sagd.metrics import features as module

    calls = []

    def network(pixels):
        calls.append(len(pixels))
        return pixels.float().mean((2, 3))

    of = Extractor("mean", "none", lambda device, weights: (lambda x: x, network))
    places = {"cache": tmp_path / "cache", "weights": tmp_path}
    for _ in range(2):
        features(Images(root), of, **places)
    assert sum(calls) == 2
    code = module.sources
    monkeypatch.setattr(module, "sources", lambda *rooms: code(*rooms) + "edited")
    features(Images(root), of, **places)
    assert sum(calls) == 4


def test_what_other_code_prepared_is_not_taken_up(root, tmp_path, monkeypatch):
    from sagd.data import prepare as module

    put(root / "3.png")
    (root / "4.png").write_bytes(b"broken")
    opened = []

    def pictures():
        found = of_files(root, "set")
        at = found.at
        found.at = lambda k: opened.append(k) or at(k)
        return found

    held_out = np.array([True, False, False, False])
    code = module.sources
    for edited, count in (("", 4), ("", 1), ("edited", 4)):
        opened.clear()
        monkeypatch.setattr(module, "sources", lambda *rooms, more=edited: code(*rooms) + more)
        with pytest.raises(InputError, match=r"4\.png is not a whole image"):
            prepare(pictures(), held_out, 4, 3, tmp_path / "out")
        assert len(opened) == count


def test_imagenet_may_lie_on_another_disk(tmp_path):
    """Its parts are links, and each has classes."""
    for name in ("train/n01/a.JPEG", "val/n01/b.JPEG", "train/n02/c.JPEG"):
        put(tmp_path / "disk" / name)
    (tmp_path / "imagenet").mkdir()
    for part in ("train", "val"):
        (tmp_path / "imagenet" / part).symlink_to(tmp_path / "disk" / part)
    pictures = find("imagenet", str(tmp_path), 4)
    assert list(pictures.held_out) == [False, False, True] and list(pictures.labels()) == [0, 1, 0]
