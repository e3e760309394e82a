"""Why a run diverged: what was not finite, or which threshold its rate was above.

The order of the questions matters: a number in the data that is none explains everything; then the
scale of a column or of the weights; then the threshold of full batches, of which smaller batches'
lies below; and last what only an order of samples, or momentum, does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from downslope.explain import rows, stability
from downslope.explain.facts import Facts
from downslope.explain.findings import Advice, Confidence, Evidence, Verdict
from downslope.explain.judge_ends import samples_at, samples_in_words
from downslope.explain.judgement import Judgement, Said, advised
from downslope.explain.known import Known

LARGE_COLUMN = 10.0
"""Root mean square from which on a column's scale is worth naming as a cause."""

SHRUNK = (0.1, 0.01)
"""Weights are tried at these shares of their size, to see whether their scale is at fault."""

GAIN = 100.0
"""Gain within an epoch of a fixed order from which on it explains a divergence."""


def judge_divergence(facts: Facts, known: Known) -> Judgement:
    """The judgement of a run that diverged, or is on its way there."""
    opening = _opening(facts)
    for question in (_not_finite, _explodes, _above_threshold, _batches, _beyond, large_column):
        found = question(facts, known, opening)
        if found is not None:
            return found
    return _unexplained(facts, opening)


def _opening(facts: Facts) -> tuple[str, dict[str, Any]]:
    first = float(facts.loss[0])
    if facts.first_bad_step == 0:
        return "diverged.at-once", {"loss": first}
    if facts.diverged:
        return "diverged", {"step": facts.first_bad_step}
    last = float(facts.loss[-1])
    if last > first:
        return "diverged.large", {"loss": last, "first": first, "step": facts.steps_done}
    return "diverged.not-yet", {"step": facts.steps_done}


Opening = tuple[str, dict[str, Any]]


def _not_finite(facts: Facts, known: Known, opening: Opening) -> Judgement | None:
    """Numbers in the data, or a loss at the start, that are not finite."""
    finite = bool(np.isfinite(facts.loss[0])) and facts.first_bad_step != 0
    cell = None if finite else known.bad_cell  # a loss may leave such numbers out
    if cell is not None:
        one = ("cause.non-finite-data", {"row": cell.row, "column": cell.column,
                                          "value": str(cell.value)})  # fmt: skip
        bad = rows.bad_rows(known.problem)
        advice = None
        if len(bad) < len(known.problem.train or ()):
            key = "drop-row" if len(bad) == 1 else "drop-rows"
            advice = advised(key, "stable", {"without_rows": bad}, count=len(bad))
        evidence = {"row": Evidence(cell.row, "in the training rows")}
        return Judgement("diverged", "non-finite-data", "certain", (opening, one), evidence, advice)
    if np.isfinite(facts.loss[0]) or facts.first_bad_step > 0:
        return None
    largest = rows.largest(known.problem)
    evidence = {"loss": Evidence(float(facts.loss[0]), "at the start")}
    if largest is None or abs(largest.value) < 1e6:
        return Judgement("diverged", "overflow", "likely", (opening, ("cause.overflow", {})),
                         evidence)  # fmt: skip
    one = ("cause.overflow-data", {"row": largest.row, "column": largest.column,
                                    "value": largest.value})  # fmt: skip
    evidence["largest input"] = Evidence(largest.value, f"in row {largest.row}")
    advice = advised("drop-row", "stable", {"without_rows": [largest.row]}, count=1)
    return Judgement("diverged", "overflow", "likely", (opening, one), evidence, advice)


def _limits(facts: Facts) -> dict[str, float]:
    """The full batch's threshold at the places that tell why a run left."""
    found = {}
    for name in ("start", "calm"):
        place = facts.places[name]
        if np.isfinite(place.largest) and place.largest > 0:
            found[name] = facts.threshold(name)
    return found


