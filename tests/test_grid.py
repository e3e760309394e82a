"""Grids: which runs a call asks for, in which order, and what is refused."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas
import polars
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope import Grid, InputError, Problem, descend

X, Y = torch.linspace(-1, 1, 12).reshape(-1, 1), torch.linspace(0, 1, 12).reshape(-1, 1)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem.from_model(nn.Linear(1, 1), X, Y, loss=nn.MSELoss())


def _asked(problem, *given, steps=0, **kwargs):
    return descend(problem, *given, steps=steps, **kwargs).table


def test_lists_are_a_product_in_the_order_given_with_the_seed_fastest(problem):
    table = _asked(
        problem, optim.SGD, lr=[0.1, 0.2], momentum=[0, 0.9], batch_size=[1, 10, "full"],
        seed=range(3), order=["cyclic", "shuffle"], clip_norm=[None, 1.0],
    )  # fmt: skip
    wanted = list(itertools.product(
        [0.1, 0.2], [0.0, 0.9], ["1", "10", "full"], ["cyclic", "shuffle"], [np.inf, 1.0], range(3)
    ))  # fmt: skip
    columns = ["lr", "momentum", "batch_size", "order", "clip_norm", "seed"]
    assert table.select(columns).rows() == wanted
    assert table["run"].to_list() == list(range(len(wanted)))


def test_hyperparameters_vary_in_the_order_in_which_they_are_given(problem):
    table = _asked(problem, optim.SGD, momentum=[0, 0.9], lr=[0.1, 0.2])
    assert table.select("momentum", "lr").rows() == [(0, 0.1), (0, 0.2), (0.9, 0.1), (0.9, 0.2)]


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 0.2], range(1, 3), np.array([0.1, 0.2]), np.array([0.1, 0.2], dtype=np.float32),
        polars.Series([0.1, 0.2]), pandas.Series([0.1, 0.2]), (v for v in (0.1, 0.2)),
    ],
    ids=lambda values: type(values).__name__,
)  # fmt: skip
def test_a_list_range_or_array_is_a_grid(problem, values):
    wanted = [1.0, 2.0] if isinstance(values, range) else [0.1, 0.2]
    assert _asked(problem, optim.SGD, lr=values)["lr"].to_list() == pytest.approx(wanted)


@pytest.mark.parametrize(
    "lr", [0.1, np.float64(0.1), np.array(0.1), torch.tensor(0.1), np.array([0.1])]
)
def test_a_number_is_one_value(problem, lr):
    assert _asked(problem, optim.SGD, lr=lr)["lr"].to_list() == pytest.approx([0.1])


def test_a_tuple_is_one_value(problem):
    table = _asked(problem, optim.Adam, betas=(0.8, 0.9), lr=[0.1, 0.2])
    assert table["betas"].to_list() == [[0.8, 0.9]] * 2
    table = _asked(problem, optim.Adam, betas=[(0.8, 0.9), (0.5, 0.6)])
    assert table["betas"].to_list() == [[0.8, 0.9], [0.5, 0.6]]


def test_several_grids_follow_each_other_and_keep_their_own_settings(problem):
    table = _asked(
        problem, [Grid(optim.SGD, lr=[0.1, 0.2]), Grid(optim.Adam, lr=[0.3], betas=(0.5, 0.9))],
        seed=[0, 1],
    )  # fmt: skip
    assert table.select("optimizer", "lr", "seed").rows() == [
        ("SGD", 0.1, 0), ("SGD", 0.1, 1), ("SGD", 0.2, 0), ("SGD", 0.2, 1),
        ("Adam", 0.3, 0), ("Adam", 0.3, 1),
    ]  # fmt: skip
    assert table["betas"].to_list() == [None] * 4 + [[0.5, 0.9]] * 2


def test_a_grid_overrides_what_holds_for_all(problem):
    """Hyperparameters, and batch_size, order, clip_norm and seed too."""
    grid = Grid(optim.SGD, lr=[0.1, 0.2], batch_size=[1, 4], order="cyclic", seed=7, clip_norm=2.0)
    table = _asked(problem, [grid, Grid(optim.SGD)], lr=0.5, batch_size=3, seed=1)
    columns = ["lr", "batch_size", "order", "seed", "clip_norm"]
    assert table.select(columns).rows() == [
        (0.1, "1", "cyclic", 7, 2.0), (0.1, "4", "cyclic", 7, 2.0),
        (0.2, "1", "cyclic", 7, 2.0), (0.2, "4", "cyclic", 7, 2.0),
        (0.5, "3", "shuffle", 1, np.inf),
    ]  # fmt: skip


_ROWS = [{"lr": 0.1, "momentum": 0.0}, {"lr": 0.2, "momentum": 0.9}, {"lr": 0.2, "momentum": 0.5}]


@pytest.mark.parametrize(
    "rows", [_ROWS, tuple(_ROWS), polars.DataFrame(_ROWS), pandas.DataFrame(_ROWS)],
    ids=["dicts", "tuple", "polars", "pandas"],
)  # fmt: skip
def test_rows_are_no_product(problem, rows):
    table = _asked(problem, Grid.of(optim.SGD, rows), seed=[0, 1])
    assert table.select("lr", "momentum", "seed").rows() == [
        (0.1, 0.0, 0), (0.1, 0.0, 1), (0.2, 0.9, 0), (0.2, 0.9, 1), (0.2, 0.5, 0), (0.2, 0.5, 1),
    ]  # fmt: skip


def test_rows_may_set_batch_size_and_switches(problem):
    rows = [
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "batch_size": 4, "seed": 3},
        {"lr": 0.2, "momentum": 0.0, "nesterov": False, "batch_size": "full", "seed": 1},
    ]
    table = _asked(problem, Grid.of(optim.SGD, rows))
    columns = ["lr", "momentum", "nesterov", "batch_size", "seed"]
    assert table.select(columns).rows() == [
        (0.1, 0.9, True, "4", 3), (0.2, 0.0, False, "full", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [[], [{"lr": 0.1}, {"momentum": 0.9}], [3], "lr", 5])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(InputError, match=r"Grid\.of"):
        Grid.of(optim.SGD, rows)


def test_patterns_of_a_grid_are_a_product_too(problem):
    table = _asked(problem, optim.SGD, lr={"weight": [0.1, 0.2], "*": [0.3, 0.4]})
    assert table.select("lr[weight]", "lr[*]").rows() == [
        (0.1, 0.3), (0.1, 0.4), (0.2, 0.3), (0.2, 0.4)
    ]  # fmt: skip


def test_log_range_is_even_in_the_logarithm_and_keeps_its_ends():
    rates = ds.log_range(1e-4, 1, 50)
    assert len(rates) == 50 and rates[0] == 1e-4 and rates[-1] == 1
    assert np.diff(np.log(rates)) == pytest.approx(np.log(1e4) / 49)
    assert ds.log_range(0.3, 2, 1) == [0.3]
    for wrong in ((0, 1, 3), (-1, 1, 3), (1, 2, 0), (1, float("inf"), 3), (1, float("nan"), 3)):
        with pytest.raises(InputError, match="log_range"):
            ds.log_range(*wrong)


# -- what is refused, and what the sentence says -----------------------------------------------


def _refused(problem, *given, **kwargs) -> str:
    with pytest.raises(InputError) as raised:
        descend(problem, *given, **{"steps": 1, **kwargs})
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_eleven_million_runs_are_refused_at_once(problem):
    started = time.perf_counter()
    said = _refused(problem, optim.SGD, lr=list(np.linspace(1e-3, 0.1, 1100)), seed=range(10_000))
    assert time.perf_counter() - started < 3
    assert "11,000,000" in said and "10,000,000" in said


def test_eleven_million_runs_of_one_dimension_are_refused_at_once(problem):
    started = time.perf_counter()
    assert "11,000,000" in _refused(problem, optim.SGD, lr=0.1, seed=range(11_000_000))
    assert time.perf_counter() - started < 6


@pytest.mark.parametrize(
    ("optimizer", "name", "nearest", "has"),
    [
        (optim.SGD, "momentun", "momentum", ["lr", "dampening", "weight_decay", "nesterov"]),
        (optim.Adam, "beta", "betas", ["lr", "eps", "amsgrad"]),
        (optim.Adam, "learning_rate", None, ["lr", "betas"]),
    ],
)
def test_an_unknown_hyperparameter_is_told_what_there_is(problem, optimizer, name, nearest, has):
    for said in (
        _refused(problem, optimizer, **{name: 0.5}),
        _refused(problem, [Grid(optim.Adagrad, lr=0.1), Grid(optimizer)], **{name: 0.5})
        if name == "learning_rate" else _refused(problem, Grid(optimizer), **{name: 0.5}),
    ):  # fmt: skip
        assert repr(name) in said
        if nearest:
            assert f"did you mean '{nearest}'" in said
    with pytest.raises(InputError) as raised:
        Grid(optimizer, **{name: 0.5})
    assert all(known in str(raised.value) for known in has)
    with pytest.raises(InputError, match=name):
        Grid.of(optimizer, [{name: 0.5}])


def test_a_misspelt_argument_of_descend_is_recognised(problem):
    assert "epochs" in _refused(problem, optim.SGD, steps=None, epoch=5)


def test_a_negative_rate_is_refused_and_zero_is_not(problem):
    said = _refused(problem, optim.SGD, lr=[0.1, -0.1, 0.2])
    assert "lr=-0.1" in said and "SGD" in said
    runs = descend(problem, optim.SGD, lr=[0.0, 0.1], steps=3)
    assert runs.loss[0, -1] == runs.loss[0, 0] and runs.loss[1, -1] != runs.loss[1, 0]


@pytest.mark.parametrize("place", [0, 250, 499])
def test_a_negative_rate_is_found_wherever_it_stands(problem, place):
    rates = list(np.linspace(0.01, 0.1, 500))
    rates[place] = -0.1
    assert "lr" in _refused(problem, optim.SGD, lr=rates)
    assert "lr" in _refused(problem, Grid.of(optim.SGD, [{"lr": rate} for rate in rates]))
    rows = [{"lr": rate} for rate in [*rates, *[0.1] * 200]]
    assert "lr" in _refused(problem, Grid.of(optim.SGD, rows))
    assert "lr" in _refused(problem, optim.SGD, lr={"weight": rates, "bias": 0.1})


def test_a_rate_that_is_no_number_is_refused(problem):
    for wrong in ("fast", None, [0.1, "fast"], 1j, torch.tensor([0.1, 0.2])):
        assert "lr" in _refused(problem, optim.SGD, lr=wrong), wrong


def test_a_rate_of_nan_is_a_run_that_diverges_at_once(problem):
    """torch takes it; what comes of it is a result, and only that run's."""
    for engine in ("looped", "stacked"):
        runs = descend(problem, optim.SGD, lr=[0.1, float("nan")], steps=3, engine=engine)
        assert runs.table["status"].to_list() == ["finished", "diverged"]
        assert runs.first_bad_step.tolist() == [-1, 1]


