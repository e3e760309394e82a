"""What was asked, and what was recorded: many runs, or one of them. Nothing here can be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.work import Outcome, Status
from downslope.errors import DownslopeError, InputError, nearest
from downslope.plan import Plan
from downslope.records import (
    NAMED,
    PER_RECORD,
    PER_RUN,
    Numbers,
    best_losses,
    equals,
    final_losses,
    status_names,
    together,
)
from downslope.run import Run

if TYPE_CHECKING:
    from downslope.explain.findings import Finding
    from downslope.views.animation import What
    from downslope.views.figures import Plots


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs and their records. The first axis of every array counts the runs.

    Attributes:
        settings: a row a run: run (its number), optimizer, hyperparameters, batch_size, …
        status, first_bad_step, steps_done: (runs,); first_bad_step is -1 where there is none.
        loss: (runs, records), over all training rows in evaluation mode, at the start and at
            every record; NaN after a run has diverged or ended.
        validation_loss: the same over the validation rows, or None.
        steps: (runs, records), the updates done at each record; -1 after the end.
        batch_loss, gradient_norm: (runs, updates) before each update if kept, else None.
        parameters: name to (runs, *shape): where each run ended.
        path: name to (runs, records, *shape) if parameters were kept, else None.
        interrupted: how many runs that were asked for are missing.
    """

    settings: pl.DataFrame
    status: NDArray[np.int8]
    first_bad_step: NDArray[np.int64]
    steps_done: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss: Numbers
    validation_loss: Numbers | None
    batch_loss: Numbers | None
    gradient_norm: Numbers | None
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor] = field(repr=False)
    path: Mapping[str, Tensor] | None = field(repr=False)
    plan: Plan | None = field(default=None, repr=False)
    interrupted: int = 0

    def __len__(self) -> int:
        return self.settings.height

    def __repr__(self) -> str:
        counts = [
            f"{(self.status == s).sum()} {s.name}" for s in Status if (self.status == s).any()
        ]
        missing = f"; {self.interrupted} not carried out" if self.interrupted else ""
        return f"Runs({len(self)}: {', '.join(counts) or 'none'}{missing})"

    def __iter__(self) -> Iterator[Run]:
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, place: int) -> Run: ...
    @overload
    def __getitem__(self, place: slice | list[int] | NDArray[Any]) -> Runs: ...
    def __getitem__(self, place: Any) -> Run | Runs:
        """One run by its place here, or some of them by a slice, list or mask."""
        if isinstance(place, int | np.integer):
            if not -len(self) <= place < len(self):
                raise IndexError(f"there are {len(self)} runs, got place {place}")
            return Run(self, int(place) % len(self))
        chosen = np.ascontiguousarray(np.arange(len(self))[place])
        return self._some(chosen)

    def _some(self, chosen: NDArray[np.int64]) -> Runs:
        tensors = torch.from_numpy(chosen)
        changes: dict[str, Any] = {"settings": self.settings[chosen]}
        for name in (*PER_RUN, *PER_RECORD):
            value = getattr(self, name)
            changes[name] = None if value is None else value[chosen]
        for name in NAMED:
            value = getattr(self, name)
            changes[name] = None if value is None else {n: t[tensors] for n, t in value.items()}
        return replace(self, **changes)

    def where(self, **settings: Any) -> Runs:
        """The runs with these values in the table: ``runs.where(lr=0.1, optimizer="SGD")``.

        Numbers are compared to 9 digits; a list means any of its values.

        Raises:
            InputError: for a column that the table does not have.
        """
        mask = np.ones(len(self), dtype=bool)
        for name, wanted in settings.items():
            if name not in self.table.columns:
                hint = nearest(name, self.table.columns)
                raise InputError(
                    f"the runs have no column {name!r}{hint}; "
                    f"they have {', '.join(self.table.columns)}"
                )
            values = list(wanted) if isinstance(wanted, list | range | np.ndarray) else [wanted]
            column = self.table[name]
            try:
                mask &= np.any([np.zeros_like(mask), *(equals(column, v) for v in values)], axis=0)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"column {name!r} holds {column.dtype}, which {wanted!r} cannot equal"
                ) from error
        return self[mask]

    @cached_property
    def table(self) -> pl.DataFrame:
        """A row a run: its settings, status, first_bad_step, steps and losses."""
        final = final_losses(self.loss, self.steps, self.status)
        columns: dict[str, Any] = {
            "status": status_names(self.status),
            "first_bad_step": pl.Series(self.first_bad_step).replace(-1, None),
            "steps": self.steps_done,
            "initial_loss": self.loss[:, 0],
            "final_loss": final,
            "best_loss": best_losses(self.loss, self.signs),
        }
        if self.validation_loss is not None:
            columns["final_validation_loss"] = final_losses(
                self.validation_loss, self.steps, self.status
            )
        return self.settings.with_columns(**{n: pl.Series(n, v) for n, v in columns.items()})

    @cached_property
    def signs(self) -> NDArray[np.float64]:
        """-1 for each run that maximises its loss, else 1, (runs,)."""
        if "maximize" not in self.settings.columns:
            return np.ones(len(self))
        return np.where(self.settings["maximize"].fill_null(False).to_numpy(), -1.0, 1.0)

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Which runs diverged, (runs,)."""
        return self.status == Status.diverged

    @property
    def score(self) -> Numbers:
        """What `best` looks at, smaller is better: the final validation loss if there is one,
        else the final training loss, its sign turned where it is maximised; NaN if diverged."""
        judged = "final_loss" if self.validation_loss is None else "final_validation_loss"
        return self.signs * self.table[judged].to_numpy()

    @cached_property
    def best(self) -> Run:
        """The run with the lowest finite final validation loss, or training loss.

        Raises:
            DownslopeError: if no run has a finite one.
        """
        score = self.score
        finite = np.isfinite(score)
        if not finite.any():
            raise DownslopeError(
                f"none of the {len(self)} runs has a finite final loss"
                + (f": {int(self.diverged.sum())} diverged; try lower rates" if len(self) else "")
            )
        return self[int(np.argmin(np.where(finite, score, np.inf)))]

    @property
    def plot(self) -> Plots:
        """Pictures: ``runs.plot.losses()``, ``.sensitivity()``, ``.map()``, ``.path()``,
        ``.fit()``, ``.parameters()``, ``.gradient_norm()``, ``.sharpness()``."""
        from downslope.views.figures import Plots

        return Plots(self)

    def animate(
        self, path: str | Path, what: What | None = None, run: int | Run | None = None,
        frames: int = 100, seconds: float = 8.0,
    ) -> Path:  # fmt: skip
        """Write a moving picture (``.gif`` or ``.mp4``) of a fit, a path or loss curves on their
        way; see `downslope.views.animation.animate`."""
        from downslope.views.animation import animate

        return animate(self, path, what, run, frames, seconds)

    def explain(self) -> list[Finding]:
        """What each run did and why, with evidence and advice; see `downslope.explain`.

        Each run is carried out once more to look at it closely, and its curvature is measured
        where it stood. Runs that were loaded without their problem are judged by their losses
        alone, and no cause is named.
        """
        from downslope.explain.explaining import explain_runs

        return explain_runs(self)

    def curvature(self, places: int = 5) -> pl.DataFrame:
        """How the loss is bent along the way: a row a run and place, from the start to the end.

        For runs whose parameters were kept. The last place is where a run ended; of one that
        diverged, before its first bad step. What is maximised is looked at upside down.

        Args:
            places: how many, evenly spread over the records.

        Returns:
            run, step, loss, gradient_norm, least_curvature and largest_curvature: the Hessian's
            extreme eigenvalues (with SGD's weight decay), beyond 32 parameters to about a
            thousandth of the larger; NaN where it is not finite.

        Raises:
            InputError: if the parameters were not kept, or the problem is not known.
        """
        from downslope.explain.along import curvature_along

        return curvature_along(self, places)

    def report(
        self, path: str | Path, *, title: str | None = None, study: str | Path | None = None
    ) -> Path:
        """Write one HTML page about these runs: result, ranked settings (sorted by a click),
        figures, findings, what was asked, how to make them again, versions.

        The file asks for nothing outside itself. It is written whole or not at all.

        Args:
            path: ``report.html``; it is given back as a `Path`.
            title: in place of its own.
            study: the folder that the runs were written to, to be named in it.

        Raises:
            InputError: if there are no runs, or the path cannot be a report's.
            StudyError: if it cannot be written.
        """
        from downslope.views.report import About, write_report

        named = None if study is None else str(study)
        return write_report(self, path, About(title=title, study=named))

    def save(self, folder: str | Path) -> None:
        """Write these runs as a study, which `load` and any Parquet reader can open."""
        from downslope.study import save

        save(self, folder)


def assemble(
    settings: pl.DataFrame, parts: list[tuple[NDArray[np.int64], Outcome]], plan: Plan | None
) -> Runs:
    """Runs out of the outcomes of chunks, in the order of their numbers.

    Args:
        settings: a row a run; those that are in no part are left out.
        parts: run numbers and what happened to them.
    """
    values = together(parts)
    if settings.height > len(values["status"]):
        numbers = np.concatenate([index for index, _ in parts])
        settings = settings.filter(settings["run"].is_in(numbers))
    return Runs(settings=settings, plan=plan, **values)
