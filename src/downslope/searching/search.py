"""What a search has tried so far: settings, their runs, and the curves that follow from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import optim

from downslope.descent import descend
from downslope.engines.work import Outcome
from downslope.execution import InterruptedWarning
from downslope.grid import Grid
from downslope.groups import Group
from downslope.plan import Chunk
from downslope.problem import Problem
from downslope.problem_rows import order_is_drawn
from downslope.ranges import Range
from downslope.records import settings_table
from downslope.runs import Runs, assemble
from downslope.searching.curve import Array, Choice, Curve, choose, over_seeds

WIDE = Range(1e-6, 1e2)
"""The rates that are searched where none are given."""

LAST_RECORD = 2**40
"""For ``every=``: no record but those at the start and the end."""

Row = tuple[int, float | None]
"""Which of the other settings, and a rate."""


@dataclass(frozen=True)
class Effort:
    """How much is tried, by what a run costs.

    Attributes:
        per_decade: rates of the first look; first: its seeds.
        fine: rates of the second look; seeds: the seeds of that; zooms: how often it may go
            closer still.
        edge: rates between the last that is stable and the first that is not.
        others: how many of the other settings get a second look.
    """

    per_decade: int
    first: int
    fine: int
    seeds: int
    zooms: int
    edge: int
    others: int


EFFORTS = {
    "fused": Effort(per_decade=4, first=3, fine=32, seeds=24, zooms=3, edge=7, others=4),
    "stacked": Effort(per_decade=1, first=1, fine=16, seeds=6, zooms=1, edge=4, others=2),
    "looped": Effort(per_decade=1, first=1, fine=9, seeds=3, zooms=0, edge=0, others=1),
}


@dataclass(frozen=True, eq=False)
class Asked:
    """What is searched, and how each run is carried out.

    Attributes:
        rates: a Range, or the values themselves; None: the optimizer has no rate.
        free: whether the search may go beyond the range.
        axes: the other hyperparameters that are searched: a Range or a list.
        fixed: the other settings; options: whatever else `descend` takes.
        seeds: those given, or None.
    """

    problem: Problem
    optimizer: type[optim.Optimizer]
    rates: Range | tuple[float, ...] | None
    free: bool
    axes: Mapping[str, Range | Sequence[Any]]
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    seeds: tuple[int, ...] | None
    engine: str
    progress: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """One call of `descend`: rows of settings, and their runs, the seeds of a row together."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    runs: Runs


