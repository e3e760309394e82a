"""An optimizer's update of one number as a graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, optim

from downslope.engines.fused.spec import HyperSlot
from downslope.engines.fused.trace import Traced, trace
from downslope.engines.work import Work
from downslope.optimizers import RULES


@dataclass(frozen=True)
class Rule:
    """A traced update.

    Attributes:
        graph: its inputs are parameter, gradient, both kinds of state, hyperparameters and step.
        element_state: names of the state that goes with a parameter's number.
        cell_state: of the state that goes with hyperparameters alone.
    """

    graph: Traced
    element_state: tuple[str, ...]
    cell_state: tuple[str, ...]


def rule_of(work: Work, slots: tuple[HyperSlot, ...]) -> Rule:
    """The update of this work's optimizer, with the switches and hyperparameters that it has."""
    key = _Key(
        work.group.optimizer,
        tuple(sorted(switches_of(work).items())),
        tuple((s.name, s.numbers, s.absent) for s in slots),
        work.problem.dtype,
        torch.get_default_dtype(),
    )
    return _traced(key)


def switches_of(work: Work) -> dict[str, Any]:
    """The keywords of the optimizer's rule."""
    rule = RULES[work.group.optimizer]
    taken = rule.update.__kwdefaults__ or {}
    given = {**work.group.switches, **rule.switches}
    return {name: value for name, value in given.items() if name in taken}


@dataclass(frozen=True)
class _Key:
    """What the graph of an update rule depends on."""

    optimizer: type[optim.Optimizer]
    switches: tuple[tuple[str, Any], ...]
    hyper: tuple[tuple[str, int, bool], ...]  # name, numbers, absent
    dtype: torch.dtype
    default_dtype: torch.dtype  # in which some optimizers keep state


@lru_cache(maxsize=256)
def _traced(key: _Key) -> Rule:
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
    states = [first[name].clone() for name in (*of_elements, *of_cells)]

    def update(
        parameter: Tensor,
        gradient: Tensor,
        states: list[Tensor],
        numbers: list[Tensor],
        step: Tensor,
    ) -> list[Tensor]:
        named = dict(zip((*of_elements, *of_cells), states, strict=True))
        made, after = rule.update(parameter, gradient, named, hyper_of(numbers), step, **switches)
        return [made, *(after[name] for name in (*of_elements, *of_cells))]

    step = torch.tensor(1.0, dtype=torch.float64)
    graph = trace(update, (parameter, parameter.clone(), states, numbers, step))
    return Rule(graph, of_elements, of_cells)
