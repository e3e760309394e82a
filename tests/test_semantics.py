"""What a run is, whatever the engine: records, order of samples, divergence, stopping, starts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from cases import DOUBLE, ENGINES, batches_of, distance, plain, posed, seeded, table_rows
from torch import Tensor, nn, optim
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from downslope import DownslopeError, InputError, Problem, descend
from downslope.sampling import epoch_order

engines = pytest.mark.parametrize("engine", ENGINES)


def _square(start: float = 7.0, factor: float = 1.0) -> Problem:
    """factor · w², whose descent by rate r is w ← (1 − 2·factor·r)·w."""
    return Problem.from_function(lambda w: factor * w**2, start=torch.tensor(start, dtype=DOUBLE))


def _line(rows: int = 10) -> tuple[Problem, Tensor, Tensor]:
    """One weight: prediction w·x, target 2·x."""
    x = torch.linspace(0.5, 2, rows, dtype=DOUBLE)
    problem = Problem.from_function(
        lambda x, w: w * x, X=x, y=2 * x, loss=nn.MSELoss(),
        start={"w": torch.tensor(0.0, dtype=DOUBLE)},
    )  # fmt: skip
    return problem, x, 2 * x


# -- rule 1: records ---------------------------------------------------------------------------


@engines
def test_the_loss_is_that_of_all_rows_at_the_start_and_after_every_epoch(engine):
    problem, x, y = _line()
    runs = descend(problem, optim.SGD, lr=[0.05, 0.1], epochs=4, batch_size=3, engine=engine)
    assert runs.loss.shape == (2, 5)
    assert runs.steps.tolist() == [[0, 4, 8, 12, 16]] * 2
    for run, rate in enumerate((0.05, 0.1)):
        w, wanted = 0.0, [float((y**2).mean())]
        for epoch in range(4):
            order = epoch_order("shuffle", 10, 0, epoch)
            for first in (0, 3, 6, 9):
                rows = order[first : first + 3]
                a, b = x[rows].numpy(), y[rows].numpy()
                w -= rate * float((2 * a * (w * a - b)).mean())
            wanted.append(float(((w * x - y) ** 2).mean()))
        np.testing.assert_allclose(runs.loss[run], wanted, 1e-12)
        assert runs.parameters["w"][run].item() == pytest.approx(w, rel=1e-12)
    table = runs.table
    np.testing.assert_array_equal(table["initial_loss"], runs.loss[:, 0])
    np.testing.assert_array_equal(table["final_loss"], runs.loss[:, -1])
    np.testing.assert_array_equal(table["best_loss"], runs.loss.min(1))
    assert table["steps"].to_list() == [16, 16]


@engines
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_over_more_rows_than_are_evaluated_at_once(engine, reduction):
    X, y = table_rows(20_000, 2)
    model = seeded(lambda: nn.Linear(2, 1))
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss(reduction=reduction))
    runs = descend(problem, optim.SGD, lr=[0.0] * 4, steps=1, batch_size=7, engine=engine)
    with torch.no_grad():
        wanted = nn.functional.mse_loss(model(X), y, reduction=reduction).item()
    np.testing.assert_allclose(runs.loss, wanted, 1e-12)


class Flagged(nn.Module):
    """In training its prediction is doubled: so one sees in which mode a loss was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (2.0 if self.training else 1.0)


@engines
@pytest.mark.parametrize("training", [True, False])
def test_records_are_made_in_evaluation_mode_and_steps_in_training_mode(engine, training):
    X, y = table_rows(9, 3)
    model = seeded(Flagged).train(training)
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    runs = descend(problem, optim.SGD, lr=[0.01] * 2, epochs=2, engine=engine,
                   keep=("loss", "batch_loss"), validation=(X[:4], y[:4]))  # fmt: skip
    with torch.no_grad():
        inner = model.inner(X)
    assert runs.loss[0, 0] == pytest.approx(((inner - y) ** 2).mean().item(), rel=1e-12)
    assert runs.batch_loss[0, 0] == pytest.approx(((2 * inner - y) ** 2).mean().item(), rel=1e-12)
    first = ((inner - y)[:4] ** 2).mean().item()
    assert runs.validation_loss[0, 0] == pytest.approx(first, rel=1e-12)
    assert model.training is training


def test_dropout_is_off_in_records_and_the_same_again():
    X, y = table_rows(12, 3)
    make = lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))  # noqa: E731
    model = seeded(make)
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    asked: dict[str, Any] = {"epochs": 3, "batch_size": 5, "keep": ("loss", "batch_loss")}
    runs = descend(problem, optim.SGD, lr=[0.05, 0.05, 0.1], seed=[1, 2], **asked)
    assert set(runs.table["engine"]) == {"looped"}
    with torch.no_grad():
        wanted = ((model.eval()(X) - y) ** 2).mean().item()
    np.testing.assert_allclose(runs.loss[:, 0], wanted, 1e-12)
    np.testing.assert_array_equal(runs.batch_loss[0], runs.batch_loss[2])
    assert not np.array_equal(runs.batch_loss[0], runs.batch_loss[1])
    torch.manual_seed(99)
    alone = descend(problem, optim.SGD, lr=0.1, seed=2, **asked)
    np.testing.assert_array_equal(alone.batch_loss[0], runs.batch_loss[5])
    np.testing.assert_array_equal(runs[5].replay().loss, runs.loss[5])
    with pytest.raises(InputError, match="random"):
        descend(problem, optim.SGD, lr=0.1, engine="stacked", **asked)


