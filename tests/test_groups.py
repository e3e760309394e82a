"""Runs laid out in columns: the same runs and the same sentences however the values are given."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas
import polars
import pytest
import torch
from cases import Signed
from torch import nn, optim

from downslope import Grid, InputError, Problem, descend
from downslope.grid import settled
from downslope.groups import expand

MANY = 10**6
ALONE = {"batch_size": "full", "order": "cyclic", "seed": 0, "clip_norm": None}


def laid_out(optimizer, starts=1, **settings):
    """The groups of a grid."""
    grid = optimizer if isinstance(optimizer, Grid) else Grid(optimizer)
    return expand([grid], settled({**ALONE, **settings}), starts)


def column(name, values, optimizer=optim.SGD):
    """The one column of a hyperparameter, or of a setting of the run."""
    (group,) = laid_out(optimizer, **{name: values})
    return group.numbers[name] if name in group.numbers else getattr(group, name)


@pytest.fixture(scope="module")
def problem():
    return Problem.from_function(lambda x: x**2, start=1.0)


def refused(problem, optimizer=optim.SGD, **settings):
    with pytest.raises(InputError) as raised:
        descend(problem, optimizer, steps=1, **settings)
    said = str(raised.value)
    assert "\n" not in said and len(said) < 500
    return said


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 4.0], [1, 2, 4], [1, 2.0, 4], [np.float64(1), np.float32(2), np.int64(4)],
        [1, np.int16(2), torch.tensor(4.0)], [np.array(1.0), 2, np.array([4])],
        np.array([1.0, 2, 4]), np.array([4.0, 9, 2, 9, 1])[::-2], np.array([1, 2, 4], np.uint8),
        np.array([1, 2, 4], np.uint64), np.array([1, 2, 4], np.float16), np.array([1, 2, 4], ">f4"),
        np.array([1, 2, 4], np.longdouble), np.array([1, 2.0, 4], dtype=object),
        polars.Series([1.0, 2, 4]), pandas.Series([1, 2, 4]), (v for v in (1, 2, 4)),
    ],
    ids=lambda values: f"{type(values).__name__}-{getattr(values, 'dtype', '')}",
)  # fmt: skip
def test_numbers_of_every_kind_are_the_same_column(values):
    made = column("lr", values)
    assert made.dtype == np.float64 and made.tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("values", [range(3, 9, 2), range(7, 2, -2)])
def test_a_range_is_its_numbers(values):
    for name in ("lr", "clip_norm"):
        assert column(name, values).dtype == np.float64
    assert column("seed", values).dtype == np.int64
    for name in ("lr", "seed", "clip_norm"):
        assert column(name, values).tolist() == list(values)


def test_whole_numbers_stay_whole_where_the_optimizer_counts_with_them():
    for values in ([1, 2, 3], range(1, 4), np.array([1, 2, 3]), np.array([1, 2, 3], np.int8)):
        (group,) = laid_out(Signed, memory=values)
        assert group.numbers["memory"].dtype == np.int64
        assert [type(group.settings(run)["memory"]) for run in range(3)] == [int] * 3
    (group,) = laid_out(Signed, memory=[1, 0.5])
    assert [type(group.settings(run)["memory"]) for run in range(2)] == [float] * 2


def test_a_rate_keeps_every_digit():
    rates = [0.1, 1 / 3, 5e-324, 1e308, 2.0**53 + 2]
    for given in (rates, np.array(rates), np.array(rates, dtype=object), [*rates, np.float32(0.1)]):
        assert column("lr", given)[:5].tolist() == rates
    assert column("lr", [*rates, np.float32(0.1)])[5] == float(np.float32(0.1)) != 0.1


def test_whole_numbers_too_large_for_an_array():
    assert column("lr", [2**70, 1, 0.5]).tolist() == [2.0**70, 1.0, 0.5]
    assert column("lr", np.array([2**63, 1], np.uint64)).tolist() == [2.0**63, 1.0]
    assert column("seed", [2**63 - 1, 2**53 + 1]).tolist() == [2**63 - 1, 2**53 + 1]
    assert column("seed", [2.0, 1]).tolist() == [2, 1]


def test_arrays_of_bools_are_switches():
    groups = laid_out(optim.SGD, momentum=0.9, nesterov=np.array([True, False, True]))
    assert [(g.switches["nesterov"], g.index.tolist()) for g in groups] == [
        (True, [0, 2]), (False, [1]),
    ]  # fmt: skip
    assert type(groups[0].switches["nesterov"]) is bool
    assert column("seed", np.array([True, False])).tolist() == [1, 0]


def test_arrays_of_tuples_are_a_grid_of_tuples():
    pairs = [(0.9, 0.99), (0.8, 0.9), (0, 0.5)]
    objects = np.empty(3, dtype=object)
    objects[:] = pairs
    for given in (pairs, objects, np.array(pairs, dtype="f8,f8")):
        (group,) = laid_out(optim.Adam, betas=given)
        assert group.numbers["betas"].tolist() == [list(map(float, pair)) for pair in pairs]
        assert group.settings(1)["betas"] == (0.8, 0.9)


def test_what_was_given_is_neither_kept_nor_changed(problem):
    rates, seeds, bounds = np.array([0.1, 0.2]), np.array([5, 6]), np.array([1.0])
    (group,) = laid_out(optim.SGD, lr=rates)
    (other,) = laid_out(Signed, seed=seeds, clip_norm=bounds)
    runs = descend(problem, Signed, lr=rates, steps=1)
    rates[:], seeds[:], bounds[:] = 7, 7, 7
    assert group.numbers["lr"].tolist() == [0.1, 0.2]
    assert other.seed.tolist() == [5, 6] and other.clip_norm.tolist() == [1.0, 1.0]
    assert runs.table["lr"].to_list() == [0.1, 0.2]


# -- the product -----------------------------------------------------------------------------


def test_the_product_is_the_nested_loop():
    """Every run of a grid that splits into groups, against itertools.product."""
    given = {
        "lr": np.array([0.1, 0.2]), "nesterov": [True, False], "momentum": [0.9, 0.5, 0.9],
        "batch_size": [3, "full", 3], "order": ["shuffle", "cyclic"], "clip_norm": [None, 2],
    }  # fmt: skip
    groups = laid_out(optim.SGD, **given, seed=range(4, 6), starts=2)
    wanted = list(
        itertools.product(
            [0.1, 0.2], [True, False], [0.9, 0.5, 0.9], [3, None, 3], ["shuffle", "cyclic"],
            [np.inf, 2.0], range(2), [4, 5],
        )
    )  # fmt: skip
    found = {}
    for group in groups:
        assert (np.diff(group.index) > 0).all()
        for run, number in enumerate(group.index):
            found[int(number)] = (
                group.numbers["lr"][run], group.switches["nesterov"],
                group.numbers["momentum"][run], group.batch_size, group.order,
                group.clip_norm[run], group.start[run], group.seed[run],
            )  # fmt: skip
    assert [found[number] for number in range(len(wanted))] == wanted
    firsts = [int(group.index[0]) for group in groups]
    assert firsts == sorted(firsts) and len(groups) == 8


def test_one_value_for_all_is_held_once():
    (group,) = laid_out(optim.Adam, lr=np.linspace(0, 1, MANY), weight_decay=0.5)
    for name in ("weight_decay", "betas", "eps"):
        assert group.numbers[name].strides[0] == 0 and len(group.numbers[name]) == MANY
    assert group.settings(MANY - 1) == {
        **group.switches, "lr": 1.0, "weight_decay": 0.5, "betas": (0.9, 0.999), "eps": 1e-8
    }  # fmt: skip


@pytest.mark.parametrize("kind", [np.array, list, np.ndarray.tolist])
def test_a_million_values_take_a_moment(kind):
    rates = kind(np.geomspace(1e-6, 1, MANY))
    started = time.perf_counter()
    groups = laid_out(optim.SGD, lr=rates, momentum=0.9)
    assert time.perf_counter() - started < 1
    assert groups[0].numbers["lr"][[0, -1]].tolist() == [1e-6, 1.0]


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, MANY // 2, MANY - 1])
@pytest.mark.parametrize("kind", [np.array, np.ndarray.tolist])
def test_a_bad_value_among_a_million_is_named_as_if_alone(problem, kind, place):
    rates = np.full(MANY, 0.5)
    rates[place] = -0.25
    assert refused(problem, lr=kind(rates)) == refused(problem, lr=-0.25)
    assert refused(problem, clip_norm=kind(rates), lr=0.1) == (
        "clip_norm must be a number above 0, or None, got -0.25"
    )
    seeds = np.arange(MANY)
    seeds[place] = -3
    assert refused(problem, seed=kind(seeds), lr=0.1) == (
        "seed must be a whole number of at least 0, got -3"
    )


def test_the_first_of_several_bad_values_is_named(problem):
    for kind in (list, np.array):
        assert refused(problem, lr=0.1, seed=kind([3, -5, -7])).endswith("got -5")
        assert refused(problem, lr=0.1, clip_norm=kind([1.0, -5.0, -7.0])).endswith("got -5.0")
        assert refused(problem, lr=0.1, clip_norm=kind([1, -5, -7])).endswith("got -5")
        assert refused(problem, lr=0.1, batch_size=kind([1, -5, -7])).endswith("got -5")
        assert refused(problem, lr=0.1, clip_norm=kind([1.0, np.nan])).endswith("got nan")
        assert refused(problem, lr=0.1, seed=kind([1, 0.5])).endswith("got 0.5")
        assert refused(problem, lr=kind([-0.5] + [0.1] * 20 + [-0.7])) == refused(problem, lr=-0.7)


@pytest.mark.parametrize(
    ("seeds", "got"),
    [
        (range(2, -3, -1), "-1"), (range(2**63 - 1, 2**63 + 2), str(2**63)), ([1, 2**70], 2**70),
        (np.array([1, 2**63], np.uint64), str(2**63)), (np.array([1.0, 1e300]), "1e+300"),
        ([0, "1"], "'1'"), ([None], "None"), (np.array(["a"]), "'a'"),
    ],
)  # fmt: skip
def test_a_seed_that_is_none(problem, seeds, got):
    said = refused(problem, lr=0.1, seed=seeds)
    assert said == f"seed must be a whole number of at least 0, got {got}"


def test_a_value_of_another_kind_is_found_among_many(problem):
    for wrong in ("fast", None, (0.1,)):
        said = refused(problem, lr=[*[0.1] * 5000, wrong])
        assert said == f"SGD's lr must be a number (a list of them is a grid), got {wrong!r}"
    rates = [0.1, 0.2] * 10
    said = refused(problem, optim.Adam, betas=rates)
    assert said.startswith("Adam's betas must be a tuple of 2 numbers") and said.endswith("got 0.1")


def test_a_refused_whole_number_is_named_as_it_was_given(problem):
    for values in (range(-10, 10), list(range(-10, 10)), np.arange(-10, 10)):
        assert "lr=-10:" in refused(problem, lr=values)
    assert "lr=-10:" in refused(problem, lr=[*range(-10, 10), 0.5])


def test_a_rate_of_nan_among_many_is_its_own_run(problem):
    rates = np.full(20, 0.1)
    rates[13] = np.nan
    for given in (rates, rates.tolist()):
        runs = descend(problem, optim.SGD, lr=given, steps=2, progress=False)
        assert np.flatnonzero(runs.diverged).tolist() == [13]


@pytest.mark.parametrize("kind", [list, polars.DataFrame, pandas.DataFrame])
def test_a_refused_row_among_many_is_found(problem, kind):
    rows = [{"lr": 0.1, "momentum": 0.5, "clip_norm": 1.0} for _ in range(5000)]
    for place, name in itertools.product((0, 2500, 4999), ("lr", "momentum")):
        bad = [dict(row) for row in rows]
        bad[place][name] = -0.5
        assert f"{name}=-0.5" in refused(problem, Grid.of(optim.SGD, kind(bad)))
    rows[4000]["clip_norm"] = -2.0
    assert refused(problem, Grid.of(optim.SGD, kind(rows))).endswith("got -2.0")


def test_rows_of_numbers_are_columns():
    rows = [{"lr": 0.1 * i, "seed": i, "clip_norm": None if i % 2 else 3} for i in range(1, 9)]
    (group,) = laid_out(Grid.of(optim.SGD, rows))
    assert group.numbers["lr"].tolist() == [row["lr"] for row in rows]
    assert group.seed.tolist() == list(range(1, 9))
    assert group.clip_norm.tolist() == [np.inf, 3.0] * 4


def test_a_model_of_two_layers_takes_patterned_arrays():
    X = torch.linspace(-1, 1, 8).reshape(-1, 1)
    p = Problem.from_model(nn.Linear(1, 1), X, X, loss=nn.MSELoss())
    rates = np.array([0.1, 0.2])
    table = descend(p, optim.SGD, lr={"weight": rates, "*": range(2)}, steps=0).table
    assert table.select("lr[weight]", "lr[*]").rows() == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
