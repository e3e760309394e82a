"""Downslope: the workbench for gradient descent."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downslope.descent import InterruptedWarning, descend
    from downslope.errors import DownslopeError, InputError
    from downslope.explain.findings import Finding
    from downslope.grid import Grid, log_range
    from downslope.problem import Problem
    from downslope.runs import Run, Runs
    from downslope.schedules import Schedule
    from downslope.study import load
    from downslope.watching import StoppedWarning, Watch, watch

__version__ = "0.1.0"

_WHERE = {
    "Problem": "problem",
    "Grid": "grid",
    "log_range": "grid",
    "Schedule": "schedules",
    "descend": "descent",
    "Finding": "explain.findings",
    "Runs": "runs",
    "Run": "runs",
    "load": "study",
    "watch": "watching",
    "Watch": "watching",
    "StoppedWarning": "watching",
    "DownslopeError": "errors",
    "InputError": "errors",
    "InterruptedWarning": "descent",
}

__all__ = ["DownslopeError", "Finding", "Grid", "InputError", "InterruptedWarning", "Problem",
           "Run", "Runs", "Schedule", "StoppedWarning", "Watch", "descend", "explain", "load",
           "log_range", "watch"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that ``downslope --help`` needs no torch."""
    if name in _WHERE:
        value = getattr(import_module(f"downslope.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    if name == "explain":  # a package that can be called
        return import_module("downslope.explain")
    raise AttributeError(f"module 'downslope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
