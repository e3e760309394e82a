"""A work's runs carried out by its compiled program, on as many threads as torch may use."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from downslope.engines.fused.frame import packed
from downslope.engines.fused.glimpses import glimpse
from downslope.engines.fused.kernel import KERNEL, ORDERS, SCRATCH
from downslope.engines.fused.orders import KINDS
from downslope.engines.fused.prepare import material_of, program_of
from downslope.engines.fused.tiles import (
    data_arrays,
    room,
    state_arrays,
    tiling,
)
from downslope.engines.layout import Hyper
from downslope.engines.starts import stacked_starts
from downslope.engines.work import Glimpse, Onlooker, Outcome, Tick, Work

_LOOK = 0.05
"""Seconds between looks at how far the program is."""

_PIECE = 10_000_000
"""Places of orders that a thread draws at a time, in some 30 ms."""

_ORDERS_BYTES = 2**26
"""Memory for orders of samples at a time."""


def run(work: Work, tick: Tick, across: str = "runs") -> Outcome:
    """Carry out all runs of `work`."""
    with torch.no_grad():
        return _Descent(work, tick, across).outcome()


class _Descent:
    """The arrays of one call."""

    def __init__(self, work: Work, tick: Tick, across: str) -> None:
        self.work, self.tick = work, tick
        self.program = program_of(work, across)
        self.material = material_of(work)
        self.hyper = Hyper(work, self.program.layout)
        spec = self.program.spec
        self.starts = stacked_starts(work, (*work.problem.names, *work.problem.others))
        self.tiles = tiling(work, spec.width, spec.orders)
        self.values: dict[str, Any] = {
            **_counts(work, 0 if self.material.train is None else len(self.material.train)),
            **data_arrays(self.program, self.material.train, ""),
            **data_arrays(self.program, self.material.validation, "validation_"),
            **state_arrays(self.program, work, self.hyper, self.tiles, self.starts),
            **self._records(),
        }
        self.threads = max(1, min(torch.get_num_threads(), self.tiles.tiles))
        size = self.program.code.function(SCRATCH, result=ctypes.c_int64)()
        self.values |= {
            "tiles": self.tiles.tiles,
            "scratch": room((max(size * self.threads, 1),), np.uint8),
            "scratch_size": size,
            "progress": np.full(self.tiles.tiles, -1, dtype=np.int64),  # no record yet
            "stop": np.zeros(1, dtype=np.int64),
            "next_tile": np.zeros(1, dtype=np.int64),
        }

    def _records(self) -> dict[str, Any]:
        """Room for what is recorded, (tiles, places[, parameters], width), full of NaN."""
        spec, work = self.program.spec, self.work
        dtype = np.float32 if spec.kind == "f32" else np.float64
        records, updates = len(work.record_at), work.updates
        sizes: dict[str, tuple[int, ...]] = {"loss": (records,)}
        if spec.validation:
            sizes["validation_loss"] = (records,)
        if spec.keeps_batch_loss:
            sizes["batch_loss"] = (updates,)
        if spec.keeps_norm:
            sizes["gradient_norm"] = (updates,)
        if spec.keeps_path:
            sizes["path"] = (records, self.program.layout.size)
        tiles = self.tiles.tiles
        return {
            name: room((tiles, *size, spec.width), dtype, np.nan) for name, size in sizes.items()
        }

    def outcome(self) -> Outcome:
        """Run the program to the end, and put together what it wrote."""
        kernel = self.program.code.function(KERNEL, ctypes.c_void_p, ctypes.c_int64)
        for first, last in self._segments():
            self.values |= {
                "first_update": first,
                "last_update": last,
                "first_record": int(np.searchsorted(self.work.record_at, first)),
            }
            self.values["next_tile"][0] = 0
            call = partial(self._call, kernel, packed(self.values))
            self._on_threads([partial(call, thread) for thread in range(self.threads)])
        if self.work.onlooker is not None:
            self.work.onlooker.look(self._glimpse(self.work.onlooker, done=True))
        return self._put_together()

    def _call(self, kernel: Callable[..., Any], frame: NDArray[Any], thread: int) -> None:
        """One thread's share. It holds the frame, and with `self` all that the frame points to."""
        kernel(frame.ctypes.data, thread)

    def _segments(self) -> Iterator[tuple[int, int]]:
        """Updates to be done in one call: all, or as many as there is room for their orders."""
        work, updates = self.work, self.work.updates
        if not self.program.spec.orders or not updates:
            yield 0, updates
            return
        seeds, rows = len(self.tiles.seeds), work.rows
        epochs = -(-updates // work.updates_per_epoch)
        each = max(1, min(epochs, _ORDERS_BYTES // (4 * seeds * rows)))
        for first in range(0, epochs, each):
            count = min(each, epochs - first)
            self._make_orders(first, count)
            last = min((first + count) * work.updates_per_epoch, updates)
            yield first * work.updates_per_epoch, last

    def _make_orders(self, first: int, count: int) -> None:
        seeds, rows = self.tiles.seeds, self.work.rows
        table = self.values.get("orders")
        if table is None or table.shape[1] != count:
            # With room at the end for a vector that is loaded from the last few places.
            memory = room((len(seeds) * count * rows + 64,), np.int32, 0)
            table = memory[: len(seeds) * count * rows].reshape(len(seeds), count, rows)
        self.values |= {
            "orders": table,
            "order_of": self.tiles.order_of,
            "first_epoch": first,
            "epochs": count,
        }
        make = self.program.code.function(
            ORDERS, *[ctypes.c_void_p, *[ctypes.c_int64] * 5, ctypes.c_void_p]
        )
        kind = KINDS[self.work.group.order]
        few = max(1, _PIECE // (count * rows))  # seeds at a time: a stop is noticed in between
        parts = np.linspace(0, len(seeds), self.threads + 1).astype(int)

        def part(start: int, stop: int) -> None:
            for seed in range(start, stop, few):
                if self.values["stop"][0]:
                    return
                some, out = seeds[seed:], table[seed:].ctypes.data
                make(some.ctypes.data, min(few, stop - seed), first, count, rows, kind, out)

        self._on_threads([partial(part, int(a), int(b)) for a, b in pairwise(parts)])

    def _on_threads(self, calls: list[Callable[[], Any]]) -> None:
        """All calls at once. The program lets go of Python's lock; this thread looks on, so that
        an interruption is noticed, which ends them. Never left before they have ended: they write
        to this object's arrays."""
        ended = [threading.Event() for _ in calls]

        def ending(call: Callable[[], Any], event: threading.Event) -> None:
            try:
                call()
            finally:
                event.set()

        pairs = list(zip(calls, ended, strict=True))
        threads = [threading.Thread(target=ending, args=pair, daemon=True) for pair in pairs]
        try:
            for thread in threads:
                thread.start()  # an interruption, or the system's refusal, may come out of this
            self._look_on(ended)
        except BaseException:
            self.values["stop"][0] = 1
            running = [e for e, t in zip(ended, threads, strict=True) if t.ident is not None]
            while not all(event.is_set() for event in running):
                # Not Thread.join, which an interruption makes believe that the thread has ended.
                with suppress(KeyboardInterrupt):
                    for event in running:
                        event.wait()
            raise

    def _look_on(self, ended: list[threading.Event]) -> None:
        """Wait, and tell how far the program is."""
        before, width = self._done(), self.program.spec.width
        onlooker = self.work.onlooker
        for event in ended:
            while not event.wait(_LOOK):
                now = self._done()
                if now > before:
                    self.tick((now - before) * width, 0)
                    before = now
                if onlooker is not None and onlooker.due():
                    onlooker.look(self._glimpse(onlooker))

    def _done(self) -> int:
        """Updates done, over all tiles."""
        return int(np.maximum(self.values["progress"], 0).sum())

    def _glimpse(self, onlooker: Onlooker, done: bool = False) -> Glimpse:
        """What is written so far, while the program may be writing more."""
        work = self.work
        shown = onlooker.places(work)
        return glimpse(self.values, self.program.layout, self.tiles, work, shown, done)

    def _put_together(self) -> Outcome:
        work, tiles, runs = self.work, self.tiles, len(self.work)
        status, first_bad, steps_done, _ = (
            tiles.gathered(self.values["whole"][:, k], runs) for k in range(4)
        )
        at = work.record_at
        steps = np.broadcast_to(at, (runs, len(at)))
        if (steps_done != work.updates).any():
            steps = np.where(at <= steps_done[:, None], at, -1)
        layout, problem = self.program.layout, work.problem
        final = tiles.gathered(self.values["numbers"], runs)
        flat = torch.from_numpy(np.ascontiguousarray(final[:, : layout.size]))
        parameters = layout.split(flat)
        path = self.values.get("path")
        kept = None
        if path is not None:
            rows = torch.from_numpy(np.ascontiguousarray(tiles.gathered(path, runs)))
            pieces = layout.split(rows.flatten(0, 1))
            kept = {n: p.unflatten(0, rows.shape[:2]) for n, p in pieces.items()}
        return Outcome(
            status=np.where(status == -1, 0, status).astype(np.int8),
            first_bad_step=first_bad.astype(np.int64),
            steps_done=steps_done.astype(np.int64),
            steps=steps,
            loss=tiles.gathered(self.values["loss"], runs),
            validation_loss=self._kept("validation_loss"),
            batch_loss=self._kept("batch_loss"),
            gradient_norm=self._kept("gradient_norm"),
            parameters={n: parameters.get(n, self.starts[n]) for n in problem.names},
            buffers={n: self.starts[n] for n in problem.others},
            path=kept,
        )

    def _kept(self, name: str) -> NDArray[Any] | None:
        values = self.values.get(name)
        return None if values is None else self.tiles.gathered(values, len(self.work))


def _counts(work: Work, rows: int) -> dict[str, Any]:
    """Counts and bounds."""
    options, per_epoch = work.options, work.updates_per_epoch
    gap = {"epoch": per_epoch, "step": 1}.get(str(options.every), options.every)
    judged = options.tolerance is not None or options.patience is not None
    return {
        "updates": work.updates,
        "per_epoch": per_epoch,
        "batch": rows if work.full else (work.group.batch_size or 1),
        "records": len(work.record_at),
        "gap": int(gap),
        "every_loss": int("loss" in options.keep or judged),
        "divergence": float("inf") if options.divergence is None else float(options.divergence),
        "tolerance": -1.0 if options.tolerance is None else float(options.tolerance),
        "patience": 2**62 if options.patience is None else options.patience,
    }
