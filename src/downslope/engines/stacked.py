"""All runs of a group as one torch program over stacked parameters.

A chunk of runs is a matrix of parameters, a row a run. Each update is one traced program for all
losses and gradients, then one update rule on the whole matrix. A run that has diverged or ended
keeps its row as it was and takes no further part; when half of the rows are such, they are let go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.data import Rows
from downslope.engines.layout import Hyper, needs_loss, read_sequences
from downslope.engines.program import NotStackableError, Programs, used_parameters
from downslope.engines.starts import stacked_starts
from downslope.engines.work import Outcome, Recorder, Tick, Work
from downslope.optimizers import RULES, why_looped
from downslope.problem import Problem
from downslope.problem_rows import row_blocks
from downslope.sampling import batches, epoch_order

MOST_RUNS = 512
"""Runs in a chunk at most: past this, more runs cost no less each."""

_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
"""Elements of the largest intermediate of a chunk: what caches (or a GPU) take well."""

_HELD = 2**27
"""Numbers held at once for a chunk's parameters and constants at most (1 GiB in float64)."""


def why_not_together(work: Work) -> str | None:
    """Why runs of this work can only be carried out one by one, as a sentence; None if not so."""
    problem = work.problem
    if (reason := why_looped(work.group.optimizer)) is not None:
        return reason
    if problem.loader is not None:
        return "the DataLoader draws its batches in a way of its own"
    if problem.random:
        return "the model draws random numbers in training"
    if (name := _lost(work)) is not None:
        return f"the loss does not use {name!r}, which is not finite"
    if problem.keeps_state:
        return "the model keeps state of its own from one pass to the next"
    if needs_loss(work):
        return "the schedule needs the loss"
    if work.options.schedule is not None and work.updates and "momentum" in work.group.numbers:
        momentum = read_sequences(work, [0]).get("momentum")
        if momentum is not None and not momentum.all():
            return "the schedule brings the momentum to 0, where torch.optim leaves its state alone"
    return None


def _lost(work: Work) -> str | None:
    """A parameter that makes every run a diverged one (a run holds it), and no loss shows it."""
    named = dict(work.problem.template.model.named_parameters())
    for values in ({}, *(start or {} for start in work.starts)):
        for name in work.problem.names:
            finite = bool(values.get(name, named[name]).isfinite().all())
            if not finite and name not in used_parameters(work.problem):
                return name
    return None


def why_not(work: Work) -> str | None:
    """Why this work cannot be stacked, as a sentence; None if it can."""
    if (reason := why_not_together(work)) is not None:
        return reason
    try:
        _largest(work)
    except NotStackableError as error:
        return f"the model cannot be run for many runs at once ({error})"
    return None


