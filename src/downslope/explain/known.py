"""What is known of a problem whatever its runs do, found out once and kept."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from downslope.data import tensors
from downslope.explain.adaptive import preconditioned
from downslope.explain.curvature import Curvature
from downslope.explain.facts import Array, Facts
from downslope.explain.places import DENSE, Places, measure
from downslope.explain.rows import Cell, column_scales, not_finite, standardised
from downslope.explain.samples import can_look, sample_hessians
from downslope.explain.separation import has_margins, margins
from downslope.explain.units import Units, units
from downslope.objective import MODEL_PREFIX, Objective
from downslope.plan import Plan
from downslope.randomness import borrowed

_SAME = 1e-7
"""Relative difference up to which two Hessians count as the same."""


class Known:
    """A problem, its curvature, and what follows from them.

    Args:
        plan: of the runs that are judged.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, problem = plan, plan.problem
        self.problem = problem
        self._hessians: Array | None = None
        self._places: dict[tuple[int, bytes], Places] = {}

    @cached_property
    def curvature(self) -> Curvature:
        """Its loss as a function of rows of numbers."""
        return Curvature(self.problem)

    @cached_property
    def random_losses(self) -> tuple[float, float] | None:
        """Two losses at one place, in evaluation mode, where they are not the same."""
        objective = self.problem.fresh(0).eval()
        rows = tensors(self.problem.train)
        with _kept(), borrowed(self.problem.device), torch.no_grad():
            first, second = (float(objective(*rows)) for _ in range(2))
        same = first == second or (np.isnan(first) and np.isnan(second))
        return None if same else (first, second)

    @cached_property
    def quadratic(self) -> bool:
        """Whether the loss has the same Hessian everywhere it was looked at, and gradients that
        go with it: three places drawn around the start, near and far."""
        size = self.curvature.layout.size
        if size > DENSE or not self.curvature.training:
            return False
        start = self.curvature.start()
        generator = torch.Generator().manual_seed(1)
        far = max(1.0, float(start.abs().max()))
        moves = torch.randn(3, size, generator=generator, dtype=start.dtype)
        moves = moves * far * torch.tensor([[0.1], [1.0], [10.0]], dtype=start.dtype)
        places = torch.cat([start, start + moves])
        hessians = self.curvature.hessian(places)
        gradients, _ = self.curvature.gradients(places)
        largest = float(hessians.abs().max())
        if not bool(hessians.isfinite().all()) or largest == 0:
            return False
        if float((hessians - hessians[:1]).abs().max()) > _SAME * largest:
            return False
        expected = gradients[:1] + (hessians[0] @ moves.T).T
        off = (gradients[1:] - expected).norm(dim=1)
        return bool((off <= _SAME * largest * moves.norm(dim=1)).all())

    @cached_property
    def bad_cell(self) -> Cell | None:
        """A number of the data that is not finite."""
        return not_finite(self.problem)

    @cached_property
    def scales(self) -> Tensor | None:
        """Root mean square of each input column."""
        return column_scales(self.problem)

    def standardised(self, flat: Tensor) -> Places | None:
        """Curvatures at this place if the columns were standardised, (1, 1)."""
        return None if self._standardised is None else self._curvatures(self._standardised, flat)

    def at(self, flat: Tensor) -> Places:
        """Curvatures at a place, (1, 1)."""
        return self._curvatures(self.curvature, flat)

    def _curvatures(self, curvature: Curvature, flat: Tensor) -> Places:
        """Measured once for all runs that ask for the same place."""
        key = (id(curvature), flat.numpy().tobytes())
        if key not in self._places:
            place = flat[None, None].to(curvature.dtype)
            self._places[key] = measure(curvature, place, falls=False)
        return self._places[key]

    @cached_property
    def _standardised(self) -> Curvature | None:
        problem = standardised(self.problem)
        return None if problem is None else Curvature(problem)

    def sample_hessians(self, flat: Tensor) -> Array | None:
        """Single samples' Hessians at a place; None where they would be too many or too large."""
        if not can_look(self.curvature):
            return None
        if not self.quadratic:
            return sample_hessians(self.curvature, flat)
        if self._hessians is None:
            self._hessians = sample_hessians(self.curvature, flat)
        return self._hessians

    def preconditioned(self, facts: Facts) -> float:
        """The largest curvature in Adam's or RMSprop's own steps where a run ended."""
        return preconditioned(self.plan, facts.number, self.curvature, facts.steps_done)

    # -- the model at a place ------------------------------------------------------------------

    def objective(self, flat: Tensor) -> Objective:
        """The objective with these parameters, in evaluation mode."""
        problem = self.curvature.problem
        objective = problem.fresh(0).eval()
        named = dict(objective.named_parameters())
        with torch.no_grad():
            for name, value in self.curvature.layout.split(flat[None]).items():
                named[MODEL_PREFIX + name].copy_(value[0])
        return objective

    def units(self, flat: Tensor) -> Units:
        """What a network's units do there."""
        objective = self.objective(flat)
        rows = tensors(self.curvature.problem.train)
        with _kept(), borrowed(self.problem.device):
            return units(lambda: objective(*rows))

    def separated(self, flat: Tensor) -> bool | None:
        """Whether the model classifies every row rightly by a linear function of its parameters,
        so that there is no minimum: larger parameters make every margin wider.

        True if the predictions double with the parameters; None where all rows are right but
        predictions do not double; False otherwise.
        """
        loss, train = self.problem.template.loss, self.curvature.problem.train
        if train is None or train.y is None or not has_margins(loss):
            return False
        with _kept(), borrowed(self.problem.device), torch.no_grad():
            made = self.objective(flat).model(train.x.clone())
            twice = self.objective(2 * flat).model(train.x.clone())
        found = margins(loss, made, train.y)
        if found is None or not bool((found > 0).all()):
            return False
        return True if torch.allclose(twice, 2 * made, rtol=1e-6) else None


@contextmanager
def _kept() -> Iterator[None]:
    """What Python's and NumPy's own generators were is what they are afterwards."""
    plain, numbers = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)
