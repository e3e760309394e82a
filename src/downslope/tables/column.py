"""What one column becomes: learnt from the training rows, then done to any rows.

A number becomes ``(value - mean) / standard deviation`` of the training rows, true and false
become 1 and 0, and a category with k values becomes k columns, of which one is 1. A category not
seen in training is 0 in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.errors import TableError

from .values import (
    Floats,
    Mask,
    booleans,
    is_date,
    kind_of,
    missing_in,
    moments,
    numbers,
    parsed_numbers,
    standardised,
    texts,
)
from .words import counted, first_row, number_name, quoted, shown

MOST_CATEGORIES = 50
# A text column with more distinct values than this share of its rows identifies the rows.
IDENTIFIER_SHARE = 0.9
_SHOWN_VALUES = 3


@dataclass(frozen=True)
class Column:
    """How one feature column is treated.

    Attributes:
        name: the column's name in the table.
        kind: ``number``, ``boolean``, ``category``, or ``dropped`` (not used).
        mean: of the training rows (numbers; else 0).
        scale: their population standard deviation (numbers; else 1).
        fill: what a missing value is replaced by: the mean, or the most frequent value (of a
            boolean: 0.0 or 1.0).
        categories: the values that have a column of their own, sorted.
        missing: training rows without a value.
        note: why the column is dropped, or another remark.
    """

    name: str
    kind: Literal["number", "boolean", "category", "dropped"]
    mean: float = 0.0
    scale: float = 1.0
    fill: float | str | None = None
    categories: tuple[str, ...] = ()
    missing: int = 0
    note: str = ""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each encoded feature: ``age``, ``city=Paris``."""
        if self.kind == "dropped":
            return ()
        if self.kind == "category":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)

    def encode(self, series: pl.Series) -> tuple[Floats, Mask, str]:
        """Encode a column of any rows, missing values filled.

        Args:
            series: (rows,), with this column's name.

        Returns:
            the features (rows, features), the mask (rows,) of values that were missing, and a
            sentence about unknown categories, or nothing.

        Raises:
            TableError: a value of another kind than the training rows held, with its row.
        """
        if self.kind == "category":
            return self._encode_category(texts(series))
        if self.kind == "number":
            values = standardised(numbers(series), self.mean, self.scale, self.name)
            fill = (float(self.fill or 0.0) - self.mean) / self.scale
        else:
            values = booleans(series)
            fill = float(self.fill or 0.0)
        missing = np.isnan(values)
        return np.where(missing, fill, values)[:, None], missing, ""

    def _encode_category(self, values: pl.Series) -> tuple[Floats, Mask, str]:
        missing = missing_in(values)
        codes = category_codes(values.fill_null(str(self.fill)), self.categories)
        features = np.zeros((len(values), len(self.categories)))
        known = np.flatnonzero(codes >= 0)
        features[known, codes[known]] = 1.0
        if known.size == len(values):
            return features, missing, ""
        unknown = values.filter(codes < 0)
        distinct = unknown.unique(maintain_order=True)
        examples = ", ".join(quoted(value) for value in distinct.head(_SHOWN_VALUES))
        more = ", …" if len(distinct) > _SHOWN_VALUES else ""
        what = (
            "rare or unknown values"
            if len(self.categories) == MOST_CATEGORIES
            else "unknown values"
        )
        rows = counted(len(unknown), "row")
        note = f"column {quoted(self.name)}: {what} in {rows} ({examples}{more}), all zeros there"
        return features, missing, note

    def describe(self, missing: str) -> str:
        """What is done with the column, in words, under a policy for missing values."""
        if self.kind == "dropped":
            return f"dropped: {self.note}"
        if self.kind == "category":
            width = 12
            values = ", ".join(shown(value, width) for value in self.categories)
            words = f"category, a 0/1 column for each of {len(self.categories)}: {values}"
        elif self.kind == "number":
            words = f"number, standardised (mean {self.mean:.4g}, deviation {self.scale:.4g})"
        else:
            words = "boolean, kept as 0 and 1"
        # Before the values of a category, since a long list of them is cut off at its end.
        remarks = [self.note] if self.note else []
        if self.missing and missing == "mean":
            remarks.append(f"{self.missing:,} missing filled with {self.fill_words}")
        elif self.missing:
            remarks.append(f"rows without it dropped ({self.missing:,})")
        head, colon, tail = words.partition(":")
        return "; ".join([head, *remarks]) + colon + tail

    @property
    def fill_words(self) -> str:
        """What missing values are filled with, in words."""
        if self.kind == "number":
            return f"the mean {float(self.fill or 0.0):.4g}"
        if self.kind == "boolean":
            return "the most frequent value, " + ("true" if self.fill else "false")
        return f"the most frequent value, {quoted(str(self.fill), 20)}"


