"""What was recorded: chosen, tabulated, judged, and made into models that stand by themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

import downslope as ds
from downslope.errors import DownslopeError, InputError

DOUBLE = torch.float64


def quadratic(start=4.0):
    return ds.Problem.from_function(lambda x: x**2, start=torch.tensor(start, dtype=DOUBLE))


RATES = [0.1, 0.3, 1.5, 0.5]
"""Each step multiplies by 1 - 2 lr: 0.5 is there at once, 1.5 doubles each time."""


@pytest.fixture(scope="module")
def runs():
    return ds.descend(quadratic(), optim.SGD, lr=RATES, momentum=[0, 0.5], steps=6,
                      divergence=50.0, progress=False)  # fmt: skip


def data(rows=30):
    X = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    return X, X @ torch.tensor([[1.0], [-2.0]], dtype=DOUBLE) + 3


def net():
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()


@pytest.fixture(scope="module")
def fits():
    X, y = data()
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    return ds.descend(p, optim.SGD, lr=[0.01, 0.1], seed=range(3), epochs=10,
                      batch_size=[10, "full"], validation=0.2, progress=False)  # fmt: skip


# -- choosing --------------------------------------------------------------------------------


def test_one_run(runs):
    assert len(runs) == 8
    assert runs[0].number == 0 and runs[7].number == runs[-1].number == 7
    assert runs[np.int64(3)].number == 3
    assert [run.number for run in runs] == list(range(8))
    for place in (8, -9):
        with pytest.raises(IndexError, match="there are 8 runs"):
            runs[place]


@pytest.mark.parametrize(
    "place",
    [slice(None), slice(2, 5), slice(None, None, -1), slice(-3, None), [5, 1, 1], [], [-1],
     np.array([6, 0]), np.arange(8) > 4, [True, False] * 4, slice(3, 3)],
    ids=str,
)  # fmt: skip
def test_some_runs(runs, place):
    numbers = np.arange(8)[place].copy()
    some = runs[place]
    assert isinstance(some, ds.Runs) and len(some) == len(numbers)
    assert some.table["run"].to_list() == numbers.tolist()
    np.testing.assert_array_equal(some.loss, runs.loss[numbers])
    np.testing.assert_array_equal(some.steps, runs.steps[numbers])
    np.testing.assert_array_equal(some.parameters["x"], runs.parameters["x"][numbers])
    assert some.table.schema == runs.table.schema
    assert [run.number for run in some] == numbers.tolist()


def test_a_mask_of_another_length_is_refused(runs):
    with pytest.raises(IndexError):
        runs[np.ones(5, dtype=bool)]


def test_some_of_some(runs):
    assert runs[2:][1:][[1]].table["run"].to_list() == [4]


@pytest.fixture(scope="module")
def mixed():
    return ds.descend(
        quadratic(),
        [ds.Grid(optim.SGD, lr=[0.1, 0.1 + 1e-14, 1 / 3], momentum=[0.0, 0.9]),
         ds.Grid(optim.Adam, lr=[0.1], betas=[(0.9, 0.999), (0.5, 0.9)], amsgrad=[False, True])],
        steps=2, seed=[0, 7], progress=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"lr": 0.1}, 16),
        ({"lr": 0.3333333333}, 4),
        ({"lr": 0.333}, 0),
        ({"lr": [0.1, 1 / 3]}, 20),
        ({"lr": torch.tensor(0.1).item()}, 0),  # of float32: another number
        ({"optimizer": "SGD"}, 12),
        ({"optimizer": ["SGD", "Adam"]}, 20),
        ({"optimizer": "sgd"}, 0),
        ({"betas": (0.9, 0.999)}, 4),
        ({"betas": [(0.9, 0.999), (0.5, 0.9)]}, 8),
        ({"betas": (0.9, 0.9)}, 0),
        ({"betas": (0.9,)}, 0),
        ({"betas": (0.9, 0.999, 0.9)}, 0),
        ({"momentum": None}, 8),
        ({"momentum": [None, 0.9]}, 14),
        ({"amsgrad": True}, 4),
        ({"amsgrad": False}, 4),
        ({"seed": 7}, 10),
        ({"seed": range(3)}, 10),
        ({"seed": np.array([0, 7])}, 20),
        ({"seed": 7, "optimizer": "Adam", "amsgrad": True, "lr": 0.1}, 2),
        ({"status": "finished"}, 20),
        ({"status": "diverged"}, 0),
        ({"first_bad_step": None}, 20),
        ({"batch_size": "full"}, 20),
        ({}, 20),
        ({"lr": []}, 0),
    ],
    ids=str,
)
def test_where(mixed, wanted, count):
    some = mixed.where(**wanted)
    assert len(some) == count
    if not count:
        assert some.table.schema == mixed.table.schema


def test_where_counts_batch_sizes_as_they_were_given(fits):
    assert len(fits.where(batch_size=10)) == len(fits.where(batch_size="10")) == 6
    assert len(fits.where(batch_size=[10, "full"])) == 12
    assert fits.where(batch_size="full", lr=0.1, seed=2)[0].row["seed"] == 2


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"learning_rate": 0.1}, "no column 'learning_rate'.*they have run, optimizer, lr"),
        ({"momentun": 0.1}, r"no column 'momentun' \(did you mean 'momentum'\?\)"),
        ({"lr": "large"}, "lr"),
        ({"optimizer": (1, 2)}, "optimizer"),
        ({"betas": 0.9}, "betas"),
    ],
)
def test_what_where_cannot_be(mixed, wanted, said):
    with pytest.raises(InputError, match=said):
        mixed.where(**wanted)


# -- the table -------------------------------------------------------------------------------


def test_the_tables_columns(runs):
    table = runs.table
    names = ["run", "optimizer", "lr", "momentum", "batch_size", "order", "seed", "engine",
             "status", "first_bad_step", "steps", "initial_loss", "final_loss",
             "best_loss"]  # fmt: skip
    assert [name for name in table.columns if name in names] == names
    assert table["run"].to_list() == list(range(8))
    assert table["lr"].to_list() == [rate for rate in RATES for _ in (0, 0.5)]
    assert table["momentum"].to_list() == [0, 0.5] * 4
    kinds = {name: str(table.schema[name]) for name in names}
    assert kinds == {
        "run": "Int64", "optimizer": "String", "lr": "Float64", "momentum": "Float64",
        "batch_size": "String", "order": "String", "seed": "Int64", "engine": "String",
        "status": "String", "first_bad_step": "Int64", "steps": "Int64",
        "initial_loss": "Float64", "final_loss": "Float64", "best_loss": "Float64",
    }  # fmt: skip


def test_the_tables_losses(runs):
    rows = runs.where(momentum=0.0).table.to_dicts()
    for row, rate in zip(rows, RATES, strict=True):
        x = 4 * (1 - 2 * rate) ** np.arange(7)
        assert row["initial_loss"] == 16.0
        if rate == 1.5:  # 16, 64, 256, 1024 > 50 * 16: after the third step
            assert (row["status"], row["first_bad_step"], row["steps"]) == ("diverged", 3, 2)
            assert np.isnan(row["final_loss"]) and row["best_loss"] == 16.0
        else:
            assert (row["status"], row["first_bad_step"], row["steps"]) == ("finished", None, 6)
            np.testing.assert_allclose(row["final_loss"], x[-1] ** 2, rtol=1e-12, atol=1e-30)
            np.testing.assert_allclose(row["best_loss"], (x**2).min(), rtol=1e-12, atol=1e-30)


def test_validation_has_a_column_where_there_is_validation(runs, fits):
    assert "final_validation_loss" not in runs.table.columns
    np.testing.assert_array_equal(fits.table["final_validation_loss"], fits.validation_loss[:, -1])
    np.testing.assert_array_equal(fits.table["final_loss"], fits.loss[:, -1])


def test_a_table_of_no_runs(runs):
    none = runs.where(lr=77)
    assert len(none) == 0 and none.table.height == 0 and none.table.schema == runs.table.schema
    assert list(none) == [] and repr(none) == "Runs(0: none)"
    with pytest.raises(DownslopeError, match="none of the 0 runs"):
        _ = none.best


def test_repr(runs):
    diverged = int(runs.diverged.sum())
    assert repr(runs) == f"Runs(8: {8 - diverged} finished, {diverged} diverged)"
    said = repr(runs[0])
    assert said.startswith("Run(run=0, optimizer='SGD', lr=0.1,") and "status='finished'" in said
    assert "\n" not in said and len(said) < 500


def test_nothing_can_be_set(runs):
    for thing, name in ((runs, "loss"), (runs[0], "place"), (runs, "status")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 0)


def test_a_run_has_its_row_of_everything():
    X, y = data()
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    runs = ds.descend(p, optim.SGD, lr=[0.01, 0.1], epochs=3, batch_size=10, validation=0.2,
                      keep=("loss", "batch_loss", "gradient_norm", "parameters"),
                      progress=False)  # fmt: skip
    run = runs[1]
    assert run.steps.tolist() == [0, 3, 6, 9] and run.status == "finished"
    assert run.loss.shape == run.validation_loss.shape == (4,)
    assert run.batch_loss.shape == run.gradient_norm.shape == (9,)
    assert run.path["0.weight"].shape == (4, 4, 2)
    assert torch.equal(run.path["0.weight"][-1], run.parameters["0.weight"])
    for name in ("loss", "validation_loss", "batch_loss", "gradient_norm", "steps"):
        np.testing.assert_array_equal(getattr(run, name), getattr(runs, name)[1])
    plain = ds.descend(p, optim.SGD, lr=0.1, epochs=1, progress=False)[0]
    assert plain.validation_loss is plain.batch_loss is plain.gradient_norm is plain.path is None


# -- the best --------------------------------------------------------------------------------


def test_the_best_by_training_loss(runs):
    assert runs.best.row["lr"] == 0.5 and runs.best.row["momentum"] == 0.0
    assert runs.best.loss[-1] == 0.0
    assert runs[[0, 5, 2]].best.number == min((0, 2), key=lambda i: runs.loss[i, -1])


def test_the_best_by_validation_loss(fits):
    best = int(np.argmin(fits.validation_loss[:, -1]))
    assert fits.best.number == best
    worse = fits[[i for i in range(12) if i != best]]
    assert worse.best.validation_loss[-1] == worse.validation_loss[:, -1].min()


def test_validation_decides_against_training():
    X, y = data()
    p = ds.Problem.from_model(nn.Linear(2, 1).double(), X, y, loss=nn.MSELoss())
    apart = (X, y + 50)  # the faster run towards y stays farther from these, or not: just ask
    runs = ds.descend(p, optim.SGD, lr=[0.001, 0.3], epochs=20, validation=apart, progress=False)
    by_training, by_validation = runs.loss[:, -1].argmin(), runs.validation_loss[:, -1].argmin()
    assert runs.best.place == by_validation
    opposite = ds.descend(p, optim.SGD, lr=[0.001, 0.3], epochs=20, validation=(X, -y),
                          progress=False)  # fmt: skip
    assert opposite.loss[:, -1].argmin() == by_training == 1
    assert opposite.best.place == opposite.validation_loss[:, -1].argmin() == 0


@pytest.mark.parametrize("engine", ["looped", "stacked"])
def test_the_best_of_what_is_maximised(engine):
    p = ds.Problem.from_function(lambda x: -((x - 1) ** 2), start=torch.tensor(3.0, dtype=DOUBLE))
    runs = ds.descend(p, optim.SGD, lr=[0.01, 0.1, 0.4, 0.9], maximize=True, steps=5, engine=engine,
                      progress=False)  # fmt: skip
    ends = -((2 * (1 - 2 * np.array([0.01, 0.1, 0.4, 0.9])) ** 5) ** 2)
    np.testing.assert_allclose(runs.table["final_loss"], ends, rtol=1e-9)
    np.testing.assert_allclose(runs.table["best_loss"], ends, rtol=1e-9)  # the highest, too
    assert runs.best.place == ends.argmax() == 2
    np.testing.assert_array_equal(runs.score, -runs.table["final_loss"].to_numpy())


def test_no_best_where_all_diverged():
    runs = ds.descend(quadratic(), optim.SGD, lr=[5.0, 50.0], steps=400, progress=False)
    assert runs.diverged.all()
    with pytest.raises(DownslopeError) as caught:
        _ = runs.best
    assert str(caught.value) == (
        "none of the 2 runs has a finite final loss: 2 diverged; try lower rates"
    )


def test_a_diverged_run_is_never_the_best():
    runs = ds.descend(quadratic(), optim.SGD, lr=[1e-6, 5.0, 50.0, 500.0], steps=300,
                      progress=False)  # fmt: skip
    assert runs.best.row["lr"] == 1e-6
    X, y = data()
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    runs = ds.descend(p, optim.SGD, lr=[1e-9, 1e6], epochs=5, validation=0.2, progress=False)
    assert runs.status[1] == 2 and runs.best.place == 0


def test_a_start_that_is_no_number():
    p = ds.Problem.from_function(torch.log, start=-1.0)
    runs = ds.descend(p, optim.SGD, lr=[0.1, 0.2], steps=3, progress=False)
    assert runs.table["first_bad_step"].to_list() == [0, 0] and np.isnan(runs.loss[:, 0]).all()
    assert runs.parameters["x"].tolist() == [-1.0, -1.0]


# -- models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_model_has_the_losses_that_were_recorded(fits, place):
    run = fits[place]
    p = fits.plan.problem
    assert not run.model.training
    for rows, losses in ((p.train, run.loss), (p.validation, run.validation_loss)):
        made = F.mse_loss(run.model(rows.x), rows.y).item()
        np.testing.assert_allclose(losses[-1], made, rtol=1e-10)


def test_a_model_is_independent_of_the_runs(fits):
    run = fits[0]
    before = {name: value.clone() for name, value in run.parameters.items()}
    model = run.model
    assert model is not run.model and all(p.requires_grad for p in model.parameters())
    model.train()
    F.mse_loss(model(data()[0]), data()[1]).backward()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(9.0)
    for name, value in run.parameters.items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in run.model.parameters())
    assert not run.model.training and torch.equal(run.model[0].weight, before["0.weight"])


def test_a_model_of_some_runs_is_the_same(fits):
    for run in fits[[7, 3]]:
        assert torch.equal(run.model[0].weight, fits.parameters["0.weight"][run.number])


def test_predictions(fits):
    run, X = fits.best, data()[0]
    wanted = run.model(X).detach()
    assert torch.equal(run.predict(X), wanted)
    assert not run.predict(X).requires_grad
    torch.testing.assert_close(run.predict(X.float()).float(), wanted.float())
    for rows in (X.numpy(), X.tolist(), pd.DataFrame(X.numpy()), pl.DataFrame(X.numpy())):
        made = run.predict(rows)
        assert isinstance(made, np.ndarray)
        np.testing.assert_array_equal(made, wanted)
    whole = torch.tensor([[1, 2], [3, 4]])
    torch.testing.assert_close(run.predict(whole), run.model(whole.double()).detach())
    np.testing.assert_array_equal(run.predict(whole.numpy()), run.predict(whole))


def test_predictions_of_a_function_with_data():
    X = torch.arange(5.0)
    p = ds.Problem.from_function(lambda x, w, b: w * x + b, X, 2 * X, loss=nn.MSELoss(),
                                 start={"w": 3.0, "b": 1.0})  # fmt: skip
    run = ds.descend(p, optim.SGD, lr=0.1, steps=0, progress=False)[0]
    assert run.predict([1, 2]).tolist() == [4.0, 7.0]


def test_a_function_without_data_predicts_nothing():
    run = ds.descend(quadratic(), optim.SGD, lr=0.1, steps=1, progress=False)[0]
    with pytest.raises(DownslopeError):
        run.predict([1.0])
    assert run.model().item() == run.loss[-1]


def test_a_table_of_predictions_has_one_a_row():
    frame = pl.DataFrame({"a": np.arange(20.0), "b": ["x", "y"] * 10, "t": np.arange(20.0) * 3})
    p = ds.Problem.from_table(frame, target="t")
    runs = ds.descend(p, optim.SGD, lr=0.1, epochs=300, progress=False)
    made = runs.best.predict(frame.drop("t"))
    assert made.shape == (20,) and made.dtype == np.float64
    np.testing.assert_allclose(made, frame["t"], atol=0.2)
    np.testing.assert_array_equal(runs.best.predict(frame.to_pandas()), made)


# -- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["looped", "stacked"])
def test_going_on_from_the_best(engine):
    X, y = data()
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    p = ds.Problem.from_model(model, X, y, loss=nn.MSELoss())
    asked = {"lr": [0.001, 0.01, 0.02, 0.05], "engine": engine, "progress": False}
    first = ds.descend(p, optim.SGD, **asked, steps=5)
    whole = ds.descend(p, optim.SGD, **asked, steps=9)
    best = first.best
    before = {name: value.clone() for name, value in best.state.items()}
    more = ds.descend(p, optim.SGD, **asked, steps=4, start=best)
    np.testing.assert_allclose(more.loss[:, 0], best.loss[-1], rtol=1e-12)
    again = more.where(lr=best.row["lr"])[0]
    np.testing.assert_allclose(again.loss, whole[best.place].loss[5:], rtol=1e-9)
    assert again.state["1.num_batches_tracked"] == 9
    for name, value in best.state.items():
        assert torch.equal(value, before[name])


def test_going_on_from_a_factorys_run_keeps_what_is_frozen():
    def make():
        made = net()
        made[0].requires_grad_(False)  # random features, drawn from the seed
        return made

    X, y = data()
    p = ds.Problem.from_model(make, X, y, loss=nn.MSELoss())
    runs = ds.descend(p, optim.SGD, lr=0.05, seed=range(4), epochs=20, progress=False)
    run = runs[3]
    more = ds.descend(p, optim.SGD, lr=0.05, epochs=1, start=run, progress=False)
    np.testing.assert_allclose(more.loss[0, 0], run.loss[-1], rtol=1e-12)
    torch.testing.assert_close(more[0].model[0].weight, run.model[0].weight)
    np.testing.assert_allclose(F.mse_loss(more[0].model(X), y).item(), more.loss[0, -1], rtol=1e-9)


def test_a_list_of_starts_is_a_grid(runs):
    more = ds.descend(quadratic(), optim.SGD, lr=[0.1, 0.2], steps=1, progress=False,
                      start=[runs[0], {"x": 1.0}, runs.best])  # fmt: skip
    assert len(more) == 6 and more.table["start"].to_list() == [0, 1, 2] * 2
    wanted = [runs.parameters["x"][0].item(), 1.0, runs.best.parameters["x"].item()]
    np.testing.assert_allclose(more.loss[:3, 0], np.square(wanted))
    every = ds.descend(quadratic(), optim.SGD, lr=0.1, steps=0, start=runs[:3], progress=False)
    np.testing.assert_allclose(every.loss[:, 0], runs.parameters["x"][:3] ** 2)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"y": 1.0}, "start has 'y'"),
        ({"x": [1.0, 2.0]}, r"start 'x' has shape \(2,\), the parameter \(\)"),
        ([], "empty list"),
        (3.0, "start must be a Run, a dict"),
        ({"x": "far"}, "'x'"),
    ],
)
def test_what_a_start_cannot_be(start, said):
    with pytest.raises(InputError, match=said):
        ds.descend(quadratic(), optim.SGD, lr=0.1, steps=1, start=start, progress=False)


def test_replay_computes_that_very_run_again(fits):
    for place in (1, 10):
        again = fits[place].replay()
        assert again.number == place
        np.testing.assert_array_equal(again.loss, fits[place].loss)
        for name, value in fits[place].parameters.items():
            assert torch.equal(again.parameters[name], value)
