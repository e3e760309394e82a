"""What the recorded losses alone allow to say: what happened, and no cause."""

from __future__ import annotations

from typing import Any

import numpy as np

from downslope.explain.findings import Confidence, Evidence, Verdict
from downslope.explain.judgement import Judgement
from downslope.run import Run, watched


def judge_curve(run: Run, reason: str | None = None) -> Judgement:
    """A run judged by its records, because its problem is not known or could not be measured.

    Args:
        reason: why it could not be measured.
    """
    sign = float(run.runs.signs[run.place])
    losses = sign * run.loss[np.isfinite(run.loss)].astype(np.float64)
    without: tuple[str, dict[str, Any]] = ("cause.no-problem", {})
    if watched(run.runs):
        without = ("cause.watched", {})
    if reason is not None:
        without = ("cause.not-measured", {"reason": reason})
    if run.status == "diverged":
        step = int(run.runs.first_bad_step[run.place])
        return Judgement("diverged", "unknown", "unknown", (("diverged", {"step": step}), without),
                         {"first bad step": Evidence(step, "as recorded")})  # fmt: skip
    if len(losses) < 2:
        return Judgement("unknown", "unknown", "unknown", (("no-updates", {}), without))
    first, last = float(losses[0]), float(losses[-1])
    evidence = {
        "loss": Evidence(sign * first, "at the start"),
        "final loss": Evidence(sign * last, "at the end"),
    }
    slots = {"first": sign * first, "last": sign * last}
    half = losses[len(losses) // 2 :]
    spread, fallen = float(half.max() - half.min()), abs(first - last)
    verdict: Verdict = "unknown"
    sure: Confidence = "unknown"
    if last > first:
        key = "curve.rose"
    elif spread <= 1e-3 * fallen:
        key = "curve.flat"
    elif (np.diff(half) > 0).mean() > 0.25:
        key = "curve.swings"
    else:
        key, verdict = "curve.falls", "converging"
    return Judgement(verdict, "unknown", sure, ((key, slots), without), evidence)
