"""Curvature and noise on a probe batch in the middle of a loop, which must not notice.

The probe is the user's closure. It is called with gradients on, whatever the loop does; nothing is
added to ``.grad``, random numbers that it draws are given back, and buffers that it changes
(running statistics) are put back as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim

from downslope.errors import InputError
from downslope.explain.lanczos import extremes
from downslope.explain.minibatches import noise_scale
from downslope.explain.preconditioner import ADAPTIVE, divisor
from downslope.explain.stability import adaptive_threshold, threshold
from downslope.loops.observers import held_by
from downslope.randomness import all_borrowed

PRODUCTS = 12
"""Hessian products for each eigenvalue; 10 matched the exact one of a small net to 6 digits."""

Closure = Callable[[], Tensor]


class Probe:
    """Measures on probe batches of equal size; the loss is their mean.

    Args:
        rows: rows in each closure's batch, for the noise scale.
    """

    def __init__(
        self, model: nn.Module, optimizer: optim.Optimizer, closures: Sequence[Closure], rows: int
    ) -> None:
        self.model, self.optimizer, self.closures, self.rows = model, optimizer, closures, rows
        self.note = ""

    def measure(self) -> tuple[float | None, float | None, float | None]:
        """The Hessian's largest eigenvalue; rates × curvature over what the optimizer bears (1 is
        the limit), None for optimizers without a known limit; and the noise scale in rows, for
        two closures or more. Without curvature, with `note` saying why, where a layer has none."""
        parameters = [p for p in held_by(self.optimizer) if p.requires_grad]
        with self._untouched(parameters[0].device):
            losses = [closure() for closure in self.closures]
            for loss in losses:
                if not (isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad):
                    raise InputError(
                        "a probe must return a loss of one number that depends on the model, "
                        f"got {loss!r:.80}"
                    )
            return self._measured(losses, parameters)

    @property
    def useful(self) -> bool:
        """Whether there is something that can be measured."""
        return not self.note or len(self.closures) > 1

    def _measured(
        self, losses: Sequence[Tensor], parameters: list[nn.Parameter]
    ) -> tuple[float | None, float | None, float | None]:
        per_batch = [
            torch.autograd.grad(
                loss.sum(), parameters, create_graph=not self.note, materialize_grads=True
            )
            for loss in losses
        ]
        together = [torch.stack(parts).mean(0) for parts in zip(*per_batch, strict=True)]
        noise = self._noise(per_batch, together)
        if self.note or not all(bool(part.isfinite().all()) for part in together):
            return None, None, noise
        try:
            sharpness = self._largest(together, parameters, None)
            return sharpness, self._share(sharpness, together, parameters), noise
        except RuntimeError as error:  # a layer that cannot be differentiated twice
            said = " ".join(str(error).split())
            self.note = f"the curvature cannot be measured: {said[:200]}"
            return None, None, noise

    def _noise(
        self, per_batch: Sequence[Sequence[Tensor]], together: Sequence[Tensor]
    ) -> float | None:
        count = len(per_batch)
        if count < 2:
            return None
        squares = [sum(float((g.detach() ** 2).sum()) for g in parts) for parts in per_batch]
        whole = sum(float((g.detach() ** 2).sum()) for g in together)
        small = (self.rows, sum(squares) / count)
        return noise_scale(small, (self.rows * count, whole)).batch_size

    def _largest(
        self,
        gradients: Sequence[Tensor],
        parameters: list[nn.Parameter],
        roots: Sequence[Tensor] | None,
    ) -> float:
        """Largest eigenvalue of R H R, R the diagonal of `roots`."""
        sizes = [p.numel() for p in parameters]
        device = parameters[0].device

        def product(vector: Tensor) -> Tensor:
            parts = vector[0].to(device).split(sizes)
            shaped = [v.reshape(p.shape).to(p) for v, p in zip(parts, parameters, strict=True)]
            if roots is not None:
                shaped = [r * v for r, v in zip(roots, shaped, strict=True)]
            made = torch.autograd.grad(
                gradients, parameters, shaped, retain_graph=True, materialize_grads=True
            )
            if roots is not None:
                made = tuple(r * m for r, m in zip(roots, made, strict=True))
            return torch.cat([m.detach().reshape(-1).float().cpu() for m in made])[None]

        if not any(g.requires_grad for g in gradients):  # a loss linear in all parameters
            return 0.0
        largest = extremes(product, sum(sizes), 1, dtype=torch.float32, products=PRODUCTS)[1]
        return float(largest)

    def _share(
        self, sharpness: float, gradients: Sequence[Tensor], parameters: list[nn.Parameter]
    ) -> float | None:
        groups = [g for g in self.optimizer.param_groups for p in g["params"] if p.requires_grad]
        kind, settings = type(self.optimizer), groups[0]
        if settings.get("maximize"):
            return None
        rates = [float(g["lr"]) for g in groups]
        if kind is optim.SGD:
            limit = float(
                threshold(
                    1.0,
                    momentum=settings["momentum"],
                    dampening=settings["dampening"],
                    nesterov=settings["nesterov"],
                )
            )
            if len(set(rates)) == 1:
                return rates[0] * (sharpness + settings["weight_decay"]) / limit
            roots = [
                torch.full_like(p, rate**0.5) for p, rate in zip(parameters, rates, strict=True)
            ]
            return self._largest(gradients, parameters, roots) / limit
        if kind in ADAPTIVE:
            limit = float(
                adaptive_threshold(1.0, settings["betas"][0] if "betas" in settings else 0)
            )
            adaptive = [
                self._adaptive(p, g, rate)
                for p, g, rate in zip(parameters, groups, rates, strict=True)
            ]
            if any(root is None for root in adaptive):
                return None
            return (
                self._largest(gradients, parameters, [r for r in adaptive if r is not None]) / limit
            )
        return None

    def _adaptive(self, parameter: Tensor, group: dict[str, Any], rate: float) -> Tensor | None:
        """√(rate / P), P what Adam or RMSprop divides gradients by; None before its first step."""
        state = self.optimizer.state.get(parameter)
        if not state or group.get("centered") or group.get("momentum"):
            return None
        return (rate / divisor(group, state)).sqrt()

    @contextmanager
    def _untouched(self, device: torch.device) -> Iterator[None]:
        places = [
            (m, n, b) for m in self.model.modules() for n, b in m._buffers.items() if b is not None
        ]
        copies = [b.clone() for _, _, b in places]
        modes = [(m, m.training) for m in self.model.modules()]
        with ExitStack() as stack:
            stack.enter_context(all_borrowed(device, seed=0))
            stack.enter_context(torch.enable_grad())
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training
                for (module, name, buffer), copy in zip(places, copies, strict=True):
                    module._buffers[name] = buffer
                    if not torch.equal(buffer, copy):
                        with torch.no_grad():
                            buffer.copy_(copy)
