"""What a compiled program has written so far, read while it goes on writing.

A record is read only when its tile's progress has passed it, which the program stores after all of
the record: nothing that is half written is ever shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.fused.tiles import Tiling
from downslope.engines.fused.verdicts import STATUS, STEPS_DONE
from downslope.engines.layout import Layout
from downslope.engines.work import Glimpse, Status, Work, some_of

Numbers = NDArray[Any]


def complete(at: NDArray[np.int64], progress: NDArray[np.int64], edges: set[int]) -> Numbers:
    """How many records of each tile are whole.

    Args:
        at: (records,), the updates after which there is one.
        progress: (tiles,), the updates that each tile has told of; -1 before its first record.
        edges: where a call of the program ends before the last update. There, progress is told at
            the end of the call, and the record is written at the start of the next.
    """
    passed = np.searchsorted(at, progress, side="left")
    there = np.minimum(passed, len(at) - 1)
    told = (at[there] == progress) & ~np.isin(progress, list(edges))
    whole: Numbers = passed + told
    return whole


def glimpse(
    values: Mapping[str, Any],
    layout: Layout,
    tiles: Tiling,
    work: Work,
    shown: NDArray[np.int64],
    done: bool,
) -> Glimpse:
    """The records so far of the runs `shown`, and the last losses of all.

    Args:
        values: the arrays that the program reads and writes, by name.
    """
    at, runs = work.record_at, len(work)
    ends = (values.get("first_update", 0), values.get("last_update", 0))
    edges = {end for end in ends if 0 < end < work.updates}
    records = complete(at, values["progress"].copy(), edges)
    status, ends = (values["whole"][:, k] for k in (STATUS, STEPS_DONE))  # (tiles, width)
    ended = np.searchsorted(at, ends, side="right")  # records of a run that goes on no more
    if done:
        records = np.where(status != 0, ended, len(at)).max(1)
    own = np.where(status != 0, np.minimum(ended, records[:, None]), records[:, None])
    last = np.maximum(own - 1, 0)
    losses = np.take_along_axis(values["loss"], last[:, None], 1)[:, 0]
    losses[records == 0] = np.nan
    where = np.array([np.flatnonzero(tiles.run_of.reshape(-1) == run)[0] for run in shown], int)
    tile, lane = np.divmod(where, tiles.run_of.shape[1])
    places = some_of(int(records[tile].max(initial=0)))
    loss = values["loss"][tile[:, None], places[None, :], lane[:, None]]
    loss[places >= records[tile, None]] = np.nan
    return Glimpse(
        numbers=work.group.index,
        last=tiles.gathered(losses, runs),
        diverged=tiles.gathered(values["whole"][:, STATUS], runs) == Status.diverged,
        shown=shown,
        steps=at[places],
        loss=loss,
        parameters=_parameters(values, layout, tile, lane, records[tile]),
        updates=work.updates,
        sign=work.sign,
        done=done,
    )


def _parameters(
    values: Mapping[str, Any], layout: Layout, tile: Numbers, lane: Numbers, records: Numbers
) -> dict[str, Tensor] | None:
    """Of runs given by tile and lane, at their last record that holds any."""
    path = values.get("path")
    if path is None:
        return None
    rows = []
    for t, k, count in zip(tile, lane, records, strict=True):
        there = np.flatnonzero(np.isfinite(values["loss"][t, :count, k]))
        rows.append(path[t, there[-1] if len(there) else 0, :, k])
    flat = np.array(rows, dtype=path.dtype).reshape(len(tile), path.shape[2])
    return layout.split(torch.from_numpy(flat))
