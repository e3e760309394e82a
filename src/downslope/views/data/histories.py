"""What the pictures of parameters over time show, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from downslope.errors import InputError
from downslope.run import Run
from downslope.runs import Runs
from downslope.views.data.chosen import (
    check_some,
    names_of,
    number_names,
    places_of,
)
from downslope.views.data.losses import Axis, Floats, horizontal

MOST_NUMBERS = 12
"""Lines that get a name: numbers up to which each is drawn, and tensors of those with more."""

NOT_KEPT = (
    "the parameters on the way were not kept: descend with keep=('loss', 'parameters') to see them"
)


@dataclass(frozen=True, eq=False)
class Trace:
    """One number over time, or the norm of one parameter tensor: values (records,)."""

    name: str
    values: Floats


@dataclass(frozen=True, eq=False)
class History:
    """One run's parameters over time.

    Attributes:
        x: (records,), how far the run was; up to where it ended.
        traces: in the model's order; others: tensors beyond `MOST_NUMBERS`, which moved least.
    """

    label: str
    x: Floats
    traces: tuple[Trace, ...]
    others: tuple[Trace, ...]
    diverged: bool


@dataclass(frozen=True, eq=False)
class Histories:
    """Some runs' parameters over time.

    Attributes:
        numbers: whether each number has a line; else each parameter tensor has one, its norm.
        limits: of the vertical axis, from the runs that did not diverge.
    """

    histories: tuple[History, ...]
    numbers: bool
    x_label: str
    y_label: str
    log: bool
    limits: tuple[float, float]


def parameter_histories(
    runs: Runs, axis: Axis = "epoch", run: int | Run | Sequence[int | Run] | None = None
) -> Histories:
    """The parameters of the best run over time, or of the runs that are named.

    Up to `MOST_NUMBERS` numbers are shown each by itself. Of more, each parameter tensor is shown
    by its norm (the root of the sum of its numbers' squares).

    Args:
        axis: "epoch", or "step" for the number of updates.
        run: numbers from the table's ``run`` column, or `Run`s; at most `MOST_RUNS`.

    Raises:
        InputError: if the parameters were not kept, for another axis, an unknown run, or too many.
    """
    check_axis(axis)
    check_some(runs)
    if runs.path is None:
        raise InputError(NOT_KEPT)
    places = places_of(runs, run)
    names = number_names(runs.path)
    each = len(names) <= MOST_NUMBERS
    x, x_label = horizontal(runs, runs.steps, axis, "loss")
    labels = names_of(runs, np.arange(len(runs)))
    histories = tuple(_history(runs, place, labels[place], x[place], each) for place in places)
    steady = [h for h in histories if not h.diverged] or [_calm(h) for h in histories]
    seen = np.concatenate(
        [np.zeros(0), *(t.values for h in steady for t in (*h.traces, *h.others))]
    )
    seen = seen[np.isfinite(seen)]
    log = bool(not each and len(seen) and seen.min() > 0 and seen.max() > 50 * seen.min())
    words = "Parameter" if each else "Norm of each parameter tensor"
    return Histories(histories, each, x_label, words, log, _limits(seen, log))


def check_axis(axis: str) -> None:
    """Refuse an axis that is none.

    Raises:
        InputError: what is allowed.
    """
    if axis not in ("epoch", "step"):
        raise InputError(f"axis must be 'epoch' or 'step', got {axis!r}")


def _history(runs: Runs, place: int, label: str, x: Floats, each: bool) -> History:
    assert runs.path is not None
    there = np.isfinite(x)
    path = {name: values[place][there] for name, values in runs.path.items()}
    if each:
        columns = [_flat(values) for values in path.values()]
        numbers = np.concatenate(columns, axis=1).T
        made = [
            Trace(name, values)
            for name, values in zip(number_names(runs.path), numbers, strict=True)
        ]
    else:
        made = [Trace(name, _norms(values)) for name, values in path.items()]
    moved = np.argsort([-_moved(trace.values) for trace in made], kind="stable")[:MOST_NUMBERS]
    return History(
        label,
        x[there],
        tuple(trace for number, trace in enumerate(made) if number in moved),
        tuple(trace for number, trace in enumerate(made) if number not in moved),
        bool(runs.diverged[place]),
    )


def _flat(values: Tensor) -> Floats:
    """(records, *shape) as (records, numbers)."""
    plain: Floats = values.reshape(len(values), -1).double().cpu().numpy()
    return plain


def _norms(values: Tensor) -> Floats:
    norms: Floats = values.flatten(1).norm(dim=1, dtype=None).double().cpu().numpy()
    return norms


def _moved(values: Floats) -> float:
    """How far a line goes up and down, in its own size."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite) / (np.abs(finite).max() or 1.0)) if len(finite) else 0.0


def _calm(history: History) -> History:
    """A diverged run up to where its numbers are ten times as far out as at the start."""
    traces = (*history.traces, *history.others)
    size = np.max([np.abs(trace.values) for trace in traces], axis=0)
    most = 10 * max(float(size[0]), 1e-12)
    held = tuple(Trace(t.name, t.values[size <= most]) for t in traces)
    return History(history.label, history.x, held, (), True)


def _limits(seen: NDArray[np.float64], log: bool) -> tuple[float, float]:
    if not len(seen):
        return -1.0, 1.0
    low, high = float(seen.min()), float(seen.max())
    if log:
        room = (high / low) ** 0.05
        return low / room, high * room
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room
