"""Several processes that do one piece of work, as `accelerate launch` or `torchrun` starts them, on one host or more.

With one process every method is a no-op. What is random never depends on the world: a
batch is drawn whole by everyone (`Spectrum.sample`), and image k has a generator of its own.
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

from sagd.errors import InputError
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

        By DDP; under ``accelerate launch --use_fsdp`` by FSDP, which shares out the weights as well: of a network that
        comes on the CPU, a device never holds more than a block whole.
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
        """The mean of a tensor over the processes."""
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

    def decided(self, found: bool) -> bool:
        """Whether rank 0 says yes: one answer for all processes."""
        return bool(self.most(self.main and found)[0])

    def alike(self, text: str) -> bool:
        """Whether all processes give the same text."""
        number = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
        most, least = self.most(number, -number)
        return most == -least

    def check_alike(self, work: str) -> None:
        """Refuse processes that would not do the same, as those of a host with other code or data."""
        if not self.alike(work):
            raise InputError("the processes have different settings, data or code; all hosts need the same")

    def collected(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors on rank 0's CPU, put together, one by one, where FSDP has shared them out; elsewhere nothing."""
        found = {}
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            if hasattr(tensor, "full_tensor"):
                tensor = tensor.full_tensor()  # which all processes must ask for
            if self.main:
                found[name] = tensor.cpu()
        return found

    def wait(self) -> None:
        """Go on when everyone is here."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Make a folder in the scratch, and keep all other runs out of it, which wait until this one has ended.

        Raises
        ------
        InputError
            A folder that cannot be written or locked, or that is not one for all processes.
        """
        place = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(place, "a") if self.main else None  # a run that waits wipes nothing
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror}; SAGD_SCRATCH names another folder") from error
        with file or contextlib.nullcontext():
            told = False
            # Not a wait of rank 0 alone, which the others would give up.
            while not any(self.most(file is not None and try_lock(file, None if told else folder))):
                told = True
                time.sleep(1)
            if file is not None:
                file.truncate(0)
                file.write(f"{os.getpid()} {time.time_ns()}")
                file.flush()
                os.fsync(file.fileno())  # the other hosts are about to read it, perhaps over a network
                for left in folder.glob(".*"):  # by a process that was killed as it wrote
                    left.unlink()
            self.wait()
            if not self.alike(place.read_text() if place.exists() else ""):
                raise InputError(
                    f"{folder} is not one folder for all hosts: SAGD_SCRATCH must name a disk that all see"
                )
            yield

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let rank 0 do something before the others do: what it left in a cache, they find there."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


def unsynchronised(network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Gradients are averaged at the last of several backward passes only."""
    if tell := getattr(network, "set_requires_gradient_sync", None):  # FSDP
        tell(last)
    no_sync = getattr(network, "no_sync", None)  # DDP
    return no_sync() if no_sync and not last else contextlib.nullcontext()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP has shared out; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy whole values into a tensor, shared out or not."""
    if hasattr(tensor, "device_mesh") and hasattr(tensor, "placements"):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
