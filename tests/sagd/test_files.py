"""Files that stages hand each other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sagd.errors import InputError
from sagd.runtime import files
from sagd.runtime.files import check_output, holds, locked, set_aside, try_lock, write_bytes, write_tensors

ROOT = Path(__file__).parents[2]


def test_a_file_holds_what_another_processor_rounds_otherwise(tmp_path):
    weight = torch.rand(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    file, tensors = tmp_path / "noise.safetensors", {"weight": weight, "flag": torch.tensor(True)}
    assert not holds(file, tensors)
    write_tensors(file, tensors)
    assert holds(file, tensors)
    assert holds(file, tensors | {"weight": weight * (1 + 1e-15)})
    assert not holds(file, tensors | {"weight": weight * (1 + 1e-9)})
    assert not holds(file, tensors | {"flag": torch.tensor(False)})
    assert not holds(file, {"weight": weight})
    assert not holds(file, tensors | {"weight": weight.float()})
    assert not holds(file, tensors | {"weight": weight[:8]})


def test_an_output_is_tried_before_the_work_begins(tmp_path):
    check_output("--out", tmp_path / "new" / "c.json", ".json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old.json").write_bytes(b"{}")
    check_output("--out", tmp_path / "old.json", ".json")
    assert (tmp_path / "old.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("c.txt", r"--out is c\.txt; it must end in \.json"),
        ("", r"--out is \.; it must end in \.json"),
        ("folder.json", r"--out is folder\.json, which is no file"),
        ("file/c.json", r"--out is file/c\.json, which cannot be written: file is no folder"),
        ("/proc/c.json", r"--out is /proc/c\.json, which cannot be written"),
        ("/dev/full/c.json", r"--out is /dev/full/c\.json, which cannot be written"),
        ("a" * 300 + ".json", r"which cannot be written: File name too long"),
        ("input.json", r"--out is input\.json, which would change the input input\.json"),
        ("linked.json", r"--out is linked\.json, which would change the input input\.json"),
        ("pictures/c.json", r"--out is pictures/c\.json, which would change the input pictures"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, path, says):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.json", "pictures"):
        Path(folder).mkdir()
    for file in ("file", "input.json"):
        Path(file).touch()
    Path("linked.json").symlink_to("input.json")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=says) as failure:
        check_output("--out", Path(path), ".json", inputs=["input.json", "pictures", "nowhere"])
    assert "\n" not in str(failure.value) and sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    """It takes the name of a file, but no content."""

    def full(path, content):
        path.touch()
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        check_output("--out", tmp_path / "c.json", ".json")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_names_no_file_is_not_written():
    with pytest.raises(InputError, match=r"^'\.' names no file"):
        write_bytes("", b"")


def test_what_may_be_anothers_is_not_set_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "theirs").write_bytes(b"1")
    with pytest.raises(InputError, match="it is left where it is"):
        set_aside(tmp_path / "theirs", "theirs is damaged")
    assert (tmp_path / "theirs").read_bytes() == b"1"
    write_bytes(tmp_path / "scratch" / "ours", b"2")
    set_aside(tmp_path / "scratch" / "ours", "ours is damaged")
    assert (tmp_path / "scratch" / "damaged" / "scratch_ours").read_bytes() == b"2"


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path, capsys):
    place = tmp_path / "new" / "lock"
    with locked(place, "it"):
        assert try_lock(place, "this") is None
    assert capsys.readouterr().err == "another process is using this; waiting\n"
    code = "import sys, time; from pathlib import Path; from sagd.runtime.files import try_lock\n"
    code += "held = try_lock(Path(sys.argv[1]), None); print(held is not None, flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, place], env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        assert try_lock(place, None) is None
        other.send_signal(signal.SIGKILL)
        other.wait()
    with locked(place, "that"):
        assert capsys.readouterr().err == ""


def test_a_lock_whose_folder_is_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """As features do, once they are whole."""
    place = tmp_path / "folder" / "lock"
    first = try_lock(place, None)

    def removed(seconds):
        place.unlink()
        place.parent.rmdir()
        first.release()

    monkeypatch.setattr(files.time, "sleep", removed)
    with locked(place, "it"):
        assert place.exists()


def test_a_folder_that_cannot_be_locked_is_one_line(monkeypatch):
    with pytest.raises(InputError, match=r"^cannot write /proc/x/lock: [\w ]+$"):
        try_lock(Path("/proc/x/lock"), None)
    monkeypatch.setenv("SAGD_SCRATCH", "/proc/x")
    with pytest.raises(InputError, match=r"^cannot write /proc/x/lock: .*; SAGD_SCRATCH names another folder$"):
        try_lock(Path("/proc/x/lock"), None)


def test_every_module_is_imported_without_what_only_linux_has():
    """macOS has no posix_fallocate, Windows none of these modules. Those of others are imported before."""
    code = """
import contextlib, importlib, os, pkgutil, sys
import torch, numpy, filelock, tqdm, scipy, scipy.linalg, PIL.Image, torchvision, cleanfid, matplotlib, seaborn, pandas
import diffusers, transformers, multiprocessing.shared_memory, subprocess, tempfile, asyncio
from diffusers import DDPMScheduler, DDIMScheduler, UNet2DModel, DiffusionPipeline, AutoencoderKL
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"):
    sys.modules[name] = None
for name in ("posix_fallocate", "sched_getaffinity", "fork", "getuid", "geteuid", "statvfs", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
import sagd
names = [m.name for m in pkgutil.walk_packages(sagd.__path__, "sagd.") if m.name != "sagd.__main__"]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len([p for p in (ROOT / "sagd").rglob("*.py")]) - 2


def test_room_on_the_disk_is_taken_without_posix_fallocate(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with open(tmp_path / "a", "wb") as file:
        file.write(b"head")
        files.allocate(file, (1 << 20) + 3)
    assert (tmp_path / "a").read_bytes() == b"head" + bytes((1 << 20) + 3)


CODE = """\
def step(x):
    # Why it is halved.
    return 0.5 * x
"""
SAME = '''\
"""A step."""

def step(x):
    """Halve it: 0.5 x."""
    return 0.5*x  # not x

'''


def test_words_are_no_part_of_the_code_that_may_resume_a_run(tmp_path, monkeypatch):
    """Comments, docstrings and blanks may change; code may not."""
    monkeypatch.setattr(files, "__file__", str(tmp_path / "runtime" / "files.py"))
    (tmp_path / "room").mkdir()

    def identity(code):
        (tmp_path / "room" / "step.py").write_text(code)
        return files.sources("room")

    assert identity(CODE) == identity(SAME)
    others = (CODE.replace("0.5", "0.25"), CODE.replace("x", "y"), CODE + "\nx = 1\n", SAME.replace("0.5*x", '"0.5*x"'))
    assert len({identity(code) for code in (CODE, *others)}) == 5
    assert identity('def f():\n    """Only words."""\n') == identity("def f():\n    pass\n")
