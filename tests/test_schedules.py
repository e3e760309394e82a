"""Schedules: the sequences are torch's own, and so are the parameters they lead to."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from cases import ENGINES, Posed, batches_of, distance, one_in_three, plain, posed
from torch import optim
from torch.optim import lr_scheduler

from downslope import InputError, Schedule, descend
from downslope.errors import EngineError
from downslope.schedules import sequences

RATES = (0.001, 0.004, 0.02)
LENGTH = 24

Builder = Callable[[optim.Optimizer], Any]


def _halve(step: int) -> float:
    return 0.5 ** (step / 7)


SCHEDULES: dict[str, tuple[Schedule, Builder]] = {
    "LambdaLR": (
        Schedule(lr_scheduler.LambdaLR, lr_lambda=_halve),
        lambda o: lr_scheduler.LambdaLR(o, _halve),
    ),
    "MultiplicativeLR": (
        Schedule(lr_scheduler.MultiplicativeLR, lr_lambda=lambda step: 0.9),
        lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    ),
    "StepLR": (
        Schedule(lr_scheduler.StepLR, step_size=5, gamma=0.3),
        lambda o: lr_scheduler.StepLR(o, 5, 0.3),
    ),
    "MultiStepLR": (
        Schedule(lr_scheduler.MultiStepLR, milestones=[3, 11]),
        lambda o: lr_scheduler.MultiStepLR(o, [3, 11]),
    ),
    "ConstantLR": (
        Schedule(lr_scheduler.ConstantLR, factor=0.25, total_iters=6),
        lambda o: lr_scheduler.ConstantLR(o, 0.25, 6),
    ),
    "LinearLR": (
        Schedule(lr_scheduler.LinearLR, start_factor=0.1, total_iters=9),
        lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=9),
    ),
    "ExponentialLR": (
        Schedule(lr_scheduler.ExponentialLR, gamma=0.93),
        lambda o: lr_scheduler.ExponentialLR(o, 0.93),
    ),
    "PolynomialLR": (
        Schedule(lr_scheduler.PolynomialLR, total_iters=15, power=2.0),
        lambda o: lr_scheduler.PolynomialLR(o, 15, 2.0),
    ),
    "CosineAnnealingLR": (
        Schedule(lr_scheduler.CosineAnnealingLR, T_max=10, eta_min=1e-4),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 10, 1e-4),
    ),
    "CosineAnnealingWarmRestarts": (
        Schedule(lr_scheduler.CosineAnnealingWarmRestarts, T_0=4, T_mult=2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2),
    ),
    "CyclicLR": (
        Schedule(lr_scheduler.CyclicLR, base_lr=0.001, max_lr=0.02, step_size_up=5,
                 mode="triangular2"),
        lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.02, 5, mode="triangular2"),
    ),
    "OneCycleLR": (
        Schedule(lr_scheduler.OneCycleLR, max_lr=0.03, total_steps=LENGTH),
        lambda o: lr_scheduler.OneCycleLR(o, 0.03, LENGTH),
    ),
    "SequentialLR": (
        Schedule(
            lr_scheduler.SequentialLR,
            schedulers=[
                Schedule(lr_scheduler.LinearLR, start_factor=0.1, total_iters=4),
                Schedule(lr_scheduler.ExponentialLR, gamma=0.9),
            ],
            milestones=[4],
        ),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.9)],
            [4],
        ),
    ),
    "ChainedScheduler": (
        Schedule(
            lr_scheduler.ChainedScheduler,
            schedulers=[
                Schedule(lr_scheduler.ConstantLR, factor=0.1, total_iters=4),
                Schedule(lr_scheduler.ExponentialLR, gamma=0.9),
            ],
        ),
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.9)]
        ),
    ),
    "a function": (
        Schedule(lambda o: lr_scheduler.StepLR(o, 3)),
        lambda o: lr_scheduler.StepLR(o, 3),
    ),
    "nothing to cycle": (
        Schedule(lr_scheduler.OneCycleLR, max_lr=0.03, total_steps=LENGTH, cycle_momentum=False),
        lambda o: lr_scheduler.OneCycleLR(o, 0.03, LENGTH, cycle_momentum=False),
    ),
    "a constant momentum that differs from the optimizer's": (
        Schedule(lr_scheduler.OneCycleLR, max_lr=0.03, total_steps=LENGTH, base_momentum=0.85,
                 max_momentum=0.85),
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.03, LENGTH, base_momentum=0.85, max_momentum=0.85
        ),
    ),
    "a momentum that touches zero": (
        Schedule(lr_scheduler.CyclicLR, base_lr=0.001, max_lr=0.01, step_size_up=4,
                 base_momentum=0.0, max_momentum=0.8),
        lambda o: lr_scheduler.CyclicLR(
            o, 0.001, 0.01, 4, base_momentum=0.0, max_momentum=0.8
        ),
    ),
    "values in a list for the one group": (
        Schedule(lr_scheduler.LambdaLR, lr_lambda=[_halve]),
        lambda o: lr_scheduler.LambdaLR(o, [_halve]),
    ),
}  # fmt: skip

BY_LOSS = "ReduceLROnPlateau"
"""Looks at the loss: no sequence can be known before, so it goes through `looped`; see below."""

OPTIMIZERS: dict[type[optim.Optimizer], dict[str, Any]] = {
    optim.SGD: {"momentum": 0.5},
    optim.Adam: {"betas": (0.8, 0.95)},
}


def test_every_scheduler_of_torch_is_here():
    classes = {
        name
        for name, cls in vars(lr_scheduler).items()
        if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler)
        and not name.startswith("_")
    } - {"LRScheduler"}  # fmt: skip
    assert classes <= {*SCHEDULES, BY_LOSS}


def _read(builder: Builder, optimizer: type[optim.Optimizer], settings: dict, length: int) -> list:
    """The one group's hyperparameters before each update, in a plain loop."""
    stepped = optimizer([torch.zeros(1, requires_grad=True)], **settings)
    scheduler = builder(stepped)
    read = []
    for _ in range(length):
        read.append({k: v for k, v in stepped.param_groups[0].items() if k != "params"})
        stepped.step()
        scheduler.step()
    return read


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("name", SCHEDULES)
def test_sequences_are_torchs_own(name, optimizer):
    schedule, builder = SCHEDULES[name]
    settings = [{"lr": rate, **OPTIMIZERS[optimizer]} for rate in RATES]
    made = sequences(schedule, optimizer, [[one] for one in settings], LENGTH)
    for run, one in enumerate(settings):
        wanted = _read(builder, optimizer, one, LENGTH)
        for update in range(LENGTH):
            for key, value in wanted[update].items():
                if key in ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"):
                    continue  # the scheduler's own notes in the group
                if key in made:
                    assert np.array_equal(made[key][update, run, 0], value), (key, update)
                elif key in one:
                    assert value == one[key], f"{key} moves but is not followed"


