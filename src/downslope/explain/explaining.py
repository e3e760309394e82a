"""Runs explained: looked at again, judged, and told in sentences."""

from __future__ import annotations

from functools import partial

import numpy as np

from downslope.explain.findings import Evidence, Finding
from downslope.explain.judge import judge, judge_random
from downslope.explain.judgement import Judgement
from downslope.explain.known import Known
from downslope.explain.looking import facts_of
from downslope.explain.trials import follow
from downslope.runs import Run, Runs


def explain_runs(runs: Runs) -> list[Finding]:
    """A finding for each run, in their order."""
    if not len(runs):
        return []
    plan = runs.plan
    if plan is None or plan.unknown:
        return [_finding(run, judge_curve(run)) for run in runs]
    known = Known(plan)
    if known.random_losses is not None:
        return [_finding(run, judge_random(run, known.random_losses)) for run in runs]
    found = facts_of(runs, plan, known.curvature)
    return [
        _finding(run, judge(facts, known), known) for run, facts in zip(runs, found, strict=True)
    ]


def explain_run(run: Run) -> Finding:
    """The finding for one run."""
    return explain_runs(run.runs[[run.place]])[0]


def _finding(run: Run, judged: Judgement, known: Known | None = None) -> Finding:
    tried = None
    if judged.advice is not None and known is not None:
        tried = partial(follow, run, judged.advice, known)
    return Finding(
        run=run.number,
        verdict=judged.verdict,
        cause=judged.cause,
        sentence=judged.sentence(),
        evidence=judged.evidence,
        confidence=judged.confidence,
        advice=judged.advice,
        tried=tried,
    )


def judge_curve(run: Run) -> Judgement:
    """What the recorded losses alone allow to say: what happened, and no cause."""
    sign = float(run.runs._sign[run.place])
    losses = sign * run.loss[np.isfinite(run.loss)].astype(np.float64)
    without: tuple[str, dict[str, str]] = ("cause.no-problem", {})
    if run.status == "diverged":
        step = int(run.runs.first_bad_step[run.place])
        return Judgement("diverged", "unknown", "certain", (("diverged", {"step": step}), without),
                         {"first bad step": Evidence(step, "as recorded")})  # fmt: skip
    if len(losses) < 2:
        return Judgement("unknown", "unknown", "unknown", (("no-updates", {}), without))
    first, last = float(losses[0]), float(losses[-1])
    evidence = {"loss": Evidence(sign * first, "at the start"),
                "final loss": Evidence(sign * last, "at the end")}  # fmt: skip
    slots = {"first": sign * first, "last": sign * last}
    half = losses[len(losses) // 2 :]
    spread, fallen = float(half.max() - half.min()), abs(first - last)
    if last > first:
        key, verdict = "curve.rose", "unknown"
    elif spread <= 1e-3 * fallen:
        key, verdict = "curve.flat", "unknown"
    elif (np.diff(half) > 0).mean() > 0.25:
        key, verdict = "curve.swings", "unknown"
    else:
        key, verdict = "curve.falls", "converging"
    sure = "likely" if verdict == "converging" else "unknown"
    said = ((key, slots), without)
    return Judgement(verdict, "unknown", sure, said, evidence)  # type: ignore[arg-type]
