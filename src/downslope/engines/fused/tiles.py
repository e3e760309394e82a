"""Runs laid out in tiles, and everything of theirs in arrays that a program can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused.prepare import Program, switches_of
from downslope.engines.fused.verdicts import JUDGED, WHOLE
from downslope.engines.layout import Hyper
from downslope.engines.work import Work
from downslope.optimizers import RULES

Numbers = NDArray[Any]
_ALIGNED = 64


@dataclass(frozen=True, eq=False)
class Tiling:
    """Which run is in which lane.

    Attributes:
        run_of: (tiles, width), the place of a run in the work; those that fill up a tile repeat
            another, and nobody looks at them.
        seeds: (seeds,), and order_of: (tiles, orders), which of them an order belongs to.
    """

    run_of: NDArray[np.int64]
    seeds: NDArray[np.int64]
    order_of: NDArray[np.int64]

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return len(self.run_of)

    def laid(self, values: Numbers) -> Numbers:
        """(runs, ...) as (tiles, ..., width), what one tile needs side by side."""
        return _aligned(np.moveaxis(values[self.run_of], 1, -1))

    def gathered(self, laid: Numbers, runs: int) -> Numbers:
        """The other way round."""
        rows = np.moveaxis(laid, -1, 1)
        flat = rows.reshape(self.run_of.size, *rows.shape[2:])
        if np.array_equal(self.run_of.reshape(-1)[:runs], np.arange(runs)):
            return flat[:runs]
        made = np.empty((runs, *flat.shape[1:]), dtype=laid.dtype)
        made[self.run_of.reshape(-1)] = flat
        return made


def tiling(work: Work, width: int, orders: int) -> Tiling:
    """Runs in their order; by seed where tiles share orders of samples."""
    runs = np.arange(len(work))
    if not orders:
        return Tiling(_filled_up(runs, width).reshape(-1, width), *[np.zeros((0,), np.int64)] * 2)
    seeds, which = np.unique(work.group.seed, return_inverse=True)
    share = width // orders
    by_seed = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))
    parts = [
        _filled_up(by_seed[start:end], share)
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    shares = _filled_up(np.concatenate(parts).reshape(-1, share), orders)
    owners = which[shares[:, 0]]
    return Tiling(shares.reshape(-1, width), seeds, _aligned(owners.reshape(-1, orders)))


def _filled_up(rows: Numbers, size: int) -> Numbers:
    """As many rows as a multiple of `size`, by repeating the last."""
    missing = -len(rows) % size
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _aligned(values: Numbers) -> Numbers:
    """A contiguous copy that starts where vectors like to start."""
    made = room(values.shape, values.dtype)
    made[...] = values
    return made


def room(shape: tuple[int, ...], dtype: Any, fill: Any = None) -> Numbers:
    """An array whose memory starts at a multiple of a vector's size."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNED, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    made = raw[start : start + size].view(dtype).reshape(shape)
    if fill is not None:
        made.fill(fill)
    return made


