"""Those who look at a loop from outside: gradients, modes, the loss's graph, the scheduler.

They read and never write. What costs (a look at all of a gradient's numbers) is done in the first
`LOOKS` steps, and then now and again: faults of a loop are there from the first step, or come with
a phase of it and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from downslope.loops import graph
from downslope.loops.hooks import tensors_in
from downslope.loops.observed import Modes

LOOKS = 16
"""Steps from the first that are looked at closely; later every so manieth."""

_FOLLOWED = 4
"""Parameters whose backward passes are followed."""


def held_by(optimizer: optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _nonzero(gradient: Tensor) -> bool:
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return bool(values.any())


class Clearing:
    """Whether each step's gradients were begun anew.

    Where `zero_grad` works, some backward pass between two steps meets a gradient that is None or
    zero. (Not necessarily the first of them: another model's loss may pass through before.)
    """

    def __init__(self, optimizer: optim.Optimizer, passed: Callable[[], None]) -> None:
        self.passed = passed
        dense = [p for p in held_by(optimizer) if p.requires_grad and p.is_leaf]
        places = sorted({i * (len(dense) - 1) // max(1, _FOLLOWED - 1) for i in range(_FOLLOWED)})
        self.followed = [dense[i] for i in places] if dense else []
        self.met: dict[int, bool] = {}
        self.passes = [0] * len(self.followed)
        self.cleared = [False] * len(self.followed)
        self.steps = self.looked = self.uncleared = 0
        self.handles: list[Any] = []

    def attach(self) -> None:
        """Follow the parameters' gradients."""
        for place, parameter in enumerate(self.followed):
            self.handles += [
                parameter.register_hook(lambda _, at=place: self._before(at)),
                parameter.register_post_accumulate_grad_hook(lambda _, at=place: self._after(at)),
            ]

    def detach(self) -> None:
        """Leave them alone."""
        while self.handles:
            self.handles.pop().remove()

    def _before(self, place: int) -> None:
        gradient = self.followed[place].grad
        self.met[place] = gradient is not None and _nonzero(gradient)

    def _after(self, place: int) -> None:
        self.passes[place] += 1
        if place == 0:
            self.passed()
        self.cleared[place] |= not self.met.get(place, False)

    def stepped(self) -> None:
        """A step was made: judge the passes that led to it."""
        self.steps += 1
        if any(self.passes) and self.steps > 1:
            self.looked += 1
            pairs = zip(self.passes, self.cleared, strict=True)
            self.uncleared += any(passes and not cleared for passes, cleared in pairs)
        self.passes = [0] * len(self.followed)
        self.cleared = [False] * len(self.followed)
        if self.steps >= LOOKS:
            self.detach()


class Reach:
    """Which parameters gradients reach, and which change whoever holds them."""

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        own = {id(p): (name, p) for name, p in model.named_parameters() if p.requires_grad}
        held = {id(p): p for p in held_by(optimizer)}
        self.own = frozenset(own)
        self.everything = frozenset(id(p) for p in model.parameters())
        self.waiting = dict(own)
        numbers = {key: number for number, key in enumerate(held)}
        for key, parameter in held.items():
            if parameter.requires_grad and key not in own:
                self.waiting[key] = (f"the optimizer's parameter {numbers[key]}", parameter)
        self.was_zero: set[int] = set()
        self.held = set(held)
        self.sizes = {k: (n, p, _size(p)) for k, (n, p) in own.items() if k not in held}
        self.reached: set[int] = set()
        self.looked = 0

    def look(self, step: int, optimizer: optim.Optimizer) -> None:
        """See which parameters have a gradient at this step."""
        if step > LOOKS and step % LOOKS:
            return
        self.looked += 1
        self.held.update(map(id, held_by(optimizer)))
        for key, (_, parameter) in list(self.waiting.items()):
            if parameter.grad is None:
                continue
            if _nonzero(parameter.grad):
                self.reached.add(key)
                del self.waiting[key]
            else:
                self.was_zero.add(key)

    def not_held(self) -> tuple[str, ...]:
        """Parameters with a gradient that nobody followed."""
        return tuple(
            name
            for key, (name, parameter, size) in self.sizes.items()
            if key in self.reached and key not in self.held and _size(parameter) == size
        )

    def never(self) -> tuple[tuple[str, str], ...]:
        """Parameters of the model that the optimizer holds, and that no gradient reached."""
        return tuple(
            (name, "zero" if key in self.was_zero else "None")
            for key, (name, parameter) in self.waiting.items()
            if key in self.held and key in self.own and parameter.requires_grad
        )

    def any_gradient(self) -> bool:
        """Whether a gradient reached the model, or what the optimizer holds, at all."""
        return bool(self.reached)

    def disjoint(self) -> bool:
        """Whether the optimizer holds none of the model's parameters, and none with a gradient.

        One that changes an image, through a model that stands still, is meant so.
        """
        return bool(self.own) and not self.held & (self.everything | self.reached)


def _size(parameter: Tensor) -> float:
    """A number that changes whenever the parameter does."""
    return float(torch.linalg.vector_norm(parameter.detach(), dtype=_wide(parameter)))


def _wide(tensor: Tensor) -> torch.dtype:
    if tensor.is_complex():
        return torch.complex128
    return torch.float64 if tensor.device.type in ("cpu", "cuda") else torch.float32


class Mode:
    """Whether steps are made in evaluation mode, where the model has modules that care."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.caring = [(n, m) for n, m in model.named_modules() if _cares(m)]
        self.steps, self.first = 0, 0

    def look(self, step: int) -> None:
        """See the modes at this step; a part that alone is set to evaluation is meant so."""
        if self.model.training or not any(not module.training for _, module in self.caring):
            return
        self.first = self.first or step
        self.steps += 1

    def seen(self) -> Modes | None:
        """What was seen of it."""
        if not self.steps:
            return None
        names = [f"{name} ({type(m).__name__})".strip() for name, m in self.caring]
        return Modes(tuple(names), self.steps, self.first)


def _cares(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, _BatchNorm):  # with frozen weights, its statistics are meant to stand
        return module.weight is None or module.weight.requires_grad
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    return False


class Losses:
    """What the losses given depend on, from their graphs.

    Attributes:
        behind: whether the model's last output was made before the last step, so that a loss given
            now is of that step.
    """

    def __init__(self, own: Iterable[int]) -> None:
        self.own = frozenset(own)
        self.outputs: list[Any] = []
        self.looked = self.without_graph = self.missing = 0
        self.behind = self.called = False
        self.broadcast: graph.Broadcast | None = None

    def forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """The model made an output: remember its place in the graph until the next step's."""
        if not torch.is_grad_enabled():
            return  # an evaluation
        if self.looked >= LOOKS:
            self.outputs = []
        elif self.behind:
            self.outputs = _nodes(output)
        else:
            self.outputs += _nodes(output)
        self.behind, self.called = False, True

    def given(self, loss: Tensor) -> None:
        """A loss was given."""
        if self.looked >= LOOKS:
            return
        self.looked += 1
        if loss.grad_fn is None:
            self.without_graph += 1
        elif not graph.reaches(loss, self.own):
            self.missing += 1
        if self.broadcast is None and self.outputs:
            self.broadcast = graph.broadcast(loss, self.outputs)

    def stepped(self) -> None:
        """A step was made."""
        self.behind = self.called


def _nodes(output: Any) -> list[Any]:
    return [t.grad_fn for t in tensors_in(output) if t.grad_fn is not None]
