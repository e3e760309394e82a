"""Targets fixed from a baseline before anything is reported, and when runs reach them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from downslope.comparing.cases import Case
from downslope.comparing.runs import Seen
from downslope.comparing.stats import Array, median


@dataclass(frozen=True)
class Target:
    """A loss to be reached on one problem.

    Attributes:
        share: the part of the baseline's way from its start to its end that leads there.
        loss: start − share × (start − end); NaN where no optimizer made any progress.
        baseline: the optimizer whose chosen setting's medians on the tuning seeds it comes from.
        start, end: those medians, before the first step and after the last.
    """

    problem: str
    share: float
    loss: float
    baseline: str
    start: float
    end: float


def targets_of(
    case: Case, labels: Sequence[str], tuned: Sequence[Seen], baseline: str, shares: Sequence[float]
) -> list[Target]:
    """The targets of a problem, one a share.

    Where the baseline's chosen setting made no progress, the next optimizer that did takes its
    place, in the order in which they were given.
    """
    order = [baseline, *(label for label in labels if label != baseline)]
    for label in order:
        seen = tuned[list(labels).index(label)]
        start = median(seen.curve[seen.chosen, :, 0])
        end = median(seen.score[seen.chosen])
        if isfinite(start) and end < start:
            return [
                Target(case.name, share, start - share * (start - end), label, start, end)
                for share in shares
            ]
    return [Target(case.name, share, np.nan, baseline, np.nan, np.nan) for share in shares]


def steps_to(seen: Seen, target: float) -> Array:
    """(settings, seeds): updates done at the first record at or below the target.

    Infinite where there is none, and for every run that failed, wherever it was before.
    """
    with np.errstate(invalid="ignore"):
        there = seen.curve <= target
    first = seen.steps[there.argmax(-1)].astype(float)
    return np.where(there.any(-1) & ~seen.failed, first, inf)
