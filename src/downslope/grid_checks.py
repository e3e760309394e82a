"""Settings tried out on torch's own optimizer classes before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
from torch import Tensor

from downslope.errors import InputError
from downslope.grid import RUN_SETTINGS, Grid
from downslope.optimizers import check_values, is_number

_TRIED = 512


def check_settings(
    grids: Sequence[Grid], shared: Mapping[str, Any], parameters: Sequence[Tensor]
) -> None:
    """Let each optimizer class itself refuse what it does not allow.

    Every value of each hyperparameter is tried, and combinations up to `_TRIED` of them, made
    of the switches' values and the numbers' extremes: torch's own checks are bounds.
    """
    for grid in grids:
        rows: Sequence[Mapping[str, Any]] = grid.rows or [{}]
        for row in rows if len(rows) <= _TRIED else (rows[0], rows[-1]):
            given = {**shared, **grid.settings, **row}
            tried = {
                name: _extremes(name, values)
                for name, values in given.items()
                if name not in RUN_SETTINGS
            }
            first = {name: values[0] for name, values in tried.items()}
            for name, values in tried.items():
                for value in values:
                    check_values(grid.optimizer, {**first, name: value}, parameters)
            for combination in islice(product(*tried.values()), _TRIED):
                check_values(grid.optimizer, dict(zip(tried, combination, strict=True)), parameters)


def _extremes(name: str, values: Any) -> list[Any]:
    """The values that bound a dimension, as given: all of a few, or the ends of many numbers."""
    if isinstance(values, Mapping):
        return [v for some in values.values() for v in _extremes(name, some)]
    many = values if isinstance(values, list) else None
    if many is None and not isinstance(values, str | tuple | Tensor):
        many = list(values) if isinstance(values, Iterable) else None
    if many is None:
        return [values]
    if not many:
        raise InputError(f"{name} is an empty list; give at least one value")
    if len(many) > 8 and all(is_number(v) for v in many):
        array = np.asarray([float(v) for v in many])
        return [many[int(array.argmin())], many[int(array.argmax())]]  # NaN counts as both
    return many
