"""Sets of images are the same wherever they come from, and what is wrong with one is said in a line."""

import io
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from sagd import InputError
from sagd.data.load import load
from sagd.images import Images, _is_deep, decode
from sagd.metrics.frechet import Moments

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set" / "sub").mkdir(parents=True)
    for k, image in enumerate(PIXELS):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "set" / ("sub" if k % 2 else ".") / f"{k}.png")
    return tmp_path / "set"


def everything(source):
    images = Images(source)
    return np.concatenate([images[k : k + 2] for k in range(0, len(images), 2)])


def test_all_sources_give_the_same_images(folder, tmp_path):
    expected = everything(folder)
    assert sorted(i.tobytes() for i in expected) == sorted(i.tobytes() for i in PIXELS)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    np.save(tmp_path / "chw.npy", PIXELS)
    np.save(tmp_path / "hwc.npy", PIXELS.transpose(0, 2, 3, 1))
    np.save(tmp_path / "unit.npy", PIXELS / np.float32(255))
    np.savez(tmp_path / "adm.npz", arr_0=PIXELS.transpose(0, 2, 3, 1), mu=np.zeros(2), sigma=np.eye(2))
    np.savez_compressed(tmp_path / "two.npz", a=PIXELS, b=PIXELS[:3])
    np.testing.assert_array_equal(everything(tmp_path / "set.zip"), expected)
    for name in ("chw.npy", "hwc.npy", "unit.npy", "adm.npz", "two.npz:a"):
        np.testing.assert_array_equal(everything(f"{tmp_path}/{name}"), PIXELS, err_msg=name)
    np.testing.assert_array_equal(everything(PIXELS), PIXELS)
    np.testing.assert_array_equal(everything(PIXELS[:, 0]), PIXELS[:, :1])


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_the_ending_of_an_array_counts_at_the_end_alone_and_in_any_case(folder, tmp_path, kind):
    expected, place = everything(folder), tmp_path / f"a.{kind}_dir" / f"b.{kind}:c"
    place.mkdir(parents=True)
    with zipfile.ZipFile(place / f"x.{kind}.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    np.testing.assert_array_equal(everything(place / f"x.{kind}.zip"), expected)
    folder.rename(place / f"set.{kind}")
    np.testing.assert_array_equal(everything(place / f"set.{kind}"), expected)
    assert Moments.read(place / f"set.{kind}") is None
    with open(place / f"U.{kind.upper()}", "wb") as file:
        np.save(file, PIXELS) if kind == "npy" else np.savez(file, a=PIXELS, b=PIXELS[:3])
    name = f"{place}/U.{kind.upper()}{':a' if kind == 'npz' else ''}"
    np.testing.assert_array_equal(everything(name), PIXELS)
    assert len(load(name, None)) == 5
    with pytest.raises(InputError, match="is an array of 8x6 images; only pictures can be resized"):
        load(name, 4)


@pytest.mark.parametrize("kind", ["bmp", "jp2", "ppm", "rgb", "avif"])
def test_8_bits_are_no_more(kind):
    content = saved(RGB, {"jp2": "JPEG2000", "rgb": "SGI"}.get(kind, kind))
    assert decode(content, kind).mode == "RGB"
    if kind == "avif":  # of 10 bits: the flag of its configuration
        assert not _is_deep(picture := Image.open(io.BytesIO(content)), [], content)
        at = content.find(b"av1C") + 6
        assert _is_deep(picture, [], content[:at] + bytes([content[at] | 64]) + content[at + 1 :])


def test_a_bitmap_of_16_bits_a_pixel_is_read():
    head = struct.pack("<IiiHHIIiiII3I", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
    assert decode(b"BM" + struct.pack("<IHHI", 98, 0, 0, 66) + head + bytes(32), "x").mode == "RGB"


def test_grey_images_among_coloured_ones_are_grey(folder):
    Image.fromarray(PIXELS[0, 0]).save(folder / "grey.png")
    grey = everything(folder)[3]  # by name: 0, 2, 4, grey, sub/1, sub/3
    np.testing.assert_array_equal(grey, np.repeat(PIXELS[0, :1], 3, 0))


def test_the_sum_tells_contents_apart(folder, tmp_path):
    first = Images(folder).sha256()
    assert first == Images(folder).sha256()
    Image.fromarray(PIXELS[0, 0]).save(folder / "0.png")
    assert Images(folder).sha256() != first
    assert Images(PIXELS).sha256() != Images(PIXELS[:, :, ::-1]).sha256()
    assert Images(PIXELS).sha256() != Images(PIXELS.reshape(5, 3, 6, 8)).sha256()


def png_of_48_bits():
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head, rows = struct.pack(">IIBBBBB", 6, 8, 16, 2, 0, 0, 0), (b"\0" + b"\x12\x34" * 18) * 8
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image, kind):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


RGB = Image.new("RGB", (6, 8))
# Of more than 8 bits: a bit in the head of a whole file is turned where Pillow writes no such file in colour.
DEEP = {
    "ppm": b"P6 6 8 65535\n" + bytes(6 * 8 * 6),
    "ppm as text": b"P3 6 8 1023\n" + b"0 " * (6 * 8 * 3),
    "rgb": struct.pack(">hBBHHHH", 474, 0, 2, 3, 6, 8, 3) + bytes(500 + 6 * 8 * 6),
    "jp2": saved(RGB, "JPEG2000").replace(b"\x00\x03\x07\x01\x01", b"\x00\x03\x09\x01\x01"),
}


def spoiled(folder, tmp_path, how):
    """A set with one thing wrong with it, and what the message must say."""
    file = folder / "4.png"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:60])
        return folder, r"4\.png is not a whole image.*remove or replace it"
    if how == "no image":
        file.write_bytes(b"<html>quota exceeded</html>")
        return folder, r"4\.png is not a whole image"
    if how == "size":
        Image.new("RGB", (9, 9)).save(file)
        return folder, r"4\.png is 9x9, 0\.png is 6x8: bring all images to one size first, or .*--size"
    if how == "16 bits":
        Image.fromarray(np.zeros((8, 6), np.uint16)).save(file)
        return folder, r"4\.png has more than 8 bits a channel.*convert it to 8 bits"
    if how == "16 bits in colour":  # which PIL would cut to 8 without a word
        file.write_bytes(png_of_48_bits())
        return folder, r"4\.png has more than 8 bits a channel"
    if how in DEEP:  # neither the mode nor the tile says so
        (folder / f"5.{how.split()[0]}").write_bytes(DEEP[how])
        return folder, rf"5\.{how.split()[0]} has more than 8 bits a channel"
    if how == "cut head":
        file.write_bytes(file.read_bytes()[:20])
        return folder, r"4\.png is not a whole image"
    if how == "archive named npy":
        np.savez(tmp_path / "set.npz", PIXELS)
        return (tmp_path / "set.npz").rename(tmp_path / "set.npy"), r"cannot read .*set\.npy: it is an npz archive"
    if how == "palette":
        Image.new("P", (6, 8)).save(file)
        return folder, r"4\.png has mode P .*convert it to RGB or grey"
    if how == "transparency":
        Image.new("RGBA", (6, 8)).save(file)
        return folder, r"4\.png has mode RGBA .*convert it to RGB or grey"
    if how == "empty folder":
        (tmp_path / "empty").mkdir()
        return tmp_path / "empty", "holds no images; looked for .png"
    if how == "no folder":
        return tmp_path / "nowhere", "neither a folder nor a whole zip file"
    if how == "one image":
        for k in range(4):
            next(folder.rglob(f"{k}.png")).unlink()
        return folder, "two images or more are needed; it holds 1"
    if how == "broken zip":
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.write(file, "4.png")
        (tmp_path / "set.zip").write_bytes(content.getvalue()[:-30])
        return tmp_path / "set.zip", "neither a folder nor a whole zip file"
    if how == "encrypted":
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.write(file, "4.png")
        marked = bytearray(content.getvalue())
        for start in (6, marked.find(b"PK\x01\x02") + 8):  # the flags, in front of the file and in the list
            marked[start] |= 1
        (tmp_path / "set.zip").write_bytes(marked)
        return tmp_path / "set.zip", r"cannot read .*4\.png: 4\.png is encrypted: unpack the zip file$"
    if how in ("packed by lzma", "a member of another size"):
        content, packed = io.BytesIO(), zipfile.ZIP_LZMA if "lzma" in how else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(content, "w", packed) as archive:
            archive.write(file, "4.png")
            archive.writestr("5.png", bytes(5_000_000))
        size, other = struct.pack("<I", 5_000_000), struct.pack("<I", 50)
        wrong = content.getvalue() if "lzma" in how else content.getvalue().replace(size, other)
        (tmp_path / "set.zip").write_bytes(wrong)
        says = r"4\.png is packed by method 14; .*: unpack the zip file$" if "lzma" in how else r"5\.png: Bad CRC-32"
        return tmp_path / "set.zip", says
    arrays = {
        "range": (PIXELS / 127.5 - 1, r"float64 from -1 to .*floats must be in \[0, 1\], or give uint8"),
        "nan": (
            np.where(np.arange(5)[:, None, None, None] == 3, np.nan, PIXELS / 255),
            r"image 3 \(from 0\) has .*NaN",
        ),
        "infinite": (np.full((5, 3, 8, 8), -np.inf), r"image 0 \(from 0\) has pixels that are not finite"),
        "integers": (PIXELS.astype(np.int64), "is int64; images must be uint8"),
        "shape": (PIXELS.reshape(5, -1), r"has shape \(5, 144\); images are \(N, H, W\)"),
        "ambiguous": (np.zeros((5, 3, 8, 3), np.uint8), r"has shape \(5, 3, 8, 3\)"),
    }
    array, says = arrays[how]
    np.save(tmp_path / "spoiled.npy", array)
    return tmp_path / "spoiled.npy", f"spoiled.npy.* {says}" if how != "shape" else says


