"""From work to a compiled program: what is traced, and how the program lays it out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from downslope.data import tensors
from downslope.engines.fused import compile as compiling
from downslope.engines.fused import least_squares
from downslope.engines.fused.calls import KIND_OF
from downslope.engines.fused.graphs import Material, source_of
from downslope.engines.fused.kernel import KERNEL, ORDERS, SCRATCH, written
from downslope.engines.fused.remembered import remembered
from downslope.engines.fused.rule_graphs import Rule, rule_of
from downslope.engines.fused.spec import Graphs, HyperSlot, Spec, Tensors
from downslope.engines.fused.trace import NotFusedError, UnknownOperationError
from downslope.engines.layout import Layout, cells, read_sequences
from downslope.engines.work import Work
from downslope.garbage import uncollected
from downslope.optimizers import RULES
from downslope.problem import Problem

BLOCK = 4
"""Samples worked on together, at most."""

MANY_ROWS = 2048
"""Rows in a pass from which on its sums are gathered in parts."""

_FEW_NUMBERS = 48
"""Parameters and state of a run that are kept in registers and stack slots, at most."""


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled program with what it was made for."""

    spec: Spec
    layout: Layout
    constants: tuple[str, ...]
    rule: Rule
    code: compiling.Code = field(repr=False)


def program_of(work: Work, across: str) -> Program:
    """The program for the runs of this work's group, made once for each plan.

    Raises:
        NotFusedError: if there cannot be one, with the reason.
    """
    key = ("program", work.number, across)
    if key not in work.traced:
        work.traced[key] = _program(work, across, material_of(work))
    program: Program = work.traced[key]
    return program


def material_of(work: Work) -> Material:
    """The problem's graphs and rows, made once for each plan.

    Raises:
        NotFusedError: if there are none, with the reason.
    """
    key = ("material", work.full)
    if key not in work.traced:
        try:
            work.traced[key] = _material(work)
        except NotFusedError as error:
            work.traced[key] = error
    found: Material | NotFusedError = work.traced[key]
    if isinstance(found, NotFusedError):
        raise found
    return found


@uncollected()
def _material(work: Work) -> Material:
    problem, gradient = work.problem, work.options.gradient
    for start in work.starts:
        for name, value in (start or {}).items():
            if not value.is_floating_point():
                raise NotFusedError(f"a start gives the buffer {name!r} of whole numbers")
    _check_rows(problem)
    source = remembered(problem, (gradient,), lambda: source_of(problem, gradient, BLOCK))
    replaced = least_squares.material(work, source, BLOCK)
    return replaced or Material(source, problem.train, problem.validation)


def _check_rows(problem: Problem) -> None:
    """Validation rows of whole numbers may be indices, which a program does not look at."""
    rows = problem.validation
    if rows is None or all(t.is_floating_point() for t in tensors(rows)):
        return
    objective = problem.fresh(0).eval()
    try:
        with torch.no_grad():
            objective(*(t.clone() for t in tensors(rows)))
    except Exception as error:  # another engine will say what it is
        raise NotFusedError(f"its validation rows fail ({_short(error)})") from error


@uncollected()
def _program(work: Work, across: str, material: Material) -> Program:
    problem, group, source = work.problem, work.group, material.source
    kind = KIND_OF[problem.dtype]
    slots = _slots(work)
    rule = rule_of(work, slots)
    count = source.layout.size
    numbers = count * (2 + len(rule.element_state))
    count_rows = 0 if material.train is None else len(material.train)
    batch = count_rows if work.full else (group.batch_size or 1)
    no_sum = across == "runs" and (material.train is None or batch == 1)
    registers = numbers <= _FEW_NUMBERS
    lanes = _lanes(kind, 1 if across == "samples" else _vectors(count, numbers))
    enough = source.block <= (batch // lanes if across == "samples" else batch)
    block = source.block if enough else 1
    rows = tensors(material.train)
    orders = orders_needed(work, lanes) if across == "runs" else int(_shuffles(work))
    parts = cells(group, work.problem.names)
    keep = work.options.keep
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
        cells=tuple(parts.of[n] for n in source.layout.shapes),
        hyper=slots,
        cell_state=len(rule.cell_state),
        element_state=len(rule.element_state),
        full=work.full and source.same,
        ragged=_is_ragged(work, material, batch, block * (lanes if across == "samples" else 1)),
        mean=source.mean,
        deep=max(batch, 1) > MANY_ROWS * (lanes if across == "samples" else 1),
        deep_evaluation=_most_evaluated(material)
        > MANY_ROWS * (lanes if across == "samples" else 1),
        registers=registers,
        single=no_sum and registers,
        sign=work.sign,
        validation=material.validation is not None,
        clips=clips,
        keeps_norm="gradient_norm" in keep,
        keeps_batch_loss="batch_loss" in keep,
        keeps_path="parameters" in keep,
        judges=work.options.tolerance is not None or work.options.patience is not None,
    )
    graphs = Graphs(source.train[block], source.train[1], source.evaluate, rule.graph)
    functions = [KERNEL, SCRATCH, *([ORDERS] if orders else [])]
    try:
        code = compiling.load(
            f"{spec!r}\n{graphs.text}", lambda: _written(spec, graphs), functions=functions
        )
    except RuntimeError as error:  # LLVM's
        raise NotFusedError(f"LLVM does not take its program ({_short(error)})") from error
    return Program(spec, source.layout, source.constants, rule, code)


