"""What a comparison searches: an optimizer with a distribution for each hyperparameter, declared
before anything runs, and the trials drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import optim

from downslope.distributions import Choice, Distribution, shown_value
from downslope.errors import InputError, OptimizerError, nearest
from downslope.grid import RUN_SETTINGS, is_many, settled
from downslope.low_discrepancy import spread
from downslope.optimizers import check_complete, check_names, check_optimizer, hyperparameters
from downslope.ranges import Range


class Space:
    """An optimizer and what of it is searched. Nothing here can be changed.

    Args:
        optimizer: a class of `torch.optim` or a subclass of its `Optimizer`, or its name.
        label: what the comparison calls it; by default the class's name.
        **settings: hyperparameters by torch's names: a `Range`; a list, range or
            array for a choice among its values; anything else is held fixed. Where ``lr`` is left
            out, it is searched from 1e-5 to 10.

    Raises:
        InputError: for an unknown name, or where nothing is left to search.

    >>> Space(optim.SGD, momentum=0.9, label="heavy ball").label
    'heavy ball'
    """

    optimizer: type[optim.Optimizer]
    label: str
    searched: Mapping[str, Distribution]
    fixed: Mapping[str, Any]

    def __init__(
        self,
        optimizer: type[optim.Optimizer] | str,
        /,
        *,
        label: str | None = None,
        **settings: Any,
    ) -> None:
        if label is not None and not (isinstance(label, str) and label.strip()):
            raise InputError(f"a label is a word or some, got {label!r}")
        found = check_optimizer(optimizer)
        _check_can_compare(found, settings)
        known = hyperparameters(found)
        check_names(found, list(settings))
        if "lr" not in settings and "lr" in known.defaults:
            settings = {"lr": RATES.get(found.__name__, ANY_RATE), **settings}
        check_complete(found, settings)
        searched: dict[str, Distribution] = {}
        fixed: dict[str, Any] = {}
        for name, value in settings.items():
            if isinstance(value, Range | Choice):
                searched[name] = value
                continue
            given = settled({name: value})[name]
            if isinstance(given, Mapping):
                raise InputError(
                    f"a search space takes no values by parameter-name pattern, got {name}={value}"
                )
            if is_many(given):
                searched[name] = Choice(tuple(_plain(one) for one in given))
            else:
                fixed[name] = given
        if not searched:
            raise InputError(
                f"the space of {found.__name__} leaves nothing to search: give a range, such as "
                "lr=Range(1e-4, 1), or a list of values"
            )
        ordered = dict(sorted(searched.items(), key=lambda item: (item[0] != "lr", item[0])))
        values = (found, label or found.__name__, ordered, fixed)
        for name, value in zip(("optimizer", "label", "searched", "fixed"), values, strict=True):
            held = MappingProxyType(value) if isinstance(value, dict) else value
            object.__setattr__(self, name, held)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Space cannot be changed (its {name} neither)")

    def __repr__(self) -> str:
        given = "".join(f", {n}={v!r}" for n, v in {**self.searched, **self.fixed}.items())
        label = f", label={self.label!r}" if self.label != self.optimizer.__name__ else ""
        return f"Space({self.optimizer.__name__}{given}{label})"

    def describe(self) -> str:
        """A line for people: what is searched where, what is held fixed."""
        parts = [f"{name} {where}" for name, where in self.searched.items()]
        parts += [f"{name} = {shown_value(value)}" for name, value in self.fixed.items()]
        return f"{self.label}: {'; '.join(parts)}"

    def trials(self, budget: int, seed: int) -> list[dict[str, Any]]:
        """`budget` settings by quasi-random search: drawn, and spread evenly however few.

        The first dimension (the rate, where it is searched) of every space gets the same draws
        between 0 and 1, and so do the second ones, and so on. See `low_discrepancy.spread`.

        >>> Space(optim.Adam).trials(2, seed=0) == Space(optim.Adam).trials(3, seed=0)[:2]
        True
        """
        draws = {name: spread(budget, place, seed) for place, name in enumerate(self.searched)}
        return [
            {**{n: where.at(draws[n][k]) for n, where in self.searched.items()}, **self.fixed}
            for k in range(budget)
        ]

    def default(self) -> dict[str, Any] | None:
        """The class's own defaults for what is searched, beside what is held fixed.

        None where the class has no default for one of them.
        """
        defaults = hyperparameters(self.optimizer).defaults
        own = {name: defaults.get(name, Parameter.empty) for name in self.searched}
        if any(value is Parameter.empty for value in own.values()):
            return None
        return {**own, **self.fixed}

    def at_edge(self, trials: Sequence[Mapping[str, Any]], chosen: int) -> list[str]:
        """The searched numbers of which the chosen trial has the lowest or highest of all trials.

        Returns:
            A phrase for each, such as "lr = 9.1, the highest of 32 tried".
        """
        said = []
        for name, where in self.searched.items():
            values = [trial[name] for trial in trials]
            if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
                continue
            if len(set(values)) < (3 if isinstance(where, Choice) else 2):
                continue
            for word, edge in (("lowest", min(values)), ("highest", max(values))):
                if values[chosen] == edge:
                    said.append(f"{name} = {edge:.4g}, the {word} of {len(values)} tried")
        return said


ANY_RATE = Range(1e-5, 10.0)
"""Where the rate is searched if a space does not say: the same for all, and wide enough for losses
of any scale that standardised data and textbook functions have."""

RATES: Mapping[str, Distribution] = MappingProxyType({"Adadelta": Range(1e-2, 1e4)})
"""The exceptions: Adadelta's rate multiplies steps that it has scaled itself; its default is 1."""

