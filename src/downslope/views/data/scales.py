"""A setting's values as the axis of a map: where its cells lie, and what is written at them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.views.data.losses import Floats
from downslope.views.data.settings import said

Kind = Literal["log", "linear", "categories"]

FEW = 12
"""Values of an axis up to which each is written at its cell."""

_EVEN = 0.05
"""Spread of steps, as a share of their mean, up to which they count as even."""

_FACTOR = 5.0
"""Ratio of two values from which on they count as geometric."""


@dataclass(frozen=True, eq=False)
class Scale:
    """One axis of a map.

    Attributes:
        name: of the column of the settings.
        label: the same for people, with its unit.
        kind: "log" and "linear" lie where their numbers say; "categories" side by side at 0, 1, ….
        edges: of the cells, ascending, (cells + 1,).
        centres: of the cells, (cells,).
        words: what stands at each cell, (cells,).
        binned: whether cells are spans of numbers, and not one value each.
    """

    name: str
    label: str
    kind: Kind
    edges: Floats
    centres: Floats
    words: tuple[str, ...]
    binned: bool = False

    def __len__(self) -> int:
        return len(self.centres)


def scale_of(column: pl.Series) -> tuple[Scale, NDArray[np.int64]]:
    """The axis of a column, a cell a value, and the cell of each row; -1 where there is none.

    Numbers in even or geometric steps lie on a linear or logarithmic axis; others side by side if
    they are few.
    """
    numbers = _numbers(column)
    if numbers is None:
        return _categories(column)
    known = np.isfinite(numbers)
    values, inverse = np.unique(numbers[known], return_inverse=True)
    cells = np.full(len(numbers), -1, dtype=np.int64)
    cells[known] = inverse
    kind, even = _kind(values)
    words = tuple(said(_plain(value)) for value in values)
    if not even and len(values) <= FEW:
        return _side_by_side(column.name, words), cells
    return Scale(column.name, _label(column.name), kind, _edges(values, kind), values, words), cells


def binned(column: pl.Series, scale: Scale, count: int) -> tuple[Scale, NDArray[np.int64]]:
    """The same column in `count` spans, even on the scale's own axis."""
    numbers = _numbers(column)
    assert numbers is not None
    places = np.log10(numbers) if scale.kind == "log" else numbers
    known = np.isfinite(places)
    edges: Floats = np.linspace(places[known].min(), places[known].max(), count + 1)
    cells = np.full(len(numbers), -1, dtype=np.int64)
    cells[known] = np.clip(np.searchsorted(edges, places[known], side="right") - 1, 0, count - 1)
    centres: Floats = (edges[1:] + edges[:-1]) / 2
    if scale.kind == "log":
        edges, centres = np.asarray(10.0**edges), np.asarray(10.0**centres)
    digits = 2 if scale.kind == "log" else 3  # a bin's middle is no more exact
    words = tuple(said(_plain(float(f"{value:.{digits}g}"))) for value in centres)
    label = f"{scale.label}, in {count} bins"
    return Scale(scale.name, label, scale.kind, edges, centres, words, binned=True), cells


def _numbers(column: pl.Series) -> Floats | None:
    """The column as numbers, NaN where there is none; None if it holds others than numbers."""
    if column.name == "batch_size":
        column = column.cast(pl.Float64, strict=False) if "full" not in column else column
    if not column.dtype.is_numeric():
        return None
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _kind(values: Floats) -> tuple[Kind, bool]:
    """The axis on which steps are more even, and whether they are even there."""
    if len(values) < 2:
        return "linear", False
    linear = _unevenness(values)
    if values[0] <= 0:
        return "linear", linear <= _EVEN
    geometric = _unevenness(np.log(values))
    if len(values) == 2:
        return ("log" if values[1] >= _FACTOR * values[0] else "linear"), True
    return ("log", geometric <= _EVEN) if geometric < linear else ("linear", linear <= _EVEN)


def _unevenness(values: Floats) -> float:
    steps = np.diff(values)
    return float(steps.std() / steps.mean())


def _edges(values: Floats, kind: Kind) -> Floats:
    """Half way between neighbours, and as far beyond the ends, (values + 1,)."""
    places = np.log10(values) if kind == "log" else values
    if len(places) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (places[1:] + places[:-1]) / 2
    made = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return np.asarray(10.0**made if kind == "log" else made)


def _categories(column: pl.Series) -> tuple[Scale, NDArray[np.int64]]:
    """Names, tuples and the like, in the order in which they were given."""
    rows: list[Hashable] = [tuple(v) if isinstance(v, list) else v for v in column.to_list()]
    order: dict[Any, int] = {}
    for value in rows:
        if value is not None:
            order.setdefault(value, len(order))
    values = list(order)
    if column.name == "batch_size":
        values.sort(key=lambda size: (size == "full", 0 if size == "full" else int(size)))
        order = {value: place for place, value in enumerate(values)}
    cells = np.array([order.get(value, -1) for value in rows], dtype=np.int64)
    return _side_by_side(column.name, tuple(said(value) for value in values)), cells


def _side_by_side(name: str, words: tuple[str, ...]) -> Scale:
    centres: Floats = np.arange(len(words), dtype=np.float64)
    edges: Floats = np.append(centres, len(words)) - 0.5
    return Scale(name, _label(name), "categories", edges, centres, words)


def _label(name: str) -> str:
    if name.startswith("lr["):
        return f"Learning rate of {name[3:-1]}"
    if "[" in name:
        setting, _, pattern = name.partition("[")
        return f"{_label(setting)} of {pattern[:-1]}"
    known = {"lr": "Learning rate", "batch_size": "Batch size (rows)"}
    words = name.replace("_", " ")
    return known.get(name, words[:1].upper() + words[1:])


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() and abs(value) < 1e6 else float(value)
