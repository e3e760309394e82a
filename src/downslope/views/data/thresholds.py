"""The rates above which theory says that runs leave an optimum, where it says so cheaply.

Measured at the runs' starts. Where the loss is a quadratic its curvature is the same everywhere,
and the rate is the threshold; elsewhere it is the threshold at the start.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from downslope.engines.starts import stacked_starts
from downslope.engines.work import Work
from downslope.errors import listed
from downslope.explain.facts import Settings, settings_of
from downslope.explain.known import Known
from downslope.explain.minibatches import mean_square_threshold
from downslope.explain.places import few_threads, measure
from downslope.explain.stability import threshold
from downslope.plan import Plan
from downslope.runs import Runs
from downslope.views.data.losses import Floats
from downslope.views.data.settings import Setting

_NUMBERS = 2_000_000
"""Parameters × rows up to which curvature is measured for a picture: well under a second."""

_STARTS = 5
"""Starts of a line's seeds that are measured."""

_SAMPLES = 2**21
"""Rows × parameters³ up to which single samples are looked at for a picture."""

_ON_AVERAGE = 12
"""Parameters up to which the threshold of small batches is computed."""


@dataclass(frozen=True)
class Threshold:
    """A rate above which full batches (or small ones, on average) leave an optimum.

    Attributes:
        rate: the median over the starts; low, high: the least and greatest of them.
        formula: how it follows from λ, the largest curvature of the loss (of its negative where it
            is maximised): "2/λ"; of small batches, in words.
        exact: whether curvature is the same everywhere, so that it holds throughout.
        lines: the places of the lines that it is of.
    """

    rate: float
    low: float
    high: float
    formula: str
    exact: bool
    lines: tuple[int, ...]

    @property
    def label(self) -> str:
        """It in words."""
        where = "" if self.exact else " at the start,"
        rates = f"{self.rate:.4g}"
        if self.high > 1.001 * self.low:
            rates = f"{self.low:.4g} to {self.high:.4g}"
        return f"threshold{where} {self.formula} = {rates}"


@dataclass(frozen=True)
class Thresholds:
    """Those that are known, and why others are not (nothing where all are)."""

    found: tuple[Threshold, ...]
    unknown: str


def thresholds(runs: Runs, settings: Sequence[Setting]) -> Thresholds:
    """The thresholds of some lines of a picture, each with the runs of a `Setting`.

    Plain descent 2 / λ, momentum 2 (1 + μ) / ((1 − τ) λ), Nesterov's (2 + 2μ) / ((1 + 2μ) λ), see
    `stability.threshold`; for small batches without momentum the mean-square threshold of
    `minibatches`, of quadratic losses with few parameters. Nothing is carried out again.

    >>> import downslope as ds
    >>> from downslope.views.data.settings import settings_of
    >>> problem = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=7.0)
    >>> runs = ds.descend(problem, lr=[0.1, 0.7], steps=9, progress=False)
    >>> print(thresholds(runs, settings_of(runs, ["lr"])).found[0].label)
    threshold 2/λ = 1
    """
    plan = runs.plan
    if plan is None:
        return Thresholds((), "the runs were loaded without their problem")
    problem = plan.problem
    rows = 1 if problem.train is None else len(problem.train)
    size = sum(shape.numel() for shape in problem.shapes.values())
    if size * rows > _NUMBERS:
        return Thresholds(
            (), f"{size:,} parameters on {rows:,} rows are too many to measure for a picture"
        )
    try:
        with few_threads(problem), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # models warn of what they never saw
            if problem.random or problem.keeps_state:
                return Thresholds((), "the loss differs from one pass to the next")
            return _measured(runs, plan, settings)
    except Exception as error:  # whatever a model's code does when it is measured
        lines = str(error).strip().splitlines()
        said = lines[0][:120] if lines else "no more is known"
        return Thresholds((), f"measuring failed with {type(error).__name__}: {said}")


