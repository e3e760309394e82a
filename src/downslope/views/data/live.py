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
        done: how many runs were done before.
    """

    def __init__(self, plan: Plan, fits: bool = False, done: int = 0) -> None:
        self.runs, self.done = plan.runs, done
        wanted = np.unique(np.linspace(0, plan.runs - 1, MOST_LINES).round().astype(int))
        self.wanted = frozenset(int(number) for number in wanted)
        self.settings = settings_table(plan)
        self.labels = dict(zip(wanted.tolist(), labels(self.settings, wanted), strict=True))
        self.lines: dict[int, LiveLine] = {}
        self.scores: dict[int, tuple[float, dict[str, Any]]] = {}
        self.last, self.diverged = np.full(plan.runs, np.nan), np.zeros(plan.runs, dtype=bool)
        self.step = self.updates = 0
        self.sign = 1.0
        self.predictor = _predictor(plan, min(self.wanted)) if fits else None

    def take(self, glimpse: Glimpse) -> None:
        """Keep what it shows."""
        numbers = glimpse.numbers
        known = np.isfinite(glimpse.last)
        self.last[numbers[known]] = glimpse.last[known]
        self.diverged[numbers] = glimpse.diverged
        self.sign, self.updates = glimpse.sign, glimpse.updates
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

    def now(self) -> Live:
        """What a view shows of it."""
        lines = tuple(self.lines[number] for number in sorted(self.lines))
        until = max([self.updates, *(line.steps[-1] for line in lines if len(line.steps))])
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
        words = [f"step {self.step:,} of {self.updates:,}"]
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
    """What a view shows of a watched loop: each batch's loss, and their running mean."""
    values = np.array([np.nan if v is None else v for v in losses], dtype=np.float64)
    steps = np.arange(1, len(values) + 1, dtype=np.float64)
    there = np.isfinite(values)
    lines = [LiveLine("batch's loss", steps[there], values[there], thin=True)]
    width = max(1, int(there.sum()) // _WINDOWS)
    if width > 1:
        mean = np.convolve(values[there], np.ones(width) / width, mode="valid")
        lines.append(LiveLine("running mean", steps[there][width - 1 :], mean))
    words = f"step {len(values):,}"
    if there.any():
        words += f", loss {lines[-1].losses[-1]:.4g}"
    bad = int((~there & np.array([v is not None for v in losses], dtype=bool)).sum())
    words += f", {bad:,} losses not finite" if bad else ""
    return Live(tuple(lines), 2, words, float(max(len(values), 1)), *_axis(tuple(lines)))


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
