"""Outcomes put together: arrays of chunks on top of each other, and the table of settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.processes import threads
from downslope.engines.work import Outcome, Status
from downslope.groups import Group
from downslope.optimizers import hyperparameters
from downslope.plan import Plan

Numbers = NDArray[np.floating[Any]]

PER_RUN = ("status", "first_bad_step", "steps_done")
PER_RECORD = ("steps", "loss", "validation_loss", "batch_loss", "gradient_norm")
NAMED = ("parameters", "buffers", "path")
"""What an outcome holds: an array a run, an array of records, tensors by name."""

_BLOCK = 2**16
"""Numbers looked at together, so that they stay in the processor's cache."""

_LAST = ("clip_norm", "start", "batch_size", "order", "seed", "engine")


Place = slice | NDArray[np.int64]
"""Which rows of the whole are a part's."""


def places(numbers: Sequence[NDArray[np.int64]]) -> list[Place]:
    """For each part the rows of its runs where all are in the order of their numbers."""
    joined = np.concatenate(numbers)
    ends = np.cumsum([len(part) for part in numbers])
    if (joined[1:] > joined[:-1]).all():
        return [
            slice(int(end) - len(part), int(end)) for part, end in zip(numbers, ends, strict=True)
        ]
    there = np.zeros(joined.max() + 1, dtype=bool)
    there[joined] = True
    return list(np.split(np.cumsum(there)[joined] - 1, ends[:-1]))


def gathered(parts: Sequence[NDArray[Any]], rows: Sequence[Place]) -> NDArray[Any]:
    """(runs of a part, …) each as one array of all runs; short rows end in NaN, or -1."""
    whole = parts[0]
    if len(parts) == 1 and isinstance(rows[0], slice):
        return whole
    runs, width = sum(map(len, parts)), max((p.shape[1] for p in parts if p.ndim > 1), default=0)
    if all(_repeats(part, whole) for part in parts):
        return np.broadcast_to(whole[0], (runs, width))
    made = np.empty((runs, width) if whole.ndim > 1 else runs, dtype=whole.dtype)
    for part, mine in zip(parts, rows, strict=True):
        if part.ndim == 1 or part.shape[1] == width:
            made[mine] = part
        else:
            made[mine, : part.shape[1]] = part
            made[mine, part.shape[1] :] = np.nan if part.dtype.kind == "f" else -1
    return made


