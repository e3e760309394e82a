"""The numbers of a comparison as tables: a row a run, a trial, a problem and optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import polars as pl

from downslope.comparing.cases import Case
from downslope.comparing.runs import Seen
from downslope.comparing.stats import Resolution, median, median_interval, quartiles, verdict
from downslope.comparing.targets import Target, steps_to

SETTINGS = ("tuned", "default")

PRACTICAL = 1e-6
"""The least difference between final losses that is of weight, as a share of them or of the way."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that was seen of one problem.

    Attributes:
        labels: the optimizers, in the order in which they were given.
        tuned, reported: what was seen of each on the tuning seeds, and on the fresh ones (the
            chosen setting first, then the default where there is one).
        targets: its targets; `main` is the share of the one that the tables use.
        scheduled: the optimizers whose rate the schedule sets.
    """

    case: Case
    labels: tuple[str, ...]
    tuned: Sequence[Seen]
    reported: Sequence[Seen]
    targets: Sequence[Target]
    main: float
    scheduled: frozenset[str] = frozenset()

    @property
    def target(self) -> Target:
        """The main one."""
        return next(t for t in self.targets if t.share == self.main)

    def rate_is_scheduled(self, label: str) -> bool:
        """Whether the schedule set an optimizer's rate, whatever rate its trials had."""
        return label in self.scheduled

    def rate(self, label: str, setting: Mapping[str, Any]) -> float | None:
        """A setting's rate; None where there is none, or the schedule set it."""
        return None if self.rate_is_scheduled(label) else _rate(setting)

    @property
    def never_negative(self) -> bool:
        """Whether no loss that was seen lies below zero."""
        seen = [*self.tuned, *self.reported]
        return all(bool((s.curve[np.isfinite(s.curve)] >= 0).all()) for s in seen)

    @property
    def resolution(self) -> Resolution:
        """What two final losses must differ by to be called different.

        Where no loss was below zero, a millionth of the larger one, and the square of the rounding
        of the loss at the start: residuals smaller than that are zero within rounding. Otherwise
        a millionth of the way from the start to the lowest median, for zero means nothing there.
        Never less than ten times the rounding.
        """
        rounding = 10 * self.case.epsilon
        start = float(np.median([s.curve[0, :, 0] for s in self.reported]))
        size = abs(start) if isfinite(start) else 0.0
        if self.never_negative:
            return Resolution(self.case.epsilon**2 * size, max(PRACTICAL, rounding))
        best = min(median(s.score[0]) for s in self.reported)
        way = abs(start - best) if isfinite(best) and isfinite(start) else 0.0
        return Resolution(max(PRACTICAL * way, rounding * size), rounding)


def results_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a run on a fresh seed."""
    rows = []
    for outcome in outcomes:
        for label, seen in zip(outcome.labels, outcome.reported, strict=True):
            steps = steps_to(seen, outcome.target.loss)
            for k, setting in enumerate(seen.settings):
                for j, seed in enumerate(seen.seeds):
                    reached = _steps(steps[k, j])
                    bad = int(seen.first_bad_step[k, j])
                    rows.append(
                        {
                            "problem": outcome.case.name,
                            "optimizer": label,
                            "setting": SETTINGS[k],
                            "lr": outcome.rate(label, setting),
                            "hyperparameters": words_of(setting),
                            "seed": seed,
                            "engine": seen.engine,
                            "status": seen.status[k, j],
                            "first_bad_step": None if bad < 0 else bad,
                            "initial_loss": float(seen.curve[k, j, 0]),
                            "final_loss": _finite(seen.score[k, j]),
                            "steps_to_target": reached,
                            "gradient_evaluations": _evaluations(outcome.case, reached),
                        }
                    )
    return frame_of(rows, first_bad_step=pl.Int64, final_loss=pl.Float64, lr=pl.Float64,
                  steps_to_target=pl.Int64, gradient_evaluations=pl.Int64)  # fmt: skip


def table_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem and optimizer; infinite medians and bounds stand for diverged."""
    rows = []
    for outcome in outcomes:
        resolution = outcome.resolution
        all_bounds = [median_interval(seen.score[0]) for seen in outcome.reported]
        for label, seen, tuned, bounds in zip(
            outcome.labels, outcome.reported, outcome.tuned, all_bounds, strict=True
        ):
            steps = steps_to(seen, outcome.target.loss)[0]
            ahead = sum(verdict(other, bounds, resolution) == "lower" for other in all_bounds)
            low, high = quartiles(seen.score[0])
            bad = seen.first_bad_step[0][seen.first_bad_step[0] >= 0]
            reached = _steps(median(steps))
            default = seen.score[1] if len(seen.settings) > 1 else None
            own = None if default is None else median_interval(default)
            rows.append(
                {
                    "problem": outcome.case.name,
                    "optimizer": label,
                    "place": 1 + ahead if bounds.known else None,
                    "lr": outcome.rate(label, seen.settings[0]),
                    "hyperparameters": words_of(seen.settings[0]),
                    "chosen": _chosen(seen, tuned),
                    "n": len(seen.seeds),
                    "median": median(seen.score[0]),
                    "low": bounds.low,
                    "high": bounds.high,
                    "coverage": bounds.coverage,
                    "lower_quartile": low,
                    "upper_quartile": high,
                    "diverged": int(seen.failed[0].sum()),
                    "first_bad_step": int(bad.min()) if len(bad) else None,
                    "reached": int(np.isfinite(steps).sum()),
                    "steps_to_target": reached,
                    "gradient_evaluations": _evaluations(outcome.case, reached),
                    "default_median": None if default is None else median(default),
                    "default_low": None if own is None else own.low,
                    "default_high": None if own is None else own.high,
                    "default_diverged": None if default is None else int(seen.failed[1].sum()),
                    "resolution": resolution.absolute,
                    "relative_resolution": resolution.relative,
                }
            )
    whole = ("place", "first_bad_step", "steps_to_target", "gradient_evaluations",
             "default_diverged")  # fmt: skip
    real = ("lr", "default_median", "default_low", "default_high")
    types = {**dict.fromkeys(whole, pl.Int64), **dict.fromkeys(real, pl.Float64)}
    return frame_of(rows, chosen=pl.String, **types)