def test_dropout_does_not_depend_on_what_is_recorded():
    """The noise of a step belongs to (seed, step)."""
    X, y = table_rows(12, 3)
    make = lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))  # noqa: E731
    problem = Problem.from_model(seeded(make), X, y, loss=nn.MSELoss())
    ends = [
        descend(problem, optim.SGD, lr=0.05, epochs=3, batch_size=5, every=every, keep=keep)
        for every, keep in (("epoch", "loss"), ("step", ("loss", "gradient_norm", "parameters")))
    ]
    for name, value in ends[0].parameters.items():
        assert torch.equal(ends[1].parameters[name], value)


@engines
def test_batch_norm_uses_its_running_statistics_in_records_and_each_run_has_its_own(engine):
    task = posed("batchnorm")
    rates = [0.001, 0.05]
    runs = descend(task.problem, optim.SGD, lr=rates, epochs=3, batch_size=5, engine=engine)
    for run, rate in zip(runs, rates, strict=True):
        task = posed("batchnorm")
        wanted = plain(task, optim.SGD, {"lr": rate}, batches_of(14, 5, "shuffle", 0, 3),
                       record_every=3)  # fmt: skip
        np.testing.assert_allclose(run.loss, wanted.full_loss, 1e-9)
        assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(run.state)
        model = run.model
        assert not model.training and model[1].num_batches_tracked == 9
        for name, value in wanted.buffers.items():
            torch.testing.assert_close(model.state_dict()[name], value)
    assert not torch.equal(runs[0].state["1.running_mean"], runs[1].state["1.running_mean"])


@engines
@pytest.mark.parametrize(
    ("length", "every", "wanted"),
    [
        ({"epochs": 2}, "epoch", [0, 4, 8]), ({"steps": 6}, "epoch", [0, 4, 6]),
        ({"steps": 5}, "step", [0, 1, 2, 3, 4, 5]), ({"epochs": 2}, 3, [0, 3, 6, 8]),
        ({"epochs": 0}, "epoch", [0]), ({"steps": 0}, "step", [0]), ({"steps": 3}, 100, [0, 3]),
    ],
)  # fmt: skip
def test_when_records_are_made(engine, length, every, wanted):
    problem, *_ = _line()
    runs = descend(problem, optim.SGD, lr=0.01, batch_size=3, every=every, engine=engine, **length)
    assert runs.steps[0].tolist() == wanted
    assert np.isfinite(runs.loss).all() and runs.loss.shape == (1, len(wanted))
    assert runs.steps_done.tolist() == wanted[-1:]


@engines
def test_epochs_of_different_batch_sizes_have_different_steps(engine):
    problem, *_ = _line()
    runs = descend(problem, optim.SGD, lr=0.01, batch_size=[1, 4, "full", 10, 99], epochs=2,
                   every=5, engine=engine)  # fmt: skip
    assert runs.steps.tolist() == [
        [0, 5, 10, 15, 20], [0, 5, 6, -1, -1], [0, 2, -1, -1, -1], [0, 2, -1, -1, -1],
        [0, 2, -1, -1, -1],
    ]  # fmt: skip
    np.testing.assert_array_equal(np.isnan(runs.loss), runs.steps < 0)
    assert runs.table["steps"].to_list() == [20, 6, 2, 2, 2]
    np.testing.assert_allclose(runs.table["final_loss"], [r.loss[r.steps >= 0][-1] for r in runs])


@engines
def test_what_is_kept(engine):
    problem, x, y = _line()
    asked: dict[str, Any] = {"lr": [0.05], "epochs": 2, "batch_size": 4, "engine": engine}
    none = descend(problem, optim.SGD, **asked)
    assert none.batch_loss is None and none.gradient_norm is None and none.path is None
    runs = descend(problem, optim.SGD, **asked, every="step", clip_norm=0.5,
                   keep=("loss", "batch_loss", "gradient_norm", "parameters"))  # fmt: skip
    assert runs.path["w"].shape == (1, 7) and runs.batch_loss.shape == (1, 6)
    w = 0.0
    rows = batches_of(10, 4, "shuffle", 0, 2)
    for update, chosen in enumerate(rows):
        assert runs.path["w"][0, update].item() == pytest.approx(w, rel=1e-9)
        a, b = x[chosen], y[chosen]
        gradient = (2 * a * (w * a - b)).mean().item()
        assert runs.batch_loss[0, update] == pytest.approx(((w * a - b) ** 2).mean().item())
        assert runs.gradient_norm[0, update] == pytest.approx(abs(gradient))  # before clipping
        w -= 0.05 * gradient * min(1.0, 0.5 / (abs(gradient) + 1e-6))
    few = descend(problem, optim.SGD, **asked, keep="parameters", every="step")
    assert np.isfinite(few.loss[0, [0, -1]]).all() and np.isnan(few.loss[0, 1:-1]).all()
    assert few.steps.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


