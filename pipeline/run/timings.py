"""Facts of the machine: how fast a training was, on what, with which versions. They stand beside the results, in one
file, so that a training to the same bits has the same hash wherever it runs.
"""

import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

from sagd.runtime.distributed import World
from sagd.runtime.files import locked, read_json, scratch, write_json

FILE = Path("reports", "timings.json")


def record(title: str, images_per_second: float | None, world: World) -> None:
    """Note how fast a setting was trained; None, of a run that was only read back, leaves what was noted before."""
    if images_per_second is None or not world.main:
        return
    with locked(scratch() / "timings.lock", FILE):  # several settings may be trained at a time
        noted = read_json(FILE) if FILE.is_file() else {}
        noted[title] = {"images_per_second": round(images_per_second, 1), **machine(world)}
        write_json(FILE, dict(sorted(noted.items())))


def machine(world: World) -> dict[str, str]:
    """What a number was measured on."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"CPU, {torch.get_num_threads()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "cpu": _cpu(),
        "device": device if world.size == 1 else f"{world.size} x {device}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


def _cpu() -> str:
    """The processor's name; numbers are the same to the bit only on one kind, with one number of threads."""
    facts = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", facts.read_text()) if facts.is_file() else None
    return named[1] if named else platform.processor() or platform.machine()


def read() -> dict[str, dict]:
    """What was noted, by setting; empty if nothing was."""
    return read_json(FILE) if FILE.is_file() else {}
