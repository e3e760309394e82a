"""The same verdicts for a training loop that stays the user's own: ``with ds.watch(...)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
from torch import Tensor, nn, optim

from downslope.errors import DownslopeError, InputError
from downslope.explain.findings import Finding
from downslope.loops.faults import faults
from downslope.loops.judge import judge
from downslope.loops.observers import held_by
from downslope.loops.recorder import LoopStopped, Recorder, Wishes
from downslope.loops.watched import Watched, runs_of, save
from downslope.runs import Runs

if TYPE_CHECKING:  # to watch needs no pictures
    from matplotlib.figure import Figure

    from downslope.views.data.watched import WatchData
    from downslope.views.live import LiveView, Where

Loss = TypeVar("Loss", Tensor, float)


class StoppedWarning(UserWarning):
    """A watch with ``stop=True`` ended its loop."""


class Watch:
    """What `watch` gives: records while the block runs, findings after it."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        wishes: Wishes,
        report: bool,
        live: Where | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._live = live
        self._view: LiveView | None = None
        self._wishes, self._report = wishes, report
        self._recorder: Recorder | None = None
        self._watched: Watched | None = None

    # -- the block -----------------------------------------------------------------------------

    def __enter__(self) -> Watch:
        if self._recorder is not None:
            raise DownslopeError("a watch sees one block: make another with downslope.watch(...)")
        onlooker = None
        if self._live is not None:
            from downslope.views.live import LiveView, screen_for

            self._view = LiveView(screen_for(self._live))
            onlooker = self._view.look_at
        self._recorder = Recorder(self.model, self.optimizer, self._wishes, onlooker)
        self._recorder.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        recorder = self._recorder
        assert recorder is not None
        recorder.detach()
        self._watched = recorder.records()
        if self._view is not None:
            self._view.__exit__(kind, error, trace)
        mine = isinstance(error, LoopStopped) and error.args[0] is recorder
        if mine:
            warnings.warn(
                f"the watched loop was stopped at step {self.stopped}: its loss or gradient is not "
                "finite",
                StoppedWarning,
                stacklevel=2,
            )
        if self._report:
            print(self)
        if self._view is not None:
            self._view.tell(stacklevel=2)
        return mine

    def loss(self, loss: Loss) -> Loss:
        """Take a batch's loss, best before ``loss.backward()``; it is given back as it is.

        Several between two steps (gradients accumulated) are averaged. A number in place of a
        tensor says nothing about what the loss depends on.

        Raises:
            InputError: for anything but one number.
        """
        if isinstance(loss, Tensor):
            if loss.numel() != 1 or loss.is_complex():
                raise InputError(
                    f"a loss must be one real number, got a tensor of shape {tuple(loss.shape)}: "
                    "reduce it first, with loss.mean()"
                )
        elif isinstance(loss, bool) or not isinstance(loss, int | float | np.number):
            raise InputError(
                f"a loss must be a tensor of one number, or a number, got {type(loss).__name__}"
            )
        if self._recorder is not None:
            self._recorder.take(loss)
        return loss

    # -- what came of it -----------------------------------------------------------------------

    @property
    def stopped(self) -> int | None:
        """With ``stop=True``, the step that was not made any more (with a closure: the last one
        made), or None."""
        return None if self._recorder is None else self._recorder.stopped

    @property
    def table(self) -> pl.DataFrame:
        """A row a step, from 1: loss (the batch's before the update), gradient_norm, update_norm
        (length of the parameters' change), lr (of the first group; lr_1 and so on of others),
        sharpness (the Hessian's largest eigenvalue on the probe, after the update),
        rate_over_limit (rate × curvature as a share of what the optimizer bears on a quadratic: 2
        for plain SGD, 38 for Adam at β₁ = 0.9 after preconditioning) and noise_scale (in rows).
        Null where it was not measured."""
        return self._seen().table

    @property
    def findings(self) -> list[Finding]:
        """The run's verdict, then the loop's faults."""
        seen = self._seen()
        rows = self._wishes.probe_rows * len(self._wishes.probes)
        verdict = judge(seen.table, maximize=seen.maximize, probe_rows=rows)
        found = [verdict, *faults(seen.observed, verdict.verdict)]
        if not seen.table.height:
            return found
        run = runs_of(seen, verdict)[0]
        return [replace(finding, of=run) for finding in found]

    def explain(self) -> list[Finding]:
        """The same as `findings`, under the name that runs have for it."""
        return self.findings

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be measured or concluded, in words."""
        return self._seen().notes

    @property
    def runs(self) -> Runs:
        """One run whose records are the steps, for everything that takes `Runs`.

        Raises:
            DownslopeError: if no step was made.
        """
        return runs_of(self._seen(), self.findings[0])

    @property
    def figure_data(self) -> WatchData:
        """What `plot` draws, as plain numbers."""
        from downslope.views.data.watched import watch_data

        bad = self.findings[0].evidence.get("first bad step")
        return watch_data(self.table, None if bad is None else int(bad.value))

    def plot(self) -> Figure:
        """Loss, norms, rates, and curvature with its 2 / rate line where it was measured."""
        from downslope.views.drawing.watched import watch_figure

        return watch_figure(self.figure_data)

    def save(self, folder: str | Path) -> None:
        """Write a new study that `load` opens: the run, every step's numbers and the findings.

        Raises:
            StudyError: if something is there already, or it cannot be written.
            DownslopeError: if no step was made.
        """
        save(self._seen(), self.findings, folder)

    def __str__(self) -> str:
        if self._recorder is None:
            return repr(self)
        return "\n".join([*map(str, self.findings), *self.notes])

    def __repr__(self) -> str:
        steps = 0 if self._recorder is None else self._recorder.tape.steps
        return f"Watch({type(self.model).__name__}, {type(self.optimizer).__name__}, {steps} steps)"

    def _seen(self) -> Watched:
        if self._recorder is None:
            raise DownslopeError("nothing was watched yet: use it as `with downslope.watch(...)`")
        return self._recorder.records() if self._watched is None else self._watched


def watch(
    model: nn.Module,
    optimizer: optim.Optimizer,
    *,
    loss_fn: nn.Module | None = None,
    probe: Callable[[], Tensor] | Sequence[Callable[[], Tensor]] | None = None,
    probe_rows: int = 1,
    probe_every: int = 50,
    every: int | None = None,
    scheduler: Any = None,
    stop: bool = False,
    report: bool = False,
    live: bool | Where | None = None,
) -> Watch:
    """Look at a training loop of your own; afterwards say what it did, and what is wrong with it.

    The optimizer's steps are seen by themselves. The loss is taken by ``watch.loss(loss)``, which
    gives it back, or by `loss_fn`. Weights, gradients, random numbers and buffers come out to the
    bit as without it; when the block is left, by an exception too, nothing stays behind.

    Without a probe it costs some 0.1 ms a step, less than 5% of a step of 5 ms or more
    (``benchmarks/watching.py``); the first 16 steps, which are looked at closely, cost more. A
    probe costs some 12 Hessian products each time, and the second derivatives' memory.

    Args:
        model: whose parameters are trained.
        optimizer: any instance of `torch.optim.Optimizer`. For several (a GAN), open a watch for
            each, in one ``with``.
        loss_fn: the loss's module (``nn.MSELoss()``), so that nothing needs to be written inside
            the loop; what it gives under ``torch.no_grad()`` does not count.
        probe: gives the loss of a fixed batch, ``lambda: loss_fn(model(x), y)``: its curvature is
            measured. A list of them, on batches of equal size, measures the noise scale too.
        probe_rows: rows in each probe's batch: the noise scale counts rows.
        probe_every: steps between two measurements; the first is after step 1.
        every: steps between two measurements of the gradient's and the update's norm, which needs
            a copy of the parameters for the length of a step. By default 1 up to a size of 20,000
            (numbers of parameters, and 1,000 for each tensor), 10 up to 200,000, else 50.
        scheduler: the learning-rate scheduler, to see whether it is stepped first; without it,
            schedulers are looked up among what refers to the optimizer, once.
        stop: leave the block before the first step whose loss or gradient is not finite (for a
            step with a closure: after it). What stands in the block after the loop is then
            skipped, a `StoppedWarning` says so, and the program goes on after the block; `stopped`
            is the step, the parameters are those from before it. Waits for the device each step.
        report: print the findings when the block is left.
        live: draw the batches' losses as they come: "terminal", "notebook" or "window", as in
            `descend`; True: whichever this is.

    Raises:
        InputError: one sentence on what is wrong.

    >>> import torch
    >>> model = nn.Linear(1, 1)
    >>> x = torch.linspace(-1, 1, 64).reshape(-1, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> with watch(model, optimizer) as seen:
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         loss = nn.functional.mse_loss(model(x), 3 * x)
    ...         seen.loss(loss).backward()
    ...         optimizer.step()
    >>> [finding.verdict for finding in seen.findings]
    ['converging']
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(optimizer, optim.Optimizer):
        raise InputError(
            f"optimizer must be an instance of torch.optim.Optimizer, got {_named(optimizer)}"
        )
    if loss_fn is not None and not isinstance(loss_fn, nn.Module):
        raise InputError(
            f"loss_fn must be a module such as nn.MSELoss(), got {_named(loss_fn)}; for a "
            "function, call watch.loss(loss) in the loop"
        )
    probes: list[Any] = [probe]
    if probe is None or isinstance(probe, list | tuple):
        probes = list(probe or ())
    if probe is not None and not (probes and all(map(callable, probes))):
        raise InputError(
            "probe must be a function without arguments that gives a loss, or a list of them, got "
            f"{_named(probe)}"
        )
    counts = {"probe_rows": probe_rows, "probe_every": probe_every}
    for name, count in {**counts, **({} if every is None else {"every": every})}.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{name} must be a whole number of at least 1, got {count!r}")
    if scheduler is not None and not hasattr(scheduler, "optimizer"):
        raise InputError(
            f"scheduler must be one of torch.optim.lr_scheduler, got {_named(scheduler)}"
        )
    if probes and not any(p.requires_grad for p in held_by(optimizer)):
        raise InputError("a probe needs an optimizer with parameters that require gradients")
    wishes = Wishes(
        loss_fn=loss_fn,
        probes=tuple(probes),
        probe_rows=probe_rows,
        probe_every=probe_every,
        every=every,
        scheduler=scheduler,
        stop=bool(stop),
    )
    where = None
    if live is not None and live is not False:
        from downslope.views.live import where_to_show

        where = where_to_show(live)
    return Watch(model, optimizer, wishes, bool(report), where)


def _named(value: Any) -> str:
    """What was given, in short."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
