"""What `descend` may be asked for, compiled, beside `looped`: optimizers with every option,
schedules, orders, batches, records, stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from beside import ALL_KEPT, assert_as_looped, assert_refused, fused
from cases import CASES, DOUBLE, problem_named, seeded, table_rows
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_rules import SPACES, SWITCHES
from torch import nn, optim
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from downslope import Grid, Problem, Schedule
from downslope.engines.fused import run as fused_run
from downslope.optimizers import RULES

X, Y = table_rows(14, 3)
LINE = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, Y, loss=nn.MSELoss())
NET = problem_named("tanh")
UNHURRIED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],  # each example is a compilation
}


# -- optimizers --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if c.optimizer in RULES], ids=lambda c: c.id)
def test_every_optimizer_and_option(case):
    assert_as_looped(
        NET, case.optimizer, lr=list(case.rates), **case.settings, seed=[0, 7], epochs=5,
        batch_size=5, every=3, keep=ALL_KEPT, divergence=None,
    )  # fmt: skip


def _hyper(optimizer: type[optim.Optimizer]) -> st.SearchStrategy:
    """Values of each hyperparameter for two runs, zeros among them, and switches."""
    numbers = {n: st.lists(s, min_size=2, max_size=2) for n, s in SPACES[optimizer].items()}
    switches = {n: st.booleans() for n in SWITCHES.get(optimizer, ())}
    return st.tuples(st.just(optimizer), st.fixed_dictionaries(numbers | switches))


hypers = st.sampled_from(list(RULES)).flatmap(_hyper)


def _assert_hyper(optimizer: type[optim.Optimizer], given: dict[str, Any], size: Any) -> None:
    if given.get("nesterov") and (0 in given["momentum"] or any(given["dampening"])):
        given = given | {"nesterov": False}
    given = given | {"lr": [0.1 * rate for rate in given["lr"]]}
    grid = {n: v for n, v in given.items() if not isinstance(v, list)}
    rows = [
        {n: v[run] for n, v in given.items() if isinstance(v, list)} for run in range(2)
    ] * 3  # beside itself: more than are laid out across samples
    asked = {"steps": 40, "batch_size": size, "divergence": None}
    assert_as_looped(LINE, Grid.of(optimizer, [{**grid, **row} for row in rows]), **asked)


@settings(max_examples=15, derandomize=True, **UNHURRIED)
@given(hypers, st.sampled_from(["full", 4]))
def test_hyperparameters_at_random(chosen, size):
    _assert_hyper(*chosen, size)


@pytest.mark.slow
@settings(max_examples=400, **UNHURRIED)
@given(hypers, st.sampled_from(["full", 4, 1]))
def test_many_hyperparameters_at_random(chosen, size):
    _assert_hyper(*chosen, size)


def test_rates_and_decays_by_pattern():
    rates = {"0.*": [0.1, 0.01], "*.weight": [0.05, 0.1], "*": [0.02]}
    decay = {"*.bias": [0.0], "*.weight": [0.0, 0.1]}
    for optimizer in (optim.SGD, optim.NAdam, optim.ASGD):
        assert_as_looped(NET, optimizer, lr=rates, weight_decay=decay, steps=20, keep=ALL_KEPT)
    by_group = Schedule(schedulers.OneCycleLR, max_lr=[0.1, 0.2, 0.3], per="step")
    assert_as_looped(NET, optim.SGD, lr=rates, momentum=0.9, steps=20, schedule=by_group)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_state_that_optimizers_keep_in_torchs_default_dtype(default):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        for optimizer in (optim.ASGD, optim.NAdam):
            assert_as_looped(LINE, optimizer, lr=[0.01, 0.1], steps=100)
        assert_as_looped(LINE, optim.ASGD, lr=[0.01], lambd=0.1, alpha=0.5, steps=100)
    finally:
        torch.set_default_dtype(before)


# -- schedules ---------------------------------------------------------------------------------

SCHEDULES = {
    "step": Schedule(schedulers.StepLR, step_size=2),
    "exponential": Schedule(schedulers.ExponentialLR, gamma=0.9, per="step"),
    "cosine": Schedule(schedulers.CosineAnnealingLR),
    "one cycle": Schedule(schedulers.OneCycleLR, max_lr=0.1, per="step"),
    "cyclic": Schedule(schedulers.CyclicLR, base_lr=0.001, max_lr=0.1, step_size_up=7, per="step"),
    "by a function": Schedule(schedulers.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rates", [[0.01, 0.02, 0.005, 0.015, 0.012], [0.01]])
def test_schedules(name, rates):
    asked = {"lr": rates, "epochs": 6, "batch_size": [5, "full"], "schedule": SCHEDULES[name]}
    assert_as_looped(LINE, optim.SGD, momentum=0.9, keep=ALL_KEPT, **asked)
    assert_as_looped(LINE, optim.Adam, **asked)


def test_schedules_that_cannot_be_known_beforehand():
    plateau = Schedule(schedulers.ReduceLROnPlateau)
    assert_refused(LINE, "the schedule needs the loss", schedule=plateau)
    down = Schedule(
        schedulers.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2, base_momentum=0.0, per="step"
    )
    assert_refused(LINE, "brings the momentum to 0", momentum=0.9, schedule=down, steps=5)


# -- batches, orders and records ---------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffle", "cyclic", "replacement"])
@pytest.mark.parametrize("runs", [1, 5])
def test_batches_in_every_order(order, runs):
    """14 rows: whole, ragged, single, and more than there are; few and many runs' layouts."""
    sizes = [1, 4, 13, 14, 20, "full"]
    asked = {"order": order, "every": "step", "keep": ALL_KEPT, "steps": 33}
    assert_as_looped(LINE, lr=[0.01 * k for k in range(1, runs + 1)], batch_size=sizes, **asked)