@engines
def test_a_closures_first_evaluation_is_what_is_kept_of_a_step(engine):
    """LBFGS looks at the loss several times a step: what is kept is from before the update."""
    if engine == "stacked":
        pytest.skip("LBFGS goes through looped")
    runs = descend(posed("tanh").problem, optim.LBFGS, lr=0.3, max_iter=4, steps=5, every="step",
                   keep=("loss", "batch_loss", "gradient_norm", "parameters"))  # fmt: skip
    np.testing.assert_allclose(runs.batch_loss[0], runs.loss[0, :-1], 1e-14)
    for step in range(5):
        task = posed("tanh")
        with torch.no_grad():
            for name, p in task.parameters.items():
                p.copy_(runs.path[name][0, step])
        gradients = torch.autograd.grad(task.loss(None), list(task.parameters.values()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        assert runs.gradient_norm[0, step] == pytest.approx(norm, rel=1e-9)


# -- rule 2: the order of samples --------------------------------------------------------------


@engines
@pytest.mark.parametrize("order", ["shuffle", "cyclic", "replacement"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_order_visits_the_rows_it_says(engine, order, batch_size):
    """The loss of a batch is a sum of powers of two, which tells exactly who was in it."""
    x = 2.0 ** torch.arange(10, dtype=DOUBLE)
    problem = Problem.from_function(
        lambda x, w: x + 0 * w, X=x, y=torch.zeros_like(x),
        loss=lambda prediction, target: (prediction - target).sum(),
        start={"w": torch.zeros((), dtype=DOUBLE)},
    )  # fmt: skip
    runs = descend(problem, optim.SGD, lr=[0.1] * 2, seed=[3, 8], epochs=3, batch_size=batch_size,
                   order=order, keep="batch_loss", engine=engine)  # fmt: skip
    for run, seed in zip(runs, [3, 8, 3, 8], strict=True):
        wanted = [float(x[rows].sum()) for rows in batches_of(10, batch_size, order, seed, 3)]
        assert run.batch_loss.tolist() == wanted
        if order == "shuffle":
            assert sum(wanted) == 3 * 1023
        if order == "cyclic":
            assert wanted[: len(wanted) // 3] * 3 == wanted


@engines
def test_comparisons_are_paired_and_a_longer_run_begins_like_a_shorter_one(engine):
    asked: dict[str, Any] = {
        "batch_size": 4,
        "seed": 5,
        "engine": engine,
        "keep": ("loss", "batch_loss"),
    }
    problem, *_ = _line()
    short = descend(problem, optim.SGD, lr=0.01, epochs=10, **asked)
    long = descend(problem, optim.SGD, lr=0.01, epochs=20, **asked)
    np.testing.assert_array_equal(long.batch_loss[:, :30], short.batch_loss)
    np.testing.assert_array_equal(long.loss[:, :11], short.loss)
    still = [
        descend(problem, cls, lr=rate, epochs=3, **asked).batch_loss
        for cls in (optim.SGD, optim.Adam) for rate in (0.0, 1e-300)
    ]  # fmt: skip
    for other in still[1:]:
        np.testing.assert_array_equal(other, still[0])


def test_a_run_continued_from_another_by_hand_is_what_torch_does_with_a_fresh_optimizer():
    problem = posed("tanh").problem
    first = descend(problem, optim.Adam, lr=[0.01, 0.02, 0.03, 0.04], epochs=3, batch_size=5)
    for engine in ENGINES:
        more = descend(problem, optim.Adam, lr=0.01, epochs=2, batch_size=5, start=first.best,
                       engine=engine)  # fmt: skip
        task = posed("tanh")
        with torch.no_grad():
            for name, p in task.parameters.items():
                p.copy_(first.best.parameters[name])
        wanted = plain(task, optim.Adam, {"lr": 0.01}, batches_of(14, 5, "shuffle", 0, 2))
        assert distance(more.parameters, {n: p[None] for n, p in wanted.parameters.items()}) < 1e-9
        assert more.loss[0, 0] == pytest.approx(first.best.loss[-1], rel=1e-12)


# -- rule 4: divergence ------------------------------------------------------------------------


def _by_hand(w: float, rate: float, factor: float, steps: int, bound: float | None) -> tuple:
    """Rule 4 on factor·w², in plain numbers: (first bad step, w before it, losses at records)."""
    initial = factor * w * w
    limit = math.inf if bound is None else bound * max(1.0, abs(initial))
    losses = [initial]
    for step in range(1, steps + 1):
        batch_loss = factor * w * w
        new = w - rate * 2 * factor * w
        full_loss = factor * new * new
        if any(not math.isfinite(v) for v in (batch_loss, new, full_loss)) or (
            batch_loss > limit or full_loss > limit
        ):
            return step, w, losses
        w = new
        losses.append(full_loss)
    return -1, w, losses


@engines
@pytest.mark.parametrize("bound", [1e8, 10.0, None])
@pytest.mark.parametrize("start", [0.1, 7.0, 1e5])
def test_the_first_bad_step_is_that_of_a_loop_by_hand(engine, bound, start):
    rates = [0.1, 0.9, 1.0, 1.001, 1.5, 3.0, 1e3, 1e200, 1e308]
    runs = descend(_square(start), optim.SGD, lr=rates, steps=150, divergence=bound, engine=engine,
                   every="step", keep=("loss", "parameters"))  # fmt: skip
    for run, rate in zip(runs, rates, strict=True):
        bad, w, losses = _by_hand(start, rate, 1.0, 150, bound)
        assert runs.first_bad_step[run.place] == bad
        assert run.parameters["w"].item() == pytest.approx(w, rel=1e-12, abs=1e-300)
        done = len(losses)
        np.testing.assert_allclose(run.loss[:done], losses, 1e-11, 1e-300)
        assert np.isnan(run.loss[done:]).all() and (run.steps[done:] == -1).all()
        assert run.path["w"][:done].isfinite().all() and run.path["w"][done:].isnan().all()
        assert run.status == ("finished" if bad < 0 else "diverged")
    table = runs.table
    for row, run in zip(table.iter_rows(named=True), runs, strict=True):
        assert row["first_bad_step"] == (
            None if runs.first_bad_step[run.place] < 0 else runs.first_bad_step[run.place]
        )
        assert row["steps"] == (
            150 if runs.first_bad_step[run.place] < 0 else runs.first_bad_step[run.place] - 1
        )
        assert math.isnan(row["final_loss"]) == (runs.first_bad_step[run.place] > 0)
        assert math.isfinite(row["best_loss"])


@engines
def test_the_batch_loss_and_the_parameters_are_looked_at_after_every_update(engine):
    """Between records too: the full loss comes only at the end here."""
    rates = [0.1, 1.5, 1e3, 1e200]
    runs = descend(_square(), optim.SGD, lr=rates, steps=60, every=60, engine=engine)
    for run, rate in zip(runs, rates, strict=True):
        w, bad, limit = 7.0, -1, 1e8 * 49
        for step in range(1, 61):
            new = w - rate * 2 * w
            if not (math.isfinite(w * w) and w * w <= limit and math.isfinite(new)):
                bad = step
                break
            w = new
        else:
            bad = -1 if w * w <= limit else 60
        assert runs.first_bad_step[run.place] == bad
        if bad != 60:
            assert run.parameters["w"].item() == pytest.approx(w, rel=1e-12)


@engines
def test_maximising_turns_the_sign(engine):
    """Climbing −w² may not count as divergence, falling off it must; and best is the highest."""
    problem = _square(7.0, -1.0)
    rates = [0.1, 0.4, 1.5]
    runs = descend(problem, optim.SGD, lr=rates, maximize=True, steps=100, engine=engine)
    for run, rate in zip(runs, rates, strict=True):
        bad, _, losses = _by_hand(7.0, rate, 1.0, 100, 1e8)  # the mirror image
        assert runs.first_bad_step[run.place] == bad
        np.testing.assert_allclose(run.loss[: len(losses)], -np.array(losses), 1e-11, 1e-300)
    assert runs.best.number == 1
    assert runs.table["best_loss"].to_list() == pytest.approx(np.nanmax(runs.loss, 1))
    both = descend(problem, optim.SGD, lr=1.5, maximize=[False, True], steps=100, engine=engine)
    assert both.table["status"].to_list() == ["finished", "diverged"]
    up = descend(_square(), optim.SGD, lr=0.1, maximize=True, steps=100, engine=engine)
    assert up.table["status"].to_list() == ["finished"]  # 49·1.2²⁰⁰ ≈ 3e17: going up is the aim


@engines
def test_a_loss_that_overflows_where_the_parameters_do_not(engine):
    problem = Problem.from_function(
        lambda w: torch.exp(w * w), start=torch.tensor(1.0, dtype=DOUBLE)
    )
    runs = descend(problem, optim.SGD, lr=[1e-3, 10.0], steps=5, divergence=None, every="step",
                   engine=engine)  # fmt: skip
    # w ← 1 − 10·2e = −53.4, whose square's exponential is more than a double holds.
    assert runs.first_bad_step.tolist() == [-1, 1]
    assert runs.parameters["w"][1].item() == 1.0
    np.testing.assert_allclose(runs.loss[1], [math.e, *[np.nan] * 5])


@engines
def test_a_start_without_a_finite_loss_has_diverged_before_the_first_step(engine):
    problem = Problem.from_function(lambda w: torch.log(w), start=torch.tensor(1.0, dtype=DOUBLE))
    starts = [{"w": -1.0}, {"w": 1.0}, {"w": float("nan")}]
    runs = descend(problem, optim.SGD, lr=0.01, steps=3, start=starts, engine=engine)
    assert runs.table["status"].to_list() == ["diverged", "finished", "diverged"]
    assert runs.first_bad_step[[0, 2]].tolist() == [0, 0]
    assert runs.parameters["w"][0].item() == -1.0
    assert np.isnan(runs.loss[[0, 2], 1:]).all()
    assert runs.steps_done.tolist() == [0, 3, 0]


@engines
def test_one_sample_steps_on_the_line_diverge_where_a_loop_by_hand_does(engine):
    """The tutorial's line: y = −5x + 100, batch of one in stored order, only inf and NaN count."""
    x = torch.arange(-5, 5, 0.1, dtype=DOUBLE)
    y = -5 * x + 100
    problem = Problem.from_function(
        lambda x, w, b: w * x + b, X=x, y=y, loss=nn.MSELoss(),
        start={"w": torch.tensor(-10.0, dtype=DOUBLE), "b": torch.tensor(-20.0, dtype=DOUBLE)},
    )  # fmt: skip
    rates = [0.001, 0.01, 0.03, 0.5, 10.0]  # up to 0.03 every single step is a contraction
    runs = descend(problem, optim.SGD, lr=rates, epochs=20, batch_size=1, order="cyclic",
                   divergence=None, engine=engine)  # fmt: skip
    seen = set()
    for run, rate in zip(runs, rates, strict=True):
        w, b, bad = -10.0, -20.0, -1
        for step in range(1, 2001):
            xi, yi = float(x[(step - 1) % 100]), float(y[(step - 1) % 100])
            error = w * xi + b - yi
            loss = float(np.float64(error) * np.float64(error)) if abs(error) < 1e154 else math.inf
            new = w - rate * 2 * error * xi, b - rate * 2 * error
            if not all(map(math.isfinite, (loss, *new))):
                bad = step
                break
            w, b = new
        assert abs(runs.first_bad_step[run.place] - bad) <= (
            0 if bad < 0 else 1
        )  # one at an overflow's edge
        seen.add(bad < 0)
        if bad < 0:
            assert run.parameters["w"].item() == pytest.approx(w, rel=1e-9)
            assert run.parameters["b"].item() == pytest.approx(b, rel=1e-9)
    assert seen == {True, False}


@engines
def test_buffers_are_brought_back_with_the_parameters(engine):
    """A run that diverges stands, buffers too, where it stood before the bad step."""
    task = posed("batchnorm")
    runs = descend(task.problem, optim.SGD, lr=[0.01, 1e160], steps=6, engine=engine)
    assert runs.table["status"].to_list() == ["finished", "diverged"]
    bad = int(runs.first_bad_step[1])
    wanted = plain(posed("batchnorm"), optim.SGD, {"lr": 1e160}, [torch.arange(14)] * (bad - 1))
    assert distance(runs[1].parameters, wanted.parameters) < 1e-9
    for name, value in wanted.buffers.items():
        torch.testing.assert_close(runs[1].state[name], value, rtol=1e-9, atol=0)


@engines
def test_all_diverged_is_a_result_and_best_says_so(engine):
    runs = descend(_square(), optim.SGD, lr=[1e200, 1e250], steps=5, engine=engine)
    assert runs.diverged.all() and "2 diverged" in repr(runs)
    with pytest.raises(DownslopeError, match="2 diverged"):
        _ = runs.best


@engines
def test_in_single_precision_overflow_comes_earlier_whatever_is_kept(engine):
    """Gradients whose squares overflow are no reason to stop while all else is finite."""
    problem = Problem.from_function(lambda w: (w * 3e19).sum(), start=[1.0, 2.0])
    for keep in ("loss", ("loss", "gradient_norm")):
        for clip_norm in ([None], [None, 1.0]):
            runs = descend(problem, optim.SGD, lr=1e-20, steps=5, divergence=None, keep=keep,
                           clip_norm=clip_norm, engine=engine)  # fmt: skip
            assert runs.table["status"][0] == "finished", (keep, clip_norm)
            assert runs.parameters["w"][0].tolist() == pytest.approx([-0.5, 0.5])


# -- tolerance and patience --------------------------------------------------------------------


@engines
def test_tolerance_stops_at_the_first_small_relative_change(engine):
    """(1 − 2r)² a step on w²: the relative change is constant, so it is met at once or never."""
    rates = [0.2, 1e-4]  # changes of 64 % and 0.04 % a step
    runs = descend(_square(), optim.SGD, lr=rates, steps=50, tolerance=1e-3, engine=engine)
    assert runs.table["status"].to_list() == ["finished", "converged"]
    assert runs.steps_done.tolist() == [50, 1]
    assert runs.steps[1].tolist() == [0, 1, *[-1] * 49]
    assert runs.loss[1, 1] == pytest.approx(49 * (1 - 2e-4) ** 2)
    assert np.isnan(runs.loss[1, 2:]).all()
    assert runs.parameters["w"][1].item() == pytest.approx(7 * (1 - 2e-4))
    assert runs.table["final_loss"][1] == runs.loss[1, 1]
    line, *_ = _line()
    runs = descend(line, optim.SGD, lr=[0.05, 0.1], epochs=200, tolerance=1e-6, engine=engine)
    full = descend(line, optim.SGD, lr=[0.05, 0.1], epochs=200, engine=engine)
    for run, whole in zip(runs, full, strict=True):
        change = np.abs(np.diff(whole.loss)) / whole.loss[:-1]
        first = int(np.argmax(change <= 1e-6)) + 1 if (change <= 1e-6).any() else 200
        assert runs.steps_done[run.place] == first


@engines
def test_tolerance_looks_at_records_not_at_steps(engine):
    runs = descend(_square(), optim.SGD, lr=[1e-4], steps=50, every=10, tolerance=1e-3,
                   engine=engine)  # fmt: skip
    assert runs.table["status"].to_list() == ["finished"]  # 0.4 % from record to record
    runs = descend(_square(), optim.SGD, lr=[1e-4], steps=50, every=10, tolerance=1e-2,
                   engine=engine)  # fmt: skip
    assert runs.steps_done.tolist() == [10]


@engines
def test_patience_counts_records_without_a_better_loss(engine):
    """w flips sign for ever at r = 1: the loss never improves. At r = 0.99 it always does."""
    for patience in (1, 3):
        runs = descend(_square(), optim.SGD, lr=[1.0, 0.99], steps=20, patience=patience,
                       engine=engine)  # fmt: skip
        assert runs.table["status"].to_list() == ["stopped", "finished"]
        assert runs.steps_done.tolist() == [patience, 20]
        assert runs.table["final_loss"][0] == pytest.approx(49)


@engines
def test_patience_looks_at_the_validation_loss_where_there_is_one(engine):
    """Towards w = 2 on the training rows; the validation rows are best at w = 1, on the way."""
    x = torch.ones(4, dtype=DOUBLE)
    problem = Problem.from_function(
        lambda x, w: w * x, X=x, y=2 * x, loss=nn.MSELoss(),
        start={"w": torch.tensor(0.0, dtype=DOUBLE)},
    )  # fmt: skip
    asked: dict[str, Any] = {"lr": [0.1], "steps": 60, "patience": 2, "engine": engine}
    without = descend(problem, optim.SGD, **asked)
    assert without.table["status"].to_list() == ["finished"]
    runs = descend(problem, optim.SGD, **asked, validation=(x, x))
    w, losses = 0.0, [1.0]
    while len(losses) < 3 or min(losses[-2:]) <= min(losses[:-2]):
        w += 0.2 * (2 - w)
        losses.append((w - 1) ** 2)
    assert runs.table["status"].to_list() == ["stopped"]
    assert runs.steps_done.tolist() == [len(losses) - 1]
    np.testing.assert_allclose(runs.validation_loss[0, : len(losses)], losses, 1e-12)
    assert runs.table["final_validation_loss"][0] == pytest.approx(losses[-1])


@engines
def test_best_goes_by_validation_where_there_is_one(engine):
    x = torch.ones(4, dtype=DOUBLE)
    problem = Problem.from_function(
        lambda x, w: w * x, X=x, y=2 * x, loss=nn.MSELoss(),
        start={"w": torch.tensor(0.0, dtype=DOUBLE)},
    )  # fmt: skip
    asked: dict[str, Any] = {"lr": [0.01, 0.25, 1e9, 0.5], "steps": 1, "engine": engine}
    assert descend(problem, optim.SGD, **asked).best.number == 3
    assert descend(problem, optim.SGD, **asked, validation=(x, x)).best.number == 1


@engines
def test_a_share_for_validation_is_kept_out_of_training(engine):
    X, y = table_rows(20, 3)
    problem = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, y, loss=nn.MSELoss())
    runs = descend(problem, optim.SGD, lr=[0.1] * 2, seed=[0, 1], epochs=2, batch_size=4,
                   validation=0.25, engine=engine)  # fmt: skip
    assert runs.steps[0].tolist() == [0, 4, 8]  # 15 rows in batches of 4
    assert np.ptp(runs.validation_loss[:, 0]) == 0  # the same rows, whatever the seed
    total = ((runs[0].model.eval()(X) - y) ** 2).sum().item()
    joined = 15 * runs.loss[0, -1] + 5 * runs.validation_loss[0, -1]
    assert joined == pytest.approx(total)
    assert len(problem.train) == 20  # the problem itself stays as it was


# -- arguments ---------------------------------------------------------------------------------


@engines
def test_clipping_is_torchs_and_each_runs_own(engine):
    norms = [None, 0.05, 0.5, 10.0]
    runs = descend(posed("tanh").problem, optim.SGD, lr=[0.1, 0.3], momentum=0.9, clip_norm=norms,
                   epochs=6, batch_size=5, engine=engine)  # fmt: skip
    settings = [(rate, norm) for rate in (0.1, 0.3) for norm in norms]
    ends = []
    for run, (rate, norm) in zip(runs, settings, strict=True):
        wanted = plain(posed("tanh"), optim.SGD, {"lr": rate, "momentum": 0.9},
                       batches_of(14, 5, "shuffle", 0, 6), clip_norm=norm)  # fmt: skip
        assert distance(run.parameters, wanted.parameters) < 1e-9
        ends.append(wanted.parameters["0.weight"])
    assert not torch.allclose(ends[1], ends[2]) and torch.allclose(ends[0], ends[3])


@engines
def test_starts_from_a_dict_a_run_or_a_list_of_them(engine):
    problem = _square()
    first = descend(problem, optim.SGD, lr=[0.1, 0.2], steps=1, engine=engine)
    starts = [{"w": 3.0}, first[0], {"w": np.array(0.1)}, {"w": torch.tensor(2.0)}]
    runs = descend(problem, optim.SGD, lr=[0.1, 0.25], steps=2, start=starts, engine=engine)
    wanted = [
        start * (1 - 2 * rate) ** 2 for rate in (0.1, 0.25) for start in (3.0, 7 * 0.8, 0.1, 2.0)
    ]
    np.testing.assert_allclose(runs.parameters["w"], wanted, 1e-14)
    again = descend(problem, optim.SGD, lr=0.1, steps=0, start=first, engine=engine)
    np.testing.assert_array_equal(again.parameters["w"], first.parameters["w"])


@engines
def test_a_start_in_plain_numbers_keeps_all_their_digits(engine):
    """0.1 in double precision, not 0.1 rounded to single and widened again."""
    runs = descend(_square(), optim.SGD, lr=0.1, steps=0, start={"w": 0.1}, engine=engine)
    assert runs.parameters["w"].item() == 0.1
    vector = Problem.from_function(lambda v: (v**2).sum(), start=torch.zeros(2, dtype=DOUBLE))
    runs = descend(vector, optim.SGD, lr=0.1, steps=0, start={"v": [0.1, 0.2]}, engine=engine)
    assert runs.parameters["v"].tolist() == [[0.1, 0.2]]


@engines
def test_part_of_a_start_leaves_the_rest_and_buffers_are_part_of_a_runs_state(engine):
    task = posed("batchnorm")
    runs = descend(task.problem, optim.SGD, lr=0.01, steps=4, engine=engine)
    more = descend(task.problem, optim.SGD, lr=0.01, steps=0, start=runs.best, engine=engine)
    assert more.loss[0, 0] == pytest.approx(runs.loss[0, -1], rel=1e-12)
    weight = {"3.weight": np.zeros((1, 4))}
    part = descend(task.problem, optim.SGD, lr=0.01, steps=0, start=weight, engine=engine)
    assert not part.parameters["3.weight"].any()
    assert torch.equal(part.parameters["0.weight"][0], task.parameters["0.weight"])


@engines
def test_a_gradient_by_hand_is_used(engine):
    """Right by both counts: with and without data, and with weight decay added by the optimizer."""
    problem = Problem.from_function(
        lambda w: w**2 - 4 * w + 5, start=torch.tensor(7.0, dtype=DOUBLE)
    )
    called = []

    def gradient(w):
        called.append(1)
        return {"w": 2 * w - 4}

    runs = descend(problem, optim.SGD, lr=[0.1, 0.3], steps=10, gradient=gradient, engine=engine)
    np.testing.assert_allclose(runs.parameters["w"], [2 + 5 * 0.8**10, 2 + 5 * 0.4**10], 1e-12)
    assert called
    line, *_ = _line()
    by_hand = descend(line, optim.Adam, lr=[0.1], epochs=3, batch_size=3, weight_decay=0.1,
                      engine=engine, keep=("loss", "batch_loss", "gradient_norm"), clip_norm=1.0,
                      gradient=lambda x, y, w: {"w": (2 * x * (w * x - y)).mean()})  # fmt: skip
    auto = descend(line, optim.Adam, lr=[0.1], epochs=3, batch_size=3, weight_decay=0.1,
                   engine=engine, keep=("loss", "batch_loss", "gradient_norm"),
                   clip_norm=1.0)  # fmt: skip
    np.testing.assert_allclose(by_hand.loss, auto.loss, 1e-12)
    np.testing.assert_allclose(by_hand.gradient_norm, auto.gradient_norm, 1e-12)


@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        (lambda x, y, w, b: {"w": (2 * x * (w * x + b - y)).mean(),
                             "b": (w * x + b - y).mean()}, ["'b'", "differs"]),
        (lambda x, y, w, b: {"w": (2 * x * (w * x + b - y)).sum(),
                             "b": (2 * (w * x + b - y)).mean()}, ["'w'", "differs"]),
        (lambda x, y, w, b: {"w": (2 * x * (w * x + b - y)).mean()}, ["'b'"]),
        (lambda x, y, w, b: {"w": torch.zeros(2), "b": b}, ["'w'", "shape"]),
        (lambda w, b: {}, ["x", "y"]),
        (lambda x, y, w, bias: {}, ["bias"]),
        (lambda x, y, w, b: 1 / 0, ["ZeroDivisionError"]),
    ],
)  # fmt: skip
def test_a_wrong_gradient_by_hand_is_found_before_anything_runs(gradient, words):
    with pytest.raises(InputError) as raised:
        descend(posed("line").problem, optim.SGD, lr=0.1, steps=3, gradient=gradient)
    said = str(raised.value)
    assert all(word in said for word in words) and "\n" not in said


def test_how_far_a_wrong_gradient_is_off_is_told():
    """g = 2w·1.5 at w = 7 is off by 7, where autograd says 14."""
    with pytest.raises(InputError, match=r"'w'.* 7 .*14"):
        descend(_square(), optim.SGD, lr=0.1, steps=3, gradient=lambda w: {"w": 3 * w})


def test_a_gradient_that_is_right_at_the_start_alone_is_found():
    problem = Problem.from_function(lambda w: w**2, start=torch.tensor(0.0, dtype=DOUBLE))
    with pytest.raises(InputError, match="'w'"):
        descend(problem, optim.SGD, lr=0.1, steps=3, gradient=lambda w: {"w": 5 * w})


@engines
def test_hyperparameters_by_pattern_are_torchs_parameter_groups(engine):
    rates = [0.01, 0.05]
    runs = descend(
        posed("tanh").problem, optim.Adam, lr={"0.*": rates, "2.weight": 0.02, "*": 0.1},
        weight_decay={"*.bias": 0.0, "*": [0.1, 0.2]}, betas=(0.8, 0.9), epochs=5, batch_size=5,
        engine=engine,
    )  # fmt: skip
    settings = [(rate, decay) for rate in rates for decay in (0.1, 0.2)]
    for run, (rate, decay) in zip(runs, settings, strict=True):
        p = posed("tanh").parameters
        groups = [
            {"params": [p["0.weight"]], "lr": rate, "weight_decay": decay},
            {"params": [p["0.bias"]], "lr": rate, "weight_decay": 0.0},
            {"params": [p["2.weight"]], "lr": 0.02, "weight_decay": decay},
            {"params": [p["2.bias"]], "lr": 0.1, "weight_decay": 0.0},
        ]
        task = posed("tanh")
        for group in groups:
            names = [n for n, q in p.items() if q is group["params"][0]]
            group["params"] = [task.parameters[n] for n in names]
        stepped = optim.Adam(groups, betas=(0.8, 0.9))
        for rows in batches_of(14, 5, "shuffle", 0, 5):
            stepped.zero_grad()
            task.loss(rows).backward()
            stepped.step()
        assert distance(run.parameters, task.parameters) < 1e-9


def test_functions_are_computed_in_the_precision_asked_for():
    """Plain numbers as start and dtype=float64: w = 0.1 exactly, and the closed form to 1e-14."""
    problem = Problem.from_function(lambda w: w**2, start=0.1)
    assert problem.dtype == torch.float32
    for engine in ENGINES:
        runs = descend(problem, optim.SGD, lr=0.1, steps=20, dtype=DOUBLE, engine=engine)
        assert runs.parameters["w"].dtype == DOUBLE and runs.loss.dtype == np.float64
        assert runs.parameters["w"].item() == pytest.approx(0.1 * 0.8**20, rel=1e-14)


def test_data_is_computed_in_the_precision_asked_for():
    X = np.array([[0.1], [0.2], [0.7]])
    problem = Problem.from_model(nn.Linear(1, 1), X, X, loss=nn.MSELoss())
    assert any("float64" in note and "float32" in note for note in problem.notes)
    zero = {"weight": np.zeros((1, 1)), "bias": np.zeros(1)}
    runs = descend(problem, optim.SGD, lr=0.1, steps=0, dtype=DOUBLE, start=zero)
    assert runs.loss[0, 0] == pytest.approx((X**2).mean(), rel=1e-14)


# -- DataLoaders -------------------------------------------------------------------------------


def _loader(**kwargs: Any) -> tuple[DataLoader, Tensor, Tensor]:
    X, y = table_rows(10, 3)
    return DataLoader(TensorDataset(X, y), **kwargs), X, y


def _from_loader(loader: DataLoader) -> Problem:
    return Problem.from_model(seeded(lambda: nn.Linear(3, 1)), loader, loss=nn.MSELoss())


@pytest.mark.parametrize(
    ("kwargs", "size", "order", "steps"),
    [
        ({"batch_size": 4, "shuffle": True}, "4", "shuffle", 3),
        ({"batch_size": 4}, "4", "cyclic", 3),
        ({"batch_size": 4, "drop_last": True, "shuffle": True}, "4", "shuffle", 2),
        ({}, "1", "cyclic", 10),
        ({"batch_size": 3, "sampler": SequentialSampler(range(10))}, "3", "cyclic", 4),
        ({"batch_size": 3, "sampler": RandomSampler(range(10), replacement=True)},
         "3", "replacement", 4),
    ],
)  # fmt: skip
def test_a_loaders_batch_size_and_order_become_defaults(kwargs, size, order, steps):
    loader, X, y = _loader(**kwargs)
    problem = _from_loader(loader)
    runs = descend(problem, optim.SGD, lr=[0.1] * 4, epochs=1, keep=("loss", "batch_loss"))
    assert set(runs.table["batch_size"]) == {size} and set(runs.table["order"]) == {order}
    assert set(runs.table["engine"]) == {"stacked"} and runs.batch_loss.shape == (4, steps)
    direct = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, y, loss=nn.MSELoss())
    same = descend(direct, optim.SGD, lr=0.1, steps=steps, batch_size=int(size), order=order,
                   keep=("loss", "batch_loss"))  # fmt: skip
    np.testing.assert_allclose(runs.batch_loss[0], same.batch_loss[0], 1e-12)
    other = descend(problem, optim.SGD, lr=0.1, epochs=1, batch_size="full", order="shuffle")
    assert other.table["batch_size"].to_list() == ["full"] and other.steps[0].tolist() == [0, 1]


def test_a_loader_with_a_sampler_of_its_own_goes_through_looped_as_it_is():
    """Weights of zero: those rows are never seen, so a loss that counts rows tells."""
    weights = torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    X = torch.arange(10, dtype=DOUBLE).reshape(-1, 1)
    loader = DataLoader(
        TensorDataset(X, 0 * X), batch_size=1, sampler=WeightedRandomSampler(weights, 30)
    )
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    problem = Problem.from_model(model, loader, loss=lambda p, t: (p - t).abs().mean())
    before = torch.get_rng_state()
    asked: dict[str, Any] = {"lr": [0.0] * 4, "epochs": 2, "keep": ("loss", "batch_loss")}
    runs = descend(problem, optim.SGD, seed=[0, 1], **asked)
    assert torch.equal(before, torch.get_rng_state())
    assert set(runs.table["engine"]) == {"looped"} and runs.batch_loss.shape == (8, 60)
    seen = runs.batch_loss
    assert set(seen.ravel()) <= {0.0, 2.0, 4.0, 6.0, 8.0}
    np.testing.assert_array_equal(seen[0], seen[2])  # same seed, same samples
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0, :30], seen[0, 30:])
    again = descend(problem, optim.SGD, seed=[0, 1], **asked)
    np.testing.assert_array_equal(again.batch_loss, seen)
    np.testing.assert_array_equal(runs[3].replay().batch_loss, seen[3])
    with pytest.raises(InputError, match="DataLoader"):
        descend(problem, optim.SGD, lr=0.1, epochs=1, engine="stacked")
    with pytest.raises(InputError, match="DataLoader"):
        descend(problem, optim.SGD, lr=0.1, epochs=1, batch_size=2)


