"""One run of many: its records, its model, and the very same once more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.engines.work import Status
from downslope.errors import DownslopeError, listed
from downslope.objective import MODEL_PREFIX
from downslope.plan import Plan
from downslope.predictions import predictions
from downslope.records import (
    Numbers,
    settings_table,
)

if TYPE_CHECKING:
    from downslope.explain.findings import Finding
    from downslope.runs import Runs


@dataclass(frozen=True, eq=False)
class Run:
    """One run of some `Runs`."""

    runs: Runs = field(repr=False)
    place: int

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{name}={value!r}' for name, value in self.row.items())})"

    @property
    def row(self) -> dict[str, Any]:
        """Its row of the table."""
        return self.runs.table.row(self.place, named=True)

    @property
    def number(self) -> int:
        """Its number among the runs that were asked for together."""
        return int(self.runs.settings["run"][self.place])

    @property
    def status(self) -> str:
        """What happened to it: finished, converged, diverged or stopped."""
        return Status(self.runs.status[self.place]).name

    @property
    def loss(self) -> Numbers:
        """Its losses at the records, (records,)."""
        return self.runs.loss[self.place]

    @property
    def validation_loss(self) -> Numbers | None:
        """The same over the validation rows."""
        losses = self.runs.validation_loss
        return None if losses is None else losses[self.place]

    @property
    def steps(self) -> NDArray[np.int64]:
        """The updates done at each record, (records,)."""
        return self.runs.steps[self.place]

    @property
    def batch_loss(self) -> Numbers | None:
        """Its batches' losses before each update, if kept."""
        losses = self.runs.batch_loss
        return None if losses is None else losses[self.place]

    @property
    def gradient_norm(self) -> Numbers | None:
        """Its gradients' norms before each update (and before clipping), if kept."""
        norms = self.runs.gradient_norm
        return None if norms is None else norms[self.place]

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Where it ended: name to tensor."""
        return {name: values[self.place] for name, values in self.runs.parameters.items()}

    @property
    def path(self) -> dict[str, Tensor] | None:
        """Where it was at each record, (records, *shape) by name, if kept."""
        path = self.runs.path
        return None if path is None else {n: values[self.place] for n, values in path.items()}

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers at its end: a start for another descent."""
        buffers = {name: values[self.place] for name, values in self.runs.buffers.items()}
        return {**self.parameters, **buffers}

    @property
    def model(self) -> nn.Module:
        """A module of its own at the end of this run, in evaluation mode.

        Raises:
            DownslopeError: if the runs were loaded without their problem.
        """
        problem = self._plan("its model").problem
        objective = problem.fresh(int(self.runs.settings["seed"][self.place]))
        named = {**dict(objective.named_parameters()), **dict(objective.named_buffers())}
        with torch.no_grad():
            for name, value in self.state.items():
                named[MODEL_PREFIX + name].copy_(value)
        return objective.model.eval()

    def predict(self, X: Any) -> Any:
        """Predictions of its model.

        Args:
            X: for a problem from a table, rows as a file or dataframe with the same columns;
                otherwise a tensor, array or dataframe like the X it was trained on.

        Returns:
            For a table, the target in its own units or its class names, an array; otherwise a
            tensor for a tensor, an array for anything else.
        """
        return predictions(self._plan("predictions").problem, self.model, X)

    def explain(self) -> Finding:
        """What it did and why, with evidence and advice; see `Runs.explain`."""
        from downslope.explain.explaining import explain_run

        return explain_run(self)

    def replay(self) -> Run:
        """Compute this very run again, to the bit.

        Where the last bit of a product of matrices may depend on how many runs stand side by side
        (looped and stacked), the runs that shared its chunk are computed with it.
        """
        plan = self._plan("a replay")
        if plan.unknown:
            raise DownslopeError(
                f"run {self.number} cannot be computed again from the study alone, which does not "
                f"hold {listed(plan.unknown)}"
            )
        part = plan.again(self.number)
        from downslope.runs import assemble

        return assemble(settings_table(plan), [part], plan).where(run=self.number)[0]

    def _plan(self, what: str) -> Plan:
        if self.runs.plan is None:
            raise DownslopeError(no_problem(self.runs, what))
        return self.runs.plan


def no_problem(runs: Runs, what: str) -> str:
    """What to say where something needs the problem, and the runs do not hold it."""
    if watched(runs):
        loop = "this run was watched in a training loop that is not Downslope's own"
        return f"{loop}: for {what}, its data and code would be needed"
    return (
        f"these runs were loaded without their problem: for {what}, "
        "load them with downslope.load(folder, problem=...)"
    )


def watched(runs: Runs) -> bool:
    """Whether these are the steps of a loop that was not Downslope's own."""
    return "watched" in runs.settings["engine"].to_list()
