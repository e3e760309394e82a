"""A plan carried out chunk by chunk; what is done is kept whatever happens."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from downslope.engines.processes import shared_out
from downslope.engines.work import Outcome, Tick
from downslope.plan import Chunk, Plan
from downslope.progress import Progress
from downslope.records import settings_table
from downslope.runs import Runs, assemble
from downslope.study import Study

if TYPE_CHECKING:
    from downslope.views.live import LiveView

WORTH_PROCESSES = 0.5
"""Seconds of work above which it is shared out over processes."""


class InterruptedWarning(UserWarning):
    """A descent was interrupted; the runs that were finished are returned."""


def carry_out(
    plan: Plan, study: Study | None, progress: bool, view: LiveView | None = None
) -> Runs:
    """All chunks that are not done yet; what is finished is kept whatever happens.

    Args:
        view: shows the records while they are made; all runs are carried out in this process then.
    """
    done = {} if study is None else study.finished()
    outcomes, written = dict(done), set(done)
    places = [place for place in range(len(plan.chunks)) if place not in done]
    chunks = [plan.chunks[place] for place in places]
    together = [place for place in places if plan.alone(plan.chunks[place])]
    one_by_one = [place for place in places if place not in set(together)]
    seconds = sum(plan.seconds(plan.chunks[place]) for place in together)
    worthwhile = seconds > WORTH_PROCESSES and view is None
    found = sum(len(plan.index(plan.chunks[place])) for place in done)
    onlooker = None if view is None else view.onlooker(plan, found, _longest(done.values()))
    interrupted = False

    def one(place: int, tick: Tick) -> Outcome:
        return plan.carry_out(plan.chunks[place], tick, onlooker)

    def keep(place: int, outcome: Outcome) -> None:
        outcomes[place] = outcome
        write(place)
        shown.finished(_updates(plan, plan.chunks[place]), outcome)
        if view is not None:
            view.catch_up(_longest([outcome]))

    def write(place: int) -> None:
        if study is not None:
            study.write(place, plan.chunks[place], outcomes[place])
        written.add(place)

    def let_go() -> None:  # a worker must not hold the lock of a process that was killed
        if study is not None:
            study.lock.release()

    total = sum(_updates(plan, chunk) for chunk in chunks)
    runs_left = sum(len(plan.index(chunk)) for chunk in chunks)
    epochs = None if plan.options.epochs is None else plan.options.epochs * runs_left
    with (
        Progress(total, plan.runs, shown=progress, epochs=epochs) as shown,
        nullcontext() if view is None else view,
    ):
        for outcome in done.values():
            shown.found(outcome)
        try:
            shared_out(one, one_by_one, shown.tick, keep, worthwhile=False)
            shared_out(one, together, shown.tick, keep, worthwhile=worthwhile, let_go=let_go)
        except KeyboardInterrupt:
            for place in outcomes.keys() - written:  # it came while these were being written
                write(place)
            if not outcomes:
                raise
            interrupted = True
    parts = [(plan.index(plan.chunks[place]), outcome) for place, outcome in outcomes.items()]
    missing = plan.runs - sum(len(index) for index, _ in parts)
    runs = replace(assemble(settings_table(plan), parts, plan), interrupted=missing)
    if study is not None:
        study.finish(runs)
    if view is not None:
        view.tell(stacklevel=3)
    if interrupted:
        warnings.warn(
            f"interrupted: {len(runs)} of {plan.runs} runs were finished"
            + ("" if study is None else f", and are kept in {study.folder}"),
            InterruptedWarning,
            stacklevel=3,
        )
    return runs


def _longest(outcomes: Iterable[Outcome]) -> int:
    """The steps of the longest run."""
    return max((int(outcome.steps_done.max(initial=0)) for outcome in outcomes), default=0)


def _updates(plan: Plan, chunk: Chunk) -> int:
    work = plan.work(chunk)
    return work.updates * len(work)