def targets_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem, share and optimizer: the target, and how it went on the fresh seeds."""
    rows = []
    for outcome in outcomes:
        for target in outcome.targets:
            for label, seen in zip(outcome.labels, outcome.reported, strict=True):
                steps = steps_to(seen, target.loss)[0]
                reached = _steps(median(steps))
                rows.append(
                    {
                        "problem": outcome.case.name,
                        "share": target.share,
                        "target": _finite(target.loss),
                        "baseline": target.baseline,
                        "start": _finite(target.start),
                        "end": _finite(target.end),
                        "optimizer": label,
                        "n": len(seen.seeds),
                        "reached": int(np.isfinite(steps).sum()),
                        "steps": reached,
                        "gradient_evaluations": _evaluations(outcome.case, reached),
                        "every": outcome.case.every,
                    }
                )
    return frame_of(rows, target=pl.Float64, start=pl.Float64, end=pl.Float64, steps=pl.Int64,
                  gradient_evaluations=pl.Int64)  # fmt: skip


def sensitivity_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a trial on the tuning seeds, by rising rate: the whole curve, failures included."""
    rows = []
    for outcome in outcomes:
        for label, seen in zip(outcome.labels, outcome.tuned, strict=True):
            by_rate = sorted(enumerate(seen.settings), key=lambda pair: _rate(pair[1]) or 0.0)
            for k, setting in by_rate:
                bad = seen.first_bad_step[k][seen.first_bad_step[k] >= 0]
                rows.append(
                    {
                        "problem": outcome.case.name,
                        "optimizer": label,
                        "trial": k,
                        "lr": outcome.rate(label, setting),
                        "hyperparameters": words_of(setting),
                        "n": len(seen.seeds),
                        "median": median(seen.score[k]),
                        "lowest": float(seen.score[k].min()),
                        "highest": float(seen.score[k].max()),
                        "diverged": int(seen.failed[k].sum()),
                        "first_bad_step": int(bad.min()) if len(bad) else None,
                        "chosen": k == seen.chosen,
                    }
                )
    return frame_of(rows, first_bad_step=pl.Int64, lr=pl.Float64)


def failures_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem, optimizer and kind of run ("trials", "tuned", "default") that had any."""
    rows = []
    for outcome in outcomes:
        for label, tuned, reported in zip(
            outcome.labels, outcome.tuned, outcome.reported, strict=True
        ):
            kinds = [("trials", tuned, slice(None))]
            kinds += [(SETTINGS[k], reported, slice(k, k + 1)) for k in range(len(reported.score))]
            for kind, seen, some in kinds:
                failed = seen.failed[some]
                if not failed.any():
                    continue
                bad = seen.first_bad_step[some][failed & (seen.first_bad_step[some] >= 0)]
                rates = [
                    rate
                    for setting, failures in zip(seen.settings[some], failed, strict=True)
                    if failures.any() and (rate := outcome.rate(label, setting)) is not None
                ]
                rows.append(
                    {
                        "problem": outcome.case.name,
                        "optimizer": label,
                        "kind": kind,
                        "runs": int(failed.size),
                        "diverged": int(failed.sum()),
                        "first_bad_step": int(bad.min()) if len(bad) else None,
                        "lowest_lr": min(rates, default=None),
                    }
                )
    return pl.DataFrame(rows, schema=_FAILURES)


_FAILURES = {
    "problem": pl.String,
    "optimizer": pl.String,
    "kind": pl.String,
    "runs": pl.Int64,
    "diverged": pl.Int64,
    "first_bad_step": pl.Int64,
    "lowest_lr": pl.Float64,
}


def _chosen(seen: Seen, tuned: Seen) -> str | None:
    """The hyperparameters that differ between trials, where there are more than the rate."""
    first = tuned.settings[0]
    searched = {n for one in tuned.settings for n, v in one.items() if v != first[n]}
    if not searched - {"lr"}:
        return None
    return words_of({n: v for n, v in seen.settings[0].items() if n in searched})


def words_of(setting: Mapping[str, Any]) -> str:
    """A setting as a person would write it: ``lr=0.01, momentum=0.9``."""
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in setting.items()
    )


def frame_of(rows: Sequence[Mapping[str, Any]], **types: Any) -> pl.DataFrame:
    """Rows as a table; types for columns that may hold nothing but nulls."""
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


def _rate(setting: Mapping[str, Any]) -> float | None:
    rate = setting.get("lr")
    return float(rate) if isinstance(rate, int | float) else None


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _steps(value: float) -> int | None:
    """A median of steps as a whole number, rounded up where it lies between two records."""
    return -int(-value // 1) if isfinite(value) else None


def _evaluations(case: Case, steps: int | None) -> int | None:
    return None if steps is None else case.evaluations(steps)
