"""Every optimizer × problem × engine: what must hold whatever the engine."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch
from cases import (
    CASES,
    ENGINES,
    FIRST_CASES,
    MOVED_BY_LAST_BITS,
    NOT_STACKED,
    PROBLEMS,
    ROWS,
    Case,
    Signed,
    assert_agrees,
    batches_of,
    distance,
    one_in_three,
    plain,
    posed,
    problem_named,
    table_rows,
)
from torch import Tensor, nn, optim

import downslope as ds
from downslope import InputError, Problem, descend
from downslope.optimizers import RULES

BATCH, SEEDS, EPOCHS = 5, (0, 7), 6


def _batch_size(problem: str) -> int | str:
    """Mini-batches of 5, 5 and 4 rows; BatchNorm has no single last row then."""
    return "full" if problem == "function" else BATCH


def _pairs(cases: list[Case]) -> list[tuple[Case, str]]:
    """Cases × engines, without the declared exceptions."""
    return [
        (case, engine)
        for case in cases
        for engine in ENGINES
        if engine == "looped" or case.optimizer not in NOT_STACKED
    ]


def name_of(value: object) -> str:
    """What a case, an engine, a problem or a pair of them is called in a test's name."""
    if isinstance(value, tuple):
        return "-".join(map(name_of, value))
    return value.id if isinstance(value, Case) else str(value)


@cache
def _reference(case: Case, problem: str, rate: float, seed: int, flipped: bool):
    size = _batch_size(problem)
    if size == "full":
        rows = [None] * (EPOCHS * 3)
    else:
        rows = batches_of(ROWS, size, "shuffle", seed, EPOCHS, flipped)
    settings = {**case.settings, "lr": rate}
    return plain(posed(problem), case.optimizer, settings, rows, record_every=3)


def test_the_exceptions_are_exactly_what_has_no_rule():
    every = {
        cls
        for cls in vars(optim).values()
        if isinstance(cls, type) and issubclass(cls, optim.Optimizer)
    } - {optim.Optimizer}
    assert set(RULES) == (every | {Signed}) - set(NOT_STACKED)
    tried = {case.optimizer for case in CASES}
    assert tried >= (every | {Signed}) - {optim.Muon, optim.SparseAdam}  # see test_optim_db.py


FIRST = _pairs(FIRST_CASES)
OTHERS = [pair for pair in _pairs(CASES) if pair not in FIRST]


@pytest.mark.parametrize(
    ("pair", "problem"),
    [*((p, problem) for p in FIRST for problem in PROBLEMS), *one_in_three(OTHERS, PROBLEMS)],
    ids=name_of,
)
def test_agrees_with_a_plain_torch_loop(pair, problem):
    """Every optimizer × problem × engine; hyperparameters other than a class's first by turns."""
    case, engine = pair
    length = {"steps": EPOCHS * 3} if problem == "function" else {"epochs": EPOCHS}
    runs = descend(
        problem_named(problem),
        case.optimizer,
        lr=list(case.rates),
        **case.settings,
        **length,
        seed=list(SEEDS),
        batch_size=_batch_size(problem),
        every=3,
        keep=("loss", "batch_loss"),
        engine=engine,
        divergence=None,
    )
    assert set(runs.table["engine"]) == {engine}
    settings = [(rate, seed) for rate in case.rates for seed in SEEDS]
    for run, (rate, seed) in zip(runs, settings, strict=True):
        wanted = _reference(case, problem, rate, seed, False)
        assert_agrees(
            {**run.parameters},
            wanted,
            lambda rate=rate, seed=seed: _reference(case, problem, rate, seed, True),
            f"{case.id} on {problem} at lr={rate:g}, seed={seed}",
        )
        slack = 1e-9 if case.optimizer not in MOVED_BY_LAST_BITS else 1e-6
        np.testing.assert_allclose(run.loss, wanted.full_loss, slack, 1e-9)
        np.testing.assert_allclose(run.batch_loss, wanted.batch_loss, slack, 1e-9)
        for name, buffer in wanted.buffers.items():
            np.testing.assert_allclose(run.state[name], buffer, 1e-7, 1e-9)


@pytest.mark.parametrize(
    ("case", "problem"),
    one_in_three([c for c in CASES if c.optimizer in RULES], ("function", "tanh", "batchnorm")),
    ids=name_of,
)
def test_a_run_is_the_same_alone_as_among_a_hundred(case, problem):
    """Neighbours of every rate, some of which blow up at once, change nothing."""
    others = [*np.geomspace(1e-5, 1e-1, 60), *np.geomspace(1e2, 1e300, 40)]
    rate = case.rates[1]
    asked = {
        **case.settings,
        "steps": 12,
        "batch_size": _batch_size(problem),
        "seed": 3,
        "engine": "stacked",
        "keep": ("loss", "batch_loss", "gradient_norm"),
    }
    alone = descend(problem_named(problem), case.optimizer, lr=rate, **asked)[0]
    company = descend(
        problem_named(problem), case.optimizer, lr=[*others[:50], rate, *others[50:]], **asked
    )
    among = company[50]
    assert company.diverged.any() or case.optimizer not in (optim.SGD, optim.Adam)
    assert alone.status == among.status
    for name, value in alone.state.items():
        torch.testing.assert_close(among.state[name], value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(among.loss, alone.loss, 1e-12)
    np.testing.assert_allclose(among.batch_loss, alone.batch_loss, 1e-12)
    np.testing.assert_allclose(among.gradient_norm, alone.gradient_norm, 1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_recorded_changes_nothing(engine):
    first = None
    for every in ("epoch", "step", 4):
        for keep in (("loss",), ("parameters",), ("batch_loss", "gradient_norm")):
            runs = descend(
                problem_named("tanh"), optim.Adam, lr=[0.01, 0.1], steps=20, batch_size=BATCH,
                every=every, keep=keep, engine=engine,
            )  # fmt: skip
            first = first or runs
            for name, value in runs.parameters.items():
                assert torch.equal(value, first.parameters[name])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop])
