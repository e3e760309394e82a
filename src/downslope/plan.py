"""What a call of `descend` amounts to: groups of runs, an engine for each, and chunks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.engines import looped, stacked
from downslope.engines.fused import run as fused
from downslope.engines.fused import serve
from downslope.engines.fused.prepare import program_of
from downslope.engines.processes import CAN_FORK, threads
from downslope.engines.program import NotStackableError
from downslope.engines.work import Onlooker, Options, Outcome, Start, Tick, Work
from downslope.errors import DownslopeError, EngineError, ProblemError, nearest
from downslope.groups import Group
from downslope.problem import Problem

ENGINES = ("auto", "looped", "stacked", "fused")

FUSED = {"fused": "runs", "fused-samples": "samples"}
"""The fused engine by what lies across its vectors; a run's last bit depends on that."""

FEW_RUNS = 4
"""Below this many runs side by side, `auto` takes `looped`: stacking would not pay."""

FEW_UPDATES = 20_000
"""Below this many updates of all runs together, `auto` compiles nothing: it would not pay."""

_RUN: dict[str, Callable[[Work, Tick], Outcome]] = {
    "looped": looped.run,
    "stacked": stacked.run,
    **{name: partial(fused.run, across=across) for name, across in FUSED.items()},
}


@dataclass(frozen=True)
class Chunk:
    """Runs carried out together: part `rows` of group number `group`, by `engine`."""

    group: int
    rows: slice
    engine: str


@dataclass(frozen=True)
class TunedRate:
    """What ``lr="auto"`` stands for in some runs.

    Attributes:
        of: which runs: the optimizer and its other settings, in words.
        lr: the rate that was found.
        said: what must be known of it, in sentences.
    """

    of: str
    lr: float
    said: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """It in words, a line each."""
        return [f"lr='auto' is {self.lr:.4g} for {self.of}", *self.said]


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that decides what the runs will be, fixed before the first of them.

    The chunks depend on what was asked alone, so that a study that is resumed, and a run that is
    replayed, meet the very same ones.

    Attributes:
        reasons: for each group, why its engine was taken.
        tuned: the rates that ``lr="auto"`` stands for.
        unknown: what a study on disk cannot hold, so that its runs cannot be computed again.
    """

    problem: Problem
    options: Options
    starts: tuple[Start | None, ...]
    groups: tuple[Group, ...]
    chunks: tuple[Chunk, ...]
    reasons: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    tuned: tuple[TunedRate, ...] = ()
    traced: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return sum(map(len, self.groups))

    def work(self, chunk: Chunk) -> Work:
        """A chunk as an engine takes it."""
        return self._whole(chunk).part(chunk.rows)

    def _whole(self, chunk: Chunk) -> Work:
        """All runs of a chunk's group."""
        group, number = self.groups[chunk.group], chunk.group
        return Work(self.problem, group, self.options, self.starts, self.traced, number=number)

    def carry_out(
        self,
        chunk: Chunk,
        tick: Tick = lambda updates, diverged: None,
        onlooker: Onlooker | None = None,
    ) -> Outcome:
        """The outcome of a chunk's runs, in the order of their group."""
        engine = _RUN[chunk.engine]
        try:
            with threads(1 if self.alone(chunk) else None):
                if chunk.engine in FUSED:  # made for all of the group, whichever run comes first
                    program_of(self._whole(chunk), FUSED[chunk.engine])
                return engine(replace(self.work(chunk), onlooker=onlooker), tick)
        except DownslopeError:
            raise
        except NotStackableError as error:
            raise ProblemError(f"a run fails: {error}") from error
        except Exception as error:  # whatever the user's model, loss or optimizer raises
            said = " ".join(str(error).split())
            raise ProblemError(f"a run fails with {type(error).__name__}: {said}") from error

    def find(self, number: int) -> tuple[Chunk, int]:
        """The chunk of a run, and the run's place in its group.

        Raises:
            DownslopeError: if it is not in the plan.
        """
        for chunk in self.chunks:
            found = np.flatnonzero(self.index(chunk) == number)
            if len(found):
                return chunk, chunk.rows.start + int(found[0])
        raise DownslopeError(f"run {number} is not in the plan of these runs")

    def again(self, number: int) -> tuple[NDArray[np.int64], Outcome]:
        """Run numbers and outcome of whatever must be computed for one run to come out the same to
        the bit: its whole chunk, except where a run's bits do not depend on those beside it."""
        chunk, place = self.find(number)
        if chunk.engine in FUSED:
            chunk = Chunk(chunk.group, slice(place, place + 1), chunk.engine)
        return self.index(chunk), self.carry_out(chunk)

    def alone(self, chunk: Chunk) -> bool:
        """Whether a chunk is carried out by one thread, so that others can be beside it.

        The answer must not depend on what else there is to do: a run's last bit may depend on
        the number of threads.
        """
        if self.problem.device.type != "cpu" or chunk.engine in FUSED:
            return False
        if chunk.engine == "looped":
            return looped.small(self.work(chunk))
        return CAN_FORK

    def seconds(self, chunk: Chunk) -> float:
        """A rough guess of how long a chunk takes."""
        work = self.work(chunk)
        return work.updates * (3e-4 if chunk.engine == "stacked" else 1e-4 * len(work))

    def index(self, chunk: Chunk) -> NDArray[np.int64]:
        """The run numbers of a chunk."""
        return self.groups[chunk.group].index[chunk.rows]


