"""A problem's loss and gradients as graphs of a few samples, if its samples can be taken apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vjp

from downslope.data import Rows, tensors
from downslope.engines.fused.agreement import agrees, moved
from downslope.engines.fused.calls import operation_name
from downslope.engines.fused.coupling import is_mean
from downslope.engines.fused.lower import OPERATIONS
from downslope.engines.fused.separable import CoupledError, check_separable
from downslope.engines.fused.sizes import LONGEST, block_of, length, operations
from downslope.engines.fused.trace import NotFusedError, Traced, trace
from downslope.engines.layout import Layout
from downslope.engines.program import in_words, model_buffers, used_parameters
from downslope.engines.work import Handwritten, handwritten_call
from downslope.objective import MODEL_PREFIX, Function, Objective
from downslope.problem import Problem

_FEW = 3
"""Samples in a pass that is looked at for what joins them."""


@dataclass(frozen=True, eq=False)
class Source:
    """A problem as graphs.

    Attributes:
        layout: the parameters that the loss depends on.
        constants: names of parameters that are not descended, and of buffers.
        mean: whether a batch's loss is the mean of its samples' (else their sum).
        train: by the number of samples: their summed gradients and loss.
        evaluate: the loss alone of one sample, in evaluation mode.
        block: the most samples that are worked on together.
        same: whether a loss is the same in evaluation mode.
    """

    layout: Layout
    constants: tuple[str, ...]
    mean: bool
    train: dict[int, Traced]
    evaluate: Traced
    block: int
    same: bool

    def operations(self, samples: int) -> int:
        """How many elementary operations a pass over so many samples takes."""
        return operations(self.train[samples])


@dataclass(frozen=True, eq=False)
class Material:
    """What a program works on: graphs, and the rows that they take.

    Attributes:
        replaced: how many rows of the problem stand behind the rows here; 0: these are its own.
        factor: how many rows the factor has that they are replaced by.
    """

    source: Source
    train: Rows | None
    validation: Rows | None
    replaced: int = 0
    factor: int = 0


def source_of(problem: Problem, gradient: Handwritten | None, most: int) -> Source:
    """Trace a problem for one sample at a time, and for `most` where that pays.

    Raises:
        NotFusedError: if its samples cannot be taken apart, or an operation is not known.
    """
    try:
        used = used_parameters(problem)
    except Exception as error:  # whatever torch raises for what has no derivative
        raise NotFusedError(f"its gradient cannot be computed ({in_words(error)})") from error
    layout = Layout({n: s for n, s in problem.shapes.items() if n in used})
    others = [n for n, _ in problem.template.named_parameters()]
    others += [n for n, _ in model_buffers(problem)]
    names = [n.removeprefix(MODEL_PREFIX) for n in others]
    fixed = _fixed(problem)
    constants = tuple(n for n in names if n not in layout.shapes and n not in fixed)
    try:
        mean = is_mean(problem, gradient, tuple(layout.shapes))
        maker = _Maker(problem, gradient, layout, constants, mean)
        train = {1: maker.trained(1)}
        block = block_of(train[1], layout, most) if problem.train is not None else 1
        if block > 1:
            train[block] = maker.trained(block)
        for traced in train.values():
            _check_operations(traced)
        if problem.train is not None and not _is_torchs_own(problem.template):
            maker.check_apart(train[block], block)
        same = _knows_no_mode(problem.template)
        if not same:
            evaluate = maker.evaluated(1)
            same = evaluate.text == train[1].last_output().text
        else:
            evaluate = train[1].last_output()
    except NotFusedError:
        raise
    except Exception as error:  # torch raises many kinds here; all mean the same to a caller
        raise NotFusedError(f"the model cannot be traced ({in_words(error)})") from error
    _check_operations(evaluate)
    if length(train[1]) > LONGEST:
        raise NotFusedError(
            f"the model is too large to be compiled (about {length(train[1]):,} instructions a "
            f"sample, more than {LONGEST:,})"
        )
    return Source(layout, constants, mean, train, evaluate, block, same)


def _knows_no_mode(objective: Objective) -> bool:
    """Whether every part of it is known to be the same in training and in evaluation."""
    losses = torch.nn.modules.loss._Loss
    return objective.objective is None and all(
        isinstance(part, (*_WITHOUT_MODE, losses))
        and type(part).__module__.startswith(_OWN)
        and not (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))
        for part in objective.modules()
    )


def _fixed(problem: Problem) -> set[str]:
    """The buffers of whole numbers: part of the program, since they are the same in every run.

    Raises:
        NotFusedError: if they are not.
    """
    whole = {n: b for n, b in model_buffers(problem) if not b.is_floating_point()}
    other = dict(problem.fresh(1).named_buffers()) if whole and problem.draws_start else whole
    for name, buffer in whole.items():
        if not torch.equal(buffer, other[name]):
            raise NotFusedError(
                f"the buffer {name.removeprefix(MODEL_PREFIX)!r} depends on the seed"
            )
    return {name.removeprefix(MODEL_PREFIX) for name in whole}


def _is_torchs_own(objective: Objective) -> bool:
    """Whether a batch's loss is made of its samples' losses by torch's own code."""
    own = _knows_no_mode(objective) and isinstance(objective.loss, nn.Module)
    return own and not any(isinstance(part, Function) for part in objective.modules())


