"""Several processes for one stage: SAGD_LAUNCH holds the command that starts them, such as `accelerate launch ...`.

The stage calls that command on itself. What the launcher itself prints is kept back: where a worker dies, one line says
so, and the same command goes on from the last checkpoint.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator

LAUNCHER = "SAGD_LAUNCH"
STDERR = "SAGD_STDERR"  # where workers write to, past their launcher
DIED = re.compile(r"exitcode: (-?\d+)\) local_rank: (\d+)")


def launch(name: str, arguments: list[str]) -> int:
    """Run a stage in as many processes as the launcher starts; the exit status, after a line if they failed."""
    command = [*shlex.split(os.environ[LAUNCHER]), "-m", f"pipeline.{name}", *arguments]
    environment = os.environ | {STDERR: f"/proc/{os.getpid()}/fd/2"}
    try:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        print(f"{name}: cannot start {command[0]} ({LAUNCHER}): {error.strerror}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: process.send_signal(number))
    said = process.communicate()[1]
    if process.returncode == 0:
        return 0
    died = DIED.search(said)
    if died is None:
        print(f"{name}: {command[0]} ({LAUNCHER}) failed: {(said.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
    elif int(died[1]) < 0:
        by = signal.Signals(-int(died[1])).name
        print(
            f"{name}: process {died[2]} was killed ({by}), and all have stopped; "
            "the same command goes on from what was saved last",
            file=sys.stderr,
        )
    return 1


@contextlib.contextmanager
def worker(name: str) -> Iterator[None]:
    """What a process does as one of several: write past the launcher, and stop with a line when another one is gone."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if STDERR in os.environ:
        with contextlib.suppress(OSError):  # no such place on this system, or on this host
            os.dup2(os.open(os.environ[STDERR], os.O_WRONLY | os.O_APPEND), 2)
    import torch

    try:
        yield
    except (torch.distributed.DistError, RuntimeError) as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if not lost:
            raise
        # Whoever is left first says so; the launcher's own line names who is gone.
        if STDERR not in os.environ:
            print(f"{name}: another process of this run is gone; the same command goes on", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)  # what waits for the lost process would never end
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
