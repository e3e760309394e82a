"""What a live view shows while runs are carried out, as plain arrays, and how it comes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.engines.work import Glimpse
from downslope.errors import InputError
from downslope.plan import Plan
from downslope.records import settings_table
from downslope.views.data.losses import Floats, limits
from downslope.views.data.predicting import Ground, Predictor, moves_as_fit
from downslope.views.data.roofs import BLOWN_UP
from downslope.views.data.settings import said

MOST_LINES = 6
_NOT_NAMED = ("run", "optimizer", "engine")
_WINDOWS = 50
_MOST_POINTS = 2_000
"""Of a watched loop's losses, drawn at most."""


@dataclass(frozen=True, eq=False)
class LiveLine:
    """The records of one run so far: steps and losses (records,), finite; thin: drawn faintly."""

    label: str
    steps: Floats
    losses: Floats
    diverged: bool = False
    thin: bool = False


@dataclass(frozen=True, eq=False)
class Live:
    """What is known at a moment.

    Attributes:
        lines: of up to `MOST_LINES` runs that have begun; of_lines: how many there will be.
        words: how far it is, in one line.
        until: where the axis of steps ends; limits: of the loss axis; log: whether by logarithms.
        ground, made: data and a prediction, of one run whose parameters are recorded; else None.
        of_fit: what that run is, and how far.
    """

    lines: tuple[LiveLine, ...]
    of_lines: int
    words: str
    until: float
    limits: tuple[float, float]
    log: bool
    ground: Ground | None = None
    made: Floats | None = None
    of_fit: str = ""


class Seen:
    """Everything that was glimpsed of a plan's runs.

    Args:
        fits: whether somebody wants to see predictions.
        done: how many runs were done before; reached: the steps of the longest of them.
    """

    def __init__(self, plan: Plan, fits: bool = False, done: int = 0, reached: int = 0) -> None:
        self.runs, self.done, self.reached = plan.runs, done, reached
        wanted = np.unique(np.linspace(0, plan.runs - 1, MOST_LINES).round().astype(int))
        self.wanted = frozenset(int(number) for number in wanted)
        self.settings = settings_table(plan)
        self.labels = dict(zip(wanted.tolist(), labels(self.settings, wanted), strict=True))
        self.lines: dict[int, LiveLine] = {}
        self.scores: dict[int, tuple[float, dict[str, Any]]] = {}
        self.last, self.diverged = np.full(plan.runs, np.nan), np.zeros(plan.runs, dtype=bool)
        self.step = self.updates = self.longest = 0
        self.sign = 1.0
        self.predictor = _predictor(plan, min(self.wanted)) if fits else None

    def take(self, glimpse: Glimpse) -> None:
        """Keep what it shows."""
        numbers = glimpse.numbers
        known = np.isfinite(glimpse.last)
        self.last[numbers[known]] = glimpse.last[known]
        self.diverged[numbers] = glimpse.diverged
        self.sign, self.updates = glimpse.sign, glimpse.updates
        self.longest = max(self.longest, glimpse.updates)
        self.done += len(numbers) if glimpse.done else 0
        self.step = int(glimpse.steps[-1]) if len(glimpse.steps) else 0
        for line, place in enumerate(glimpse.shown):
            number, there = int(numbers[place]), np.isfinite(glimpse.loss[line])
            losses = glimpse.loss[line][there].astype(np.float64)
            steps = glimpse.steps[there].astype(np.float64)
            self.lines[number] = LiveLine(
                self.labels[number], steps, losses, bool(glimpse.diverged[place])
            )
            if glimpse.parameters is not None and len(losses) and not glimpse.diverged[place]:
                held = {name: v[line].clone() for name, v in glimpse.parameters.items()}
                self.scores[number] = (self.sign * losses[-1], held)

    def ended(self, steps: int) -> None:
        """Runs have ended, the longest of them after so many steps."""
        self.reached = max(self.reached, steps)

    def now(self) -> Live:
        """What a view shows of it."""
        lines = tuple(self.lines[number] for number in sorted(self.lines))
        until = max([self.longest, *(line.steps[-1] for line in lines if len(line.steps))])
        ground, made, of_fit = None, None, ""
        if self.predictor is not None and self.scores:
            number = min(self.scores, key=lambda n: self.scores[n][0])
            ground = self.predictor.ground
            made = self.predictor.at(self.scores[number][1])
            line = self.lines[number]
            of_fit = f"step {int(line.steps[-1]):,}, loss {line.losses[-1]:.4g}"
            of_fit += f"\n{line.label}" if self.runs > 1 else ""
        axis = _axis(lines)
        count = len(self.wanted)
        return Live(lines, count, self._words(), float(until), *axis, ground, made, of_fit)

    def _words(self) -> str:
        step, updates = self.step, self.updates
        if self.done == self.runs:  # of all, not of the runs that came last
            step, updates = self.reached, max(self.longest, self.reached)
        words = [f"step {step:,} of {updates:,}" if self.lines else "not begun"]
        if self.runs > 1:
            words.append(f"{self.done:,} of {self.runs:,} runs done")
        if self.diverged.any():
            words.append("diverged" if self.runs == 1 else f"{self.diverged.sum():,} diverged")
        good = np.where(self.diverged, np.inf, self.sign * self.last)
        if np.isfinite(good).any():
            best = int(np.nanargmin(good))
            (label,) = labels(self.settings, np.array([best]))
            what = "loss" if self.runs == 1 else "best loss"
            words.append(f"{what} {self.last[best]:.4g}" + (f" ({label})" if self.runs > 1 else ""))
        return ", ".join(words)


