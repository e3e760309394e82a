"""Files and dataframes of any library to one polars dataframe whose columns can be used."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from downslope.errors import TableError, nearest

from .delimited import read_csv
from .values import kind_of
from .words import check_names, quoted

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_table(
    source: str | os.PathLike[str] | Any, *, as_text: Collection[str] = ()
) -> pl.DataFrame:
    """Read a table: (rows, columns).

    CSV (.csv, .tsv, .txt): UTF-8 with or without a byte order mark, a header line, and the
    delimiter (comma, semicolon or tab) that occurs most often in it. Spaces around names and
    values are not part of them; blank lines are skipped (in a table of one column they are missing
    values). These mean missing: an empty field, ``NA``, ``N/A``, ``NaN``, ``nan``, ``null``,
    ``None``, ``?``. A column is a number if every other value in it reads as one, boolean if every
    value is true or false (in any case), else text.

    Args:
        source: the path of a CSV or Parquet (.parquet, .pq) file, or a dataframe: polars, pandas,
            pyarrow or any other that narwhals reads.
        as_text: columns of a CSV file to leave as text whatever they look like. A schema's
            `text_columns` belong here when new rows are read: a category ``01`` stays ``01``.

    Raises:
        TableError: the file cannot be read, a line has too few or too many fields, a column has
            no name or another's, or holds what cannot be used (lists, structs, ...).

    >>> import polars as pl
    >>> read_table(pl.DataFrame({"rooms": [2, 3], "city": ["Nice", None]})).shape
    (2, 2)
    """
    if not isinstance(source, (str, os.PathLike)):
        return to_polars(source)
    path = Path(os.fsdecode(source))
    where = quoted(str(path), 200)
    try:
        _check_path(path, where)
        if path.suffix.lower() in PARQUET_SUFFIXES:
            return _checked(_read_parquet(path, where), where)
        return _checked(read_csv(path.read_bytes(), where, as_text), where)
    except OSError as error:
        raise TableError(f"{where} cannot be read: {error.strerror or error}") from error


def to_polars(source: Any) -> pl.DataFrame:
    """Any dataframe as polars: (rows, columns); refused as `read_table` says."""
    if isinstance(source, pl.DataFrame):
        return _checked(source, "the dataframe")
    try:
        frame = nw.from_native(source)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect(backend="polars")
    except nw.exceptions.DuplicateError as error:
        names = getattr(source, "column_names", None) or source.columns
        check_names([str(name) for name in names], "the dataframe")
        raise TableError(f"the dataframe has duplicate column names: {error}") from error
    except TypeError as error:
        raise TableError(
            "a table is the path of a CSV or Parquet file, or a dataframe (polars, pandas, "
            f"pyarrow, ...); got {type(source).__name__}"
        ) from error
    check_names([str(name) for name in frame.columns], "the dataframe")
    columns: list[pl.Series] = []
    for name in frame.columns:
        try:
            columns.append(frame.get_column(name).to_polars().rename(str(name)))
        # Each dataframe library has its own exceptions for a column of mixed Python objects.
        except Exception as error:
            raise TableError(
                f"column {quoted(str(name))} mixes kinds of values: "
                "a column holds numbers, true and false, dates or text"
            ) from error
    return _checked(pl.DataFrame(columns), "the dataframe")


def _check_path(path: Path, where: str) -> None:
    allowed = CSV_SUFFIXES + PARQUET_SUFFIXES
    if path.is_dir():
        raise TableError(f"{where} is a folder; a table is a file ({', '.join(allowed)})")
    if not path.exists():
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise TableError(f"there is no file {where}{nearest(path.name, names)}")
    if path.suffix.lower() not in allowed:
        kind = f"with the suffix {quoted(path.suffix)}" if path.suffix else "without a suffix"
        raise TableError(f"{where} is a file {kind}; a table is one of {', '.join(allowed)}")
    if path.stat().st_size == 0:
        raise TableError(f"{where} is empty; a table needs a header and rows")


def _checked(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    check_names(frame.columns, where)
    for name, dtype in frame.schema.items():
        if kind_of(dtype) is None:
            raise TableError(
                f"column {quoted(name)} of {where} holds {dtype}, which cannot be used; "
                "allowed are numbers, true and false, dates and text"
            )
    if frame.height == 0:
        raise TableError(f"{where} has a header but no rows")
    return frame


def _read_parquet(path: Path, where: str) -> pl.DataFrame:
    try:
        # An open file, since a path would be searched for wildcards and key=value folders.
        with path.open("rb") as file:
            return pl.read_parquet(file)
    except pl.exceptions.DuplicateError as error:
        raise TableError(f"{where} has duplicate column names: {error}") from error
    # Damage that polars does not foresee arrives as a panic, which is not an Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = quoted(str(error).strip().split("\n")[0], 120)
        raise TableError(f"{where} is not a Parquet file, or a damaged one: {reason}") from error
