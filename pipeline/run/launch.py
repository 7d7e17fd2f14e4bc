"""Several processes for one stage: SAGD_LAUNCH holds the command that starts them, such as `accelerate launch ...`.

The stage calls that command on itself. What the launcher itself prints is kept back: where a worker dies, one line says
so; to resume from the last checkpoint, run the same command again.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from sagd.errors import InputError

LAUNCHER = "SAGD_LAUNCH"
STDERR = "SAGD_STDERR"  # where workers write to, past their launcher
SAVING = "120"  # seconds that processes have to save what they have, once they are asked to stop
LOST = 75  # the exit status of a process that another one has left alone
DIED = re.compile(r"exitcode: (-?\d+)\) local_rank: (\d+)")


def launch(name: str, arguments: list[str]) -> int:
    """Run a stage in as many processes as the launcher starts; the exit status, after a line if they failed."""
    workers = 2  # their standard error: a terminal itself, so that they show a bar
    if not sys.stderr.isatty():
        source, workers = os.pipe()
        relay = threading.Thread(target=_relay, args=(source,), daemon=True)
        relay.start()
    command = [*shlex.split(os.environ[LAUNCHER]), "-m", f"pipeline.{name}", *arguments]
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SAVING} | os.environ
    environment[STDERR] = f"/proc/{os.getpid()}/fd/{workers}"
    try:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        print(f"{name}: cannot start {command[0]} ({LAUNCHER}): {error.strerror}", file=sys.stderr)
        return 1
    asked = []  # to stop

    def stop(number: int, _: object) -> None:
        asked.append(number)
        process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:  # nohup goes on
            continue
        signal.signal(number, stop)
    said = process.communicate()[1]
    if workers != 2:
        os.close(workers)
        relay.join()
    if process.returncode == 0:
        return 0
    if asked:
        print(f"{name}: stopped; to resume from the last checkpoint, run the same command again", file=sys.stderr)
        return 128 + asked[0]
    ends = [(int(code), rank) for code, rank in DIED.findall(said)]
    # The launcher stops the others by SIGTERM once one has died.
    killed = next(((code, rank) for code, rank in ends if code < 0 and code != -signal.SIGTERM), None)
    if killed is not None:
        gone = f"process {killed[1]} was killed ({signal.Signals(-killed[0]).name}), and all have stopped"
    elif any(code == LOST for code, _ in ends):
        gone = "another process of this run is gone, and all have stopped"
    elif ends:
        return 1  # one has said why
    else:
        print(f"{name}: {command[0]} ({LAUNCHER}) failed: {(said.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
        return 1
    print(f"{name}: {gone}; to resume from the last checkpoint, run the same command again", file=sys.stderr)
    return 1


def _relay(source: int) -> None:
    """What workers write, in the place where this process writes."""
    with open(source, "rb", buffering=0) as lines:
        while content := lines.read(4096):
            sys.stderr.buffer.write(content)
            sys.stderr.flush()


@contextlib.contextmanager
def worker(name: str) -> Iterator[None]:
    """What a process does as one of several: write past the launcher, and stop with a line when another one is gone."""
    if STDERR in os.environ:
        with contextlib.suppress(OSError):  # no such place on this system, or on this host
            os.dup2(os.open(os.environ[STDERR], os.O_WRONLY | os.O_APPEND), 2)
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    import torch

    try:
        yield
    except InputError:
        if os.environ["RANK"] != "0":  # all may have the same to say: the launcher stops whoever is not the first
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(5)
        raise
    except (torch.distributed.DistError, RuntimeError) as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if not lost:
            raise
        if STDERR not in os.environ:
            print(
                f"{name}: another process of this run is gone; to resume, run the same command again",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(2)  # the launcher shall see first who is gone
        os._exit(LOST)  # what waits for the lost process would never end
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
