"""The optimisers: AdamW, or Muon for the hidden layers' matrices with AdamW for the rest."""

import torch
from torch import Tensor, nn

from sagd.errors import InputError, check_number
from sagd.training.recipe import Recipe

LEAST = 8  # rows and columns of a matrix that Muon takes: not those that read or write colours


def optimizers(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The optimisers of a network's weights, each weight in one of them.

    Raises
    ------
    InputError
        A network without weights to train; Muon for weights that FSDP has sharded, since it needs whole matrices.
    """
    wanted = [p for p in network.parameters() if p.requires_grad]
    matrices: list[nn.Parameter] = []
    if recipe.optimizer == "muon":
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        matrices = [p for p in wanted if any(p is m.weight for m in layers) and min(p.shape[:2]) >= LEAST]
        if any(hasattr(w, "to_local") for w in matrices):
            raise InputError("optimizer is 'muon', which needs whole weights: FSDP shards them; take adamw, or DDP")
    chosen = {id(w) for w in matrices}
    if not wanted:
        raise InputError(f"{type(network).__name__} has no weights that can be trained")
    rest = [p for p in wanted if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    ]
    return [*found, Muon(matrices, recipe.lr, recipe.weight_decay)] if matrices else found


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is orthogonalised (Jordan et al., 2024), for matrices and filters (out, in, ...).

    `torch.optim.Muon` takes matrices alone, and multiplies them in bfloat16, which most CPUs emulate: there it is two
    to four times slower than this. Nesterov momentum; updates of AdamW's size, so that both take one learning rate
    (Liu et al., arXiv 2502.16982).

    Parameters
    ----------
    momentum
        Of the running average of the gradients.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        check_number("lr", lr, least=0)
        check_number("weight_decay", weight_decay, least=0)
        check_number("momentum", momentum, least=0, below=1)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for p in params:
            self.state[p]["momentum"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights along their gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p]["momentum"].lerp_(p.grad, 1 - group["momentum"])
                matrix = p.grad.lerp(average, group["momentum"]).flatten(1)
                size = 0.2 * max(matrix.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalized(matrix).view_as(p), alpha=-group["lr"] * size)


def orthogonalized(matrix: Tensor, steps: int = 5) -> Tensor:
    """U V^T of a matrix U S V^T, about: its singular values are brought to 0.7 to 1.2, by Newton-Schulz iterations.

    The polynomial is that of Jordan et al., which is steep at 0.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T) / (matrix.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T
