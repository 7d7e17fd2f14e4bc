"""What a checkpoint holds."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.runtime.distributed import World, fill
from sagd.runtime.files import check_output, header, in_scratch, of_machine, read_tensors, set_aside, write_tensors


@dataclass
class State:
    """What a checkpoint holds; it is one safetensors file, written atomically."""

    parameters: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    losses: Tensor
    describe: str
    world: World

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"losses": self.losses}
        for name, p in self.parameters.items():
            tensors |= {f"weights.{name}": p, f"ema.{name}": self.averaged[name]}
            if not p.requires_grad:
                continue
            adamw, *others = self.optimizers
            moments = next((each.state[p] for each in others if p in each.state), None)
            moments = adamw.state[p] if moments is None else moments
            if not moments:  # as AdamW makes them in its first step
                moments["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        return tensors

    def save(self, path: Path | None, step: int) -> None:
        if path is None:
            return
        tensors = self.world.collected(self.tensors())
        if self.world.main:
            tensors |= {"step": torch.tensor(step, device="cpu")}
            write_tensors(path, tensors, {"run": self.describe, "sum": _sum(tensors)})
        self.world.wait()  # a process that ended here would leave the others waiting for its shards

    def resume(self, path: Path | None) -> int:
        """The step to resume from, the same on all processes; 0 if there is no checkpoint, or if it is damaged.

        Raises
        ------
        InputError
            Something else lies there, or nothing can be written there; a checkpoint of another run.
        """
        self.world.check_alike(self.describe)
        refused = _refused(path) if path is not None and self.world.main else ""
        if any(self.world.most(bool(refused))):
            raise InputError(refused or f"the first process refuses {path} for a checkpoint")
        different = f"not all processes find one checkpoint at {path}: SAGD_SCRATCH must be a folder that all hosts see"
        there = path is not None and path.exists()
        if not self.world.alike(str(there)):
            raise InputError(different)
        step = self._load(path) if path is not None and there else 0
        if not self.world.alike(str(step)):
            raise InputError(different)
        return step

    def _load(self, path: Path) -> int:
        try:
            saved = read_tensors(path)
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            earlier = metadata.keys() == {"run"}  # sagd 0.1 wrote no sum
            damage = "" if earlier or metadata.get("sum") == _sum(saved) else f"{path} is not as it was written"
        except InputError as error:
            if of_machine(error.__cause__):  # the file may be whole, and is left where it is
                raise
            damage = str(error)
        if any(self.world.most(bool(damage))):
            damage = damage or f"another process finds {path} damaged"
            self.world.wait()  # all have looked
            if self.world.main:
                set_aside(path, damage, ours=True)
            return 0
        run, mine = metadata.get("run"), self.tensors()
        fits = all(name in saved and saved[name].shape == t.shape for name, t in mine.items())
        if run != self.describe or not fits:
            raise InputError(
                f"{path} is the checkpoint of another run; remove it to begin again, or restore its settings"
            )
        with torch.no_grad():
            for name, tensor in mine.items():
                fill(tensor, saved[name])
        return int(saved["step"])


def _refused(path: Path) -> str:
    """Why a checkpoint can't be saved at a path, or "": all that lies there but a checkpoint is left as it is."""
    try:
        check_output("checkpoint", path)
        if path.exists() and not _ours(path):
            raise InputError(f"checkpoint is {path}, which is there and is no checkpoint of sagd; name another file")
    except InputError as error:
        return str(error)
    return ""


def _ours(path: Path) -> bool:
    """Whether a file is a checkpoint, perhaps a damaged one, or holds nothing."""
    if in_scratch(path) or not path.stat().st_size:
        return True
    metadata = (found := header(path)).get("__metadata__")
    return "step" in found and isinstance(metadata, dict) and "run" in metadata


def _sum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 of tensors on the CPU, in the order of their names: safetensors has no sum of its own."""
    found = 0
    for name in sorted(tensors):
        content = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        found = zlib.crc32(content.numpy().data, found)
    return f"{found:08x}"
