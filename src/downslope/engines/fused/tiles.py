"""Runs laid out in tiles, and everything of theirs in arrays that a program can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused.prepare import Program
from downslope.engines.fused.rule_graphs import switches_of
from downslope.engines.fused.verdicts import FIRST_BAD, JUDGED, STEPS_DONE, WHOLE
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
    dtype = np.float32 if spec.kind == "f32" else np.float64
    flat = _rows([starts[n] for n in program.layout.shapes])
    state = _first_state(program, work, hyper, flat)
    numbers = [flat, flat, *(state[name] for name in program.rule.element_state)]
    constants = [_rows([starts[name]]) for name in program.constants]
    made = {
        "numbers": _side_by_side(tiles, numbers, flat.shape[1], dtype),
        "doubles": _side_by_side(tiles, _of_cells(program, state), 1, np.float64),
        "constants": _side_by_side(tiles, constants, 0, dtype),
        "whole": room((tiles.tiles, WHOLE, spec.width), np.int32, 0),
        "judged": room((tiles.tiles, JUDGED, spec.width), dtype, np.inf),
    }
    made["whole"][:, FIRST_BAD] = -1
    made["whole"][:, STEPS_DONE] = work.updates
    if spec.clips:
        made["clip"] = tiles.laid(work.group.clip_norm.astype(dtype))
    return made | hyper_arrays(program, hyper, tiles)


def _rows(tensors_: Sequence[Tensor]) -> Numbers:
    """Tensors (runs, *shape) side by side, (runs, numbers); a single row where runs share them."""
    shared = all(t.stride(0) == 0 for t in tensors_)
    parts = [(t[:1] if shared else t).reshape(1 if shared else len(t), -1) for t in tensors_]
    return np.concatenate([part.numpy() for part in parts], axis=1)


def _side_by_side(tiles: Tiling, parts: Sequence[Numbers], least: int, dtype: Any) -> Numbers:
    """(runs or 1, numbers) each, one after another in (tiles, numbers, width).

    Args:
        least: numbers in a part, where a single one may stand for all.
    """
    sizes = [max(part.shape[1], least) for part in parts]
    made = room((tiles.tiles, sum(sizes), tiles.run_of.shape[1]), dtype)
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        target = made[:, start : start + size]
        if len(part) == 1:
            target[...] = part[0][:, None]
        else:
            target[...] = part[tiles.run_of].transpose(0, 2, 1)
        start += size
    return made


def _first_state(program: Program, work: Work, hyper: Hyper, flat: Numbers) -> dict[str, Numbers]:
    """The optimizer's state before the first update, (runs or 1, numbers or 1) by name."""
    rule = RULES[work.group.optimizer]
    names = (*program.rule.element_state, *program.rule.cell_state)
    present = {slot.name: None if slot.absent else True for slot in program.spec.hyper}
    zeros = rule.zeros(present, switches_of(work))
    if not work.updates or set(names) <= set(zeros):
        return {name: np.zeros((1, 1)) for name in names}
    made = rule.start(torch.from_numpy(flat[:1]), hyper.at(1))
    return {n: np.zeros((1, 1)) if n in zeros else made[n].numpy() for n in names}


def _of_cells(program: Program, state: Mapping[str, Numbers]) -> list[Numbers]:
    """The state that goes with hyperparameters, a column for each cell of them."""
    ends = np.cumsum([0, *(shape.numel() for shape in program.layout.shapes.values())])
    made = []
    for cell in range(max(program.spec.cells, default=-1) + 1):
        first = int(ends[program.spec.cells.index(cell)])
        for name in program.rule.cell_state:
            place = first if state[name].shape[1] > 1 else 0
            made.append(state[name][:, place : place + 1])
    return made


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
