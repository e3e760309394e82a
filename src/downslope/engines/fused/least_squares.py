r"""Tall least squares: a million rows become the few rows of a factor.

Where a loss is Σ (c + Σ_j a_j θ_j)² over the rows, all that it needs to know of them is the cross
products of the columns Z = [a | c]. With a triangular R for which RᵀR = ZᵀZ, R has the same sum of
squares as Z for every θ, hence the same loss, gradient and path. R has a row for each column.

How exactly? Rounding puts some 1e-16 · ‖Z_i‖‖Z_j‖ into each cross product, and so into the loss
[θ 1] ZᵀZ [θ 1]ᵀ as much as 1e-16 / λ of its size, where λ is the least eigenvalue of the cross
products of columns scaled to length 1: columns that nearly make up each other, a target that is
fitted nearly perfectly. So columns are *turned* before they are multiplied, Z̃ = Z T with T upper
triangular and a diagonal of ones, until λ is at least `_LEAST`; then R = R̃ T⁻¹. What T must be, a
thousand rows tell: their own factor. This is Cholesky QR, preconditioned by a sample, and if the
sample misled, repeated (Fukaya et al., "Shifted Cholesky QR for computing the QR factorization of
ill-conditioned matrices", 2020). One pass over the rows is enough for all but strange data; a QR of
the rows themselves, which is as exact, takes five times as long.

A column that others make up to 1e-14 of its length, as the indicators of all classes make up the
intercept, is left out; rounding in the rows says no more about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from downslope.data import Rows, tensors
from downslope.engines.fused.affine import NotSquaresError
from downslope.engines.fused.agreement import is_derivative, moved
from downslope.engines.fused.columns import stands_by_columns
from downslope.engines.fused.cross_passes import Passes, Turn
from downslope.engines.fused.cross_products import Form, form_of
from downslope.engines.fused.factor_graphs import factor_rows, factor_source
from downslope.engines.fused.graphs import Material, Source
from downslope.engines.fused.remembered import remembered
from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.processes import threads
from downslope.engines.work import Work
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem

_TALL = 8
"""Rows for each row of the factor, at least: below, there is nothing to be gained."""

_NUMBERS = 2**14
"""Rows × columns, at least. The engine is taken for 20,000 updates or more of all runs together,
which take some 20 ms at this size; here, a new problem is a trace and a small program more."""

_COLUMNS = 256
"""Columns, at most: their cross products grow with the square."""

_LONGEST = 10_000
"""Operations on a row, and constants, at most: they are written out as straight-line code."""

_WIDEST = 1024
"""Numbers in a row, at most, for the same reason."""

_LEAST, _SAMPLED_LEAST = 1e-4, 1e-3
"""The least eigenvalue that will do: rounding is magnified to 1e-12."""

_SHIFT = 1e-13
"""Added to cross products, scaled to 1, that rounding may have made indefinite."""

_NOTHING = 1e-14
"""A column's length, against what it was made of, at which it is rounding alone."""

_OPEN = 1e-3
"""Directions of the features, against the longest, at which their multiples are left open."""

_SAMPLE, _TRIES = 1024, 6

_TRIED = 4
"""Times some rows' gradient is compared with the slope of their loss."""


def material(work: Work, source: Source, most: int) -> Material | None:
    """The work's rows replaced by those of a factor; None if they cannot be, or it would not pay.

    Whether it pays does not depend on how many runs there are: a run's bits must not.

    Args:
        source: the problem's own graphs.
        most: samples worked on together, at most.
    """
    problem, train = work.problem, work.problem.train
    constants = [_named(problem, name) for name in source.constants]
    if train is None or not _is_worth_a_look(work, source, constants):
        return None
    given = {name for start in work.starts for name in (start or ())}
    fixed = not problem.draws_start and given.isdisjoint(source.constants)
    by_column = tuple(map(stands_by_columns, tensors(train)))
    found = remembered(
        problem,
        ("columns", fixed, by_column),
        lambda: _prepared(problem, source, constants, fixed, most),
    )
    # Cross products take the time of some columns / 4 updates, and there is more to be done.
    if found is None or work.updates < sum(group.size for group in found[0].groups):
        return None
    form, few = found
    made = []
    for rows in (train, problem.validation):
        factor = None if rows is None else _factor(form, rows, constants, source.mean)
        if rows is not None and factor is None:
            return None
        made.append(factor)
    count = max(group.size for group in form.groups)
    return Material(few, made[0], made[1], replaced=len(train), factor=count)


