"""What a comparison runs: trials on the tuning seeds, then the chosen and the default on others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.comparing.cases import Case
from downslope.comparing.stats import Array, median
from downslope.descent import descend
from downslope.execution import InterruptedWarning
from downslope.grid import Grid
from downslope.plan import FUSED
from downslope.runs import Runs
from downslope.search_spaces import Space

ENOUGH = 5
"""From so many runs on, `fused` lays runs across its vectors, as it does for the trials."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What holds for every problem and optimizer of a comparison.

    Attributes:
        options: what `descend` is told besides (schedule, clip_norm, divergence).
    """

    spaces: tuple[Space, ...]
    budget: int
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    search_seed: int
    engine: str
    progress: bool
    options: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Seen:
    """Settings of one optimizer on one problem, each carried out from several seeds.

    Attributes:
        settings: a dict a setting.
        seeds: (seeds,).
        score: (settings, seeds) final loss; infinite where there is no finite one.
        first_bad_step: (settings, seeds), -1 where there is none.
        status: (settings, seeds) words.
        steps: (records,) updates done at each record.
        curve: (settings, seeds, records) losses, NaN after a run has diverged.
        engine: what carried it out.
    """

    settings: Sequence[Mapping[str, Any]]
    seeds: tuple[int, ...]
    score: Array
    first_bad_step: NDArray[np.int64]
    status: NDArray[np.object_]
    steps: NDArray[np.int64]
    curve: Array = field(repr=False)
    engine: str

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs have no finite loss at their end, (settings, seeds)."""
        return ~np.isfinite(self.score)

    @property
    def all_alike(self) -> bool:
        """Whether every setting's runs are the same from all of several seeds, to the last bit."""
        same_curves = np.array_equal(
            self.curve, np.broadcast_to(self.curve[:, :1], self.curve.shape), equal_nan=True
        )
        same_ends = (self.first_bad_step == self.first_bad_step[:, :1]).all()
        return bool(len(self.seeds) > 1 and same_curves and same_ends and not self.failed.all())

    def first_seed(self) -> Seen:
        """The same of the first seed alone."""
        return replace(
            self,
            seeds=self.seeds[:1],
            score=self.score[:, :1],
            first_bad_step=self.first_bad_step[:, :1],
            status=self.status[:, :1],
            curve=self.curve[:, :1],
        )

    @property
    def trial_scores(self) -> Array:
        """(settings,) median over the seeds; infinite for a setting that failed on any of them."""
        medians = np.array([median(row) for row in self.score])
        return np.where(self.failed.any(1), inf, medians)

    @property
    def chosen(self) -> int:
        """The setting of the lowest median; those that failed on a seed come last, in the order of
        how many seeds they failed on. Among equals the first that was drawn."""
        medians = [median(row) for row in self.score]
        failed = self.failed.sum(1).tolist()
        return min(range(len(medians)), key=lambda k: (failed[k], medians[k], k))


def tune(case: Case, asked: Asked) -> list[Seen]:
    """All trials of all optimizers on the tuning seeds: one descent for the problem."""
    rows = [space.trials(asked.budget, asked.search_seed) for space in asked.spaces]
    seeds = asked.tuning_seeds if case.varies else asked.tuning_seeds[:1]
    return _carry_out(case, asked, asked.spaces, rows, seeds, asked.engine)


def report(case: Case, asked: Asked, tuned: Sequence[Seen]) -> list[Seen]:
    """The chosen setting of each optimizer, and its default where it has one, on fresh seeds."""
    rows = []
    for space, seen in zip(asked.spaces, tuned, strict=True):
        default = space.default()
        rows.append([seen.settings[seen.chosen], *([] if default is None else [default])])
    seeds = asked.seeds if case.varies else asked.seeds[:1]
    again = [  # a program compiled for the trials serves these few runs, too
        all(name in FUSED for name in seen.engine.split(", ")) and len(mine) * len(seeds) >= ENOUGH
        for seen, mine in zip(tuned, rows, strict=True)
    ]
    found: dict[int, Seen] = {}
    for engine, compiled in ((asked.engine, False), ("fused", True)):
        places = [place for place, is_so in enumerate(again) if is_so == compiled]
        if places:
            spaces = [asked.spaces[place] for place in places]
            some = _carry_out(case, asked, spaces, [rows[p] for p in places], seeds, engine)
            found |= dict(zip(places, some, strict=True))
    return [found[place] for place in range(len(rows))]


def _carry_out(
    case: Case,
    asked: Asked,
    spaces: Sequence[Space],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    seeds: tuple[int, ...],
    engine: str,
) -> list[Seen]:
    grids = [Grid.of(s.optimizer, list(mine)) for s, mine in zip(spaces, rows, strict=True)]
    loader = case.problem.loader is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterruptedWarning)
        runs = descend(
            case.problem,
            grids,
            epochs=case.length.get("epochs"),
            steps=case.length.get("steps"),
            batch_size=None if loader else case.batch_size,
            order=None if loader else case.order,
            seed=list(seeds),
            every=case.every,
            engine=engine,
            progress=asked.progress,
            **asked.options,
        )
    if runs.interrupted:
        raise KeyboardInterrupt
    ends = np.cumsum([len(mine) * len(seeds) for mine in rows]).tolist()
    return [
        _seen(runs[end - len(mine) * len(seeds) : end], mine, seeds, case.record_at)
        for mine, end in zip(rows, ends, strict=True)
    ]


def _seen(
    runs: Runs,
    settings: Sequence[Mapping[str, Any]],
    seeds: tuple[int, ...],
    record_at: NDArray[np.int64],
) -> Seen:
    shape = (len(settings), len(seeds))
    curve = runs.loss if runs.validation_loss is None else runs.validation_loss
    score = np.asarray(runs.score, float)
    return Seen(
        settings=settings,
        seeds=seeds,
        score=np.where(np.isfinite(score), score, inf).reshape(shape),
        first_bad_step=runs.first_bad_step.reshape(shape).copy(),
        status=np.array(runs.table["status"].to_list(), dtype=object).reshape(shape),
        steps=record_at,
        curve=np.asarray(curve, float).reshape(*shape, -1).copy(),
        engine=", ".join(runs.table["engine"].unique(maintain_order=True)),
    )
