"""Several processes that do one piece of work, as `accelerate launch` or `torchrun` starts them, on one host or more.

A process alone is all of its world, and nothing here does anything then. What is random never depends on the world: a
batch is drawn whole by everyone (`Spectrum.sample`), and image k has a generator of its own.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import Tensor, nn

from sagd.errors import InputError

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

    def __init__(self):
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

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the world.

        By DDP; by FSDP, which shares out the weights as well, under ``accelerate launch --use_fsdp``.
        """
        if self.size == 1:
            return network
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
            from torch.distributed.fsdp import fully_shard

            network.to(memory_format=torch.contiguous_format)  # the only one that FSDP takes
            shared_out = getattr(network, "_no_split_modules", None) or ()
            for module in network.modules():
                if type(module).__name__ in shared_out:
                    fully_shard(module)
            return fully_shard(network)
        return nn.parallel.DistributedDataParallel(
            network, device_ids=[self.device] if self.device.type == "cuda" else None
        )

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.size == 1:
            return value
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value / self.size

    def any(self, *flags: bool) -> list[bool]:
        """Whether any process says yes, for each of some questions."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        return [bool(v) for v in votes.tolist()]

    def wait(self) -> None:
        """Go on when everyone is here."""
        if self.size > 1:
            torch.distributed.barrier()

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
    if hasattr(network, "set_requires_gradient_sync"):
        network.set_requires_gradient_sync(last)
    return network.no_sync() if hasattr(network, "no_sync") and not last else contextlib.nullcontext()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP has shared out; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP has shared out, put together, which all processes must ask for; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy whole values into a tensor, shared out or not."""
    if hasattr(tensor, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