def _explodes(facts: Facts, known: Known, opening: Opening) -> Judgement | None:
    """A column, or weights, so large that the rate could not do."""
    lr, limits = facts.settings.lr, _limits(facts)
    if lr is None or facts.settings.kind != "sgd" or not limits or lr <= min(limits.values()):
        return None
    start = facts.places["start"]
    tightest = min(limits, key=lambda name: limits[name])
    measured = facts.places[tightest]
    evidence = {
        "curvature": Evidence(measured.largest, measured.where),
        "threshold": Evidence(limits[tightest], measured.where),
    }
    column = _column(facts, known)
    if column is not None:
        slots = {**column, "lr": lr, "threshold": limits[tightest], "where": measured.where}
        evidence |= _evidence_of(column)
        said: Said = (opening, ("cause.exploding-column", slots))
        advice = advised("standardise", "stable", {"standardise": True})
        sure: Confidence = "certain" if known.quadratic and facts.settings.full else "likely"
        return Judgement("diverged", "exploding-start", sure, said, evidence, advice)
    if known.quadratic or not start.largest > 0:
        return None
    for share in SHRUNK:
        small = known.at(share * facts.flat("start"))
        bent, loss = float(small.largest[0, 0]), float(small.loss[0, 0])
        if (
            start.largest < 10 * bent
            or lr >= facts.settings.threshold(bent)
            or start.loss < 10 * abs(loss)
        ):
            continue
        slots = {"loss": start.loss, "small": loss, "share": share, "lr": lr,
                 "threshold": limits[tightest]}  # fmt: skip
        evidence[f"loss with weights {share:g} times as large"] = Evidence(loss, start.where)
        said = (opening, ("cause.exploding-weights", slots))
        advice = advised("shrink", "stable", {"start_times": share})
        return Judgement("diverged", "exploding-start", "likely", said, evidence, advice)
    return None


def _above_threshold(facts: Facts, known: Known, opening: Opening) -> Judgement | None:
    """The rate against the threshold of full batches, at the start or the calmest place."""
    settings, limits = facts.settings, _limits(facts)
    lr = settings.lr
    if lr is None or settings.kind != "sgd" or not limits:
        return None
    name = min(limits, key=lambda n: limits[n])
    limit, place = limits[name], facts.places[name]
    if lr <= limit:
        return None
    evidence = {
        "curvature": Evidence(place.largest, place.where),
        "threshold": Evidence(limit, place.where),
        "rate": Evidence(lr, "in every update"),
    }
    slots: dict[str, Any] = {"curvature": place.largest, "where": place.where,
                             "threshold": limit, "lr": lr}  # fmt: skip
    cause, key = "rate-above-threshold", "cause.rate-above-threshold"
    if settings.momentum:
        alone = float(stability.threshold(place.largest))
        cause, key = "momentum-above-threshold", "cause.momentum-above-threshold"
        slots |= {"momentum": settings.momentum, "alone": alone}
        evidence["threshold without momentum"] = Evidence(alone, place.where)
        if lr < alone:
            key = "cause.momentum-alone-above"
    sure: Confidence = "certain" if known.quadratic and not settings.scheduled else "likely"
    parts: list[Any] = [opening, (key, slots)]
    change = {"lr": limit / 2}
    if not settings.full:
        samples = samples_at(facts, known, "calm")
        if samples is not None:
            also = "also.samples-alone" if settings.momentum else "also.samples"
            parts.append((also, {"safe": samples.safe}))
            evidence["safe in every order"] = Evidence(samples.safe, facts.places["calm"].where)
            change = {"lr": min(limit / 2, samples.safe / 2) / settings.memory}
    if not known.quadratic and settings.full:
        change = {"lr": limit / 4}  # the loss may bend more on the way than where it was measured
    return Judgement(
        "diverged", cause, sure, tuple(parts), evidence, advised("lr", "stable", change)
    )


def _batches(facts: Facts, known: Known, opening: Opening) -> Judgement | None:
    """Full batches would do: what single samples, their order or momentum does."""
    settings, lr = facts.settings, facts.settings.lr
    if settings.full or lr is None or settings.kind != "sgd":
        return None
    samples = samples_at(facts, known, "calm")
    if samples is None:
        return None
    place = facts.places["calm"]
    threshold = facts.threshold("calm")
    worst = rows.sample_in_words(known.problem, samples.worst)
    slots: dict[str, Any] = {
        "sample": worst, "most": samples.most, "safe": samples.safe, "lr": lr,
        "samples": samples_in_words(settings.batch_size),
        "threshold": threshold, "average": samples.low, "high": samples.high,
        "momentum": settings.momentum, "gain": samples.gain, "radius": samples.radius,
    }  # fmt: skip
    evidence = {
        "largest curvature of a sample": Evidence(samples.most, worst),
        "safe in every order": Evidence(samples.safe, place.where),
        "full batch's threshold": Evidence(threshold, place.where),
    }
    if np.isfinite(samples.low):
        evidence["mean-square threshold"] = Evidence(samples.low, place.where)
    advice: Advice = advised("lr", "stable", {"lr": samples.safe / 2 / settings.memory})
    exact = known.quadratic and not settings.scheduled
    sure: Confidence = "certain" if exact else "likely"
    if samples.gain > GAIN and samples.radius < 1:
        evidence |= {
            "gain within an epoch": Evidence(samples.gain, "in stored order"),
            "factor of an epoch": Evidence(samples.radius, "in stored order"),
        }
        said: Said = (opening, ("cause.fixed-order-amplification", slots),
                ("also.batches", slots))  # fmt: skip
        return Judgement("diverged", "fixed-order-amplification", sure, said, evidence, advice)
    grows = samples.factor > 1 or (samples.radius > 1)
    if settings.momentum and grows and samples.without_momentum <= 1:
        evidence["mean square's factor"] = Evidence(samples.factor, "in an update")
        slots["alone"] = samples.low
        said = (opening, ("cause.momentum-in-batches", slots))
        return Judgement("diverged", "momentum-above-threshold", sure, said, evidence, advice)
    if grows or lr > samples.high:
        key = "cause.rate-above-sample-threshold"
        said = (opening, (key, slots), ("also.batches", slots))
        return Judgement("diverged", "rate-above-sample-threshold", sure, said, evidence, advice)
    if lr * settings.memory > samples.safe:  # not shown to be unstable, nor to be safe
        key = "cause.above-safe"
        said = (opening, (key, slots), ("also.batches", slots))
        return Judgement(
            "diverged", "rate-above-sample-threshold", "likely", said, evidence, advice
        )
    return None


