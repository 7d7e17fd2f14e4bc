"""Preparing a data set: the same arrays as in memory, whatever happens on the way."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from sagd import InputError
from sagd.data import prepare as module
from sagd.data.load import load, read
from sagd.data.pictures import Pictures, of_files
from sagd.data.prepare import BLOCK, prepare, split, square
from sagd.runtime.files import scratch

RNG = np.random.default_rng(0)
COUNT = 2 * BLOCK + 300
IMAGES = RNG.integers(0, 256, (COUNT, 9, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))


class Counted:
    """Pictures that count how often each is opened, and fail where they are told to."""

    def __init__(self, fails=None):
        self.opened, self.fails = [], fails or {}

    def pictures(self):
        return Pictures([str(k) for k in range(COUNT)], self.at, "noise")

    def at(self, k):
        self.opened.append(k)
        if k in self.fails:
            raise self.fails[k]
        return IMAGES[k].tobytes(), Image.fromarray(IMAGES[k])


HELD_OUT = split(COUNT, 700, 0)
EXPECTED = np.stack([square(Image.fromarray(i), 3, 6) for i in IMAGES])


def assert_whole(folder):
    np.testing.assert_array_equal(np.load(folder / "train.npy"), EXPECTED[~HELD_OUT])
    np.testing.assert_array_equal(np.load(folder / "held_out.npy"), EXPECTED[HELD_OUT])
    assert list((scratch() / "prepare").glob("*/*")) == []


def test_every_picture_is_in_its_row(tmp_path):
    digest = prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    assert_whole(tmp_path / "out")
    each = b"".join(hashlib.sha256(i.tobytes()).digest() for i in IMAGES)
    assert digest == hashlib.sha256(each).hexdigest()


def test_a_killed_process_goes_on_at_its_block(tmp_path):
    first = Counted({BLOCK + 5: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        prepare(first.pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    second = Counted()
    digest = prepare(second.pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    assert min(second.opened) == BLOCK
    assert_whole(tmp_path / "out")
    assert digest == prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "again")


def test_all_bad_pictures_are_named_and_what_is_mended_is_read_again(tmp_path):
    bad = [3, 5, 1500, 2100]
    with pytest.raises(InputError, match=r"^3 is bad; 5 is bad; 1500 is bad; and 1 more, all in .*/bad\.txt$"):
        prepare(Counted({k: InputError(f"{k} is bad") for k in bad}).pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    mended = Counted()
    prepare(mended.pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    assert sorted(mended.opened) == bad
    assert_whole(tmp_path / "out")


def test_another_question_begins_anew(tmp_path):
    """What an interrupted process left is not taken for another size, split or list of pictures."""
    with pytest.raises(KeyboardInterrupt):
        prepare(Counted({2000: KeyboardInterrupt()}).pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    other = Counted()
    prepare(other.pictures(), HELD_OUT, 5, 3, tmp_path / "out")
    assert sorted(other.opened) == list(range(COUNT))
    assert np.load(tmp_path / "out" / "train.npy").shape == (COUNT - 700, 3, 5, 5)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"367 kB needed, 1 kB free"):
        prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "out")


def test_files_are_read_from_several_threads(tmp_path):
    """A zip file, too, whose reader all of them share."""
    import zipfile

    for k in range(300):
        Image.fromarray(IMAGES[k]).save(tmp_path / f"{k:03d}.png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(tmp_path.glob("*.png")):
            archive.write(file, file.name)
    held_out = np.arange(300) >= 200
    for root in (tmp_path / "set.zip", tmp_path):
        prepare(of_files(root, "files"), held_out, 6, 3, tmp_path / "out")
        np.testing.assert_array_equal(np.load(tmp_path / "out" / "train.npy"), EXPECTED[:200])


def test_what_was_replaced_meanwhile_is_read_again(tmp_path):
    """Names alone do not tell images apart: neither a file that was mended nor those of another folder."""
    for k in range(6):
        Image.fromarray(IMAGES[k]).save(tmp_path / f"{k}.png")
    (tmp_path / "5.png").write_bytes(b"no image")
    held_out = np.arange(6) >= 4
    with pytest.raises(InputError, match=r"5\.png is not a whole image"):
        prepare(of_files(tmp_path, "files"), held_out, 6, 3, tmp_path / "out")
    for k in (2, 5):
        Image.fromarray(IMAGES[k + 10]).save(tmp_path / f"{k}.png")
    prepare(of_files(tmp_path, "files"), held_out, 6, 3, tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "train.npy"), EXPECTED[[0, 1, 12, 3]])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "held_out.npy"), EXPECTED[[4, 15]])


def test_a_kill_between_the_two_files_costs_no_more_than_a_run(tmp_path, monkeypatch):
    move, moved = module._move, []

    def once(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(source)
        move(source, target)

    monkeypatch.setattr(module, "_move", once)
    with pytest.raises(KeyboardInterrupt):
        prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    monkeypatch.setattr(module, "_move", move)
    prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_a_scratch_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGD_SCRATCH", "/proc/x")
    with pytest.raises(InputError, match="cannot write /proc/x/prepare/"):
        prepare(Counted().pictures(), HELD_OUT, 6, 3, tmp_path / "out")


def test_dropped_transparency_is_told_once(tmp_path, capsys):
    """An image whose alpha is 255 everywhere loses nothing, and is not counted."""
    (tmp_path / "set").mkdir()
    for k in range(6):
        picture = Image.fromarray(IMAGES[k]).convert("RGBA")
        if k in (2, 3):
            picture.putpixel((0, 0), (1, 2, 3, 100))
        picture.save(tmp_path / "set" / f"{k}.png")
    line = "{}: {} images have transparency, which is dropped, such as 2.png (RGBA)"
    prepare(of_files(tmp_path / "set", "six"), np.arange(6) >= 4, 6, 3, tmp_path / "out")
    assert capsys.readouterr().err.count(line.format("six", 2)) == 1
    whole = read("folder", str(tmp_path / "set"), 6)
    assert line.format(f"folder: {tmp_path / 'set'}", 2) in capsys.readouterr().err
    images = load(str(tmp_path / "set"), 6)
    np.testing.assert_array_equal(np.concatenate([images[:4], images[4:]]), whole)
    assert capsys.readouterr().err.count("has transparency, which is dropped") == 1


def test_a_gif_with_transparency_is_told(tmp_path, capsys):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 1
    picture = Image.fromarray(pixels).convert("P")
    picture.save(tmp_path / "a.gif", transparency=1)
    read("folder", str(tmp_path), 4)
    assert "a.gif (P) has transparency, which is dropped" in capsys.readouterr().err


def test_a_split_needs_two_images_on_each_side():
    assert split(10, 3, 0).sum() == 3
    for held_out in (1, 9):
        with pytest.raises(
            InputError, match=f"^held_out is {held_out}; the data set has 10 images: allowed are 2 to 8$"
        ):
            split(10, held_out, 0)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_mode_of_8_bits_are_prepared(mode, channels):
    assert square(Image.new(mode, (5, 4)), channels, 4).shape == (channels, 4, 4)
