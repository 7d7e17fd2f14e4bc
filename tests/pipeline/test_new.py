"""A folder of images becomes a params.yaml that every stage takes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import new
from pipeline import params as parameters
from pipeline.run import budget, door


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory beside 40 pictures in two sub-folders; a step takes a quarter of a second."""
    rng = np.random.default_rng(0)
    for k in range(40):
        path = tmp_path / 'my "pictures" ü' / ("cats" if k < 25 else "dogs") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50 + k, 3), dtype=np.uint8)).save(path)
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setattr(budget, "seconds", lambda setting, shape: (0.25, 60.0))
    return tmp_path / 'my "pictures" ü'


def test_it_says_what_is_there_and_writes_what_every_stage_takes(folder, capsys):
    (folder / "notes.txt").write_text("x")
    new.main([str(folder), "--size", "32", "--for", "cpu"])
    said, remarks = capsys.readouterr()
    assert "40 images, in colour, of 50x40 to 89x40 pixels" in said and "cats 25, dogs 15" in said
    assert "left out: 1 of no format that is read" in remarks
    params = parameters.load()
    focus, iso = params.all_settings
    assert (focus.noise.alpha, iso.noise.operator) == (0.06, "isotropic") and focus.train == iso.train
    assert params.section("dataset").path == str(folder)
    door.check(params, params.all_settings)
    # Four runs of a quarter of a second a step, and two minutes of sampling, in four fifths of an hour.
    assert focus.train.steps == 2800 and "about 49 minutes" in said
    assert focus.sample.n == 32 and params.section("dataset").held_out == 8


@pytest.mark.parametrize("size", [8, 9, 16, 28, 48, 64, 100, 256])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_size_has_a_network(folder, size, device):
    new.main([str(folder), "--size", str(size), "--for", device])
    params = parameters.load()
    shape = (3, size, size)
    assert params.setting(None).train.network(shape, 0, 0)
    params.setting(None).check(door.noise_of(params.setting(None), shape), shape)


def test_grey_images_have_one_channel_and_no_mirror(folder, capsys):
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    new.main([str(folder), "--size", "64"])
    assert "grey" in (said := capsys.readouterr().out) and "40 of 40 are smaller than 64x64" in said
    params = parameters.load()
    assert params.section("dataset").channels == 1 and not params.section("train").flip


def test_it_asks_before_it_replaces_a_file(folder, monkeypatch, capsys):
    Path("params.yaml").write_text("mine")
    with pytest.raises(SystemExit, match=r"^new: params\.yaml is there; --yes replaces it$"):
        new.main([str(folder)])
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(SystemExit, match=r"^new: params\.yaml is as it was$"):
        new.main([str(folder)])
    assert Path("params.yaml").read_text() == "mine"
    new.main([str(folder)])
    assert parameters.load().settings
    Path("params.yaml").write_text("mine")
    new.main([str(folder), "--yes"])
    assert parameters.load().settings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], r"path is .*nowhere; the data set folder needs the path of an existing folder or zip file"),
        (["dogs"], r"dogs has 15 images; 20 or more are needed"),
        ([""], r"no folder is named: make images DATA=/data/pictures, or python -m pipeline\.new /data/pictures"),
        ([".", "--size", "4"], r"--size is 4; allowed: 8 to 1024"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder, monkeypatch, arguments, says):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match=rf"^new: .*{says}$"):
        new.main(arguments)
    assert not Path("params.yaml").exists()
