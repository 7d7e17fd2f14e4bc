"""Muon: orthogonal updates for the hidden layers' matrices, AdamW for the rest."""

import pytest
import torch
from torch import nn

from sagd.errors import InputError
from sagd.networks.unet import unet
from sagd.training import optimizer
from sagd.training.optimizer import Muon, optimizers, orthogonalized
from sagd.training.recipe import Recipe

RECIPE = Recipe(steps=10, batch_size=4, lr=0.01, optimizer="muon", weight_decay=0.0)


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)], ids=str)
def test_singular_values_come_near_1(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -1, min(shape))
    found = orthogonalized(u @ torch.diag(values) @ v)
    left = torch.linalg.svdvals(found)
    assert left.max() < 1.25 and left.min() > 0.65
    # The directions stay: U^T found V is diagonal.
    rotated = u.T @ found @ v.T
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 1e-4


def test_every_weight_has_one_optimiser_and_muon_has_the_hidden_matrices():
    network = unet((8, 8), 3, widths=[8, 16], layers=1, attention=[False, True], groups=4, classes=20)
    adamw, muon = optimizers(network, RECIPE)
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, Muon)
    names = {id(p): name for name, p in network.named_parameters()}
    of = [{names[id(p)] for p in each.param_groups[0]["params"]} for each in (adamw, muon)]
    assert of[0] | of[1] == set(names.values()) and not of[0] & of[1]
    assert {"conv_in.weight", "conv_out.weight", "class_embedding.weight", "conv_norm_out.weight"} <= of[0]
    assert all(name.endswith("weight") for name in of[1])
    assert any("resnets.0.conv1" in name for name in of[1]) and any("to_q" in name for name in of[1])
    (alone,) = optimizers(network, Recipe(steps=10, batch_size=4))
    assert isinstance(alone, torch.optim.AdamW) and len(alone.param_groups[0]["params"]) == len(names)


def test_an_update_has_the_size_of_adamws():
    """Root mean square 0.2 times the learning rate, about, whatever the gradient's scale and the matrix's shape."""
    for shape in ((16, 8, 3, 3), (64, 16), (8, 128)):
        for scale in (1e-4, 1e3):
            weight = nn.Parameter(torch.zeros(shape))
            weight.grad = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
            Muon([weight], lr=0.01).step()
            assert weight.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.25)
            assert (weight * weight.grad).sum() < 0


def test_weights_decay_and_those_without_gradient_stay():
    weight, still = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.zeros(8, 8)
    Muon([weight, still], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((8, 8), 0.95))
    assert torch.equal(still.detach(), torch.ones(8, 8))


def test_what_cannot_be_optimised_is_refused(monkeypatch):
    network = unet((8, 8), 1, widths=[8], layers=1, attention=[False], groups=4)
    with pytest.raises(InputError, match="optimizer is 'sgd'"):
        optimizers(network, Recipe(steps=1, batch_size=1, optimizer="sgd"))
    monkeypatch.setattr(optimizer, "hasattr", lambda p, name: name == "to_local", raising=False)
    with pytest.raises(InputError, match=r"muon.*FSDP"):
        optimizers(network, RECIPE)
