"""The target column: a number to predict (regression) or one of some classes (classification)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from downslope.errors import TableError

from .column import category_codes, identifies_rows
from .values import (
    Floats,
    Mask,
    kind_of,
    missing_in,
    moments,
    numbers,
    parsed_numbers,
    standardised,
    texts,
)
from .words import first_row, quoted, shown, some

Task = Literal["regression", "classification"]
MOST_NUMERIC_CLASSES = 100


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes:
        name: the column's name in the table.
        task: ``regression`` or ``classification``.
        mean: of the training rows (regression; else 0).
        scale: their population standard deviation (regression; else 1).
        classes: the classes' names in the order of their indices (classification; else empty).
    """

    name: str
    task: Task
    mean: float = 0.0
    scale: float = 1.0
    classes: tuple[str, ...] = ()

    def encode(self, series: pl.Series) -> Floats | NDArray[np.int64]:
        """The target of any rows: float64 standardised, or int64 class indices: (rows,).

        Raises:
            TableError: a missing value, one of another kind, or an unknown class, with its row.
        """
        missing = missing_in(series)
        if missing.any():
            raise TableError(
                f"target {quoted(self.name)} has no value in row {first_row(missing):,}; "
                "leave such rows out"
            )
        if self.task == "regression":
            return standardised(numbers(series), self.mean, self.scale, self.name)
        values = texts(series)
        codes = category_codes(values, self.classes)
        if (codes < 0).any():
            row = first_row(codes < 0)
            raise TableError(
                f"target {quoted(self.name)} holds the unknown class "
                f"{quoted(str(values[row - 1]))} in row {row:,}; "
                f"the classes are {some(self.classes)}"
            )
        return codes

    def to_own_units(self, values: ArrayLike) -> Floats:
        """Standardised predictions in the target's units; any shape, kept.

        Raises:
            TableError: the target has classes, not units.
        """
        if self.task != "regression":
            raise TableError(f"target {quoted(self.name)} has classes, not units: see class_names")
        return np.asarray(values, dtype=np.float64) * self.scale + self.mean

    def class_names(self, indices: ArrayLike) -> NDArray[np.str_]:
        """The names of class indices; any shape, kept.

        Raises:
            TableError: the target is a number, or an index is not that of a class.
        """
        if self.task != "classification":
            raise TableError(f"target {quoted(self.name)} is a number and has no classes")
        index = np.asarray(indices)
        count = len(self.classes)
        whole = index.dtype.kind in "iu" or index.size == 0
        if not whole or bool(((index < 0) | (index >= count)).any()):
            raise TableError(f"class indices are whole numbers from 0 to {count - 1}")
        return np.asarray(np.array(self.classes)[index.astype(np.int64)])

    def describe(self) -> str:
        """What is done with the target, in words."""
        if self.task == "regression":
            how = f"standardised (mean {self.mean:.4g}, deviation {self.scale:.4g})"
            return f"target: {how}"
        names = ", ".join(shown(name, 12) for name in self.classes)
        return f"target, classification, {len(self.classes)} classes: {names}"


def fit_target(series: pl.Series, rows: NDArray[np.int64], task: Task | None) -> Target:
    """Learn from the table how its target is to be treated.

    The task and the classes come from all rows (a class that only validation rows hold is still a
    class), mean and scale from the training rows.

    Args:
        series: the target column, of the whole table: (all rows,).
        rows: indices of the training rows, each with a target: (training rows,).
        task: as for `fit_schema`.

    Raises:
        TableError: text in a numeric target, a target with one value, too many classes.
    """
    name, kind = quoted(series.name), kind_of(series.dtype)
    if kind == "category":
        _check_text(series, task)
    if kind == "boolean" and task == "regression":
        raise TableError(f"target {name} holds true and false; regression needs numbers")
    if kind != "number":
        return _fit_classes(series, rows)
    values = numbers(series)
    zero_and_one = np.array_equal(np.unique(values[~np.isnan(values)]), [0.0, 1.0])
    if task == "classification" or (task is None and zero_and_one):
        return _fit_classes(series, rows)
    training = values[rows]
    mean, scale = moments(training)
    if training.min() == training.max() or scale == 0:
        raise TableError(
            f"target {name} is {training[0]:g} in every training row; there is nothing to learn"
        )
    return Target(series.name, "regression", mean, scale)


def _check_text(series: pl.Series, task: Task | None) -> None:
    """Refuse text where numbers are meant: for regression, or where half of it is numbers."""
    present = ~missing_in(series)
    is_number: Mask = parsed_numbers(series).is_not_null().to_numpy()
    mostly = 2 * int(is_number.sum()) >= int(present.sum())
    if task == "classification" or (task is None and not mostly):
        return
    wrong = present & ~is_number
    if not wrong.any():
        raise TableError(
            f"text in a numeric target: every value of {quoted(series.name)} is a number stored "
            f"as text (row {first_row(present):,}: {quoted(str(series[first_row(present) - 1]))}); "
            "convert the column to numbers, or choose the task 'classification'"
        )
    row = first_row(wrong)
    raise TableError(
        f"text in a numeric target: {quoted(series.name)} holds {quoted(str(series[row - 1]))} "
        f"in row {row:,}; correct it, leave it empty if the value is missing, "
        "or choose the task 'classification'"
    )


def _fit_classes(series: pl.Series, rows: NDArray[np.int64]) -> Target:
    name, values = quoted(series.name), texts(series)
    classes: list[str] = values.drop_nulls().unique().to_list()
    if kind_of(series.dtype) == "number":
        if len(classes) > MOST_NUMERIC_CLASSES:
            raise TableError(
                f"target {name} holds {len(classes):,} different numbers, and classification "
                f"allows at most {MOST_NUMERIC_CLASSES}; choose the task 'regression'"
            )
        classes.sort(key=float)
    elif identifies_rows(len(classes), len(values) - values.null_count()):
        raise TableError(
            f"target {name} has its own value in nearly every row "
            f"(row {rows[0] + 1:,}: {quoted(str(values[int(rows[0])]))}), so it has no classes"
        )
    else:
        classes.sort()
    in_training = values[rows].unique().to_list()
    if len(in_training) < 2:
        raise TableError(
            f"target {name} is {some(in_training)} in every training row; "
            "classification needs at least 2 classes"
        )
    return Target(series.name, "classification", classes=tuple(classes))
