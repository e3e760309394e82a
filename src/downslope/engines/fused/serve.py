"""Whether the fused engine can serve, how it lays the work out, and how much it takes at once."""

from __future__ import annotations

from math import prod

import torch

from downslope.data import tensors
from downslope.engines.fused.prepare import material_of, program_of
from downslope.engines.fused.trace import NotFusedError
from downslope.engines.stacked import why_not_together
from downslope.engines.work import Work
from downslope.errors import EngineError

SAMPLES_ACROSS = 4
"""Up to so many runs, samples lie across the vector, if an update has enough of them."""

_MANY_SAMPLES = 16
_MOST_RUNS = 2**16
_MUCH = 2e9
"""Numbers read by all updates of all runs together, some seconds' worth for torch."""

_OPERATIONS = 2e11
"""Operations of a chunk, a few seconds' worth: what an interruption may lose."""

_BYTES = 2**29
"""Memory of a chunk, results included."""


def layout_for(work: Work) -> str:
    """What lies across a vector: "runs" or "samples"."""
    if len(work) > SAMPLES_ACROSS or _unfit(work) is not None:
        return "runs"
    batch = _rows(work) if work.full else (work.group.batch_size or 1)
    return "samples" if batch >= _MANY_SAMPLES else "runs"


def _rows(work: Work) -> int:
    """How many rows there are to go through."""
    try:
        rows = material_of(work).train
    except NotFusedError:
        return 0
    return 0 if rows is None else len(rows)


def is_tall(work: Work) -> bool:
    """Whether so few runs are so much work only because of rows that a few others can replace."""
    numbers = sum(t[0].numel() for t in tensors(work.problem.train)) * work.rows
    if not work.full or len(work) * work.updates * numbers < _MUCH or _unfit(work) is not None:
        return False
    try:
        return material_of(work).replaced > 0
    except NotFusedError:
        return False


def why_not(work: Work, across: str) -> str | None:
    """Why this work cannot be compiled, as a sentence; None if it can."""
    reason = _unfit(work)
    if reason is not None:
        return reason
    try:
        program_of(work, across)
    except (NotFusedError, EngineError) as error:
        return str(error)
    return None


def _unfit(work: Work) -> str | None:
    """What can be told without a trace, found out once for each plan."""
    key = ("unfit", work.number)
    if key not in work.traced:
        work.traced[key] = _reason(work)
    reason: str | None = work.traced[key]
    return reason


def _reason(work: Work) -> str | None:
    reason = why_not_together(work)
    if reason is not None:
        return reason
    if work.problem.device.type != "cpu":
        return f"it compiles for the processor, and the problem is on {work.problem.device}"
    if work.problem.dtype not in (torch.float32, torch.float64):
        name = str(work.problem.dtype).removeprefix("torch.")
        return f"it computes in float32 and float64, and the problem is in {name}"
    return None


def note(work: Work) -> str:
    """What a user should know of how this work is done: the end of a sentence, or nothing."""
    material = material_of(work)
    if not material.replaced:
        return ""
    many, few = material.replaced, material.factor
    return f"; its {many:,} rows are replaced by the {few} of a least-squares factor"


def chunk_size(work: Work) -> int:
    """How many runs to take at once; set by what one run takes, so that a resumed study takes
    the same."""
    source, rows = material_of(work).source, _rows(work)
    batch = max(rows if work.full else (work.group.batch_size or 1), 1)
    operations = work.updates * (batch * source.operations(1) + 4 * source.layout.size)
    operations += len(work.record_at) * max(rows, 1) * source.operations(1)
    keep, size = work.options.keep, work.problem.dtype.itemsize
    numbers = 6 * source.layout.size + 2 * len(work.record_at)
    numbers += work.updates * len(keep & {"batch_loss", "gradient_norm"})
    numbers += len(work.record_at) * source.layout.size * ("parameters" in keep)
    moving = 0 if work.options.schedule is None else 8 * work.updates
    constants = sum(prod(shape) for shape in work.problem.shapes_of_others.values())
    bytes_ = 2 * size * (numbers + constants) + 2 * moving + 8 * len(work.record_at)
    if work.rows and not work.full and work.group.order != "cyclic":
        bytes_ += 4 * work.rows  # an epoch's order, for a seed
    most = min(_MOST_RUNS, _OPERATIONS / max(operations, 1), _BYTES / bytes_)
    return int(max(most // 256 * 256, min(max(most, 1), 256)))
