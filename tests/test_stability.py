"""The theory of full batches: against torch.optim itself by bisection, and against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isinf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, optim

from downslope.explain.stability import (
    Best,
    adaptive_threshold,
    best_heavy_ball,
    best_nesterov,
    best_rate,
    contraction,
    signed_factor,
    steps_to,
    threshold,
)


def test_the_line():
    least, largest = np.linalg.eigvalsh(np.array([[16.67, -0.1], [-0.1, 2.0]]))
    assert (round(least, 5), round(largest, 5)) == (1.99932, 16.67068)
    assert round(largest / least, 3) == 8.338
    assert round(float(threshold(largest)), 6) == 0.119971
    best = best_rate(least, largest)
    assert (round(best.rate, 6), round(best.factor, 5)) == (0.107124, 0.78583)
    assert signed_factor(0.1, [least, largest]).round(4).tolist() == [0.8001, -0.6671]


# -- thresholds by bisection through torch.optim -------------------------------------------------


def edge(shrinks: Callable[[float], bool]) -> float:
    """The rate at which `shrinks` changes, between 1e-4 and 1e4, within 0.1 %."""
    low, high = 1e-4, 1e4
    while high / low > 1.001:
        middle = sqrt(low * high)
        low, high = (middle, high) if shrinks(middle) else (low, middle)
    return sqrt(low * high)


def matrix(spectrum: list[float], seed: int) -> Tensor:
    """A symmetric matrix with these eigenvalues, turned at random."""
    noise = torch.randn(len(spectrum), len(spectrum), dtype=torch.float64,
                        generator=torch.Generator().manual_seed(seed))  # fmt: skip
    turned, _ = torch.linalg.qr(noise)
    return turned @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ turned.T


def shrinks(
    hessian: Tensor, make: Callable[..., optim.Optimizer], prepare: Any = None, steps: int = 600
) -> Callable[[float], bool]:
    """Whether torch's optimizer comes nearer to the minimum at a rate."""

    def run(rate: float) -> bool:
        place = torch.nn.Parameter(torch.ones(len(hessian), dtype=torch.float64))
        optimizer = make([place], rate)
        if prepare is not None:
            prepare(optimizer, place)
        early = inf
        for step in range(steps):
            place.grad = hessian @ place.detach()
            optimizer.step()
            length = float(place.detach().norm())
            if not length < 1e3:
                return False
            if step == steps // 2:
                early = length
        return length < early or length < 1e-100

    return run


SPECTRA = st.lists(st.floats(0.1, 10), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)
FEW = settings(max_examples=12, deadline=None)


@FEW
@given(SPECTRA, SEEDS, st.sampled_from([0.0, 0.3, 0.8]), st.sampled_from([0.0, 0.2, 0.5]))
def test_threshold_of_heavy_ball(spectrum, seed, momentum, dampening):
    measured = edge(shrinks(matrix(spectrum, seed), lambda p, lr: optim.SGD(
        p, lr=lr, momentum=momentum, dampening=dampening)))  # fmt: skip
    theory = threshold(max(spectrum), momentum=momentum, dampening=dampening)
    assert measured == pytest.approx(float(theory), rel=0.01)


@FEW
@given(SPECTRA, SEEDS, st.sampled_from([0.3, 0.8]))
def test_threshold_of_nesterov(spectrum, seed, momentum):
    measured = edge(shrinks(matrix(spectrum, seed), lambda p, lr: optim.SGD(
        p, lr=lr, momentum=momentum, nesterov=True)))  # fmt: skip
    theory = threshold(max(spectrum), momentum=momentum, nesterov=True)
    assert measured == pytest.approx(float(theory), rel=0.01)
    assert theory < threshold(max(spectrum))


@FEW
@given(SPECTRA, SEEDS, st.floats(0, 5))
def test_threshold_with_weight_decay(spectrum, seed, decay):
    measured = edge(shrinks(matrix(spectrum, seed), lambda p, lr: optim.SGD(
        p, lr=lr, weight_decay=decay)))  # fmt: skip
    assert measured == pytest.approx(float(threshold(max(spectrum) + decay)), rel=0.01)


STILL = 1 - 1e-15
"""A decay of squared gradients that leaves them as they are."""