def _measured(runs: Runs, plan: Plan, settings: Sequence[Setting]) -> Thresholds:
    known = Known(plan)
    seen: dict[tuple[bytes, float], Floats] = {}
    numbers = runs.settings["run"].to_numpy()
    found: list[Threshold] = []
    unknown: dict[str, None] = {}
    for line, setting in enumerate(settings):
        chunk, place = plan.find(int(numbers[setting.rows[0]]))
        work = plan.work(chunk)
        group = plan.groups[chunk.group]
        told = settings_of(group, place, work.full, plan.options.schedule is not None)
        reason = _why_not(told, known)
        if reason is not None:
            unknown[reason] = None
            continue
        mine = np.flatnonzero(np.isin(group.index, numbers[setting.rows]))
        rates = _rates(told, replace(work, group=group.part(mine)), known, seen)
        if not np.isfinite(rates).all() or not len(rates):
            unknown["the loss is flat or bends down at the start, or is not finite there"] = None
            continue
        middle = float(np.median(rates))
        formula = _formula(told)
        ends = float(rates.min()), float(rates.max())
        found.append(Threshold(middle, *ends, formula, known.quadratic, (line,)))
    return Thresholds(_merged(found), listed(unknown))


def _why_not(told: Settings, known: Known) -> str | None:
    """Why theory gives no threshold for such runs, if so."""
    if told.kind != "sgd":
        return f"theory has no cheap threshold for {told.optimizer}"
    if told.lr is None:
        return "rates go by parameter name"
    if told.scheduled:
        return "a schedule moves the rate"
    if np.isfinite(told.clip_norm):
        return "gradients are clipped"
    if told.full:
        return None
    train, size = known.problem.train, known.curvature.layout.size
    if told.momentum or told.order == "cyclic" or known.problem.loader is not None:
        return "batches are small, and have momentum, a fixed order or a loader of their own"
    few = train is not None and size <= _ON_AVERAGE and len(train) * size**3 <= _SAMPLES
    if not few or not known.quadratic or told.sign < 0:
        return "batches are small, and the loss is no quadratic of few parameters"
    return None


def _rates(
    told: Settings, work: Work, known: Known, seen: dict[tuple[bytes, float], Floats]
) -> Floats:
    """The threshold at each of some of the starts of the runs of `work`, (starts,).

    Args:
        seen: curvatures that were measured for other lines.
    """
    group = work.group
    seeds = group.seed if work.problem.draws_start else np.zeros_like(group.seed)
    _, first = np.unique(np.stack([seeds, group.start], axis=1), axis=0, return_index=True)
    few = np.sort(first)[: 1 if known.quadratic else _STARTS]
    starts = stacked_starts(
        replace(work, group=group.part(few)), list(known.curvature.layout.shapes)
    )
    flat = known.curvature.flat(starts)
    if not told.full:
        return np.array([_on_average(told, flat[0], known)])
    key = (flat.numpy().tobytes(), told.sign)
    if key not in seen:
        seen[key] = measure(known.curvature, flat[:, None], told.sign, falls=False).largest[:, 0]
    heavy = told.heavy if told.momentum else {}  # torch damps nothing where there is no momentum
    return np.asarray(threshold(seen[key] + told.weight_decay, **heavy))


def _on_average(told: Settings, flat: Tensor, known: Known) -> float:
    hessians = known.sample_hessians(flat)
    if hessians is None or told.batch_size is None:
        return np.inf
    pulled = hessians + told.weight_decay * np.eye(hessians.shape[1])
    return mean_square_threshold(pulled, told.batch_size, told.order == "replacement")


def _formula(told: Settings) -> str:
    if not told.full:
        return f"on average (batch size {told.batch_size})"
    bent = "(λ + weight decay)" if told.weight_decay else "λ"
    if not told.momentum:
        return f"2/{bent}"
    if told.nesterov:
        return f"2(1+μ)/((1+2μ){bent})"
    return f"2(1+μ)/((1−τ){bent})" if told.dampening else f"2(1+μ)/{bent}"


def _merged(found: Sequence[Threshold]) -> tuple[Threshold, ...]:
    """One where several lines have the same."""
    made: dict[tuple[float, str], Threshold] = {}
    for one in found:
        key = (round(one.rate, 12), one.formula)
        made[key] = replace(made[key], lines=made[key].lines + one.lines) if key in made else one
    return tuple(made.values())
