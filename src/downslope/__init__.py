"""Downslope: the workbench for gradient descent."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downslope import problems
    from downslope.comparison import Comparison, compare
    from downslope.descent import descend
    from downslope.execution import InterruptedWarning
    from downslope.errors import DownslopeError, InputError
    from downslope.explain.findings import Finding
    from downslope.grid import Grid, log_range
    from downslope.problem import Problem
    from downslope.ranges import Range
    from downslope.run import Run
    from downslope.runs import Runs
    from downslope.schedules import Schedule
    from downslope.search_spaces import Space
    from downslope.study import load
    from downslope.tuning import Tuning, tune
    from downslope.watching import StoppedWarning, Watch, watch

__version__ = "0.1.0"

_WHERE = {
    "Problem": "problem",
    "Grid": "grid",
    "log_range": "grid",
    "Range": "ranges",
    "Schedule": "schedules",
    "descend": "descent",
    "Finding": "explain.findings",
    "Runs": "runs",
    "Run": "run",
    "load": "study",
    "watch": "watching",
    "Watch": "watching",
    "StoppedWarning": "watching",
    "compare": "comparison",
    "Comparison": "comparison",
    "Space": "search_spaces",
    "tune": "tuning",
    "Tuning": "tuning",
    "DownslopeError": "errors",
    "InputError": "errors",
    "InterruptedWarning": "execution",
}

__all__ = ["Comparison", "DownslopeError", "Finding", "Grid", "InputError", "InterruptedWarning",
           "Problem", "Range", "Run", "Runs", "Schedule", "Space", "StoppedWarning", "Tuning",
           "Watch", "compare", "descend", "explain", "load", "log_range", "problems", "tune",
           "watch"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that ``downslope --help`` needs no torch."""
    if name in _WHERE:
        value = getattr(import_module(f"downslope.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    if name in ("explain", "problems"):  # packages; the first of them can be called
        return import_module(f"downslope.{name}")
    raise AttributeError(f"module 'downslope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
