"""What the picture of paths shows, as plain arrays: ways over the loss of one number, of two, or on
the plane of their two main directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from downslope.errors import InputError
from downslope.run import no_problem
from downslope.runs import Runs
from downslope.views.data.chosen import (
    MOST_RUNS,
    best_of,
    names_of,
    number_names,
    shared_by,
    spread,
)
from downslope.views.data.losses import Floats
from downslope.views.data.planes import Plane, evenly
from downslope.views.data.surfaces import Effort, effort, loss_at
from downslope.views.data.ways import Mask, Path, followed, others_of, placed, plane_of, way_of

MOST_PANELS = MOST_RUNS
MISS = 0.1
"""Share of the losses' range above which the drawn surface is said to miss a way's loss."""

_CURVE_POINTS = 201
_ROUNDING = 1e-5
"""Relative difference of two losses that is rounding alone, in single precision."""


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
        buffers: whether the model has buffers, which the surface has as they are in one place.
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
    buffers: bool = False
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
        why = "it is that of some rows alone"
        if self.plane or self.buffers:
            why = "off the plane the loss is another" if self.plane else "the model's buffers moved"
        return f"Mind: along {ways} the drawn surface misses the recorded loss, {size}: {why}."


def paths(runs: Runs) -> Paths:
    """The ways of up to `MOST_PANELS` runs, spread evenly over them, the best among them.

    Of more than two numbers, on the plane through the end of the best of these runs along the two
    main directions of all their records together; records count as far as their loss is not above
    `ROOF` times the height of the start. The surface has the buffers (running means and the
    like) of that end.

    Raises:
        InputError: if the paths were not kept, or the problem is not known.
    """
    if runs.path is None:
        raise InputError(
            "the paths were not kept: descend with keep=('loss', 'parameters') to draw them"
        )
    if runs.plan is None:
        raise InputError(no_problem(runs, "paths over the loss"))
    problem = runs.plan.problem
    numbers = number_names(runs.path)
    places = spread(runs)
    labels, signs = names_of(runs, places), runs.signs[places]
    ways = [
        way_of(runs, int(place), label, problem)
        for place, label in zip(places, labels, strict=True)
    ]
    inside = followed(ways, signs)
    chosen = best_of(runs, places)
    home = int(places[0]) if chosen is None else chosen
    state = others_of(runs, home, problem)
    shared = shared_by(runs, places)
    names, plane, notes = tuple(numbers), None, [shared] if shared else []
    if len(numbers) > 2:
        plane = plane_of(runs, places, inside, home)
        names = tuple(
            f"Direction {place} ({share:.1%} of the ways)"
            for place, share in enumerate(plane.shares, start=1)
        )
        best = labels[places.tolist().index(home)]
        notes.append(_told(plane, len(ways), best, len(numbers), bool(state)))
    ways = [
        placed(runs, int(place), way, mask, plane)
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
    surface = losses(flat).reshape(mesh[0].shape)
    if not np.isfinite(surface).any():
        notes.append("The loss is finite nowhere here, so that there is no surface to draw.")
    symbol = f"f({names[0]})" if len(names) == 1 and problem.train is None else "Loss"
    return Paths(
        names,
        axes,
        surface,
        tuple(ways),
        len(runs),
        symbol,
        upward=bool((signs < 0).all()),
        plane=plane,
        numbers=len(numbers),
        notes=tuple(notes),
        buffers=bool(state),
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


def _missed(
    ways: Sequence[Path],
    inside: Sequence[Mask],
    losses: Callable[[Floats], Floats],
    cost: Effort,
) -> list[Path]:
    """The ways with how far the surface misses their losses, at some records of each. Where a loss
    is not finite there is none to be missed."""
    shown = np.concatenate([way.losses[mask] for way, mask in zip(ways, inside, strict=True)])
    shown = shown[np.isfinite(shown)]
    extent = float(np.ptp(shown)) if len(shown) else 0.0
    most = int(np.clip(cost.side**2 // (10 * len(ways)), 5, 40))
    made = []
    for way, mask in zip(ways, inside, strict=True):
        some = np.flatnonzero(mask & np.isfinite(way.losses))
        if not len(some):
            made.append(way)
            continue
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
