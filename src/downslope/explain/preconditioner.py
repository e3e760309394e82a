"""What adaptive optimizers divide gradients by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, optim

ADAPTIVE = (optim.Adam, optim.AdamW, optim.RMSprop)
"""Optimizers whose stability is that of the loss in their own steps (arXiv 2207.14484)."""


def divisor(settings: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    """The diagonal P by which a parameter's gradient is divided: (√v̂ + ε)(1 − β₁ᵗ) for Adam and
    AdamW, √v + ε for RMSprop (Cohen et al., arXiv 2207.14484, section 3).

    Args:
        settings: the parameter group of torch's optimizer.
        state: what the optimizer keeps of the parameter.
    """
    beta1, beta2 = settings.get("betas", (0.0, 0.0))
    step = float(state["step"])
    squares: Tensor = state.get("max_exp_avg_sq", state.get("exp_avg_sq", state.get("square_avg")))
    return ((squares / (1 - beta2**step)).sqrt() + settings["eps"]) * (1 - beta1**step)