def test_a_zero_is_no_different_beside_neighbours_that_are_not(optimizer, engine):
    """Terms that are zero in all runs may be left out; in one run among others they are not."""
    asked = {"lr": 0.01, "steps": 15, "batch_size": BATCH, "engine": engine}
    alone = descend(problem_named("tanh"), optimizer, momentum=0, weight_decay=0, **asked)[0]
    among = descend(
        problem_named("tanh"), optimizer, momentum=[0.9, 0], weight_decay=[0.1, 0], **asked
    )[3]
    assert distance(among.parameters, alone.parameters) < 1e-12


# -- nothing outside is changed ----------------------------------------------------------------


def _states() -> tuple:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


def _model() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Tanh(), nn.Linear(4, 1)
    )
    model[1].eval()  # as somebody may want it: its flag stays too
    return model


@pytest.mark.parametrize("engine", ["auto", "looped"])
def test_nothing_of_the_users_is_changed(engine):
    torch.manual_seed(5)
    model, X, y = _model(), torch.randn(20, 3), torch.randn(20, 1)
    model[0].weight.grad = torch.ones(4, 3)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    kept = X.clone(), y.clone(), X.requires_grad
    states = _states()
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    runs = descend(problem, optim.Adam, lr=[0.01, 1e30], seed=range(3), epochs=3, batch_size=6,
                   validation=0.2, engine=engine)  # fmt: skip
    runs.best.predict(X)
    runs.best.model.train()
    with torch.no_grad():
        runs.best.model[0].weight.zero_()
    runs[0].replay()
    assert _states() == states
    assert [m.training for m in model.modules()] == flags
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3))
    assert torch.equal(X, kept[0]) and torch.equal(y, kept[1]) and X.requires_grad is kept[2]


def test_a_factory_draws_from_the_seed_and_leaves_the_global_state():
    X, y = torch.randn(10, 3), torch.randn(10, 1)
    states = _states()
    problem = Problem.from_model(lambda: nn.Linear(3, 1), X, y, loss=nn.MSELoss())
    for engine in ENGINES:
        runs = descend(problem, optim.SGD, lr=[0.1, 0.2], seed=[4, 4, 5], steps=0, engine=engine)
        starts = runs.parameters["weight"]
        assert torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[3])
        assert not torch.equal(starts[0], starts[2])
    assert _states() == states


@pytest.mark.parametrize("order", ["shuffle", "cyclic"])
def test_a_model_that_works_in_place_does_not_change_the_data(order):
    """A first layer such as ReLU(inplace=True) writes into what it is given."""
    X, y = torch.randn(10, 3), torch.randn(10, 1)
    kept = X.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    assert torch.equal(X, kept)
    for engine in ENGINES:
        descend(problem, optim.SGD, lr=[0.1, 0.2], epochs=2, batch_size=[4, "full"], order=order,
                engine=engine)  # fmt: skip
        assert torch.equal(X, kept), engine


# -- again and again ---------------------------------------------------------------------------


@pytest.mark.parametrize(("pair", "problem"), one_in_three(FIRST, PROBLEMS), ids=name_of)
def test_the_same_seed_gives_the_same_bits_and_so_does_replay(pair, problem):
    case, engine = pair
    asked = {
        "lr": [*case.rates, 1e3], **case.settings, "seed": [1, 2], "steps": 7,
        "batch_size": _batch_size(problem), "engine": engine, "every": "step",
        "keep": ("loss", "batch_loss", "gradient_norm", "parameters"),
    }  # fmt: skip
    first = descend(problem_named(problem), case.optimizer, **asked)
    second = descend(problem_named(problem), case.optimizer, **asked)
    for name in ("status", "first_bad_step", "steps", "loss", "batch_loss", "gradient_norm"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    for name, value in first.parameters.items():
        assert torch.equal(second.parameters[name], value)
    for run in (first[0], first[3], first[-1]):
        again = run.replay()
        assert again.status == run.status and again.number == run.number
        np.testing.assert_array_equal(again.loss, run.loss)
        np.testing.assert_array_equal(again.batch_loss, run.batch_loss)
        for name, value in run.state.items():
            assert torch.equal(again.state[name], value)
        for name, value in run.path.items():
            torch.testing.assert_close(again.path[name], value, rtol=0, atol=0, equal_nan=True)


def test_replay_uses_what_was_asked_not_what_was_changed_since():
    start = {"weight": np.zeros((1, 3)), "bias": np.zeros(1)}
    problem = Problem.from_model(
        nn.Linear(3, 1), torch.ones(4, 3), torch.ones(4, 1), loss=nn.MSELoss()
    )
    run = descend(problem, optim.SGD, lr=0.1, steps=3, start=start)[0]
    start["weight"][:] = 5
    assert torch.equal(run.replay().parameters["weight"], run.parameters["weight"])


# -- engines must not differ in meaning --------------------------------------------------------


class Assigned(nn.Module):
    """A running mean that is put in the place of the old one, not written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return self.last(x - self.mean)


class Counting(nn.Module):
    """A plain Python number that grows with every training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 1)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return self.last(x) * (1 + 0.1 * self.passes)


