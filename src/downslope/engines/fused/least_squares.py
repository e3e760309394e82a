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
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused.affine import NotSquaresError
from downslope.engines.fused.columns import stands_by_columns
from downslope.engines.fused.cross_products import Form, Group, Matrix, Passes, form_of
from downslope.engines.fused.graphs import Material, Source, block_of
from downslope.engines.fused.remembered import remembered
from downslope.engines.fused.trace import Traced, UnknownOperationError, trace
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
"""Operations on a row, at most: they are written out as straight-line code."""

_LEAST, _SAMPLED_LEAST = 1e-4, 1e-3
"""The least eigenvalue that will do: rounding is magnified to 1e-12."""

_SHIFT = 1e-13
"""Added to cross products, scaled to 1, that rounding may have made indefinite."""

_NOTHING = 1e-14
"""A column's length, against what it was made of, at which it is rounding alone."""

_SAMPLE, _TRIES = 1024, 6


def material(work: Work, source: Source, most: int) -> Material | None:
    """The work's rows replaced by those of a factor; None if they cannot be, or it would not pay.

    Whether it pays does not depend on how many runs there are: a run's bits must not.

    Args:
        source: the problem's own graphs.
        most: samples worked on together, at most.
    """
    problem, train = work.problem, work.problem.train
    if train is None or not work.full or work.options.gradient is not None or not source.same:
        return None
    kinds = {t.dtype for t in tensors(train)} | {problem.dtype}
    short = source.layout.size <= _LONGEST and source.operations(1) <= _LONGEST
    if problem.device.type != "cpu" or len(kinds) > 1 or not short or _is_low(train, 2):
        return None
    given = {name for start in work.starts for name in (start or ())}
    fixed = not problem.draws_start and given.isdisjoint(source.constants)
    by_column = tuple(map(stands_by_columns, tensors(train)))
    found = remembered(
        problem, ("columns", fixed, by_column), lambda: _prepared(problem, source, fixed, most)
    )
    # Cross products take the time of some columns / 4 passes of a descent.
    if found is None or 4 * work.updates < sum(group.size for group in found[0].groups):
        return None
    form, few = found
    constants = [_named(problem, name) for name in source.constants]
    factors = [
        None if rows is None else _factor(form, rows, constants, source.mean)
        for rows in (train, problem.validation)
    ]
    if factors[0] is None or (problem.validation is not None and factors[1] is None):
        return None
    return Material(few, *factors, replaced=len(train))


def _is_low(rows: Rows, columns: int) -> bool:
    return len(rows) < _TALL * columns or len(rows) * columns < _NUMBERS


def _named(problem: Problem, name: str) -> Tensor:
    template = problem.template
    named = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    return named[MODEL_PREFIX + name].detach()


def _prepared(
    problem: Problem, source: Source, fixed: bool, most: int
) -> tuple[Form, Source] | None:
    """What does not depend on the numbers: the columns, and the graphs of a factor's rows."""
    assert problem.train is not None
    loss, shapes = source.train[1].last_output(), [*map(tuple, source.layout.shapes.values())]
    constants = [_named(problem, name) for name in source.constants]
    try:
        form = form_of(loss, shapes, constants, fixed, problem.train)
    except (NotSquaresError, UnknownOperationError):
        return None
    columns = sum(group.size for group in form.groups)
    if columns > _COLUMNS or _is_low(problem.train, columns):
        return None
    values = [_named(problem, name) for name in (*source.layout.shapes, *source.constants)]
    return form, _source(form, source, values, most)


# -- the factor ------------------------------------------------------------------------------------