def of_losses(losses: list[float | None]) -> Live:
    """What a view shows of a watched loop: each batch's loss, and their running mean.

    Of many steps, so many evenly, each the mean of those around it: a redraw stays cheap.
    """
    values = np.array([np.nan if v is None else v for v in losses], dtype=np.float64)
    count = len(values)
    given = np.array([v is not None for v in losses], dtype=bool)
    if count > 1 and not given.any():  # at the first step it may still come, after the update
        return _nothing_to_draw(f"step {count:,}, no loss was given: loss = watch.loss(loss)")
    there = np.isfinite(values)
    steps, known = (np.flatnonzero(there) + 1).astype(np.float64), values[there]
    size = -(-len(known) // _MOST_POINTS) or 1
    label = "batch's loss" if size == 1 else f"batch's loss, means of {size}"
    lines = [LiveLine(label, *_in_blocks(steps, known, size), thin=True)]
    width = len(lines[0].losses) // _WINDOWS
    latest, mean_of = known[-1] if len(known) else np.nan, ""
    if width > 1:
        mean = np.convolve(lines[0].losses / width, np.ones(width), mode="valid")
        lines.append(LiveLine("running mean", lines[0].steps[width - 1 :], mean))
        recent = known[(len(lines[0].losses) - width) * size :]
        latest, mean_of = (
            float((recent / len(recent)).sum()),
            f" (mean of the last {len(recent):,})",
        )
    words = f"step {count:,}"
    if len(known):
        ended = int(np.flatnonzero(given)[-1]) + 1 > steps[-1]  # the newest is not finite
        words += (
            f", last finite loss {known[-1]:.4g} at step {int(steps[-1]):,}"
            if ended
            else f", loss {latest:.4g}{mean_of}"
        )
    bad = int((given & ~there).sum())
    words += f", {bad:,} losses not finite" if bad else ""
    return Live(tuple(lines), 2, words, float(max(count, 1)), *_axis(tuple(lines)))


def _nothing_to_draw(words: str) -> Live:
    return Live((), 2, words, 1.0, *_axis(()))


def _in_blocks(steps: Floats, losses: Floats, size: int) -> tuple[Floats, Floats]:
    """The last step of each block of so many, and the mean of its losses.

    Each block is summed by itself: one loss of 1e35 leaves the others as they are.
    """
    if size == 1:
        return steps, losses
    first = np.arange(0, len(losses), size)
    counts = np.diff([*first, len(losses)])
    means: Floats = np.add.reduceat(losses / counts.repeat(counts), first).astype(np.float64)
    return steps[first + counts - 1], means


def labels(settings: pl.DataFrame, rows: NDArray[np.int64]) -> list[str]:
    """Names of runs: the optimizer, the rate, and what differs among the optimizer's runs."""
    names = [name for name in settings.columns if name not in _NOT_NAMED]
    varying = {
        part["optimizer"][0]: [n for n in names if n == "lr" or part[n].n_unique() > 1]
        for part in settings.partition_by("optimizer")
    }
    named = []
    for row in settings[rows].iter_rows(named=True):
        parts = [
            f"{name.replace('_', ' ')} {said(_plain(row[name]))}"
            for name in varying[row["optimizer"]]
            if row[name] is not None
        ]
        named.append(", ".join([row["optimizer"], *parts]))
    return named


def _plain(value: Any) -> Any:
    if value == np.inf:  # a clip norm that cuts nothing
        return "none"
    return tuple(value) if isinstance(value, list) else value


def _axis(lines: tuple[LiveLine, ...]) -> tuple[tuple[float, float], bool]:
    """The loss axis: what is wildly above the starts is left outside."""
    some = [line.losses for line in lines if len(line.losses)]
    if not some:
        return (0.1, 10.0), True
    values = np.concatenate(some)
    roof = BLOWN_UP * max(abs(losses[0]) for losses in some)
    log = bool((values >= 0).all() and (values > 0).any())
    return limits(values[np.abs(values) <= roof], log), log


def _predictor(plan: Plan, number: int) -> Predictor | None:
    """Where the problem has one feature and parameters are recorded."""
    if "parameters" not in plan.options.keep or not moves_as_fit(plan.problem):
        return None
    chunk, _ = plan.find(number)
    work = plan.work(chunk)
    run = int(np.flatnonzero(work.group.index == number)[0])
    try:
        predictor = Predictor(plan.problem, work.objective(run))
    except InputError:  # its model gives something else than y: then there is no fit to show
        return None
    return predictor if predictor.ground.kind == "curve" else None
