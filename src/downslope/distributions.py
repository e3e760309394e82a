"""Where a hyperparameter is searched: between two numbers, or among some values."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any

from downslope.errors import InputError


@dataclass(frozen=True)
class LogUniform:
    """Between two numbers above 0, evenly in the logarithm.

    >>> LogUniform(1e-4, 1.0).at(0.5)
    0.01
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and isfinite(self.high)):
            raise InputError(
                f"LogUniform needs two numbers above 0, the lower one first, got {self.low} and "
                f"{self.high}"
            )

    def at(self, unit: float) -> float:
        """The value at `unit` of the way, between 0 and 1; twelve digits."""
        return float(f"{exp(log(self.low) + unit * (log(self.high) - log(self.low))):.12g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, evenly in its logarithm"


@dataclass(frozen=True)
class Uniform:
    """Between two numbers, evenly.

    >>> Uniform(0.5, 1.0).at(0.5)
    0.75
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low < self.high and isfinite(self.low) and isfinite(self.high)):
            raise InputError(
                f"Uniform needs two numbers, the lower one first, got {self.low} and {self.high}"
            )

    def at(self, unit: float) -> float:
        """The value at `unit` of the way, between 0 and 1; twelve digits."""
        return float(f"{self.low + unit * (self.high - self.low):.12g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, evenly"


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as the others.

    >>> Choice(("a", "b")).at(0.7)
    'b'
    """

    values: tuple[Any, ...]

    def at(self, unit: float) -> Any:
        """The value at `unit` of the way, between 0 and 1."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def __str__(self) -> str:
        return f"one of {', '.join(map(shown_value, self.values))}"


Distribution = LogUniform | Uniform | Choice


def shown_value(value: Any) -> str:
    """A value as a person would write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
