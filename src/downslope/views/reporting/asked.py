"""What was asked of each optimizer, read back from the table of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
import polars as pl
from torch import optim

from downslope.errors import OptimizerError
from downslope.grid import RUN_SETTINGS
from downslope.optimizers import hyperparameters, optimizer_by_name
from downslope.records import settings_table
from downslope.runs import Runs

Value = Any
"""A number, a string, a bool, None, or a tuple of numbers."""


@dataclass(frozen=True)
class Asked:
    """What was asked of one optimizer.

    Attributes:
        optimizer: its name; of_torch: whether torch.optim has it.
        runs: how many there are.
        values: the values of each hyperparameter that is not at its default in all runs, and of
            batch_size, order, clip_norm, start and seed, each in the order in which they come.
        rows: None where the runs are the product of `values`; else the distinct settings apart
            from the seed, a dict each.
    """

    optimizer: str
    of_torch: bool
    runs: int
    values: dict[str, tuple[Value, ...]]
    rows: tuple[dict[str, Value], ...] | None = None

    @property
    def hyperparameters(self) -> dict[str, tuple[Value, ...]]:
        """The values without those of `RUN_SETTINGS`."""
        return {name: v for name, v in self.values.items() if name not in RUN_SETTINGS}


def asked_of(runs: Runs) -> list[Asked]:
    """What was asked, an item an optimizer, in their order.

    Of a call that was interrupted, what was asked for, not what was carried out.
    """
    frame, plan = runs.settings, runs.plan
    if plan is not None and runs.interrupted and len(runs) + runs.interrupted == plan.runs:
        frame = settings_table(plan)
    classes = {} if plan is None else {g.optimizer.__name__: g.optimizer for g in plan.groups}
    return [_asked(part, classes) for part in frame.partition_by("optimizer", maintain_order=True)]


def _asked(frame: pl.DataFrame, classes: Mapping[str, type[optim.Optimizer]]) -> Asked:
    name = str(frame["optimizer"][0])
    kind = classes.get(name) or _of_torch(name)
    known = {} if kind is None else hyperparameters(kind).defaults
    of_torch = kind is not None and kind is _of_torch(name)
    columns: dict[str, list[Value]] = {}
    for column in frame.columns:
        if column in ("run", "optimizer", "engine") or frame[column].is_null().all():
            continue
        values = [_plain(column, value) for value in frame[column].to_list()]
        if column in RUN_SETTINGS or column not in known or {*values} != {_default(known[column])}:
            columns[column] = values
    distinct = {column: tuple(dict.fromkeys(values)) for column, values in columns.items()}
    places = {column: _order(column, columns[column]) for column in columns}
    # Patterns stay in their order: the first that fits a parameter's name counts.
    bases = {column: column.partition("[")[0] for column in columns}
    ordered = sorted(
        columns, key=lambda c: min(places[other] for other in columns if bases[other] == bases[c])
    )
    distinct = {column: distinct[column] for column in ordered}
    settings = list(zip(*columns.values(), strict=True))
    if len({*settings}) == len(settings) == prod(map(len, distinct.values())):
        return Asked(name, of_torch, frame.height, distinct)
    without = [column for column in columns if column != "seed"]
    rows = dict.fromkeys(zip(*(columns[column] for column in without), strict=True))
    rows_by_name = tuple(dict(zip(without, row, strict=True)) for row in rows)
    return Asked(name, of_torch, frame.height, distinct, rows_by_name)


def _of_torch(name: str) -> type[optim.Optimizer] | None:
    try:
        found = optimizer_by_name(name)
    except OptimizerError:
        return None
    return found if found.__name__ == name else None


def _plain(column: str, value: Any) -> Value:
    if isinstance(value, list):
        return tuple(value)
    if column == "batch_size" and isinstance(value, str) and value.isdigit():
        return int(value)
    if column == "clip_norm" and value == inf:
        return None
    return value


def _default(value: Any) -> Value:
    """A default as the table of settings holds it."""
    if isinstance(value, tuple):
        return tuple(map(float, value))
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else repr(value)


def _order(column: str, values: Sequence[Value]) -> tuple[int, int]:
    """Hyperparameters first, what varies slowest before what varies faster; then the rest."""
    if column in RUN_SETTINGS:
        return 1, RUN_SETTINGS.index(column)
    changes = np.flatnonzero([value != values[0] for value in values[1:]])
    return 0, -int(changes[0]) if len(changes) else -len(values)
