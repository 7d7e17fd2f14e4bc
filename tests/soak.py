"""Kill, starve and mislead the stages, and count what they withstand: python -m tests.soak [--full]

Each trial is a stage in a process of its own (forked, so that it need not import PyTorch anew), on a copy of a study of
toy size. It passes if the study ends with the same bytes as an undisturbed one, or if bad input ends in one line: no
traceback, nothing written outside, in bounded time and memory. `make soak` writes the figures to docs/reliability.md.
"""

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import pickle
import random
import re
import resource
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from ruamel.yaml import YAML

from pipeline.run.timings import machine
from sagd.runtime.distributed import World
from sagd.runtime.files import write_bytes
from sagd.training import loop

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "corrupt", "encode", "train", "sample", "evaluate")
PATIENCE = 120  # seconds that a stage of toy size may take, on a machine that is busy
MEMORY = 3 << 29  # bytes that it may use above what it begins with
FULL = {
    "kills": 200, "data": 200, "artefacts": 50, "signals": 50, "imports": 20, "disks": 20, "mounts": 40, "pairs": 20,
}  # fmt: skip
SHORT = {"kills": 6, "data": 45, "artefacts": 20, "signals": 4, "imports": 3, "disks": 4, "pairs": 2}  # in CI
REMARKS = re.compile(
    r"images/s|: \d+ images?\b|is dropped|first is read|waiting|set aside|from the start|^(prepare|encode): \d"
)
REPORT = ROOT / "docs" / "reliability.md"


@dataclass
class Ended:
    """How a stage ended: its exit status (negative: the signal), what it wrote to the standard error, its seconds."""

    status: int
    said: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it said, without progress and remarks on what it goes on without."""
        return [line for line in self.said.splitlines() if line.strip() and not REMARKS.search(line)]

    @property
    def refused(self) -> bool:
        """Whether it ended in one line, without a traceback and without characters that control a terminal."""
        return self.status == 1 and len(self.lines) == 1 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", self.said)


def start(stage: str, folder: Path, *options: str, limits: Callable[[], object] = lambda: None) -> tuple[int, Path]:
    """Fork a stage in a folder; its process, and the file of its standard error."""
    said = folder.with_name(f"{folder.name}.{stage}.{time.monotonic_ns()}.txt")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child, said
    status = 1
    try:
        os.chdir(folder)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = [stage, *options]
        os.environ["SAGD_SCRATCH"] = str(folder / "scratch")
        limits()
        sys.modules.pop(f"pipeline.{stage}", None)
        runpy.run_module(f"pipeline.{stage}", run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(process: int, said: Path, patience: float = PATIENCE) -> Ended:
    """Wait for a stage; one that does not end is killed, and has ended by SIGALRM."""
    began = time.monotonic()
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - began > patience:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            code = -signal.SIGALRM
            break
        time.sleep(0.002)
    text = said.read_text(errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    return Ended(code, text, time.monotonic() - began)


def run(stage: str, folder: Path, *options: str, limits: Callable[[], object] = lambda: None) -> Ended:
    return wait(*start(stage, folder, *options, limits=limits))


class Study:
    """An undisturbed study of toy size, of which trials take copies."""

    def __init__(self, place: Path):
        self.place, self.whole, self.count = place, place / "whole", 0
        self.whole.mkdir()
        yaml = YAML()
        content = yaml.load(ROOT / "params.yaml")
        del content["grid"]["settings"]
        content["grid"]["settings"] = {"iso": {"noise": {"operator": "isotropic"}}}
        content["dataset"] |= {"held_out": 16, "labels": True, "name": "folder", "path": str(place / "pictures")}
        content["dataset"]["channels"] = 1
        content["corrupt"] |= {"band": [0.4, 0.5]}
        content["train"] |= {"steps": 30, "warmup": 1, "snapshots": 2, "batch_size": 4}
        content["sample"] |= {"n": 16, "steps": 2, "batch_size": 4}
        content["evaluate"] |= {"bootstrap": 2, "metrics": ["fid", "kid"]}
        pictures = np.random.default_rng(0).integers(0, 256, (80, 16, 16), dtype=np.uint8)
        for k, picture in enumerate(pictures):
            path = place / "pictures" / str(k % 3) / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        yaml.dump(content, self.whole / "params.yaml")
        self.seconds = {}
        for stage in STAGES:
            ended = run(stage, self.whole)
            if ended.status:
                raise RuntimeError(f"{stage} does not run: {ended.said}")
            self.seconds[stage] = ended.seconds
        shutil.rmtree(self.whole / "scratch")
        self.sums = sums(self.whole)

    def copy(self, without: str | None = None) -> Path:
        """A copy of the study, without what a stage made."""
        self.count += 1
        folder = self.place / f"trial_{self.count}"
        shutil.copytree(self.whole, folder)
        if without is not None:
            shutil.rmtree(folder / "artifacts" / without, ignore_errors=True)
            for file in (folder / "reports").glob(f"{without}.*"):
                file.unlink()
        return folder


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of what the stages made, without the file of timings."""
    files = (f for part in ("artifacts", "reports") for f in sorted((folder / part).rglob("*")) if f.is_file())
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.stem != "timings"
    }


