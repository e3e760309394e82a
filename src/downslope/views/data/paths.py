"""What the picture of paths shows, as plain arrays: ways over the loss of one number, of two, or on
the plane of their two main directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.errors import InputError
from downslope.problem import Problem
from downslope.runs import Runs
from downslope.views.data.chosen import MOST_RUNS, best_of, names_of, number_names, signs_of, spread
from downslope.views.data.losses import Floats
from downslope.views.data.planes import MOST_POINTS, Plane, evenly, main_plane
from downslope.views.data.surfaces import Effort, effort, loss_at

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_PANELS = MOST_RUNS
MISS = 0.1
"""Share of the losses' range above which the drawn surface is said to miss a way's loss."""

_CURVE_POINTS = 201
_ROOF = 2.0
"""Times the height of the start above the least loss: a way that climbs higher is not followed."""
_ROUNDING = 1e-5
"""Relative difference of two losses that is rounding alone, in single precision."""
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


@dataclass(frozen=True, eq=False)
class Paths:
    """Some runs' ways over the loss.

    Attributes:
        names: of the one or two numbers, or of the plane's directions.
        axes: for each of them the values at which the loss is known.
        surface: the loss there: (values,), or (values of the second, values of the first).
        runs: how many runs there are in all.
        upward: whether the loss is maximised.
        plane: where there are more than two numbers; one for all ways, through the end of the
            best of them.
        numbers: how many numbers the parameters are.
        notes: sentences on what is drawn.
    """

    names: tuple[str, ...]
    axes: tuple[Floats, ...]
    surface: Floats
    paths: tuple[Path, ...]
    runs: int
    y_label: str
    upward: bool = False
    plane: Plane | None = None
    numbers: int = 1
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """A sentence where the drawn surface misses a way's loss, else nothing."""
        missed = [way.miss for way in self.paths if way.miss > MISS]
        if not missed:
            return ""
        count = "all" if len(missed) == len(self.paths) else f"{len(missed)} of the"
        every = "both" if len(self.paths) == 2 and count == "all" else f"{count} {len(self.paths)}"
        ways = f"{every} ways" if len(self.paths) > 1 else "the way"
        worst = max(missed)
        size = f"by up to {worst:.0%} of its range" if np.isfinite(worst) else "which is finite"
        why = "off the plane the loss is another" if self.plane else "the model's buffers moved"
        return f"Mind: along {ways} the drawn surface misses the recorded loss, {size}: {why}."


def paths(runs: Runs) -> Paths:
    """The ways of up to `MOST_PANELS` runs, spread evenly over them, the best among them.

    Of more than two numbers, on the plane through the end of the best of these runs along the two
    main directions of all their records together; records count as far as their loss is not above
    `_ROOF` times the height of the start. The surface has the buffers (running means and the
    like) of that end.

    Raises:
        InputError: if the paths were not kept, or the problem is not known.
    """
    if runs.path is None:
        raise InputError(
            "the paths were not kept: descend with keep=('loss', 'parameters') to draw them"
        )
    if runs.plan is None:
        raise InputError(no_problem("paths over the loss"))
    problem = runs.plan.problem
    numbers = number_names(runs.path)
    places = spread(runs)
    labels, signs = names_of(runs), signs_of(runs)[places]
    ways = [_way(runs, int(place), labels[place], problem) for place in places]
    inside = _inside(ways, signs)
    chosen = best_of(runs, places)
    home = int(places[0]) if chosen is None else chosen
    state = _others(runs, home, problem)
    names, plane, notes = tuple(numbers), None, list[str]()
    if len(numbers) > 2:
        plane = _plane(runs, places, inside, home)
        names = tuple(
            f"Direction {place} ({share:.1%} of the ways)"
            for place, share in enumerate(plane.shares, start=1)
        )
        notes.append(_told(plane, len(ways), labels[home], len(numbers), bool(state)))
    ways = [
        _placed(runs, int(place), way, mask, plane)
        for place, way, mask in zip(places, ways, inside, strict=True)
    ]
    cost = effort(problem)
    axes = _frame(ways, inside, cost, plane is not None)
    mesh = np.meshgrid(*axes)
    flat = np.stack([m.ravel() for m in mesh], axis=1)

    def losses(at: Floats) -> Floats:
        return loss_at(problem, at if plane is None else plane.points(at), state, cost.rows)

    ways = _missed(ways, inside, losses, cost)
    if problem.train is not None and cost.rows < len(problem.train):
        notes.append(f"The surface is that of {cost.rows:,} of {len(problem.train):,} rows.")
    symbol = f"f({names[0]})" if len(names) == 1 and problem.train is None else "Loss"
    return Paths(
        names,
        axes,
        losses(flat).reshape(mesh[0].shape),
        tuple(ways),
        len(runs),
        symbol,
        upward=bool((signs < 0).all()),
        plane=plane,
        numbers=len(numbers),
        notes=tuple(notes),
    )