def make_plan(
    problem: Problem,
    options: Options,
    starts: Sequence[Start | None],
    groups: Sequence[Group],
    engine: str,
) -> Plan:
    """Choose engines and cut the groups into chunks.

    `auto` takes `fused` where it can serve and there is enough to do (many updates, or least
    squares with many rows); else `stacked` where that can serve and at least `FEW_RUNS` runs fit
    side by side; else `looped`.

    Raises:
        EngineError: if the engine asked for cannot serve, with the reason.
    """
    if engine not in ENGINES:
        hint = nearest(str(engine), ENGINES)
        raise EngineError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}{hint}")
    chunks: list[Chunk] = []
    reasons = []
    traced: dict[Any, Any] = {}
    for number, group in enumerate(groups):
        work = Work(problem, group, options, tuple(starts), traced, number=number)
        chosen, size, reason = _choose(work, engine)
        reasons.append(reason)
        parts = -(-len(group) // size)
        even = -(-len(group) // parts)  # equal chunks share their traced programs
        for first in range(0, len(group), even):
            chunks.append(Chunk(number, slice(first, min(first + even, len(group))), chosen))
    return Plan(
        problem,
        options,
        tuple(starts),
        tuple(groups),
        tuple(chunks),
        reasons=tuple(reasons),
        traced=traced,
    )


_FASTER = "it serves, and is faster"


def _choose(work: Work, engine: str) -> tuple[str, int, str]:
    if engine == "looped":
        return "looped", looped.CHUNK, "asked for"
    unfit = None
    many = len(work) * work.updates >= FEW_UPDATES
    if engine == "fused" or (engine == "auto" and (many or serve.is_tall(work))):
        across = serve.layout_for(work)
        unfit = serve.why_not(work, across)
        if unfit is None:
            name = next(n for n, a in FUSED.items() if a == across)
            reason = "asked for" if engine == "fused" else _FASTER
            return name, serve.chunk_size(work), reason + serve.note(work)
        if engine == "fused":
            raise EngineError(f"engine 'fused' cannot serve: {unfit}")
    if engine == "auto" and len(work) < FEW_RUNS:
        few = f"fewer than {FEW_RUNS} runs share their settings' kind"
        return "looped", looped.CHUNK, unfit or few
    unstackable = stacked.why_not(work)
    if unstackable is not None:
        if engine == "stacked":
            raise EngineError(f"engine 'stacked' cannot serve: {unstackable}")
        return "looped", looped.CHUNK, unstackable
    size = stacked.chunk_size(work)
    if engine == "auto" and size < FEW_RUNS:
        return "looped", looped.CHUNK, "the model is too large for stacking runs to pay"
    return "stacked", size, "asked for" if engine == "stacked" else unfit or _FASTER
