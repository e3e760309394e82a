"""Learning a schema from the training rows of a table."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from downslope.errors import TableError, listed, nearest

from .column import fit_column
from .read import to_polars
from .schema import Missing, Schema, check_target
from .target import Task, fit_target
from .values import Mask, missing_in
from .words import counted, missing_value, quoted

LEAST_ROWS = 3


def target_rows(frame: Any, target: str) -> Mask:
    """The rows that have a target: mask (rows,).

    Raises:
        TableError: there is no such column.

    >>> import polars as pl
    >>> target_rows(pl.DataFrame({"price": [1.0, None, 3.0]}), "price").tolist()
    [True, False, True]
    """
    table = to_polars(frame)
    check_target(table, target)
    return ~missing_in(table[target])


def fit_schema(
    frame: Any,
    target: str,
    *,
    missing: Missing = "mean",
    task: Task | None = None,
    rows: ArrayLike | None = None,
) -> Schema:
    """Learn from the training rows how a table becomes arrays.

    Numbers are standardised with the training rows' mean and population standard deviation, true
    and false are kept as 1 and 0, text becomes a 0/1 column for each of its values (at most 50),
    dates become days since 1970-01-01. Constant columns and identifiers are dropped, and say so.

    Args:
        frame: the whole table (rows, columns), a dataframe of any library.
        target: the column to predict.
        missing: what becomes of a missing value: ``mean`` fills in the training rows' mean or most
            frequent value, ``drop`` drops the row, ``error`` refuses the table.
        task: ``regression``, ``classification``, or None: classification for text, true/false and
            the numbers 0 and 1, else regression.
        rows: indices of the training rows (by default all); those without a target are left out.

    Raises:
        TableError: whatever makes the table unusable; the sentence says what.

    >>> import polars as pl
    >>> table = pl.DataFrame({"age": [20, 30, 40], "price": [1.0, 2.0, 3.0]})
    >>> print(fit_schema(table, "price").describe()[0])
    age    number, standardised (mean 30, deviation 8.165)
    """
    table = to_polars(frame)
    _check_choice("missing", missing, get_args(Missing))
    _check_choice("task", task, (None, *get_args(Task)))
    has_target = target_rows(table, target)
    if missing == "error" and not has_target.all():
        raise missing_value(target, ~has_target)
    if int(has_target.sum()) < LEAST_ROWS:
        raise TableError(
            f"the table has {counted(int(has_target.sum()), 'row')} with a target; "
            f"at least {LEAST_ROWS} are needed"
        )
    training = _training_rows(rows, has_target)
    fitted_target = fit_target(table[target], training, task)
    columns = tuple(fit_column(table[name], training) for name in table.columns if name != target)
    used = [column for column in columns if column.kind != "dropped"]
    if not used:
        reasons = [f"{quoted(column.name)} ({column.note})" for column in columns[:5]]
        why = f": dropped were {listed(reasons)}" if columns else f" beside {quoted(target)}"
        raise TableError(f"no feature column is left{why}")
    if missing == "error":
        for column in used:
            gap = missing_in(table[column.name])
            if gap.any():
                raise missing_value(column.name, gap)
    return Schema(columns, fitted_target, missing)


def _training_rows(rows: ArrayLike | None, has_target: Mask) -> NDArray[np.int64]:
    chosen = np.arange(len(has_target)) if rows is None else np.asarray(rows)
    count = len(has_target)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise TableError(f"rows must be a sequence of row indices; got {chosen.dtype} values")
    if ((chosen < 0) | (chosen >= count)).any():
        raise TableError(f"rows must be indices from 0 to {count - 1}, as the table has them")
    training = chosen.astype(np.int64)
    training = training[has_target[training]]
    if training.size < 2:
        raise TableError(
            f"training needs at least 2 rows with a target; got {counted(training.size, 'row')}"
        )
    return training


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        near = nearest(str(value), [str(word) for word in allowed])
        raise TableError(f"{name} is one of {listed(map(repr, allowed))}; got {value!r}{near}")
