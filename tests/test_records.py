"""Outcomes put together, against the same done one run at a time."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import optim

import downslope as ds
from downslope.engines.work import Outcome, Status
from downslope.records import (
    best_losses,
    final_losses,
    gathered,
    gathered_tensors,
    places,
    status_names,
)
from downslope.runs import assemble

DRAWN = np.random.default_rng(0)


def outcome(numbers, width, steps=None):
    """Runs whose every record tells their number."""
    runs = len(numbers)
    loss = (np.asarray(numbers)[:, None] + np.arange(width) / 100).astype(np.float32)
    return Outcome(
        status=np.asarray(numbers, dtype=np.int8) % 4,
        first_bad_step=np.asarray(numbers) * 2,
        steps_done=np.asarray(numbers) * 3,
        steps=np.tile(np.arange(width), (runs, 1)) if steps is None else steps,
        loss=loss,
        validation_loss=None,
        batch_loss=loss[:, : width - 1].astype(np.float64),
        gradient_norm=None,
        parameters={"w": torch.tensor(numbers, dtype=torch.float32)[:, None].repeat(1, 2)},
        buffers={},
        path={"w": torch.from_numpy(loss.copy())[:, :, None]},
    )


def whole(parts, missing=()):
    numbers = np.concatenate([np.asarray(n) for n, _ in parts])
    settings = pl.DataFrame({"run": np.sort(np.append(numbers, np.asarray(missing, int)))})
    return assemble(settings, [(np.asarray(n), o) for n, o in parts], None)


@pytest.mark.parametrize(
    "split",
    [
        [[0, 1, 2, 3]],
        [[0, 1], [2, 3]],
        [[2, 3], [0, 1]],
        [[0, 2], [1, 3]],
        [[3, 1], [2, 0]],
        [[3, 2, 1, 0]],
        [[4, 9], [1, 7], [3]],
        [[5, 6, 8]],
    ],
    ids=str,
)
def test_runs_stand_in_the_order_of_their_numbers(split):
    wanted = sorted(run for part in split for run in part)
    widths = [3 + place for place in range(len(split))]
    parts = [(n, outcome(n, width)) for n, width in zip(split, widths, strict=True)]
    runs = whole(parts, missing=[20, 21])
    width_of = {run: width for n, width in zip(split, widths, strict=True) for run in n}
    assert runs.settings["run"].to_list() == wanted
    assert runs.steps_done.tolist() == [3 * run for run in wanted]
    assert runs.first_bad_step.dtype == runs.steps.dtype == np.int64
    for place, run in enumerate(wanted):
        width, most = width_of[run], max(widths)
        ends = [np.nan] * (most - width)
        loss = [np.float32(run + step / 100) for step in range(width)]
        np.testing.assert_array_equal(runs.loss[place], [*loss, *ends])
        np.testing.assert_array_equal(runs.batch_loss[place], [*loss[:-1], *ends])
        np.testing.assert_array_equal(runs.path["w"][place, :, 0], [*loss, *ends])
        assert runs.steps[place].tolist() == [*range(width), *[-1] * len(ends)]
        assert runs.parameters["w"][place].tolist() == [run, run]
        assert runs.status[place] == run % 4
    assert runs.validation_loss is None and runs.buffers == {}


def test_one_part_in_order_is_taken_as_it_is():
    made = outcome([0, 1, 2], 4)
    runs = whole([([0, 1, 2], made)])
    assert runs.loss is made.loss and runs.parameters["w"] is made.parameters["w"]


def test_steps_that_all_runs_share_are_held_once():
    def shared(numbers, at):
        return (numbers, outcome(numbers, 4, np.broadcast_to(np.array(at), (len(numbers), 4))))

    at = [0, 5, 10, 12]
    same = whole([shared([0, 1], at), shared([2, 3, 4], at)])
    assert same.steps.strides[0] == 0 and same.steps.tolist() == [at] * 5
    assert same[1:3].steps.tolist() == [at] * 2
    other = whole([shared([0, 1], at), shared([2, 3, 4], [0, 6, 12, 18])])
    assert other.steps.tolist() == [at] * 2 + [[0, 6, 12, 18]] * 3
    written_out = whole([([0, 1], outcome([0, 1], 4)), ([2, 3, 4], outcome([2, 3, 4], 4))])
    assert written_out.steps.strides[0] == 0
    assert written_out.steps.dtype == np.int64 and written_out.steps.tolist() == [[0, 1, 2, 3]] * 5
    ended = outcome([2, 3, 4], 4, np.array([at, [0, 5, -1, -1], at]))
    some = whole([shared([0, 1], at), ([2, 3, 4], ended)])
    assert some.steps.tolist() == [at, at, at, [0, 5, -1, -1], at]
    mixed = whole([shared([0, 1], at), ([2], outcome([2], 3))])
    assert mixed.steps.tolist() == [at, at, [0, 1, 2, -1]]


def test_places_of_a_million_scattered_runs():
    numbers = np.split(DRAWN.permutation(10**6), [10**5, 4 * 10**5])
    rows = places(numbers)
    assert np.array_equal(gathered(numbers, rows), np.arange(10**6))
    tensors = [torch.from_numpy(n) for n in numbers]
    assert torch.equal(gathered_tensors(tensors, rows, False), torch.arange(10**6))


# -- what the table says ---------------------------------------------------------------------


def recorded(runs, records, dtype):
    """Losses and steps of runs that end where they like, here and there a loss not finite."""
    losses = DRAWN.standard_normal((runs, records)).astype(dtype)
    losses[DRAWN.random(losses.shape) < 0.02] = np.inf
    losses[DRAWN.random(losses.shape) < 0.02] = -np.inf
    last = DRAWN.integers(0, records, runs)
    steps = np.where(np.arange(records) <= last[:, None], np.arange(records) * 10, -1)
    losses[steps < 0] = np.nan
    losses[::7, 0] = np.nan
    status = DRAWN.integers(0, 4, runs).astype(np.int8)
    return losses, steps, status


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("runs", "records"), [(1, 1), (50, 1), (300, 5), (20_000, 3), (0, 4)])
def test_the_losses_of_the_table_run_by_run(runs, records, dtype):
    losses, steps, status = recorded(runs, records, dtype)
    before = losses.copy()
    sign = DRAWN.choice([-1.0, 1.0], runs)
    for signs in (sign, np.ones(runs), -np.ones(runs)):
        best = best_losses(losses, signs)
        assert best.dtype == dtype and best.shape == (runs,)
        for row, one, side in zip(losses, best, signs, strict=True):
            finite = row[np.isfinite(row)]
            wanted = (min if side > 0 else max)(finite) if len(finite) else np.nan
            np.testing.assert_array_equal(one, wanted)
    final = final_losses(losses, steps, status)
    assert final.dtype == dtype
    for row, at, said, one in zip(losses, steps, status, final, strict=True):
        np.testing.assert_array_equal(one, np.nan if said == Status.diverged else row[at >= 0][-1])
    np.testing.assert_array_equal(losses, before)


def test_losses_that_cannot_be_written_to():
    losses = np.broadcast_to(np.array([3.0, 1.0, 2.0]), (4, 3))
    assert best_losses(losses, np.ones(4)).tolist() == [1.0] * 4


def test_the_words_for_a_status():
    codes = np.array([2, 0, 1, 3, 0], dtype=np.int8)
    words = status_names(codes)
    assert words.to_list() == ["diverged", "finished", "converged", "stopped", "finished"]
    assert words.dtype == pl.String and status_names(codes[:0]).dtype == pl.String


def test_the_table_of_settings_of_several_optimizers():
    """Columns in one order, None where an optimizer has no such setting, tuples as lists."""
    p = ds.Problem.from_function(lambda x: x**2, start=1.0)
    grids = [
        ds.Grid(optim.Adam, lr=0.1, betas=[(0.9, 0.99), (0.8, 0.9)], amsgrad=[True, False]),
        ds.Grid(optim.SGD, lr=[0.1, 0.2], clip_norm=[None, 2]),
        ds.Grid(optim.Adam, lr=0.5),
    ]
    table = ds.descend(p, grids, steps=0, seed=[3, 4], progress=False).settings
    assert table["run"].to_list() == list(range(18))
    assert table["optimizer"].to_list() == ["Adam"] * 8 + ["SGD"] * 8 + ["Adam"] * 2
    assert table["amsgrad"].to_list() == [True, True, False, False] * 2 + [None] * 8 + [False] * 2
    betas = [[0.9, 0.99]] * 4 + [[0.8, 0.9]] * 4 + [None] * 8 + [[0.9, 0.999]] * 2
    assert table["betas"].to_list() == betas and table["betas"].dtype == pl.List(pl.Float64)
    assert table["momentum"].to_list() == [None] * 8 + [0.0] * 8 + [None] * 2
    assert table["clip_norm"].to_list() == [np.inf] * 8 + [np.inf, np.inf, 2, 2] * 2 + [np.inf] * 2
    assert table["seed"].to_list() == [3, 4] * 9
    assert table.columns[:3] == ["run", "optimizer", "lr"]
    assert table.columns[-5:] == ["clip_norm", "batch_size", "order", "seed", "engine"]
    assert table.filter(pl.col("optimizer") == "SGD").height == 8
