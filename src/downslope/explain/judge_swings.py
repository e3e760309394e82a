"""Runs that leave, jump, ride the edge of stability, or swing from side to side.

Each question answers with a judgement, or None where it does not fit.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np

from downslope.explain import stability
from downslope.explain.facts import Facts, where_at
from downslope.explain.findings import Confidence, Evidence
from downslope.explain.judge_divergence import large_column
from downslope.explain.judge_ends import fall_left, slopes_on, whole_fall
from downslope.explain.judgement import Judgement, Said, advised
from downslope.explain.known import Known

EDGE = (0.85, 1.6)
"""The rate against the threshold at the edge of stability."""

CATAPULT = 2.5
"""The rate against the threshold at the start up to which a catapult is possible; theory says 2,
for wide networks (Lewkowycz et al. 2020)."""


def is_leaving(facts: Facts, known: Known) -> bool:
    """Whether a run that has not been called diverged is on its way."""
    first, last, lowest = float(facts.loss[0]), float(facts.loss[-1]), float(facts.loss.min())
    scale = max(first - lowest, abs(first), known.natural_loss)
    if last - lowest > 10 * scale and last > first:
        return True
    settings, end = facts.settings, facts.places["end"]
    theory = known.quadratic and settings.full and settings.kind == "sgd"
    plain = not settings.scheduled and not np.isfinite(settings.clip_norm)
    if settings.lr is None or not theory or not plain:
        return False
    factor = float(stability.contraction(settings.lr, end.largest, **settings.heavy))
    return factor > 1 + 1e-6 and facts.places["start"].steepest > 0


def is_clipped(facts: Facts, known: Known) -> Judgement | None:
    """Clipping keeps a run in bounds that would have left."""
    clip = facts.settings.clip_norm
    if not np.isfinite(clip) or len(facts.norms) < 8:
        return None
    tail = facts.norms[len(facts.norms) // 2 :]
    share = float((tail > clip).mean())
    half = facts.loss[len(facts.loss) // 2 :]
    falls = float(half[: len(half) // 2].mean() - half[len(half) // 2 :].mean())
    ratio = facts.ratio("end")
    swings = facts.turned > 0.5
    theory = known.quadratic and ratio > 1
    enough = share >= (0.2 if theory else 0.8)
    if not enough or not swings or falls > 0.1 * abs(whole_fall(facts)):
        return None
    limit = facts.threshold("end")
    evidence = {
        "share of clipped updates": Evidence(share, "in the last half"),
        "threshold": Evidence(limit, facts.places["end"].where),
    }
    slots: dict[str, Any] = {"clip": clip, "share": f"{share:.0%}", "lr": facts.settings.lr,
                             "threshold": limit}  # fmt: skip
    advice = None
    if facts.settings.lr is not None:
        change = limit / 2 if np.isfinite(limit) and ratio > 1 else facts.settings.lr / 10
        advice = advised("lr", "lower", {"lr": change})
    sure: Confidence = "certain" if theory else "likely"
    said: Said = (("cycling", {}), ("cause.clipping-cycle", slots))
    return Judgement("cycling", "clipping-cycle", sure, said, evidence, advice)


def jumped(facts: Facts, known: Known) -> Judgement | None:
    """An early spike, and then a flatter place."""
    settings, ratio = facts.settings, facts.ratio("start")
    if not settings.full or known.quadratic or not 1 < ratio < CATAPULT:
        return None
    if facts.ratio("end") >= 1:
        return None
    each = len(facts.batch_loss) > 2
    losses = facts.batch_loss if each else facts.loss
    first, peak = float(losses[0]), float(np.nanmax(losses[: max(2, len(losses) // 2)]))
    if peak < first + 0.1 * abs(first) or float(facts.loss[-1]) > first - 0.5 * abs(first):
        return None
    start, end = facts.places["start"], facts.places["end"]
    highest = int(np.nanargmax(losses))
    evidence = {
        "curvature at the start": Evidence(start.largest, start.where),
        "curvature at the end": Evidence(end.largest, end.where),
        "highest loss": Evidence(peak, where_at(highest if each else int(facts.steps[highest]))),
    }
    slots = {"peak": peak, "first": first, "curvature": start.largest, "flatter": end.largest,
             "threshold": facts.threshold("start"), "lr": settings.lr}  # fmt: skip
    said: Said = (("catapult", slots), ("cause.start-too-sharp", slots))
    return Judgement("catapult", "start-too-sharp", "likely", said, evidence)


def is_on_edge(facts: Facts, known: Known) -> Judgement | None:
    """The curvature grew until the rate was at its threshold, and hovers there."""
    settings, end = facts.settings, facts.places["end"]
    if not settings.full or known.quadratic or settings.lr is None:
        return None
    losses = facts.batch_loss if len(facts.batch_loss) > 8 else facts.loss
    tail = losses[len(losses) // 2 :]
    rises = float((np.diff(tail) > 0).mean()) if len(tail) > 1 else 0.0
    if rises < 0.05 or float(facts.loss[-1]) >= float(facts.loss[0]):
        return None
    if settings.kind == "sgd":
        ratios = [facts.ratio(name) for name in ("half", "late", "end")]
        inside = [EDGE[0] <= ratio <= EDGE[1] for ratio in ratios]
        start = facts.places["start"].largest
        if facts.ratio("start") >= EDGE[0] or end.largest < 1.1 * start:
            return None  # it did not grow
        if sum(inside) < 2 or not inside[-1]:
            return None
        curvature, ratio, key = end.largest, ratios[-1], "cause.edge-of-stability"
    elif settings.kind == "adaptive":
        curvature = known.preconditioned(facts)
        ratio = settings.lr / float(stability.adaptive_threshold(curvature, settings.beta1))
        key = "cause.adaptive-edge"
        if not EDGE[0] <= ratio <= EDGE[1]:
            return None
    else:
        return None
    evidence = {
        "curvature": Evidence(curvature, end.where),
        "rate against the threshold": Evidence(ratio, end.where),
        "share of updates that raised the loss": Evidence(rises, "in the last half"),
    }
    slots = {"curvature": curvature, "limit": curvature / ratio, "lr": settings.lr,
             "rises": f"{rises:.0%}", "optimizer": settings.optimizer}  # fmt: skip
    said: Said = (("edge-of-stability", slots), (key, slots))
    return Judgement("edge-of-stability", "edge-of-stability", "likely", said, evidence)


def swings(facts: Facts, known: Known) -> Judgement | None:
    """From side to side at every update, or in waves of momentum."""
    settings = facts.settings
    if not settings.full or len(facts.loss) < 4:
        return None
    if facts.turned >= 0.7 and _steep_enough(facts):
        return _side_to_side(facts, known)
    if settings.kind == "sgd" and settings.momentum and _waves(facts) >= 2:
        return _in_waves(facts, known)
    return None


def _steep_enough(facts: Facts) -> bool:
    """Whether a fair share of what is left to fall lies along the steepest direction, where that
    is known: else it is another direction that keeps the loss up."""
    end = facts.places["end"]
    if np.isnan(end.steepest) or not end.largest > 0 or not end.fall > 0:
        return True
    return end.steepest**2 / (2 * end.largest) >= 0.1 * end.fall


def _side_to_side(facts: Facts, known: Known) -> Judgement:
    settings, end = facts.settings, facts.places["end"]
    half = max(1, facts.steps_done // 2)
    shrinks = exp(min(facts.pace * half, 50.0))
    stays = 0.95 < shrinks < 1.05
    lr, ratio = settings.lr, facts.ratio("end")
    free = not len(facts.norms) or bool((facts.norms[len(facts.norms) // 2 :]
                                         <= settings.clip_norm).all())  # fmt: skip
    plain = settings.kind == "sgd" and not settings.scheduled
    exact = known.quadratic and plain and free and not slopes_on(facts)
    if exact and lr is not None:
        factor = float(stability.contraction(lr, end.largest, **settings.heavy))
        stays = abs(factor - 1) < 1e-6
    verdict: Any = "cycling" if stays or (shrinks >= 1 and not exact) else "ringing"
    evidence = {
        "moves that turned back": Evidence(facts.turned, "in the last half"),
        "a move against the one half a run before": Evidence(shrinks, "at the end"),
        "largest curvature": Evidence(end.largest, end.where),
    }
    said: Said = ((verdict, {}), ("cause.unknown", {}))
    if lr is None or settings.kind == "other":
        return Judgement(verdict, "unknown", "unknown", said, evidence)
    if settings.kind == "adaptive":
        slots = {"optimizer": settings.optimizer, "lr": lr}
        said = ((verdict, {}), ("cause.steps-do-not-shrink", slots))
        advice = advised("lr", "lower", {"lr": lr / 10})
        return Judgement(verdict, "steps-do-not-shrink", "likely", said, evidence, advice)
    if abs(end.largest) * lr < 1e-6 and not known.quadratic:
        found = large_column(facts, known, ("cycling", {}), "cycling")
        if found is not None:
            return found
        said = (("cycling", {}), ("cause.kink", {"gradient": end.gradient, "lr": lr}))
        return Judgement(
            "cycling", "kink", "likely", said, evidence, advised("lr", "lower", {"lr": lr / 4})
        )
    factor = 1 - 2 * ratio if not settings.momentum else -float(
        stability.contraction(lr, end.largest, **settings.heavy)
    )  # fmt: skip
    evidence["factor of an update"] = Evidence(factor, "along the steepest direction")
    slots = {"factor": factor, "curvature": end.largest, "lr": lr, "where": end.where,
             "threshold": facts.threshold("end")}  # fmt: skip
    change = {"lr": facts.bearable / 2}
    supported = 0.5 < ratio < 1.2 or (settings.momentum > 0 and ratio > 0.3)
    if verdict == "cycling" and not exact:
        supported = 0.97 < ratio < 1.05
    if not supported:
        return Judgement(verdict, "unknown", "unknown", said, evidence)
    at = verdict == "cycling"
    cause = "rate-at-threshold" if at else "rate-near-threshold"
    sure: Confidence = "certain" if exact else "likely"
    said = ((verdict, {}), (f"cause.{cause}", slots))
    return Judgement(verdict, cause, sure, said, evidence, advised("lr", "lower", change))


def _waves(facts: Facts) -> int:
    """How often the loss turned upward over the last half, by a hundredth or more."""
    losses = facts.batch_loss if len(facts.batch_loss) >= 16 else facts.loss
    lowest = fall_left(facts)
    floor = float(facts.loss[-1]) - lowest if np.isfinite(lowest) else float(losses.min())
    tail = np.maximum(losses[len(losses) // 2 :] - floor, 0)
    waves, bottom, rising = 0, np.inf, False
    top = -np.inf
    for value in tail:
        if rising:
            top = max(top, value)
            if value < 0.9 * top:
                rising, bottom = False, value
        else:
            bottom = min(bottom, value)
            if value > 1.1 * bottom and value > 0:
                rising, top = True, value
                waves += 1
    return waves


def _in_waves(facts: Facts, known: Known) -> Judgement | None:
    settings, end = facts.settings, facts.places["end"]
    lr, momentum = settings.lr, settings.momentum
    if lr is None or not end.largest > 0:
        return None
    flattest = max(end.least, 1e-3 * end.largest)
    along = np.geomspace(flattest, end.largest, 50)
    decay = float(stability.contraction(lr, along, **settings.heavy).max())
    complex_from = (1 - sqrt(momentum)) ** 2
    bent = lr * (1 - settings.dampening) * end.largest
    evidence = {
        "waves of the loss": Evidence(_waves(facts), "in the last half"),
        "momentum": Evidence(momentum, "in every update"),
        "factor of an update": Evidence(decay, "along the direction that rings longest"),
    }
    if bent < complex_from or not 0 < decay < 1:
        said: Said = (("ringing", {}), ("cause.unknown", {}))
        return Judgement("ringing", "unknown", "unknown", said, evidence)
    least = max(end.least, end.largest * 1e-3)
    best = stability.best_heavy_ball(least, end.largest)
    lower = min(best.momentum, 0.9 * momentum)
    slots = {"momentum": momentum, "decay": decay}
    said = (("ringing", {}), ("cause.momentum-rings", slots))
    sure: Confidence = "certain" if known.quadratic and not settings.scheduled else "likely"
    return Judgement("ringing", "momentum-rings", sure, said, evidence,
                     advised("momentum", "lower", {"momentum": round(lower, 4)}))  # fmt: skip
