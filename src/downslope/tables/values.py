"""The cells of one column as numbers, truth values or texts.

Whatever a column is stored as, the rest of the package sees one of three forms: float64 with NaN
where a value is missing, 0.0 / 1.0 / NaN, or text with nulls.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.errors import TableError

from .words import first_row, number_name, quoted

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["number", "boolean", "category"]

MICROSECONDS_PER_DAY = 86_400e6


def kind_of(dtype: pl.DataType) -> Kind | None:
    """What a column stored as `dtype` is used as; None if it cannot be used."""
    if dtype == pl.Boolean:
        return "boolean"
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return "category"
    if dtype.is_numeric() or is_date(dtype) or dtype == pl.Null:
        return "number"
    return None


def is_date(dtype: pl.DataType) -> bool:
    """Whether a column stored as `dtype` holds dates, with or without a time of day."""
    return isinstance(dtype, (pl.Date, pl.Datetime))


def missing_in(series: pl.Series) -> Mask:
    """Where a column of any kind has no value: mask (rows,). NaN counts as missing."""
    missing = series.is_null()
    if series.dtype.is_float():
        missing = missing | series.is_nan().fill_null(True)
    return missing.to_numpy()


def numbers(series: pl.Series) -> Floats:
    """A column as float64 (rows,), NaN where missing; dates as days since 1970-01-01.

    Text is accepted where every value reads as a number.

    Raises:
        TableError: a value that is not a number, or an infinite one, with its row.
    """
    name, dtype = quoted(series.name), series.dtype
    kind = kind_of(dtype)
    if series.null_count() == len(series):
        return np.full(len(series), np.nan)
    if isinstance(dtype, pl.Date):
        parsed = series.cast(pl.Int32).cast(pl.Float64)
    elif isinstance(dtype, pl.Datetime):
        parsed = series.dt.epoch("us").cast(pl.Float64) / MICROSECONDS_PER_DAY
    elif kind == "number":
        parsed = series.cast(pl.Float64)
    else:
        parsed = parsed_numbers(series) if kind == "category" else series.clear(len(series))
        wrong = (parsed.is_null() & series.is_not_null()).to_numpy()
        if wrong.any():
            row = first_row(wrong)
            raise TableError(
                f"column {name} must hold numbers, as in the training table: "
                f"row {row:,} holds {_cell(series, row)}"
            )
    values = parsed.to_numpy().astype(np.float64)
    infinite = np.isinf(values)
    if infinite.any():
        raise TableError(
            f"column {name} holds an infinite number in row {first_row(infinite):,}; "
            "numbers must be finite, or missing"
        )
    return values


def parsed_numbers(series: pl.Series) -> pl.Series:
    """A text column's values read as float64, null where one is missing or does not read so."""
    return series.cast(pl.String).str.strip_chars(" \t").cast(pl.Float64, strict=False)


def booleans(series: pl.Series) -> Floats:
    """A column of truth values as 0.0, 1.0 and, where missing, NaN: (rows,).

    The numbers 0 and 1 and the texts true and false (any case) are accepted too.

    Raises:
        TableError: any other value, with its row.
    """
    kind = kind_of(series.dtype)
    if kind == "number":
        values = numbers(series)
        wrong = ~np.isnan(values) & (values != 0) & (values != 1)
    elif kind == "boolean":
        values = series.cast(pl.Float64).to_numpy().astype(np.float64)
        wrong = np.zeros(len(series), dtype=bool)
    else:
        lower = series.cast(pl.String).str.to_lowercase()
        known = lower.is_in(["true", "false"])
        values = (lower == "true").cast(pl.Float64).to_numpy().astype(np.float64)
        wrong = (~known).fill_null(False).to_numpy()
    if wrong.any():
        row = first_row(wrong)
        raise TableError(
            f"column {quoted(series.name)} must hold true and false, as in the training table: "
            f"row {row:,} holds {_cell(series, row)}"
        )
    return values


def texts(series: pl.Series) -> pl.Series:
    """A column as text (rows,), null where missing; 1 and 1.0 are both ``1``, true is ``true``."""
    dtype = series.dtype
    if dtype.is_float() or dtype.is_decimal():
        values = series.cast(pl.Float64).fill_nan(None)
        distinct = values.unique().drop_nulls()
        names = pl.Series([number_name(value) for value in distinct.to_list()], dtype=pl.String)
        return values.replace_strict(distinct, names, default=None, return_dtype=pl.String)
    return series.cast(pl.String)


def moments(values: Floats) -> tuple[float, float]:
    """Mean and population standard deviation of numbers (n,), without overflow or underflow."""
    # Scaling by a power of two is exact, and keeps the squares within float64's range.
    exponent = int(np.frexp(np.abs(values).max())[1])
    scaled = np.ldexp(values, -exponent)
    mean, deviation = np.ldexp([scaled.mean(), scaled.std()], exponent)
    return float(mean), float(deviation)


def standardised(values: Floats, mean: float, scale: float, name: str) -> Floats:
    """``(values - mean) / scale``, NaN staying NaN: (rows,) to (rows,).

    Raises:
        TableError: a value so far from the training values that the result overflows.
    """
    with np.errstate(over="ignore"):
        result: Floats = (values - mean) / scale
    if np.isinf(result).any():
        raise TableError(
            f"column {quoted(name)}: the number in row {first_row(np.isinf(result)):,} is too far "
            f"from the training values (mean {mean:.4g}, standard deviation {scale:.4g})"
        )
    return result


def _cell(series: pl.Series, row: int) -> str:
    """The value in a row (from 1), for a message."""
    value: Any = series[row - 1]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return number_name(float(value))
    return quoted(str(value))
