"""Settings tried out on torch's own optimizer classes before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
from torch import Tensor

from downslope.errors import OptimizerError
from downslope.grid import RUN_SETTINGS, Grid, Values, is_many, numbers_of
from downslope.optimizers import check_values, hyperparameters, is_number
from downslope.ranges import Range

_TRIED = 2048


def check_settings(
    grids: Sequence[Grid], shared: Mapping[str, Any], parameters: Sequence[Tensor]
) -> None:
    """Let each optimizer class itself refuse what it does not allow.

    torch's own checks are bounds and combinations. So every switch is tried with the smallest and
    largest of every number; and a few values of each hyperparameter one by one.
    """
    for grid in grids:
        given = {n: v for n, v in {**shared, **grid.settings}.items() if n not in RUN_SETTINGS}
        for row in _telling_rows(grid):
            of_row = {n: v for n, v in row.items() if n not in RUN_SETTINGS}
            few = {name: _some(values) for name, values in {**given, **of_row}.items()}
            for name, values in few.items():
                _check_kinds(grid, name, values)
            first = {name: values[0] for name, values in few.items()}
            for name, values in few.items():
                for value in values:
                    check_values(grid.optimizer, {**first, name: value}, parameters)
            ends = [_ends(values) for values in few.values()]
            for combination in islice(product(*ends), _TRIED):
                settings = dict(zip(few, combination, strict=True))
                check_values(grid.optimizer, settings, parameters)


def _check_kinds(grid: Grid, name: str, values: Sequence[Any]) -> None:
    """Refuse a tuple or text where one number belongs, and the other way round."""
    default = hyperparameters(grid.optimizer).defaults.get(name)
    for value in values:
        if isinstance(value, Range):
            raise OptimizerError(
                f"{name} is a Range, which tune() searches; descend() takes numbers (a list of "
                "them is a grid)"
            )
        if is_number(default) and isinstance(value, str | tuple | None):
            raise OptimizerError(
                f"{grid.optimizer.__name__}'s {name} must be a number (a list of them is a grid), "
                f"got {value!r}"
            )
        if isinstance(default, tuple) and is_number(value):
            raise OptimizerError(
                f"{grid.optimizer.__name__}'s {name} must be a tuple of {len(default)} numbers "
                f"(a list of tuples is a grid), got {value!r}"
            )


def _telling_rows(grid: Grid) -> list[Mapping[str, Any]]:
    """All of a few rows; of many, those with the extremes of a number among equal switches."""
    rows = grid.rows
    if rows is None:
        return [{}]
    if len(rows) <= _TRIED:
        return list(rows)
    columns = [Values(row[name] for row in rows).numbers for name in rows[0]]
    if all(column is not None and not np.isnan(column).any() for column in columns):
        ends = [int(e) for c in columns if c is not None for e in (c.argmin(), c.argmax())]
        return [rows[place] for place in dict.fromkeys([*ends, 0])]
    telling: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        switches = tuple((n, repr(v)) for n, v in row.items() if not is_number(v))
        for name, value in row.items():
            if is_number(value):
                for end, key in ((1.0, (switches, name, "low")), (-1.0, (switches, name, "high"))):
                    best = telling.get(key)
                    if best is None or not end * float(value) >= end * float(best[name]):
                        telling[key] = row
        telling.setdefault((switches, "", ""), row)
    return list({id(row): row for row in telling.values()}.values())


def _some(values: Any) -> list[Any]:
    """All of a few values as they were given; of many numbers, the ends."""
    if isinstance(values, Mapping):
        return [v for some in values.values() for v in _some(some)]
    if not is_many(values):
        return [values]
    return _ends(values) if len(values) > 8 else list(values)


def _ends(values: Any) -> list[Any]:
    """The smallest and the largest of numbers (NaN counts as either), and whatever is none."""
    if len(values) > 2 and (array := numbers_of(values)) is not None:
        return [values[int(array.argmin())], values[int(array.argmax())]]
    numbers = [v for v in values if is_number(v)]
    others = [v for v in values if not is_number(v)]
    if len(numbers) > 2:
        array = np.asarray([float(v) for v in numbers])
        numbers = [numbers[int(array.argmin())], numbers[int(array.argmax())]]
    return numbers + others
