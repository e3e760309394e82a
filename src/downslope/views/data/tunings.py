"""What the picture of a search for a rate shows, as plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from downslope.errors import InputError
from downslope.views.data.losses import loss_words
from downslope.views.data.rates import RateLine, Sensitivity, Tuned, framed, hopeless
from downslope.views.data.roofs import not_blown_up
from downslope.views.data.settings import Setting, said, settings_of
from downslope.views.data.thresholds import thresholds

if TYPE_CHECKING:
    from downslope.tuning import Tuning


def tuning_curve(tuning: Tuning) -> Sensitivity:
    """The final loss against the rates that were tried, with the chosen other settings.

    Raises:
        InputError: if the optimizer has no learning rate.
    """
    curve, runs = tuning.curve, tuning.runs
    rates = curve["lr"].cast(float).to_numpy()
    if not np.isfinite(rates).all():
        raise InputError(
            f"{tuning.optimizer.__name__} has no learning rate (lr) to draw the final loss against"
        )
    setting = _chosen(tuning)
    diverged, seeds = (curve[name].to_numpy().astype(np.int64) for name in ("diverged", "seeds"))
    middle, low, high = (curve[name].cast(float).to_numpy() for name in ("median", "low", "high"))
    best = None
    if tuning.lr is not None and tuning.score is not None:
        best = (tuning.lr, tuning.score, f"chosen rate: {said(tuning.lr)}")
    every = np.repeat(rates, seeds)
    bad = np.concatenate([np.arange(n) < d for n, d in zip(seeds, diverged, strict=True)])
    finals, signs = np.concatenate([middle, low, high]), runs.signs
    over = "" if runs.validation_loss is None else "validation "
    return framed(
        lines=(RateLine(setting, rates, middle, low, high, seeds, diverged),),
        others=(),
        best=best,
        hopeless=hopeless(every, bad),
        theory=thresholds(runs, [setting]),
        tuned=Tuned(tuning.stable, tuning.flatness, tuning.first_unstable),
        x_label="Learning rate",
        y_label=f"Final {over}{loss_words(runs)}",
        rates=rates,
        finals=finals,
        seen=not_blown_up(finals, runs.loss[:, 0], signs[0], signs),
        starts=runs.loss[:, 0],
    )


def _chosen(tuning: Tuning) -> Setting:
    """The runs with the chosen other settings, whatever their rate and seed; the first settings
    that were tried if nothing was chosen."""
    found = settings_of(tuning.runs, ("lr", "start"))
    if tuning.score is None:
        return found[0]
    place = tuning.best.number
    numbers = tuning.runs.settings["run"].to_numpy()
    return next(setting for setting in found if place in numbers[setting.rows])
