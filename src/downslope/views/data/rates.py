"""What the picture of rates shows, as plain arrays: the final loss against the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.errors import InputError
from downslope.records import Numbers
from downslope.runs import Runs
from downslope.views.data.chosen import check_some
from downslope.views.data.losses import Floats, limits, loss_words, over_seeds
from downslope.views.data.roofs import not_blown_up
from downslope.views.data.settings import Setting, said, settings_of, thinned
from downslope.views.data.thresholds import Thresholds, thresholds

_REACH = 10.0
"""How far beyond the rates that were tried a threshold may lie and widen the axis."""


@dataclass(frozen=True, eq=False)
class RateLine:
    """Final losses of one optimizer (batch size, momentum …) at its rates.

    Attributes:
        rates: (rates,), ascending.
        middle, low, high: median, least and greatest final loss of the runs that did not
            diverge, (rates,); NaN where all did.
        runs, diverged: how many runs there are at each rate, and how many diverged, (rates,).
    """

    setting: Setting
    rates: Floats
    middle: Floats
    low: Floats
    high: Floats
    runs: NDArray[np.int64]
    diverged: NDArray[np.int64]

    @property
    def counted_label(self) -> str:
        """The label with the number of seeds."""
        least, most = self.runs.min(), self.runs.max()
        if most == 1:
            return self.setting.label
        return f"{self.setting.label} ({least if least == most else f'{least} to {most}'} seeds)"


@dataclass(frozen=True)
class Tuned:
    """What a search found, see `Tuning`: spans of rates from the lowest to the highest."""

    stable: tuple[float, float] | None
    flat: tuple[float, float] | None
    first_unstable: float | None


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Final loss against rate, with limits that no diverged run stretches.

    Attributes:
        best: rate and loss of the best run or the chosen rate, and what it is; None if all runs
            diverged.
        hopeless: spans of rates at which every run diverged, (spans, 2).
        theory: the rates that full batches can bear, of `lines`, where that is known.
        tuned: what a search found; None where there was none.
    """

    lines: tuple[RateLine, ...]
    others: tuple[RateLine, ...]
    best: tuple[float, float, str] | None
    hopeless: Floats
    theory: Thresholds
    tuned: Tuned | None
    x_label: str
    y_label: str
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    log_x: bool
    log_y: bool


def sensitivity(runs: Runs) -> Sensitivity:
    """The final loss (of the validation rows, if there are any) against the learning rate.

    Raises:
        InputError: if no run has a learning rate, or there is none.
    """
    check_some(runs)
    column = _rate_column(runs)
    rates = runs.settings[column].cast(float).to_numpy()
    has_rate = np.isfinite(rates)
    judged = "final_loss" if runs.validation_loss is None else "final_validation_loss"
    final = runs.table[judged].to_numpy().astype(np.float64)
    named = [_line(s, rates, final, runs) for s in settings_of(runs, (column,))]
    shown, others = thinned([line for line in named if len(line.rates)])
    best = None
    if np.isfinite(runs.score[has_rate]).any():
        place = int(np.nanargmin(np.where(has_rate, runs.score, np.nan)))
        best = (float(rates[place]), float(final[place]), f"best run: loss {final[place]:.4g}")
    words, signs, starts = loss_words(runs), runs.signs, runs.loss[:, 0]
    over = "" if runs.validation_loss is None else "validation "
    return framed(
        lines=shown,
        others=others,
        best=best,
        hopeless=hopeless(rates[has_rate], runs.diverged[has_rate]),
        theory=thresholds(runs, [line.setting for line in shown]),
        tuned=None,
        x_label="Learning rate" if column == "lr" else f"Learning rate of {column[3:-1]}",
        y_label=f"Final {over}{words}",
        rates=rates[has_rate],
        finals=final[has_rate],
        seen=not_blown_up(final[has_rate], starts, signs[has_rate], signs),
        starts=starts,
    )


def framed(
    *, rates: Floats, finals: Floats, seen: Floats, starts: Numbers, **parts: Any
) -> Sensitivity:
    """The picture's `parts` with its axes: `rates`, and the losses that are not blown up.

    Args:
        rates, finals: of all runs that are to be seen, in any order.
        seen: the finals that the axis has to hold.
        starts: losses at the start, which it holds where there are none.
    """
    log_x = bool((rates > 0).all())
    values = finals[np.isfinite(finals)]
    if not len(seen):
        seen = starts[np.isfinite(starts)].astype(np.float64)
    log_y = bool((values >= 0).all() and (seen >= 0).all() and (seen > 0).any())
    held = [one.rate for one in parts["theory"].found if _near(one.rate, rates)]
    return Sensitivity(
        **parts,
        x_limits=limits(np.concatenate([rates, held]), log_x),
        y_limits=limits(seen, log_y),
        log_x=log_x,
        log_y=log_y,
    )


def _near(rate: float, rates: Floats) -> bool:
    return bool(rates.min() / _REACH <= rate <= rates.max() * _REACH)


def _rate_column(runs: Runs) -> str:
    named = [n for n in runs.settings.columns if n == "lr" or n.startswith("lr[")]
    usable = [n for n in named if runs.settings[n].is_not_null().any()]
    if not usable:
        raise InputError("no run has a learning rate (lr) to draw the final loss against")
    return max(usable, key=lambda name: runs.settings[name].n_unique())


def _line(setting: Setting, rates: Floats, final: Floats, runs: Runs) -> RateLine:
    own = rates[setting.rows]
    values, counts, diverged, bands = np.unique(own[np.isfinite(own)]), [], [], []
    for rate in values:
        rows = setting.rows[own == rate]
        counts.append(len(rows))
        diverged.append(int(runs.diverged[rows].sum()))
        bands.append([float(v[0]) for v in over_seeds(final[rows][:, None])])
    band = np.asarray(bands, dtype=np.float64).reshape(-1, 3)
    best = runs.score[setting.rows]
    score = float(best[np.isfinite(best)].min()) if np.isfinite(best).any() else np.inf
    label = setting.label
    for rate in values[:1] if len(values) == 1 else []:
        label = f"{label}, lr {said(float(rate))}"
    return RateLine(
        replace(setting, score=score, label=label),
        values,
        middle=band[:, 0],
        low=band[:, 1],
        high=band[:, 2],
        runs=np.asarray(counts, dtype=np.int64),
        diverged=np.asarray(diverged, dtype=np.int64),
    )


def hopeless(rates: Floats, diverged: NDArray[np.bool_]) -> Floats:
    """Spans of neighbouring rates at which every run diverged, out to half way to the next."""
    log = bool((rates > 0).all())
    values = np.unique(rates)
    bad = np.array([diverged[rates == value].all() for value in values])
    scaled = np.log10(values) if log else values
    edges = np.concatenate([[-np.inf], (scaled[1:] + scaled[:-1]) / 2, [np.inf]])
    turns = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int)))
    spans = edges[turns].reshape(-1, 2)
    return np.asarray(10.0**spans if log else spans)
