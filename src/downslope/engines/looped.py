"""One run after another through torch.optim itself: the reference, and the way for whatever is
unusual."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from downslope.data import Rows, own_generators, pair, tensors
from downslope.engines.layout import make_optimizer, schedule_length
from downslope.engines.work import (
    Handwritten,
    Outcome,
    Recorder,
    Tick,
    Work,
    handwritten_call,
    set_flags,
)
from downslope.errors import OptimizerError
from downslope.objective import MODEL_PREFIX, Objective
from downslope.problem_rows import row_blocks
from downslope.randomness import borrowed
from downslope.sampling import batches, epoch_order, torch_seed

_SMALL = 2_000_000
"""Parameters × rows of a batch below which a step is too short to share among threads."""

_GATHERED = 2**22
"""Numbers that are put in an epoch's order at once; more are gathered batch by batch."""

CHUNK = 16
"""Runs to a chunk, which is what a study saves at once."""


def run(work: Work, tick: Tick) -> Outcome:
    """Carry out the runs of `work`, each by itself."""
    return _joined([_descend(work.part(slice(run, run + 1)), tick) for run in range(len(work))])


def optimizer_after(work: Work) -> tuple[dict[str, nn.Parameter], optim.Optimizer]:
    """The parameters of a single run at its end, by name, and the optimizer that holds them."""
    with borrowed(work.problem.device, torch_seed(int(work.group.seed[0]), 0)):
        descent = _Descent(work, lambda updates, diverged: None)
        descent.descend()
    return descent.parameters, descent.optimizer


def small(work: Work) -> bool:
    """Whether a step is too short to be shared among threads: then runs are, among processes."""
    batch = work.rows if work.group.batch_size is None else min(work.group.batch_size, work.rows)
    weights = sum(p.numel() for p in work.problem.template.parameters())
    return weights * max(batch, 1) < _SMALL


def _joined(outcomes: list[Outcome]) -> Outcome:
    joined: dict[str, Any] = {}
    for name in (f.name for f in fields(Outcome)):
        values = [getattr(outcome, name) for outcome in outcomes]
        if isinstance(values[0], dict):
            joined[name] = {key: torch.cat([v[key] for v in values]) for key in values[0]}
        else:
            joined[name] = None if values[0] is None else np.concatenate(values)
    return Outcome(**joined)


def _descend(work: Work, tick: Tick) -> Outcome:
    """One run, from its start to its end."""
    with borrowed(work.problem.device, torch_seed(int(work.group.seed[0]), 0)):
        return _Descent(work, tick).descend()


