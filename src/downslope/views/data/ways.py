"""The ways of runs through their parameters: where they were at each record, laid onto a plane
where there are more than two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.problem import Problem
from downslope.runs import Runs
from downslope.views.data.losses import Floats
from downslope.views.data.planes import MOST_POINTS, Plane, evenly, main_plane
from downslope.views.data.surfaces import loss_at

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

ROOF = 2.0
"""Times the height of the start above the least loss: a way that climbs higher is not followed."""
_NUMBERS = 2**22
"""Numbers of a way that are made at a time, about."""


@dataclass(frozen=True, eq=False)
class Path:
    """One run's way.

    Attributes:
        points: (records, 1 or 2): the numbers themselves, or coordinates on the plane.
        losses: (records,), as they were recorded.
        off: (records,), how far each record is off the plane, in the parameters' unit; 0 for one
            number or two, NaN where the loss is blown up.
        share: of the squared distances from the plane's centre, the part that lies on it.
        miss: how far the drawn surface is from the loss at the way's records, at most, as a share
            of the range of the losses.
    """

    label: str
    points: Floats
    losses: Floats
    diverged: bool
    off: Floats
    share: float = 1.0
    miss: float = 0.0


def way_of(runs: Runs, place: int, label: str, problem: Problem) -> Path:
    """A run's losses; its points are laid down when it is known where."""
    there = _records(runs, place)
    losses = runs.loss[place, there].astype(np.float64)
    lacking = ~np.isfinite(losses)
    if lacking.any():
        points = (_points(runs, place, [record])[0] for record in there[lacking])
        losses[lacking] = loss_at(problem, points, others_of(runs, place, problem))
    return Path(label, np.empty((len(there), 0)), losses, bool(runs.diverged[place]), losses)


def _records(runs: Runs, place: int) -> Indices:
    """The records that a run reached."""
    return np.flatnonzero(runs.steps[place] >= 0)


def _points(runs: Runs, place: int, records: Sequence[int] | Indices) -> Floats:
    """Where a run was at some records, (records, numbers)."""
    assert runs.path is not None
    at = torch.as_tensor(records)
    flat = [t[place][at].double().cpu().reshape(len(at), -1).numpy() for t in runs.path.values()]
    return np.concatenate(flat, axis=1)


def others_of(runs: Runs, place: int, problem: Problem) -> dict[str, Tensor]:
    """What a run's end has besides its parameters."""
    return {name: t for name, t in runs[place].state.items() if name in problem.others}


def plane_of(runs: Runs, places: Indices, inside: Sequence[Mask], home: int) -> Plane:
    """The plane of some runs' main directions about the end of the run at `home`."""
    kept = []
    for place, mask in zip(places, inside, strict=True):
        records = _records(runs, int(place))[mask]
        kept.append(_points(runs, int(place), records[evenly(len(records), MOST_POINTS)]))
        if place == home:
            centre = kept[-1][-1]
    return main_plane(kept, centre)


def followed(ways: Sequence[Path], signs: Floats) -> list[Mask]:
    """Which records of each way are shown: up to where the loss is blown up, and the start."""
    turned = [sign * way.losses for way, sign in zip(ways, signs, strict=True)]
    finite = np.concatenate([losses[np.isfinite(losses)] for losses in turned])
    starts = [float(losses[0]) for losses in turned if np.isfinite(losses[0])]
    first = max(starts, default=float(finite.min(initial=np.inf)))  # a start may lie outside
    floor = float(finite.min(initial=first))
    roof = floor + ROOF * max(first - floor, 1e-12)
    inside = [np.isfinite(losses) & (losses <= roof) for losses in turned]
    for mask in inside:
        mask[0] = True
    return inside


def placed(runs: Runs, place: int, way: Path, inside: Mask, plane: Plane | None) -> Path:
    """A way with its points: as they are, or laid onto the plane."""
    records = _records(runs, place)
    if plane is None:
        return replace(way, points=_points(runs, place, records), off=np.zeros(len(records)))
    blocks = np.array_split(records, -(-len(records) * len(plane.centre) // _NUMBERS))
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged end may be as far as it likes
        laid = [plane.laid(_points(runs, place, block)) for block in blocks]
    points, off = (np.concatenate(parts) for parts in zip(*laid, strict=True))
    off = np.where(inside, off, np.nan)
    on, beside = (points[inside] ** 2).sum(), (off[inside] ** 2).sum()
    share = float(on / (on + beside)) if on + beside > 0 else 1.0
    return replace(way, points=points, off=off, share=share)
