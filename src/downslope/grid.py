"""What is asked for: an optimizer with values for its hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, optim

from downslope.errors import InputError, listed
from downslope.optimizers import (
    check_names,
    check_optimizer,
)

RUN_SETTINGS = ("batch_size", "order", "clip_norm", "start", "seed")
"""What a run is set by besides its optimizer's hyperparameters; the last varies fastest."""

_WHOLE = frozenset({int, np.int64, np.int32})
_PLAIN = _WHOLE | {float, np.float64, np.float32}


def log_range(low: float, high: float, count: int) -> list[float]:
    """`count` rates from `low` to `high`, evenly spaced in their logarithm, ends included.

    >>> log_range(0.01, 1, 3)
    [0.01, 0.1, 1.0]
    """
    if not (low > 0 and high > 0 and np.isfinite([low, high]).all()):
        raise InputError(f"log_range needs two numbers above 0, got {low} and {high}")
    if count < 1 or count != int(count):
        raise InputError(f"log_range needs a count of at least 1, got {count}")
    values = np.geomspace(low, high, int(count))
    digits = 10.0 ** (11 - np.floor(np.log10(values)))  # twelve are enough, and read better
    rounded: list[float] = (np.round(values * digits) / digits).tolist()
    return rounded


class Grid:
    """One optimizer with values for its hyperparameters; lists, ranges and arrays are a product.

    Args:
        optimizer: a class of `torch.optim`, or a subclass of its `Optimizer`.
        **settings: hyperparameters by torch's names, and ``batch_size``, ``order``,
            ``clip_norm`` or ``seed`` to override those of `descend`. A tuple is one value. A
            dict gives values by parameter-name pattern: ``lr={"0.*": [0.1, 1], "*": 0.01}``;
            the first pattern that fits a parameter's name counts.

    >>> Grid(optim.SGD, lr=[0.1, 0.2], momentum=0.9)
    Grid(SGD, lr=[0.1, 0.2], momentum=0.9)
    """

    def __init__(self, optimizer: type[optim.Optimizer] | str, /, **settings: Any) -> None:
        self.optimizer = check_optimizer(optimizer)
        check_names(self.optimizer, [n for n in settings if n not in RUN_SETTINGS])
        self.settings: Mapping[str, Any] = MappingProxyType(settled(settings))
        self.rows: tuple[Mapping[str, Any], ...] | None = None

    @classmethod
    def of(cls, optimizer: type[optim.Optimizer] | str, rows: Any) -> Grid:
        """Settings row by row: a list of dicts, or a dataframe. Not a product."""
        if not isinstance(rows, list | tuple):
            import narwhals as nw

            frame = nw.from_native(rows, eager_only=True, pass_through=True)
            if not isinstance(frame, nw.DataFrame):
                raise InputError(
                    f"Grid.of takes a list of dicts or a dataframe, got {type(rows).__name__}"
                )
            rows = frame.rows(named=True)
        if not rows:
            raise InputError("Grid.of got no rows")
        if not all(isinstance(row, Mapping) for row in rows):
            raise InputError("Grid.of takes a dict a row")
        grid = cls(optimizer)
        given = dict.fromkeys(tuple(row) for row in rows)
        for row in given:
            check_names(grid.optimizer, [n for n in row if n not in RUN_SETTINGS])
        names = {frozenset(row) for row in given}
        if len(names) > 1:
            differing = sorted(frozenset.union(*names) - frozenset.intersection(*names))
            raise InputError(
                "the rows of Grid.of must set the same names, but only some set "
                f"{listed(differing)}"
            )
        grid.rows = tuple(MappingProxyType(dict(row)) for row in rows)
        return grid

    def __repr__(self) -> str:
        if self.rows is not None:
            return f"Grid.of({self.optimizer.__name__}, {len(self.rows)} rows)"
        given = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"Grid({self.optimizer.__name__}{given})"


class Values(list[Any]):
    """Many values, not to be changed, since there may be millions: looked through only once."""

    @cached_property
    def numbers(self) -> NDArray[Any] | None:
        """(values,) int64 or float64; None unless each of them is a plain number."""
        kinds = set(map(type, self))
        if not kinds <= _PLAIN:
            return None
        try:
            return np.fromiter(self, np.int64 if kinds <= _WHOLE else np.float64, len(self))
        except OverflowError:
            return None


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose values can be gone through more than once: what is many is a list, range or
    array, everything else is one value."""
    return {name: _settled(name, value) for name, value in settings.items()}


def _settled(name: str, values: Any) -> Any:
    if isinstance(values, Mapping):
        if not values:
            raise InputError(f"{name} is an empty dict; give a value for each pattern")
        return {str(p): _settled(f"{name}[{p}]", v) for p, v in values.items()}
    if isinstance(values, Tensor) and values.numel() != 1:
        raise InputError(
            f"{name} is a tensor of {values.numel()} numbers: a tensor must hold one, "
            "and a grid is given as a list"
        )
    if isinstance(values, np.ndarray):
        if values.ndim > 1:
            raise InputError(f"{name} is an array of shape {values.shape}; a grid has one axis")
        values = values if values.ndim else values.item()
    elif isinstance(values, Iterable) and not isinstance(
        values, str | tuple | Tensor | range | Values
    ):
        values = Values(values)
    if is_many(values) and not len(values):
        raise InputError(f"{name} is an empty list; give at least one value")
    return values


def is_many(values: Any) -> bool:
    """Whether settled values are a grid."""
    return isinstance(values, list | range | np.ndarray)


def numbers_of(values: Any) -> NDArray[Any] | None:
    """Settled values that are many as int64 or float64, (values,), not to be written to.

    None unless each of them is a plain number that such an array holds as it is.
    """
    if isinstance(values, Values):
        return values.numbers
    if isinstance(values, range):
        start, stop, step = values.start, values.stop, values.step
        fits = max(abs(start), abs(stop), abs(step)) < 2**62
        return np.arange(start, stop, step, dtype=np.int64) if fits else None
    if type(values) is not np.ndarray:
        return None
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "i" or (kind == "u" and size < 8):
        return values.astype(np.int64, copy=False)
    return values.astype(np.float64, copy=False) if kind == "f" and size <= 8 else None
