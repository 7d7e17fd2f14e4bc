"""What is listed of the user's own data: every change of a file, and nothing that is not read."""

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from pipeline import params as parameters
from pipeline import watch

ASKED = SimpleNamespace()
STUDY = {"encode": {"kind": "pixel"}, "evaluate": {"features": "efficientnet_lite0", "metrics": ["fid"]}}


def seen(name, path):
    """What `watch` writes for a data set, and whether it is run again."""
    raw = {"dataset": {"name": name, "path": path, "size": 8, "held_out": 2}, **STUDY}
    watch.main(parameters.Params(raw), ASKED)
    record = json.loads(Path("reports/watch/dataset.json").read_text())
    return record, math.isnan(json.loads(Path("reports/watch.json").read_text())["again"])


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of three pictures below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    (folder / "cats").mkdir(parents=True)
    for k in range(3):
        Image.new("L", (8, 8), k).save(folder / "cats" / f"{k}.png")
    return folder


def test_each_change_of_a_file_is_seen(pictures):
    found = [seen("folder", str(pictures))]
    assert found[0] == seen("folder", str(pictures)) and found[0][1]

    Image.new("L", (8, 8)).save(pictures / "cats" / "3.png")
    found.append(seen("folder", str(pictures)))
    (pictures / "cats" / "3.png").rename(pictures / "3.png")  # of another class
    found.append(seen("folder", str(pictures)))
    (pictures / "cats" / "0.png").unlink()
    found.append(seen("folder", str(pictures)))
    os.utime(pictures / "cats" / "1.png", ns=(0, 0))  # other content may have the same size
    found.append(seen("folder", str(pictures)))

    assert [record["files"] for record, _ in found] == [3, 4, 4, 3, 3]
    assert len({record["sha256"] for record, _ in found}) == len(found)


def test_what_is_not_read_is_not_listed(pictures):
    before = seen("folder", str(pictures))
    (pictures / "README.txt").write_text("cats")
    (pictures / ".thumbnails").mkdir()
    shutil.copy(pictures / "cats" / "0.png", pictures / ".thumbnails" / "0.png")
    assert seen("folder", str(pictures)) == before


def test_a_reader_of_ones_own_may_read_files_of_any_kind(pictures):
    before = seen("mine.py:reader", str(pictures))
    (pictures / "labels.csv").write_text("0, cat")
    after = seen("mine.py:reader", str(pictures))
    assert before[1] and after[0]["files"] == before[0]["files"] + 1


def test_a_zip_file_is_listed_as_one(pictures):
    archive = Path(shutil.make_archive("pictures", "zip", pictures))
    before = seen("folder", "pictures.zip")
    assert before[0]["files"] == 1 and before[1]
    os.utime(archive, ns=(0, 0))
    assert seen("folder", "pictures.zip") != before


@pytest.mark.parametrize(("name", "path"), [("mnist_5k", None), ("mnist", "pictures"), ("huggingface", "owner/name")])
def test_data_by_name_are_not_listed(pictures, name, path):
    assert seen(name, path) == ({"files": 0}, False)


def test_a_disk_that_is_away_changes_nothing(pictures):
    before = seen("folder", str(pictures))
    pictures.rename("elsewhere")
    assert seen("folder", str(pictures)) == before


def test_home_may_be_written_as_a_tilde(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    assert seen("folder", "~/pictures") == seen("folder", str(pictures))


def test_data_sets_that_the_study_has_no_more_are_forgotten(pictures):
    one = {"name": "folder", "path": "pictures", "size": 8, "held_out": 2}
    for names in (("a", "b"), ("b",)):
        watch.main(parameters.Params({"profile": "small", "datasets": dict.fromkeys(names, one)}), ASKED)
    assert [p.name for p in Path("reports/watch/small").iterdir()] == ["b.json"]


def test_a_network_a_reference_and_an_autoencoder_of_ones_own_are_listed(pictures):
    """What `encode` and `evaluate` read besides; names of networks, and names on a hub, are no files."""
    raw = {"dataset": {"name": "mnist_5k", "size": 8, "held_out": 2}}
    raw["encode"] = {"kind": "vae", "path": "autoencoder"}
    raw["evaluate"] = {"features": "mine.pt", "reference": "mine.npz", "metrics": ["fid"]}

    def found():
        watch.main(parameters.Params(raw), ASKED)
        records = {name: json.loads(Path(f"reports/watch/{name}.json").read_text()) for name in ("encode", "evaluate")}
        return records, math.isnan(json.loads(Path("reports/watch.json").read_text())["again"])

    nothing = {"files": 0}  # of what is not here: it is on a hub, or refused later
    assert found() == ({"encode": nothing, "evaluate": nothing}, False)
    shutil.copytree(pictures, "autoencoder")
    for name in ("mine.pt", "mine.npz"):
        Path(name).write_bytes(b"1")
    before, again = found()
    assert again and (before["encode"]["files"], before["evaluate"]["files"]) == (3, 2)
    Path("mine.npz").write_bytes(b"22")
    after, _ = found()
    assert after["encode"] == before["encode"] and after["evaluate"] != before["evaluate"]
