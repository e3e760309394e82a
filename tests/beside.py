"""A descent by the compiled engine beside the same by `looped`, which is the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from downslope import Problem, descend
from downslope.errors import EngineError
from downslope.runs import Runs

ALL_KEPT = ("loss", "batch_loss", "gradient_norm", "parameters")
RECORDS = ("loss", "validation_loss", "batch_loss", "gradient_norm")
OUTCOMES = ("status", "first_bad_step", "steps_done", "steps")


def fused(problem: Problem, optimizer: Any = "SGD", **asked: Any) -> Runs:
    """Carried out by the compiled engine, or an EngineError."""
    return descend(problem, optimizer, engine="fused", progress=False, **asked)


def looped(problem: Problem, optimizer: Any = "SGD", **asked: Any) -> Runs:
    """Carried out by torch.optim itself."""
    return descend(problem, optimizer, engine="looped", progress=False, **asked)


def assert_as_looped(problem: Problem, optimizer: Any = "SGD", within: float = 1e-9, **asked: Any):
    """Both engines agree within `within`, or ten times what moving the start by a rounding error
    changes, whichever is larger; and on what became of each run, unless that changes it too.

    Returns:
        the compiled engine's runs.
    """
    found = fused(problem, optimizer, **asked)
    wanted = looped(problem, optimizer, **asked)
    assert found.loss.dtype == wanted.loss.dtype
    same, off = _same(found, wanted), _off(found, wanted)
    if (same & (off <= within)).all():
        return found
    moved = looped(problem, optimizer, **_nudged(problem, asked))
    firm = _same(moved, wanted)
    assert (same | ~firm).all(), f"runs {np.flatnonzero(~same & firm)} end otherwise"
    allowed = np.maximum(within, 10 * _off(moved, wanted))
    wrong = same & ~(off <= allowed)
    assert not wrong.any(), (
        f"runs {np.flatnonzero(wrong)} are off by {off[wrong]}, not {allowed[wrong]}"
    )
    return found


def assert_refused(problem: Problem, words: str, optimizer: Any = "SGD", **asked: Any) -> None:
    """The compiled engine says why not, in one sentence; `auto` finds another and is right."""
    asked = {"lr": [0.01] * 4, "steps": 3, **asked}
    with pytest.raises(EngineError, match=words) as raised:
        fused(problem, optimizer, **asked)
    assert str(raised.value).startswith("engine 'fused' cannot serve: ")
    assert "\n" not in str(raised.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("downslope.plan.FEW_UPDATES", 1)
        runs = descend(problem, optimizer, progress=False, **asked)
    assert set(runs.table["engine"]) <= {"looped", "stacked"}
    wanted = looped(problem, optimizer, **asked)
    assert _same(runs, wanted).all() and _off(runs, wanted).max() < 1e-9


def assert_same_bits(some: Runs, i: int, others: Runs, j: int, but: tuple[str, ...] = ()) -> None:
    """Run i of one and run j of the other are the same to the last bit, as far as kept."""
    for name in (*OUTCOMES, *RECORDS):
        a, b = getattr(some, name), getattr(others, name)
        if a is not None and b is not None and name not in but:
            np.testing.assert_array_equal(a[i], b[j], name)
    for name, value in some.parameters.items():
        assert torch.equal(_bits(value[i]), _bits(others.parameters[name][j])), name
    if some.path is not None and others.path is not None and "path" not in but:
        for name, value in some.path.items():
            assert torch.equal(_bits(value[i]), _bits(others.path[name][j])), name


def _bits(tensor: Tensor) -> Tensor:
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}
    return tensor.contiguous().view(whole.get(tensor.dtype, tensor.dtype))


def _same(found: Runs, wanted: Runs) -> np.ndarray:
    """Which runs end alike, and have records at the same places; (runs,)."""
    same = np.ones(len(wanted), dtype=bool)
    for name in OUTCOMES:
        same &= (getattr(found, name) == getattr(wanted, name)).reshape(len(wanted), -1).all(1)
    for name in ("loss", "validation_loss"):
        a, b = getattr(found, name), getattr(wanted, name)
        if b is not None:
            same &= (np.isfinite(a) == np.isfinite(b)).all(1)
    return same


def _off(found: Runs, wanted: Runs) -> np.ndarray:
    """The largest relative difference of parameters and records, (runs,)."""
    pairs = [(getattr(found, n), getattr(wanted, n)) for n in RECORDS]
    off = [_relative(a, b, np.abs(b)) for a, b in pairs if b is not None]
    named = [(found.parameters, wanted.parameters), (found.buffers, wanted.buffers)]
    if wanted.path is not None:
        named.append((found.path, wanted.path))
    for ours, theirs in named:
        if theirs:
            assert {n: t.dtype for n, t in ours.items()} == {n: t.dtype for n, t in theirs.items()}
            a, b = _flat(ours), _flat({name: theirs[name] for name in ours})
            size = np.abs(np.where(np.isfinite(b), b, 0.0)).max(1, keepdims=True)
            off.append(_relative(a, b, np.broadcast_to(size, b.shape)))
    return np.max(off, axis=0)


def _flat(named: Any) -> np.ndarray:
    columns = [v.to(torch.float64).reshape(len(v), -1).numpy() for v in named.values()]
    return np.concatenate(columns, axis=1)


def _relative(a: np.ndarray, b: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The largest |a - b| / size of each row, where both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        ratio = np.abs(a - b) / np.maximum(size, np.finfo(np.float64).tiny)
    ratio = np.where(both & (a != b), ratio, 0.0)
    return ratio.max(1, initial=0.0)


def _nudged(problem: Problem, asked: dict[str, Any]) -> dict[str, Any]:
    """The same from a start that is a rounding error away; that drawn by a factory stays."""
    given = asked.get("start")
    if isinstance(given, list) or problem.draws_start:
        return asked
    kept = dict(problem.template.model.named_parameters())
    start = {name: kept[name].detach() for name in problem.names}
    start |= {name: torch.as_tensor(value) for name, value in (given or {}).items()}
    error = torch.finfo(asked.get("dtype") or problem.dtype).eps
    return asked | {"start": {name: value * (1 + error) for name, value in start.items()}}