class _Descent:
    """One run: a model, an optimizer, a scheduler, and what was seen of them."""

    def __init__(self, work: Work, tick: Tick) -> None:
        self.work, self.tick = work, tick
        self.recorder = Recorder(work)
        self.objective: Objective = work.objective(0)
        self.modules = list(self.objective.modules())
        self.flags = [m.training for m in self.modules]
        named = dict(self.objective.named_parameters())
        self.parameters = {n: named[MODEL_PREFIX + n] for n in work.problem.names}
        self.buffers = list(self.objective.model.buffers())
        self.store = _Store(list(self.parameters.values()), work.group.optimizer)
        self.optimizer = make_optimizer(work, 0, self.parameters)
        schedule = work.options.schedule
        per_epoch = schedule is not None and schedule.per == "epoch"
        self.scheduler_gap = work.updates_per_epoch if per_epoch else 1
        self.scheduler = (
            None if schedule is None else schedule.make(self.optimizer, schedule_length(work))
        )
        step = inspect.signature(self.optimizer.step).parameters.get("closure")
        self.needs_closure = step is not None and step.default is inspect.Parameter.empty
        self.seed = int(work.group.seed[0])
        self.clip_norm = float(work.group.clip_norm[0])
        self.norms = self.recorder.outcome.gradient_norm
        self.losses = self.recorder.outcome.batch_loss
        self.norm = math.nan

    def descend(self) -> Outcome:
        work, recorder = self.work, self.recorder
        limit, sign = math.inf, recorder.sign
        self._record(0)
        limit = float(recorder.limit[0])
        at, next_record = work.record_at, 1
        done = told = 0
        alive = bool(recorder.alive[0])
        draws = self._batches() if alive and work.updates else iter(())
        for update, rows in enumerate(draws, start=1):
            self.store.remember(self.buffers)
            loss = self._step(update, rows)
            if self.losses is not None:
                self.losses[0, update - 1] = loss
            fine = math.isfinite(loss) and sign * loss <= limit
            if not fine or not self.store.finite():
                recorder.diverge(recorder.alive.copy(), update)
                self.store.bring_back(self.buffers)
                done = update
                break
            if self.scheduler is not None and update % self.scheduler_gap == 0:
                self._schedule(update)
            done = update
            if next_record < len(at) and update == at[next_record]:
                self._record(next_record)
                next_record += 1
                self.tick(done - told, 0)
                told = done
                if not recorder.alive[0]:
                    break
            if update == work.updates:
                break
        self.tick(done - told, int(recorder.outcome.first_bad_step[0] >= 0))
        recorder.show(len(at), self._parameters_at, done=True)
        return self._finish()

    def _step(self, update: int, rows: Rows | None) -> float:
        """One update; returns the batch's loss before it."""
        if self.work.problem.random:
            torch.manual_seed(torch_seed(self.seed, update))
        if self.needs_closure or update == 1:
            loss = self._guarded_step(rows)
        else:
            loss = self._pass(rows).item()
            self.optimizer.step()
        if self.norms is not None:
            self.norms[0, update - 1] = self.norm
        return loss

    def _guarded_step(self, rows: Rows | None) -> float:
        """A step that may show that the optimizer and the problem do not fit, or one that calls
        back for losses: the first of these is the one before the update."""
        seen: list[tuple[float, float]] = []

        def closure() -> Any:  # torch says float, and takes a tensor
            loss = self._pass(rows)
            seen.append((loss.item(), self.norm))
            return loss

        try:
            if self.needs_closure:
                self.optimizer.step(closure)
            else:
                closure()
                self.optimizer.step()
        except (RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            name = type(self.optimizer).__name__
            raise OptimizerError(f"{name} cannot descend this problem: {said}") from error
        loss, self.norm = seen[0]
        return loss

    def _pass(self, rows: Rows | None) -> Tensor:
        """The batch's loss, with its gradients put where the optimizer looks for them."""
        self.optimizer.zero_grad()
        objective = self.objective.forward  # without the hooks that a call would look for
        loss = objective() if rows is None else objective(rows.x, rows.y)
        if self.work.options.gradient is None:
            loss.backward()
        else:
            self._gradients_by_hand(self.work.options.gradient, rows)
        if self.clip_norm < math.inf:
            self.norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), self.clip_norm))
        elif self.norms is not None:
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            self.norm = float(nn.utils.get_total_norm(gradients))
        return loss

    def _gradients_by_hand(self, gradient: Handwritten, rows: Rows | None) -> None:
        with torch.no_grad():
            made = handwritten_call(gradient, self.parameters, tensors(rows))
        for name, parameter in self.parameters.items():
            parameter.grad = made[name].clone()

    def _schedule(self, update: int) -> None:
        assert self.scheduler is not None
        problem = self.work.problem
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self._full_loss(problem.validation or problem.train))
        elif update < self.work.updates:
            self.scheduler.step()

    def _batches(self) -> Iterator[Rows | None]:
        """The rows of each update, epoch after epoch, without end."""
        work, rows, group = self.work, self.work.problem.train, self.work.group
        if rows is None or work.full:
            while True:
                yield rows
        if work.problem.loader is not None:
            yield from _loader_batches(work, self.seed)
            return
        slices = batches(work.rows, group.batch_size or 1, work.problem.drop_last)
        small = rows.x.numel() <= _GATHERED
        epoch = 0
        while True:
            if group.order == "cyclic":
                yield from (rows[part] for part in slices)
                continue
            order = torch.from_numpy(epoch_order(group.order, work.rows, self.seed, epoch))
            if small:
                ordered = rows[order]
                yield from (ordered[part] for part in slices)
            else:
                yield from (rows[order[part]] for part in slices)
            epoch += 1

    def _record(self, record: int) -> None:
        recorder, problem = self.recorder, self.work.problem
        loss = validation = None
        if recorder.wants_loss(record):
            loss = np.array([self._full_loss(problem.train)])
        if problem.validation is not None:
            validation = np.array([self._full_loss(problem.validation)])
        diverged = recorder.record(record, loss, validation)
        if record and diverged[0]:
            self.store.bring_back(self.buffers)
        if recorder.outcome.path is not None and recorder.outcome.steps[0, record] >= 0:
            for name, p in self.parameters.items():
                if name not in recorder.outcome.path:
                    shape = (1, len(self.work.record_at), *p.shape)
                    recorder.outcome.path[name] = torch.full(shape, math.nan, dtype=p.dtype)
                recorder.outcome.path[name][0, record] = p.detach().cpu()

        recorder.show(record + 1, self._parameters_at)

    def _parameters_at(
        self, runs: NDArray[np.int64], records: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """Those of the only run, if wanted."""
        path = self.recorder.outcome.path or {}
        return {name: value[runs, records] for name, value in path.items()}

    def _full_loss(self, rows: Rows | None) -> float:
        """The loss over all rows in evaluation mode."""
        set_flags(self.modules, [False] * len(self.modules))
        objective = self.objective.forward
        try:
            with torch.no_grad():
                if rows is None:
                    return objective().item()
                blocks = row_blocks(self.work.problem, rows)
                if len(blocks) == 1:
                    return objective(rows.x, rows.y).item()
                parts = (rows[block] for block, _ in blocks)
                losses = [objective(part.x, part.y) for part in parts]
                weighed = [weight * loss for loss, (_, weight) in zip(losses, blocks, strict=True)]
                total = torch.stack(weighed).to(torch.float64).sum()
                return float(total.to(losses[0].dtype).item())
        finally:
            set_flags(self.modules, self.flags)

    def _finish(self) -> Outcome:
        out = self.recorder.outcome
        out.parameters = {n: p.detach().cpu()[None].clone() for n, p in self.parameters.items()}
        others = self.work.problem.others
        model = self.objective.model
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        out.buffers = {name: named[name].detach().cpu()[None].clone() for name in others}
        return out


def _loader_batches(work: Work, seed: int) -> Iterator[Rows]:
    """Batches as the user's own DataLoader draws them, from generators set anew for each epoch."""
    problem, like = work.problem, work.problem.train
    assert like is not None
    with own_generators(problem.loader) as generators:
        epoch = 0
        while True:
            torch.manual_seed(torch_seed(seed, epoch))
            for g in generators:
                g.manual_seed(torch_seed(seed, epoch))
            for batch in problem.loader:
                yield pair(batch).alike(like)
            epoch += 1


class _Store:
    """All parameters in one piece of memory, so that looking at them costs one call.

    An optimizer of the user's own may put other tensors in the parameters' place, so for those
    each parameter is looked at by itself.
    """

    def __init__(self, parameters: list[nn.Parameter], optimizer: type[optim.Optimizer]) -> None:
        self.parameters = parameters
        self.one_piece = optimizer.__module__.startswith("torch.optim")
        if self.one_piece:
            self.flat = torch.cat([p.detach().reshape(-1) for p in parameters])
            place = 0
            for p in parameters:
                p.data = self.flat[place : place + p.numel()].view(p.shape)
                place += p.numel()
            self.before = self.flat.clone()
        self.pieces_before: list[Tensor] = []
        self.buffers_before: list[Tensor] = []

    def remember(self, buffers: list[Tensor]) -> None:
        """Keep the parameters and buffers as they are before an update."""
        if self.one_piece:
            self.before.copy_(self.flat)
        else:
            self.pieces_before = [p.detach().clone() for p in self.parameters]
        if buffers:
            self.buffers_before = [b.clone() for b in buffers]

    def bring_back(self, buffers: list[Tensor]) -> None:
        """Undo the update."""
        with torch.no_grad():
            if self.one_piece:
                self.flat.copy_(self.before)
            else:
                for p, before in zip(self.parameters, self.pieces_before, strict=True):
                    p.copy_(before)
            for buffer, kept in zip(buffers, self.buffers_before, strict=True):
                buffer.copy_(kept)

    def finite(self) -> bool:
        """Whether every parameter is a finite number."""
        if self.one_piece:
            # The sum of squares is cheaper; only where it is not finite can a number be to blame.
            if math.isfinite(torch.dot(self.flat, self.flat).item()):
                return True
            return math.isfinite(torch.linalg.vector_norm(self.flat, math.inf).item())
        return all(bool(torch.isfinite(p).all()) for p in self.parameters)