def _told(plane: Plane, ways: int, home: str, numbers: int, buffers: bool) -> str:
    """What the plane is, in words."""
    end = "its end" if ways == 1 else f"the end of the best ({home})"
    whose = "its records" if ways == 1 else f"the records of all {ways} runs"
    with_buffers = ", with the model's buffers as they are there" if buffers else ""
    return (
        f"A plane in the space of {numbers:,} numbers, through {end}{with_buffers}, along the two "
        f"main directions of {whose}: it holds {plane.shares.sum():.1%} of their squared distances "
        "from there."
    )


def _way(runs: Runs, place: int, label: str, problem: Problem) -> Path:
    """A run's losses; its points are laid down when it is known where."""
    there = _records(runs, place)
    losses = runs.loss[place, there].astype(np.float64)
    lacking = ~np.isfinite(losses)
    if lacking.any():
        points = (_points(runs, place, [record])[0] for record in there[lacking])
        losses[lacking] = loss_at(problem, points, _others(runs, place, problem))
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


def _others(runs: Runs, place: int, problem: Problem) -> dict[str, Tensor]:
    """What a run's end has besides its parameters."""
    return {name: t for name, t in runs[place].state.items() if name in problem.others}


def _plane(runs: Runs, places: Indices, inside: Sequence[Mask], home: int) -> Plane:
    """The plane of some runs' main directions about the end of the run at `home`."""
    kept = []
    for place, mask in zip(places, inside, strict=True):
        records = _records(runs, int(place))[mask]
        kept.append(_points(runs, int(place), records[evenly(len(records), MOST_POINTS)]))
        if place == home:
            centre = kept[-1][-1]
    return main_plane(kept, centre)


def _inside(ways: Sequence[Path], signs: Floats) -> list[Mask]:
    """Which records of each way are shown: up to where the loss is blown up, and the start."""
    turned = [sign * way.losses for way, sign in zip(ways, signs, strict=True)]
    finite = np.concatenate([losses[np.isfinite(losses)] for losses in turned])
    first = max(losses[0] for losses in turned)
    floor = finite.min(initial=first)
    roof = floor + _ROOF * max(first - floor, 1e-12)
    inside = [np.isfinite(losses) & (losses <= roof) for losses in turned]
    for mask in inside:
        mask[0] = True
    return inside


def _placed(runs: Runs, place: int, way: Path, inside: Mask, plane: Plane | None) -> Path:
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


def _missed(
    ways: Sequence[Path],
    inside: Sequence[Mask],
    losses: Callable[[Floats], Floats],
    cost: Effort,
) -> list[Path]:
    """The ways with how far the surface misses their losses, at some records of each."""
    shown = np.concatenate([way.losses[mask] for way, mask in zip(ways, inside, strict=True)])
    extent = float(np.ptp(shown))
    most = int(np.clip(cost.side**2 // (10 * len(ways)), 5, 40))
    made = []
    for way, mask in zip(ways, inside, strict=True):
        some = np.flatnonzero(mask)
        some = some[evenly(len(some), most)]
        away = np.abs(losses(way.points[some]) - way.losses[some])
        size = np.abs(way.losses[some]).max()
        # What is alike but for rounding is no miss, even where the way goes nowhere.
        away = np.where(away <= _ROUNDING * size, 0.0, away)
        worst = float(np.where(np.isfinite(away), away, np.inf).max())
        miss = worst / extent if extent > 0 else np.inf
        made.append(replace(way, miss=miss if worst > 0 else 0.0))
    return made


def _frame(
    ways: Sequence[Path], inside: Sequence[Mask], cost: Effort, plane: bool
) -> tuple[Floats, ...]:
    """Values of each number that hold every way as far as its loss is not blown up."""
    points = np.concatenate([way.points[mask] for way, mask in zip(ways, inside, strict=True)])
    low, high = points.min(0), points.max(0)
    extent = high - low
    alone = 0.25 * extent.max() if plane and extent.max() > 0 else 0.5 * np.maximum(1.0, abs(high))
    flat = 1e-6 * extent.max() if plane else 0.0  # a way along a line, but for rounding
    room = np.where(extent > flat, 0.12 * extent, alone)
    count = _CURVE_POINTS if points.shape[1] == 1 else cost.side
    ends = zip(low - room, high + room, strict=True)
    return tuple(np.linspace(a, b, count) for a, b in ends)


def no_problem(what: str) -> str:
    """What to say where runs were loaded without their problem."""
    return (
        f"these runs were loaded without their problem: for {what}, "
        "load them with downslope.load(folder, problem=...)"
    )