@pytest.mark.parametrize("seeds", [2, 3, 9, 40])
def test_seeds_with_orders_of_their_own(seeds):
    """Runs that share an order in whole, half and quarter vectors, or not at all."""
    rates = [0.01, 0.02, 0.03][: max(1, 12 // seeds)]
    assert_as_looped(LINE, lr=rates, seed=list(range(seeds)), batch_size=5, epochs=4)
    if seeds == 40:
        for dtype in (torch.float32, torch.float64):
            assert_as_looped(LINE, within=1e-5, lr=rates, seed=list(range(40)), batch_size=1,
                             epochs=2, dtype=dtype)  # fmt: skip


@pytest.mark.parametrize("size", [16, 17, 40, 64])
def test_a_single_run_with_samples_across_the_vector(size):
    X, y = table_rows(71, 3, seed=5)
    problem = Problem.from_model(NET.template.model, X, y, loss=nn.MSELoss())
    for order in ("shuffle", "cyclic", "replacement"):
        runs = assert_as_looped(
            problem, optim.Adam, lr=0.01, batch_size=size, order=order, epochs=3, keep=ALL_KEPT,
            validation=(X[:19], y[:19]),
        )  # fmt: skip
    assert runs.plan.chunks[0].engine == "fused-samples"


def test_loaders_that_drop_the_last_batch():
    data = TensorDataset(X, Y)
    asked = {"lr": [0.01] * 5, "epochs": 4, "keep": ALL_KEPT}
    for how in (
        {"batch_size": 4, "shuffle": True},
        {"batch_size": 4},
        {"batch_size": 4, "sampler": RandomSampler(data, replacement=True)},
    ):
        loader = DataLoader(data, drop_last=True, **how)
        problem = Problem.from_model(LINE.template.model, loader, loss=nn.MSELoss())
        runs = assert_as_looped(problem, **asked)
        assert runs.table["steps"].to_list() == [12] * 5


EVERY = ["epoch", "step", 4, 100]


@pytest.mark.parametrize("room", [2**26, 1])
def test_records_of_descents_in_one_piece_and_in_many(room, monkeypatch):
    """With little room for orders a descent is carried on epoch by epoch."""
    monkeypatch.setattr(fused_run, "_ORDERS_BYTES", room)
    for every in EVERY:
        asked = {"steps": 20, "batch_size": 5, "every": every, "keep": ALL_KEPT, "validation": 0.2}
        assert_as_looped(LINE, optim.Adam, lr=[0.01, 0.02, 0.03, 0.04, 0.05], **asked)
        assert_as_looped(LINE, optim.SGD, lr=[0.01, 10.0, 0.1, 0.5, 1e30], tolerance=1e-3, **asked)
        assert_as_looped(LINE, optim.SGD, lr=[0.01, 10.0, 0.1, 0.5, 1e30], patience=2, **asked)


@settings(max_examples=12, derandomize=True, **UNHURRIED)
@given(
    st.fixed_dictionaries(
        {
            "lr": st.sampled_from([[0.05], [1e-3, 0.1, 0.9, 30.0, 1e10]]),
            "batch_size": st.sampled_from(["full", 1, 5]),
            "every": st.sampled_from(EVERY),
            "keep": st.sampled_from([("loss",), ALL_KEPT, ("parameters",), ("batch_loss",)]),
            "validation": st.sampled_from([None, 0.3]),
            "tolerance": st.sampled_from([None, 0.0, 1e-3, 0.1]),
            "patience": st.sampled_from([None, 1, 3]),
            "divergence": st.sampled_from([None, 1e8, 1.0, 1.5]),
            "clip_norm": st.sampled_from([None, [0.01, 1.0], [None, 0.1]]),
            "maximize": st.booleans(),
            "momentum": st.sampled_from([0.0, [0.0, 0.9]]),
        }
    )
)
def test_stopping_and_divergence_at_random(asked):
    assert_as_looped(NET, steps=25, within=1e-8, **asked)


@pytest.mark.parametrize("bound", [None, 1e8, 2.0, 1.0, 1e-3])
def test_divergence_at_every_rate(bound):
    for dtype, top in ((torch.float64, 1e308), (torch.float32, 1e37)):
        rates = list(np.geomspace(1e-3, top, 24))
        assert_as_looped(
            LINE, within=1e-3, lr=rates, steps=40, batch_size=["full", 5, 1], divergence=bound,
            every=3, dtype=dtype, momentum=0.5,
        )  # fmt: skip


def test_clipping():
    norms = [None, 1e-10, 0.1, 1.0, 1e300]
    for size in ("full", 5, 1):
        asked = {"batch_size": size, "clip_norm": norms, "keep": ALL_KEPT, "steps": 20}
        assert_as_looped(NET, lr=[0.1, 0.5], within=1e-8, **asked)


def test_starts_and_seeds():
    start = [{"weight": [[1.0, 2.0, 3.0]], "bias": [0.5]}, {"bias": [-1.0]}]
    assert_as_looped(LINE, lr=[0.01, 0.1], start=start, steps=10, batch_size=4, seed=[1, 2])
    drawn = Problem.from_model(lambda: nn.Linear(3, 1).to(DOUBLE), X, Y, loss=nn.MSELoss())
    found = assert_as_looped(drawn, lr=[0.01, 0.1], seed=range(6), steps=10)
    more = assert_as_looped(drawn, lr=0.02, start=[found[0], found[7]], seed=[0, 3], steps=10)
    assert len(more) == 4


def test_descending_nothing():
    for optimizer in (optim.SGD, optim.NAdam, optim.ASGD):
        for length in ({"steps": 0}, {"epochs": 0}):
            runs = assert_as_looped(LINE, optimizer, lr=[0.1] * 5, keep=ALL_KEPT, **length)
            assert runs.loss.shape == (5, 1) and runs.batch_loss.shape == (5, 0)
    assert_as_looped(LINE, lr=[0.1], steps=0, schedule=SCHEDULES["step"], batch_size=3)


def test_switches_in_one_grid_are_programs_of_their_own():
    runs = fused(LINE, lr=[0.1], momentum=0.9, nesterov=[True, False], steps=5)
    assert not torch.equal(runs.parameters["weight"][0], runs.parameters["weight"][1])
    assert_as_looped(LINE, lr=[0.1], momentum=0.9, nesterov=[True, False], steps=5)
