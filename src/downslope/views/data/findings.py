"""What the picture of a finding shows: its run's losses, what is marked there, and the rates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from downslope.explain.findings import Evidence, Finding
from downslope.run import Run
from downslope.views.data.losses import Floats, limits, loss_words
from downslope.views.data.roofs import BLOWN_UP
from downslope.views.data.rulers import Ruler, ruler_of

_CLIMB = 1e9
"""Times the loss at the start up to which the climb of a run that diverges is shown."""

_DEEP = 0.03
"""Share of the least loss over all rows down to which single batches' are shown."""

_BELOW = 1e-4
"""A level is drawn down to this share of the least loss; what lies lower would hide the run."""


@dataclass(frozen=True)
class Level:
    """A loss that the finding speaks of, drawn from a step on to the end."""

    loss: float
    words: str
    since: float


@dataclass(frozen=True, eq=False)
class FindingData:
    """Everything that the picture of a finding shows, as plain numbers.

    Attributes:
        steps, losses: the loss over all training rows (of a watched loop, each batch's), where
            it was recorded and finite.
        batch_steps, batch_losses: the batches' before each update; empty where none were kept, or
            where all rows are a batch and the records show everything.
        bad_step: the first bad step, or None.
        measured: the steps at which evidence was measured.
        window: the steps over which evidence was averaged, or None.
        peak: step and loss of a height that the finding speaks of, or None.
        wave: how many steps a swing takes, or None.
        ruler: None where fewer than two rates are known.
    """

    title: str
    sentence: str
    steps: Floats
    losses: Floats
    batch_steps: Floats
    batch_losses: Floats
    limits: tuple[float, float]
    log: bool
    y_label: str
    loss_words: str
    bad_step: int | None
    measured: tuple[float, ...]
    window: tuple[float, float] | None
    peak: tuple[float, float] | None
    wave: float | None
    levels: tuple[Level, ...]
    ruler: Ruler | None


def finding_data(finding: Finding, run: Run) -> FindingData:
    """What a finding says of its run, to be drawn.

    Args:
        run: the run, best seen closely (`explain.again.closer`).
    """
    there = (run.steps >= 0) & np.isfinite(run.loss)
    steps, losses = run.steps[there].astype(np.float64), run.loss[there].astype(np.float64)
    batch_steps, batch_losses = _batches(run, losses)
    last = max([0.0, *steps[-1:], *batch_steps[-1:]])
    bad = int(run.runs.first_bad_step[run.place])
    evidence = finding.evidence
    half = any("last half" in one.where for one in evidence.values())
    window = (last / 2, last) if half else None
    sign = float(run.runs.signs[run.place])
    levels = _levels(evidence, sign, steps, losses, last)
    log, ends = _axis(losses, batch_losses, levels)
    words = loss_words(run.runs)
    return FindingData(
        title=_title(finding, run),
        sentence=finding.sentence,
        steps=steps,
        losses=losses,
        batch_steps=batch_steps,
        batch_losses=batch_losses,
        limits=ends,
        log=log,
        y_label=words[0].upper() + words[1:],
        loss_words=_words(run, len(batch_losses) > 0),
        bad_step=bad if bad >= 0 else None,
        measured=_measured(evidence, last),
        window=window,
        peak=_peak(evidence, sign),
        wave=_wave(evidence, last),
        levels=tuple(one for one in levels if ends[0] <= one.loss <= ends[1]),
        ruler=ruler_of(finding, run),
    )


def _title(finding: Finding, run: Run) -> str:
    said = f"Run {run.number} ({run.row['optimizer']}): {finding.verdict}"
    if finding.cause not in ("unknown", finding.verdict):
        said += f", {finding.cause.replace('-', ' ')}"
    return f"{said} ({finding.confidence})"


def _words(run: Run, beside_batches: bool) -> str:
    if run.row["engine"] == "watched":
        return "batch's loss"
    return "loss over all rows" if beside_batches else "loss"


def _batches(run: Run, losses: Floats) -> tuple[Floats, Floats]:
    """The batches' losses where they say more than those of all rows."""
    calm = run.row.get("batch_size") == "full" and run.status != "diverged"
    if run.batch_loss is None or calm or run.row["engine"] == "watched":
        return np.empty(0), np.empty(0)
    values = np.asarray(run.batch_loss, dtype=np.float64)
    at = np.flatnonzero(np.isfinite(values))
    return at.astype(np.float64), values[at]


def _axis(losses: Floats, batches: Floats, levels: list[Level]) -> tuple[bool, tuple[float, float]]:
    """Whether the loss axis is logarithmic, and its ends: a climb is cut off, and a level far
    below the run is left out, as are the lowest of single batches."""
    values = np.concatenate([losses, batches])
    values = values[np.isfinite(values)]
    log = bool(len(values) and (values >= 0).all() and (values > 0).any())
    first = abs(float(values[0])) if len(values) else 1.0
    roof = max(first, 1e-300) * (_CLIMB if log else BLOWN_UP)
    least = losses[losses > 0].min(initial=np.inf) if log else -np.inf
    some = batches[batches >= (_DEEP * least if np.isfinite(least) else -np.inf)]
    shown = np.concatenate([losses, some])
    shown = shown[shown <= roof] if (shown <= roof).any() else values[:1]
    near = [one.loss for one in levels if not log or one.loss >= _BELOW * least]
    return log, limits(np.concatenate([shown, near]), log)


def _levels(
    evidence: Mapping[str, Evidence], sign: float, steps: Floats, losses: Floats, last: float
) -> list[Level]:
    """The noise floor with the minimum below it, or how far the loss can still fall."""
    if not len(losses):
        return []
    falls, end = sign * losses, "minimum" if sign > 0 else "maximum"
    found = []
    excess, theory = evidence.get("mean excess of the loss"), evidence.get("expected by theory")
    if excess is not None:
        mean = float(falls[len(falls) // 2 :].mean())
        lowest = mean - excess.value
        found = [(mean, "mean of the last half"), (lowest, f"{end} in sight")]
        if theory is not None:
            found.append((lowest + theory.value, "noise floor by theory"))
    elif (left := evidence.get("loss left to fall")) is not None and np.isfinite(left.value):
        found = [(float(falls[-1]) - left.value, f"{end}, if quadratic")]
    return [Level(sign * loss, words, last / 2) for loss, words in found]


def _measured(evidence: Mapping[str, Evidence], last: float) -> tuple[float, ...]:
    """The steps that the evidence names."""
    found = {_step(one.where, last) for one in evidence.values()}
    return tuple(sorted(step for step in found if step is not None))


def _step(where: str, last: float) -> float | None:
    if where in ("at the start", "at the end"):
        return 0.0 if where == "at the start" else last
    named = re.fullmatch(r"(?:at|after|before) step ([\d,]+)", where)
    return None if named is None else float(named[1].replace(",", ""))


def _peak(evidence: Mapping[str, Evidence], sign: float) -> tuple[float, float] | None:
    one = evidence.get("highest loss")
    step = None if one is None else _step(one.where, np.nan)
    return None if one is None or step is None else (step, sign * one.value)


def _wave(evidence: Mapping[str, Evidence], last: float) -> float | None:
    """Steps from one wave of the loss to the next, over the last half."""
    waves = evidence.get("waves of the loss")
    return last / 2 / waves.value if waves is not None and waves.value >= 1 else None