def kills(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """SIGKILL at a random moment of a stage, once or more; then the stage runs to its end."""
    for k in range(n):
        stage = STAGES[k % len(STAGES)]
        folder = study.copy(without=stage)
        for _ in range(rng.choice((1, 1, 2, 3))):
            process, said = start(stage, folder)
            time.sleep(rng.uniform(0, 1.1 * study.seconds[stage]))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            wait(process, said)
        yield _same(study, folder, stage, run(stage, folder))


def signals(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """Ctrl-C, SIGTERM or SIGHUP at a random moment: the stage ends soon, in a line at most; then it runs to its end."""
    for k in range(n):
        stage, number = STAGES[k % len(STAGES)], rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        folder = study.copy(without=stage)
        process, said = start(stage, folder)
        time.sleep(rng.uniform(0, 1.1 * study.seconds[stage]))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
        ended = wait(process, said)
        ends = {0, 1, 130, 128 + number, -number}  # not that of a stage that hung, or broke
        if len(ended.lines) > 1 or "Traceback" in ended.said or ended.status not in ends:
            yield f"{stage}, {signal.Signals(number).name}: {ended.said}"
            continue
        yield _same(study, folder, stage, run(stage, folder))


def pairs(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """The same stage twice at the same time, in one folder."""
    for k in range(n):
        stage = STAGES[k % len(STAGES)]
        folder = study.copy(without=stage)
        first = start(stage, folder)
        time.sleep(rng.uniform(0, 0.5 * study.seconds[stage]))
        second = start(stage, folder)
        one, other = wait(*first), wait(*second)
        yield f"{stage}: {one.said}" if one.status else _same(study, folder, stage, other)


def disks(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """A disk that takes files of a few kB only, so that some write fails: told in a line; then there is room."""
    for k in range(n):
        stage, size = STAGES[k % len(STAGES)], int(10 ** rng.uniform(1, 5))
        folder = study.copy(without=stage)

        def full(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = run(stage, folder, limits=full)
        # Where the limit leaves no room for the line itself, there is nothing to read.
        if ended.status and not ended.refused and len(ended.said) < size:
            yield f"{stage}, files of {size} bytes: {ended.said}"
            continue
        yield _same(study, folder, stage, run(stage, folder))


def mounts(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """The study on a disk that is full after a few kB, or read-only: told in a line; then there is room."""
    for k in range(n):
        stage, whole = STAGES[k % len(STAGES)], study.copy(without=STAGES[k % len(STAGES)])
        folder = whole.with_name("disk")
        folder.mkdir()
        _mount("-t", "tmpfs", "-o", "size=100m", "none", str(folder))
        try:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            shutil.rmtree(whole)
            used = shutil.disk_usage(folder).used
            room = int(10 ** rng.uniform(3, 5.5))
            limit = "ro" if rng.random() < 0.3 else f"size={used + room}"
            _mount("-o", f"remount,{limit}", str(folder))
            ended = run(stage, folder)
            _mount("-o", "remount,rw,size=100m", str(folder))
            if ended.status and not ended.refused:
                yield f"{stage}, a disk with {limit}, {used} used: {ended.status} {ended.said}"
            else:
                yield _same(study, folder, stage, run(stage, folder), keep=True)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            folder.rmdir()


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


def _cannot_mount(place: Path) -> str:
    """Why no disk of memory can be mounted here, which takes root and may be forbidden; nothing if one can."""
    folder = place / "mounted"
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "none", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        return " ".join((getattr(error, "stderr", None) or str(error).encode()).decode().split())
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    return ""


def imports(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """Ctrl-C or SIGTERM while a stage still imports: it ends without a traceback, by that signal or as it says."""
    for k in range(n):
        stage, number = STAGES[k % len(STAGES)], rng.choice((signal.SIGINT, signal.SIGTERM))
        place = os.environ | {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(study.place / "imports")}
        process = subprocess.Popen(
            [sys.executable, "-m", f"pipeline.{stage}"],
            cwd=study.copy(without=stage), env=place, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(rng.uniform(0.15, 2))
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        ended = Ended(process.returncode, said, 0)
        fine = ended.status in (0, 1, 130, -number, 128 + number) and "Traceback" not in said and len(ended.lines) < 2
        yield "" if fine else f"{stage}, {signal.Signals(number).name}: {ended.status} {said}"


def _same(study: Study, folder: Path, stage: str, ended: Ended, but: str = "", keep: bool = False) -> str:
    """Nothing, if a stage has ended with the bytes of the undisturbed study, ``but`` for one file."""
    if ended.status:
        return f"{stage} ended with {ended.status}: {ended.said}"
    found = sums(folder)
    names = (study.sums.keys() | found.keys()) - {but}
    other = [name for name in names if study.sums.get(name) != found.get(name)]
    if not keep:
        shutil.rmtree(folder)
    return f"{stage}: other bytes in {', '.join(sorted(other))}" if other else ""


def png(array: np.ndarray, form: str = "png") -> bytes:
    """An image file."""
    content = io.BytesIO()
    Image.fromarray(array).save(content, form)
    return content.getvalue()


def _png_of(width: int, height: int, data: bytes, depth: int = 8, kind: int = 0) -> bytes:
    """A PNG with a head that says what it likes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _zipped(entries: dict[str, bytes], folder: Path, packed: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "set.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", packed) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _lying(folder: Path, entries: dict[str, bytes]) -> Path:
    """A zip file with a member of 1.6 GB that says it has 99 bytes."""
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        with archive.open("bomb.png", "w") as member:
            for _ in range(192):
                member.write(bytes(1 << 23))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<I", 192 << 23), struct.pack("<I", 99)))
    return path


def hostile(rng: random.Random, folder: Path, k: int) -> tuple[str, Path]:
    """A set of images that something is wrong with: what, and the path to give as dataset.path."""
    pictures = folder / "pictures"
    pictures.mkdir()
    good = {f"{i}.png": png(np.full((16, 16), 9 * i, np.uint8)) for i in range(24)}
    for name, content in good.items():
        (pictures / name).write_bytes(content)
    bad, some = pictures / "bad.png", png(np.frombuffer(rng.randbytes(256), np.uint8).reshape(16, 16))
    cut = some[: rng.randrange(1, len(some) - 1)]
    at = rng.randrange(8, len(some))
    flipped = some[:at] + bytes([some[at] ^ 1 << rng.randrange(8)]) + some[at + 1 :]
    jpeg = png(np.frombuffer(rng.randbytes(768), np.uint8).reshape(16, 16, 3), form="jpeg")
    ending = rng.choice((".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"))
    outside = {f"{'../' * rng.randrange(1, 9)}escaped.png": some, f"{folder.parent}/absolute.png": some}

    def write(content: bytes, name: str = "bad.png") -> Path:
        (pictures / name).write_bytes(content)
        return pictures

    def link(target: str) -> Path:
        bad.symlink_to(target)
        return pictures

    def fifo() -> Path:
        os.mkfifo(bad)
        return pictures

    def itself(make: Callable[[Path], object]) -> Path:
        path = folder / "set.zip"
        make(path)
        return path

    def truncated(path: Path) -> None:
        whole = _zipped(good, folder).read_bytes()
        path.write_bytes(whole[: rng.randrange(1, len(whole))])

    def encrypted(path: Path) -> None:
        whole = bytearray(_zipped(good, folder).read_bytes())
        for place in [m.start() for m in re.finditer(b"PK\x01\x02", whole)]:
            whole[place + 8] |= 1
        path.write_bytes(whole)

    cases: list[tuple[str, Callable[[], Path]]] = [
        ("a cut PNG", lambda: write(cut)),
        ("a PNG with a flipped bit", lambda: write(flipped)),
        (
            "a JPEG with flipped bits",
            lambda: write(bytes(b ^ (rng.random() < 0.02) for b in jpeg), "bad.jpg"),
        ),
        ("random bytes", lambda: write(rng.randbytes(rng.randrange(2000)), f"bad{ending}")),
        ("a text", lambda: write(b"<svg onload=alert(1)>", f"bad{ending}")),
        ("an empty file", lambda: write(b"", f"bad{ending}")),
        ("a head that promises 4 gigapixels", lambda: write(_png_of(65500, 65500, b"\0" * 1000))),
        ("a head of no pixels", lambda: write(_png_of(0, 16, b"\0"))),
        ("16 bits", lambda: write(png(np.full((16, 16), 999, np.uint16)))),
        ("one pixel", lambda: write(png(np.full((1, 1), 9, np.uint8)))),
        ("a line", lambda: write(png(np.full((1, 5000), 9, np.uint8)))),
        ("transparency", lambda: write(png(np.full((16, 16, 4), 99, np.uint8)))),
        ("a pixel bomb in a PNG", lambda: write(_png_of(12000, 12000, b"\0" * (12001 * 12000)))),
        ("a pipe", fifo),
        ("a device", lambda: link("/dev/zero")),
        ("a terminal", lambda: link("/dev/tty")),
        ("a link to nowhere", lambda: link("nowhere")),
        ("a link to itself", lambda: link("bad.png")),
        ("a link to /etc/passwd", lambda: link("/etc/passwd")),
        ("a folder of an image's name", lambda: (bad.mkdir(), pictures)[1]),
        ("a name with a newline", lambda: write(cut, "a\nb.png")),
        ("a name that controls the terminal", lambda: write(cut, "a\x1b[31mb.png")),
        ("a name like an option", lambda: write(cut, "--help.png")),
        ("a name that is no text", lambda: write(cut, os.fsdecode(b"a\xff.png"))),
        ("a name of 250 characters", lambda: write(cut, "x" * 246 + ".png")),
        ("a zip that leads outside", lambda: _zipped(good | outside, folder)),
        ("a zip bomb", lambda: _zipped(good | {"bomb.png": b"\0" * (1 << 30) + b"\0"}, folder)),
        ("a zip whose member is larger than it says", lambda: _lying(folder, good)),
        ("a zip that is packed by bzip2", lambda: _zipped(good, folder, zipfile.ZIP_BZIP2)),
        ("a zip of control characters", lambda: _zipped(good | {"a\x1b]0;x\x07.png": cut}, folder)),
        ("a zip of nothing", lambda: _zipped({}, folder)),
        ("a zip of other files", lambda: _zipped({"a.txt": b"x"}, folder)),
        ("a zip with a cut image", lambda: _zipped(good | {"bad.png": cut}, folder)),
        ("a cut zip", lambda: itself(truncated)),
        ("an encrypted zip", lambda: itself(encrypted)),
        ("a zip that is a pipe", lambda: itself(os.mkfifo)),
        ("a zip that is a device", lambda: itself(lambda path: path.symlink_to("/dev/zero"))),
        ("a zip that is a web page", lambda: itself(lambda path: path.write_bytes(b"<html>quota</html>"))),
        (
            "a zip that is a pickle",
            lambda: itself(lambda path: path.write_bytes(pickle.dumps(os.getpid))),
        ),
        ("a folder of three images", lambda: ([f.unlink() for f in sorted(pictures.iterdir())[3:]], pictures)[1]),
        ("an empty folder", lambda: ([f.unlink() for f in pictures.iterdir()], pictures)[1]),
        ("no folder", lambda: folder / "absent"),
        ("nothing wrong", lambda: pictures),
    ]
    name, make = cases[k % len(cases)]
    return name, make()


def data(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """Hostile sets of images for `prepare`: it ends well, or refuses them in a line, and writes nothing outside."""
    for k in range(n):
        folder = study.place / f"data_{k}"
        (folder / "study").mkdir(parents=True)
        yaml = YAML()
        content = yaml.load(study.whole / "params.yaml")
        what, path = hostile(rng, folder, k)
        content["dataset"] |= {"path": str(path), "labels": False}
        yaml.dump(content, folder / "study" / "params.yaml")
        others = {p for p in study.place.iterdir()} | set(folder.iterdir())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def bounded(before: int = before) -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (before + MEMORY, before + MEMORY))

        ended = run("prepare", folder / "study", limits=bounded)
        written = ({p for p in study.place.iterdir()} | set(folder.iterdir())) - others
        if written:
            yield f"{what}: wrote {written}"
        else:
            yield "" if ended.status == 0 or ended.refused else f"{what}: ended with {ended.status}, {ended.said}"
        shutil.rmtree(folder)


def _other(rng: random.Random, value: object) -> object:
    """A value of another kind, or out of range."""
    others = (None, -1, 10**30, "x", [], {}, 1.5, True, [None], "\x1b[31m", [10**9])
    return rng.choice([other for other in others if other != value])


def tamper(rng: random.Random, path: Path) -> str:
    """Change a file so that it is not what it was in structure; say how."""
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        found = json.loads(content)
        key = rng.choice(list(found))
        if rng.random() < 0.3:
            del found[key]
            how = f"without {key}"
        else:
            found[key] = _other(rng, found[key])
            how = f"{key} is {found[key]!r}"
        path.write_text(json.dumps(found))
        return how
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        tensors = safetensors.torch.load(content)
        key = rng.choice(list(tensors))
        how = rng.choice(("gone", "another shape", "not finite", "of whole numbers"))
        if how == "gone":
            del tensors[key]
        elif how == "another shape":
            tensors[key] = tensors[key].reshape(-1)[:1].clone()
        elif how == "not finite":
            tensors[key] = torch.full_like(tensors[key].float(), float("nan"))
        else:
            tensors[key] = tensors[key].to(torch.int32)
        path.write_bytes(safetensors.torch.save(tensors))
        return f"{key} is {how}"
    if path.suffix == ".npy" and rng.random() < 0.6:
        array = np.load(path)
        kinds = ["float64", "of three channels", "objects", "empty", "fewer"]
        how = rng.choice([*kinds, "one class too many"] if path.stem == "labels" else kinds)
        if how == "objects":
            np.save(path, np.array([{}]), allow_pickle=True)
        else:
            changed = {"float64": array / 2, "one class too many": array + 1, "empty": array[:0], "fewer": array[:-3]}
            np.save(path, changed.get(how, np.stack([array] * 3, -1)))
        return how
    how, at = rng.choice(("cut", "empty", "random", "one bit of its head")), rng.randrange(min(64, len(content)))
    flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    changed = {"cut": content[: len(content) // 2], "empty": b"", "random": rng.randbytes(200)}
    path.write_bytes(changed.get(how, flipped))
    return how


# A stage, and what it reads.
READS = (
    ("corrupt", "artifacts/prepare/train.npy"),
    ("encode", "artifacts/prepare/train.npy"),
    ("encode", "artifacts/corrupt/corruption.safetensors"),
    ("train", "artifacts/prepare/train.npy"),
    ("train", "artifacts/prepare/labels.npy"),
    ("train", "reports/prepare.json"),
    ("train", "artifacts/encode/manifest.json"),
    ("train", "artifacts/encode/noise.safetensors"),
    ("train", "artifacts/corrupt/corruption.safetensors"),
    ("sample", "artifacts/train/run.json"),
    ("sample", "artifacts/train/seed_0/config.json"),
    ("sample", "artifacts/train/seed_0/diffusion_pytorch_model.safetensors"),
    ("sample", "artifacts/train/noise.safetensors"),
    ("sample", "artifacts/encode/statistics.safetensors"),
    ("sample", "artifacts/encode/manifest.json"),
    ("evaluate", "artifacts/train/run.json"),
    ("evaluate", "artifacts/sample/samples.npz"),
    ("evaluate", "artifacts/prepare/held_out.npy"),
)


def artefacts(study: Study, rng: random.Random, n: int) -> Iterator[str]:
    """Tampered files of the stages before: the stage refuses them in a line, or ends as if nothing were wrong."""
    for k in range(n):
        stage, name = READS[k % len(READS)]
        folder = study.copy(without=stage)
        how = tamper(rng, folder / name)
        ended = run(stage, folder)
        if ended.refused:
            shutil.rmtree(folder)
            yield ""
        else:
            shutil.copy(study.whole / name, folder / name)  # what it has made shall be the same
            key = "artifacts/sample/samples.json"  # has the sums of all files that sampling reads
            yield (failure := _same(study, folder, stage, ended, but=key)) and f"{name}, {how}: {failure}"


PARTS = {
    "kills": (kills, "SIGKILL at a random moment, one to three times, in every stage; the same bytes in the end"),
    "signals": (signals, "Ctrl-C, SIGTERM, SIGHUP at a random moment: one line at most; then the same bytes"),
    "pairs": (pairs, "a stage started twice at the same time: the same bytes"),
    "disks": (disks, "a write that fails for lack of room: one line; with room, the same bytes"),
    "mounts": (mounts, "a study on a disk that is full after some kB, or read-only (needs root): the same"),
    "imports": (imports, "Ctrl-C, SIGTERM while a stage imports: no traceback"),
    "data": (data, "hostile images, folders and archives: read, or refused in one line; nothing is written outside"),
    "artefacts": (artefacts, "tampered files between the stages: refused in one line, or without effect"),
}


def soak(counts: dict[str, int], seed: int, told: Callable[[str], object] = print) -> Iterator[tuple[str, str]]:
    """Run trials; by part, how many passed, of how many. Failures are told."""
    torch.set_num_threads(1)
    for module in (*STAGES, "run.door"):  # here, and not in each trial
        importlib.import_module(f"pipeline.{module}")
    for module in ("efficientnet_lite_pytorch", "PIL.Image", "scipy.linalg", "torch._dynamo"):  # what they import late
        importlib.import_module(module)
    loop.train.__kwdefaults__["checkpoint_seconds"] = 0.05  # so that there are checkpoints, in toy runs
    with tempfile.TemporaryDirectory() as place:
        study = Study(Path(place))
        for part, n in counts.items():
            trial, _ = PARTS[part]
            if part == "mounts" and (why := _cannot_mount(Path(place))):
                said = f"not run: {why}"
                told(f"{part}: {said}")
                yield part, said
                continue
            failures = [failure for failure in trial(study, random.Random(f"{seed} {part}"), n) if failure]
            said = f"{n - len(failures)} of {n}"
            told(f"{part}: {said}")
            for failure in failures:
                told(f"  {failure}")
            yield part, said


def report(found: dict[str, str], seed: int) -> None:
    """Write the table of docs/reliability.md: what was not run yet says so."""
    begin, end = "<!-- soak -->\n", "<!-- end of soak -->"
    rows = [f"| {told} | {found.get(part, 'not run')} |" for part, (_, told) in PARTS.items()]
    before, _, rest = REPORT.read_text().partition(begin)
    table = "\n".join(["| trial | passed |", "| --- | --- |", *rows])
    where = f"Seed {seed}, on one core of {machine(World())['cpu']}."
    write_bytes(REPORT, f"{before}{begin}\n{table}\n\n{where}\n\n{end}{rest.partition(end)[2]}".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all trials, and write the figures to docs/reliability.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    counts = FULL if options.full else SHORT
    counts = {part: n for part, n in counts.items() if options.only in (None, part)}
    found = {}
    for part, said in soak(counts, options.seed, lambda line: print(line, flush=True)):
        found[part] = said
        if options.full and options.only is None:  # as they come: an hour of trials is not lost with the last
            report(found, options.seed)
    sys.exit(any(said != f"{counts[part]} of {counts[part]}" for part, said in found.items() if said[0].isdigit()))


if __name__ == "__main__":
    main()