def _beyond(facts: Facts, known: Known, opening: Opening) -> Judgement | None:
    """The loss bent more and more along the way, until the rate was above the threshold."""
    settings = facts.settings
    if settings.lr is None or settings.kind != "sgd" or not facts.diverged:
        return None
    for name in ("late", "end"):
        place = facts.places[name]
        if np.isfinite(place.largest) and place.largest > 0:
            limit = facts.threshold(name)
            if settings.lr > limit:
                start = facts.places["start"]
                slots = {"curvature": place.largest, "where": place.where, "lr": settings.lr,
                         "threshold": limit, "first": start.largest}  # fmt: skip
                evidence = {
                    "curvature": Evidence(place.largest, place.where),
                    "curvature at the start": Evidence(start.largest, start.where),
                    "threshold": Evidence(limit, place.where),
                }
                return Judgement(
                    "diverged",
                    "momentum-above-threshold" if settings.momentum else "rate-above-threshold",
                    "likely",
                    (opening, ("cause.bent-more", slots)),
                    evidence,
                    advised("lr", "stable", {"lr": settings.lr / 4}),
                )
    return None


def large_column(
    facts: Facts, known: Known, opening: Opening, verdict: Verdict = "diverged"
) -> Judgement | None:
    """A column so large that the loss is level where it was measured, and steep between: with
    standardised columns the rate would do."""
    column = _column(facts, known)
    if column is None:
        return None
    slots = {**column, "lr": facts.settings.lr}
    said: Said = (opening, ("cause.large-column", slots))
    advice = advised("standardise", "lower", {"standardise": True})
    return Judgement(verdict, "exploding-start", "likely", said, _evidence_of(column), advice)


def _column(facts: Facts, known: Known) -> dict[str, Any] | None:
    """The largest column, its size and the threshold if columns were standardised; None unless it
    is large and the rate would be below that."""
    lr, scales = facts.settings.lr, known.scales
    if lr is None or facts.settings.kind != "sgd" or scales is None:
        return None
    size = float(scales.max())
    other = known.standardised(facts.flat("start")) if size > LARGE_COLUMN else None
    if other is None or not float(other.largest[0, 0]) > 0:
        return None
    limit = facts.settings.threshold(float(other.largest[0, 0]))
    name = rows.column_name(known.problem, int(scales.argmax()))
    return {"column": name, "size": size, "limit": limit} if lr < limit else None


def _evidence_of(column: dict[str, Any]) -> dict[str, Evidence]:
    return {
        "column's root mean square": Evidence(column["size"], f"in {column['column']}"),
        "threshold if standardised": Evidence(column["limit"], "at the start"),
    }


def _unexplained(facts: Facts, opening: Opening) -> Judgement:
    evidence = {
        name: Evidence(place.largest, place.where)
        for name, place in (("curvature at the start", facts.places["start"]),
                            ("curvature where it was calm", facts.places["calm"]))
    }  # fmt: skip
    advice = None
    if facts.settings.lr is not None and facts.first_bad_step != 0:
        advice = advised("lr-guess", "stable", {"lr": facts.settings.lr / 10})
    slots = {"curvature": facts.places["start"].largest}
    return Judgement(
        "diverged", "unknown", "unknown", (opening, ("cause.unknown-divergence", slots)),
        evidence, advice,
    )  # fmt: skip