@pytest.mark.parametrize("make", [Assigned, Counting])
def test_models_that_keep_state_of_their_own_are_not_stacked_wrongly(make):
    X, y = table_rows(10, 3)
    model = make().to(torch.float64)
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    rates = [0.01, 0.02, 0.03, 0.04, 0.05]
    runs = descend(problem, optim.SGD, lr=rates, steps=6, keep=("loss", "batch_loss"))
    for run, rate in zip(runs, rates, strict=True):
        mine = make().to(torch.float64)
        mine.load_state_dict(model.state_dict())
        stepped = optim.SGD(mine.parameters(), lr=rate)
        for update in range(6):
            stepped.zero_grad()
            loss = ((mine(X) - y) ** 2).mean()
            assert run.batch_loss[update] == pytest.approx(loss.item(), rel=1e-9)
            loss.backward()
            stepped.step()
        assert distance(run.parameters, dict(mine.named_parameters())) < 1e-9


def test_frozen_parameters_of_a_factory_travel_with_a_run_that_is_continued():
    def factory() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        model[0].requires_grad_(False)
        return model

    X, y = torch.randn(10, 3), torch.randn(10, 1)
    problem = Problem.from_model(factory, X, y, loss=nn.MSELoss())
    for engine in ENGINES:
        run = descend(problem, optim.SGD, lr=0.1, steps=5, seed=3, engine=engine)[0]
        more = descend(problem, optim.SGD, lr=0.1, steps=0, start=run, seed=0, engine=engine)
        assert more.loss[0, 0] == pytest.approx(run.loss[-1])


def test_what_a_function_looks_up_is_looked_up_at_every_call():
    factor = {"a": 1.0}
    problem = Problem.from_function(lambda x: factor["a"] * x**2, start=1.0)
    for engine in ENGINES:
        for a in (1.0, 2.0):
            factor["a"] = a
            runs = descend(problem, optim.SGD, lr=[0.1] * 4, steps=1, engine=engine)
            assert runs.loss[0].tolist() == pytest.approx([a, a * (1 - 0.2 * a) ** 2]), engine


class Strict(optim.Optimizer):
    """A user's own that keeps the list of parameters as it was given."""

    def __init__(self, params, lr=0.1):
        self.mine = list(params)
        super().__init__(self.mine, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.mine:
            p -= self.defaults["lr"] * p.grad


def test_a_users_optimizer_gets_the_parameters_as_a_plain_list():
    X, y = torch.randn(10, 3), torch.randn(10, 1)
    problem = Problem.from_model(nn.Linear(3, 1), X, y, loss=nn.MSELoss())
    mine = descend(problem, Strict, lr=[0.1, 0.2], steps=5)
    torchs = descend(problem, optim.SGD, lr=[0.1, 0.2], steps=5, engine="looped")
    np.testing.assert_allclose(mine.loss, torchs.loss, 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_in_the_middle_is_an_error_of_the_package(engine):
    """A last batch of one row is too short for BatchNorm; torch's words are kept."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    problem = Problem.from_model(model, torch.randn(9, 3), torch.randn(9, 1), loss=nn.MSELoss())
    with pytest.raises(ds.DownslopeError, match="more than 1 value per channel"):
        descend(problem, optim.SGD, lr=[0.1] * 4, epochs=2, batch_size=4, engine=engine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_dtype_descends(engine, dtype):
    X, y = torch.randn(16, 3), torch.randn(16, 1)
    problem = Problem.from_model(nn.Linear(3, 1), X, y, loss=nn.MSELoss())
    runs = descend(problem, optim.SGD, lr=[0.05] * 4, steps=10, dtype=dtype, engine=engine,
                   keep=("loss", "batch_loss", "gradient_norm", "parameters"))  # fmt: skip
    assert runs.parameters["weight"].dtype == dtype
    assert (runs.loss[:, -1] < runs.loss[:, 0]).all()


def test_an_engine_that_cannot_serve_says_why():
    for cls, reason in NOT_STACKED.items():
        if cls in (optim.Muon, optim.SparseAdam):
            continue
        with pytest.raises(InputError, match=f"{cls.__name__} is not"):
            descend(problem_named("line"), cls, steps=1, engine="stacked")
        assert reason
