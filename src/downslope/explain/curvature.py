"""How a loss is bent where runs stand: measured, never changing a run.

A `Curvature` is a problem's loss over its training rows as a function of rows of numbers, one row a
run: the parameters that the loss depends on, one after another. It answers for many runs at once;
runs with a number that is not finite are left out and answered with NaN.

Products with the Hessian are gradients of gradient · vector (B. Pearlmutter, "Fast exact
multiplication by the Hessian", 1994); those with the Gauss-Newton matrix go through the model,
through the loss's own Hessian and back (N. Schraudolph, "Fast curvature matrix-vector products",
2002). Forward mode, jvp(grad(loss)), would do the same; torch 2.13 refuses it for a mean squared
error under vmap, and ends the process where that is traced.

>>> from torch import nn
>>> X = torch.arange(-5, 5, 0.1, dtype=torch.float64)[:, None]
>>> line = nn.Linear(1, 1, dtype=torch.float64)
>>> curvature = Curvature(Problem.from_model(line, X, -5 * X, loss=nn.MSELoss()))
>>> least, largest = curvature.extremes(curvature.start())
>>> [round(float(value), 5) for value in (least, largest)]
[1.99932, 16.67068]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from downslope.data import Rows, tensors
from downslope.engines.layout import Layout
from downslope.engines.program import NotStackableError, trace, used_parameters
from downslope.errors import ProblemError
from downslope.explain.lanczos import CLOSE, Product, extremes
from downslope.explain.minibatches import NoiseScale, noise_scale
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.problem_rows import in_double_precision, row_blocks

_NUMBERS = 2**24
"""Numbers of single samples' matrices that are made at a time, about."""

_OFTEN = 40
"""Calls of one kind after which a trace pays: making it takes as long as some 40 calls."""


