"""Grids laid out as runs: in groups that one engine call can hold, and in columns, since there
may be millions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, optim

from downslope.errors import InputError, OptimizerError, nearest
from downslope.grid import RUN_SETTINGS, Grid, Values, is_many, numbers_of
from downslope.optimizers import RULES, hyperparameters, is_number
from downslope.sampling import ORDERS, Order

MOST_RUNS = 10**7

Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that one engine call can hold: same optimizer, switches, batch size and order.

    Attributes:
        optimizer: the class.
        switches: hyperparameters that are no numbers (bools, None, names), equal in all runs.
        numbers: name to (runs,) values, or (runs, m) for tuples of m.
        patterned: name to {parameter-name pattern: (runs,) values}.
        batch_size: None for all rows at once.
        index: each run's place among all; shape (runs,).
        start: which of the given starts; seed: the run's seed; clip_norm: inf where none.
    """

    optimizer: type[optim.Optimizer]
    switches: Mapping[str, Any]
    numbers: Mapping[str, Column]
    patterned: Mapping[str, Mapping[str, Column]]
    batch_size: int | None
    order: Order
    index: NDArray[np.int64]
    start: NDArray[np.int64]
    seed: NDArray[np.int64]
    clip_norm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def part(self, rows: slice | NDArray[np.int64]) -> Group:
        """Some of the runs."""
        return Group(
            self.optimizer,
            self.switches,
            {name: column[rows] for name, column in self.numbers.items()},
            {n: {p: c[rows] for p, c in by.items()} for n, by in self.patterned.items()},
            self.batch_size,
            self.order,
            self.index[rows],
            self.start[rows],
            self.seed[rows],
            self.clip_norm[rows],
        )

    def settings(self, run: int) -> dict[str, Any]:
        """The hyperparameters of one run as torch takes them, without the patterned ones."""
        return {**self.switches, **{n: plain(c[run]) for n, c in self.numbers.items()}}