def data_arrays(program: Program, rows: Rows | None, prefix: str) -> dict[str, Any]:
    """X and y in memory as the program reads them: rows, or columns with room at the end."""
    made: dict[str, Any] = {}
    for name, tensor in zip(("x", "y"), tensors(rows), strict=False):
        flat = tensor.detach().reshape(len(tensor), -1).numpy()
        if program.spec.across == "samples":
            room_for = -(-len(flat) // program.spec.lanes) * program.spec.lanes
            flat = _aligned(_filled_up(flat, program.spec.lanes)[:room_for].T)
            made[f"{prefix}stride" if prefix else "row_stride"] = room_for
        made[f"{prefix}{name}"] = np.ascontiguousarray(flat)
    if rows is not None:
        made[f"{prefix}rows"] = len(rows)
    return made


def state_arrays(
    program: Program, work: Work, hyper: Hyper, tiles: Tiling, starts: Mapping[str, Tensor]
) -> dict[str, Numbers]:
    """Everything that a run carries from update to update, as it is at the start."""
    spec = program.spec
    flat = program.layout.join(starts)
    dtype = np.float32 if spec.kind == "f32" else np.float64
    rule = RULES[work.group.optimizer]
    numbers = [flat, flat]
    doubles: list[Tensor] = []
    if work.updates:
        state = rule.first_state(flat, _first_hyper(program, hyper, len(flat)), switches_of(work))
        numbers += [state[name].expand_as(flat) for name in program.element_state]
        cells = max(spec.cells) + 1
        firsts = [spec.cells.index(cell) for cell in range(cells)]
        ends = np.cumsum([0, *(s.numel() for s in problem_shapes(program))])
        for cell in range(cells):
            for name in program.cell_state:
                column = state[name]
                place = int(ends[firsts[cell]]) if column.shape[1] > 1 else 0
                doubles.append(column[:, place : place + 1].expand(len(flat), 1))
    else:
        numbers += [flat] * len(program.element_state)
    constants = [starts[n].reshape(len(flat), -1) for n in program.constants]
    runs = len(work)
    made = {
        "numbers": tiles.laid(torch.cat(numbers, 1).numpy().astype(dtype, copy=False)),
        "doubles": tiles.laid(_joined(doubles, runs).astype(np.float64, copy=False)),
        "constants": tiles.laid(_joined(constants, runs).astype(dtype, copy=False)),
        "whole": room((tiles.tiles, WHOLE, spec.width), np.int32, 0),
        "judged": room((tiles.tiles, JUDGED, spec.width), dtype, np.inf),
    }
    made["whole"][:, 1] = -1
    made["whole"][:, 2] = work.updates
    if spec.clips:
        made["clip"] = tiles.laid(work.group.clip_norm.astype(dtype))
    return made | hyper_arrays(program, hyper, tiles)


def _first_hyper(program: Program, hyper: Hyper, runs: int) -> dict[str, Any]:
    """The hyperparameters at the first update; a chunk's may be zero where the group's are not."""
    first = hyper.at(1)
    for slot in program.spec.hyper:
        if first[slot.name] is None and not slot.absent:
            first[slot.name] = torch.zeros(runs, 1, dtype=torch.float64)
    return first


def problem_shapes(program: Program) -> list[torch.Size]:
    """The shapes of the parameters that are descended."""
    return list(program.layout.shapes.values())


def _joined(columns: list[Tensor], runs: int) -> Numbers:
    return torch.cat(columns, 1).numpy() if columns else np.zeros((runs, 0))


def hyper_arrays(program: Program, hyper: Hyper, tiles: Tiling) -> dict[str, Numbers]:
    """Hyperparameters: a number a run or for all, fixed or a row a step of the schedule."""
    parts: dict[str, list[Numbers]] = {
        n: [] for n in ("hyper", "shared_hyper", "moving", "shared_moving")
    }
    for slot in program.spec.hyper:
        if slot.absent:
            continue
        values = hyper.moving[slot.name] if slot.moving else hyper.columns[slot.name][None]
        values = values.astype(np.float64)  # (steps, runs, cells[, numbers])
        values = values[..., None] if values.ndim == 3 else values
        values = values[:, :1] if slot.uniform else values
        name = ("shared_" if slot.uniform else "") + ("moving" if slot.moving else "hyper")
        parts[name].append(values.transpose(0, 3, 2, 1))  # (steps, numbers, cells, runs)
    made = {}
    for name, some in parts.items():
        if not some:
            continue
        joined = np.concatenate(some, axis=1)
        joined = joined.reshape(len(joined), -1, joined.shape[-1])  # (steps, numbers, runs)
        if not name.startswith("shared_"):
            joined = joined[:, :, tiles.run_of].transpose(0, 2, 1, 3)  # (steps, tiles, n, width)
        made[name] = _aligned(joined)
    return made