@FEW
@given(SPECTRA, SEEDS, st.sampled_from(["RMSprop", "Adam 0", "Adam 0.9"]))
def test_threshold_of_adaptive_methods_with_a_preconditioner_that_stands_still(
    spectrum, seed, name
):
    hessian = matrix(spectrum, seed)
    scales = torch.linspace(0.5, 2, len(spectrum), dtype=torch.float64)  # what gradients meet
    beta1 = 0.9 if name == "Adam 0.9" else 0.0

    def make(p: Any, lr: float) -> optim.Optimizer:
        if name == "RMSprop":
            return optim.RMSprop(p, lr=lr, alpha=STILL, eps=0)
        return optim.Adam(p, lr=lr, betas=(beta1, STILL), eps=0)

    def prepare(optimizer: optim.Optimizer, place: Tensor) -> None:
        group = optimizer.param_groups[0]
        rate, group["lr"] = group["lr"], 0.0
        place.grad = torch.ones_like(place)
        optimizer.step()  # makes the state
        group["lr"] = rate
        state = optimizer.state[place]
        state["square_avg" if name == "RMSprop" else "exp_avg_sq"].copy_(scales**2)
        if name != "RMSprop":
            state["exp_avg"].zero_()
            state["step"].fill_(1e18)

    root = torch.diag(scales**-0.5)
    largest = float(torch.linalg.eigvalsh(root @ hessian @ root)[-1])
    measured = edge(shrinks(hessian, make, prepare))
    assert measured == pytest.approx(float(adaptive_threshold(largest, beta1)), rel=0.01)


# -- factors and best settings --------------------------------------------------------------------


@FEW
@given(SPECTRA, st.floats(0.05, 0.95), st.sampled_from([0.0, 0.5, 0.9]), st.booleans())
def test_contraction_is_how_fast_torch_comes_nearer(spectrum, share, momentum, nesterov):
    nesterov = nesterov and momentum > 0
    limits = {"momentum": momentum, "nesterov": nesterov}
    rate = share * float(threshold(max(spectrum), **limits))
    curvatures = torch.tensor(spectrum, dtype=torch.float64)

    def stepped(distance: float, velocity: float) -> list[Tensor]:
        place = torch.nn.Parameter(torch.full_like(curvatures, distance))
        optimizer = optim.SGD([place], lr=rate, **limits)
        optimizer.state[place]["momentum_buffer"] = torch.full_like(curvatures, velocity)
        place.grad = curvatures * place.detach()
        optimizer.step()
        return [place.detach(), optimizer.state[place]["momentum_buffer"]]

    # One step of torch is a linear map of (distance, velocity): two steps show the whole of it.
    columns = [torch.stack(stepped(1.0, 0.0)), torch.stack(stepped(0.0, 1.0))]
    maps = torch.stack(columns).permute(2, 1, 0)
    if momentum == 0:
        maps = maps[:, :1, :1]
    slowest = torch.linalg.eigvals(maps).abs().amax(1)
    # Double roots: rounding shows as its square root.
    assert contraction(rate, spectrum, **limits) == pytest.approx(slowest.numpy(), abs=1e-6)


@given(st.floats(0.1, 1), st.floats(1.5, 1000))
def test_nothing_is_better_than_the_best(least, condition):
    largest = least * condition
    ends = [least, sqrt(least * largest), largest]

    def slowest(best: Best, nesterov: bool = False) -> float:
        return float(contraction(best.rate, ends, momentum=best.momentum, nesterov=nesterov).max())

    plain, heavy = best_rate(least, largest), best_heavy_ball(least, largest)
    assert slowest(plain) == pytest.approx(plain.factor, rel=1e-9)
    # Double roots: rounding shows as its square root.
    assert slowest(heavy) == pytest.approx(heavy.factor, abs=1e-6)
    ahead = best_nesterov(least, largest)
    assert slowest(ahead, nesterov=True) == pytest.approx(ahead.factor, abs=1e-6)
    assert heavy.factor < plain.factor
    for nudge in (0.97, 1.03):
        for best in (plain, heavy):
            other = Best(best.rate * nudge, best.momentum, 0.0)
            assert slowest(other) > best.factor - 1e-6
        other = Best(heavy.rate, min(heavy.momentum * nudge, 0.999), 0.0)
        assert slowest(other) > heavy.factor - 1e-6


def test_edges_of_the_formulas():
    assert isinf(threshold(0.0)) and isinf(threshold(-1.0))
    assert float(adaptive_threshold(1.0, 0.9)) == pytest.approx(38)
    assert isinf(steps_to(1e-3, 1.0)) and steps_to(1e-3, 0.0) == 1.0
    assert steps_to(1e-6, 0.1) == pytest.approx(6)
    assert threshold([1.0, 2.0]).tolist() == [2.0, 1.0]
