"""The update rules of torch.optim's elementwise optimizers, each written once, in torch operations.

A rule is a pure function of tensors::

    parameter, state = adam(parameter, gradient, state, hyper, step, amsgrad=False)

* ``parameter`` and ``gradient`` are (runs, elements): a row a run.
* ``state`` maps names to tensors; `RULES` says how each starts.
* ``hyper`` maps a hyperparameter's torch name to a float64 tensor that broadcasts against
  ``parameter``, mostly (runs, 1), so that every run has its own; pairs such as ``betas`` are
  tuples of such tensors. One that is zero in every run may be None: its term is then left out.
* ``step`` counts from 1, as a float64 tensor without dimensions.
* keywords are the switches: ``nesterov``, ``amsgrad``, ``centered``, ``maximize`` …

Whatever depends on hyperparameters and step alone is computed in float64, as torch does with
Python numbers, and rounded to the parameters' dtype where it meets them. There is no Python
branch on values: the same functions can be traced and compiled. The formulas are those of the
single-tensor functions in torch/optim, whose documentation names their papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, optim

State = dict[str, Tensor]
Hyper = Mapping[str, Any]
Update = tuple[Tensor, State]


def _decayed(gradient: Tensor, parameter: Tensor, hyper: Hyper, maximize: bool) -> Tensor:
    """The gradient to descend: turned for `maximize`, with L2 weight decay added."""
    gradient = -gradient if maximize else gradient
    decay = hyper["weight_decay"]
    return gradient if decay is None else gradient + decay.to(parameter.dtype) * parameter


def _shrunk(parameter: Tensor, hyper: Hyper) -> Tensor:
    """Decoupled weight decay: the parameter itself, shortened by lr × weight_decay."""
    decay = hyper["weight_decay"]
    if decay is None:
        return parameter
    return parameter * (1 - hyper["lr"] * decay).to(parameter.dtype)


def _mean(average: Tensor, value: Tensor, keep: Tensor) -> Tensor:
    """An exponential moving average that keeps the share `keep` of the old value."""
    return average + (value - average) * (1 - keep).to(value.dtype)


def _square_mean(average: Tensor, value: Tensor, keep: Tensor) -> Tensor:
    """The same of squares; scaled before squaring, as torch does, so that it overflows later."""
    return average * keep.to(value.dtype) + (1 - keep).to(value.dtype) * value * value


def _stored(value: Tensor) -> Tensor:
    """As torch.optim keeps some numbers between steps: in its default dtype."""
    return value.to(torch.get_default_dtype())


def sgd(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    nesterov: bool = False,
    maximize: bool = False,
) -> Update:
    """Gradient descent with momentum; torch's first step is undamped, its Nesterov look-ahead
    uses the new velocity."""
    gradient = _decayed(gradient, parameter, hyper, maximize)
    momentum, dampening = hyper["momentum"], hyper["dampening"]
    if momentum is not None:
        keep = momentum.to(parameter.dtype)
        if dampening is None:
            velocity = keep * state["velocity"] + gradient
        else:
            undamped = (step == 1) | (momentum == 0)
            share = torch.where(undamped, 1.0, 1 - dampening).to(parameter.dtype)
            velocity = keep * state["velocity"] + share * gradient
        state = {"velocity": velocity}
        gradient = gradient + keep * velocity if nesterov else velocity
    return parameter - hyper["lr"].to(parameter.dtype) * gradient, state


def adam(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> Update:
    """Adam; AdamW is the same with decoupled weight decay."""
    dtype = parameter.dtype
    beta1, beta2 = hyper["betas"]
    if decoupled_weight_decay:
        gradient = -gradient if maximize else gradient
        parameter = _shrunk(parameter, hyper)
    else:
        gradient = _decayed(gradient, parameter, hyper, maximize)
    mean = _mean(state["mean"], gradient, beta1)
    square = _square_mean(state["square"], gradient, beta2)
    new, largest = {"mean": mean, "square": square}, square
    if amsgrad:
        new["largest"] = largest = torch.maximum(state["largest"], square)
    correction = (1 - beta2**step).sqrt().to(dtype)
    denominator = largest.sqrt() / correction + hyper["eps"].to(dtype)
    size = (hyper["lr"] / (1 - beta1**step)).to(dtype)
    return parameter - size * (mean / denominator), new


def nadam(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Update:
    """Adam with Nesterov momentum, whose momentum is warmed up by `momentum_decay`."""
    dtype = parameter.dtype
    beta1, beta2 = hyper["betas"]
    if decoupled_weight_decay:
        gradient = -gradient if maximize else gradient
        parameter = _shrunk(parameter, hyper)
    else:
        gradient = _decayed(gradient, parameter, hyper, maximize)
    decay = hyper["momentum_decay"]
    now = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
    following = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
    product = (_stored(state["product"]) * _stored(now)).to(torch.float64)
    mean = _mean(state["mean"], gradient, beta1)
    square = _square_mean(state["square"], gradient, beta2)
    denominator = (square / (1 - beta2**step).to(dtype)).sqrt() + hyper["eps"].to(dtype)
    from_gradient = (hyper["lr"] * (1 - now) / (1 - product)).to(dtype)
    from_mean = (hyper["lr"] * following / (1 - product * following)).to(dtype)
    parameter = parameter - from_gradient * (gradient / denominator)
    parameter = parameter - from_mean * (mean / denominator)
    return parameter, {"mean": mean, "square": square, "product": product}


def radam(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Update:
    """Adam whose adaptive scale is rectified, and left out while too few squares are averaged."""
    dtype = parameter.dtype
    beta1, beta2 = hyper["betas"]
    if decoupled_weight_decay:
        gradient = -gradient if maximize else gradient
        parameter = _shrunk(parameter, hyper)
    else:
        gradient = _decayed(gradient, parameter, hyper, maximize)
    mean = _mean(state["mean"], gradient, beta1)
    square = _square_mean(state["square"], gradient, beta2)
    correction = 1 - beta2**step
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2**step / correction
    ready = length > 5
    rectifier = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    scale = torch.where(ready, (rectifier.clamp(min=0) * correction).sqrt(), 1.0).to(dtype)
    adaptive = scale / (square.sqrt() + hyper["eps"].to(dtype))
    adaptive = torch.where(ready, adaptive, scale)
    size = (hyper["lr"] / (1 - beta1**step)).to(dtype)
    return parameter - size * (mean * adaptive), {"mean": mean, "square": square}


def adamax(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    maximize: bool = False,
) -> Update:
    """Adam with the largest recent gradient in place of the mean square."""
    dtype = parameter.dtype
    beta1, beta2 = hyper["betas"]
    gradient = _decayed(gradient, parameter, hyper, maximize)
    mean = _mean(state["mean"], gradient, beta1)
    largest = torch.maximum(
        beta2.to(dtype) * state["largest"], gradient.abs() + hyper["eps"].to(dtype)
    )
    size = (hyper["lr"] / (1 - beta1**step)).to(dtype)
    return parameter - size * (mean / largest), {"mean": mean, "largest": largest}


def rmsprop(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    centered: bool = False,
    maximize: bool = False,
) -> Update:
    """Gradient over the root of its mean square (or variance, if `centered`), with momentum."""
    dtype = parameter.dtype
    gradient = _decayed(gradient, parameter, hyper, maximize)
    square = _square_mean(state["square"], gradient, hyper["alpha"])
    new, spread = {"square": square}, square
    if centered:
        new["mean"] = mean = _mean(state["mean"], gradient, hyper["alpha"])
        spread = square - mean * mean
    move = gradient / (spread.sqrt() + hyper["eps"].to(dtype))
    if hyper["momentum"] is not None:
        new["velocity"] = move = hyper["momentum"].to(dtype) * state["velocity"] + move
    return parameter - hyper["lr"].to(dtype) * move, new


def adagrad(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    maximize: bool = False,
) -> Update:
    """Gradient over the root of the sum of its squares."""
    dtype = parameter.dtype
    gradient = _decayed(gradient, parameter, hyper, maximize)
    total = state["total"] + gradient * gradient
    size = (hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])).to(dtype)
    return parameter - size * (gradient / (total.sqrt() + hyper["eps"].to(dtype))), {"total": total}


def adadelta(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    maximize: bool = False,
) -> Update:
    """Gradient scaled by the ratio of recent updates to recent gradients."""
    dtype = parameter.dtype
    gradient = _decayed(gradient, parameter, hyper, maximize)
    eps = hyper["eps"].to(dtype)
    square = _square_mean(state["square"], gradient, hyper["rho"])
    move = (state["moved"] + eps).sqrt() / (square + eps).sqrt() * gradient
    moved = _square_mean(state["moved"], move, hyper["rho"])
    return parameter - hyper["lr"].to(dtype) * move, {"square": square, "moved": moved}


def rprop(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    maximize: bool = False,
) -> Update:
    """Steps of a size of their own, that grows while the gradient keeps its sign."""
    dtype = parameter.dtype
    gradient = -gradient if maximize else gradient
    shrink, grow = (eta.to(dtype) for eta in hyper["etas"])
    smallest, largest = (size.to(dtype) for size in hyper["step_sizes"])
    agreement = gradient * state["previous"]
    factor = torch.where(agreement > 0, grow, torch.where(agreement < 0, shrink, 1.0)).to(dtype)
    size = torch.minimum(torch.maximum(state["size"] * factor, smallest), largest)
    gradient = torch.where(agreement < 0, 0.0, gradient).to(dtype)
    return parameter - gradient.sign() * size, {"previous": gradient, "size": size}


def asgd(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    hyper: Hyper,
    step: Tensor,
    *,
    maximize: bool = False,
) -> Update:
    """Gradient descent with a decaying rate; torch keeps the averaged iterate apart from the
    parameters, so it has no part here."""
    dtype = parameter.dtype
    gradient = _decayed(gradient, parameter, hyper, maximize)
    rate, lambd, lr = state["rate"], hyper["lambd"], hyper["lr"]
    parameter = parameter * (1 - lambd * rate).to(dtype) - rate.to(dtype) * gradient
    rate = lr / (1 + lambd * lr * step) ** hyper["alpha"]
    return parameter, {"rate": _stored(rate).to(torch.float64)}


@dataclass(frozen=True)
class Rule:
    """An update rule with how its state starts.

    Attributes:
        update: the pure function.
        zeros: names of the state that starts at zero, given ``hyper`` and the switches.
        start: state that starts otherwise, from the parameter and the first step's ``hyper``.
        left_out: hyperparameters that may be None where they are zero in every run.
        switches: keywords fixed by the optimizer's class.
    """

    update: Callable[..., Update]
    zeros: Callable[[Hyper, Mapping[str, Any]], tuple[str, ...]]
    start: Callable[[Tensor, Hyper], State] = lambda parameter, hyper: {}
    left_out: tuple[str, ...] = ("weight_decay",)
    switches: Mapping[str, Any] = field(default_factory=dict)

    def first_state(self, parameter: Tensor, hyper: Hyper, switches: Mapping[str, Any]) -> State:
        """The state before step 1; `hyper` as it is at step 1."""
        zeros = {name: torch.zeros_like(parameter) for name in self.zeros(hyper, switches)}
        return zeros | self.start(parameter, hyper)


def _always(*names: str) -> Callable[[Hyper, Mapping[str, Any]], tuple[str, ...]]:
    return lambda hyper, switches: names


def _velocity(hyper: Hyper) -> tuple[str, ...]:
    return () if hyper["momentum"] is None else ("velocity",)


_MOMENTS = ("mean", "square")
_ADAM = Rule(
    adam,
    zeros=lambda hyper, switches: (*_MOMENTS, "largest") if switches["amsgrad"] else _MOMENTS,
)

RULES: dict[type[optim.Optimizer], Rule] = {
    optim.SGD: Rule(
        sgd,
        zeros=lambda hyper, switches: _velocity(hyper),
        left_out=("weight_decay", "momentum", "dampening"),
    ),
    optim.Adam: _ADAM,
    optim.AdamW: replace(_ADAM, switches={"decoupled_weight_decay": True}),
    optim.NAdam: Rule(
        nadam,
        zeros=_always(*_MOMENTS),
        start=lambda parameter, hyper: {"product": torch.ones_like(hyper["momentum_decay"])},
    ),
    optim.RAdam: Rule(radam, zeros=_always(*_MOMENTS)),
    optim.Adamax: Rule(adamax, zeros=_always("mean", "largest")),
    optim.RMSprop: Rule(
        rmsprop,
        zeros=lambda hyper, switches: (
            (("square", "mean") if switches["centered"] else ("square",)) + _velocity(hyper)
        ),
        left_out=("weight_decay", "momentum"),
    ),
    optim.Adagrad: Rule(
        adagrad,
        zeros=_always(),
        start=lambda parameter, hyper: {
            "total": torch.zeros_like(parameter)
            + hyper["initial_accumulator_value"].to(parameter.dtype)
        },
    ),
    optim.Adadelta: Rule(adadelta, zeros=_always("square", "moved")),
    optim.Rprop: Rule(
        rprop,
        zeros=_always("previous"),
        start=lambda parameter, hyper: {
            "size": torch.zeros_like(parameter) + hyper["lr"].to(parameter.dtype)
        },
    ),
    optim.ASGD: Rule(
        asgd,
        zeros=_always(),
        start=lambda parameter, hyper: {"rate": _stored(hyper["lr"]).to(torch.float64)},
    ),
}
"""The rule of every optimizer class that has one; others descend through `looped`."""