@dataclass(frozen=True)
class Dimension:
    """Columns that vary together: one, or a whole row of settings."""

    columns: Mapping[str, Sequence[Any] | Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def expand(grids: Sequence[Grid], shared: Mapping[str, Any], starts: int) -> list[Group]:
    """All runs of all grids, grouped; run numbers follow the order in which values were given.

    Args:
        shared: `RUN_SETTINGS` and hyperparameters for every grid that does not set its own.
        starts: how many starts there are to go through.

    Raises:
        InputError: for a value of the wrong kind.
    """
    sizes = [_size(grid, shared, starts) for grid in grids]
    all_dimensions = [_dimensions(grid, shared, starts) for grid in grids]
    groups: list[Group] = []
    first = 0
    for grid, dims, size in zip(grids, all_dimensions, sizes, strict=True):
        groups += _groups(grid.optimizer, dims, size, first)
        first += size
    return groups


def check_size(grids: Sequence[Grid], shared: Mapping[str, Any], starts: int) -> None:
    """Refuse too many runs, before any value is looked at.

    Raises:
        InputError: for more than 10⁷.
    """
    runs = sum(_size(grid, shared, starts) for grid in grids)
    if runs > MOST_RUNS:
        raise InputError(
            f"the grid has {runs:,} runs; at most {MOST_RUNS:,} can be asked for at once: "
            "give fewer values"
        )


def _size(grid: Grid, shared: Mapping[str, Any], starts: int) -> int:
    rows = grid.rows or ()
    given = {**shared, **grid.settings}
    size = starts * max(len(rows), 1)
    for name, values in given.items():
        if rows and name in rows[0]:
            continue
        for one in values.values() if isinstance(values, Mapping) else [values]:
            size *= len(one) if is_many(one) else 1
    return size


def _dimensions(grid: Grid, shared: Mapping[str, Any], starts: int) -> list[Dimension]:
    given = {**{n: v for n, v in shared.items() if n not in grid.settings}, **grid.settings}
    dims: list[Dimension] = []
    if grid.rows is not None:
        given = {n: v for n, v in given.items() if n not in grid.rows[0]}
        columns = {name: Values(row[name] for row in grid.rows) for name in grid.rows[0]}
        dims.append(Dimension({n: _values(n, c) for n, c in columns.items()}))
    given["start"] = range(starts)
    for name in (*(n for n in given if n not in RUN_SETTINGS), *RUN_SETTINGS):
        if name not in given:
            continue
        values = given[name]
        if isinstance(values, Mapping):
            dims += [Dimension({f"{name}[{p}]": _values(name, v)}) for p, v in values.items()]
        else:
            dims.append(Dimension({name: _values(name, values)}))
    return dims


def _values(name: str, values: Any) -> list[Any] | Column:
    """The values of one dimension: those of a list, range or array, or the single one."""
    if not is_many(values):
        return [_checked(name, values)]
    numbers = numbers_of(values)
    if numbers is not None and _surely_right(name, numbers):
        return numbers.copy()
    return [_checked(name, value) for value in values]


def _surely_right(name: str, numbers: Column) -> bool:
    """Whether `_checked` would take all of these numbers as they are."""
    if name == "seed":
        return numbers.dtype == np.int64 and bool(numbers.min() >= 0)
    if name == "clip_norm":
        return bool((numbers > 0).all())
    return name not in ("batch_size", "order")


def _checked(name: str, value: Any) -> Any:
    """One value, as a Python number where it is one; refused where it cannot be right."""
    if isinstance(value, np.generic | np.ndarray | Tensor) and np.size(value) == 1:
        value = value.item()
    if name == "seed":
        if not _is_whole(value) or not 0 <= value < 2**63:
            raise InputError(f"seed must be a whole number of at least 0, got {value!r}")
        return int(value)
    if name == "batch_size":
        if value in ("full", None):
            return "full"
        if not _is_whole(value) or value < 1:
            raise InputError(
                f"batch_size must be 'full' or a whole number of at least 1, got {value!r}"
            )
        return int(value)
    if name == "order":
        if value not in ORDERS:
            hint = nearest(str(value), ORDERS)
            raise InputError(f"order must be one of {', '.join(ORDERS)}, got {value!r}{hint}")
        return value
    if name == "clip_norm":
        if value is None:
            return float("inf")
        if not is_number(value) or not value > 0:
            raise InputError(f"clip_norm must be a number above 0, or None, got {value!r}")
        return float(value)
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (
        is_number(value) and bool(np.isfinite(value)) and value == int(value)
    )


def _groups(
    optimizer: type[optim.Optimizer], dims: Sequence[Dimension], size: int, first: int
) -> list[Group]:
    """The product of the dimensions, split where runs cannot share an engine call."""
    columns: dict[str, Column] = {}
    splitting: dict[str, tuple[Sequence[Any] | Column, int]] = {}
    keys: Column | None = None
    stride = size
    for dim in dims:
        stride //= len(dim)
        for name, values in dim.columns.items():
            if not _splits(name, values):
                columns[name] = _spread(_column(optimizer, name, values), stride, size)
                continue
            splitting[name] = (values, stride)
            codes = np.asarray(_codes(values))
            if codes.any():
                keys = (0 if keys is None else keys * (codes.max() + 1)) + _spread(
                    codes, stride, size
                )
    index = np.arange(first, first + size)
    groups = []
    for rows in [slice(None)] if keys is None else _members(keys):
        mine = index[rows]
        run = int(mine[0]) - first
        fixed = {name: v[run // each % len(v)] for name, (v, each) in splitting.items()}
        chosen = {name: column[rows] for name, column in columns.items()}
        groups.append(_group(optimizer, fixed, chosen, mine))
    return groups


def _spread(values: Column, stride: int, size: int) -> Column:
    """(values, …) as (size, …): each value `stride` times, and all of them over and over."""
    if len(values) == size:
        return values
    if len(values) == 1:
        return np.broadcast_to(values[0], (size, *values.shape[1:]))
    shape = (size // (len(values) * stride), len(values), stride, *values.shape[1:])
    return np.broadcast_to(values[None, :, None], shape).reshape(size, *values.shape[1:])


def _members(keys: Column) -> list[Column]:
    """The rows that share each key, (rows,) each, in the order in which keys first occur."""
    _, first_of, member_of, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    parts = np.split(np.argsort(member_of, kind="stable"), np.cumsum(counts)[:-1])
    return [parts[number] for number in np.argsort(first_of)]


def _group(
    optimizer: type[optim.Optimizer],
    fixed: dict[str, Any],
    columns: Mapping[str, Column],
    index: NDArray[np.int64],
) -> Group:
    batch_size, order = fixed.pop("batch_size"), fixed.pop("order")
    switches: dict[str, Any] = fixed
    numbers: dict[str, Column] = {}
    patterned: dict[str, dict[str, Column]] = {}
    for name, default in hyperparameters(optimizer).defaults.items():
        if _is_numeric([default]):
            value = _column(optimizer, name, [default])[0]
            numbers[name] = np.broadcast_to(value, (len(index), *value.shape))
        elif name not in switches:
            switches[name] = default
    for name, column in columns.items():
        if name in RUN_SETTINGS:
            continue
        base, bracket, pattern = name.partition("[")
        if bracket:
            patterned.setdefault(base, {})[pattern[:-1]] = column
            numbers.pop(base, None)
        else:
            numbers[name] = column
            switches.pop(name, None)
    return Group(
        optimizer=optimizer,
        switches={n: v for n, v in switches.items() if n not in numbers},
        numbers=numbers,
        patterned=patterned,
        batch_size=None if batch_size == "full" else batch_size,
        order=order,
        index=index,
        start=np.ascontiguousarray(columns["start"]),
        seed=np.ascontiguousarray(columns["seed"]),
        clip_norm=np.ascontiguousarray(columns["clip_norm"]),
    )


def _splits(name: str, values: Sequence[Any] | Column) -> bool:
    """Whether a column's values must be equal within a group."""
    return name in ("batch_size", "order") or (name not in RUN_SETTINGS and not _is_numeric(values))


def _is_numeric(values: Sequence[Any] | Column) -> bool:
    return isinstance(values, np.ndarray) or all(
        is_number(v) or (isinstance(v, tuple) and v and all(is_number(e) for e in v))
        for v in values
    )


def _codes(values: Sequence[Any] | Column) -> list[int]:
    seen: list[Any] = []
    for value in values:
        if not any(value is s or (type(value) is type(s) and value == s) for s in seen):
            seen.append(value)
    return [
        next(i for i, s in enumerate(seen) if v is s or (type(v) is type(s) and v == s))
        for v in values
    ]


def _column(optimizer: type[optim.Optimizer], name: str, values: Sequence[Any] | Column) -> Column:
    """Values as an array; whole numbers stay so where torch.optim itself may count with them."""
    if isinstance(values, np.ndarray):
        array = values
    else:
        lengths = {len(v) if isinstance(v, tuple) else 0 for v in values}
        if len(lengths) > 1:
            raise OptimizerError(f"{name} mixes tuples of different lengths: {list(values)!r}")
        array = np.asarray([list(map(_number, v)) if isinstance(v, tuple) else v for v in values])
    of_rule = optimizer in RULES and name not in RUN_SETTINGS
    return array.astype(np.float64, copy=False) if of_rule or name == "clip_norm" else array


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor | np.generic) else value


def plain(value: Any) -> Any:
    """A column's value as Python numbers, as torch takes it."""
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value.item()
