"""Files that stages hand each other."""

import torch

from sagd.runtime.files import holds, write_tensors


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