def _written(spec: Spec, graphs: Graphs) -> str:
    try:
        return written(spec, graphs)
    except UnknownOperationError as error:
        raise NotFusedError(f"{error} is not compiled") from error
    except Exception as error:  # a graph of a form that the interpreter was not made for
        raise NotFusedError(f"its graph cannot be compiled ({_short(error)})") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150]


def _lanes(kind: str, vectors: int) -> int:
    features = compiling.host().features.split(",")
    size = 64 if "+avx512f" in features else 32 if "+avx2" in features else 16
    return size // (4 if kind == "f32" else 8) * vectors


def _vectors(count: int, numbers: int) -> int:
    """Vectors of runs worked on together: small programs would wait for their own results."""
    if count <= 4 and numbers <= 12:
        return 4
    return 2 if numbers <= 16 else 1


def _most_evaluated(material: Material) -> int:
    rows = (material.train, material.validation)
    return max(0 if some is None else len(some) for some in rows)


def _is_ragged(work: Work, material: Material, batch: int, together: int) -> bool:
    """Whether any pass over rows ends with fewer than are worked on together."""
    rows = 0 if material.train is None else len(material.train)
    passes = [batch, rows]
    if batch and not work.problem.drop_last:
        passes.append(rows % batch)
    if material.validation is not None:
        passes.append(len(material.validation))
    return any(length % together for length in passes)


def _named(problem: Problem, name: str) -> Tensor:
    template = problem.template.model
    named = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    return named[name]


def _slots(work: Work) -> tuple[HyperSlot, ...]:
    """The hyperparameters as the program takes them."""
    group, rule = work.group, RULES[work.group.optimizer]
    columns = {
        **{name: [column] for name, column in group.numbers.items()},
        **{name: list(by_pattern.values()) for name, by_pattern in group.patterned.items()},
    }
    equal = {n: all(bool((c == c[:1]).all()) for c in some) for n, some in columns.items()}
    scheduled = work.options.schedule is not None and work.updates > 0
    moving = set(read_sequences(work, [0])) if scheduled else set()
    return tuple(
        HyperSlot(
            name,
            numbers=some[0].shape[1] if some[0].ndim == 2 else 0,
            # A scheduler may make its sequence of any of the numbers.
            uniform=all(equal.values()) if name in moving else equal[name],
            moving=name in moving,
            absent=name in rule.left_out
            and name not in moving
            and not any(column.any() for column in some),
        )
        for name, some in columns.items()
    )


def _shuffles(work: Work) -> bool:
    return work.problem.train is not None and not work.full and work.group.order != "cyclic"


def orders_needed(work: Work, width: int) -> int:
    """How many orders of samples a tile's runs have between them: 0 if rows stay as stored.

    Runs of a tile share orders, so that a row is loaded once for many. Where few runs share a
    seed, tiles are shared out among several.
    """
    if not _shuffles(work):
        return 0
    _, counts = np.unique(work.group.seed, return_counts=True)
    for orders in (1, width // 16, width // 8, width // 4):
        if orders >= 1 and width % orders == 0:
            share = width // orders
            filled = (-(-counts // share) * share).sum()
            if filled <= 1.3 * counts.sum() or filled <= counts.sum() + width:
                return orders
    return width