def category_codes(values: pl.Series, categories: tuple[str, ...]) -> NDArray[np.int64]:
    """The place of each text (rows,) among `categories`, and -1 for others: int64 (rows,)."""
    codes = values.cast(pl.Enum(list(categories)), strict=False).to_physical()
    return codes.cast(pl.Int64).fill_null(-1).to_numpy()


def fit_column(series: pl.Series, rows: NDArray[np.int64]) -> Column:
    """Learn from the training rows what is to be done with a column.

    Args:
        series: the column, of the whole table: (all rows,).
        rows: indices of the training rows: (training rows,).

    Raises:
        TableError: no training row has a value, or a number is infinite.
    """
    name, missing = series.name, int(missing_in(series)[rows].sum())
    if missing == len(rows):
        raise TableError(
            f"column {quoted(name)} holds nothing but missing values "
            f"in the {counted(len(rows), 'training row')}; leave it out of the table"
        )
    kind = kind_of(series.dtype)
    if kind == "category":
        column = _fit_category(texts(series)[rows].drop_nulls(), missing)
        return replace(column, note="; ".join(filter(None, (column.note, _mostly(series)))))
    values = (numbers(series) if kind == "number" else booleans(series))[rows]
    values = values[~np.isnan(values)]
    note = "dates, as days since 1970-01-01" if is_date(series.dtype) else ""
    mean, scale = moments(values)
    if values.min() == values.max() or scale == 0:
        value = "true" if kind == "boolean" and values[0] else "false"
        value = number_name(float(values[0])) if kind == "number" else value
        return Column(name, "dropped", missing=missing, note=f"constant: {value}")
    if kind == "boolean":
        return Column(name, "boolean", fill=float(values.mean() > 0.5), missing=missing)
    return Column(name, "number", mean, scale, fill=mean, missing=missing, note=note)


def _fit_category(values: pl.Series, missing: int) -> Column:
    """The column for texts (training rows that have a value,)."""
    name = values.name
    counts = values.alias("value").value_counts(name="rows")
    counts = counts.sort(["rows", "value"], descending=[True, False])
    by_frequency: list[str] = counts["value"].to_list()
    distinct = len(by_frequency)
    if distinct == 1:
        note = f"constant: {quoted(by_frequency[0], 20)}"
        return Column(name, "dropped", missing=missing, note=note)
    note = ""
    if distinct > MOST_CATEGORIES:
        if identifies_rows(distinct, len(values)):
            note = "every row its own value: an identifier?"
            return Column(name, "dropped", missing=missing, note=note)
        note = f"the {MOST_CATEGORIES} most frequent of {distinct:,} values, others all zeros"
    categories = tuple(sorted(by_frequency[:MOST_CATEGORIES]))
    return Column(
        name,
        "category",
        fill=by_frequency[0],
        categories=categories,
        missing=missing,
        note=note,
    )


def _mostly(series: pl.Series) -> str:
    """A remark on a text column most of whose values are numbers: a slip in it is likely."""
    is_number = parsed_numbers(series).is_not_null().to_numpy()
    wrong = ~is_number & ~missing_in(series)
    if not wrong.any() or is_number.sum() < wrong.sum():
        return ""
    row = first_row(wrong)
    return f"mostly numbers, but row {row:,} holds {quoted(str(series[row - 1]), 20)}"


def identifies_rows(distinct: int, rows: int) -> bool:
    """Whether a text column with so many distinct values only names its rows."""
    return distinct > MOST_CATEGORIES and distinct > IDENTIFIER_SHARE * rows
