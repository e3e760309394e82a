"""What is known of a problem whatever its runs do, found out once and kept."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.explain.adaptive import preconditioned
from downslope.explain.curvature import Curvature
from downslope.explain.facts import Array, Facts
from downslope.explain.places import DENSE, Places, measure
from downslope.explain.rows import Cell, column_scales, not_finite, standardised
from downslope.explain.samples import can_look, sample_hessians
from downslope.explain.separation import has_margins, least_possible, margins
from downslope.explain.units import Units, units
from downslope.objective import MODEL_PREFIX, Objective
from downslope.plan import Plan
from downslope.randomness import all_borrowed

_SAME = 1e-7
"""Relative difference up to which two Hessians count as the same."""


class Known:
    """A problem, its curvature, and what follows from them.

    Args:
        plan: of the runs that are judged.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.problem = plan, plan.problem
        self._hessians: Array | None = None
        self._places: dict[tuple[int, bytes], Places] = {}
        self._separated: tuple[bytes, bool | None] = (b"", False)

    @cached_property
    def curvature(self) -> Curvature:
        """Its loss as a function of rows of numbers."""
        return Curvature(self.problem)

    @cached_property
    def random_losses(self) -> tuple[float, float] | None:
        """Two losses at one place, in evaluation mode, where they are not the same."""
        objective = self.problem.fresh(0).eval()
        rows = tensors(self.problem.train)
        with all_borrowed(self.problem.device), torch.no_grad():
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
        if not can_look(self.curvature) or not self._splits:
            return None
        if self.quadratic and self._hessians is not None:
            return self._hessians
        made = sample_hessians(self.curvature, flat)
        if not np.isfinite(made).all():
            return None
        if self.quadratic:
            self._hessians = made
        return made

    @cached_property
    def _splits(self) -> bool:
        """Whether the gradient of all rows is the mean of single rows' gradients: not where a
        layer looks at the whole batch, nor where the loss is a sum."""
        start = self.curvature.start()
        start = start + 0.1 * torch.ones_like(start)
        try:
            single = self.curvature.sample_gradients(start[0]).mean(0)
        except (RuntimeError, ValueError, IndexError):  # the model wants more than one row
            return False
        whole = self.curvature.gradients(start)[0][0]
        return bool((single - whole).norm() <= 1e-6 * whole.norm())

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
        objective, train = self.objective(flat), self.curvature.problem.train
        alone = objective.objective is None and train is not None
        with all_borrowed(self.problem.device):
            if alone and train is not None:
                return units(lambda: objective.model(train.x.clone()))
            return units(lambda: objective(*tensors(train)))

    def answers_alike(self, flat: Tensor) -> bool:
        """Whether the model gives the same prediction for every row."""
        train = self.curvature.problem.train
        if train is None or len(train) < 2 or self.problem.template.objective is not None:
            return False
        with all_borrowed(self.problem.device), torch.no_grad():
            made = self.objective(flat).model(train.x.clone())
        if not isinstance(made, Tensor) or len(made) != len(train):
            return False
        spread = (made - made[:1]).abs().max()
        return bool(spread <= 1e-6 * made.abs().max().clamp_min(1e-12))

    def lower_nearby(self, flat: Tensor, sign: float) -> bool:
        """Whether some of 32 places a hundredth of the parameters' size away has a lower loss."""
        generator = torch.Generator().manual_seed(2)
        far = 0.01 * (1 + float(flat.norm())) / max(len(flat), 1) ** 0.5
        moves = torch.randn(32, len(flat), generator=generator, dtype=flat.dtype)
        _, losses = self.curvature.gradients(torch.cat([flat[None], flat + far * moves]))
        here = sign * losses[0]
        return bool((sign * losses[1:] < here - 1e-12 * here.abs()).any())

    @cached_property
    def natural_loss(self) -> float:
        """The size of the loss where the problem starts by itself."""
        _, losses = self.curvature.gradients(self.curvature.start())
        size = abs(float(losses[0]))
        return size if np.isfinite(size) else 0.0

    @property
    def least_loss(self) -> float:
        """The lowest value that the loss can take, if that is known; else minus infinity."""
        return least_possible(self.problem.template.loss)

    def separated(self, flat: Tensor) -> bool | None:
        """Whether the model classifies every row rightly by a linear function of its parameters,
        so that there is no minimum: larger parameters make every margin wider.

        True if the predictions double with the parameters; None where all rows are right but
        predictions do not double; False otherwise.
        """
        loss, train = self.problem.template.loss, self.curvature.problem.train
        if train is None or train.y is None or not has_margins(loss):
            return False
        place = flat.numpy().tobytes()  # several questions ask this of one run
        if self._separated[0] != place:
            self._separated = (place, self._separates(flat, loss, train))
        return self._separated[1]

    def _separates(self, flat: Tensor, loss: Any, train: Rows) -> bool | None:
        assert train.y is not None
        with all_borrowed(self.problem.device), torch.no_grad():
            made = self.objective(flat).model(train.x.clone())
            twice = self.objective(2 * flat).model(train.x.clone())
        found = margins(loss, made, train.y)
        if found is None or not bool((found > 0).all()):
            return False
        return True if torch.allclose(twice, 2 * made, rtol=1e-6) else None
