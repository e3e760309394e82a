"""What is said of training loops, in English: verdicts from batches' losses, and their faults."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        # -- what the run did ----------------------------------------------------------------------
        "loop.none": "No step of the optimizer was seen, so nothing can be said.",
        "loop.unseen": "{steps} steps were seen, but no loss: whether they help cannot be said. "
        "Call watch.loss(loss) in the loop, or give loss_fn.",
        "loop.short": "{steps} losses are too few to say where they are going.",
        "loop.diverged.not-finite": "Diverged: the loss was not finite at step {step}.",
        "loop.diverged.gradient": "Diverged: the gradient was not finite at step {step}.",
        "loop.diverged.at-start": "The very first loss is not finite: look at the data and at the "
        "start, not at the learning rate.",
        "loop.diverged.grew": "The loss grows: from about {first} to about {last}.",
        "loop.cause.rate": "The rate was {ratio} times what the curvature allowed {where} "
        "(largest curvature {sharpness}, rate {lr}).",
        "loop.cause.rate-unknown": "Why is not known: no curvature was measured (give probe).",
        "loop.cause.rate-below": "The curvature measured {where} allowed the rate "
        "({ratio} of the limit), so the cause lies elsewhere, or came later.",
        "loop.converged": "Converged: the loss stands at {last}, and the gradient's norm has "
        "fallen to {share} of its start.",
        "loop.converging": "Converging: the loss fell from about {first} to about {last} and "
        "still falls.",
        "loop.fell": "Converging: the loss fell from about {first} to about {last}; whether it "
        "still falls is lost in its noise.",
        "loop.plateau": "Plateau: the loss fell from about {first} to about {last} and no longer "
        "moves; what holds it there was not measured.",
        "loop.noise-floor": "Noise floor: the loss fell from about {first} to about {last} and no "
        "longer moves, while batches' gradients are mostly noise (noise scale {noise} rows).",
        "loop.stuck": "Stuck: the loss has not moved from about {first}.",
        "loop.stuck.gradient": "The gradient is zero, or nearly: its norm was {norm} at most.",
        "loop.rising": "The loss rises: its last quarter lies at about {last}, the one before at "
        "about {before}.",
        "loop.ringing": "Ringing: the loss goes up and down from step to step, at {ratio} of the "
        "limit that the curvature sets the rate.",
        "loop.edge-of-stability": "Edge of stability: the curvature hovers at what the rate allows "
        "({ratio} of the limit) while the loss falls from about {first} to about {last}; this is "
        "no error.",
        "loop.passing": "(Of the losses on the way, {count} were not finite; later ones are.)",
        "loop.maximized": "(The optimizer maximises: losses are told with their sign turned.)",
        "loop.unclear": "Nothing measured supports a verdict: losses went from about {first} to "
        "about {last}.",
        # -- advice --------------------------------------------------------------------------------
        "loop.advice.lr": "Try lr = {lr}.",
        "loop.advice.noise": "Lower the rate towards the end (a scheduler), or take larger "
        "batches.",
        # -- faults of the loop --------------------------------------------------------------------
        "loop.gradients-not-cleared": "Gradients are never cleared: in {count} of {looked} steps "
        "looked at, backward() added to the gradient of the step before.",
        "loop.advice.gradients-not-cleared": "Call optimizer.zero_grad() before loss.backward().",
        "loop.parameters-not-held": "The optimizer does not hold {names}, which got a gradient and "
        "never changed in {steps} steps.",
        "loop.advice.parameters-not-held": "Make the optimizer with model.parameters(); where they "
        "are meant to stay, set requires_grad_(False) on them.",
        "loop.another-model": "None of the optimizer's parameters belongs to the model: its steps "
        "change something else.",
        "loop.advice.another-model": "Make the optimizer after the model, with "
        "model.parameters() of this very model.",
        "loop.parameters-without-gradient": "{names} got no gradient in any of the {looked} steps "
        "looked at ({how}).",
        "loop.advice.parameters-without-gradient": "Use them in forward(), and look for a "
        "detach(), .data, torch.no_grad() or dead units on the way to the loss.",
        "loop.no-gradients": "None of the model's parameters had a gradient at any of the "
        "{looked} steps looked at, though the loss {how}.",
        "loop.advice.no-gradients": "Call backward() on this very loss before optimizer.step(), "
        "and optimizer.zero_grad() not between the two.",
        "loop.loss-without-model": "The loss does not depend on the model: {how}, and none of its "
        "parameters got a gradient in the {looked} steps looked at.",
        "loop.advice.loss-without-model": "Compute the loss from model(x) itself, without "
        "detach(), .item(), .data, numpy or torch.tensor(...) in between.",
        "loop.broadcast": "The loss compares shapes {given} and {other}: they are broadcast to "
        "{made}, so that every prediction meets every target.",
        "loop.advice.broadcast": "Give both the same shape: y.unsqueeze(1), or "
        "model(x).squeeze(1).",
        "loop.evaluation-mode": "{count} of {steps} steps (from step {first}) were made in "
        "evaluation mode, though the model has {names}.",
        "loop.advice.evaluation-mode": "Call model.train() before training, and again after every "
        "evaluation.",
        "loop.scheduler-first": "The scheduler was stepped before the optimizer's first step: its "
        "schedule runs ahead, and its first rate is skipped.",
        "loop.advice.scheduler-first": "Call scheduler.step() after optimizer.step().",
    }
)  # fmt: skip