def _is_worth_a_look(work: Work, source: Source, constants: Sequence[Tensor]) -> bool:
    """Whether it is full-batch descent as torch would do it, on plain numbers, not too many of
    them in a row."""
    data = tensors(work.problem.train)
    usual = work.full and work.options.gradient is None and source.same
    here = work.problem.device.type == "cpu"
    alike = all(t.dtype == work.problem.dtype for t in data)
    width = sum(t[0].numel() for t in data)
    longest = max(source.operations(1), sum(c.numel() for c in constants))
    numbers = work.rows * (source.layout.size + 1)  # there are no more columns than that
    short = width <= _WIDEST and longest <= _LONGEST
    return usual and here and alike and short and numbers >= _NUMBERS


def _is_low(rows: Rows, columns: int) -> bool:
    return len(rows) < _TALL * columns or len(rows) * columns < _NUMBERS


def _named(problem: Problem, name: str) -> Tensor:
    template = problem.template
    named = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    return named[MODEL_PREFIX + name].detach()


def _prepared(
    problem: Problem, source: Source, constants: list[Tensor], fixed: bool, most: int
) -> tuple[Form, Source] | None:
    """What does not depend on the numbers: the columns, and the graphs of a factor's rows."""
    assert problem.train is not None
    loss, shapes = source.train[1].last_output(), [*map(tuple, source.layout.shapes.values())]
    try:
        form = form_of(loss, shapes, constants, fixed, problem.train)
    except (NotSquaresError, UnknownOperationError):
        return None
    except Exception:  # a graph of a form that the interpreter was not made for: its rows stay
        return None
    columns = sum(group.size for group in form.groups)
    if columns > _COLUMNS or _is_low(problem.train, columns):
        return None
    parameters = [_named(problem, name) for name in source.layout.shapes]
    if not _follows_its_loss(problem, source, [*parameters, *constants]):
        return None
    return form, factor_source(form.groups, source, [*parameters, *constants], most)


def _follows_its_loss(problem: Problem, source: Source, values: Sequence[Tensor]) -> bool:
    """Whether the rows' gradient is that of their loss, which is all that a factor knows."""
    assert problem.train is not None
    traced, count = source.train[source.block], len(source.layout.shapes)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_TRIED):
        places = torch.randint(len(problem.train), (source.block,), generator=generator)
        data = tensors(problem.train[places])
        if not is_derivative(traced, count, (moved(values, generator), data)):
            return False
    return True


# -- the factor ------------------------------------------------------------------------------------


