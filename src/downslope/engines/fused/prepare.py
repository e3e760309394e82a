"""From work to a compiled program: what is traced, and how it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, optim

from downslope.data import tensors
from downslope.engines.fused import compile as compiling
from downslope.engines.fused.graphs import MOST_OPERATIONS, NotFusedError, Source, source_of
from downslope.engines.fused.kernel import KERNEL, ORDERS, build
from downslope.engines.fused.lower import KIND_OF
from downslope.engines.fused.spec import Graphs, HyperSlot, Spec, Tensors
from downslope.engines.fused.trace import Traced, trace
from downslope.engines.fused.values import UnknownOperationError
from downslope.engines.layout import Hyper, Layout
from downslope.engines.work import Work
from downslope.optimizers import RULES
from downslope.problem import Problem

BLOCK = 4
"""Samples worked on together."""

MANY_ROWS = 2048
"""Rows in an update from which on its sums are gathered in parts."""

_FEW_NUMBERS = 48
"""Parameters and state of a run that are kept in registers and stack slots, at most."""


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled program with what it was made for."""

    spec: Spec
    layout: Layout
    constants: tuple[str, ...]
    element_state: tuple[str, ...]
    cell_state: tuple[str, ...]
    code: compiling.Code = field(repr=False)


@dataclass(frozen=True)
class _RuleKey:
    """What the graph of an update rule depends on."""

    optimizer: type[optim.Optimizer]
    switches: tuple[tuple[str, Any], ...]
    hyper: tuple[tuple[str, int, bool], ...]  # name, numbers, absent
    dtype: torch.dtype


def program_for(work: Work, hyper: Hyper, across: str, orders: int, source: Source) -> Program:
    """The program for this work.

    Args:
        orders: how many orders of samples the runs of a tile have between them.

    Raises:
        NotFusedError: if there cannot be one, with the reason.
    """
    problem, group = work.problem, work.group
    kind = KIND_OF[problem.dtype]
    slots = _slots(hyper)
    rule = RULES[group.optimizer]
    key = _RuleKey(
        group.optimizer,
        tuple(sorted(switches_of(work).items())),
        tuple((s.name, s.numbers, s.absent) for s in slots),
        problem.dtype,
    )
    update, element_state, cell_state = _rule(key)
    count = source.layout.size
    numbers = count * (2 + len(element_state))
    batch = work.rows if work.full else (group.batch_size or 1)
    no_sum = across == "runs" and (problem.train is None or batch == 1)
    registers = numbers <= _FEW_NUMBERS
    lanes = _lanes(kind, 1 if across == "samples" else _vectors(count, numbers))
    block = _block(source, batch, across, lanes)
    rows = tensors(problem.train)
    keep = work.options.keep
    same = source.evaluate[1].text == _loss_alone(source.train[1]).text
    clips = bool(np.isfinite(group.clip_norm).any())
    spec = Spec(
        kind=kind,
        across=across,
        lanes=lanes,
        orders=orders,
        block=block,
        parameters=Tensors(tuple(tuple(s) for s in source.layout.shapes.values())),
        constants=Tensors(tuple(tuple(_named(problem, n).shape) for n in source.constants)),
        data=Tensors(
            tuple(tuple(t.shape[1:]) for t in rows), tuple(KIND_OF[t.dtype] for t in rows)
        ),
        cells=tuple(hyper.cells.of[n] for n in source.layout.shapes),
        hyper=slots,
        cell_state=len(cell_state),
        element_state=len(element_state),
        full=work.full and same,
        mean=source.mean,
        deep=max(batch, 1) > MANY_ROWS * (lanes if across == "samples" else 1),
        registers=registers,
        single=no_sum and registers,
        sign=work.sign,
        validation=problem.validation is not None,
        clips=clips,
        keeps_norm="gradient_norm" in keep,
        keeps_batch_loss="batch_loss" in keep,
        keeps_path="parameters" in keep,
        judges=work.options.tolerance is not None or work.options.patience is not None,
    )
    graphs = Graphs(
        source.train[block], source.train[1], source.evaluate[block], source.evaluate[1], update
    )
    functions = [KERNEL, *([ORDERS] if orders else [])]
    try:
        code = compiling.load(
            f"{spec!r}\n{graphs.text}", lambda: build(spec, graphs), functions=functions
        )
    except UnknownOperationError as error:
        raise NotFusedError(f"{error} is not compiled") from error
    return Program(spec, source.layout, source.constants, element_state, cell_state, code)


