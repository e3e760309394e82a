"""What findings say, in English: sentences for verdicts, causes and advice, with named slots."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_VERDICTS = {
    "converged": "Converged.",
    "converging": "Still falling when it ended, after {done} updates.",
    "creeping": "Creeps: it goes the right way, and far too slowly.",
    "converging.held": "Still falling when it ended, after {done} updates, but held back.",
    "creeping.for-ever": "Falls more and more slowly, without end.",
    "ringing": "Rings: it overshoots from side to side, and the swings die down slowly.",
    "cycling": "Cycles: it swings round without getting closer.",
    "noise-floor": "Hovers above the minimum, by {excess} on average; it no longer falls.",
    "noise-floor.open": (
        "Hovers: over the last half of the records the loss no longer fell, and swung by {swing}."
    ),
    "edge-of-stability": (
        "At the edge of stability: {rises} of the late updates raised the loss, and it still fell "
        "on the whole."
    ),
    "catapult": (
        "Catapulted: the loss rose from {first} to {peak} at first, and then fell in a flatter "
        "place."
    ),
    "plateau": "Lies on a plateau, at a loss of {loss}: the gradient there is {gradient}.",
    "stuck": "Stuck: it does not move, since the gradient at the start is {gradient}.",
    "diverged": "Diverged at step {step}.",
    "diverged.at-once": "Diverged before the first step: the loss at the start is {loss}.",
    "diverged.large": (
        "Has gone up from a loss of {first} to {loss} in {step} updates: it diverges, though no "
        "number has overflowed yet."
    ),
    "diverged.downward": "Falls without end: the loss has come to {loss}.",
    "diverged.not-yet": (
        "Diverges, though {step} updates were too few to show it: a part of its error grows at "
        "every update."
    ),
    "unknown": (
        "No verdict: it ended at a loss of {loss} with a gradient of {gradient}, and nothing that "
        "was measured says more."
    ),
    "no-updates": "Made no update, so that there is nothing to say.",
}

_CAUSES = {
    "cause.unknown": "Nothing that was measured explains it.",
    "cause.unknown-divergence": (
        "Nothing that was measured explains it; the loss bends by {curvature} at the start."
    ),
    "cause.non-finite-data": "The data holds {value}: row {row}, {column}.",
    "cause.unbounded": (
        "In some direction the loss bends downward by {least}, everywhere: it has no minimum."
    ),
    "cause.overflow": "Some number on the way to the loss is too large for this dtype.",
    "cause.overflow-data": (
        "Some number on the way to the loss is too large for this dtype; the largest input is "
        "{value}, in row {row}, {column}."
    ),
    "cause.exploding-column": (
        "The numbers of {column} are large (root mean square {size}), which makes the loss steep: "
        "{where}, rates are stable up to {threshold}; the rate was {lr}. With standardised "
        "columns they would be up to {limit}."
    ),
    "cause.exploding-weights": (
        "The weights it starts from are too large: the loss is {loss} there, and {small} with all "
        "of them {share} times as large. Rates are stable up to {threshold}; the rate was {lr}."
    ),
    "cause.rate-above-threshold": (
        "The loss bends by {curvature} along its steepest direction ({where}), so that full "
        "batches are stable up to a rate of {threshold}; the rate was {lr}."
    ),
    "cause.momentum-above-threshold": (
        "The loss bends by {curvature} along its steepest direction ({where}): with momentum "
        "{momentum}, full batches are stable up to a rate of {threshold}; the rate was {lr}. "
        "Without momentum, up to {alone}."
    ),
    "cause.momentum-alone-above": (
        "The momentum is at fault: the loss bends by {curvature} along its steepest direction "
        "({where}), so that with momentum {momentum} full batches are stable up to a rate of "
        "{threshold}; the rate was {lr}. Without momentum, up to {alone}."
    ),
    "cause.momentum-in-batches": (
        "The momentum is at fault: with steps of {samples} and momentum {momentum} the mean of "
        "squared errors grows at every update; without momentum, rates would be safe on average "
        "below {alone}. The rate was {lr}."
    ),
    "cause.rate-above-sample-threshold": (
        "{sample} alone bends the loss by {most}: steps of {samples} are certain to be safe below "
        "{safe}, safe on average below {average}; the rate was {lr}."
    ),
    "cause.above-safe": (
        "{sample} alone bends the loss by {most}: only rates below {safe} are certain to be safe "
        "for steps of {samples}; the rate was {lr}."
    ),
    "cause.fixed-order-amplification": (
        "{sample} alone bends the loss by {most}. In this fixed order an error grows up to "
        "{gain}-fold within an epoch, though a whole epoch would shrink it ({radius}-fold): noise "
        "is amplified alike. Steps of {samples} are certain to be safe below {safe}, in shuffled "
        "order safe on average below {average}; the rate was {lr}."
    ),
    "also.batches": "Full batches are stable up to {threshold}.",
    "also.samples": "In batches, rates are certain to be safe below {safe}.",
    "cause.bent-more": (
        "The loss bent more and more along the way: by {first} at the start, by {curvature} "
        "{where}, where rates are stable up to {threshold}; the rate was {lr}."
    ),
    "cause.minimum": (
        "At a loss of {loss}; if the loss is the quadratic that it looks like there, it can still "
        "fall by {left}, {share} of the whole way."
    ),
    "cause.local-minimum": (
        "At a loss of {loss}, near a minimum, which may be a local one; if the loss is the "
        "quadratic that it looks like there, it can still fall by {left}, {share} of the whole way."
    ),
    "cause.started-low": (
        "It started where the gradient is {gradient}, and no lower loss was found around it."
    ),
    "cause.started-at-minimum": "It started at a minimum: the gradient there is {gradient}.",
    "cause.dead-units": (
        "{count} of {of} units that cut off (ReLU and its like) answer 0 for every row, all of a "
        "layer among them: no gradient gets through."
    ),
    "cause.saturation": (
        "{count} of {of} units that level off (tanh, sigmoid) are at their end for every row, all "
        "of a layer among them: hardly any gradient gets through."
    ),
    "cause.start-at-saddle": (
        "The start is a stationary point and no minimum: the loss bends downward by {least} in "
        "some direction, but the gradient does not show it."
    ),
    "cause.start-is-flat": "The loss is flat around the start.",
    "cause.saddle": (
        "It is near a stationary point that is no minimum: the loss bends downward by {least} in "
        "some direction."
    ),
    "cause.gradient-noise": (
        "Steps of {samples} see gradients that differ from that of all rows; at a rate of "
        "{lr} their noise keeps it there. The minimum lies near {lowest}."
    ),
    "also.rate": "The rate was {lr}; up to {threshold} would be stable.",
    "also.rate-in-batches": (
        "The rate was {lr}; full batches would be stable up to {threshold}, smaller ones less far."
    ),
    "also.rate-of-samples": (
        "The rate was {lr}; steps of {samples} are certain to be safe below {safe}, full batches "
        "are stable up to {threshold}."
    ),
    "also.stopped": (
        "It was stopped because the validation loss (or else the training loss) no longer fell."
    ),
    "also.tolerance": "It was ended because the loss changed by less than the tolerance asked for.",
    "also.validation": (
        "The validation loss was lowest after step {step}, at {lowest}, and {last} at the end: "
        "what is gained on the training rows is lost on others."
    ),
    "also.maximized": "What is maximised is told upside down here: as a loss that falls.",
    "also.schedule": "Rates follow a schedule: it must be changed accordingly.",
    "also.records-alone": (
        "It was judged by its records, start and end alone: carrying it out again to look closely "
        "would take some {seconds} s."
    ),
    "also.samples-alone": (
        "In batches, without momentum, rates would be certain to be safe below {safe}."
    ),
    "also.gain": "In this fixed order an error grows up to {gain}-fold within an epoch.",
    "cause.mostly-noise": (
        "Of what steps of {samples} see, {share} is noise (of squared gradients, in the last "
        "half); at a rate of {lr} that keeps it there."
    ),
    "cause.open-end": (
        "Over the last half the loss fell by {fell}; how far it would go on falling cannot be told "
        "from where it ended."
    ),
    "cause.large-column": (
        "The numbers of {column} are large (root mean square {size}): a small step changes every "
        "prediction by much. With standardised columns rates would be stable up to {limit}; the "
        "rate was {lr}."
    ),
    "also.expected-floor": "Theory expects an excess of {expected}.",
    "cause.clipping-cycle": (
        "Clipping to {clip} keeps it in bounds: {share} of the late gradients were clipped, and "
        "the rate, {lr}, is above {threshold}, up to which it would come to rest."
    ),
    "cause.start-too-sharp": (
        "At the start the loss bent by {curvature}, for which rates are stable up to {threshold}; "
        "the rate was {lr}. Where it ended it bends by {flatter}. This is no error."
    ),
    "cause.edge-of-stability": (
        "The loss bends by {curvature}, and {limit} is what a rate of {lr} can bear: the curvature "
        "grew until the two met. This is no error; a lower rate would go smoothly, and to a "
        "steeper place."
    ),
    "cause.adaptive-edge": (
        "Measured in {optimizer}'s own steps the loss bends by {curvature}, and {limit} is what a "
        "rate of {lr} can bear: the curvature grew until the two met. This is no error."
    ),
    "cause.rate-at-threshold": (
        "Each update multiplies the error along the steepest direction by {factor}: the rate, "
        "{lr}, is at the threshold {threshold}."
    ),
    "cause.rate-near-threshold": (
        "Each update multiplies the error along the steepest direction by {factor}: the rate, "
        "{lr}, is just below the threshold {threshold}."
    ),
    "cause.kink": (
        "The loss has a kink there: it does not bend, and its gradient, {gradient}, does not "
        "shrink on the way to the minimum, so that steps at a rate of {lr} jump over it."
    ),
    "cause.steps-do-not-shrink": (
        "{optimizer}'s steps are about as long as its rate, {lr}, however small the gradient is: "
        "it jumps over the minimum to and fro."
    ),
    "cause.momentum-rings": (
        "The momentum, {momentum}, carries it past the minimum, so that errors swing, and shrink "
        "by no more than {decay} at every update."
    ),
    "cause.separable-data": (
        "Every row is classified rightly, so that the loss, {loss}, falls for ever as the "
        "parameters grow: there is no minimum to arrive at."
    ),
    "cause.rate-too-small": (
        "The rate is too small: at this speed it needs some {needed} more updates."
    ),
    "cause.reach-too-short": (
        "{optimizer} moves a parameter by about its rate at most: all updates together reach "
        "{reach}, and the minimum is some {far} away."
    ),
    "cause.clipping-slows": (
        "{share} of the late gradients were longer than {clip} and clipped to that, which makes "
        "every step short."
    ),
    "cause.rate-fell": (
        "The schedule brought the rate down from {highest} to {lr}, before it had arrived."
    ),
    "cause.feature-scales-alike": (
        "The loss bends {span} times more in its steepest direction than in its flattest, because "
        "the columns (root mean square {size}) are not centred, or of another size than 1. "
        "Standardised, the ratio would be {after}."
    ),
    "cause.not-measured": (
        "What it looks like around the run could not be measured ({reason}), so that no cause is "
        "named."
    ),
    "cause.budget-too-short": (
        "At its present speed some {needed} more updates would bring it there."
    ),
    "cause.ill-conditioned": (
        "The loss bends {span} times more in its steepest direction than in its flattest: a rate "
        "that the steep one can bear ({lr}; stable up to {threshold}) hardly moves along the flat "
        "one."
    ),
    "cause.feature-scales": (
        "The loss bends {span} times more in its steepest direction than in its flattest, because "
        "the columns' scales differ: {wide} is {times} times as large as {narrow}. With "
        "standardised columns the ratio would be {after}."
    ),
    "cause.random-loss": (
        "The loss is random from call to call: {first} and then {second} at the same place. "
        "Nothing that goes by its value can be said."
    ),
    "cause.no-problem": (
        "These runs were loaded without their problem, so that no curvature can be measured and no "
        "cause named: load them with downslope.load(folder, problem=...)."
    ),
    "cause.watched": (
        "It was watched in a training loop that is not Downslope's own, of which the records alone "
        "are known here, so that no cause is named: watch.findings (in its study: findings.json) "
        "say more, and with downslope.watch(..., probe=...) curvature is measured in the loop."
    ),
    "curve.flat": (
        "The loss no longer changes: from its values alone a minimum, a plateau and a floor of "
        "noise cannot be told apart."
    ),
    "curve.falls": "The loss was still falling when it ended, from {first} to {last}.",
    "curve.swings": "The loss goes up and down, and ended at {last}.",
    "curve.rose": "The loss ended above its start: {last} against {first}.",
}

_ADVICE = {
    "advice.lr": "Try lr = {lr}.",
    "advice.lr-guess": "Perhaps lr = {lr} does.",
    "advice.lr-times": "A rate as high as {lr} gets there sooner.",
    "advice.momentum": "Try momentum = {momentum}.",
    "advice.heavy-ball": "Try momentum = {momentum} with lr = {lr}.",
    "advice.steps": "Give it {steps} updates in all.",
    "advice.standardise": (
        "Standardise the columns: subtract their means, divide by their deviations."
    ),
    "advice.standardise-rate": "Standardise the columns, and try lr = {lr}.",
    "advice.drop-row": "Leave that row out, or mend it.",
    "advice.drop-rows": "Leave the {count} rows that hold such numbers out, or mend them.",
    "advice.shrink": "Start from weights {start_times} times as large.",
    "advice.clip": "Try clip_norm = {clip_norm}.",
    "advice.push": "Start a little aside.",
    "advice.push-end": "Go on from a little aside.",
    "advice.fresh-start": "Draw another start.",
    "advice.go-on-lower": "Go on from here with lr = {lr}.",
}

_TRIALS = {
    "trial.held": "It held: the loss ends at {after}; it was {before}.",
    "trial.diverged": "It did not hold: the run diverged at step {step}.",
    "trial.failed": "It did not hold: the loss ends at {after}; it was {before}.",
}

SENTENCES: Mapping[str, str] = MappingProxyType({**_VERDICTS, **_CAUSES, **_ADVICE, **_TRIALS})