@dataclass(frozen=True, eq=False)
class Search:
    """What has been tried so far.

    Attributes:
        others: the settings besides the rate that were tried, one dict each.
        engine: which engine carries them out; reason: why that one, or why none is faster.
        extended: beyond which end of the range the search went: "lower", "upper" or both.
    """

    asked: Asked
    others: tuple[Mapping[str, Any], ...]
    stages: tuple[Stage, ...]
    effort: Effort
    engine: str
    reason: str
    extended: tuple[str, ...] = ()

    @property
    def resolution(self) -> float:
        """The spacing of the losses' numbers at 1."""
        return float(np.finfo(self.stages[0].runs.loss.dtype).eps)

    @property
    def sign(self) -> float:
        """-1 where the loss is maximised."""
        return sign_of(self.stages[0].runs)

    def seeds(self, count: int) -> tuple[int, ...]:
        """The first few seeds, of those given if any were."""
        given = self.asked.seeds
        return tuple(range(count)) if given is None else given[:count]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the second look: no more than of the first where they draw nothing."""
        if self.asked.seeds is not None:
            return self.asked.seeds
        return self.seeds(self.effort.seeds if self.drawn else self.effort.first)

    @property
    def more_seeds(self) -> tuple[int, ...]:
        """Those of all seeds that the first look had not."""
        return tuple(seed for seed in self.all_seeds if seed not in self.stages[0].seeds)

    @property
    def whole(self) -> int:
        """How many runs a rate has that was tried with all seeds: the seeds, for each start."""
        first = self.stages[0]
        return len(first.runs) // (len(first.rows) * len(first.seeds)) * len(self.all_seeds)

    @property
    def drawn(self) -> bool:
        """Whether a seed draws anything: the start, the order of samples, or random layers."""
        asked, problem = self.asked, self.asked.problem
        if problem.draws_start or problem.random:
            return True
        given = {"batch_size": None, "order": None, **asked.fixed}
        for other in self.others:
            size, order = ({**given, **other}[name] for name in ("batch_size", "order"))
            if order_is_drawn(problem, problem.batch_size if size is None else size, order):
                return True
        return False

    def curve(self, other: int) -> Curve:
        """All ends with these other settings, by rate."""
        ends: dict[float, dict[tuple[int, int], tuple[float, float]]] = {}
        for stage in self.stages:
            shape = (len(stage.rows), -1, len(stage.seeds))
            score = stage.runs.score.reshape(shape).astype(np.float64)
            begun = starts_of(stage.runs).reshape(shape)
            for at, (which, rate) in enumerate(stage.rows):
                if which != other:
                    continue
                of_rate = ends.setdefault(1.0 if rate is None else rate, {})
                for start, place in np.ndindex(*score.shape[1:]):
                    key = (start, stage.seeds[place])
                    of_rate[key] = (score[at, start, place], begun[at, start, place])
        rates = sorted(ends)
        keys = sorted({key for by in ends.values() for key in by})
        missing = (np.nan, np.nan)
        table = np.array([[ends[rate].get(key, missing) for key in keys] for rate in rates])
        tried = np.array([[key in ends[rate] for key in keys] for rate in rates])
        scores = np.where(np.isfinite(table[..., 0]), table[..., 0], np.nan)
        start = over_seeds(table[..., 1].T, np.nanmedian)
        return Curve(np.array(rates), scores, tried & np.isnan(scores), start)

    def choice(self, other: int) -> Choice:
        """The rate to take with these other settings."""
        usual = (WIDE.low * (1 - 1e-9), WIDE.high * (1 + 1e-9))
        return choose(
            self.curve(other), self.resolution, self.drawn,
            usual if self.asked.free else (0.0, float("inf")),
        )  # fmt: skip

    def score(self, other: int) -> float:
        """The median score at the rate to take; inf if none is stable."""
        curve, choice = self.curve(other), self.choice(other)
        return float("inf") if choice.place is None else float(curve.medians[choice.place])

    @property
    def ranked(self) -> list[int]:
        """The other settings, the best first; those tried with few seeds after the others, since
        the luckiest of many that were hardly tried is not the best."""
        tried = [self.curve(other).seeds.max() for other in range(len(self.others))]
        few = [seeds < max(tried) / 2 for seeds in tried]
        return sorted(range(len(self.others)), key=lambda other: (few[other], self.score(other)))

    def tried(self, rows: Sequence[Row], seeds: Sequence[int]) -> Search:
        """This, and the rows carried out with these seeds."""
        if not rows:
            return self
        runs = carried_out(self.asked, self.others, rows, seeds, self.engine)
        stage = Stage(tuple(rows), tuple(seeds), runs)
        return replace(self, stages=(*self.stages, stage))


def carried_out(
    asked: Asked,
    others: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    seeds: Sequence[int],
    engine: str,
) -> Runs:
    """The runs of some rows, each with all seeds.

    Raises:
        KeyboardInterrupt: if it was interrupted: half a search chooses nothing.
    """
    settings = [{**others[which], **({} if rate is None else {"lr": rate})} for which, rate in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterruptedWarning)
        runs = descend(
            asked.problem,
            Grid.of(asked.optimizer, settings),
            seed=list(seeds),
            engine=engine,
            progress=asked.progress,
            **asked.fixed,
            **asked.options,
        )
    if runs.interrupted:
        raise KeyboardInterrupt
    return runs


def merged(stages: Sequence[Stage]) -> Runs:
    """The runs of all stages as one `Runs`, numbered on, with one plan."""
    parts: list[tuple[NDArray[np.int64], Outcome]] = []
    groups: list[Group] = []
    chunks: list[Chunk] = []
    reasons: list[str] = []
    first = 0
    for runs in (stage.runs for stage in stages):
        plan = runs.plan
        assert plan is not None
        chunks += [replace(chunk, group=chunk.group + len(groups)) for chunk in plan.chunks]
        groups += [replace(group, index=group.index + first) for group in plan.groups]
        reasons += plan.reasons
        outcome = {name: getattr(runs, name) for name in Outcome.__dataclass_fields__}
        parts.append((np.arange(first, first + len(runs)), Outcome(**outcome)))
        first += len(runs)
    plan = stages[0].runs.plan
    assert plan is not None
    whole = replace(
        plan, groups=tuple(groups), chunks=tuple(chunks), reasons=tuple(reasons), traced={}
    )
    return assemble(settings_table(whole), parts, whole)


def sign_of(runs: Runs) -> float:
    """-1 where the loss is maximised."""
    if "maximize" not in runs.settings.columns:
        return 1.0
    return -1.0 if bool(runs.settings["maximize"].fill_null(False).any()) else 1.0


def starts_of(runs: Runs) -> Array:
    """The score of each run's start, (runs,)."""
    losses = runs.loss if runs.validation_loss is None else runs.validation_loss
    made: Array = sign_of(runs) * losses[:, 0].astype(np.float64)
    return made
