"""How fast runs went down, or blew up, as one number a run: the boundary of trainability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from downslope.engines.work import Status
from downslope.errors import InputError
from downslope.runs import Runs
from downslope.views.data.losses import Floats

CUT = 1e6
"""Times the loss at the start, from which on losses count alike."""

_LAST = 20
"""Records at the end that say whether a run went down."""

_SAME = 1e-3
"""Relative difference up to which a batch's loss is that over all rows, but for rounding."""

_BLOCK = 4096
"""Runs that are summed at a time, so that a large study is not held twice."""


def summed(runs: Runs) -> tuple[Floats, NDArray[np.bool_]]:
    """The sum over the records of what each run's loss is of its start, and which blew up.

    Where the losses of full batches were kept, which are the loss before each update, they and the
    final loss take the records' place: what ``every="step"`` would record, without its passes.

    With vₜ the loss at record t over that at the start: Σ vₜ of a run that went down, Σ 1 / vₜ of
    one that blew up: that did not end below its start, by the mean of its last 20 records (J.
    Sohl-Dickstein, "The boundary of neural network trainability is fractal", arXiv 2402.06184).
    From a run's divergence on, 1 / vₜ is 0; one that ended early is held at its last loss.

    Returns:
        (runs,) each; sums are NaN for runs that start at 0.

    Raises:
        InputError: if losses are below 0, are maximised, or were not kept at the records.
    """
    sums, grown = np.empty(len(runs)), np.empty(len(runs), dtype=bool)
    at_updates = _batches_are_all_rows(runs)
    if (runs.signs < 0).any():
        raise InputError("of='sum' takes losses that are minimised, and these are maximised")
    for first in range(0, len(runs), _BLOCK):
        rows = slice(first, first + _BLOCK)
        diverged = runs.diverged[rows]
        losses = _at_updates(runs, rows) if at_updates else _at_records(runs, rows)
        if (losses < 0).any():
            raise InputError("of='sum' takes losses that are never below 0")
        losses = _filled(losses, diverged, runs.status[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.minimum(losses / losses[:, :1], CUT)
            grown[rows] = diverged | ~(shares[:, -_LAST:].mean(1) < 1)
            inverse = np.where(np.isinf(losses), 0.0, 1 / shares)
            sums[rows] = np.where(grown[rows], inverse.sum(1), shares.sum(1))
    sums[~np.isfinite(sums)] = np.nan
    return sums, grown


def _batches_are_all_rows(runs: Runs) -> bool:
    """Whether the batches' losses were kept, and are those over all rows.

    They are not in a model that behaves otherwise in training (dropout, batch normalisation): then
    a run's first one is not its loss at the start.
    """
    if runs.batch_loss is None or not (runs.settings["batch_size"] == "full").all():
        return False
    start = np.asarray(runs.loss[:, 0], dtype=np.float64)
    return np.allclose(runs.batch_loss[:, 0], start, rtol=_SAME, atol=0, equal_nan=True)


def _at_updates(runs: Runs, rows: slice) -> Floats:
    """(runs, updates + 1): the loss before each update, and the final one; NaN after an end."""
    assert runs.batch_loss is not None
    losses = np.pad(np.asarray(runs.batch_loss[rows], dtype=np.float64), ((0, 0), (0, 1)),
                    constant_values=np.nan)  # fmt: skip
    ended = np.flatnonzero(~runs.diverged[rows])
    final = runs.table["final_loss"][rows].to_numpy()
    losses[ended, runs.steps_done[rows][ended]] = final[ended]
    return losses


def _at_records(runs: Runs, rows: slice) -> Floats:
    """(runs, records) losses."""
    losses, steps = np.asarray(runs.loss[rows], dtype=np.float64), runs.steps[rows]
    steady = ~runs.diverged[rows, None]
    if (np.isnan(losses[:, 1:-1]) & (steps[:, 1:-1] >= 0) & steady).any():
        raise InputError(
            "of='sum' needs the loss at every record: descend with 'loss' in keep=, or with "
            "full batches and 'batch_loss'"
        )
    return losses


def _filled(losses: Floats, diverged: NDArray[np.bool_], status: NDArray[np.int8]) -> Floats:
    """Losses (runs, records): infinite once a run diverged; held at the last of an early end."""
    losses = np.where(np.isnan(losses) & diverged[:, None], np.inf, losses)
    for run in np.flatnonzero(np.isin(status, (Status.stopped, Status.converged))):
        last = np.flatnonzero(np.isfinite(losses[run]))[-1:]
        for record in last:
            losses[run, record:] = losses[run, record]
    return losses
