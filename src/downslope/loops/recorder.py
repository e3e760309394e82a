"""One loop's hooks, and what they write down. Everything that is attached is detached again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor, nn, optim

from downslope.loops.hooks import Hook
from downslope.loops.observed import Observed
from downslope.loops.observers import Clearing, Losses, Mode, Reach
from downslope.loops.probe import Probe
from downslope.loops.scheduling import Scheduling
from downslope.loops.tape import Tape, often
from downslope.loops.watched import Watched

MOST_KEPT = 10**7
"""Numbers of a model up to which its end is kept for runs and studies."""


class LoopStopped(Exception):  # noqa: N818 (nothing went wrong in the code)
    """Leaves the loop; the watch whose recorder raised it takes it back."""


@dataclass(frozen=True)
class Wishes:
    """What a watch was asked for; see `downslope.watching.watch`."""

    loss_fn: nn.Module | None = None
    probes: tuple[Callable[[], Tensor], ...] = ()
    probe_rows: int = 1
    probe_every: int = 50
    every: int | None = None
    scheduler: Any = None
    stop: bool = False


class Recorder:
    """Attached to a model and an optimizer, writes down every step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        wishes: Wishes,
        onlooker: Callable[[Callable[[], list[float | None]]], None] | None = None,
    ) -> None:
        self.model, self.optimizer, self.wishes, self.onlooker = model, optimizer, wishes, onlooker
        self.stopped: int | None = None
        self.tape = Tape(optimizer, 1 if wishes.stop else wishes.every or often(optimizer))
        self.settings = hyperparameters_of(optimizer)
        self.mode, self.reach = Mode(model), Reach(model, optimizer)
        self.losses = Losses(self.reach.own | self.reach.held)
        self.scheduling = Scheduling(optimizer, wishes.scheduler)
        self.clearing = Clearing(optimizer, self.scheduling.backward)
        self.probe: Probe | None = None
        if wishes.probes:
            self.probe = Probe(model, optimizer, wishes.probes, wishes.probe_rows)
        self.inside_closure = self.probing = self.attached = False
        self.handles: list[Any] = []

    # -- hooks ---------------------------------------------------------------------------------

    def attach(self) -> None:
        """Begin."""
        self.attached = True
        self.clearing.attach()
        self.handles = [
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
            self.model.register_forward_hook(Hook(self._forward)),
        ]
        if self.wishes.loss_fn is not None:
            self.handles.append(self.wishes.loss_fn.register_forward_hook(Hook(self._loss_made)))

    def detach(self) -> None:
        """Leave everything as it was."""
        self.attached = False
        self.clearing.detach()
        self.losses.outputs = []
        while self.handles:
            self.handles.pop().remove()

    def take(self, loss: Tensor | float) -> None:
        """A batch's loss."""
        if not self.attached or self.probing:
            return
        late = self.losses.behind and not self.inside_closure
        if isinstance(loss, Tensor):
            self.losses.given(loss)
            self.tape.take_loss(loss.reshape(()), late)
        else:
            self.tape.take_loss(float(loss), late)

    def _forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.probing:
            self.losses.forward(module, inputs, output)

    def _loss_made(self, module: nn.Module, inputs: Any, output: Any) -> None:
        # Under torch.no_grad() it is an evaluation's, not the training loss.
        if isinstance(output, Tensor) and output.requires_grad and output.numel() == 1:
            self.take(output)

    def _before_step(self, optimizer: optim.Optimizer, args: Any, kwargs: Any) -> None:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer
        self.inside_closure = closure is not None
        tape = self.tape
        if not tape.rates:
            self.scheduling.first_step()
        tape.open()
        self.mode.look(tape.steps)
        if self.inside_closure:
            return  # the gradients of this step are made in it
        self.reach.look(tape.steps, optimizer)
        tape.take_gradient()
        if self.wishes.stop and not tape.finite():
            tape.before = []
            self._stop()

    def _after_step(self, optimizer: optim.Optimizer, args: Any, kwargs: Any) -> None:
        tape = self.tape
        if self.inside_closure:
            self.reach.look(tape.steps, optimizer)
            tape.take_gradient()
        self.clearing.stepped()
        if self.inside_closure and self.wishes.stop and not tape.finite():
            self._stop()
        self._close()

    def _stop(self) -> None:
        self.stopped = self.tape.steps
        self._close()
        raise LoopStopped(self)

    def _close(self) -> None:
        tape, probe = self.tape, self.probe
        tape.close(several=self.inside_closure)
        self.inside_closure = False
        self.losses.stepped()
        due = (tape.steps - 1) % self.wishes.probe_every == 0 and self.stopped is None
        made: tuple[float | None, ...] = (None, None, None)
        try:
            if probe is not None and due and probe.useful:
                self.probing = True
                made = probe.measure()
        finally:
            self.probing = False
            tape.measured(*made)
        if self.onlooker is not None:
            self.onlooker(tape.loss.values)

    # -- what was written down -----------------------------------------------------------------

    def records(self) -> Watched:
        """All of it so far; the model's own numbers once the loop has ended."""
        parameters, buffers = ({}, {}) if self.attached else self._ends()
        return Watched(
            table=self._table(),
            optimizer=type(self.optimizer).__name__,
            settings=self.settings,
            parameters=parameters,
            buffers=buffers,
            maximize=bool(self.optimizer.defaults.get("maximize", False)),
            observed=self._observed(),
            notes=self._notes(),
        )

    def _table(self) -> pl.DataFrame:
        tape = self.tape
        groups = max((len(rates) for rates in tape.rates), default=1)
        padded = [rates + [np.nan] * (groups - len(rates)) for rates in tape.rates]
        rates = {f"lr_{g}" if g else "lr": [row[g] for row in padded] for g in range(groups)}
        columns: dict[str, list[float] | list[float | None]] = {
            "loss": tape.loss.values(),
            "gradient_norm": tape.gradient_norm.values(),
            "update_norm": tape.update_norm.values(),
            **rates,
            "sharpness": tape.sharpness.values(),
            "rate_over_limit": tape.share.values(),
            "noise_scale": tape.noise.values(),
        }
        steps = pl.Series("step", range(1, len(tape.rates) + 1), dtype=pl.Int64)
        series = [pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()]
        return pl.DataFrame([steps, *series])

    def _observed(self) -> Observed:
        reach, losses, clearing = self.reach, self.losses, self.clearing
        return Observed(
            steps=self.tape.steps,
            looked=reach.looked,
            clearing_looked=clearing.looked,
            uncleared=clearing.uncleared,
            disjoint=reach.disjoint(),
            not_held=reach.not_held(),
            never=reach.never(),
            any_gradient=reach.any_gradient(),
            losses=losses.looked,
            without_graph=losses.without_graph,
            missing=losses.missing,
            broadcast=losses.broadcast,
            modes=self.mode.seen(),
            scheduler_ahead=self.scheduling.ahead,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if not self.losses.looked:
            notes.append(
                "No loss was given as a tensor: shapes that are broadcast in it, and what it "
                "depends on, were not looked at."
            )
        if self.probe is not None and self.probe.note:
            notes.append(f"Note: {self.probe.note}.")
        return tuple(notes)

    def _ends(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        named, buffers = dict(self.model.named_parameters()), dict(self.model.named_buffers())
        if sum(t.numel() for t in (*named.values(), *buffers.values())) > MOST_KEPT:
            return {}, {}
        kept = [{n: t.detach().cpu().clone() for n, t in k.items()} for k in (named, buffers)]
        return kept[0], kept[1]


def hyperparameters_of(optimizer: optim.Optimizer) -> dict[str, Any]:
    """Its settings as columns of a table; where groups differ, one column for each group."""
    columns: dict[str, Any] = {}
    groups = [{n: v for n, v in g.items() if n != "params"} for g in optimizer.param_groups]
    for name in groups[0]:
        if name in ("initial_lr", "param_names"):
            continue
        values = [_plain(group.get(name)) for group in groups]
        if all(value == values[0] for value in values):
            columns[name] = values[0]
        else:
            columns |= {f"{name}[group {g}]": value for g, value in enumerate(values)}
    return columns


def _plain(value: Any) -> Any:
    """A value that a table holds: numbers, bools, names, tuples of numbers as lists."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value):
        return [float(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