def _task(problem: str) -> Posed:
    return posed(problem)


def _named(pair: tuple[Any, str]) -> str:
    first, second = pair
    return f"{getattr(first, '__name__', first)}-{second}"


@pytest.mark.parametrize(
    ("follows", "carried"),
    one_in_three(list(product(SCHEDULES, ["step", "epoch"])), list(product(OPTIMIZERS, ENGINES))),
    ids=_named,
)
def test_descents_follow_them_as_in_a_plain_loop(follows, carried):
    (name, per), (optimizer, engine) = follows, carried
    schedule, builder = SCHEDULES[name]
    schedule = Schedule(schedule.scheduler, per=per, **schedule.arguments)
    batch_size, per_epoch = (None, 1) if per == "step" else (5, 3)
    epochs = LENGTH if per == "step" else 8
    asked = {
        "lr": list(RATES), **OPTIMIZERS[optimizer], "epochs": epochs,
        "batch_size": batch_size or "full", "schedule": schedule, "engine": engine, "seed": 2,
    }  # fmt: skip
    if "touches zero" in name and optimizer is optim.SGD and engine == "stacked":
        # torch.optim leaves its velocity alone while momentum is 0: a declared exception.
        with pytest.raises(EngineError, match="momentum to 0"):
            descend(posed("tanh").problem, optimizer, **asked)
        return
    runs = descend(posed("tanh").problem, optimizer, **asked)
    for run, rate in zip(runs, RATES, strict=True):
        wanted = plain(
            posed("tanh"), optimizer, {"lr": rate, **OPTIMIZERS[optimizer]},
            batches_of(14, batch_size, "shuffle", 2, epochs),
            scheduler=builder, scheduler_every=per_epoch,
        )  # fmt: skip
        assert distance(run.parameters, wanted.parameters) < 1e-9


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("settings", "other"), [({"momentum": 0.0}, 0.9), ({"momentum": 0.9}, 0)])
def test_momentum_moves_whatever_the_neighbours_momentum(engine, settings, other):
    """Including the case that all start at zero, whose term would otherwise be left out."""
    schedule = Schedule(lr_scheduler.OneCycleLR, per="step", max_lr=0.03)
    runs = descend(
        posed("tanh").problem, optim.SGD, lr=0.01, momentum=[settings["momentum"], other],
        steps=LENGTH, schedule=schedule, engine=engine,
    )  # fmt: skip
    wanted = plain(
        posed("tanh"), optim.SGD, {"lr": 0.01, **settings}, batches_of(14, None, "", 0, LENGTH),
        scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.03, LENGTH),
    )  # fmt: skip
    assert distance(runs[0].parameters, wanted.parameters) < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("engine", ENGINES)
