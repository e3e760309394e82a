"""A problem's features and target in the units they were given in, for pictures of fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from downslope.data import Rows
from downslope.errors import InputError, listed, nearest
from downslope.problem import Problem
from downslope.problem_rows import EVALUATED_ROWS
from downslope.randomness import all_borrowed
from downslope.views.data.losses import Floats

MOST_POINTS = 5_000
"""Rows of each kind that are drawn; of more, so many, spread evenly."""


@dataclass(frozen=True)
class Features:
    """The features, a name each, and what brings them to their own units.

    Attributes:
        means, scales: own = encoded * scale + mean.
        numeric: whether each is a number of its own, not one of several columns for one category.
        target: the target's name.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    numeric: tuple[bool, ...]
    target: str

    def place(self, feature: str | int) -> int:
        """The place of a feature that is asked for by name or number.

        Raises:
            InputError: if there is none.
        """
        whole = isinstance(feature, int) and not isinstance(feature, bool)
        if whole and 0 <= int(feature) < len(self.names):
            return int(feature)
        if isinstance(feature, str) and feature in self.names:
            return self.names.index(feature)
        hint = nearest(str(feature), self.names)
        raise InputError(
            f"there is no feature {feature!r}{hint}; the features are {listed(self.names)}"
        )

    def own(self, encoded: Floats, place: int) -> Floats:
        """Values of one feature in its own units."""
        return encoded * self.scales[place] + self.means[place]


def features_of(problem: Problem) -> Features:
    """The features of a problem with data."""
    assert problem.train is not None
    count = problem.train.x[:1].numel()
    if problem.table is None:
        names = ("x",) if count == 1 else tuple(f"x[{place}]" for place in range(count))
        return Features(names, (0.0,) * count, (1.0,) * count, (True,) * count, "y")
    schema = problem.table.schema
    each = [(n, c.mean, c.scale, c.kind != "category") for c in schema.columns
            for n in c.feature_names]  # fmt: skip
    names, means, scales, numeric = zip(*each, strict=True)
    return Features(names, means, scales, numeric, schema.target.name)


def encoded(x: Tensor) -> Floats:
    """Inputs as (rows, features)."""
    flat: Floats = x.reshape(len(x), -1).double().cpu().numpy()
    return flat


def target_units(problem: Problem, values: Tensor) -> Floats:
    """A target or its prediction, (rows,), in its own units."""
    plain: Floats = values.detach().double().cpu().reshape(-1).numpy()
    return plain if problem.table is None else problem.table.schema.to_own_units(plain)


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """The model's answers to rows, in blocks; the rows and random states stay as they are.

    Raises:
        InputError: if the answers are no tensor, or not one for each row.
    """
    with all_borrowed(x.device), torch.no_grad():
        made = [model(part.clone()) for part in x.split(EVALUATED_ROWS)]
    if not isinstance(made[0], Tensor):
        raise InputError(
            f"a fit can be drawn of a model that gives a tensor, but it gives a "
            f"{type(made[0]).__name__}"
        )
    if made[0].ndim == 0 or sum(map(len, made)) != len(x):
        raise InputError(
            "a fit can be drawn of a model that answers each row, but its answer to "
            f"{min(len(x), EVALUATED_ROWS):,} rows has shape {tuple(made[0].shape)}"
        )
    return torch.cat(made)


def some(rows: Rows, what: str, most: int = MOST_POINTS) -> tuple[Rows, str]:
    """Up to `most` of the rows, and what they are: ``training rows``, or how many."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    label = what if len(chosen) == len(rows) else f"{len(chosen):,} of {len(rows):,} {what}"
    return rows[torch.from_numpy(chosen)], label