def shared_steps(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """A part's steps (runs, records); one row over and over where no run ended before the last.

    Runs of a part have their records at the same steps, so that then their rows are equal.
    """
    ended = (steps[:, -1] < 0).any()
    return steps if ended else np.broadcast_to(steps[0].copy(), steps.shape)


def _repeats(part: NDArray[Any], whole: NDArray[Any]) -> bool:
    """Whether a part is but a view of one row over and over, the first of the whole."""
    return part.ndim > 1 and part.strides[0] == 0 and np.array_equal(part[0], whole[0])


def gathered_tensors(parts: Sequence[Tensor], rows: Sequence[Place], along_records: bool) -> Tensor:
    """The same for tensors; with records on the second axis, short ones end in NaN."""
    whole = parts[0]
    if len(parts) == 1 and isinstance(rows[0], slice):
        return whole
    shape = [sum(map(len, parts)), *whole.shape[1:]]
    if along_records:
        shape[1] = max(part.shape[1] for part in parts)
    made = whole.new_empty(shape)
    with threads(1):  # more gain little in a copy, and wait for each other on a busy machine
        for part, mine in zip(parts, rows, strict=True):
            place = mine if isinstance(mine, slice) else torch.from_numpy(mine)
            if list(part.shape[1:]) == shape[1:]:
                made[place] = part
            else:
                made[place, : part.shape[1]] = part
                made[place, part.shape[1] :] = torch.nan
    return made


def settings_table(plan: Plan) -> pl.DataFrame:
    """A row a run of the plan, in the order of their numbers."""
    engines = {chunk.group: chunk.engine for chunk in plan.chunks}
    clips = any(np.isfinite(group.clip_norm).any() for group in plan.groups)
    frames = [_group_table(plan, group, engines[g], clips) for g, group in enumerate(plan.groups)]
    if len(frames) == 1:
        return frames[0]
    frame = pl.concat(frames, how="diagonal_relaxed").sort("run")
    last = [n for n in _LAST if n in frame.columns]
    return frame.select([*(c for c in frame.columns if c not in last), *last])


def _group_table(plan: Plan, group: Group, engine: str, clips: bool) -> pl.DataFrame:
    columns: dict[str, Any] = {"run": group.index, "optimizer": group.optimizer.__name__}
    known = hyperparameters(group.optimizer)
    for name in (*known.shown, *(n for n in group.numbers if n not in known.defaults)):
        if name in group.numbers:
            columns[name] = group.numbers[name]
        elif name in group.patterned:
            columns |= {f"{name}[{p}]": column for p, column in group.patterned[name].items()}
        else:
            value = group.switches.get(name)
            columns[name] = value if value is None or isinstance(value, bool | str) else repr(value)
    if clips:
        columns["clip_norm"] = group.clip_norm
    if len(plan.starts) > 1:
        columns["start"] = group.start
    size = "full" if group.batch_size is None else str(group.batch_size)
    columns |= {"batch_size": size, "order": group.order, "seed": group.seed, "engine": engine}
    varying = {n: c for n, c in columns.items() if isinstance(c, np.ndarray) and c.strides[0]}
    frame = pl.DataFrame([_series(name, column) for name, column in varying.items()])
    return frame.with_columns(
        [_everywhere(name, c) for name, c in columns.items() if name not in varying]
    ).select(list(columns))


def _series(name: str, column: NDArray[Any]) -> pl.Series:
    """A column of the table; a tuple a run is a list a run, which every Parquet reader knows."""
    series = pl.Series(name, np.ascontiguousarray(column))
    return series.cast(pl.List(pl.Float64)) if column.ndim == 2 else series


def _everywhere(name: str, value: Any) -> pl.Expr:
    """A value that all runs share, which polars then holds once."""
    if isinstance(value, np.ndarray):
        one = _series(name, value[:1])
        return pl.lit(one.to_list()[0], dtype=one.dtype).alias(name)
    return pl.lit(value).alias(name)


def status_names(status: NDArray[np.int8]) -> pl.Series:
    """The words for them."""
    words = pl.Series("status", [known.name for known in Status], dtype=pl.String)
    return words[status.astype(np.uint32)]


def final_losses(losses: Numbers, steps: NDArray[np.int64], status: NDArray[np.int8]) -> Numbers:
    """The loss at each run's last record; NaN where it diverged."""
    final = losses[:, -1].copy()
    diverged = status == Status.diverged
    short = np.flatnonzero((steps[:, -1] < 0) & ~diverged)
    final[short] = losses[short, np.maximum((steps[short] >= 0).sum(1) - 1, 0)]
    final[diverged] = np.nan
    return final


def best_losses(losses: Numbers, sign: NDArray[np.float64]) -> Numbers:
    """The lowest finite recorded loss of each run (the highest where sign is -1), else NaN."""
    best = np.empty(len(losses), dtype=losses.dtype)
    turn = sign.astype(losses.dtype)[:, None] if (sign < 0).any() else None
    step = max(_BLOCK // losses.shape[1], 1)
    for first in range(0, len(losses), step):
        rows = slice(first, first + step)
        some = losses[rows] if turn is None else losses[rows] * turn[rows]
        finite = np.isfinite(some)
        if not finite.all():
            some = np.where(finite, some, np.inf)
        # NumPy takes twice as long along short rows as across them.
        np.minimum.reduce(np.ascontiguousarray(some.T), axis=0, out=best[rows])
    best[~np.isfinite(best)] = np.nan
    return best if turn is None else best * turn[:, 0]


def equals(column: pl.Series, value: Any) -> NDArray[np.bool_]:
    """Where a column of the table holds a value; numbers to 9 digits.

    Raises:
        TypeError, ValueError: if it cannot hold such a value.
    """
    if isinstance(value, type):
        value = value.__name__
    if value is None and column.name == "batch_size":
        value = "full"
    if value is not None and isinstance(value, tuple) != isinstance(column.dtype, pl.List):
        raise TypeError("a tuple equals a list of numbers, and nothing else does")
    if isinstance(value, tuple):
        return np.array(
            [
                v is not None and len(v) == len(value) and np.allclose(v, value, 1e-9, 0)
                for v in column.to_list()
            ]
        )
    if value is None:
        return column.is_null().to_numpy()
    if column.dtype == pl.String:
        return (column == str(value)).fill_null(False).to_numpy()
    if column.dtype == pl.Boolean:
        return (column == bool(value)).fill_null(False).to_numpy()
    return np.isclose(column.cast(pl.Float64).fill_null(np.nan).to_numpy(), float(value), 1e-9, 0)


def together(parts: Sequence[tuple[NDArray[np.int64], Outcome]]) -> dict[str, Any]:
    """What happened to all runs, in the order of their numbers, by the names that `Runs` has.

    Args:
        parts: run numbers and what happened to them.
    """
    outcomes = [outcome for _, outcome in parts]
    rows = places([index for index, _ in parts])
    values: dict[str, Any] = {}
    for name in (*PER_RUN, *PER_RECORD):
        arrays = [getattr(o, name) for o in outcomes]
        if name == "steps" and len(arrays) > 1:  # the largest of all, and seldom worth a copy
            arrays = list(map(shared_steps, arrays))
        values[name] = None if arrays[0] is None else gathered(arrays, rows)
    for name in NAMED:
        named = [getattr(o, name) for o in outcomes]
        values[name] = (
            None
            if named[0] is None
            else {
                key: gathered_tensors([n[key] for n in named], rows, name == "path")
                for key in named[0]
            }
        )
    return values