def test_lengths_left_out_are_the_runs_own(engine, steps):
    for schedule, builder in (
        (Schedule(lr_scheduler.CosineAnnealingLR, per="step"),
         lambda o: lr_scheduler.CosineAnnealingLR(o, steps)),
        (Schedule(lr_scheduler.OneCycleLR, per="step", max_lr=0.02),
         lambda o: lr_scheduler.OneCycleLR(o, 0.02, steps)),
    ):  # fmt: skip
        if steps == 1 and schedule.scheduler is lr_scheduler.OneCycleLR:
            continue  # torch itself divides by zero
        runs = descend(posed("line").problem, optim.SGD, lr=0.01, momentum=0.3, steps=steps,
                       schedule=schedule, engine=engine)  # fmt: skip
        wanted = plain(posed("line"), optim.SGD, {"lr": 0.01, "momentum": 0.3},
                       batches_of(14, None, "", 0, steps), scheduler=builder)  # fmt: skip
        assert distance(runs.best.parameters, wanted.parameters) < 1e-9


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_reduce_on_plateau_looks_at_the_loss(per):
    """The loss over all rows after the update or epoch, at the parameters it led to."""
    arguments = {"patience": 1, "factor": 0.3, "threshold": 0.05}
    schedule = Schedule(lr_scheduler.ReduceLROnPlateau, per=per, **arguments)
    rates = (0.05, 0.3, 0.6)
    runs = descend(posed("tanh").problem, optim.SGD, lr=list(rates), epochs=12, batch_size=7,
                   schedule=schedule)  # fmt: skip
    assert set(runs.table["engine"]) == {"looped"}
    moved = []
    for run, rate in zip(runs, rates, strict=True):
        task = posed("tanh")
        stepped = optim.SGD(task.parameters.values(), lr=rate)
        scheduler = lr_scheduler.ReduceLROnPlateau(stepped, **arguments)
        for update, rows in enumerate(batches_of(14, 7, "shuffle", 0, 12), start=1):
            stepped.zero_grad()
            task.loss(rows).backward()
            stepped.step()
            if per == "step" or update % 2 == 0:
                scheduler.step(task.full_loss())
        moved.append(stepped.param_groups[0]["lr"] < rate)
        assert distance(run.parameters, task.parameters) < 1e-9
    assert any(moved)


