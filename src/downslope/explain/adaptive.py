"""How steep a loss is in the steps of an optimizer that divides by its gradients' sizes."""

from __future__ import annotations

from downslope.engines.looped import optimizer_after
from downslope.engines.work import Work
from downslope.explain.again import at_length
from downslope.explain.curvature import Curvature
from downslope.explain.preconditioner import divisor
from downslope.plan import Plan

MOST = 20_000
"""Updates up to which a run is carried out again through torch.optim, for its state at the end."""


def preconditioned(plan: Plan, number: int, curvature: Curvature, steps: int) -> float:
    """The largest eigenvalue of P^-1/2 H P^-1/2 where a run ended after `steps` updates.

    P is what Adam, AdamW or RMSprop divides gradients by, see `preconditioner`. NaN for runs that
    are too long.
    """
    if not 0 < steps <= MOST:
        return float("nan")
    chunk, place = plan.find(number)
    part = plan.groups[chunk.group].part(slice(place, place + 1))
    work = Work(plan.problem, part, at_length(plan, steps, steps), plan.starts)
    parameters, optimizer = optimizer_after(work)
    settings = optimizer.param_groups[0]
    divisors = {n: divisor(settings, optimizer.state[p]) for n, p in parameters.items()
                if n in curvature.layout.shapes}  # fmt: skip
    flat = curvature.flat({n: p.detach()[None] for n, p in parameters.items()})
    roots = curvature.flat({n: d[None] for n, d in divisors.items()}) ** -0.5
    return float(curvature.extremes(flat, roots)[1][0])
