"""Rows for a problem: tensors, arrays, dataframes, a Dataset or a DataLoader, made tensors once.

Data in memory is sliced, never sent through a DataLoader's collation. A DataLoader's batch size
and order become the problem's; one that does more than slice and shuffle is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from downslope.errors import ProblemError
from downslope.randomness import borrowed


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs and, where there are any, targets: the first axis of both counts the rows."""

    x: Tensor
    y: Tensor | None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.x[rows], None if self.y is None else self.y[rows])

    def alike(self, other: Rows) -> Rows:
        """These rows on the device and in the dtypes of others."""
        y = self.y
        if y is not None and other.y is not None:
            y = y.to(other.y)
        return Rows(self.x.to(other.x), y)

    def cast(self, like: Rows, dtype: torch.dtype) -> Rows:
        """These rows, in `dtype` wherever `like` is floating point, else as `like` is."""

        def made(t: Tensor, other: Tensor) -> Tensor:
            return t.to(dtype) if other.is_floating_point() else other

        y = self.y if self.y is None or like.y is None else made(self.y, like.y)
        return Rows(made(self.x, like.x), y)

    def copied(self) -> Rows:
        """The same rows in memory of their own."""
        return Rows(self.x.clone(), None if self.y is None else self.y.clone())

    def to(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Rows:
        """The same rows elsewhere; `dtype` concerns what is floating point."""

        def moved(t: Tensor) -> Tensor:
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

        return Rows(moved(self.x), None if self.y is None else moved(self.y))


def tensors(rows: Rows | None) -> tuple[Tensor, ...]:
    """The tensors of some rows: none, inputs alone, or inputs and targets."""
    if rows is None:
        return ()
    return (rows.x,) if rows.y is None else (rows.x, rows.y)


@dataclass(frozen=True, eq=False)
class Source:
    """Rows and how whoever gave them wanted them drawn.

    Attributes:
        batch_size, order, drop_last: defaults for the problem, None where nothing was said.
        loader: the DataLoader itself, where only it knows how to draw its batches.
    """

    rows: Rows
    batch_size: int | None = None
    order: str | None = None
    drop_last: bool = False
    loader: DataLoader[Any] | None = None


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of the values, sharing their memory where it can.

    Raises:
        ProblemError: if they are text, of different lengths, or nothing like numbers.
    """
    if isinstance(values, Tensor):
        return values.detach()
    if not isinstance(values, np.ndarray | list | tuple | range):
        values = _from_dataframe(values, what)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ProblemError(f"{what} has rows of different lengths") from error
    if array.dtype.kind not in "biuf":
        raise ProblemError(
            f"{what} must hold numbers, got {array.dtype}; "
            "for a table with text columns use Problem.from_table"
        )
    if array.dtype.itemsize == 16:  # np.longdouble, which torch does not know
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # nor does it count with these
        array = array.astype(np.int64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array) if array.ndim else torch.tensor(array.item())


def _from_dataframe(values: Any, what: str) -> np.ndarray[Any, Any]:
    import narwhals as nw

    frame = nw.from_native(values, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(frame, nw.DataFrame | nw.Series):
        array = np.asarray(frame.to_numpy())
        if array.dtype == object and isinstance(frame, nw.DataFrame):
            columns = [frame[name].to_numpy() for name in frame.columns]
            if all(column.dtype.kind in "biuf" for column in columns):  # of several kinds
                return np.column_stack([column.astype(np.float64) for column in columns])
        return array
    if hasattr(values, "__array__"):
        return np.asarray(values)
    raise ProblemError(f"{what} must be a tensor, array or dataframe, got {type(values).__name__}")


def read_rows(X: Any, y: Any) -> Source:
    """`X` and `y` as given to a problem, made into rows.

    Args:
        X: inputs; or a Dataset or DataLoader of (input, target) pairs in their place.
        y: targets, or None with a Dataset or DataLoader, or where an objective needs none.
    """
    if isinstance(X, DataLoader | Dataset):
        if y is not None:
            raise ProblemError(f"a {type(X).__name__} brings its own targets: leave y out")
        with borrowed(torch.device("cpu")):
            if isinstance(X, DataLoader):
                with own_generators(X):
                    return _from_loader(X)
            return Source(_from_dataset(X))
    rows = Rows(as_tensor(X, "X"), None if y is None else as_tensor(y, "y"))
    if rows.x.ndim == 0 or (rows.y is not None and rows.y.ndim == 0):
        raise ProblemError("X and y need a row for each sample, got a single number")
    if rows.y is not None and len(rows.y) != len(rows.x):
        raise ProblemError(f"X has {len(rows.x)} rows but y has {len(rows.y)}")
    if not len(rows):
        raise ProblemError("X has no rows")
    return Source(rows)


def _from_dataset(dataset: Dataset[Any], collate: Any = default_collate) -> Rows:
    if isinstance(dataset, TensorDataset) and collate is default_collate:
        return _filled(pair(dataset.tensors), dataset)
    if not hasattr(dataset, "__len__"):
        raise ProblemError(
            f"{type(dataset).__name__} has no length: wrap it in a DataLoader to descend on it"
        )
    count = len(dataset)
    if not count:
        raise ProblemError(f"{type(dataset).__name__} has no rows")
    return _filled(pair(collate([dataset[i] for i in range(count)])), dataset)


def _filled(rows: Rows, source: Any) -> Rows:
    if not len(rows):
        raise ProblemError(f"{type(source).__name__} has no rows")
    return rows


def pair(items: Any) -> Rows:
    """What a Dataset or DataLoader gives, as rows.

    Raises:
        ProblemError: if it is not one tensor, or a pair of them.
    """
    if isinstance(items, Tensor):
        return Rows(items, None)
    if isinstance(items, list | tuple) and all(isinstance(item, Tensor) for item in items):
        if len(items) == 1:
            return Rows(items[0], None)
        if len(items) == 2:
            return Rows(items[0], items[1])
    raise ProblemError(
        "a Dataset must give (input, target) pairs that become two tensors, "
        f"got {type(items).__name__} of {len(items) if hasattr(items, '__len__') else '?'}"
    )


@contextmanager
def own_generators(loader: DataLoader[Any]) -> Iterator[list[torch.Generator]]:
    """The generators a loader draws from, put back as they were afterwards."""
    batch_sampler = loader.batch_sampler
    owners = (loader, loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(g): g for o in owners if (g := getattr(o, "generator", None)) is not None}
    generators = list(found.values())
    states = [g.get_state() for g in generators]
    try:
        yield generators
    finally:
        for g, before in zip(generators, states, strict=True):
            g.set_state(before)


def loader_batches(loader: DataLoader[Any]) -> int:
    """How many batches a loader gives; an iterable of unknown length is gone through."""
    try:
        return len(loader)
    except TypeError:
        with borrowed(torch.device("cpu")), own_generators(loader):
            return sum(1 for _ in loader)


def _from_loader(loader: DataLoader[Any]) -> Source:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        batches = [pair(batch) for batch in loader]
        if not batches:
            raise ProblemError("the DataLoader gives no batches")
        targets = [b.y for b in batches if b.y is not None]
        rows = Rows(torch.cat([b.x for b in batches]), torch.cat(targets) if targets else None)
        return Source(rows, batch_size=loader.batch_size, loader=loader)
    rows = _from_dataset(loader.dataset, loader.collate_fn)
    sampler = loader.sampler
    plain = (
        type(loader.batch_sampler) is BatchSampler
        and loader.collate_fn is default_collate
        and loader.batch_size is not None
    )
    order = None
    if type(sampler) is SequentialSampler:
        order = "cyclic"
    elif type(sampler) is RandomSampler and sampler.num_samples == len(rows):
        order = "replacement" if sampler.replacement else "shuffle"
    if not plain or order is None:
        return Source(rows, batch_size=loader.batch_size, loader=loader)
    if loader.drop_last and len(rows) < (loader.batch_size or 1):
        raise ProblemError(
            f"the DataLoader gives no batch: it drops the last short one, and has {len(rows)} rows "
            f"for batches of {loader.batch_size}"
        )
    return Source(rows, loader.batch_size, order, loader.drop_last)