CASES = ["truncated", "cut head", "no image", "size", "16 bits", "16 bits in colour", "palette", "transparency"]
CASES += [
    "empty folder",
    "no folder",
    "one image",
    "broken zip",
    "encrypted",
    "packed by lzma",
    "a member of another size",
]
CASES += [*DEEP, "archive named npy", "range", "nan", "infinite", "integers", "shape", "ambiguous"]


@pytest.mark.parametrize("how", CASES)
def test_bad_input_is_told_in_one_line(folder, tmp_path, how):
    source, says = spoiled(folder, tmp_path, how)
    with pytest.raises(InputError, match=says) as error:
        everything(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["size", "palette", "16 bits", "16 bits in colour", "no image", *DEEP])
def test_what_heads_tell_is_told_before_the_first_is_measured(folder, tmp_path, how):
    source, says = spoiled(folder, tmp_path, how)
    with pytest.raises(InputError, match=says):
        Images(source).sha256()


def test_what_is_left_out_is_told_once(folder, capsys, monkeypatch):
    (folder / "notes.txt").write_text("no image")
    (folder / "._1.png").write_bytes(b"a Mac's second file")
    assert len(Images(folder)) == 5
    told = f"{folder}: 5 images; left out: 1 hidden (._1.png), 1 of no format that is read (notes.txt)\n"
    assert capsys.readouterr().err == told
    monkeypatch.setenv("RANK", "1")  # the first process has told it
    Images(folder)
    assert capsys.readouterr().err == ""


def test_a_missing_pillow_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"PIL.*; in the clone of sagd: pip install '\.\[data\]'$"):
        Images(folder)


def test_an_archive_of_several_arrays_asks_which(tmp_path):
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    for source in ("two.npz", "two.npz:c"):
        with pytest.raises(InputError, match=r"holds a, b; name one array of images: .*two\.npz:NAME"):
            Images(f"{tmp_path}/{source}")
