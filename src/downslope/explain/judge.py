"""The judge: from the facts of a run to its verdict and cause.

Questions are asked in a fixed order, and the first that fits answers: what left, what stands still,
what is held by clipping, what jumped or rides the edge of stability, what lies flat, what is down,
what swings, what noise keeps up, what is slow. Where none fits, the answer is "unknown".
"""

from __future__ import annotations

from downslope.explain.facts import Facts
from downslope.explain.findings import Evidence
from downslope.explain.judge_divergence import judge_divergence
from downslope.explain.judge_ends import (
    fall_left,
    falls_without_end,
    is_down,
    lies_flat,
    lies_on_floor,
    stands_still,
)
from downslope.explain.judge_speed import is_separable, is_slow
from downslope.explain.judge_swings import is_clipped, is_leaving, is_on_edge, jumped, swings
from downslope.explain.judgement import Judgement
from downslope.explain.known import Known
from downslope.run import Run

_QUESTIONS = (
    stands_still,
    is_clipped,
    jumped,
    is_on_edge,
    is_separable,
    lies_flat,
    lies_on_floor,
    is_down,
    swings,
    is_slow,
)


def judge(facts: Facts, known: Known) -> Judgement:
    """The judgement of one run."""
    if known.quadratic and facts.bends_down("end") and facts.loss[-1] < facts.loss[0]:
        found = falls_without_end(facts)
        if found is not None:
            return found
    if facts.diverged:
        return judge_divergence(facts, known)
    if facts.steps_done == 0:
        return Judgement("unknown", "unknown", "unknown", (("no-updates", {}),))
    if is_leaving(facts, known):
        return judge_divergence(facts, known)
    for question in _QUESTIONS:
        found = question(facts, known)
        if found is not None:
            return found
    end = facts.places["end"]
    evidence = {
        "loss left to fall": Evidence(fall_left(facts), end.where),
        "gradient": Evidence(end.gradient, end.where),
        "largest curvature": Evidence(end.largest, end.where),
        "least curvature": Evidence(end.least, end.where),
    }
    slots = {"loss": float(facts.loss[-1]), "gradient": end.gradient}
    return Judgement("unknown", "unknown", "unknown", (("unknown", slots),), evidence)


def judge_random(run: Run, losses: tuple[float, float]) -> Judgement:
    """A loss that differs from call to call: nothing that goes by the loss can be said."""
    evidence = {
        "loss at the start": Evidence(losses[0], "asked once"),
        "loss at the same place": Evidence(losses[1], "asked again"),
    }
    because = ("cause.random-loss", {"first": losses[0], "second": losses[1]})
    if run.status == "diverged":
        opening = ("diverged", {"step": int(run.row["first_bad_step"])})
        return Judgement("diverged", "unknown", "unknown", (opening, because), evidence)
    return Judgement("unknown", "random-loss", "certain", (because,), evidence)
