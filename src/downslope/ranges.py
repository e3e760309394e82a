"""A span of values that is searched: coarse to fine by `tune`, at random by `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.errors import InputError
from downslope.grid import Values as Many
from downslope.optimizers import is_number

AUTO = "auto"
"""The word for a rate that is to be found."""

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included, for a hyperparameter that is searched.

    Args:
        low, high: the ends; low below high.
        log: whether steps are multiplied (rates, decays) or added (``log=False``: momentum).
        whole: whether only whole numbers are tried (counts).

    Raises:
        InputError: if the ends are no numbers in this order, or not above 0 for a logarithm.

    >>> Range(1e-4, 1).spread(5).tolist()
    [0.0001, 0.001, 0.01, 0.1, 1.0]
    >>> Range(0, 0.9, log=False).spread(4).tolist()
    [0.0, 0.3, 0.6, 0.9]
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if not is_number(end) or not np.isfinite(float(end)):
                raise InputError(f"a Range goes from one number to another, got {end!r}")
        if not self.low < self.high:
            raise InputError(
                f"a Range goes from a lower to a higher number, got {self.low} and {self.high}"
            )
        if self.log and self.low <= 0:
            raise InputError(
                f"a Range in steps of a factor starts above 0, got {self.low}: "
                "give log=False for steps of equal size"
            )

        if self.whole and np.ceil(self.low) > np.floor(self.high):
            raise InputError(f"no whole number lies between {self.low} and {self.high}")

    def place(self, values: Places) -> Places:
        """Places on the scale on which steps are equal."""
        made: Places = np.log10(values) if self.log else np.asarray(values, np.float64)
        return made

    def value(self, places: Places) -> Places:
        """Places on that scale as values, within the range, to four digits or whole."""
        raw = 10.0**places if self.log else places
        if self.whole:
            return np.clip(np.round(raw), np.ceil(self.low), np.floor(self.high))
        return np.clip(rounded(raw, 4), self.low, self.high)

    def values(self, places: Places) -> list[float]:
        """The same, each once, as numbers of Python: int where they are whole.

        >>> Range(1, 4, whole=True).values(np.linspace(0, 0.7, 9))
        [1, 2, 3, 4]
        """
        made = dict.fromkeys(self.value(places).tolist())
        return [int(value) if self.whole else value for value in made]

    def at(self, unit: float) -> float:
        """The value at `unit` of the way, between 0 and 1; twelve digits.

        >>> Range(1e-4, 1.0).at(0.5)
        0.01
        """
        low, high = self.place(np.array([self.low, self.high], np.float64)).tolist()
        along = low + unit * (high - low)
        if self.whole:
            return int(self.value(np.array([along]))[0])
        return float(f"{10.0**along if self.log else along:.12g}")

    def __str__(self) -> str:
        kind = "whole numbers, " * self.whole
        return f"{self.low:g} to {self.high:g}, {kind}evenly" + " in its logarithm" * self.log

    def spread(self, count: int) -> Places:
        """`count` values evenly spaced over all of it, (count,)."""
        ends = self.place(np.array([self.low, self.high], np.float64))
        return self.value(np.linspace(ends[0], ends[1], count))


def rounded(values: Places, digits: int) -> Places:
    """Places to so many significant digits: they read better, and lose nothing that is known."""
    return np.array([float(f"{value:.{digits}g}") for value in values])


def asks_auto(values: Any) -> bool:
    """Whether a setting, or one of many values, is the word "auto"."""
    if isinstance(values, Mapping):
        return any(map(asks_auto, values.values()))
    if isinstance(values, Many) and values.numbers is not None:
        return False
    if isinstance(values, list):
        return any(isinstance(value, str) and value == AUTO for value in values)
    return isinstance(values, str) and values == AUTO
