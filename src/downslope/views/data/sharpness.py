"""What the picture of sharpness shows, as plain arrays: the loss's curvature along runs, and the
curvature that each run's rate bears."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from downslope.engines.layout import needs_loss, read_sequences
from downslope.engines.work import Work
from downslope.errors import InputError
from downslope.explain import stability
from downslope.explain.facts import Settings
from downslope.explain.facts import settings_of as told_of
from downslope.plan import Plan
from downslope.run import no_problem
from downslope.runs import Runs
from downslope.views.data.chosen import names_of, shared_by, spread
from downslope.views.data.histories import NOT_KEPT, check_axis
from downslope.views.data.losses import Axis, Floats, horizontal

MOST_PLACES = 1_000

_BENT = 1e-3
"""Share of the largest curvature below which a negative one is not drawn."""

_FAR = 3.0
"""Times the largest curvature up to which a threshold is held by the axis."""

_DEEP = 30.0
"""Share of the largest curvature, its inverse, below which a threshold is not held."""


@dataclass(frozen=True, eq=False)
class SharpRun:
    """One run's curvature.

    Attributes:
        x: (places,), how far the run was.
        largest, least: (places,), the Hessian's extreme eigenvalues.
        bearable: the curvature above which full batches at the run's rate would leave a place,
            (updates,) at `bearable_x`, both of the same length; or None.
        momentum: whether that is another than 2 / rate.
        why_not: where there is none, why, in words.
    """

    label: str
    x: Floats
    largest: Floats
    least: Floats
    bearable_x: Floats | None
    bearable: Floats | None
    momentum: bool
    why_not: str
    diverged: bool


@dataclass(frozen=True, eq=False)
class Sharpness:
    """Some runs' curvature over time.

    Attributes:
        y_label: what curvature it is; bearable_label: what the thresholds are, empty where there is
            none.
        limits: from the curvature of runs that did not diverge, and thresholds that are near.
        runs: how many runs there are in all.
        notes: sentences on what is missing.
    """

    lines: tuple[SharpRun, ...]
    x_label: str
    y_label: str
    bearable_label: str
    limits: tuple[float, float]
    log: bool
    runs: int
    notes: tuple[str, ...]


def sharpness(runs: Runs, places: int = 20, axis: Axis = "step") -> Sharpness:
    """The largest (and, where negative, least) curvature along up to six runs.

    It is that of what the runs minimise: with SGD's weight decay, and of the negative loss where
    that is maximised. Beside it the curvature that the run's rate bears: 2 / rate for plain SGD,
    2 (1 + μ) / ((1 − τ) rate) with momentum μ and dampening τ, (2 + 2μ) / ((1 + 2μ) rate) with
    Nesterov's (see `explain.stability.threshold`), following a schedule. That of Adam and RMSprop
    speaks of another curvature, that in their own steps, and is not drawn.

    Args:
        places: at how many places along each run the curvature is measured.
        axis: "step" for the number of updates, or "epoch".

    Raises:
        InputError: for another axis, a number of places that makes no sense, if the parameters
            were not kept, or the problem is not known.
    """
    check_axis(axis)
    whole = isinstance(places, int) and not isinstance(places, bool)
    if not whole or not 2 <= places <= MOST_PLACES:
        raise InputError(f"places must be a whole number from 2 to {MOST_PLACES:,}, got {places!r}")
    if runs.path is None:
        raise InputError(NOT_KEPT)
    if runs.plan is None:
        raise InputError(no_problem(runs, "curvature"))
    chosen = spread(runs)
    some, labels = runs[chosen], names_of(runs, chosen)
    table = some.curvature(places)
    lines, asked = [], list[Settings]()
    for place in range(len(some)):
        mine = table.filter(pl.col("run") == int(some.settings["run"][place]))
        steps = mine["step"].to_numpy().astype(np.int64)
        updates = np.arange(max(int(steps[-1]), 1))
        at, x_label = _at(some, place, steps, axis)
        told = _told(some, place, runs.plan)
        asked.append(told.settings)
        rates, momenta, why_not = _rates(told, len(updates))
        bearable = None if why_not else _bearable(told.settings, rates, momenta)
        lines.append(
            SharpRun(
                labels[place],
                at,
                mine["largest_curvature"].to_numpy(),
                mine["least_curvature"].to_numpy(),
                None if bearable is None else _at(some, place, updates, axis)[0],
                bearable,
                bool((momenta != 0).any()),
                why_not,
                bool(some.diverged[place]),
            )
        )
    low, high, log = _extent(lines)
    whys = dict.fromkeys(line.why_not for line in lines if line.why_not)
    notes = [note for note in (shared_by(runs, chosen), *whys) if note]
    return Sharpness(
        tuple(lines),
        x_label,
        _of_what(asked),
        _label(lines, runs.plan),
        (low, high),
        log,
        len(runs),
        tuple(notes),
    )


def _at(runs: Runs, place: int, steps: np.ndarray, axis: Axis) -> tuple[Floats, str]:
    """Where numbers of updates of one run stand on the axis, and its label."""
    x, label = horizontal(runs[[place]], steps[None], axis, "batch_loss")
    return x[0], label


@dataclass(frozen=True, eq=False)
class _Told:
    """What a run was told: its settings, all work of its group, and its place in that."""

    settings: Settings
    work: Work
    row: int


def _told(runs: Runs, place: int, plan: Plan) -> _Told:
    chunk, row = plan.find(int(runs.settings["run"][place]))
    work = replace(plan.work(chunk), group=plan.groups[chunk.group])
    scheduled = plan.options.schedule is not None
    return _Told(told_of(work.group, row, work.full, scheduled), work, row)


def _rates(told: _Told, updates: int) -> tuple[Floats, Floats, str]:
    """Rate and momentum at each update, (updates,) each; or why there is no threshold of them."""
    settings, work, none = told.settings, told.work, np.zeros(updates)
    name, schedule = settings.optimizer, told.work.options.schedule
    if settings.kind == "adaptive":
        return (
            none,
            none,
            (
                f"No threshold for {name}: it scales each number's step, so that its own is of "
                "another curvature than the loss's."
            ),
        )
    if settings.kind != "sgd":
        return none, none, f"No threshold for {name}: there is no theory of it here."
    if settings.lr is None:
        return none, none, f"No threshold where {name}'s rates go by parameter name."
    rates, momenta = np.full(updates, settings.lr), np.full(updates, settings.momentum)
    if schedule is None:
        return rates, momenta, ""
    if needs_loss(work):
        return none, none, "No threshold where the schedule looks at the loss."
    moved = read_sequences(work, [told.row])
    at = np.arange(updates) // (work.updates_per_epoch if schedule.per == "epoch" else 1)
    return _moving(moved, "lr", at, rates), _moving(moved, "momentum", at, momenta), ""


def _bearable(settings: Settings, rates: Floats, momenta: Floats) -> Floats:
    """The curvature that each rate bears: the threshold of curvature 1, over the rate."""
    known, which = np.unique(momenta, return_inverse=True)
    unit = [
        float(
            stability.threshold(
                1.0, momentum=m, dampening=settings.dampening, nesterov=settings.nesterov
            )
        )
        for m in known
    ]
    with np.errstate(divide="ignore"):
        made: Floats = np.asarray(unit)[which] / rates
    return made


def _moving(moved: dict[str, np.ndarray], name: str, at: np.ndarray, otherwise: Floats) -> Floats:
    if name not in moved:
        return otherwise
    values: Floats = moved[name][np.minimum(at, len(moved[name]) - 1), 0, 0]
    return values


def _of_what(asked: list[Settings]) -> str:
    """What the curvature is that of."""
    upward = [one.sign < 0 for one in asked]
    decay = " with weight decay" if any(one.weight_decay for one in asked) else ""
    words = "loss" if decay else "the loss"
    if any(upward):
        words = "the negative loss" if all(upward) else f"{words} (negative where maximised)"
    return f"Curvature of {words}{decay} (eigenvalue of its Hessian)"


def _label(lines: list[SharpRun], plan: Plan) -> str:
    """What the thresholds of these runs are called."""
    known = [line for line in lines if line.bearable is not None]
    if not known:
        return ""
    plain = not any(line.momentum for line in known)
    what = "2 / learning rate" if plain else "what rate and momentum bear"
    full = all(plan.work(chunk).full for chunk in plan.chunks)
    return what if full else f"{what} (with full batches)"


def _extent(lines: list[SharpRun]) -> tuple[float, float, bool]:
    """The ends of the vertical axis, and whether it is logarithmic."""
    steady = [line for line in lines if not line.diverged]
    seen = _finite([line.largest for line in steady])
    if not len(seen):  # of runs that all diverged, where they started
        seen = _finite([line.largest[:1] for line in lines])
    top = float(seen.max()) if len(seen) else 1.0
    least = _finite([line.least for line in steady])
    least = least[least < -_BENT * abs(top)]
    near = _finite([line.bearable for line in steady or lines if line.bearable is not None])
    near = near[(near > top / _DEEP) & (near <= _FAR * top)]
    every = np.concatenate([seen, least, near])
    if not len(every):
        return -1.0, 1.0, False
    low, high = float(every.min()), float(every.max())
    if low > 0 and high > 50 * low:
        return low / 1.3, high * 1.3, True
    low = min(low, 0.0)
    room = 0.06 * (high - low) or 1.0
    return low - room if low < 0 or not high else 0.0, high + room, False


def _finite(values: list[Floats]) -> Floats:
    joined = np.concatenate([np.empty(0), *values])
    kept: Floats = joined[np.isfinite(joined)]
    return kept
