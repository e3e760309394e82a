r"""When a descent is stable, and how fast it is: theory as pure functions of measured numbers.

All of it is exact on a quadratic loss ½ (θ − θ*)ᵀ H (θ − θ*) and local elsewhere: it speaks of the
neighbourhood of the place where the curvature was measured. A curvature is an eigenvalue λ of H, in
the loss's units over the square of the parameters'. With weight decay as ``torch.optim.SGD`` has
it, give λ + weight_decay. Where a curvature may be an array, so may the answer.

On the line of the tutorials (100 points, mean squared error) H has the eigenvalues 1.99932 and
16.67068:

>>> least, largest = 1.99932, 16.67068
>>> f"{threshold(largest):.6f}"
'0.119971'
>>> best = best_rate(least, largest)
>>> f"{best.rate:.6f} {best.factor:.5f}"
'0.107124 0.78583'

Sources: B. Polyak, "Some methods of speeding up the convergence of iteration methods" (1964);
G. Goh, "Why Momentum Really Works", Distill 2017; Y. Nesterov, "Lectures on Convex Optimization"
(2018), section 2.2; Cohen et al., "Adaptive Gradient Methods at the Edge of Stability",
arXiv 2207.14484. What batches change is in `minibatches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


# -- one direction, all rows at once ---------------------------------------------------------------


class Momentum(TypedDict, total=False):
    """What ``torch.optim.SGD`` calls so; left out, 0 and False."""

    momentum: float
    dampening: float
    nesterov: bool


def _dampening(settings: Momentum) -> float:
    """Torch looks at it only where there is momentum."""
    return settings.get("dampening", 0.0) if settings.get("momentum", 0.0) else 0.0


def update_matrix(rate: ArrayLike, curvature: ArrayLike, **settings: Unpack[Momentum]) -> Array:
    """What an update of ``torch.optim.SGD`` does to (distance from the optimum, velocity).

    The first update of torch is another: it takes the gradient undamped for its velocity.

    Args:
        rate, curvature: any shapes that broadcast together.

    Returns:
        (..., 2, 2).
    """
    rate, curvature = np.broadcast_arrays(np.asarray(rate, float), np.asarray(curvature, float))
    momentum, dampening = settings.get("momentum", 0.0), _dampening(settings)
    # v' = (1 − τ) λ θ + μ v, and θ' = θ − η v'; Nesterov: θ' = θ − η (λ θ + μ v')
    velocity = np.stack([(1 - dampening) * curvature, np.full_like(curvature, momentum)], -1)
    step = velocity
    if settings.get("nesterov", False):
        step = momentum * velocity
        step[..., 0] += curvature
    place = -rate[..., None] * step
    place[..., 0] += 1
    return np.stack([place, velocity], -2)


def contraction(rate: ArrayLike, curvature: ArrayLike, **settings: Unpack[Momentum]) -> Array:
    """What the distance from the optimum is multiplied by in the long run, in each update.

    Above 1 it grows. Without momentum, |1 − rate · curvature|; with it, the largest modulus of the
    eigenvalues of `update_matrix`.

    >>> contraction(0.1, [1.99932, 16.67068]).round(4).tolist()
    [0.8001, 0.6671]
    """
    values = np.linalg.eigvals(update_matrix(rate, curvature, **settings))
    made: Array = np.abs(values).max(-1)
    return made


def signed_factor(rate: ArrayLike, curvature: ArrayLike) -> Array:
    """1 − rate · curvature: what plain descent multiplies the distance by. Below 0 it zig-zags."""
    return 1 - np.multiply(rate, curvature, dtype=np.float64)


def threshold(curvature: ArrayLike, **settings: Unpack[Momentum]) -> Array:
    """The rate above which full-batch SGD leaves the optimum; inf where the loss is flat.

    Plain: 2 / λ. Heavy ball: 2 (1 + μ) / ((1 − τ) λ). Nesterov as torch has it:
    (2 + 2μ) / ((1 + 2μ) λ), which is less than 2 / λ.
    """
    curvature = np.asarray(curvature, np.float64)
    momentum = settings.get("momentum", 0.0)
    ahead = settings.get("nesterov", False)
    over = 1 + 2 * momentum if ahead else 1 - _dampening(settings)
    with np.errstate(divide="ignore", invalid="ignore"):
        made = 2 * (1 + momentum) / (over * curvature)
    return np.where(curvature * over > 0, made, inf)


def adaptive_threshold(curvature: ArrayLike, beta1: float = 0.0) -> Array:
    """The rate above which Adam (RMSprop: beta1 = 0) leaves an optimum.

    (2 + 2β₁) / ((1 − β₁) λ) with λ of P^−½ H P^−½, P the diagonal that gradients are divided by,
    as if that stood still (Cohen et al. 2022, section 3).

    Args:
        curvature: eigenvalue of the preconditioned H.

    >>> float(adaptive_threshold(1.0, beta1=0.9).round(9))
    38.0
    """
    return threshold(curvature, momentum=beta1, dampening=beta1)


@dataclass(frozen=True)
class Best:
    """The fastest settings on a quadratic.

    Attributes:
        factor: what the distance is multiplied by in each update, in the slowest direction.
    """

    rate: float
    momentum: float
    factor: float


def best_rate(least: float, largest: float) -> Best:
    """Plain descent: 2 / (λmin + λmax), with factor (κ − 1) / (κ + 1)."""
    return Best(2 / (least + largest), 0.0, (largest - least) / (largest + least))


def best_heavy_ball(least: float, largest: float) -> Best:
    """4 / (√λmax + √λmin)² and ((√κ − 1) / (√κ + 1))²; the factor is √μ (Polyak 1964)."""
    high, low = sqrt(largest), sqrt(least)
    factor = (high - low) / (high + low)
    return Best(4 / (high + low) ** 2, factor**2, factor)


def best_nesterov(least: float, largest: float) -> Best:
    """1 / λmax and (√κ − 1) / (√κ + 1); the factor is 1 − 1/√κ (Nesterov 2018)."""
    root = sqrt(largest / least)
    return Best(1 / largest, (root - 1) / (root + 1), 1 - 1 / root)


def steps_to(shrink: float, factor: float) -> float:
    """Updates until the distance is `shrink` of what it was; inf where it does not shrink.

    >>> round(steps_to(1e-3, 0.5), 2)
    9.97
    """
    if factor >= 1:
        return inf
    return log(1 / shrink) / -log(factor) if factor > 0 else 1.0
