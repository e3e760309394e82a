"""Runs that still fall: how long they would need, and what makes them slow.

Each question answers with a judgement, or None where it does not fit.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import Any

import numpy as np

from downslope.explain import rows, stability
from downslope.explain.facts import Facts
from downslope.explain.findings import Confidence, Evidence
from downslope.explain.judge_ends import (
    DONE,
    NEAR,
    fall_left,
    samples_at,
    samples_in_words,
    slopes_on,
    whole_fall,
    worth,
)
from downslope.explain.judgement import Judgement, Said, advised
from downslope.explain.known import Known

SLOW = 10.0
"""A run creeps if it would need more than this times the updates it made."""

FITTED = 1e-3
"""Share of the first loss below which a classifier that is right on every row has done its work."""

ILL = 100.0
"""Ratio of curvatures from which on that ratio is what makes a run slow."""


def is_separable(facts: Facts, known: Known) -> Judgement | None:
    """Every row is classified rightly, so that the loss falls for ever."""
    separated = known.separated(facts.flat("end"))
    if separated is False or facts.settings.decays or float(facts.loss[-1]) >= float(facts.loss[0]):
        return None
    sure: Confidence = "certain" if separated else "likely"
    evidence = {
        "loss": Evidence(float(facts.loss[-1]), facts.places["end"].where),
        "gradient": Evidence(facts.places["end"].gradient, facts.places["end"].where),
    }
    settings, last = facts.settings, float(facts.loss[-1])
    because = ("cause.separable-data", {"loss": last})
    if last <= FITTED * float(facts.loss[0]):
        said: Said = (("converged", {}), because)
        return Judgement("converged", "separable-data", sure, said, evidence)
    advice = None
    bears = settings.full and separated is True  # any rate converges on separable data
    if settings.lr is not None and (bears or 8 * settings.lr < facts.bearable):
        advice = advised("lr-times", "lower", {"lr": 4 * settings.lr})
    said = (("creeping.for-ever", {}), because)
    return Judgement("creeping", "separable-data", sure, said, evidence, advice)


def needed_updates(facts: Facts, known: Known) -> float:
    """Updates that are still needed at the speed of the last half, until it counts as converged."""
    left, whole = fall_left(facts), whole_fall(facts)
    if not np.isfinite(left) or whole <= 0:
        return np.nan
    lowest = float(facts.loss[-1]) - left
    excess = facts.loss - lowest
    half = slice(len(excess) // 2, None)
    good = excess[half] > 0
    if good.sum() < 2:
        return np.nan
    speed = -float(np.polyfit(facts.steps[half][good], np.log(excess[half][good]), 1)[0])
    if speed <= 0:
        return np.inf
    wanted = log(max(left / worth(facts, known), 1.0)) / speed
    start = facts.places["start"].distance
    if start > 0 and facts.places["end"].distance > 0:
        wanted = max(wanted, 2 * log(max(facts.places["end"].distance / (NEAR * start), 1)) / speed)
    return wanted


def is_slow(facts: Facts, known: Known) -> Judgement | None:
    """Still falling: soon there, or hardly moving, and why."""
    first, last = float(facts.loss[0]), float(facts.loss[-1])
    if last > first or facts.steps_done < 1:
        return None
    needed = needed_updates(facts, known)
    early = needed < 0.01 * facts.steps_done and not known.quadratic  # a valley that winds on
    if facts.bends_down("end") or np.isnan(needed) or slopes_on(facts) or early:
        return _open_end(facts, known)
    settings, end = facts.settings, facts.places["end"]
    creeps = needed > SLOW * facts.steps_done
    ratio = facts.ratio("end")
    span = end.largest / end.least if end.least > 0 else np.inf
    evidence = {
        "loss left to fall": Evidence(fall_left(facts), end.where),
        "updates needed": Evidence(needed, "at the speed of the last half"),
        "largest curvature": Evidence(end.largest, end.where),
        "least curvature": Evidence(end.least, end.where),
    }
    slots: dict[str, Any] = {"needed": _rounded(needed), "done": facts.steps_done,
                             "lr": settings.lr, "threshold": facts.bearable,
                             "span": span, "left": fall_left(facts)}  # fmt: skip
    found = _held_back(facts, slots, evidence)
    if found is not None:
        return found
    if settings.kind != "sgd" or settings.lr is None:
        return _slow_otherwise(facts, creeps, slots, evidence)
    if not np.isfinite(needed):
        said: Said = (("creeping", slots), ("cause.unknown", {}))
        return Judgement("creeping", "unknown", "unknown", said, evidence)
    effective = ratio * settings.memory
    better = _better_rate(facts, known)
    if effective < 0.1 and better > 2 * settings.lr:
        verdict: Any = "creeping" if creeps else "converging"
        cause = "rate-too-small" if creeps else "budget-too-short"
        parts = [(verdict, slots), ("cause.rate-too-small", slots), *_bearable(facts, known)]
        if not creeps:
            parts[1] = ("cause.budget-too-short", slots)
        sure: Confidence = "certain" if known.quadratic and settings.full else "likely"
        return Judgement(verdict, cause, sure, tuple(parts), evidence,
                         advised("lr", "lower", {"lr": better}))  # fmt: skip
    if not creeps:
        said = (("converging", slots), ("cause.budget-too-short", slots))
        goal = last - 0.5 * fall_left(facts)
        further = max(ceil(needed), 10, facts.steps_done // 5)
        more = min(facts.steps_done + further, 20 * facts.steps_done)
        return Judgement("converging", "budget-too-short", "likely", said, evidence,
                         advised("steps", "reach", {"steps": more}, goal=goal))  # fmt: skip
    if not ILL <= span < np.inf:
        said = (("creeping", slots), ("cause.unknown", {}))
        return Judgement("creeping", "unknown", "unknown", said, evidence)
    return _ill_conditioned(facts, known, slots, evidence, span)


def _open_end(facts: Facts, known: Known) -> Judgement | None:
    """Still falling, and no telling how far: there is no minimum in sight."""
    settings, end = facts.settings, facts.places["end"]
    half = float(facts.loss[len(facts.loss) // 2] - facts.loss[-1])
    if half <= 1e-3 * float(facts.loss[0] - facts.loss[-1]):
        return None
    slots: dict[str, Any] = {"done": facts.steps_done, "lr": settings.lr, "fell": half,
                             "threshold": facts.bearable}  # fmt: skip
    evidence = {
        "fall of the loss": Evidence(half, "in the last half"),
        "least curvature": Evidence(end.least, end.where),
        "largest curvature": Evidence(end.largest, end.where),
    }
    said: Said = (("converging", slots), ("cause.open-end", slots))
    better = _better_rate(facts, known) if settings.kind == "sgd" else 0.0
    if settings.lr is not None and better > 4 * settings.lr:
        said = (*said, *_bearable(facts, known))
        advice = advised("lr", "lower", {"lr": better})
    else:
        advice = advised("steps", "lower", {"steps": 2 * facts.steps_done})
    return Judgement("converging", "budget-too-short", "likely", said, evidence, advice)


def _better_rate(facts: Facts, known: Known) -> float:
    """Half of what every measured place can bear; in batches, half of what is safe in every
    order."""
    settings = facts.settings
    better = facts.bearable / 2
    if not np.isfinite(better):
        return 0.0
    if not known.quadratic:  # the loss may bend more where it has not been
        better = min(better, 10 * (settings.lr or 0.0))
    if settings.full:
        return better
    samples = samples_at(facts, known, "end")
    if samples is None:
        return min(better, (settings.lr or 0.0) * 4)
    return min(better, samples.safe / 2 / settings.memory)


def _bearable(facts: Facts, known: Known) -> list[tuple[str, Any]]:
    """Up to which rates the run would be stable, in a sentence."""
    settings = facts.settings
    if not np.isfinite(facts.bearable):
        return []
    slots: dict[str, Any] = {"lr": settings.lr, "threshold": facts.bearable}
    if settings.full:
        return [("also.rate", slots)]
    samples = samples_at(facts, known, "end")
    if samples is None or settings.momentum:
        return [("also.rate-in-batches", slots)]
    slots |= {"safe": samples.safe, "samples": samples_in_words(settings.batch_size)}
    return [("also.rate-of-samples", slots)]


def _held_back(
    facts: Facts, slots: dict[str, Any], evidence: dict[str, Evidence]
) -> Judgement | None:
    """Slow because clipping, or a schedule, makes its steps short."""
    settings = facts.settings
    tail = facts.norms[len(facts.norms) // 2 :]
    clipped = float((tail > settings.clip_norm).mean()) if len(tail) else 0.0
    if clipped > 0.5:
        evidence["share of clipped updates"] = Evidence(clipped, "in the last half")
        slots = {**slots, "clip": settings.clip_norm, "share": f"{clipped:.0%}"}
        said: Said = (("converging.held", slots), ("cause.clipping-slows", slots))
        advice = advised("clip", "lower", {"clip_norm": 4 * settings.clip_norm})
        return Judgement("converging", "clipping-slows", "likely", said, evidence, advice)
    highest, lr = settings.highest_lr, settings.lr
    if settings.scheduled and lr is not None and highest is not None and lr < 0.05 * highest:
        evidence["rate at the end"] = Evidence(lr, facts.places["end"].where)
        evidence["highest rate"] = Evidence(highest, "of all updates")
        said = (("converging.held", slots), ("cause.rate-fell", {"lr": lr, "highest": highest}))
        return Judgement("creeping", "rate-fell", "likely", said, evidence)
    return None


def _rounded(needed: float) -> str:
    if not needed > 10:
        return "ten"
    if needed > 1e9:
        return f"{needed:.0e}"
    return f"{float(f'{needed:.2g}'):,.0f}"


def _ill_conditioned(
    facts: Facts, known: Known, slots: dict[str, Any], evidence: dict[str, Evidence], span: float
) -> Judgement:
    """The ratio of curvatures is at fault: that of the columns' scales, or the problem's own."""
    sure: Confidence = "certain" if known.quadratic and facts.settings.full else "likely"
    evidence["ratio of curvatures"] = Evidence(span, facts.places["end"].where)
    other = known.standardised(facts.flat("start"))
    scales = known.scales
    if other is not None and scales is not None:
        least, largest = float(other.least[0, 0]), float(other.largest[0, 0])
        after = largest / least if least > 0 else np.inf
        even = float(scales.max()) < 3 * float(scales.min())
        start = facts.places["start"]
        before = start.largest / start.least if start.least > 0 else np.inf
        span = min(span, before)
        if after < span / 10:
            widest, narrowest = int(scales.argmax()), int(scales.argmin())
            slots = {**slots, "after": after, "size": float(scales.mean()),
                     "wide": rows.column_name(known.problem, widest),
                     "narrow": rows.column_name(known.problem, narrowest),
                     "times": float(scales.max() / scales.min())}  # fmt: skip
            evidence["ratio if standardised"] = Evidence(after, start.where)
            key = "cause.feature-scales-alike" if even else "cause.feature-scales"
            said: Said = (("creeping", slots), (key, slots))
            change = {"standardise": True, "lr": 1 / largest}
            return Judgement("creeping", "feature-scales", sure, said, evidence,
                             advised("standardise-rate", "lower", change))  # fmt: skip
    said = (("creeping", slots), ("cause.ill-conditioned", slots))
    end = facts.places["end"]
    least = end.least if end.least > 0 else end.largest / 1e6
    steepest = max(place.largest for place in facts.places.values() if np.isfinite(place.largest))
    best = stability.best_heavy_ball(max(least, steepest / 1e6), steepest)
    # No more momentum than lets its own waves die within the run, to DONE of their height.
    dies = DONE ** (2 / max(facts.steps_done, 1))
    momentum = min(round(best.momentum, 4), round(dies, 4), 0.99)
    if facts.settings.momentum >= momentum or not facts.settings.full:
        return Judgement("creeping", "ill-conditioned", sure, said, evidence)
    rate = (1 + sqrt(momentum)) ** 2 / steepest
    advice = advised("heavy-ball", "lower", {"lr": rate, "momentum": momentum})
    return Judgement("creeping", "ill-conditioned", sure, said, evidence, advice)


def _slow_otherwise(
    facts: Facts, creeps: bool, slots: dict[str, Any], evidence: dict[str, Evidence]
) -> Judgement:
    """Optimizers without a threshold of their own here: Adam moves by about its rate at most."""
    settings, start = facts.settings, facts.places["start"]
    if settings.lr is not None and settings.kind == "adaptive":
        reach = settings.lr * facts.steps_done
        far = start.distance / sqrt(max(len(facts.at[0]), 1))
        if reach < far and creeps:
            slots = {**slots, "reach": reach, "far": far, "optimizer": settings.optimizer}
            evidence["reach of all updates"] = Evidence(reach, "rate × updates")
            evidence["typical distance of a parameter"] = Evidence(far, start.where)
            said: Said = (("creeping", slots), ("cause.reach-too-short", slots))
            better = min(far / facts.steps_done * 4, settings.lr * 100)
            return Judgement("creeping", "rate-too-small", "likely", said, evidence,
                             advised("lr", "lower", {"lr": better}))  # fmt: skip
    if creeps:
        said = (("creeping", slots), ("cause.unknown", {}))
        return Judgement("creeping", "unknown", "unknown", said, evidence)
    said = (("converging", slots), ("cause.budget-too-short", slots))
    return Judgement("converging", "budget-too-short", "likely", said, evidence,
                     advised("steps", "lower", {"steps": 2 * facts.steps_done}))  # fmt: skip
