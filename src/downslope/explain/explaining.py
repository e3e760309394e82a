"""Runs explained: looked at again, judged, and told in sentences."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np

from downslope.engines.work import Status
from downslope.errors import InputError
from downslope.explain.again import LONGEST, seconds
from downslope.explain.findings import Finding
from downslope.explain.judge import judge, judge_random
from downslope.explain.judge_curve import judge_curve
from downslope.explain.judgement import Judgement
from downslope.explain.known import Known
from downslope.explain.looking import facts_of
from downslope.explain.places import few_threads
from downslope.explain.trials import follow
from downslope.plan import Plan
from downslope.run import Run
from downslope.runs import Runs

MOST = 20_000
"""Runs that are explained at once: each is carried out again, and told in sentences."""

_IN_STEPS = frozenset({"lr", "steps", "momentum"})
"""Changes that a schedule would have to go along with."""

_WORSE = 0.02
"""Share by which the last validation loss must lie above the lowest, to be told."""


def explain_runs(runs: Runs) -> list[Finding]:
    """A finding for each run, in their order.

    Raises:
        InputError: for more than `MOST` runs.
    """
    if not len(runs):
        return []
    if len(runs) > MOST:
        raise InputError(
            f"explain takes {MOST:,} runs at once, got {len(runs):,}: choose some, as runs[:100] "
            "or runs.where(lr=0.1)"
        )
    plan = runs.plan
    if plan is None or plan.unknown:
        return [_finding(run, judge_curve(run)) for run in runs]
    known = Known(plan)
    try:
        # Models warn of single rows, which they never saw.
        with few_threads(plan.problem), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _judged(runs, plan, known)
    except Exception as error:  # whatever a model's code does when it is measured
        reason = _first_line(error)
        return [_finding(run, judge_curve(run, reason)) for run in runs]


def _judged(runs: Runs, plan: Plan, known: Known) -> list[Finding]:
    if known.random_losses is not None:
        return [_finding(run, judge_random(run, known.random_losses)) for run in runs]
    found = facts_of(runs, plan, known.curvature)
    return [
        _finding(run, _told_with(run, judge(facts, known), plan), known)
        for run, facts in zip(runs, found, strict=True)
    ]


def explain_run(run: Run) -> Finding:
    """The finding for one run."""
    return explain_runs(run.runs[[run.place]])[0]


def _first_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:120] if said else 'no more is known'}"


def _told_with(run: Run, judged: Judgement, plan: Plan) -> Judgement:
    """The judgement with what a run's records and options say besides."""
    said, advice, confidence = list(judged.said), judged.advice, judged.confidence
    if run.status == Status.stopped.name:
        said.append(("also.stopped", {}))
    if run.status == Status.converged.name and judged.verdict != "converged":
        said.append(("also.tolerance", {}))
    worse = None if judged.verdict == "diverged" else _validation_rises(run)
    if worse is not None:
        said.append(("also.validation", worse))
    ended = run.status == Status.stopped.name or worse is not None
    if ended and advice is not None and "steps" in advice.change:
        advice = None
    if (
        plan.options.schedule is not None
        and confidence == "certain"
        and judged.cause
        not in (
            "non-finite-data",
            "dead-units",
            "saturation",
        )
    ):
        confidence = "likely"
    if bool(run.row.get("maximize")):
        said.append(("also.maximized", {}))
    took = seconds(plan, np.array([run.number]))
    if took > LONGEST:
        said.append(("also.records-alone", {"seconds": took}))
        confidence = "likely" if confidence == "certain" else confidence
    return replace(judged, said=tuple(said), advice=advice, confidence=confidence)


def _validation_rises(run: Run) -> dict[str, float | int] | None:
    """Where the validation loss was lowest, if it has risen since."""
    losses = run.validation_loss
    if losses is None:
        return None
    sign = float(run.runs.signs[run.place])
    finite = np.flatnonzero(np.isfinite(losses))
    if len(finite) < 5:
        return None
    seen = sign * losses[finite].astype(np.float64)
    best = int(seen.argmin())
    spread = max(abs(seen[best]), 1e-12)
    if best >= 0.8 * len(seen) or seen[-1] - seen[best] < _WORSE * spread:
        return None
    step = int(run.steps[finite[best]])
    return {"step": step, "lowest": sign * float(seen[best]), "last": sign * float(seen[-1])}


def _finding(run: Run, judged: Judgement, known: Known | None = None) -> Finding:
    tried = None
    advice = judged.advice
    if advice is not None and known is not None:
        scheduled = known.plan.options.schedule is not None
        if scheduled and _IN_STEPS & advice.change.keys():
            said = (*judged.said, ("also.schedule", {}))
            judged = replace(judged, said=said)
        else:
            tried = partial(follow, run, advice)
    return Finding(
        run=run.number,
        verdict=judged.verdict,
        cause=judged.cause,
        sentence=judged.sentence(),
        evidence=judged.evidence,
        confidence=judged.confidence,
        advice=advice,
        tried=tried,
        of=run,
    )
