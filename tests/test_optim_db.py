"""torch's own database of optimizers: every valid input, against three torch.optim runs."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from cases import (
    DOUBLE,
    Posed,
    assert_agrees,
    batches_of,
    plain,
    posed_module,
    seeded,
    table_rows,
)
from torch import nn, optim

from downslope import InputError, Problem, descend
from downslope.optimizers import RULES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch's test helpers import is not ours to judge
    from torch.testing._internal.common_optimizers import optim_db

ROWS, STEPS = 10, 100
INNER_STEPS = {optim.LBFGS: 20}
"""An optimizer that takes up to twenty steps in one has fewer to take."""

NO_EQUIVALENT = {
    "params argument given to the optimizer": "a problem names its parameters itself",
    "duplicate parameters": "a problem names each parameter once",
    "more than one parameter group": "the first pattern that fits a parameter counts",
    "with/without names": "a problem's parameters all have names",
    "complex parameters": "a problem's parameters are real",
    "SparseAdam requires dense": "a problem's parameters are dense",
}
"""Declared exceptions: errors about `params`, which `descend` does not take."""


def _posed(optimizer: type[optim.Optimizer]) -> Posed:
    """A small least-squares task that the optimizer can take, always at the same start."""
    X, y = table_rows(ROWS, 3)
    if optimizer is optim.SparseAdam:
        X = torch.arange(ROWS) % 4
        y = y[:, [0, 0]]
        make = lambda: nn.Embedding(4, 2, sparse=True)  # noqa: E731
    elif optimizer is optim.Muon:
        make = lambda: nn.Linear(3, 1, bias=False)  # noqa: E731
    else:
        make = lambda: nn.Linear(3, 1)  # noqa: E731
    problem = Problem.from_model(seeded(make), X, y, loss=nn.MSELoss())
    return posed_module(seeded(make), X, y, nn.MSELoss(), problem)


def _valid() -> list[Any]:
    return [
        pytest.param(info.optim_cls, given.kwargs, id=f"{info.optim_cls.__name__}-{given.desc}")
        for info in optim_db
        for given in info.optim_inputs_func(device="cpu")
    ]


@pytest.mark.parametrize("engine", ["auto", "stacked"])
@pytest.mark.parametrize(("optimizer", "kwargs"), _valid())
def test_every_valid_input_descends_as_torch_does(optimizer, kwargs, engine):
    if engine == "stacked" and optimizer not in RULES:
        pytest.skip("only torch.optim itself takes this optimizer's steps")
    base = kwargs.get("lr", inspect.signature(optimizer).parameters["lr"].default)
    rates = [0.3 * float(base), float(base), 1.7 * float(base)]
    rest = {name: value for name, value in kwargs.items() if name != "lr"}
    steps = INNER_STEPS.get(optimizer, STEPS)
    task = _posed(optimizer)
    runs = descend(
        task.problem, optimizer, lr=rates, **rest, steps=steps, engine=engine, divergence=None
    )
    assert runs.table["status"].to_list() == ["finished"] * 3

    def reference(rate: float, flipped: bool) -> Any:
        rows = batches_of(ROWS, None, "cyclic", 0, steps, flipped)
        return plain(_posed(optimizer), optimizer, {**rest, "lr": rate}, rows)

    for run, rate in zip(runs, rates, strict=True):
        assert_agrees(
            run.parameters,
            reference(rate, False),
            lambda rate=rate: reference(rate, True),
            f"{optimizer.__name__} at lr={rate:g}",
        )


def test_auto_takes_stacked_for_many_runs_and_agrees_too():
    task = _posed(optim.Adam)
    rates = [0.001, 0.003, 0.01, 0.03, 0.1]
    runs = descend(task.problem, optim.Adam, lr=rates, steps=STEPS)
    assert set(runs.table["engine"]) == {"stacked"}
    for run, rate in zip(runs, rates, strict=True):
        rows = batches_of(ROWS, None, "cyclic", 0, STEPS)
        wanted = plain(_posed(optim.Adam), optim.Adam, {"lr": rate}, rows)
        assert_agrees(run.parameters, wanted, lambda wanted=wanted: wanted)


def _errors() -> list[Any]:
    made = []
    for info in optim_db:
        for number, error in enumerate(info.optim_error_inputs_func(device="cpu", dtype=DOUBLE)):
            about_params = any(said in error.error_regex for said in NO_EQUIVALENT)
            kwargs = error.optimizer_error_input.kwargs
            if about_params or not kwargs:
                assert about_params or error.optimizer_error_input.params is not None
                continue
            name = info.optim_cls.__name__
            made.append(pytest.param(info.optim_cls, kwargs, id=f"{name}-{number}"))
    return made


def _at_fault(optimizer: type[optim.Optimizer], kwargs: dict[str, Any]) -> list[str]:
    """The names torch itself would not take alone, among those given."""
    parameters = list(_posed(optimizer).parameters.values())
    faulty = []
    for name, value in kwargs.items():
        try:
            optimizer(parameters, **{name: value})
        except ValueError:
            faulty.append(name)
    return faulty or list(kwargs)


@pytest.mark.parametrize(("optimizer", "kwargs"), _errors())
def test_every_invalid_hyperparameter_is_named(optimizer, kwargs):
    with pytest.raises(InputError) as raised:
        descend(_posed(optimizer).problem, optimizer, **kwargs, steps=1)
    for name in _at_fault(optimizer, kwargs):
        assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_muon_says_that_it_wants_matrices():
    X, y = table_rows(ROWS, 3)
    problem = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, y, loss=nn.MSELoss())
    with pytest.raises(InputError, match="Muon only supports 2D parameters"):
        descend(problem, optim.Muon, steps=1)