def switches_of(work: Work) -> dict[str, Any]:
    """The keywords of the optimizer's rule."""
    rule = RULES[work.group.optimizer]
    taken = rule.update.__kwdefaults__ or {}
    given = {**work.group.switches, **rule.switches}
    return {name: value for name, value in given.items() if name in taken}


def _lanes(kind: str, vectors: int) -> int:
    features = compiling.host().features.split(",")
    size = 64 if "+avx512f" in features else 32 if "+avx2" in features else 16
    return size // (4 if kind == "f32" else 8) * vectors


def _vectors(count: int, numbers: int) -> int:
    """Vectors of runs worked on together: small programs would wait for their own results."""
    if count <= 4 and numbers <= 12:
        return 4
    return 2 if numbers <= 16 else 1


def _block(source: Source, batch: int, across: str, lanes: int) -> int:
    """Samples worked on together, as far as there are so many and the program stays short.

    Raises:
        NotFusedError: if it is too long in any case.
    """
    operations = source.operations(1)
    if operations > MOST_OPERATIONS:
        raise NotFusedError(
            f"the model is too large to be compiled as straight-line code "
            f"({operations:,} operations a sample)"
        )
    here = batch // lanes if across == "samples" else batch
    for block in sorted(source.train, reverse=True):
        if block <= here and block * operations <= MOST_OPERATIONS // 4:
            return block
    return 1


def _named(problem: Problem, name: str) -> Tensor:
    template = problem.template.model
    named = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    return named[name]


def _slots(hyper: Hyper) -> tuple[HyperSlot, ...]:
    """The hyperparameters as the program takes them."""
    made = []
    for name, column in hyper.columns.items():
        moving = hyper.moving.get(name)
        values = column if moving is None else moving
        axis = 0 if moving is None else 1
        first = values.take([0], axis=axis)
        made.append(
            HyperSlot(
                name,
                numbers=column.shape[2] if column.ndim == 3 else 0,
                uniform=bool((values == first).all()),
                moving=moving is not None,
                absent=hyper.absent(name),
            )
        )
    return tuple(made)


@lru_cache(maxsize=256)
def _rule(key: _RuleKey) -> tuple[Traced, tuple[str, ...], tuple[str, ...]]:
    """The update of one number as a graph; the names of its state that go with a parameter, and
    of those that go with hyperparameters alone.

    Its inputs are parameter, gradient, both kinds of state, hyperparameters and step.
    """
    rule, switches = RULES[key.optimizer], dict(key.switches)

    def hyper_of(numbers: list[Tensor]) -> dict[str, Any]:
        given = iter(numbers)
        return {
            name: None
            if absent
            else (tuple(next(given) for _ in range(many)) if many else next(given))
            for name, many, absent in key.hyper
        }

    count = sum(max(many, 1) for _, many, absent in key.hyper if not absent)
    numbers = [torch.full((1, 1), 0.5, dtype=torch.float64) for _ in range(count)]
    wide = rule.first_state(torch.zeros(1, 2, dtype=key.dtype), hyper_of(numbers), switches)
    of_elements = tuple(name for name, value in wide.items() if value.shape == (1, 2))
    of_cells = tuple(name for name in wide if name not in of_elements)
    parameter = torch.zeros(1, 1, dtype=key.dtype)
    first = rule.first_state(parameter, hyper_of(numbers), switches)
    states = [first[name] for name in (*of_elements, *of_cells)]

    def update(
        parameter: Tensor, gradient: Tensor, states: list[Tensor], numbers: list[Tensor], step: Tensor
    ) -> list[Tensor]:
        named = dict(zip((*of_elements, *of_cells), states, strict=True))
        made, after = rule.update(
            parameter, gradient, named, hyper_of(numbers), step, **switches
        )
        return [made, *(after[name] for name in (*of_elements, *of_cells))]

    step = torch.tensor(1.0, dtype=torch.float64)
    traced = trace(update, (parameter, parameter.clone(), states, numbers, step))
    return traced, of_elements, of_cells


def _loss_alone(traced: Traced) -> Traced:
    """The graph of gradients and loss, cut down to the loss."""
    return traced.last_output()


def source(work: Work) -> Source:
    """The problem's graphs, traced once for each plan."""
    if "fused" not in work.traced:
        try:
            work.traced["fused"] = source_of(work.problem, work.options.gradient, (1, BLOCK))
        except NotFusedError as error:
            work.traced["fused"] = error
    found: Source | NotFusedError = work.traced["fused"]
    if isinstance(found, NotFusedError):
        raise found
    return found


