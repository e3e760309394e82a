"""A batch's loss and gradients for many runs at once, traced into one torch program.

``vmap(grad_and_value(loss))`` is traced once for given shapes, and the trace is replayed: the
bookkeeping of function transforms, some ten times the work on small models, is paid once.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from downslope.data import Rows, tensors
from downslope.engines.layout import Layout
from downslope.engines.work import Handwritten, handwritten_call
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.randomness import borrowed

Traced = Callable[..., Any]
_TRIED_RUNS = 2


class Programs:
    """The traced programs of a problem, made as shapes ask for them.

    Attributes:
        layout: the parameters that the loss depends on.
        constants: names of parameters that are not descended and of buffers, one a run.
    """

    def __init__(self, problem: Problem, gradient: Handwritten | None = None) -> None:
        self.problem, self.gradient = problem, gradient
        self.training = problem.fresh(0)
        self.evaluating = problem.fresh(0).eval()
        used = used_parameters(problem)
        self.layout = Layout({n: s for n, s in problem.shapes.items() if n in used})
        self.buffers = tuple(n.removeprefix(MODEL_PREFIX) for n, _ in model_buffers(problem))
        self.constants = tuple(
            name.removeprefix(MODEL_PREFIX)
            for name, _ in problem.template.named_parameters()
            if name.removeprefix(MODEL_PREFIX) not in self.layout.shapes
        )
        self._traced: dict[Any, Traced] = {}
        self._largest: dict[int, int] = {}

    def largest(self, batch: Rows | None) -> int:
        """Elements a run of the largest tensor in a training pass over `batch`.

        Raises:
            NotStackableError: if there is no such program for many runs.
        """
        count = 0 if batch is None else len(batch)
        if count not in self._largest:
            self._largest[count] = _largest_intermediate(self.graph(batch), _TRIED_RUNS)
        return self._largest[count]

    def graph(self, batch: Rows | None) -> GraphModule:
        """A training pass over `batch` as a graph, for two runs at the problem's start."""
        problem = self.problem
        named = {**dict(problem.template.named_parameters()), **dict(model_buffers(problem))}
        stacks = {
            name.removeprefix(MODEL_PREFIX): torch.stack([value.detach()] * _TRIED_RUNS)
            for name, value in named.items()
        }
        data = tensors(batch)
        rest = [stacks[name] for name in (*self.constants, *self.buffers)]
        return trace(self._train(len(data), True), (self.layout.join(stacks), *data, *rest))

    def losses_and_gradients(
        self,
        flat: Tensor,
        constants: Sequence[Tensor],
        buffers: Sequence[Tensor],
        rows: Rows | None,
        shared: bool,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Gradients (runs, size), losses (runs,) and buffers after a training pass.

        Args:
            flat: parameters, (runs, size).
            rows: the batch; all runs' if `shared`, else with an axis of runs in front.
        """
        data = tensors(rows)
        arguments = (flat, *data, *constants, *buffers)
        program = self._get(("train", shared), arguments, lambda: self._train(len(data), shared))
        gradients, losses, *after = program(*arguments)
        return gradients, losses, tuple(after)

    def losses(
        self,
        flat: Tensor,
        constants: Sequence[Tensor],
        buffers: Sequence[Tensor],
        rows: Rows | None,
    ) -> Tensor:
        """Losses (runs,) of the same rows in evaluation mode."""
        data = tensors(rows)
        arguments = (flat, *data, *constants, *buffers)
        program = self._get(("evaluate",), arguments, lambda: self._evaluate(len(data)))
        result: Tensor = program(*arguments)
        return result

    def _get(
        self, kind: tuple[Any, ...], arguments: Sequence[Tensor], make: Callable[[], Traced]
    ) -> Traced:
        key = (*kind, *(a.shape for a in arguments))
        if key not in self._traced:
            self._traced[key] = trace(make(), arguments)
        return self._traced[key]

    def _named(self, parameters: dict[str, Tensor], rest: Sequence[Tensor]) -> dict[str, Tensor]:
        named = {**parameters, **dict(zip((*self.constants, *self.buffers), rest, strict=True))}
        return {MODEL_PREFIX + name: value for name, value in named.items()}

    def _train(self, inputs: int, shared: bool) -> Traced:
        gradient = self.gradient

        def loss(parameters: dict[str, Tensor], data: Any, rest: tuple[Tensor, ...]) -> Any:
            count = len(self.constants)
            after = tuple(b.clone() for b in rest[count:])  # a training pass may write to them
            named = self._named(parameters, (*rest[:count], *after))
            return functional_call(self.training, named, data), after

        def by_hand(parameters: dict[str, Tensor], data: Any, rest: tuple[Tensor, ...]) -> Any:
            value, after = loss(parameters, data, rest)
            assert gradient is not None
            return handwritten_call(gradient, parameters, data), (value, after)

        one = grad_and_value(loss, has_aux=True) if gradient is None else by_hand
        many = vmap(one, in_dims=(0, None if shared else 0, 0))

        def program(flat: Tensor, *others: Tensor) -> Any:
            data, rest = others[:inputs], others[inputs:]
            gradients, (losses, after) = many(self.layout.split(flat), data, rest)
            return self.layout.join(gradients), losses, *after

        return program

    def _evaluate(self, inputs: int) -> Traced:
        def loss(parameters: dict[str, Tensor], data: Any, rest: tuple[Tensor, ...]) -> Tensor:
            result: Tensor = functional_call(self.evaluating, self._named(parameters, rest), data)
            return result

        many = vmap(loss, in_dims=(0, None, 0))

        def program(flat: Tensor, *others: Tensor) -> Tensor:
            result: Tensor = many(self.layout.split(flat), others[:inputs], others[inputs:])
            return result

        return program


class NotStackableError(Exception):
    """A program cannot be made for many runs; the message is the reason."""


@contextmanager
def tracing() -> Iterator[None]:
    """Torch may trace one thing at a time; and attention as plain products, which have a batched
    form, and whose gradient can be taken apart."""
    with _tracing, sdpa_kernel(SDPBackend.MATH):
        yield


_tracing = threading.RLock()


def trace(program: Traced, arguments: Sequence[Tensor]) -> GraphModule:
    """`program` as a plain graph of ATen calls, for arguments of these shapes.

    Raises:
        NotStackableError: if an operation has no batched form, or Python code asks for values.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with tracing():
                graph: GraphModule = make_fx(program)(*arguments)
        except Exception as error:  # torch raises many kinds here; all mean the same to a caller
            raise NotStackableError(in_words(error)) from error
    for warning in caught:
        found = re.search(r"batching rule for (\S+?)\.? ", f"{warning.message} ")
        if found is not None:
            raise NotStackableError(f"torch has no batched form of {found[1]}")
    _tidy(graph)
    return graph


_ASKS_FOR_VALUES = (
    "data-dependent control flow",
    ".item()",
    "tolist() shouldn't be called",
    "Cannot access data pointer",
)
"""What torch says where code needs a number that a trace does not have."""


def in_words(error: Exception) -> str:
    """What a failed trace says, in a few words where it is known."""
    said = " ".join(str(error).split())
    if any(sign in said for sign in _ASKS_FOR_VALUES):
        return "its Python code asks for the value of a tensor"
    return f"{type(error).__name__}: {said[:200]}"


def _tidy(graph: GraphModule) -> None:
    """Take out what does nothing outside of autograd."""
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _largest_intermediate(graph: GraphModule, runs: int) -> int:
    """Elements a run of the largest tensor that the traced program makes."""
    sizes = [
        node.meta["val"].numel()
        for node in graph.graph.nodes
        if isinstance(node.meta.get("val"), Tensor)
    ]
    return max(max(sizes, default=1) // runs, 1)


def used_parameters(problem: Problem) -> set[str]:
    """The parameters that get a gradient; torch.optim leaves the others alone."""
    objective = problem.fresh(0)
    named = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    some = None if problem.train is None else problem.train[:4]
    with torch.enable_grad(), borrowed(problem.device):
        loss = objective(*tensors(some))
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name.removeprefix(MODEL_PREFIX)
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None
    }


def model_buffers(problem: Problem) -> list[tuple[str, Tensor]]:
    """The model's buffers, without those of the loss."""
    named = problem.template.named_buffers()
    return [(name, b) for name, b in named if name.startswith(MODEL_PREFIX)]