class _Maker:
    """Traces the passes of a problem."""

    def __init__(
        self,
        problem: Problem,
        gradient: Handwritten | None,
        layout: Layout,
        constants: tuple[str, ...],
        mean: bool,
    ) -> None:
        self.problem, self.gradient, self.mean = problem, gradient, mean
        self.layout, self.constants = layout, constants
        template = problem.template
        named = {**dict(template.named_parameters()), **dict(template.named_buffers())}
        self.values = [named[MODEL_PREFIX + name].detach() for name in (*layout.shapes, *constants)]

    def trained(self, samples: int) -> Traced:
        """Gradients and loss, summed over the samples."""
        objective, count = self.problem.fresh(0), len(self.layout.shapes)
        names = tuple(self.layout.shapes)

        def passed(values: list[Tensor], data: list[Tensor]) -> list[Tensor]:
            rest = values[count:]

            def loss(parameters: dict[str, Tensor]) -> Tensor:
                return self._total(objective, [*parameters.values(), *rest], data)

            parameters = dict(zip(names, values[:count], strict=True))
            if self.gradient is None:
                gradients, value = grad_and_value(loss)(parameters)
            else:
                times = samples if self.mean and data else 1
                made = handwritten_call(self.gradient, parameters, data)
                gradients = {name: times * made[name] for name in names}
                value = loss(parameters)
            return [*(gradients[name] for name in names), value]

        return self._traced(passed, samples)

    def check_apart(self, traced: Traced, samples: int) -> None:
        """Whether the samples of a pass over several are apart.

        Raises:
            NotFusedError: if they are not.
        """
        loss_alone = self.gradient is None  # its derivative is apart if it is
        if samples == 1:
            samples = _FEW
            traced = self.evaluated(_FEW, training=True) if loss_alone else self.trained(_FEW)
        if loss_alone:
            traced = traced.last_output()
        try:
            check_separable(traced, len(self.layout.shapes), len(self.constants), samples)
        except CoupledError as error:
            raise NotFusedError(
                "the loss couples the samples of a batch: more is made of them than a mean or a sum"
            ) from error

    def evaluated(self, samples: int, training: bool = False) -> Traced:
        """The loss alone, in evaluation mode or (`training`) as it is trained."""
        objective, count = self.problem.fresh(0), len(self.layout.shapes)
        if not training:  # a part that was set to evaluation stays so while others are trained
            objective.eval()

        def passed(values: list[Tensor], data: list[Tensor]) -> list[Tensor]:
            # As where gradients are wanted: torch takes some losses apart in another way without.
            def loss(*given: Tensor) -> Tensor:
                return self._total(objective, [*given, *values[count:]], data)

            value = vjp(loss, *values[:count])[0]
            return [value]

        def plain(values: list[Tensor], data: list[Tensor]) -> list[Tensor]:
            return [self._total(objective, values, data)]

        return self._traced(passed, samples, passed if training else plain)

    def _traced(
        self,
        passed: Callable[..., list[Tensor]],
        samples: int,
        wanted: Callable[..., list[Tensor]] | None = None,
    ) -> Traced:
        """The trace of a pass over so many samples, tried with other numbers and other rows: it
        must give what `wanted` gives."""
        wanted = wanted or passed
        generator = torch.Generator().manual_seed(samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a batch of one sample is not the user's doing
            traced = trace(passed, (self.values, self._rows(samples)))
            # Torch's own code reads no tensor in a way that a trace does not see.
            for first in (1,) if _is_torchs_own(self.problem.template) else (1, -samples):
                values = moved(self.values, generator)
                if not agrees(traced, wanted, (values, self._rows(samples, first))):
                    raise NotFusedError(
                        "what torch traces of it gives other numbers than its Python code: that "
                        "may read tensors in ways that torch does not see, or torch takes an "
                        "operation apart into others than those that it computes"
                    )
        return traced

    def _total(self, objective: Objective, values: list[Tensor], data: list[Tensor]) -> Tensor:
        names = [MODEL_PREFIX + n for n in (*self.layout.shapes, *self.constants)]
        named = dict(zip(names, values, strict=True))
        loss: Tensor = functional_call(objective, named, tuple(data))
        loss = loss.to(self.problem.dtype)
        return loss * len(data[0]) if self.mean and data else loss

    def _rows(self, samples: int, first: int = 0) -> list[Tensor]:
        rows = self.problem.train
        if rows is None:
            return []
        chosen = torch.arange(first, first + samples) % len(rows)
        return [t.clone() for t in tensors(rows[chosen])]


def _check_operations(traced: Traced) -> None:
    for node in traced.graph.nodes:
        if node.op == "call_function" and operation_name(node.target) not in OPERATIONS:
            name = operation_name(node.target).split(".")[1]
            raise NotFusedError(f"torch's operation {name!r} is not compiled")


_OWN = ("torch.nn.modules.", "downslope.")
_WITHOUT_MODE = (
    Function,
    Objective,
    nn.Sequential,
    nn.Linear,
    nn.Bilinear,
    nn.Flatten,
    nn.Unflatten,
    nn.Embedding,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Conv1d,
    nn.Conv2d,
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softmax),
    *(nn.Tanh, nn.Sigmoid, nn.LogSoftmax, nn.Hardtanh, nn.Hardswish, nn.Softsign, nn.Identity),
)
