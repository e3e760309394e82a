"""Each update rule, fed random gradients and hyperparameters, against torch.optim's own step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, optim

from downslope.optimizers import RULES, hyperparameters

STEPS, SIZE, RUNS = 12, 7, 3
SLOW = [HealthCheck.too_slow]


def _numbers(low: float, high: float) -> st.SearchStrategy:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


rate = _numbers(1e-4, 0.3)
decay = st.one_of(st.just(0.0), _numbers(1e-3, 0.5))
share = _numbers(0.0, 0.999)
betas = st.tuples(_numbers(0.0, 0.99), _numbers(0.1, 0.9999))
eps = st.sampled_from([1e-10, 1e-8, 1e-4])
flag = st.booleans()

SPACES: dict[type[optim.Optimizer], dict[str, st.SearchStrategy]] = {
    optim.SGD: {"lr": rate, "momentum": st.one_of(st.just(0.0), share), "weight_decay": decay,
                "dampening": st.one_of(st.just(0.0), _numbers(0, 1))},
    optim.Adam: {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay},
    optim.AdamW: {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay},
    optim.NAdam: {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay,
                  "momentum_decay": _numbers(0, 0.1)},
    optim.RAdam: {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay},
    optim.Adamax: {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay},
    optim.RMSprop: {"lr": rate, "alpha": _numbers(0.1, 0.999), "eps": eps, "weight_decay": decay,
                    "momentum": st.one_of(st.just(0.0), share)},
    optim.Adagrad: {"lr": rate, "lr_decay": st.one_of(st.just(0.0), _numbers(0, 1)), "eps": eps,
                    "weight_decay": decay, "initial_accumulator_value": _numbers(0, 1)},
    optim.Adadelta: {"lr": _numbers(0.01, 2), "rho": _numbers(0.1, 0.99), "eps": eps,
                     "weight_decay": decay},
    optim.Rprop: {"lr": rate, "etas": st.tuples(_numbers(0.1, 0.9), _numbers(1.05, 2)),
                  "step_sizes": st.tuples(_numbers(1e-6, 1e-3), _numbers(0.5, 50))},
    optim.ASGD: {"lr": rate, "lambd": _numbers(0, 0.1), "alpha": _numbers(0.1, 1),
                 "weight_decay": decay},
}  # fmt: skip
"""Hyperparameters that may differ between runs side by side."""

SWITCHES: dict[type[optim.Optimizer], tuple[str, ...]] = {
    optim.SGD: ("nesterov", "maximize"),
    optim.Adam: ("amsgrad", "maximize"),
    optim.AdamW: ("amsgrad", "maximize"),
    optim.NAdam: ("decoupled_weight_decay", "maximize"),
    optim.RAdam: ("decoupled_weight_decay", "maximize"),
    optim.RMSprop: ("centered", "maximize"),
}
FIXED_ELSEWHERE = {
    "decoupled_weight_decay": "of Adam, which is what AdamW is",
    "t0": "of ASGD, whose averaged iterate is kept apart from the parameters",
}


def test_every_rule_and_each_of_its_hyperparameters_is_tried():
    assert set(SPACES) == set(RULES)
    for cls, space in SPACES.items():
        names = {*hyperparameters(cls).shown} - {*space, *SWITCHES.get(cls, ("maximize",))}
        assert names <= set(FIXED_ELSEWHERE), (cls, names)


def _drawn(cls: type[optim.Optimizer], data: Any) -> tuple[list[dict], dict]:
    """Hyperparameters of each run, and the switches they share."""
    switches = {name: data.draw(flag, name) for name in SWITCHES.get(cls, ("maximize",))}
    runs = [
        {name: data.draw(space, name) for name, space in SPACES[cls].items()} for _ in range(RUNS)
    ]
    if switches.get("nesterov"):  # which torch takes with momentum and without dampening only
        runs = [{**run, "momentum": max(run["momentum"], 0.1), "dampening": 0.0} for run in runs]
    return runs, switches


def _torchs(cls: type[optim.Optimizer], run: dict, start: Tensor, gradients: Tensor) -> Tensor:
    """(steps, size): where torch.optim is after each step."""
    parameter = torch.nn.Parameter(start.clone())
    stepped = cls([parameter], **run, foreach=False)
    path = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        stepped.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def _hyper(cls: type[optim.Optimizer], runs: list[dict]) -> dict[str, Any]:
    """Per-run values as a rule takes them: (runs, 1) in float64; None where all are zero."""
    hyper: dict[str, Any] = {}
    for name in runs[0]:
        column = torch.tensor([run[name] for run in runs], dtype=torch.float64)
        if name in RULES[cls].left_out and not column.any():
            hyper[name] = None
        elif column.ndim == 2:
            hyper[name] = tuple(column[:, [i]] for i in range(column.shape[1]))
        else:
            hyper[name] = column[:, None]
    return hyper


def _ours(
    cls: type[optim.Optimizer], runs: list[dict], switches: dict, start: Tensor, gradients: Tensor
) -> Tensor:
    """(steps, runs, size)."""
    rule, hyper = RULES[cls], _hyper(cls, runs)
    switches = {**switches, **rule.switches}
    parameter, path = start, []
    state = rule.first_state(parameter, hyper, switches)
    for number, gradient in enumerate(gradients, start=1):
        step = torch.tensor(float(number), dtype=torch.float64)
        parameter, state = rule.update(parameter, gradient, state, hyper, step, **switches)
        path.append(parameter)
    return torch.stack(path)


def _random(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Starts (runs, size) and gradients (steps, runs, size) over many magnitudes, some zero."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(RUNS, SIZE, generator=generator, dtype=torch.float64)
    gradients = torch.randn(STEPS, RUNS, SIZE, generator=generator, dtype=torch.float64)
    gradients *= torch.logspace(-3, 2, SIZE, dtype=torch.float64)
    gradients[torch.rand(gradients.shape, generator=generator) < 0.05] = 0
    return start.to(dtype), gradients.to(dtype)


@pytest.mark.parametrize("cls", SPACES, ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_rules_step_as_torch_does(cls, data, seed):
    runs, switches = _drawn(cls, data)
    start, gradients = _random(seed, torch.float64)
    ours = _ours(cls, runs, switches, start, gradients)
    for number, run in enumerate(runs):
        wanted = _torchs(cls, {**run, **switches}, start[number], gradients[:, number])
        # Centred, a variance is a difference of nearly equal numbers: rounding counts more.
        slack = 1e-6 if switches.get("centered") else 1e-10
        moved = (wanted - start[number]).abs().amax(0)
        off = (ours[:, number] - wanted).abs().amax(0)
        assert (off <= slack * (moved + start[number].abs())).all()


@pytest.mark.parametrize("cls", SPACES, ids=lambda cls: cls.__name__)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_in_single_precision_they_are_as_near_as_rounding_allows(cls, data, seed):
    runs, switches = _drawn(cls, data)
    if switches.get("centered"):
        switches["centered"] = False  # in single precision torch's own variance may be negative
    start, gradients = _random(seed, torch.float32)
    ours = _ours(cls, runs, switches, start, gradients)
    assert ours.dtype == torch.float32
    for number, run in enumerate(runs):
        wanted = _torchs(cls, {**run, **switches}, start[number], gradients[:, number])
        exact, moved = (
            _torchs(
                cls, {**run, **switches},
                start[number].double() * (1 + last_bit),
                gradients[:, number].double() * (1 - last_bit),
            )
            for last_bit in (0.0, 1e-7)
        )  # fmt: skip
        size = exact.abs().amax(0) + (exact - start[number]).abs().amax(0)
        # Within 1e-6 of torch, or ten times torch's own error and what a last bit changes: a
        # decay that cancels the gradient leaves little but rounding.
        slack = (wanted - exact).abs().amax(0) + (moved - exact).abs().amax(0)
        off = (ours[:, number] - wanted).abs().amax(0)
        assert (off <= 1e-6 * size + 10 * slack).all()


@pytest.mark.parametrize("cls", SPACES, ids=lambda cls: cls.__name__)
def test_a_rule_leaves_its_arguments_alone(cls):
    defaults = {name: hyperparameters(cls).defaults[name] for name in SPACES[cls]}
    hyper = _hyper(cls, [{**defaults, "lr": 0.01}] * RUNS)
    switches = {name: False for name in SWITCHES.get(cls, ("maximize",))} | dict(
        RULES[cls].switches
    )
    start, gradients = _random(0, torch.float64)
    state = RULES[cls].first_state(start, hyper, switches)
    kept = start.clone(), gradients.clone(), {n: s.clone() for n, s in state.items()}
    step = torch.tensor(1.0, dtype=torch.float64)
    new, _ = RULES[cls].update(start, gradients[0], state, hyper, step, **switches)
    assert torch.equal(start, kept[0]) and torch.equal(gradients, kept[1])
    assert all(torch.equal(state[name], value) for name, value in kept[2].items())
    assert not torch.equal(new, start)


def test_a_first_step_of_each_by_hand():
    """Closed forms at step 1, with gradient g = 3 at p = 2 and lr = 0.1."""
    g, p, lr = 3.0, 2.0, 0.1
    first = {
        optim.SGD: p - lr * g,
        optim.Adam: p - lr * g / (g + 1e-8),
        optim.AdamW: p * (1 - lr * 0.01) - lr * g / (g + 1e-8),
        optim.RAdam: p - lr * g,  # not rectified yet: the mean alone
        optim.Adamax: p - lr * g / (g + 1e-8),
        optim.RMSprop: p - lr * g / (np.sqrt(0.01 * g * g) + 1e-8),
        optim.Adagrad: p - lr * g / (g + 1e-10),
        optim.Rprop: p - lr,
        optim.Adadelta: p - lr * g * np.sqrt(1e-6) / np.sqrt(0.1 * g * g + 1e-6),
    }
    for cls, wanted in first.items():
        defaults = {name: hyperparameters(cls).defaults[name] for name in SPACES[cls]}
        hyper = _hyper(cls, [{**defaults, "lr": lr}])
        switches = {n: False for n in SWITCHES.get(cls, ("maximize",))} | dict(RULES[cls].switches)
        start = torch.tensor([[p]], dtype=torch.float64)
        state = RULES[cls].first_state(start, hyper, switches)
        step = torch.tensor(1.0, dtype=torch.float64)
        gradient = torch.tensor([[g]], dtype=torch.float64)
        new, _ = RULES[cls].update(start, gradient, state, hyper, step, **switches)
        assert new.item() == pytest.approx(wanted, rel=1e-12), cls
