"""What a loss is made of, read off its autograd graph: nothing is computed, nothing is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_COMPARED = frozenset(
    {"MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0", "SoftMarginLossBackward0"}
)
"""Losses of torch that compare number by number, after torch has broadcast both sides."""

_SQUARED = frozenset({"PowBackward0", "AbsBackward0", "MulBackward0"})
"""What makes a difference a residual: pairwise differences go on to something else."""

Node = Any


@dataclass(frozen=True)
class Broadcast:
    """A comparison of n predictions with n targets that made n × n numbers.

    Attributes:
        given: the prediction's shape, (n, 1) or (n,); other: the target's; made: (n, n).
        seen: whether the target's shape was seen too, or only follows.
    """

    given: tuple[int, ...]
    other: tuple[int, ...]
    made: tuple[int, ...]
    seen: bool


def reaches(loss: Tensor, parameters: Collection[int]) -> bool:
    """Whether a loss depends on one of these parameters (by their id)."""
    return any(
        id(getattr(node, "variable", None)) in parameters for node, _ in _nodes(loss, frozenset())
    ) or (loss.grad_fn is None and id(loss) in parameters)


def broadcast(loss: Tensor, outputs: Collection[Node]) -> Broadcast | None:
    """The first comparison between the model's outputs and the loss that was broadcast to n × n.

    Only what lies between is looked at: models may well make such tables themselves.

    Args:
        outputs: the nodes that made the model's outputs.
    """
    if not outputs:
        return None
    for node, parents in _nodes(loss, frozenset(outputs)):
        name, found = node.name(), None
        if name in _COMPARED:
            found = _of_loss(node)
        elif name == "SubBackward0" and any(p.name() in _SQUARED for p in parents):
            found = _of_difference(node)
        if found is not None:
            return found
    return None


def _nodes(loss: Tensor, ends: frozenset[Node]) -> Iterator[tuple[Node, list[Node]]]:
    """The nodes behind a loss down to `ends`, each with one that uses it; loss first."""
    waiting: list[tuple[Node, list[Node]]] = [(loss.grad_fn, [])] if loss.grad_fn else []
    seen: set[Node] = set()
    while waiting:
        node, parents = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node, parents
        if node not in ends:
            waiting += [(below, [node]) for below, _ in node.next_functions if below is not None]


def _shape(node: Node) -> tuple[int, ...]:
    """The shape of what a node made."""
    return tuple(node._input_metadata[0].shape)


def _table(made: tuple[int, ...]) -> bool:
    return len(made) == 2 and made[0] == made[1] > 1


def _other(given: tuple[int, ...], made: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that together with `given` makes n × n, or None."""
    n = made[0]
    if given == (n, 1):
        return (n,)
    return (n, 1) if given == (n,) else None


def _before_expansion(node: Node) -> tuple[int, ...]:
    if node.name() == "ExpandBackward0" and node.next_functions[0][0] is not None:
        return _shape(node.next_functions[0][0])
    return _shape(node)


def _of_loss(node: Node) -> Broadcast | None:
    """Torch's own losses expand both sides first; the graph holds one side, and the target's
    strides tell the other: a side that stands still along an axis was expanded there."""
    (prediction, _), *rest = node.next_functions
    if prediction is None or prediction.name() != "ExpandBackward0" or any(r for r, _ in rest if r):
        return None
    made, given = _shape(prediction), _before_expansion(prediction)
    other = _other(given, made) if _table(made) else None
    if other is None:
        return None
    try:
        strides = node._saved_target.stride()
    except RuntimeError:  # after backward, what the graph saved is gone
        return Broadcast(given, other, made, seen=False)
    expanded = strides[0] == 0 if len(other) == 1 else strides[1] == 0
    return Broadcast(given, other, made, seen=True) if expanded else None


def _of_difference(node: Node) -> Broadcast | None:
    """A difference of a prediction and something without a gradient, to be squared or the like."""
    sides = [side for side, _ in node.next_functions if side is not None]
    made = _shape(node)
    if len(sides) != 1 or not _table(made):
        return None
    given = _before_expansion(sides[0])
    other = _other(given, made)
    return None if other is None else Broadcast(given, other, made, seen=False)