def _factor(form: Form, rows: Rows, constants: Sequence[Tensor], mean: bool) -> Rows | None:
    """The factors of all groups side by side, such that the sum of their squares is the loss; None
    if they are not to be had, as where something is not finite."""
    turns: Sequence[Matrix] = [np.eye(group.size) for group in form.groups]
    count = max(_SAMPLE, 16 * max(group.size for group in form.groups))
    if len(rows) > 2 * count:
        spread = torch.arange(count) * (len(rows) // count)
        sampled = _triangles(Passes(form, rows[spread], constants), turns, _SAMPLED_LEAST)
        turns = turns if sampled is None else [step.turn for step in sampled]
    steps = _triangles(Passes(form, rows, constants), turns, _LEAST)
    if steps is None:
        return None
    height = -(-max(len(step.triangle) for step in steps) // 4) * 4
    made = np.zeros((height, sum(group.size for group in form.groups)))
    column = 0
    for step, group in zip(steps, form.groups, strict=True):
        scale = np.sqrt(group.weight / (len(rows) if mean else 1))
        made[: len(step.triangle), column : column + group.size] = scale * step.triangle
        column += group.size
    factor = torch.from_numpy(made).to(rows.x.dtype)
    return Rows(factor, None) if bool(factor.isfinite().all()) else None


@dataclass(frozen=True)
class _Step:
    """What a pass tells of a group.

    Attributes:
        triangle: (features + 1, size): the factor; of the targets' own part only the length.
        turn: what to turn the columns with next.
        settled: the triangle is good.
    """

    triangle: Matrix
    turn: Matrix
    settled: bool


def _triangles(passes: Passes, turns: Sequence[Matrix], least: float) -> list[_Step] | None:
    """The factor of each group, after as many passes as it takes; None if too many, or if the
    numbers are not finite."""
    for _ in range(_TRIES):
        crossed = passes(turns)
        if not all(np.isfinite(products).all() for products in crossed):
            return None
        given = zip(passes.groups, turns, crossed, strict=True)
        steps = [_step(group.features, turn, products, least) for group, turn, products in given]
        if all(step.settled for step in steps):
            return steps
        turns = [step.turn for step in steps]
    return None


def _step(features: int, turn: Matrix, products: Matrix, least: float) -> _Step:
    """The factor of cross products of turned columns, and how to turn them for a better one."""
    turned, shift = turn[:features, :features], turn[:features, features:]
    back = np.linalg.solve(turned, np.eye(features))
    lengths, aims = np.split(np.sqrt(products.diagonal()), [features])
    before = lengths @ np.abs(back)  # bounds on what the features' lengths were
    live = lengths > _NOTHING * (before @ np.abs(turned))
    size = lengths[live]
    scaled = products[:features, :features][np.ix_(live, live)] / np.outer(size, size)
    smallest = float(np.linalg.eigvalsh(scaled)[0]) if live.any() else 1.0
    firm = smallest >= least
    added = 0.0 if firm else max(_SHIFT, -2 * smallest)
    lower = np.linalg.cholesky(scaled + added * np.eye(len(size)))
    upper = lower.T * size
    made_up = np.linalg.solve(lower, products[:features, features:][live] / size[:, None])
    left = aims**2 - (made_up**2).sum(0)  # of the targets, by the features

    better = turn.copy()
    better[:features, features:] -= turned[:, live] @ np.linalg.solve(upper, made_up)
    if not firm:
        unit = upper / upper.diagonal()[:, None]
        better[:features, :features][:, live] = np.linalg.solve(unit.T, turned[:, live].T).T
    triangle = np.zeros((features + 1, len(products)))
    triangle[:features][live, :features] = upper @ back[live]
    triangle[:features][live, features:] = made_up
    triangle[:features, features:] -= triangle[:features, :features] @ shift
    triangle[features, features:] = np.sqrt(np.maximum(left, 0.0))
    rounding = aims <= _NOTHING * (aims + before @ np.abs(shift))
    return _Step(triangle, better, firm and bool((rounding | (left >= least * aims**2)).all()))


# -- its graphs ------------------------------------------------------------------------------------


def _source(form: Form, source: Source, values: Sequence[Tensor], most: int) -> Source:
    """The sum of squares of a factor's rows, and its gradients, as graphs."""
    shapes = list(source.layout.shapes.values())
    numbers, products = _places(form.groups, source.layout.size)
    width = sum(group.size for group in form.groups)

    def passed(values: list[Tensor], data: list[Tensor]) -> list[Tensor]:
        (rows,) = data
        zero = rows.new_zeros(1)
        flat = torch.cat([*(value.reshape(-1) for value in values[: len(shapes)]), zero])
        losses, made, column = [], [], 0
        for group, places in zip(form.groups, numbers, strict=True):
            features = rows[:, column : column + group.features]
            targets = rows[:, column + group.features : column + group.size]
            left = features @ flat[places].sum(0).T + targets
            losses.append((left * left).sum())
            made.append(((2.0 * left).T @ features).reshape(-1))
            column += group.size
        gradients = torch.cat([*made, zero])[products].sum(0).split([s.numel() for s in shapes])
        pairs = zip(gradients, shapes, strict=True)
        return [*(gradient.reshape(shape) for gradient, shape in pairs), torch.stack(losses).sum()]

    def traced(samples: int) -> Traced:
        return trace(passed, (list(values), [values[0].new_zeros(samples, width)]))

    train = {1: traced(1)}
    block = block_of(train[1], source.layout, most)
    train[block] = train[1] if block == 1 else traced(block)
    return replace(
        source, mean=False, train=train, evaluate=train[1].last_output(), block=block, same=True
    )


def _places(groups: Sequence[Group], size: int) -> tuple[list[Tensor], Tensor]:
    """Where numbers are to be found: for each group, the parameters that are added up for each
    target and feature, (terms, targets, features), `size` for none; and for each parameter, the
    products of target and feature that are added up for its gradient, (terms, size)."""
    numbers, back, start = [], [[] for _ in range(size)], 0
    for group in groups:
        wanted: list[list[int]] = [[] for _ in range(len(group.targets) * group.features)]
        for target, pairs in enumerate(group.targets):
            for parameter, feature in pairs:
                place = target * group.features + feature
                wanted[place].append(parameter)
                back[parameter].append(start + place)
        numbers.append(_table(wanted, size).unflatten(1, (len(group.targets), group.features)))
        start += len(wanted)
    return numbers, _table(back, start)


def _table(lists: Sequence[Sequence[int]], none: int) -> Tensor:
    """(longest, lists): the lists as columns, filled up with `none`."""
    most = max(map(len, lists), default=0)
    return torch.tensor([[*one, *[none] * (most - len(one))] for one in lists]).reshape(-1, most).T
