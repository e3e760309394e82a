"""What a report tells of findings: two in full, and how often each verdict was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from downslope.explain.again import seconds
from downslope.explain.explaining import explain_runs
from downslope.explain.findings import VERDICTS, Finding
from downslope.run import Run
from downslope.runs import Runs
from downslope.telling import worth_telling
from downslope.views.reporting.words import run_words
from downslope.views.terminal import number

MOST_EXPLAINED = 24
"""Runs that are explained to count verdicts; of more, so many, evenly spread."""

MOST_BY_RECORDS = 1_000
"""The same where runs are judged by their records alone, which costs little."""

LONGEST = 2.0
"""Seconds, roughly guessed, that carrying runs out again may take for the counts."""

LARGEST = 2_000
"""Numbers in the parameters, above which curvature is too dear to count verdicts."""

VERDICT_WORDS = {
    "converged": "at a minimum",
    "converging": "still falling when it ended",
    "creeping": "goes the right way, far too slowly",
    "ringing": "swings from side to side, ever less",
    "cycling": "swings without getting closer",
    "noise-floor": "held above the minimum by the noise of its batches",
    "edge-of-stability": "at the largest curvature its rate can bear, still falling on the whole",
    "catapult": "rose at first, and came down in a flatter place",
    "plateau": "level, without a minimum",
    "stuck": "never moved",
    "diverged": "left for good",
    "unknown": "nothing that was measured says",
}


@dataclass(frozen=True)
class Told:
    """A finding as it is told.

    Attributes:
        title: which run, and why this one.
        evidence: name, value and where in the run, a row each.
        advice: the change to try, as arguments of descend; None where there is none.
    """

    title: str
    verdict: str
    cause: str
    confidence: str
    sentence: str
    evidence: tuple[tuple[str, str, str], ...]
    advice: str | None


@dataclass(frozen=True)
class Counted:
    """How often each verdict was given: (verdict, runs) of `explained` runs, of `of` in all.

    Where none were explained, `why_not` says so in a sentence.
    """

    verdicts: tuple[tuple[str, int], ...]
    explained: int
    of: int
    why_not: str = ""


def explained(
    runs: Runs, given: Sequence[tuple[str, Run | None, Finding]] | None = None
) -> tuple[list[Told], Counted]:
    """Findings in full, and how often each verdict was given.

    Args:
        given: the findings to tell in full: what each is of, its run, and the finding. By default
            those of the best run and of an instructive failure.
    """
    chosen = [] if given is not None else worth_telling(runs)
    counted, why_not = _places_to_count(runs)
    places = sorted({*counted, *(run.place for _, run in chosen)})
    found = dict(zip(places, explain_runs(runs[places]), strict=True)) if places else {}
    full = given or [(what, run, found[run.place]) for what, run in chosen]
    verdicts = Counter(found[place].verdict for place in counted)
    ordered = sorted(verdicts.items(), key=lambda item: (-item[1], VERDICTS.index(item[0])))
    counts = Counted(tuple(ordered), len(counted), len(runs), why_not)
    return [told(*one) for one in full], counts


def told(what: str, run: Run | None, finding: Finding) -> Told:
    """One finding."""
    name = "" if run is None else f": run {run.number} ({run_words(run)})"
    advice = None
    if finding.advice is not None and finding.advice.change:
        advice = ", ".join(f"{k}={_argument(v)}" for k, v in finding.advice.change.items())
    return Told(
        title=f"{what[:1].upper()}{what[1:]}{name}",
        verdict=finding.verdict,
        cause=finding.cause,
        confidence=finding.confidence,
        sentence=finding.sentence,
        evidence=tuple(
            (n, number(e.value), e.where)
            for n, e in finding.evidence.items()
            if not isnan(e.value)  # it could not be measured
        ),
        advice=advice,
    )


def _argument(value: object) -> str:
    return number(value) if isinstance(value, float) else repr(value)


def _places_to_count(runs: Runs) -> tuple[list[int], str]:
    """The runs whose verdicts are counted, evenly spread; or none, and why."""
    plan = runs.plan
    if runs.interrupted:  # whoever stopped it does not want to wait
        return [], "Verdicts were not counted, since not all runs are there."
    by_records = plan is None or plan.unknown
    most = min(len(runs), MOST_BY_RECORDS if by_records else MOST_EXPLAINED)
    places = np.unique(np.linspace(0, len(runs) - 1, most).round().astype(int))
    if plan is not None and not by_records:
        size = sum(shape.numel() for shape in plan.problem.shapes.values())
        numbers = runs.settings["run"].to_numpy()[places]
        if size > LARGEST or seconds(plan, numbers) > LONGEST:
            return [], "Verdicts were not counted: to explain many of these runs takes too long."
    return [int(place) for place in places], ""