def _factor(form: Form, rows: Rows, constants: Sequence[Tensor], mean: bool) -> Rows | None:
    """The factors of all groups side by side, and in place of y what parameters are counted from.

    The sum of the squares of their products is the loss. None if there is none to be had, as where
    something is not finite.
    """
    dtype = rows.x.dtype
    count = max(_SAMPLE, 16 * max(group.size for group in form.groups))
    spread = torch.arange(min(count, len(rows))) * max(len(rows) // count, 1)
    sample = Passes(form, rows[spread], constants)
    steps = _steps(sample, [Turn.none(group) for group in form.groups], _SAMPLED_LEAST, rough=True)
    if steps is not None:
        with threads(1):
            origins = [step.solution().to(dtype).double() for step in steps]
        given = zip(origins, steps, strict=True)
        turns = [Turn(o, step.turn.features, torch.zeros_like(o)) for o, step in given]
        steps = _steps(sample, turns, _SAMPLED_LEAST)
    if steps is not None:
        steps = _steps(Passes(form, rows, constants), [step.turn for step in steps], _LEAST)
    if steps is None:
        return None
    made = factor_rows(
        form.groups,
        [step.triangle for step in steps],
        [step.turn.origin for step in steps],
        len(rows) if mean else 1,
        dtype,
    )
    return made if all(bool(t.isfinite().all()) for t in tensors(made)) else None


@dataclass(frozen=True)
class _Step:
    """What a pass tells of a group.

    Attributes:
        triangle: (features + 1, size): the factor; of the targets' own part only the length.
        turn: how the columns were turned, or should be, if they are not `settled`.
        settled: the triangle is good.
        rough: all of it but the targets' length is.
    """

    triangle: Tensor
    turn: Turn
    settled: bool
    rough: bool

    def solution(self) -> Tensor:
        """What to multiply features by so that targets become small, (features, targets).

        Moderate where the columns leave it open, lest large numbers cancel.
        """
        left, right = self.triangle[:-1].split(
            [len(self.triangle) - 1, *self.turn.origin.shape[1:]], 1
        )
        lengths = torch.where(left.any(0), left.norm(dim=0), 1.0)
        made = torch.linalg.lstsq(left / lengths, -right, rcond=_OPEN, driver="gelsd").solution
        return self.turn.origin + made / lengths[:, None]


def _steps(
    passes: Passes, turns: Sequence[Turn], least: float, rough: bool = False
) -> list[_Step] | None:
    """The factor of each group, after as many passes as it takes; None if too many, or if the
    numbers are not finite."""
    for _ in range(_TRIES):
        crossed = passes(turns)
        if not all(bool(products.isfinite().all()) for products in crossed):
            return None
        given = zip(turns, crossed, strict=True)
        with threads(1):  # so that the last bits do not depend on how many there are
            steps = [_step(turn, products, least) for turn, products in given]
        if all(step.settled or (rough and step.rough) for step in steps):
            return steps
        turns = [step.turn for step in steps]
    return None


def _step(turn: Turn, products: Tensor, least: float) -> _Step:
    """The factor of cross products of turned columns, and how to turn them for a better one."""
    features = len(turn.features)
    one = torch.eye(features, dtype=torch.float64)
    back = solve_triangular(turn.features, one, upper=True, unitriangular=True)
    lengths, aims = products.diagonal().sqrt().split([features, len(products) - features])
    live = lengths > _NOTHING * (lengths @ back.abs() @ turn.features.abs())
    size = lengths[live]
    scaled = products[:features, :features][live][:, live] / torch.outer(size, size)
    smallest = float(torch.linalg.eigvalsh(scaled)[0]) if len(size) else 1.0
    firm = smallest >= least
    shift = 0.0 if firm else max(_SHIFT, -2 * smallest)
    lower = torch.linalg.cholesky(scaled + shift * one[: len(size), : len(size)])
    upper = lower.T * size
    made_up = solve_triangular(
        lower, products[:features, features:][live] / size[:, None], upper=False
    )
    left = aims**2 - (made_up**2).sum(0)  # of the targets, by the features

    triangle = torch.zeros(features + 1, len(products), dtype=torch.float64)
    triangle[:features][live] = torch.cat(
        [upper @ back[live], made_up - upper @ turn.targets[live]], 1
    )
    triangle[features, features:] = left.clamp(min=0).sqrt()
    rounding = aims <= _NOTHING * (aims + lengths @ turn.targets.abs())
    if firm and bool((rounding | (left >= least * aims**2)).all()):
        return _Step(triangle, turn, settled=True, rough=True)

    turned, added = turn.features.clone(), turn.targets.clone()
    added[live] -= solve_triangular(upper, made_up, upper=True)
    if not firm:
        unit = upper / upper.diagonal()[:, None]
        turned[:, live] = solve_triangular(unit, turned[:, live], upper=True, left=False)
        added[live] = unit @ added[live]
    return _Step(triangle, Turn(turn.origin, turned, added), settled=False, rough=firm)
