"""Several processes that share one run, started by `accelerate launch` or `torchrun`, on one or more hosts.

With one process every method is a no-op. Random numbers do not depend on the number of processes: every process
draws the whole batch (`Spectrum.sample`), and image k has its own generator.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from sagd.errors import InputError, needs
from sagd.runtime.files import try_lock

# How long processes wait for each other before they give up: rank 0 may have to write much alone.
PATIENCE = timedelta(hours=1)


class World:
    """The processes that share the work.

    Attributes
    ----------
    rank, size
        This process's number, from 0, and how many there are.
    device
        To compute on: this process's accelerator, if there is one.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.size > 1:
            with needs("models"):
                from accelerate import PartialState

            state = PartialState(cpu=self.device.type == "cpu", timeout=PATIENCE)
            self.rank = state.process_index
            if self.device.type != "cpu":
                self.device = state.device

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def rows(self, count: int) -> slice | None:
        """This process's part of a batch; None, all of it, if it is alone."""
        if self.size == 1:
            return None
        if count % self.size:
            raise InputError(f"batch_size is {count}; {self.size} processes cannot share it evenly")
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network on a device, with gradients averaged over the world.

        By DDP; under ``accelerate launch --use_fsdp`` by FSDP, which also shards the weights: if the network is given
        on the CPU, a device never holds more than one whole block.
        """
        if self.size == 1:
            return network.to(device)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
            from torch.distributed import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            network.to(memory_format=torch.contiguous_format)  # the only one that FSDP takes
            mesh = init_device_mesh(device.type, (self.size,))
            shared_out = getattr(network, "_no_split_modules", None) or ()
            for module in network.modules():
                if type(module).__name__ in shared_out:
                    fully_shard(module, mesh=mesh)
            fully_shard(network, mesh=mesh)  # in place
            return network
        return nn.parallel.DistributedDataParallel(
            network.to(device), device_ids=[device] if device.type == "cuda" else None
        )

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes (all-reduce)."""
        if self.size == 1:
            return value
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value / self.size

    def most(self, *numbers: int) -> list[int]:
        """Element-wise maximum over the processes, of whole numbers; of booleans: whether any is true."""
        if self.size == 1 or not numbers:
            return list(numbers)
        given = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(given, op=torch.distributed.ReduceOp.MAX)
        return given.tolist()

    def alike(self, text: str) -> bool:
        """Whether the text is the same on all processes."""
        number = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
        most, least = self.most(number, -number)
        return most == -least

    def check_alike(self, work: str) -> None:
        """Raise InputError if the processes differ in settings, data or code."""
        if not self.alike(work):
            raise InputError("the processes have different settings, data or code; all hosts need the same")

    def collected(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors (gathered, if FSDP has sharded them) on the CPU of rank 0; an empty dict on other ranks."""
        found = {}
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            if hasattr(tensor, "full_tensor"):
                tensor = tensor.full_tensor()  # which all processes must ask for
            if self.main:
                found[name] = tensor.cpu()
        return found

    def wait(self) -> None:
        """Wait for all processes (barrier)."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Create a folder and lock it: other runs that need it wait until this one has left it.

        Raises
        ------
        InputError
            The folder cannot be written or locked, or the processes do not all see the same one.
        """
        holder = folder / "holder"
        with contextlib.ExitStack() as stack:
            held, told = None, False
            while True:  # not a wait of rank 0 alone, which the others would give up
                if self.main:
                    held = try_lock(folder / "lock", None if told else folder)
                if any(self.most(held is not None)):
                    break
                told = True
                time.sleep(1)
            if held is not None:
                stack.callback(held.release)
                with open(holder, "w") as file:
                    file.write(f"{os.getpid()} {time.time_ns()}")
                    file.flush()
                    os.fsync(file.fileno())  # the other hosts are about to read it, perhaps over a network
                for left in folder.glob(".*"):  # by a process that was killed as it wrote
                    left.unlink()
            self.wait()
            if not self.alike(holder.read_text() if holder.exists() else ""):
                raise InputError(
                    f"{folder} is not one folder for all hosts: SAGD_SCRATCH must name a disk that all see"
                )
            yield

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 runs the block first, and the others after it, so that they find what it put in a cache."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


def unsynchronised(network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Average gradients only in the last of several backward passes."""
    if tell := getattr(network, "set_requires_gradient_sync", None):  # FSDP
        tell(last)
    no_sync = getattr(network, "no_sync", None)  # DDP
    return no_sync() if no_sync and not last else contextlib.nullcontext()


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor that FSDP has sharded; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy whole values into a tensor, sharded or not."""
    if hasattr(tensor, "device_mesh") and hasattr(tensor, "placements"):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
