"""Runs that came to an end of their own: a minimum, a standstill, a floor of noise.

Each question answers with a judgement, or None where it does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from downslope.explain import minibatches
from downslope.explain.facts import Facts
from downslope.explain.findings import Advice, Confidence, Evidence
from downslope.explain.judgement import Judgement, Said, advised
from downslope.explain.known import Known
from downslope.explain.samples import Samples, samples_of
from downslope.explain.units import Units

DONE = 1e-4
"""Share of the whole fall that may be left where a run counts as converged."""

NEAR = 0.03
"""Share of the first distance from the minimum that may be left then."""

FLOOR = 0.01
"""Excess over the minimum, as a share of it, that is worth falling further."""

NOTHING = 1e-6
"""Share of the whole fall that is worth nothing, whatever the minimum is."""

STILL = 1e-6
"""Relative gradient (gradient × parameters / loss) below which nothing moves."""


def fall_left(facts: Facts) -> float:
    """How far the loss would still fall, if it is the quadratic that it looks like at the end."""
    fall = facts.places["end"].fall
    return max(fall, 0.0) if np.isfinite(fall) else np.nan


def whole_fall(facts: Facts) -> float:
    """From the start down to the minimum that the end looks at."""
    return float(facts.loss[0] - facts.loss[-1] + fall_left(facts))


def worth(facts: Facts, known: Known) -> float:
    """How little may be left to fall where a run counts as converged.

    On a quadratic, a share of the whole fall. Elsewhere a start may lie so high that such a share
    says nothing: then little beside the minimum, or beside what was left half a run before.
    """
    whole, floor = whole_fall(facts), abs(facts.places["end"].loss - fall_left(facts))
    if known.quadratic:
        return min(DONE * whole, max(FLOOR * floor, NOTHING * whole))
    lowest = float(facts.loss[-1]) - fall_left(facts)
    halfway = max(float(facts.loss[len(facts.loss) // 2]) - lowest, 0.0)
    return min(DONE * whole, max(FLOOR * floor, 1e-3 * halfway))


def slopes_on(facts: Facts) -> bool:
    """Whether the gradient at the end points where the loss does not bend: no bottom in sight."""
    end = facts.places["end"]
    rest = (1e-4 * facts.places["start"].gradient) ** 2
    return end.gradient**2 > 4 * max(end.fall, 0.0) * abs(end.largest) + rest


def relative_gradient(facts: Facts, place: str) -> float:
    """Gradient × length of the parameters / loss: free of units."""
    at = facts.places[place]
    fallen = abs(float(facts.loss[0] - facts.loss[-1])) if place == "end" else 0.0
    loss = max(abs(at.loss), fallen, 1e-300)
    return float(at.gradient * (1 + facts.size) / loss)


def stands_still(facts: Facts, known: Known) -> Judgement | None:
    """Nothing moves: the gradient is nothing from the start on."""
    first, last = float(facts.loss[0]), float(facts.loss[-1])
    start = facts.places["start"]
    at_bottom = first - known.least_loss <= 1e-12 * known.natural_loss
    if at_bottom and last <= first + 1e-6 * known.natural_loss:
        said: Said = (("converged", {}), ("cause.started-at-minimum", {"gradient": start.gradient}))
        return Judgement("converged", "minimum", "certain", said,
                         {"loss": Evidence(first, start.where)})  # fmt: skip
    if abs(first - last) > 1e-6 * max(abs(first), 1e-300) or facts.moved > STILL * (1 + facts.size):
        return None
    bends = max(abs(start.largest), abs(start.least))
    near = start.gradient <= 1e-4 * bends * (1 + facts.size)
    if relative_gradient(facts, "start") > STILL and not near:
        return None
    evidence: dict[str, Evidence] = {"gradient": Evidence(start.gradient, start.where)}
    slots: dict[str, Any] = {"gradient": start.gradient}
    units = known.units(facts.flat("start"))
    for name, whole, count, of in _closed(units):
        if whole and known.answers_alike(facts.flat("start")):
            evidence["units"] = Evidence(float(count), start.where)
            said = (("stuck", slots), (f"cause.{name}", {"count": count, "of": of}))
            return Judgement("stuck", name, "certain", said, evidence, _fresh())
    evidence["least curvature"] = Evidence(start.least, start.where)
    evidence["largest curvature"] = Evidence(start.largest, start.where)
    if start.least < -1e-9 * bends:
        said = (("stuck", slots), ("cause.start-at-saddle", {"least": start.least}))
        return Judgement("stuck", "stationary-start", "certain", said, evidence,
                         advised("push", "lower", {"start_push": 0.01}))  # fmt: skip
    if start.least > 1e-9 * bends or (known.quadratic and bends > 0):
        said = (("converged", {}), ("cause.started-at-minimum", slots))
        return Judgement("converged", "minimum", "certain", said, evidence)
    if known.lower_nearby(facts.flat("start"), facts.settings.sign):
        said = (("stuck", slots), ("cause.start-is-flat", {}))
        return Judgement("stuck", "stationary-start", "likely", said, evidence,
                         advised("push", "lower", {"start_push": 0.01}))  # fmt: skip
    said = (("converged", {}), ("cause.started-low", slots))
    return Judgement("converged", "minimum", "likely", said, evidence)


def _closed(units: Units) -> tuple[tuple[str, bool, int, int], ...]:
    """Causes by which a layer lets nothing through: name, whether it is so, units, of how many."""
    return (
        ("dead-units", units.dead_layer, units.dead, units.cut),
        ("saturation", units.saturated_layer, units.saturated, units.level),
    )


def _fresh() -> Advice:
    return advised("fresh-start", "lower", {"start_fresh": True})


def flat_tail(facts: Facts) -> bool:
    """Whether the loss no longer changed over the last half, against what it fell in all."""
    half = facts.loss[len(facts.loss) // 2 :]
    fallen = abs(float(facts.loss[0] - facts.loss[-1]))
    return float(half.max() - half.min()) <= 1e-3 * max(fallen, 1e-12 * abs(float(half[-1])))


def falls_without_end(facts: Facts) -> Judgement | None:
    """A quadratic that bends downward in some direction, and has been followed there."""
    end = facts.places["end"]
    if not facts.diverged and flat_tail(facts):
        return None
    evidence = {
        "least curvature": Evidence(end.least, end.where),
        "loss": Evidence(float(facts.loss[-1]), end.where),
    }
    said: Said = (("diverged.downward", {"loss": float(facts.loss[-1])}),
                  ("cause.unbounded", {"least": end.least}))  # fmt: skip
    return Judgement("diverged", "unbounded", "certain", said, evidence)


def lies_flat(facts: Facts, known: Known) -> Judgement | None:
    """The loss fell and then stayed, though this is no minimum worth the name: units that are
    dead or saturated, or a saddle."""
    if not flat_tail(facts):
        return None
    end = facts.places["end"]
    slots: dict[str, Any] = {"loss": float(facts.loss[-1]), "gradient": end.gradient}
    evidence = {
        "gradient": Evidence(end.gradient, end.where),
        "least curvature": Evidence(end.least, end.where),
    }
    lowest = known.least_loss
    if known.quadratic and not facts.bends_down("end"):
        return None
    if np.isfinite(lowest) and facts.loss[-1] - lowest <= 1e-3 * (facts.loss[0] - lowest):
        return None  # what there was to learn is learnt
    units = known.units(facts.flat("end"))
    for name, whole, count, of in _closed(units):
        if whole and known.answers_alike(facts.flat("end")):
            evidence["units"] = Evidence(float(count), end.where)
            said: Said = (("plateau", slots), (f"cause.{name}", {"count": count, "of": of}))
            return Judgement("plateau", name, "certain", said, evidence, _fresh())
    if end.least < -1e-4 * abs(end.largest) and relative_gradient(facts, "end") < 0.1:
        said = (("plateau", slots), ("cause.saddle", {"least": end.least}))
        advice = advised("push-end", "lower", {"start_push": 0.01, "start_end": True})
        return Judgement("plateau", "saddle", "likely", said, evidence, advice)
    return None


def is_down(facts: Facts, known: Known) -> Judgement | None:
    """At a minimum: nothing worth having is left."""
    left, whole, end = fall_left(facts), whole_fall(facts), facts.places["end"]
    if not np.isfinite(left) or not whole > 0 or facts.bends_down("end"):
        return None
    floor = abs(end.loss - left)
    small = left <= worth(facts, known)
    if slopes_on(facts):
        return None
    near = end.distance <= NEAR * facts.places["start"].distance or left <= 1e-3 * floor
    if not small or not (near or not facts.settings.full):
        return None
    if known.separated(facts.flat("end")) is not False and left > 1e-6 * whole:
        return None
    evidence = {
        "gradient": Evidence(end.gradient, end.where),
        "loss left to fall": Evidence(left, end.where),
        "least curvature": Evidence(end.least, end.where),
    }
    sure: Confidence = "certain" if known.quadratic else "likely"
    key = "cause.minimum" if known.quadratic else "cause.local-minimum"
    said: Said = (("converged", {}), (key, {"loss": float(facts.loss[-1]), "left": left,
                                                  "share": f"{left / whole:.1e}"}))  # fmt: skip
    return Judgement("converged", "minimum", sure, said, evidence)


def lies_on_floor(facts: Facts, known: Known) -> Judgement | None:
    """Batches' noise keeps it above the minimum."""
    settings, end = facts.settings, facts.places["end"]
    if settings.full or len(facts.loss) < 8 or known.problem.train is None:
        return None
    if known.separated(facts.flat("end")) is not False:
        return None  # noise vanishes where every row is fitted
    half = facts.loss[len(facts.loss) // 2 :]
    at = np.linspace(0.0, 1.0, len(half))
    slope, height = np.polyfit(at, half, 1)
    swing = float(np.std(half - (slope * at + height)))
    lowest = lowest_in_sight(facts, known)
    if not np.isfinite(lowest):
        return _hovers(facts, swing, float(slope))
    excess = float(np.mean(half) - lowest)
    if excess <= 0 or abs(slope) > max(2 * swing, 0.05 * excess):
        return None
    if excess <= FLOOR * abs(lowest) or excess <= NOTHING * abs(float(facts.loss[0]) - lowest):
        return None
    evidence = {
        "mean excess of the loss": Evidence(excess, "over the last half of the records"),
        "gradient of all rows": Evidence(end.gradient, end.where),
    }
    slots: dict[str, Any] = {"excess": excess, "lowest": lowest, "lr": settings.lr,
                             "samples": samples_in_words(settings.batch_size)}  # fmt: skip
    said: list[tuple[str, Any]] = [("noise-floor", slots), ("cause.gradient-noise", slots)]
    sure: Confidence = "likely"
    expected = _expected_floor(facts, known)
    if expected < excess / 100 and settings.order != "cyclic":
        return None  # noise cannot hold it up here
    if settings.order == "cyclic":
        expected = np.nan
        samples = samples_at(facts, known, "end")
        if samples is not None and samples.gain > 1.5:
            evidence["gain within an epoch"] = Evidence(samples.gain, "in stored order")
            said.append(("also.gain", {"gain": samples.gain}))
    if np.isfinite(expected):
        evidence["expected by theory"] = Evidence(expected, "for batches drawn anew")
        said.append(("also.expected-floor", {"expected": expected}))
        if expected / 3 < excess < 3 * expected:
            sure = "certain"
    if settings.lr is None:
        return Judgement("noise-floor", "gradient-noise", sure, tuple(said), evidence)
    advice = advised("go-on-lower", "lower", {"lr": settings.lr / 4, "start_end": True})
    return Judgement("noise-floor", "gradient-noise", sure, tuple(said), evidence, advice)


def lowest_in_sight(facts: Facts, known: Known) -> float:
    """The lowest minimum that a place of the run looks at; NaN if none does."""
    bound = known.least_loss
    seen = [
        max(place.loss - place.fall, bound)
        for name, place in facts.places.items()
        if name in ("calm", "half", "late", "end")
        if not facts.bends_down(name) and np.isfinite(place.loss - place.fall)
    ]
    return min(seen, default=np.nan)


def _hovers(facts: Facts, swing: float, slope: float) -> Judgement | None:
    """No minimum in sight, but the loss no longer falls and steps are mostly noise."""
    settings, end = facts.settings, facts.places["end"]
    tail = facts.norms[len(facts.norms) // 2 :]
    if abs(slope) > 2 * swing or not len(tail) or settings.lr is None:
        return None
    share = float(1 - end.gradient**2 / np.mean(tail**2))
    if share < 0.75:
        return None
    evidence = {
        "swing of the loss": Evidence(swing, "over the last half of the records"),
        "share of noise in squared gradients": Evidence(share, "in the last half"),
    }
    slots = {"swing": swing, "share": f"{share:.0%}", "lr": settings.lr,
             "samples": samples_in_words(settings.batch_size)}  # fmt: skip
    said: Said = (("noise-floor.open", slots), ("cause.mostly-noise", slots))
    advice = advised("go-on-lower", "lower", {"lr": settings.lr / 4, "start_end": True})
    return Judgement("noise-floor", "gradient-noise", "likely", said, evidence, advice)


def samples_in_words(batch_size: int | None) -> str:
    """Of how many samples a step is."""
    return "one sample" if batch_size in (1, None) else f"{batch_size} samples"


def samples_at(facts: Facts, known: Known, place: str) -> Samples | None:
    """Single samples at a place of the run, if they can be looked at."""
    hessians = known.sample_hessians(facts.flat(place))
    return None if hessians is None else samples_of(hessians, facts.settings)


def _expected_floor(facts: Facts, known: Known) -> float:
    settings, curvature = facts.settings, known.curvature
    size = curvature.layout.size
    plain = settings.kind == "sgd" and not settings.momentum and settings.lr is not None
    if not plain or not known.quadratic or size > minibatches.MOST or settings.lr is None:
        return np.nan
    hessians = known.sample_hessians(facts.flat("end"))
    if hessians is None:
        return np.nan
    flat = facts.flat("end")
    gradients, _ = curvature.gradients(flat[None])
    step = np.linalg.lstsq(hessians.mean(0), gradients[0].numpy(), rcond=1e-12)[0]
    bottom = flat - flat.new_tensor(step)
    noise = curvature.sample_gradients(bottom).double().numpy()
    made = minibatches.noise_floor(
        hessians, noise, settings.lr, settings.batch_size or 1, settings.order == "replacement"
    )
    return float(made) if np.isfinite(made) else np.nan
