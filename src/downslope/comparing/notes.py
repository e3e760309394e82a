"""The terms of a comparison, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence

from downslope.comparing.cases import Case
from downslope.comparing.frames import PRACTICAL, Outcome
from downslope.comparing.runs import Asked
from downslope.comparing.stats import median
from downslope.errors import listed
from downslope.plan import FEW_RUNS
from downslope.search_spaces import Space

FEW_SEEDS, FEWEST_SEEDS = 10, 6
"""Fewer reporting seeds than these are said to be few, and give no 95 % interval of a median."""


def conditions(outcomes: Sequence[Outcome], asked: Asked, baseline: str) -> list[str]:
    """What was declared beforehand, and what it cost."""
    share = outcomes[0].main
    given = asked.options
    clip, schedule = given.get("clip_norm"), given.get("schedule")
    settings = f"{asked.budget} trials" if asked.budget > 1 else "1 trial"
    return [
        f"{settings} for each optimizer on each problem, by quasi-random search with the "
        f"same draws; chosen by the median final loss over {_seeds(asked.tuning_seeds)}, "
        f"reported on {_seeds(asked.seeds)}",
        *(f"searched: {space.describe()}" for space in asked.spaces),
        "the default setting is no trial: it is run besides, on the same seeds as the chosen one",
        f"target: {share:.4g} of the way from the start to the end of {baseline}, by its chosen "
        "setting's medians on the tuning seeds",
        "two medians are called different where their 95 % intervals are apart by more than the "
        "resolution, which is stricter than a test of one pair at 5 %; there is no correction for "
        "the number of pairs; over problems a share has Hoeffding's bounds, as if the problems had "
        "been drawn from many",
        *_resolutions(outcomes),
        f"clipping: {'none' if clip is None else f'gradients longer than {clip:g}'}; "
        f"schedule: {'none' if schedule is None else repr(schedule)}",
        *_lengths(outcomes),
        f"each optimizer's trials took {_updates(outcomes)} updates at most, with the gradient of "
        "one batch for each",
    ]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    whole = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    named = f"{seeds[0]} to {seeds[-1]}" if whole else listed(seeds)
    return f"{len(seeds)} seeds ({named})"


def _lengths(outcomes: Sequence[Outcome]) -> list[str]:
    """How long the runs were and how large their batches, the problems of a kind together."""
    kinds: dict[str, list[str]] = {}
    for outcome in outcomes:
        case = outcome.case
        kinds.setdefault(f"{case.updates} updates, {_batches(case)}", []).append(case.name)
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items()]


def _resolutions(outcomes: Sequence[Outcome]) -> list[str]:
    """What losses must differ by, the problems of a kind together."""
    kinds: dict[str, list[str]] = {}
    for outcome in outcomes:
        found = outcome.resolution
        kind = f"{found.relative:.1g} of the larger loss"
        if outcome.never_negative:
            kind += ", and the rounding of residuals (eps² of the loss at the start"
            kind += f", eps = {outcome.case.epsilon:.1e})"
        else:
            kind = f"{PRACTICAL:g} of the way from the start to the lowest median, and rounding"
        kinds.setdefault(kind, []).append(outcome.case.name)
    return [f"resolution, {kind}: {listed(names)}" for kind, names in kinds.items()]


def _batches(case: Case) -> str:
    if case.problem.train is None:
        return "no data"
    if case.batch_size is None:
        return "the DataLoader's batches"
    return "all rows at once" if case.batch_size == "full" else f"batches of {case.batch_size}"


def _updates(outcomes: Sequence[Outcome]) -> str:
    each = [o.case.updates * o.tuned[0].score.size for o in outcomes]
    return f"{sum(each):,}"


def notes(outcomes: Sequence[Outcome], asked: Asked, baseline: str) -> list[str]:
    """What a reader must know before believing the table: warnings first to last by weight."""
    return [
        *_of_seeds(outcomes, asked),
        *_of_targets(outcomes, baseline),
        *_of_trials(outcomes, asked.spaces),
        *_of_engines(outcomes, asked),
        *_of_problems(outcomes),
    ]


def _of_seeds(outcomes: Sequence[Outcome], asked: Asked) -> list[str]:
    said = []
    still = [o.case.name for o in outcomes if not o.case.varies]
    if still:
        said.append(
            f"on {listed(still)} the seed changes nothing (one start, and no batches drawn or all "
            "rows at once): one run tells all, n = 1, and nothing is claimed of other starts"
        )
    n = len(asked.seeds)
    if n < FEW_SEEDS and len(still) < len(outcomes):
        said.append(
            f"n = {n} fresh seeds are few: at least {FEW_SEEDS} should be reported"
            + ("; below 6 there is no 95 % interval of a median" if n < FEWEST_SEEDS else "")
        )
    return said


def _of_targets(outcomes: Sequence[Outcome], baseline: str) -> list[str]:
    said = []
    for outcome in outcomes:
        target, name = outcome.target, outcome.case.name
        if target.loss != target.loss:
            said.append(
                f"{name}: no optimizer's chosen setting made progress on the tuning seeds, so "
                "there is no target, and nobody reaches it"
            )
        elif target.baseline != baseline:
            said.append(
                f"{name}: {baseline} made no progress on the tuning seeds, so the target comes "
                f"from {target.baseline}"
            )
    return said


def _of_trials(outcomes: Sequence[Outcome], spaces: Sequence[Space]) -> list[str]:
    said = []
    for place, label in enumerate(outcomes[0].labels):
        edges, lost = [], []
        for outcome in outcomes:
            seen = outcome.tuned[place]
            if seen.failed.any(1).all():
                lost.append(outcome.case.name)
                continue
            space = spaces[place]
            edge = space.at_edge(list(seen.settings), seen.chosen)
            if outcome.rate_is_scheduled(label):
                edge = [one for one in edge if not one.startswith("lr = ")]
            edges += [f"{outcome.case.name} ({one})" for one in edge]
        if lost:
            said.append(
                f"{label}: every trial diverged on a tuning seed on {listed(lost)}; the one that "
                "failed on the fewest was taken"
            )
        if outcomes[0].rate_is_scheduled(label):
            others = [name for name in spaces[place].searched if name != "lr"]
            rest = f"{listed(others)} alone was searched" if others else "nothing was tuned"
            said.append(f"{label}: the schedule sets the rate: {rest}")
        if edges:
            said.append(
                f"{label}: the best setting lies at the edge of what was tried on "
                f"{listed(edges)}: a wider space may hold a better one"
            )
        if lucky := [o.case.name for o in outcomes if _lucky(o, place)]:
            said.append(
                f"{label}: on {listed(lucky)} the chosen setting's median is higher on the fresh "
                "seeds than its loss on any tuning seed: the choice was lucky, and more tuning "
                "seeds may choose better"
            )
        if len(outcomes[0].reported[place].settings) == 1:
            said.append(f"{label} has no default setting: there is none beside the chosen one")
    return said


def _lucky(outcome: Outcome, place: int) -> bool:
    """Whether an optimizer's chosen setting did worse on the fresh seeds than on every other."""
    seen = outcome.tuned[place]
    before = seen.score[seen.chosen]
    after = median(outcome.reported[place].score[0])
    return bool(outcome.case.varies and outcome.resolution.below(before.max(), after))


def _of_engines(outcomes: Sequence[Outcome], asked: Asked) -> list[str]:
    if asked.engine != "auto":
        return []
    slow: dict[str, list[str]] = {}
    for outcome in outcomes:
        for label, seen in zip(outcome.labels, outcome.tuned, strict=True):
            if "looped" in seen.engine and seen.score.size >= FEW_RUNS:
                slow.setdefault(label, []).append(outcome.case.name)
    return [
        f"{label} went through torch.optim itself, one run after another, on "
        + (listed(names) if len(names) < len(outcomes) else "every problem")
        + ": much slower, and equal within rounding"
        for label, names in slow.items()
    ]


def _of_problems(outcomes: Sequence[Outcome]) -> list[str]:
    coarse = sorted({o.case.every for o in outcomes})
    gaps = str(coarse[0]) if len(coarse) == 1 else f"{coarse[0]} to {coarse[-1]}"
    validated = [o.case.name for o in outcomes if o.case.metric != "training loss"]
    said = []
    if coarse != [1]:
        said.append(
            f"losses were recorded every {gaps} updates: steps to a target are known to that"
        )
    if validated:
        said.append(
            f"on {listed(validated)} the validation loss is compared, else the training loss"
        )
    return said
