"""Where a hyperparameter is searched: in a range, or among some values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from downslope.ranges import Range


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


Distribution = Range | Choice


def shown_value(value: Any) -> str:
    """A value as a person would write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