def chunk_size(work: Work) -> int:
    """How many runs to take at once: set by the problem and batch alone, so that a study that
    is resumed takes the same."""
    held = sum(p.numel() for p in work.problem.template.parameters())
    elements = _elements(work.problem)
    return int(np.clip(min(elements // _largest(work), _HELD // held), 1, MOST_RUNS))


def _largest(work: Work) -> int:
    """Elements a run of the largest tensor in an update."""
    rows = work.problem.train
    batch = None if rows is None else rows[: None if work.full else work.group.batch_size]
    return programs_of(work).largest(batch)


def _elements(problem: Problem) -> int:
    return _ELEMENTS.get(problem.device.type, _ELEMENTS["cpu"])


def programs_of(work: Work) -> Programs:
    """The problem's programs, traced anew for each plan: a function may look things up that have
    changed since the last."""
    if "stacked" not in work.traced:
        work.traced["stacked"] = Programs(work.problem, work.options.gradient)
    programs: Programs = work.traced["stacked"]
    return programs


def _finite(flat: Tensor) -> NDArray[np.bool_]:
    """Which rows of (runs, size) hold finite numbers alone.

    A finite sum has finite terms; a look at every number is dear, and needed only where the sum
    is not finite, which may be overflow.
    """
    finite: NDArray[np.bool_] = np.isfinite(_array(flat.sum(1)))
    if not finite.all():
        doubtful = np.flatnonzero(~finite)
        finite[doubtful] = _array(torch.isfinite(flat[torch.from_numpy(doubtful)]).all(1))
    return finite


def _array(tensor: Tensor) -> NDArray[Any]:
    """On the host, in a dtype that numpy knows."""
    here = tensor.cpu()
    return (here.float() if here.dtype in (torch.bfloat16, torch.float16) else here).numpy()


def run(work: Work, tick: Tick) -> Outcome:
    """Carry out all runs of `work` at once."""
    with torch.no_grad():
        return _Chunk(work, tick).descend()


class _Chunk:
    """The state of one chunk: which runs are in the stack, and where each of them stands."""

    def __init__(self, work: Work, tick: Tick) -> None:
        self.work, self.tick = work, tick
        self.programs = programs_of(work)
        self.layout = self.programs.layout
        self.recorder = Recorder(work)
        self.rule = RULES[work.group.optimizer]
        self.hyper = Hyper(work, self.layout)
        taken = self.rule.update.__kwdefaults__ or {}
        given = {**work.group.switches, **self.rule.switches}
        self.switches = {name: value for name, value in given.items() if name in taken}
        self.places = np.arange(len(work))  # of the stack's rows among the chunk's runs
        self.state: dict[str, Tensor] = {}
        self.seed_of = np.zeros(len(work), dtype=np.int64)
        self._stack_starts()
        self.all_constants = self.constants
        self.before = self.flat
        self.final = {"flat": self.flat.clone(), **{n: b.clone() for n, b in self.buffers.items()}}
        if self.recorder.outcome.path is not None:
            shape = (len(work), len(work.record_at), self.layout.size)
            self.path = torch.full(shape, float("nan"), dtype=self.flat.dtype)

    def _stack_starts(self) -> None:
        """Rows of parameters, constants and buffers."""
        names = (*self.layout.shapes, *self.programs.constants, *self.programs.buffers)
        starts = stacked_starts(self.work, names)
        self.flat = self.layout.join(starts)
        self.constants = {name: starts[name].contiguous() for name in self.programs.constants}
        self.buffers = {name: starts[name].contiguous() for name in self.programs.buffers}

    def descend(self) -> Outcome:
        """From the start to the last update, or until no run is left."""
        work, recorder = self.work, self.recorder
        next_record, at = 1, work.record_at
        self._record(0)
        for update in range(1, work.updates + 1):
            if not recorder.alive.any():
                break
            diverged = int(recorder.alive.sum())
            self._update(update)
            if next_record < len(at) and at[next_record] == update:
                self._record(next_record)
                next_record += 1
                self._let_go()
            self.tick(len(self.places), diverged - int(recorder.alive.sum()))
        return self._finish()

    def _update(self, update: int) -> None:
        rows, shared = self._batch(update)
        gradient, losses, buffers = self.programs.losses_and_gradients(
            self.flat, list(self.constants.values()), list(self.buffers.values()), rows, shared
        )
        hyper = self.hyper.at(update)
        if update == 1:
            self.state = self.rule.first_state(self.flat, hyper, self.switches)
        gradient = self._clipped(gradient, update)
        step = torch.tensor(float(update), dtype=torch.float64, device=self.flat.device)
        flat, self.state = self.rule.update(
            self.flat, gradient, self.state, hyper, step, **self.switches
        )
        self._judge(update, losses, flat)
        self.before = self.flat
        self.buffers_before = self.buffers
        self.flat = self._where_alive(flat, self.flat)
        self.buffers = {
            name: self._where_alive(new, old)
            for (name, old), new in zip(self.buffers.items(), buffers, strict=True)
        }

    def _clipped(self, gradient: Tensor, update: int) -> Tensor:
        """The gradient, shortened where its norm exceeds the run's own bound; as in
        torch.nn.utils.clip_grad_norm_."""
        bounds, norms_kept = self.work.group.clip_norm, self.recorder.outcome.gradient_norm
        clips = bool(np.isfinite(bounds).any())
        if not clips and norms_kept is None:
            return gradient
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        if norms_kept is not None:
            self._put(norms_kept, update - 1, norm[:, 0])
        if not clips:
            return gradient
        bound = torch.tensor(bounds[self.places], dtype=norm.dtype, device=norm.device)[:, None]
        scale = (bound / (norm + 1e-6)).clamp(max=1.0)
        return gradient * torch.where(bound.isinf(), 1.0, scale)

    def _judge(self, update: int, losses: Tensor, flat: Tensor) -> None:
        kept = self.recorder.outcome.batch_loss
        values = _array(losses)
        if kept is not None:
            self._put(kept, update - 1, losses)
        finite = _finite(flat)
        alive = self.recorder.alive
        bad = np.zeros_like(alive)
        bad[self.places] = ~finite | self._bad(values)
        if (bad & alive).any():
            self.recorder.diverge(bad & alive, update)

    def _bad(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        limit = self.recorder.limit[self.places]
        return ~(np.isfinite(values) & (self.recorder.sign * values <= limit))

    def _put(self, kept: NDArray[Any], column: int, values: Tensor) -> None:
        going = self.recorder.alive[self.places]
        kept[self.places[going], column] = _array(values)[going]

    def _where_alive(self, new: Tensor, old: Tensor) -> Tensor:
        going = self.recorder.alive[self.places]
        if going.all():
            return new
        mask = torch.from_numpy(going).to(new.device).reshape(-1, *[1] * (new.ndim - 1))
        return torch.where(mask, new, old)

    def _batch(self, update: int) -> tuple[Rows | None, bool]:
        """The rows of this update, and whether they are the same for all runs."""
        work, rows = self.work, self.work.problem.train
        if rows is None or work.full:
            return rows, True
        epoch, place = divmod(update - 1, work.updates_per_epoch)
        if place == 0:
            seeds = work.group.seed[self.places]
            self.seeds, self.seed_of = np.unique(seeds, return_inverse=True)
            self.orders = np.stack(
                [epoch_order(work.group.order, work.rows, int(s), epoch) for s in self.seeds]
            )
            self.slices = batches(work.rows, work.group.batch_size or 1, work.problem.drop_last)
        chosen = self.orders[:, self.slices[place]]
        if len(self.seeds) == 1 or work.group.order == "cyclic":
            return rows[torch.from_numpy(chosen[0])], True
        return rows[torch.from_numpy(chosen[self.seed_of])], False

    def _record(self, record: int) -> None:
        recorder, problem = self.recorder, self.work.problem
        loss = validation = None
        if recorder.wants_loss(record):
            loss = self._spread(self._full_loss(problem.train))
        if problem.validation is not None:
            validation = self._spread(self._full_loss(problem.validation))
        diverged = recorder.record(record, loss, validation)
        if record and diverged.any():
            back = torch.from_numpy(diverged[self.places]).to(self.flat.device)
            self.flat[back] = self.before[back]
            for name, buffer in self.buffers.items():
                buffer[back] = self.buffers_before[name][back]
        if recorder.outcome.path is not None:
            going = recorder.outcome.steps[self.places, record] >= 0
            self.path[self.places[going], record] = self.flat.cpu()[going]
        recorder.show(record + 1, self._parameters_at)

    def _spread(self, values: Tensor) -> NDArray[Any]:
        """Values of the stack's rows as values of all the chunk's runs."""
        spread = np.full(len(self.work), np.nan, dtype=self.recorder.outcome.loss.dtype)
        spread[self.places] = _array(values)
        return spread

    def _full_loss(self, rows: Rows | None) -> Tensor:
        """Losses over all rows, in blocks of rows and runs that fit caches and memory."""
        runs = len(self.places)
        constants, buffers = list(self.constants.values()), list(self.buffers.values())
        if rows is None:
            return self.programs.losses(self.flat, constants, buffers, None)
        blocks = row_blocks(self.work.problem, rows)
        total = torch.zeros(runs, dtype=torch.float64, device=self.flat.device)
        size = self._runs_at_once(blocks[0][0])
        for first in range(0, runs, size):
            part = slice(min(first, runs - size), min(first, runs - size) + size)
            some = (self.flat[part], [c[part] for c in constants], [b[part] for b in buffers])
            losses = [weight * self.programs.losses(*some, rows[block]) for block, weight in blocks]
            total[part] = torch.stack(losses).to(torch.float64).sum(0)
        return total.to(self.flat.dtype)

    def _runs_at_once(self, block: slice) -> int:
        """Runs evaluated at once, in equal parts."""
        rows = self.work.rows if self.work.full else (self.work.group.batch_size or 1)
        per_row = max(_largest(self.work) // max(rows, 1), 1)
        elements = 4 * _elements(self.work.problem)
        most = max(elements // (per_row * (block.stop - block.start)), 1)
        runs = len(self.places)
        return -(-runs // -(-runs // most))

    def _settle(self, final: dict[str, Tensor]) -> None:
        """Write where the stack's runs stand to their places among all."""
        places = torch.from_numpy(self.places).to(self.flat.device)
        final["flat"][places] = self.flat
        for name, buffer in self.buffers.items():
            final[name][places] = buffer

    def _let_go(self) -> None:
        """Drop the rows of ended runs from the stack once they are half of it."""
        going = self.recorder.alive[self.places]
        if not going.any() or going.sum() * 2 > len(going):
            return
        self._settle(self.final)
        mask = torch.from_numpy(going).to(self.flat.device)
        self.places, self.seed_of = self.places[going], self.seed_of[going]
        self.flat, self.before = self.flat[mask], self.before[mask]
        self.buffers = {n: b[mask] for n, b in self.buffers.items()}
        self.constants = {n: c[mask] for n, c in self.constants.items()}
        self.state = {n: s[mask] for n, s in self.state.items()}
        self.hyper.keep(going)

    def _parameters_at(
        self, runs: NDArray[np.int64], records: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        return self.layout.split(self.path[runs, records])

    def _finish(self) -> Outcome:
        self.recorder.show(len(self.work.record_at), self._parameters_at, done=True)
        self._settle(self.final)
        out = self.recorder.outcome
        whole = {n: c.cpu() for n, c in self.all_constants.items()}
        parameters = {n: p.cpu() for n, p in self.layout.split(self.final["flat"]).items()} | whole
        out.parameters = {name: parameters[name] for name in self.work.problem.names}
        ended = {**whole, **{name: self.final[name].cpu() for name in self.buffers}}
        out.buffers = {name: ended[name] for name in self.work.problem.others}
        if out.path is not None:
            pieces = self.layout.split(self.path.flatten(0, 1))
            out.path = {n: p.unflatten(0, self.path.shape[:2]) for n, p in pieces.items()}
        return out
