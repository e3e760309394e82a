"""A run's bits depend on its own settings alone: not on how many runs stand beside it, nor where it
stands, nor on their fate, nor on threads, nor on what is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from beside import ALL_KEPT, assert_same_bits, fused
from cases import DOUBLE, problem_named, seeded, table_rows
from torch import nn, optim

import downslope
from downslope import Grid, Problem
from downslope.runs import Runs

X, Y = table_rows(14, 3)
LINE = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), X, Y, loss=nn.MSELoss())
NET = problem_named("tanh")
VALLEY = Problem.from_function(
    lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2,
    start=torch.tensor([-1.2, 1.0], dtype=DOUBLE),
)
PROBLEMS = {"line": LINE, "net": NET, "valley": VALLEY}
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "Adam": (optim.Adam, {}),
    "NAdam": (optim.NAdam, {"weight_decay": 0.1}),
}

RATES = [1e-3 * 1.01**k for k in range(8)]
WILD = list(np.geomspace(1e3, 1e300, 300))
"""Neighbours that explode, sooner or later."""


def _asked(name: str, size: Any, dtype: torch.dtype) -> dict[str, Any]:
    optimizer, given = OPTIMIZERS[name]
    return {
        "optimizer": optimizer, **given, "batch_size": size, "dtype": dtype, "steps": 15,
        "every": 4, "keep": ALL_KEPT, "divergence": None,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("problem", "size"),
    [("valley", "full"), *((p, s) for p in ("line", "net") for s in ("full", 5, 1))],
)
def test_alone_among_eight_and_among_hundreds(problem, size, dtype):
    for name in ("momentum", "NAdam") if problem == "net" else OPTIMIZERS:
        asked = _asked(name, size, dtype)
        eight = fused(PROBLEMS[problem], lr=RATES, **asked)
        many = fused(PROBLEMS[problem], lr=[*WILD, *RATES, *RATES[::-1], 1e-5], **asked)
        assert many.diverged.any()
        for k in (0, 3, 7):
            assert_same_bits(eight, k, many, 300 + k)
            assert_same_bits(eight, k, many, 315 - k)
        again = eight[3].replay()
        assert_same_bits(eight, 3, again.runs, again.place)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_whichever_seeds_stand_beside_it(size, order):
    """Tiles with one order of samples, a few, or one for each run."""
    asked = _asked("momentum", size, DOUBLE) | {"order": order}
    eight = fused(LINE, lr=RATES, seed=3, **asked)
    for seeds in ([3, 5], [7, 3, 1, 0], list(range(9)), [*range(100, 130), 3]):
        many = fused(LINE, lr=RATES, seed=seeds, **asked)
        for k in (0, 5, 7):
            assert_same_bits(eight, k, many, k * len(seeds) + seeds.index(3))


def test_among_neighbours_with_what_it_does_not_have():
    """Momentum, decay, clipping, a start or a rate by pattern that only others use."""
    asked = {"steps": 20, "batch_size": 5, "keep": ALL_KEPT}
    alone = fused(LINE, lr=RATES, momentum=0, weight_decay=0, **asked)
    rows = [
        row
        for rate in RATES
        for row in (
            {"lr": rate, "momentum": 0.9, "weight_decay": 0.3, "dampening": 0.1},
            {"lr": rate, "momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0},
        )
    ]
    mixed = fused(LINE, Grid.of(optim.SGD, rows), **asked)
    clipped = fused(LINE, lr=RATES, clip_norm=[1e-3, None, 1e300], **asked)
    starts = [{"bias": [7.0]}, {}]
    started = fused(LINE, lr=RATES, start=starts, **asked)
    patterned = fused(LINE, lr={"weight": RATES, "bias": RATES}, **asked)
    for k in (0, 3, 7):
        assert_same_bits(alone, k, mixed, 2 * k + 1)
        assert_same_bits(alone, k, clipped, 3 * k + 1)
        assert_same_bits(alone, k, clipped, 3 * k + 2)
        assert_same_bits(alone, k, started, 2 * k + 1)
        assert_same_bits(alone, k, patterned, k * len(RATES) + k)
    for place in (1, 2, 14):
        again = mixed[place].replay()
        assert_same_bits(mixed, place, again.runs, again.place)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", ["full", 5])
def test_on_one_thread_or_two(size, two_threads):
    asked = _asked("Adam", size, DOUBLE) | {"seed": [0, 1, 2], "lr": [*RATES, *WILD[:40]]}
    both = fused(NET, **asked)
    torch.set_num_threads(1)
    one = fused(NET, **asked)
    for k in range(len(one)):
        assert_same_bits(one, k, both, k)


@pytest.mark.parametrize("runs", [1, 8])
@pytest.mark.parametrize("size", ["full", 5, 1])
def test_whatever_is_recorded(size, runs):
    """One run has its samples across the vector, where a batch has 16 of them; eight do not."""
    X, y = table_rows(40, 3)
    problem = Problem.from_model(NET.template.model, X, y, loss=nn.MSELoss())
    asked = {"lr": RATES[:runs], "steps": 14, "batch_size": 20 if size == 5 else size, "seed": 4}
    first = fused(problem, optim.Adam, **asked)
    for every in ("step", 3, "epoch"):
        for more in (
            {"keep": ALL_KEPT},
            {"keep": ("parameters",), "validation": (X[:9], y[:9])},
            {"keep": ("gradient_norm",), "patience": 10**6, "tolerance": 0.0},
            {"keep": ("batch_loss",), "divergence": None},
        ):
            other = fused(problem, optim.Adam, every=every, **more, **asked)
            for k in range(runs):
                assert_same_bits(first, k, other, k, but=("loss", "steps"))
                assert first.loss[k, 0] == other.loss[k, 0]
                assert first.loss[k, -1] == other.loss[k, -1]


def test_a_longer_run_begins_like_a_shorter_one():
    asked = {"lr": RATES, "batch_size": 5, "every": "step", "keep": ALL_KEPT}
    short, long = (fused(NET, optim.Adam, steps=steps, **asked) for steps in (7, 23))
    for name in ("loss", "batch_loss", "gradient_norm"):
        columns = getattr(short, name).shape[1]
        np.testing.assert_array_equal(getattr(long, name)[:, :columns], getattr(short, name))


def _longest(runs: Runs, places: list[int]) -> float:
    """Seconds of the slowest of some replays, which are right."""
    slowest = 0.0
    for place in places:
        start = time.perf_counter()
        again = runs[place].replay()
        slowest = max(slowest, time.perf_counter() - start)
        assert again.number == place
        assert_same_bits(runs, place, again.runs, again.place)
    return slowest


def test_one_of_a_hundred_thousand():
    """The same bits as among eight, and computed again by itself alone."""
    asked = {"steps": 20, "batch_size": 5, "momentum": 0.9, "seed": [5, 6]}
    eight = fused(LINE, lr=RATES, **asked)
    rates = np.concatenate([np.geomspace(1e-6, 1e300, 50_000 - 8), RATES])
    start = time.perf_counter()
    many = fused(LINE, lr=rates, **asked)
    took = time.perf_counter() - start
    assert len(many) == 100_000 and 0 < many.diverged.sum() < 100_000
    for k in (0, 7):
        for seed in (0, 1):
            assert_same_bits(eight, 2 * k + seed, many, 2 * (50_000 - 8 + k) + seed)
    assert _longest(many, [0, 31_337, 99_999]) < max(0.3 * took, 0.2)


def test_a_study_that_was_loaded_is_replayed_to_the_bit(tmp_path):
    """The program is made anew, from one run's settings alone."""
    asked = {"steps": 12, "batch_size": 5, "lr": RATES, "momentum": [0.0, 0.9], "seed": [1, 2]}
    runs = fused(LINE, study=tmp_path / "study", **asked)
    loaded = downslope.load(tmp_path / "study", problem=LINE)
    for place in (0, 1, 2, 31):
        assert_same_bits(runs, place, loaded, place)
        again = loaded[place].replay()
        assert_same_bits(runs, place, again.runs, again.place)
    whole = fused(NET, optim.Adam, lr=0.01, steps=5, study=tmp_path / "single")
    again = downslope.load(tmp_path / "single", problem=NET)[0].replay()
    assert_same_bits(whole, 0, again.runs, again.place)
