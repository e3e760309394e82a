"""The rates that a finding speaks of: the run's own, thresholds, and the advised one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from downslope.explain.findings import Evidence, Finding
from downslope.explain.stability import Momentum, threshold
from downslope.run import Run

_THRESHOLDS = {
    "threshold": "stable up to",
    "full batch's threshold": "full batches: stable up to",
    "mean-square threshold": "safe on average below",
    "safe in every order": "safe in every order below",
}
_OF_SAMPLES = ("mean-square threshold", "safe in every order")
"""Those that are known without momentum alone."""

_OTHERWISE = {
    "threshold without momentum": "without momentum: up to",
    "threshold if standardised": "if standardised: up to",
}
_SHARES = ("rate against the threshold", "rate over its limit, at most", "rate over its limit")
_CURVATURES = {
    "largest curvature": "the curvature bears up to",
    "curvature": "the curvature bears up to",
    "curvature at the start": "at the start: stable up to",
    "curvature at the end": "at the end: stable up to",
}


@dataclass(frozen=True)
class RateMark:
    """A rate on the ruler: the run's own, a threshold, one with other settings, or the advised."""

    rate: float
    words: str
    kind: Literal["run", "threshold", "otherwise", "advised"]


@dataclass(frozen=True)
class Ruler:
    """Learning rates on one logarithmic axis.

    Attributes:
        marks: by rising rate.
        stable: rates below it are stable, by the lowest threshold; None where none is known.
        stable_words: what is stable there.
    """

    marks: tuple[RateMark, ...]
    stable: float | None
    stable_words: str


def ruler_of(finding: Finding, run: Run) -> Ruler | None:
    """The rates that a finding speaks of; None if they are not at least two."""
    evidence, row = finding.evidence, run.row
    used = evidence["rate"].value if "rate" in evidence else row.get("lr")
    own = float(used) if isinstance(used, int | float) and used > 0 else None
    full = row.get("batch_size") in ("full", None)
    heavy = bool(row.get("momentum"))
    alone = [name for name in _OF_SAMPLES if heavy and name in evidence]
    names = [name for name in _THRESHOLDS if name in evidence and name not in alone]
    said = _THRESHOLDS if full else {**_THRESHOLDS, "threshold": "full batches: stable up to"}
    marks = [RateMark(evidence[name].value, said[name], "threshold") for name in names]
    if not marks:
        marks = _by_share(evidence, own) or _by_curvature(evidence, row)
    marks += [
        RateMark(evidence[name].value, f"without momentum: {_THRESHOLDS[name]}", "otherwise")
        for name in alone
    ]
    marks += [
        RateMark(evidence[name].value, words, "otherwise")
        for name, words in _OTHERWISE.items()
        if name in evidence
    ]
    if finding.advice is not None and "lr" in finding.advice.change:
        marks.append(RateMark(float(finding.advice.change["lr"]), "advised", "advised"))
    marks = [mark for mark in marks if np.isfinite(mark.rate) and mark.rate > 0]
    if own is None or not marks:
        return None
    plan = run.runs.plan
    scheduled = plan is not None and plan.options.schedule is not None and "rate" not in evidence
    words = "this run's, moved by its schedule" if scheduled else "this run's"
    marks = sorted([*marks, RateMark(own, words, "run")], key=lambda mark: mark.rate)
    thresholds = [mark.rate for mark in marks if mark.kind == "threshold"]
    at_start = "curvature at the start" in evidence and not names
    stable_words = "stable" if full else "stable for full batches"
    if at_start:
        stable_words = "stable where it began"
    if "safe in every order" in names:
        stable_words = "certain to be safe"
    return Ruler(tuple(marks), min(thresholds, default=None), stable_words)


def _by_share(evidence: Mapping[str, Evidence], own: float | None) -> list[RateMark]:
    for name in _SHARES:
        if own is not None and name in evidence and evidence[name].value > 0:
            bearable = own / evidence[name].value
            return [RateMark(bearable, "the curvature bears up to", "threshold")]
    return []


def _by_curvature(evidence: Mapping[str, Evidence], row: Mapping[str, Any]) -> list[RateMark]:
    """The full batch's thresholds of SGD, from curvatures."""
    if row["optimizer"] != "SGD":
        return []
    heavy: Momentum = {
        "momentum": float(row.get("momentum") or 0.0),
        "dampening": float(row.get("dampening") or 0.0),
        "nesterov": bool(row.get("nesterov")),
    }
    return [
        RateMark(float(threshold(evidence[name].value, **heavy)), words, "threshold")
        for name, words in _CURVATURES.items()
        if name in evidence and evidence[name].value > 0
    ]
