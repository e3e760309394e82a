"""Whether a batch's loss is made of its samples' losses: their mean, or their sum.

It is tried out in double precision at several points: sets of rows against the single rows, and
larger sets against the parts they fall into, so that a loss which counts its rows, or weighs them,
shows. Rows that are rare (of a rare class, with a missing number, the largest ones) are among them.
Gradients are compared as well as losses: these may be equal by symmetry at a start.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused.trace import NotFusedError
from downslope.engines.work import Handwritten, handwritten_call
from downslope.objective import MODEL_PREFIX, Objective
from downslope.problem import Problem
from downslope.problem_rows import in_double_precision
from downslope.randomness import borrowed

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_SCALES = (0.0, 0.01, 0.3, 3.0)
"""How far each of the points is from the one before."""

_PARTS = 8
"""A set of rows falls into so many parts, each part again, down to single rows."""

_LARGEST = 4096
_MOST = 4
"""Sets of the largest size that are looked at: 16,384 rows in all."""

_COLUMNS = 4
"""Columns whose smallest and largest numbers are among them."""

_NUMBERS = 2**22
"""Numbers of a set of rows at most."""


def is_mean(problem: Problem, gradient: Handwritten | None, names: tuple[str, ...]) -> bool:
    """Whether a batch's loss and gradient are the means of its samples'; or (False) their sums.

    Args:
        names: the parameters that the loss depends on.

    Raises:
        NotFusedError: if they are neither.
    """
    if problem.train is None:
        return False
    if len(problem.train) == 1:
        return True
    generator = torch.Generator().manual_seed(0)
    answers: set[str] = set()
    with warnings.catch_warnings(), borrowed(problem.device):
        warnings.simplefilter("ignore")  # a batch of one sample is not the user's doing
        exact = _exact(problem)
        trial = _Trial(exact, gradient, names)
        for scale in _SCALES:
            trial.move(scale, generator)
            sets = _few(problem.train, generator)
            if scale == _SCALES[-2]:
                sets += _many(problem.train, generator)
            for rows, size in sets:
                answer = trial.answer(rows.to(dtype=exact.dtype), size)
                if answer == "neither":
                    raise NotFusedError(
                        "the loss couples the samples of a batch: it is neither the mean nor the "
                        "sum of theirs"
                    )
                answers |= {answer} - {""}
    if not answers:
        raise NotFusedError("no loss near the start is finite, or all are zero")
    if len(answers) > 1:
        raise NotFusedError("the loss couples the samples of a batch: now it is their mean, now "
                            "their sum")  # fmt: skip
    return answers == {"mean"}


def _few(rows: Rows, generator: torch.Generator) -> list[tuple[Rows, int]]:
    """Two and five rows, to be compared with single ones."""
    chosen = [_drawn(len(rows), count, generator) for count in (2, 5)]
    return [(rows[places], 1) for places in chosen if len(places) > 1]


def _drawn(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """So many places at most."""
    if rows <= 2**16:
        return torch.randperm(rows, generator=generator)[:count]
    return torch.randint(rows, (count,), generator=generator).unique()


def _many(rows: Rows, generator: torch.Generator) -> Iterator[tuple[Rows, int]]:
    """Large sets with the size of the parts to compare them with; one part is followed down."""
    first = _telling(rows)
    rest = _drawn(len(rows), _MOST * _LARGEST, generator)
    order = torch.cat([first, rest[~torch.isin(rest, first)]])
    each = max(int(t[:1].numel()) for t in tensors(rows))
    largest = max(min(_LARGEST, _NUMBERS // each), _PARTS)
    for start in range(0, min(len(order), _MOST * largest), largest):
        some = order[start : start + largest]
        size = -(-len(some) // _PARTS)
        yield rows[some], size
        while start == 0 and size > 1:
            some = some[:size]
            size = -(-size // _PARTS)
            yield rows[some], size


def _telling(rows: Rows) -> Tensor:
    """The places of rows that may be treated unlike the others, a few of each kind."""
    found = [torch.zeros(1, dtype=torch.int64)]
    for tensor in tensors(rows):
        flat = tensor.detach().reshape(len(rows), -1).cpu()
        if flat.is_floating_point():
            odd = ~torch.isfinite(flat).all(1)
            found.append(odd.nonzero().flatten()[:64])
            found += [flat[:, :_COLUMNS].argmin(0), flat[:, :_COLUMNS].argmax(0)]
        elif flat.shape[1] == 1:
            _, of = torch.unique(flat, return_inverse=True)
            places = torch.arange(len(rows)).flip(0)
            found.append(torch.zeros(int(of.max()) + 1, dtype=torch.int64).scatter(
                0, of.flatten().flip(0), places)[:256])  # fmt: skip
    return torch.cat(found).unique()


def _exact(problem: Problem) -> Problem:
    """A few rows of it, since a copy of all may be large."""
    assert problem.train is not None
    few = problem.train[:2]
    return in_double_precision(replace(problem, train=few, given=None, validation=None, test=None))


class _Trial:
    """An objective whose parameters are moved about."""

    def __init__(
        self, exact: Problem, gradient: Handwritten | None, names: tuple[str, ...]
    ) -> None:
        self.objective: Objective = exact.fresh(0)
        self.gradient = gradient
        named = dict(self.objective.named_parameters())
        self.parameters = {n: named[MODEL_PREFIX + n] for n in names}

    def move(self, scale: float, generator: torch.Generator) -> None:
        """Add noise of this size to the parameters."""
        for p in self.parameters.values():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.data.add_(scale * noise.to(p))

    def answer(self, rows: Rows, size: int) -> str:
        """How the rows' loss and gradient come from those of parts of this size: "mean", "sum",
        "neither", or "" where it cannot be seen."""
        before = {name: b.clone() for name, b in self.objective.named_buffers()}
        loss, whole = self._pass(rows)
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        if len(parts) == 1:
            return ""
        try:
            made = [self._pass(part) for part in parts]
        except Exception as error:
            said = " ".join(str(error).split())[:150]
            few = "a single sample" if size == 1 else "a few samples"
            raise NotFusedError(f"{few} cannot be a batch ({said})") from error
        for name, buffer in self.objective.named_buffers():
            if not torch.equal(before[name], buffer):
                raise NotFusedError("a layer gathers statistics while it is trained")
        shares = torch.tensor([len(part) / len(rows) for part in parts], dtype=torch.float64)
        losses = torch.stack([one for one, _ in made]).to(torch.float64).cpu()
        gradients = torch.stack([one for _, one in made]).to(torch.float64).cpu()
        whole = whole.to(gradients)
        if not torch.isfinite(loss) or not torch.isfinite(whole).all():
            return ""
        if not gradients.any() and not losses.any():
            return ""
        tolerance = _TOLERANCES.get(loss.dtype, 1e-4)
        for name, weights in (("mean", shares), ("sum", torch.ones_like(shares))):
            off = (weights @ gradients - whole).abs().sum()
            off_loss = (weights @ losses - loss).abs()
            near = off <= tolerance * (weights @ gradients.abs()).sum()
            if near and off_loss <= tolerance * (weights @ losses.abs()):
                return name
        return "neither"

    def _pass(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The loss and all gradients in one row."""
        data = [t.clone() for t in tensors(rows)]
        with torch.enable_grad():
            loss = self.objective(*data)
        if self.gradient is not None:
            detached = {name: p.detach() for name, p in self.parameters.items()}
            named = handwritten_call(self.gradient, detached, data)
            made = [named[name] for name in self.parameters]
        else:
            found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
            pairs = zip(found, self.parameters.values(), strict=True)
            made = [torch.zeros_like(p) if g is None else g for g, p in pairs]
        flat = torch.cat([g.detach().flatten() for g in made])
        return loss.detach(), flat
