"""The classic faults of hand-written loops, from what was seen: silence where nothing was.

A false alarm is worse than none: each fault is told only where its own sign was seen, and a fault
that follows from another is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from downslope.explain.findings import Advice, Confidence, Evidence, Finding, Verdict
from downslope.explain.words import say
from downslope.loops.observed import Observed

FAULTS = (
    "gradients-not-cleared",
    "another-model",
    "parameters-not-held",
    "parameters-without-gradient",
    "loss-without-model",
    "no-gradients",
    "broadcast",
    "evaluation-mode",
    "scheduler-first",
)
"""The causes of findings about a loop itself."""

_ENOUGH = 3
"""Steps from which "never" is worth saying."""

_NAMED = 4
"""Names that a sentence lists."""


def faults(seen: Observed, verdict: Verdict) -> list[Finding]:
    """A finding for each fault; `verdict` is what the run as a whole did."""
    return [_finding(verdict, *found) for found in _found(seen)]


Found = tuple[str, Confidence, dict[str, Evidence], dict[str, Any]]


def _found(seen: Observed) -> Iterator[Found]:
    during = f"steps 1 to {seen.steps}"
    if seen.uncleared >= 2:
        always = seen.uncleared == seen.clearing_looked
        yield (
            "gradients-not-cleared",
            "certain" if always else "likely",
            {"steps not cleared": Evidence(seen.uncleared, f"of {seen.clearing_looked} looked at")},
            {"count": seen.uncleared, "looked": seen.clearing_looked},
        )
    if seen.steps < _ENOUGH:
        return
    if seen.disjoint:
        yield "another-model", "certain", {"shared parameters": Evidence(0, "at every step")}, {}
    elif seen.not_held:
        yield (
            "parameters-not-held",
            "certain",
            {"parameters": Evidence(len(seen.not_held), during)},
            {"names": some(seen.not_held), "steps": seen.steps},
        )
    if not seen.any_gradient:
        yield from _without_gradients(seen)
    elif seen.never:
        kinds = sorted({how for _, how in seen.never})
        yield (
            "parameters-without-gradient",
            "certain",
            {"parameters": Evidence(len(seen.never), f"{seen.looked} steps looked at")},
            {
                "names": some([name for name, _ in seen.never]),
                "looked": seen.looked,
                "how": " or ".join(
                    "exactly zero" if k == "zero" else ".grad is None" for k in kinds
                ),
            },
        )
    if seen.broadcast is not None:
        found = seen.broadcast
        yield (
            "broadcast",
            "certain" if found.seen else "likely",
            {"rows": Evidence(found.made[0], "in the loss, in the first steps")},
            {"given": str(found.given), "other": str(found.other), "made": str(found.made)},
        )
    if seen.modes is not None:
        first = seen.modes.first
        yield (
            "evaluation-mode",
            "certain",
            {"steps in evaluation mode": Evidence(seen.modes.steps, f"from step {first}")},
            {
                "count": seen.modes.steps,
                "steps": seen.steps,
                "first": first,
                "names": some(seen.modes.names),
            },
        )
    if seen.scheduler_ahead:
        ahead = Evidence(seen.scheduler_ahead, "before step 1")
        yield "scheduler-first", "certain", {"steps of the scheduler": ahead}, {}


def _without_gradients(seen: Observed) -> Iterator[Found]:
    """No gradient at all: the loss is at fault where its graph says so, else the loop."""
    looked = Evidence(seen.looked, "steps looked at")
    if seen.losses and seen.without_graph + seen.missing == seen.losses:
        how = "it has no graph" if seen.without_graph else "its graph ends elsewhere"
        yield (
            "loss-without-model",
            "certain",
            {"steps without gradient": looked},
            {"how": how, "looked": seen.looked},
        )
    else:
        how = "depends on them" if seen.losses else "may depend on them (none was given)"
        yield (
            "no-gradients",
            "certain",
            {"steps without gradient": looked},
            {"how": how, "looked": seen.looked},
        )


def some(names: tuple[str, ...] | list[str]) -> list[str]:
    """The first few names, and how many more."""
    if len(names) <= _NAMED:
        return list(names)
    return [*names[:_NAMED], f"{len(names) - _NAMED} more"]


def _finding(
    verdict: Verdict,
    cause: str,
    confidence: Confidence,
    evidence: dict[str, Evidence],
    slots: dict[str, Any],
) -> Finding:
    advice = Advice({}, "lower", say(f"loop.advice.{cause}"))
    return Finding(
        run=0,
        verdict=verdict,
        cause=cause,
        sentence=f"{say(f'loop.{cause}', **slots)} {advice.sentence}",
        evidence=evidence,
        confidence=confidence,
        advice=advice,
    )