def test_a_batch_sampler_with_a_generator_is_the_same_again_and_left_as_it_was():
    generator = torch.Generator().manual_seed(1)
    sampler = WeightedRandomSampler(torch.ones(10), 10, generator=generator)
    loader, *_ = _loader(batch_sampler=BatchSampler(sampler, 3, False))
    problem = _from_loader(loader)
    before = generator.get_state()
    found = [
        descend(problem, optim.SGD, lr=0.1, epochs=2, keep="batch_loss").batch_loss
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert torch.equal(generator.get_state(), before)


class Stream(IterableDataset):
    def __iter__(self):
        X, y = table_rows(10, 3)
        return iter([(x, t) for x, t in zip(X, y, strict=True)])


def test_a_stream_is_descended_as_it_comes_and_the_global_state_stays():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    problem = _from_loader(DataLoader(Stream(), batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)
    runs = descend(problem, optim.SGD, lr=0.1, epochs=2, keep=("loss", "batch_loss"))
    assert torch.equal(torch.get_rng_state(), before)
    X, y = table_rows(10, 3)
    direct = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, y, loss=nn.MSELoss())
    same = descend(direct, optim.SGD, lr=0.1, epochs=2, batch_size=4, order="cyclic",
                   keep=("loss", "batch_loss"))  # fmt: skip
    np.testing.assert_allclose(runs.batch_loss, same.batch_loss, 1e-12)
    np.testing.assert_allclose(runs.loss, same.loss, 1e-12)


def test_rows_kept_apart_are_not_drawn_by_a_loader_of_its_own():
    """Either they are left out, or it is said that this cannot be."""
    X = torch.arange(10, dtype=DOUBLE).reshape(-1, 1)
    loader = DataLoader(
        TensorDataset(X, 0 * X), batch_size=1, sampler=WeightedRandomSampler(torch.ones(10), 200)
    )
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    problem = Problem.from_model(model, loader, loss=lambda p, t: (p - t).abs().mean())
    try:
        runs = descend(problem, optim.SGD, lr=0.0, epochs=1, validation=0.5,
                       keep=("loss", "batch_loss"))  # fmt: skip
    except InputError as error:
        assert "validation" in str(error)
    else:
        assert len(set(runs.batch_loss[0])) <= 5


def test_a_grid_cannot_change_the_batches_of_a_loader_of_its_own():
    from downslope import Grid

    loader, *_ = _loader(batch_size=2, sampler=WeightedRandomSampler(torch.ones(10), 10))
    with pytest.raises(InputError, match=r"batch_size|DataLoader"):
        descend(_from_loader(loader), Grid(optim.SGD, lr=0.1, batch_size=5), epochs=1)


@pytest.mark.parametrize(
    "sampler", [SequentialSampler, lambda s: RandomSampler(s, replacement=True)]
)
def test_a_loader_that_gives_no_batch_is_refused(sampler):
    loader, *_ = _loader(batch_size=20, drop_last=True, sampler=sampler(range(10)))
    with pytest.raises(InputError, match="batch"):
        descend(_from_loader(loader), optim.SGD, lr=0.1, epochs=2)