NAMED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "momentum": {"momentum": 0.9},
        "nesterov": {"momentum": 0.9, "nesterov": True},
    }
)
"""Short names for SGD with settings of its own."""


def spaces_of(optimizers: Any) -> tuple[Space, ...]:
    """Spaces out of classes, names and spaces.

    Raises:
        InputError: for anything else, and for two of the same label.

    >>> [space.label for space in spaces_of(["sgd", "momentum", optim.Adam])]
    ['SGD', 'momentum', 'Adam']
    """
    given = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    if not given:
        raise InputError("optimizers is an empty list; give at least one")
    spaces = tuple(one if isinstance(one, Space) else space_of(one) for one in given)
    labels = [space.label for space in spaces]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"two optimizers are called {label!r}: give each a label of its own, as in "
                f"Space({spaces[labels.index(label)].optimizer.__name__}, label='...')"
            )
    return spaces


def space_of(given: Any, **settings: Any) -> Space:
    """The space of a class, its name, or a short name such as "momentum".

    Args:
        settings: what of it is searched or fixed besides, as `Space` takes it.
    """
    if not isinstance(given, str):
        return Space(given, **settings)
    name = given.strip().lower()
    if name in NAMED:
        return Space(optim.SGD, label=name, **{**NAMED[name], **settings})
    try:
        return Space(name, **settings)
    except OptimizerError as error:
        hint = nearest(name, NAMED)
        if hint and "did you mean" not in str(error):
            raise OptimizerError(f"{error}{hint}") from error
        raise


def _check_can_compare(optimizer: type[optim.Optimizer], settings: Mapping[str, Any]) -> None:
    name = optimizer.__name__
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise InputError(
            f"{name} evaluates the gradient as often as it likes in a step, so that equal steps "
            "would not be equal work: compare takes optimizers of one evaluation a step"
        )
    if settings.get("maximize"):
        raise InputError(
            "a comparison minimises: leave maximize out, and turn the sign of the loss instead"
        )
    for setting in RUN_SETTINGS:
        if setting in settings:
            raise InputError(
                f"{setting} holds for all optimizers of a comparison: give it to compare, "
                f"not to the space of {name}"
            )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
