"""A collection of sourced problems: ``names()``, ``make("rosenbrock")``, `ENTRIES`.

>>> problem = make("rosenbrock")
>>> ENTRIES["rosenbrock"].optimum, ENTRIES["rosenbrock"].minimisers
(0.0, ((1.0, 1.0),))
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from downslope.errors import InputError, listed, nearest
from downslope.problem import Problem
from downslope.problems.entry import Entry
from downslope.problems.functions import FUNCTIONS
from downslope.problems.networks import NETWORKS
from downslope.problems.regressions import REGRESSIONS

__all__ = ["DEFAULT", "ENTRIES", "Entry", "entry", "make", "names"]

ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (*FUNCTIONS, *REGRESSIONS, *NETWORKS)}
)
"""All problems by name."""

DEFAULT = ("quadratic-10", "quadratic-1000", "rosenbrock", "styblinski-tang", "regression-30",
           "logistic-overlapping", "diabetes", "breast-cancer", "wine",
           "deep-linear")  # fmt: skip
"""Ten fast ones of every kind, for a first comparison."""


def names() -> tuple[str, ...]:
    """The names of all problems.

    >>> names()[:3]
    ('rosenbrock', 'extended-rosenbrock', 'beale')
    """
    return tuple(ENTRIES)


def entry(name: str) -> Entry:
    """What is known of a problem.

    Raises:
        InputError: for a name that no problem has, with the nearest.
    """
    if name not in ENTRIES:
        raise InputError(
            f"there is no problem {name!r}{nearest(str(name), ENTRIES)}; "
            f"the problems are {listed(ENTRIES)}"
        )
    return ENTRIES[name]


def make(name: str, *, drawn: bool = False) -> Problem:
    """A problem by its name.

    Args:
        drawn: whether a function draws its start from each run's seed (evenly from a box around
            its textbook start) in place of starting there always. Models draw theirs anyway.

    Raises:
        InputError: for a name that no problem has, with the nearest.

    >>> make("booth").fresh(0).model.x.tolist()
    [0.0, 0.0]
    """
    found = entry(name)
    return found.make_drawn() if drawn and found.make_drawn is not None else found.make()
