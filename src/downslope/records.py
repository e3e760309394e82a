"""Outcomes put together: arrays of chunks on top of each other, and the table of settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.work import Status
from downslope.groups import Group
from downslope.optimizers import hyperparameters
from downslope.plan import Plan

Numbers = NDArray[np.floating[Any]]

_LAST = ("clip_norm", "start", "batch_size", "order", "seed", "engine")


def padded(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Arrays (runs, columns) on top of each other, short rows ending in NaN, or -1."""
    width = max(a.shape[1] for a in arrays)
    fill = np.nan if arrays[0].dtype.kind == "f" else -1
    ends = [
        a
        if a.shape[1] == width
        else np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill)
        for a in arrays
    ]
    return np.concatenate(ends)


def padded_tensors(tensors: list[Tensor], along_records: bool) -> Tensor:
    """Tensors on top of each other; with records on the second axis, short ones end in NaN."""
    if along_records:
        width = max(t.shape[1] for t in tensors)
        tensors = [
            torch.cat([t, t.new_full((t.shape[0], width - t.shape[1], *t.shape[2:]), torch.nan)], 1)
            for t in tensors
        ]
    return torch.cat(tensors)


def settings_table(plan: Plan) -> pl.DataFrame:
    """A row a run of the plan, in the order of their numbers."""
    engines = {chunk.group: chunk.engine for chunk in plan.chunks}
    frames = [_group_table(plan, group, engines[g]) for g, group in enumerate(plan.groups)]
    frame = pl.concat(frames, how="diagonal_relaxed").sort("run")
    last = [n for n in _LAST if n in frame.columns]
    return frame.select([*(c for c in frame.columns if c not in last), *last])


def _group_table(plan: Plan, group: Group, engine: str) -> pl.DataFrame:
    runs = len(group)
    columns: dict[str, Any] = {
        "run": group.index,
        "optimizer": pl.repeat(group.optimizer.__name__, runs, eager=True),
    }
    known = hyperparameters(group.optimizer)
    for name in (*known.shown, *(n for n in group.numbers if n not in known.defaults)):
        if name in group.numbers:
            columns[name] = np.ascontiguousarray(group.numbers[name])
        elif name in group.patterned:
            columns |= {f"{name}[{p}]": column for p, column in group.patterned[name].items()}
        else:
            value = group.switches.get(name)
            shown = value if value is None or isinstance(value, bool | str) else repr(value)
            columns[name] = pl.repeat(shown, runs, eager=True)
    if any(np.isfinite(g.clip_norm).any() for g in plan.groups):
        columns["clip_norm"] = group.clip_norm
    if len(plan.starts) > 1:
        columns["start"] = group.start
    size = "full" if group.batch_size is None else str(group.batch_size)
    columns |= {
        "batch_size": pl.repeat(size, runs, eager=True),
        "order": pl.repeat(group.order, runs, eager=True),
        "seed": group.seed,
        "engine": pl.repeat(engine, runs, eager=True),
    }
    return pl.DataFrame([pl.Series(name, _listed(c)) for name, c in columns.items()])


def _listed(column: Any) -> Any:
    """A tuple a run becomes a list a run, which every Parquet reader knows."""
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return pl.Series(column.tolist(), dtype=pl.List(pl.Float64))
    return column


def final_losses(losses: Numbers, steps: NDArray[np.int64], status: NDArray[np.int8]) -> Numbers:
    """The loss at each run's last record; NaN where it diverged."""
    last = np.maximum((steps >= 0).sum(1) - 1, 0)
    final = losses[np.arange(len(losses)), last]
    return np.where(status == Status.diverged, np.nan, final)


def best_losses(losses: Numbers, sign: NDArray[np.float64]) -> Numbers:
    """The lowest finite recorded loss of each run (the highest where sign is -1), else NaN."""
    turned = np.where(np.isfinite(losses), sign[:, None] * losses, np.inf)
    best = turned.min(1)
    return np.where(np.isfinite(best), sign * best, np.nan).astype(losses.dtype)


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