class Curvature:
    """A problem's loss around given parameters.

    In double precision, if the model's own code allows for it; as the model is trained, if that is
    the same from one pass to the next, else as it is evaluated.

    Args:
        rows: in place of the training rows.

    Attributes:
        layout: the parameters that the loss depends on.
        training: whether the loss is taken as it is trained.
    """

    def __init__(self, problem: Problem, rows: Rows | None = None) -> None:
        if rows is not None:
            problem = replace(problem, train=rows, given=None)
        self.problem = in_double_precision(problem)
        self.training = not (problem.random or problem.keeps_state)
        self._objective = self.problem.fresh(0)
        if not self.training:  # a part that was set to evaluation stays so while others are trained
            self._objective.eval()
        used = used_parameters(self.problem)
        self.layout = Layout({n: s for n, s in self.problem.shapes.items() if n in used})
        self.dtype = self.problem.dtype
        self._known: dict[Any, Callable[..., Any]] = {}
        self._calls: Counter[Any] = Counter()
        self._alone = False

    # -- places --------------------------------------------------------------------------------

    def start(self, seed: int = 0) -> Tensor:
        """Where a seed starts, (1, size)."""
        named = dict(self.problem.fresh(seed).named_parameters())
        return self.flat({n: named[MODEL_PREFIX + n].detach()[None] for n in self.layout.shapes})

    def flat(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """{name: (runs, *shape)}, as `Runs.parameters` has it, as (runs, size)."""
        named = {n: parameters[n].detach().to(self.dtype) for n in self.layout.shapes}
        return self.layout.join(named)

    # -- losses, gradients, products -----------------------------------------------------------

    def gradients(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (runs, size) and losses (runs,)."""
        gradients, losses = self._summed("gradient", grad_and_value(self._loss), flat, [])
        return gradients, losses

    def hessian_product(self, flat: Tensor) -> Product:
        """Each run's Hessian times a vector, for (runs, size) vectors."""

        def one(row: Tensor, rest: Any, data: Any, vector: Tensor) -> tuple[Tensor]:
            return (_bent(lambda at: self._loss(at, rest, data), row, vector),)

        return lambda vectors: self._summed("hessian", one, flat, [vectors])[0]

    def gauss_newton_product(self, flat: Tensor) -> Product:
        """The same with the Gauss-Newton matrix: the Hessian without the model's own curvature.

        Raises:
            ProblemError: if the problem has no loss that stands apart from its model.
        """
        if self._objective.loss is None:
            raise ProblemError("no Gauss-Newton matrix: the problem's loss is part of its model")
        loss = self._objective.loss

        def one(row: Tensor, rest: Any, data: Any, vector: Tensor) -> tuple[Tensor]:
            def model(at: Tensor) -> Tensor:
                made: Tensor = self._model(at, rest, data[0])
                return made

            made, back = cast("tuple[Tensor, Callable[..., Any]]", vjp(model, row))
            # u ↦ Jᵀu is linear: the gradient of (Jᵀu) · v by u is J v.
            moved = grad(lambda u: (back(u)[0] * vector).sum())(torch.zeros_like(made))
            bent = _bent(lambda m: loss(m, data[1]), made, moved)
            answer: tuple[Tensor] = back(bent)
            return answer

        return lambda vectors: self._summed("gauss-newton", one, flat, [vectors])[0]

    def extremes(
        self, flat: Tensor, roots: Tensor | None = None, close: float = CLOSE
    ) -> tuple[Tensor, Tensor]:
        """The Hessian's least and largest eigenvalue, each (runs,).

        Args:
            close: how closely they are to be known, as a share of the larger.
            roots: (runs, size): what each number's step is multiplied by, as a root. With P the
                diagonal that Adam divides gradients by, P^−½ gives the eigenvalues of P^−½ H P^−½.
        """
        product = self.hessian_product(flat)
        if roots is not None:
            plain, roots = product, roots.to(self.dtype)
            product = lambda v: roots * plain(roots * v)  # noqa: E731
        return extremes(product, flat.shape[1], len(flat), dtype=self.dtype, close=close)

    def hessian(self, flat: Tensor) -> Tensor:
        """The whole matrix, (runs, size, size): for few parameters."""
        product = self.hessian_product(flat)
        columns = torch.eye(flat.shape[1], dtype=self.dtype)
        return torch.stack([product(c.expand_as(flat)) for c in columns], -1)

    # -- sample by sample ----------------------------------------------------------------------

    def sample_gradients(self, row: Tensor) -> Tensor:
        """One run's gradients of its samples' own losses, (samples, size)."""

        def one(place: Tensor, rest: Any, data: Any) -> Tensor:
            gradient: Tensor = grad(self._loss)(place, rest, [d[None] for d in data])
            return gradient

        return self._by_sample(one, row)

    def noise_scale(self, row: Tensor) -> NoiseScale:
        """How noisy one run's batches are, from the gradients of single samples and of all.

        The noise is the summed variance of a sample's gradient; of the full gradient's squared
        length, the share that noise has in it (noise / samples) is not counted.
        """
        gradients = self.sample_gradients(row)
        single, whole = (gradients**2).sum(1).mean(), (gradients.mean(0) ** 2).sum()
        return noise_scale((1, float(single)), (len(gradients), float(whole)))

    def sample_hessians(self, row: Tensor) -> Tensor:
        """One run's Hessians of its samples' own losses, (samples, size, size)."""
        size = len(row)

        def one(place: Tensor, rest: Any, data: Any) -> Tensor:
            single = [d[None] for d in data]
            along = vmap(lambda v: _bent(lambda at: self._loss(at, rest, single), place, v))
            made: Tensor = along(torch.eye(size, dtype=self.dtype))
            return made

        return self._by_sample(one, row)

    # -- inside --------------------------------------------------------------------------------

    def _by_sample(self, one: Callable[..., Tensor], row: Tensor) -> Tensor:
        assert self.problem.train is not None
        data = tensors(self.problem.train)
        rest = {name: buffer.clone() for name, buffer in self._objective.named_buffers()}
        many = vmap(lambda *sample: one(row, rest, sample), chunk_size=_chunk(len(row)))
        made: Tensor = many(*data)
        return made

    def _named(self, row: Tensor, rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {MODEL_PREFIX + n: p[0] for n, p in self.layout.split(row[None]).items()}
        return {**named, **{name: buffer.clone() for name, buffer in rest.items()}}

    def _loss(self, row: Tensor, rest: Mapping[str, Tensor], data: Sequence[Tensor]) -> Tensor:
        made: Tensor = functional_call(self._objective, self._named(row, rest), tuple(data))
        return made

    def _model(self, row: Tensor, rest: Mapping[str, Tensor], x: Tensor) -> Tensor:
        start = len(MODEL_PREFIX)
        named = {
            n[start:]: t for n, t in self._named(row, rest).items() if n.startswith(MODEL_PREFIX)
        }
        made: Tensor = functional_call(self._objective.model, named, (x,))
        return made

    def _summed(
        self, kind: str, one: Callable[..., Any], flat: Tensor, vectors: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """What `one` gives for each run, put together from blocks of rows.

        Runs that are not finite are computed at 0 and answered with NaN.
        """
        good = flat.isfinite().all(1)
        moving = [torch.where(good[:, None], t, 0.0) for t in (flat, *vectors)]
        buffers = dict(self._objective.named_buffers())
        rest = [b.expand(len(flat), *b.shape).clone() for b in buffers.values()]
        count = len(moving) + len(rest)

        def of_run(*given: Tensor) -> Any:
            named = dict(zip(buffers, given[len(moving) : count], strict=True))
            return one(given[0], named, given[count:], *given[1 : len(moving)])

        total: list[Tensor] = []
        for data, weight in self._blocks():
            made = self._many(kind, of_run, [*moving, *rest], data)
            parts = [weight * part for part in made]
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
        return tuple(
            torch.where(good.reshape(-1, *[1] * (t.ndim - 1)), t, torch.nan) for t in total
        )

    def _many(
        self, kind: str, of_run: Callable[..., Any], each: list[Tensor], data: Sequence[Tensor]
    ) -> Any:
        """All runs side by side; one after another where the model's code cannot be batched."""
        if not self._alone:
            many = vmap(of_run, in_dims=(*[0] * len(each), *[None] * len(data)))
            try:
                with sdpa_kernel(SDPBackend.MATH):  # torch's others cannot be bent twice
                    return self._traced(kind, many, [*each, *data])
            except RuntimeError as error:
                said = str(error)
                if "vmap" not in said and "data-dependent" not in said:
                    raise
                self._alone = True
        with sdpa_kernel(SDPBackend.MATH):
            found = [of_run(*(t[run] for t in each), *data) for run in range(len(each[0]))]
        return tuple(map(torch.stack, zip(*found, strict=True)))

    def _traced(self, kind: str, many: Callable[..., Any], given: list[Tensor]) -> Any:
        """The same, from a trace where it is asked for often and there can be one."""
        key = (kind, *(t.shape for t in given))
        self._calls[key] += 1
        if self._calls[key] <= _OFTEN:
            return many(*given)
        if key not in self._known:
            try:
                self._known[key] = trace(many, given)
            except NotStackableError:
                self._known[key] = many
        return self._known[key](*given)

    def _blocks(self) -> list[tuple[list[Tensor], float]]:
        rows = self.problem.train
        if rows is None:
            return [([], 1.0)]
        blocks = row_blocks(self.problem, rows)
        return [([*tensors(rows[block])], weight) for block, weight in blocks]


def _bent(function: Callable[[Tensor], Tensor], place: Tensor, vector: Tensor) -> Tensor:
    """The Hessian of the function at the place, times the vector."""
    made: Tensor = grad(lambda at: (grad(function)(at) * vector).sum())(place)
    return made


def _chunk(size: int) -> int:
    return max(1, _NUMBERS // size**2)
