"""Optimizers against each other, as tables: profiles, shares of wins, best of a smaller budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import nan
from typing import Any

import numpy as np
import polars as pl

from downslope.comparing.frames import Outcome, frame_of
from downslope.comparing.stats import (
    Resolution,
    expected_best,
    mean_interval,
    median,
    performance_profile,
    share_interval,
)
from downslope.comparing.targets import steps_to


def profiles_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a share, optimizer and τ: the share of problems whose target it reaches, by its median
    over the seeds, within τ times the steps of the fastest."""
    rows = []
    labels = outcomes[0].labels
    for place, target in enumerate(outcomes[0].targets):
        costs = [
            [median(steps_to(seen, o.targets[place].loss)[0]) for seen in o.reported]
            for o in outcomes
        ]
        taus, shares = performance_profile(costs)
        for column, label in enumerate(labels):
            rows += [
                {"share": target.share, "optimizer": label, "tau": tau, "problems": part}
                for tau, part in zip(taus.tolist(), shares[:, column].tolist(), strict=True)
            ]
    return frame_of(rows)


def wins_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem and ordered pair, and one a pair over all problems (problem is null).

    A seed is won by the lower final loss; it is tied where the losses are within the resolution, or
    where both diverged. `share` is wins and half of the ties. Its bounds on one problem are those
    of Clopper and Pearson, from the wins alone to the wins and all ties; over problems, those of
    Hoeffding for the mean share, as if the problems were drawn from many.
    """
    rows = []
    for a, b in permutations(range(len(outcomes[0].labels)), 2):
        pair = {"optimizer": outcomes[0].labels[a], "against": outcomes[0].labels[b]}
        shares, totals = [], np.zeros(3, dtype=int)
        for outcome in outcomes:
            won, tied = wins(outcome.reported[a].score[0], outcome.reported[b].score[0],
                             outcome.resolution)  # fmt: skip
            n = len(outcome.reported[a].seeds)
            shares.append((won + tied / 2) / n)
            totals += [won, tied, n - won - tied]
            low, high = share_interval(won, n).low, share_interval(won + tied, n).high
            if not outcome.case.varies:
                low, high = nan, nan
            rows.append(
                {"problem": outcome.case.name, **pair, "n": n, "wins": won, "ties": tied,
                 "losses": n - won - tied, "share": shares[-1], "low": low, "high": high}
            )  # fmt: skip
        overall = mean_interval(shares)
        rows.append(
            {"problem": None, **pair, "n": int(totals.sum()), "wins": int(totals[0]),
             "ties": int(totals[1]), "losses": int(totals[2]),
             "share": float(np.mean(shares)), "low": overall.low, "high": overall.high}
        )  # fmt: skip
    return frame_of(rows, problem=pl.String)


def wins(ours: Any, theirs: Any, resolution: Resolution) -> tuple[int, int]:
    """How many seeds are won, and how many tied; infinite scores are those that diverged."""
    won, lost = resolution.below(ours, theirs), resolution.below(theirs, ours)
    return int(won.sum()), int((~won & ~lost).sum())


def expected_best_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem, optimizer and number of trials: what that budget would have found.

    The scores are the trials' medians on the tuning seeds, on which the choice is made: good for
    seeing what more trials bring, too good to be what fresh seeds will give.
    """
    rows = [
        {"problem": outcome.case.name, "optimizer": label, "trials": best.trials,
         "expected": best.expected, "lower_quartile": best.low, "median": best.middle,
         "upper_quartile": best.high, "all_diverged": best.all_diverged}
        for outcome in outcomes
        for label, seen in zip(outcome.labels, outcome.tuned, strict=True)
        for best in expected_best(seen.trial_scores)
    ]  # fmt: skip
    return frame_of(rows)
