"""An emulated accelerator: tensors that say they are on the device "emu" and are computed on the CPU.

It finds, with true numbers and without a GPU: operations that mix devices, values that the host waits for (`WAITS`),
and float64 on a device that has none (`without_float64`), as Apple's MPS. Importing this registers the device in the
whole process, where it also is `torch.accelerator`'s: tests that use it run in a process of their own.
"""

import contextlib
import types

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

WAITS: list[str] = []  # operations at whose end the host waited for the device
READ = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.bincount", "aten.equal.", "aten._unique",
    "aten.unique", "aten.repeat_interleave.Tensor",
)  # fmt: skip
_lacks = {torch.float64: False}
_backend = types.SimpleNamespace(
    is_available=lambda: True, device_count=lambda: 1, current_device=lambda: 0, is_initialized=lambda: True,
    _is_in_bad_fork=lambda: False, manual_seed_all=lambda seed: None, get_amp_supported_dtype=lambda: [torch.bfloat16],
    get_rng_state=lambda device=0: torch.zeros(0, dtype=torch.uint8), set_rng_state=lambda state, device=0: None,
)  # fmt: skip
_setup_privateuseone_for_python_backend("emu", backend_module=_backend)


@contextlib.contextmanager
def without_float64():
    """Within this, the device has no float64."""
    _lacks[torch.float64] = True
    try:
        yield
    finally:
        _lacks[torch.float64] = False


_Generator = torch.Generator
_generators: list[torch.Generator] = []  # of the device, as operations see them


class _Seen(TorchDispatchMode):
    """Takes note of a generator as operations see it: that is another object."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        _generators.extend(a for a in tree_flatten((args, kwargs))[0] if isinstance(a, _Generator))
        return func(*args, **(kwargs or {}))


class _OfGenerators(type(torch.Generator)):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _Generator)


class Generator(_Generator, metaclass=_OfGenerators):
    """In place of `torch.Generator`: also one on the device, which draws what one of the CPU draws."""

    def __new__(cls, device="cpu"):
        if torch.device(device).type != "emu":
            return _Generator(device)
        found = super().__new__(cls)
        with _Seen():
            torch.empty(0, device="cpu").normal_(generator=found)
        return found

    @property
    def device(self):
        return torch.device("emu:0")


torch.Generator = Generator


class OnDevice(torch.Tensor):
    """A tensor on the device; its numbers are in ``raw``, on the CPU."""

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device="emu:0"
        )

    def __init__(self, raw):
        self.raw = raw  # not `real`: that is a property of tensors

    def __repr__(self):
        return f"OnDevice({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    flat = tree_flatten((args, kwargs))[0]
    tensors = [a for a in flat if isinstance(a, torch.Tensor)]
    here = [a for a in tensors if isinstance(a, OnDevice)]
    name = str(func)
    moves = name.startswith(("aten._to_copy", "aten.copy_"))
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if not moves and here and any(a.ndim > 0 for a in tensors if not isinstance(a, OnDevice)):
        raise RuntimeError(f"{name} mixes devices: {[(tuple(a.shape), a.device.type) for a in tensors]}")
    generators = [a for a in flat if isinstance(a, torch.Generator)]
    if any(any(g is one for one in _generators) != bool(here) for g in generators):
        raise RuntimeError(f"{name}: the generator is on another device")
    if _waits(name, func, args, kwargs, here, target):
        WAITS.append(name)
    plain = {**kwargs, "device": torch.device("cpu")} if target else kwargs
    out = func(*tree_map(_bare, args), **tree_map(_bare, plain))
    if func._schema.is_mutable and name.split(".")[1].endswith("_"):
        return args[0] if func._schema.returns else None
    if moves or target:
        there = target == "emu" if target else isinstance(args[0], OnDevice)
    else:
        there = bool(here)
    return tree_map(_placed, out) if there else out


def _waits(name, func, args, kwargs, here, target):
    """Whether the host waits: for a value, a shape that depends on values, or a copy that does not say otherwise."""
    if name.startswith(("aten._to_copy", "aten.copy_")):
        to = target or ("emu" if isinstance(args[0], OnDevice) else "cpu")
        given = args[1] if name.startswith("aten.copy_") else args[0]
        told = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        # To the device, numbers without an axis travel with the kernel; to the CPU every copy is waited for.
        return to != given.device.type and (to == "cpu" or (given.ndim > 0 and not told))
    if not here:
        return False
    if name.startswith(
        ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.bincount", "aten.equal")
    ):
        return True
    if name.startswith("aten.index.") or name.startswith(("aten.index_put", "aten._index_put")):
        return any(isinstance(a, torch.Tensor) and a.dtype in (torch.bool, torch.uint8) for a in args[1])
    return False


def _bare(a):
    return a.raw if isinstance(a, OnDevice) else a


def _placed(a):
    if not isinstance(a, torch.Tensor) or isinstance(a, OnDevice):
        return a
    if _lacks[torch.float64] and a.dtype in (torch.float64, torch.complex128):
        raise TypeError("the device has no float64")
    with torch.inference_mode(False):  # a view made in inference mode is no inference tensor
        return OnDevice(a)


def _created(func, *args, **kwargs):
    """What is made on the device without a tensor that is there, such as torch.zeros(2, device="emu")."""
    return tree_map(_placed, func(*tree_map(_bare, args), **{**kwargs, "device": torch.device("cpu")}))


def _copied(self, source, non_blocking=False):
    """As `torch.as_tensor(number, device="emu")` copies, below what a subclass of tensors sees."""
    return _run(torch.ops.aten.copy_.default, (self, source, non_blocking), {})


_libraries = [torch.library.Library(name, "IMPL") for name in ("_", "aten")]  # while they live, so does what they hold
_libraries[0].fallback(_created, "PrivateUse1")
_libraries[1].impl("copy_", _copied, "PrivateUse1")
