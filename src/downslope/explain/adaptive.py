"""How steep a loss is in the steps of an optimizer that divides by its gradients' sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from downslope.engines.looped import optimizer_after
from downslope.engines.work import Work
from downslope.explain.curvature import Curvature
from downslope.plan import Plan

MOST = 20_000
"""Updates up to which a run is carried out again through torch.optim, for its state at the end."""


def preconditioned(plan: Plan, number: int, curvature: Curvature, steps: int) -> float:
    """The largest eigenvalue of P^-1/2 H P^-1/2 where a run ended after `steps` updates.

    P is the diagonal that Adam, AdamW or RMSprop divides gradients by: (√v̂ + ε)(1 − β₁ᵗ), with
    β₁ = 0 for RMSprop (Cohen et al., arXiv 2207.14484, section 3). NaN for runs that are too long.
    """
    if not 0 < steps <= MOST:
        return float("nan")
    group = next(g for g in plan.groups if number in g.index)
    part = group.part(np.flatnonzero(group.index == number))
    options = replace(
        plan.options, updates=steps, epochs=None, every=steps, keep=frozenset({"loss"}),
        tolerance=None, patience=None,
    )  # fmt: skip
    parameters, optimizer = optimizer_after(Work(plan.problem, part, options, plan.starts))
    settings = optimizer.param_groups[0]
    beta1, beta2 = settings.get("betas", (0.0, 0.0))
    divisors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        if not state:  # it never had a gradient
            divisors[name] = torch.full_like(parameter, torch.inf)
            continue
        step = float(state["step"])
        squares = state.get("max_exp_avg_sq", state.get("exp_avg_sq", state.get("square_avg")))
        root = squares.sqrt() / (1 - beta2**step) ** 0.5 + settings["eps"]
        divisors[name] = root * (1 - beta1**step)
    flat = curvature.flat({n: p.detach()[None] for n, p in parameters.items()})
    roots = curvature.flat({n: d[None] for n, d in divisors.items()}) ** -0.5
    return float(curvature.extremes(flat, roots)[1][0])