def test_an_instance_is_told_to_be_a_class(problem):
    said = _refused(problem, optim.Adam([torch.zeros(1)]))
    assert "class Adam" in said and "instance" in said
    for wrong in (None, 3, "Adamm", optim.Optimizer, nn.Linear, []):
        assert _refused(problem, wrong)
    assert "'Adam'" in _refused(problem, "Adamm")


def test_a_combination_that_is_refused_is_named(problem):
    said = _refused(problem, optim.SGD, momentum=[0.9, 0], nesterov=[False, True])
    assert "momentum=0" in said and "nesterov=True" in said
    said = _refused(problem, optim.SGD, lr=0.1, nesterov=True)
    assert "nesterov=True" in said


def test_a_combination_that_is_refused_is_found_in_a_large_grid_too(problem):
    said = _refused(
        problem, optim.SGD, nesterov=[False, True], lr=[i / 10 for i in range(1, 9)],
        weight_decay=[i / 10 for i in range(8)], momentum=[*[i / 10 for i in range(8, 1, -1)], 0],
    )  # fmt: skip
    assert "momentum=0" in said and "nesterov=True" in said


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"lr": []}, "lr"), ({"seed": []}, "seed"), ({"seed": -1}, "seed"), ({"seed": 0.5}, "seed"),
        ({"seed": float("nan")}, "seed"), ({"seed": float("inf")}, "seed"),
        ({"batch_size": 0}, "batch_size"), ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": "ful"}, "batch_size"), ({"batch_size": float("nan")}, "batch_size"),
        ({"batch_size": float("inf")}, "batch_size"), ({"batch_size": []}, "batch_size"),
        ({"order": "random"}, "order"), ({"order": "shufle"}, "'shuffle'"),
        ({"clip_norm": 0}, "clip_norm"), ({"clip_norm": -1}, "clip_norm"),
        ({"clip_norm": "1"}, "clip_norm"), ({"clip_norm": []}, "clip_norm"),
        ({"lr": {}}, "lr"), ({"lr": {"wieght": 0.1, "*": 0.1}}, "'weight'"),
        ({"lr": {"weight": 0.1}}, "bias"), ({"lr": {"weight": [], "*": 0.1}}, "lr"),
        ({"start": []}, "start"), ({"start": 3}, "start"), ({"start": {"wight": 0}}, "'weight'"),
        ({"start": {"weight": [1.0, 2.0]}}, "shape"), ({"start": {"weight": "a"}}, "weight"),
        ({"steps": None}, "epochs"), ({"epochs": 3}, "epochs"), ({"steps": -1}, "steps"),
        ({"steps": 1.5}, "steps"), ({"every": 0}, "every"), ({"every": "setp"}, "every"),
        ({"keep": "losss"}, "'loss'"), ({"keep": ["path"]}, "path"),
        ({"tolerance": -1}, "tolerance"), ({"patience": 0}, "patience"),
        ({"divergence": 0}, "divergence"), ({"divergence": float("nan")}, "divergence"),
        ({"validation": 0}, "validation"), ({"validation": 1.0}, "validation"),
        ({"validation": (X,)}, "validation"), ({"validation": (X, Y[:3])}, "validation"),
        ({"engine": "stackd"}, "'stacked'"), ({"schedule": optim.lr_scheduler.StepLR}, "Schedule"),
        ({"dtype": torch.int64}, "dtype"), ({"dtype": "float64"}, "dtype"),
        ({"device": "gpu"}, "device"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_right_is_one_sentence_naming_it(problem, kwargs, word):
    assert word in _refused(problem, optim.SGD, **{"lr": 0.1, **kwargs})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": (0.1, 0.2)}, "lr must be a number"),
        ({"lr": "0.1"}, "lr must be a number"),
        ({"lr": None}, "lr must be a number"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(problem, settings, said):
    with pytest.raises(InputError, match=said):
        descend(problem, optim.SGD, steps=1, **settings)


def test_a_pair_is_a_tuple(problem):
    with pytest.raises(InputError, match="betas must be a tuple of 2 numbers"):
        descend(problem, optim.Adam, lr=0.1, betas=[0.9, 0.99], steps=1)


def test_a_huge_seed_is_refused(problem):
    with pytest.raises(InputError, match="seed must be a whole number"):
        descend(problem, optim.SGD, lr=0.1, seed=2**70, steps=1)


def test_a_required_hyperparameter_is_asked_for(problem):
    class Needs(optim.SGD):
        def __init__(self, params, speed):
            super().__init__(params, lr=speed)

    assert "speed" in _refused(problem, Needs)
    runs = descend(problem, Needs, speed=[0.1, 0.2], steps=2)
    assert runs.table["speed"].to_list() == [0.1, 0.2]
    assert "speed" in _refused(problem, Needs, speed=-1.0)
