"""Optimizers of a user's own, and short settings, for the tests of compare."""

import torch
from torch import optim

QUICK = {"budget": 6, "steps": 40, "progress": False}


class Plain(optim.Optimizer):
    """A user's own class: gradient descent."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad


class Broken(Plain):
    """Climbs where there are more than two parameters, so that it diverges there."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p += (1.0 if p.numel() > 2 else -0.01) * p.grad * (5.0 if p.numel() > 2 else 1.0)