def test_reduce_on_plateau_looks_at_the_validation_loss_where_there_is_one():
    """Validation rows that get worse while the training loss falls: the rate must come down."""
    X, y = torch.ones(4, 1, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    from downslope import Problem

    start = {"w": torch.zeros(1, dtype=torch.float64)}
    problem = Problem.from_function(
        lambda x, w: w * x, X=X, y=y, loss=torch.nn.MSELoss(), start=start
    )
    schedule = Schedule(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
    with_rows = descend(problem, optim.SGD, lr=0.1, epochs=3, schedule=schedule, validation=(X, -y))
    # w goes 0, 0.2; then the halved rates: 0.2 + 2·0.05·0.8, + 2·0.025·0.72. The first
    # validation loss is the best by definition, so the first cut comes after the second epoch.
    w, rate = 0.0, 0.1
    for epoch in range(3):
        w += 2 * rate * (1 - w)
        rate = rate if epoch == 0 else rate / 2
    assert with_rows.parameters["w"].item() == pytest.approx(w)


def test_by_pattern_every_group_has_its_own_rate_and_schedule():
    runs = descend(
        posed("tanh").problem, optim.SGD, lr={"0.*": 0.01, "2.*": [0.02, 0.03]}, steps=LENGTH,
        schedule=Schedule(lr_scheduler.ExponentialLR, per="step", gamma=0.9), engine="stacked",
    )  # fmt: skip
    for run, rate in zip(runs, (0.02, 0.03), strict=True):
        wanted = _grouped(rate, lambda o: lr_scheduler.ExponentialLR(o, 0.9))
        assert distance(run.parameters, wanted) < 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_by_pattern_a_list_gives_each_group_its_value(engine):
    runs = descend(
        posed("tanh").problem, optim.SGD, lr={"0.*": 0.01, "2.*": [0.02, 0.03]}, steps=LENGTH,
        schedule=Schedule(lr_scheduler.OneCycleLR, per="step", max_lr=[0.01, 0.05],
                          cycle_momentum=False),
        engine=engine,
    )  # fmt: skip
    for run, rate in zip(runs, (0.02, 0.03), strict=True):
        wanted = _grouped(
            rate, lambda o: lr_scheduler.OneCycleLR(o, [0.01, 0.05], LENGTH, cycle_momentum=False)
        )
        assert distance(run.parameters, wanted) < 1e-9


def _grouped(rate: float, builder: Builder) -> dict:
    task = posed("tanh")
    first = [p for n, p in task.parameters.items() if n.startswith("0.")]
    last = [p for n, p in task.parameters.items() if n.startswith("2.")]
    stepped = optim.SGD([{"params": first, "lr": 0.01}, {"params": last, "lr": rate}])
    scheduler = builder(stepped)
    for _ in range(LENGTH):
        stepped.zero_grad()
        task.loss(None).backward()
        stepped.step()
        scheduler.step()
    return dict(task.parameters)


# -- what is refused ----------------------------------------------------------------------------


def _refused(**kwargs: Any) -> str:
    with pytest.raises(InputError) as raised:
        descend(posed("tanh").problem, **{"optimizer": optim.SGD, "steps": 20, **kwargs})
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("count", [1, 5])
def test_wrong_schedules_are_told_before_anything_runs(engine, count):
    rates = {"lr": [0.1] * count, "engine": engine}
    assert "StepLR" in _refused(schedule=Schedule(lr_scheduler.StepLR), **rates)
    assert "gama" in _refused(schedule=Schedule(lr_scheduler.ExponentialLR, gama=1), **rates)
    short = Schedule(lr_scheduler.OneCycleLR, per="step", max_lr=0.1, total_steps=10)
    assert "OneCycleLR" in _refused(schedule=short, **rates)


def test_every_optimizer_is_tried_with_the_schedule_before_anything_runs():
    """CyclicLR wants momentum, which the second has not; the first must not have run then."""
    from downslope import Grid

    ran = []

    class Seen(optim.SGD):
        def step(self, closure=None):
            ran.append(1)
            return super().step(closure)

    said = _refused(
        optimizer=[Grid(Seen), Grid(optim.Adagrad)], lr=0.1,
        schedule=Schedule(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.2),
    )  # fmt: skip
    assert "CyclicLR" in said and not ran


def test_what_is_no_schedule_is_refused():
    with pytest.raises(InputError, match="class StepLR"):
        Schedule(lr_scheduler.StepLR(optim.SGD([torch.zeros(1)]), 3))
    with pytest.raises(InputError, match="per"):
        Schedule(lr_scheduler.StepLR, per="week", step_size=3)
    with pytest.raises(InputError, match="scheduler"):
        Schedule(3)


def test_a_function_that_makes_a_plateau_scheduler_works_or_says_why_not():
    """It cannot be seen from the function that its scheduler wants the loss."""
    schedule = Schedule(lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0), per="step")
    runs = descend(posed("tanh").problem, optim.SGD, lr=[0.1] * 5, steps=5, schedule=schedule)
    assert np.isfinite(runs.loss).all() and math.isfinite(runs.best.loss[-1])
    assert set(runs.table["engine"]) == {"looped"}


def test_no_warning_of_torch_reaches_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schedule, _ in (SCHEDULES["SequentialLR"], SCHEDULES["ChainedScheduler"]):
            descend(posed("line").problem, optim.SGD, lr=[0.01] * 5, steps=20, schedule=schedule)
