"""A line that says how far the descents are; silent where nobody looks on."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from downslope.engines.work import Outcome, Status

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_SHOWN_AFTER = 0.1
"""Seconds between redraws."""


class Progress:
    """Runs finished, epochs done over all runs, runs diverged so far, time left.

    Args:
        total: updates to do, over all runs.
        runs: how many runs there are.
        epochs: how many epochs `total` is; None where the length was given in steps.
        shown: False to be silent; it is silent too where stderr is no terminal.
    """

    def __init__(self, total: int, runs: int, shown: bool, epochs: int | None = None) -> None:
        self.total, self.runs, self.epochs = total, runs, epochs
        self.done = self.in_chunk = self.runs_done = self.diverged = self.diverged_in_chunk = 0
        self.bar: Bar | None = None
        self.task: TaskID | None = None
        self.last = 0.0
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.task = self.bar.add_task("", total=max(self.total, 1))
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def found(self, outcome: Outcome) -> None:
        """A chunk that was done before this process started."""
        self.runs_done += len(outcome.status)
        self.diverged += int((outcome.status == Status.diverged).sum())

    def tick(self, updates: int, diverged: int) -> None:
        """From an engine: updates done and runs diverged since the last call."""
        self.in_chunk += updates
        self.diverged_in_chunk += diverged
        if self.bar is not None and time.monotonic() - self.last > _SHOWN_AFTER:
            self._draw()

    def finished(self, updates: int, outcome: Outcome) -> None:
        """A chunk is done; runs that ended early have left out updates that now count as done."""
        self.done += updates
        self.in_chunk = self.diverged_in_chunk = 0
        self.found(outcome)
        if self.bar is not None:
            self._draw()

    def _draw(self) -> None:
        assert self.bar is not None and self.task is not None
        self.last = time.monotonic()
        diverged = self.diverged + self.diverged_in_chunk
        done = min(self.done + self.in_chunk, self.total)
        length = f"{done:,} of {self.total:,} steps"
        if self.epochs is not None:
            length = f"{done * self.epochs // max(self.total, 1):,} of {self.epochs:,} epochs"
        said = f"{self.runs_done:,} of {self.runs:,} runs, {length}, {diverged:,} diverged"
        self.bar.update(self.task, completed=done, description=said)
