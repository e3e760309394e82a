"""CSV files, exactly: every line has the header's number of fields, and every cell is text first.

A column's cells are typed here, so that what counts as missing, a number or a truth value does not
depend on a reader's guess from the first lines.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection

import polars as pl

from downslope.errors import TableError

from .words import check_names, counted

DELIMITERS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "?")

_QUOTED_FIELD = re.compile(r'(^|[,;\t]) *"(?:[^"]|"")*"')
_CHUNK_ROWS = 20_000


def read_csv(raw: bytes, where: str, as_text: Collection[str]) -> pl.DataFrame:
    """A CSV file's bytes as typed columns (rows, columns), by the rules of `read_table`.

    Args:
        raw: the whole file.
        where: the file's name, for messages.
        as_text: columns to leave as text.

    Raises:
        TableError: not UTF-8, a line with too few or too many fields, a name missing or twice.
    """
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{where} is not UTF-8: the byte 0x{raw[error.start]:02x} at position {error.start} "
            "(the first is 0) fits nowhere; save the table as UTF-8"
        ) from error
    body = raw.removeprefix(codecs.BOM_UTF8)
    delimiter = _delimiter(body[:65_536].decode("utf-8", errors="ignore"))
    plain = b'"' not in body and body.count(b"\r") == body.count(b"\r\n")
    header_end = body.find(b"\n")
    # The csv module is exact but slow; without quotes, lines and fields are plain splits.
    if plain and delimiter.encode() in body[: header_end if header_end >= 0 else len(body)]:
        header, cells = _split_plain(body, delimiter, where)
    else:
        header, cells = _split_quoted(body, delimiter, where)
    names = [name.strip(" \t") for name in header]
    check_names(names, where)
    if cells.height == 0:
        raise TableError(f"{where} has a header but no rows")
    keep = frozenset(as_text)
    return pl.DataFrame(
        [
            _typed(column.rename(name), keep_text=name in keep)
            for name, column in zip(names, cells.get_columns(), strict=True)
        ]
    )


def _delimiter(head: str) -> str:
    """The delimiter that occurs most often in the header line, outside quoted names."""
    header = re.split(r"[\r\n]", _QUOTED_FIELD.sub(r"\1", head.lstrip("\r\n")), maxsplit=1)[0]
    return max(DELIMITERS, key=header.count)


def _split_plain(body: bytes, delimiter: str, where: str) -> tuple[list[str], pl.DataFrame]:
    """Header and cells (rows, columns) of a file without quotes, of two or more columns."""
    separator = delimiter.encode()
    lines = body.replace(b"\r\n", b"\n").split(b"\n")
    filled = [at for at, line in enumerate(lines) if line.strip(b" ")]
    header = lines[filled[0]].decode("utf-8").split(delimiter)
    for at in filled:
        if lines[at].count(separator) != len(header) - 1:
            raise _ragged(at + 1, lines[at].count(separator) + 1, len(header), where)
    if len(filled) == 1:
        return header, pl.DataFrame()
    cells = pl.read_csv(
        b"\n".join([lines[at] for at in filled[1:]]),
        has_header=False,
        separator=delimiter,
        quote_char=None,
        infer_schema=False,
    )
    return header, cells


def _split_quoted(body: bytes, delimiter: str, where: str) -> tuple[list[str], pl.DataFrame]:
    """Header and cells (rows, columns) of any file; a quoted field may hold line breaks."""
    stream = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    chunks: list[pl.DataFrame] = []
    blank_lines = 0
    next_line = 1
    while True:
        line = next_line
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise TableError(
                f"line {line:,} of {where} begins a row with a wrongly quoted field: {error}"
            ) from error
        if row is None:
            break
        next_line = reader.line_num + 1
        if not row or (len(row) == 1 and not row[0].strip(" ") and len(header) != 1):
            blank_lines += 1
            continue
        if not header:
            header = row
        elif len(row) != len(header):
            raise _ragged(line, len(row), len(header), where)
        else:
            if len(header) == 1:
                rows.extend([""] for _ in range(blank_lines))
            rows.append(row)
        blank_lines = 0
        if len(rows) >= _CHUNK_ROWS:
            chunks.append(_cells(rows))
            rows = []
    if not header:
        raise TableError(f"{where} is empty; a table needs a header and rows")
    if rows:
        chunks.append(_cells(rows))
    return header, pl.concat(chunks) if chunks else pl.DataFrame()


def _cells(rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True)
    return pl.DataFrame(
        [pl.Series(str(at), cells, dtype=pl.String) for at, cells in enumerate(columns)]
    )


def _ragged(line: int, found: int, expected: int, where: str) -> TableError:
    return TableError(
        f"line {line:,} of {where} has {counted(found, 'field')}; "
        f"expected {expected}, as in the header"
    )


def _typed(column: pl.Series, *, keep_text: bool) -> pl.Series:
    """A column of text cells (rows,) as numbers, truth values or text, null where missing."""
    stripped = column.str.strip_chars(" \t")
    text = stripped.set(stripped.is_in(MISSING), None)
    if keep_text:
        return text
    parsed = text.cast(pl.Float64, strict=False)
    if parsed.null_count() == text.null_count():
        return parsed.fill_nan(None)
    lower = text.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():
        return lower == "true"
    return text
