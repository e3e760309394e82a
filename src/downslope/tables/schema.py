"""The schema: what was done with each column of the training table, to be done again on new rows.

Everything a schema knows it learnt from the training rows: validation rows, test rows and new rows
are treated with their means, categories and fills. It is plain data, and goes to JSON and back
without changing a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from downslope.errors import TableError, nearest

from .column import Column
from .read import to_polars
from .target import Target, Task
from .values import Floats, Mask
from .words import counted, missing_value, quoted, shown, some

Missing = Literal["mean", "drop", "error"]
_LINE_WIDTH = 100


@dataclass(frozen=True)
class Encoded:
    """Encoded rows.

    Attributes:
        X: (kept rows, features), float64, no NaN.
        kept: which of the frame's rows X holds, in their order: mask (rows,).
        notes: sentences about values filled, rows dropped, categories unknown.
    """

    X: Floats
    kept: Mask
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """How a table becomes arrays.

    Attributes:
        columns: every column of the training table but the target, in its order.
        target: what is predicted.
        missing: ``mean`` (fill), ``drop`` (leave the row out) or ``error``.

    >>> import polars as pl
    >>> from downslope.tables import fit_schema
    >>> table = pl.DataFrame({"city": ["Nice", "Lyon", "Nice"], "price": [1.0, 2.0, 3.0]})
    >>> schema = fit_schema(table, "price")
    >>> schema.feature_names
    ('city=Lyon', 'city=Nice')
    >>> schema.encode(pl.DataFrame({"city": ["Lyon", "Oslo"]})).X.tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    >>> Schema.from_json(schema.to_json()) == schema
    True
    """

    columns: tuple[Column, ...]
    target: Target
    missing: Missing = "mean"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each column of the encoded array: ``age``, ``city=Paris``."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The categories' columns: `read_table` is to leave them as text in new rows."""
        return tuple(column.name for column in self.columns if column.kind == "category")

    def encode(self, frame: Any, *, require_all_rows: bool = False) -> Encoded:
        """Do to new rows what was done to the training rows.

        Args:
            frame: a dataframe (rows, columns) with the columns used; others are ignored, the
                target need not be there.
            require_all_rows: keep and fill the rows that ``missing="drop"`` would drop, as for
                predictions.

        Raises:
            TableError: a column lacks, holds another kind of value, or (under
                ``missing="error"``) lacks a value; or no row would be left.
        """
        table = to_polars(frame)
        used = [column for column in self.columns if column.kind != "dropped"]
        self._check_columns(table, used)
        notes = self._ignored(table)
        blocks: list[Floats] = []
        gaps: dict[str, Mask] = {}
        for column in used:
            block, gap, note = column.encode(table[column.name])
            blocks.append(block)
            if gap.any():
                gaps[column.name] = gap
                if self.missing == "error":
                    raise missing_value(column.name, gap)
                if self.missing == "mean" or require_all_rows:
                    filled = counted(int(gap.sum()), "missing value")
                    notes.append(
                        f"column {quoted(column.name)}: {filled} filled with {column.fill_words}"
                    )
            if note:
                notes.append(note)
        X = np.concatenate(blocks, axis=1)
        kept = np.ones(table.height, dtype=bool)
        if self.missing == "drop" and gaps and not require_all_rows:
            kept = ~np.logical_or.reduce(list(gaps.values()))
            names = some(list(gaps))
            if not kept.any():
                raise TableError(f"no row is left: each lacks a value in {names}")
            dropped = counted(int((~kept).sum()), "row")
            notes.append(f"{dropped} of {table.height:,} dropped, lacking a value in {names}")
            X = X[kept]
        return Encoded(X, kept, tuple(notes))

    def encode_target(self, frame: Any) -> Floats | NDArray[np.int64]:
        """The target of rows that all have one, as `Target.encode`: (rows,)."""
        table = to_polars(frame)
        check_target(table, self.target.name)
        return self.target.encode(table[self.target.name])

    def to_own_units(self, values: ArrayLike) -> Floats:
        """Standardised predictions in the target's units, as `Target.to_own_units`."""
        return self.target.to_own_units(values)

    def class_names(self, indices: ArrayLike) -> NDArray[np.str_]:
        """The names of class indices, as `Target.class_names`."""
        return self.target.class_names(indices)

    def to_json(self) -> dict[str, Any]:
        """The schema as dicts, lists, strings and numbers; `from_json` restores it exactly."""
        return {
            "missing": self.missing,
            "target": {**asdict(self.target), "classes": list(self.target.classes)},
            "columns": [
                {**asdict(column), "categories": list(column.categories)} for column in self.columns
            ],
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Schema:
        """The schema that `to_json` wrote.

        Raises:
            TableError: it is damaged, or something else.
        """
        try:
            columns = tuple(
                Column(**{**column, "categories": tuple(column["categories"])})
                for column in plain["columns"]
            )
            target = Target(**{**plain["target"], "classes": tuple(plain["target"]["classes"])})
            missing = plain["missing"]
            kinds = ("number", "boolean", "category", "dropped")
            sound = (
                missing in get_args(Missing)
                and target.task in get_args(Task)
                and all(column.kind in kinds for column in columns)
                and all(
                    math.isfinite(mean) and 0 < scale < math.inf
                    for mean, scale in [(part.mean, part.scale) for part in columns]
                )
                and math.isfinite(target.mean)
                and 0 < target.scale < math.inf
            )
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TableError(f"this is not a table's schema ({shown(reason, 100)})") from error
        if not sound:
            raise TableError("this table's schema holds a value that fit_schema never writes")
        return cls(columns, target, missing)

    def describe(self) -> list[str]:
        """A line for each column and one for the target: what is done with it."""
        lines = [(column.name, column.describe(self.missing)) for column in self.columns]
        lines.append((self.target.name, self.target.describe()))
        width = max(len(shown(name)) for name, _ in lines)
        joined = [f"{shown(name):<{width}}  {words}" for name, words in lines]
        return [
            line if len(line) <= _LINE_WIDTH else line[: _LINE_WIDTH - 1] + "…" for line in joined
        ]

    def _check_columns(self, table: pl.DataFrame, used: Sequence[Column]) -> None:
        for column in used:
            if column.name not in table.columns:
                raise TableError(
                    f"the table has no column {quoted(column.name)}, which the training table had"
                    f"{nearest(column.name, table.columns)}"
                )

    def _ignored(self, table: pl.DataFrame) -> list[str]:
        known = {self.target.name, *(column.name for column in self.columns)}
        extra = [name for name in table.columns if name not in known]
        return [f"ignored, not in the training table: {some(extra)}"] if extra else []


def check_target(table: pl.DataFrame, target: str) -> None:
    """Refuse a target that is not a column, naming the nearest."""
    if target not in table.columns:
        raise TableError(
            f"there is no target column {quoted(str(target))}"
            f"{nearest(str(target), table.columns)}; the columns are {some(table.columns)}"
        )
