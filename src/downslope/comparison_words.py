"""What a comparison says in sentences: no more than its intervals allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import polars as pl

from downslope.comparison_cases import Case
from downslope.comparison_frames import SETTINGS, Outcome
from downslope.comparison_runs import Asked
from downslope.comparison_stats import Interval, verdict
from downslope.errors import listed
from downslope.search_spaces import Space

FEW_SEEDS, FEWEST_SEEDS = 10, 6
"""Fewer reporting seeds than these are said to be few, and give no 95 % interval of a median."""

MOST_PAIRS = 10
"""With more pairs of optimizers than these, the sentences keep to the baseline's."""


def _interval(row: dict[str, Any], which: str = "") -> Interval:
    return Interval(row[f"{which}low"], row[f"{which}high"], row["coverage"])


def conditions(outcomes: Sequence[Outcome], asked: Asked, baseline: str) -> list[str]:
    """What was declared beforehand, and what it cost."""
    share = outcomes[0].main
    given = asked.options
    clip, schedule = given.get("clip_norm"), given.get("schedule")
    settings = f"{asked.budget} trials" if asked.budget > 1 else "1 trial"
    return [
        f"{settings} for each optimizer on each problem, by random search with the same draws; "
        f"chosen by the median final loss over {_seeds(asked.tuning_seeds)}, reported on "
        f"{_seeds(asked.seeds)}",
        *(f"searched: {space.describe()}" for space in asked.spaces),
        "the default setting is no trial: it is run besides, on the same seeds as the chosen one",
        f"target: {share:.4g} of the way from the start to the end of {baseline}, by its chosen "
        "setting's medians on the tuning seeds",
        "two medians are called different where their 95 % intervals are apart, which is stricter "
        "than a test of one pair at 5 %; there is no correction for the number of pairs",
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
            f"on {listed(still)} the seed changes nothing (one start, no batches drawn): one run "
            "tells all, n = 1, and nothing is claimed of other starts"
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
            edges += [f"{outcome.case.name} ({one})" for one in edge]
        if lost:
            said.append(
                f"{label}: every trial diverged on a tuning seed on {listed(lost)}; the one that "
                "failed on the fewest was taken"
            )
        if edges:
            said.append(
                f"{label}: the best setting lies at the edge of what was tried on "
                f"{listed(edges)}: a wider space may hold a better one"
            )
        if len(outcomes[0].reported[place].settings) == 1:
            said.append(f"{label} has no default setting: there is none beside the chosen one")
    return said


def _of_engines(outcomes: Sequence[Outcome], asked: Asked) -> list[str]:
    if asked.engine != "auto":
        return []
    slow: dict[str, list[str]] = {}
    for outcome in outcomes:
        for label, seen in zip(outcome.labels, outcome.tuned, strict=True):
            if "looped" in seen.engine:
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


def pair_sentences(table: pl.DataFrame, wins: pl.DataFrame, baseline: str) -> list[str]:
    """A sentence for each pair of optimizers: on how many problems one is surely lower."""
    labels = table["optimizer"].unique(maintain_order=True).to_list()
    rows = {(row["problem"], row["optimizer"]): row for row in table.to_dicts()}
    problems = table["problem"].unique(maintain_order=True).to_list()
    pairs = list(combinations(labels, 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [(baseline, label) for label in labels if label != baseline]
    said = []
    for a, b in pairs:
        found = [
            verdict(_interval(rows[p, a]), _interval(rows[p, b]), rows[p, a]["resolution"])
            for p in problems
        ]
        lower, higher = found.count("lower"), found.count("higher")
        if higher > lower:
            a, b, lower, higher = b, a, higher, lower
        of = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        sentence = f"{a}'s median is lower than {b}'s on {lower} of {of}"
        sentence += f", higher on {higher}"
        if overlap := found.count("overlap"):
            sentence += f"; on {overlap} the intervals overlap: no claim"
        if none := found.count("none"):
            sentence += f"; on {none} there is no interval: no claim"
        said.append(f"{sentence}. {_won(wins, a, b)}".strip())
    return said


def _won(wins: pl.DataFrame, a: str, b: str) -> str:
    row = wins.filter(
        pl.col("problem").is_null() & (pl.col("optimizer") == a) & (pl.col("against") == b)
    ).to_dicts()[0]
    share = f"Over all problems it wins {row['share']:.0%} of the paired runs"
    if row["low"] != row["low"]:
        return f"{share} (too few problems for an interval)."
    between = f"{share} (95 %: {row['low']:.0%} to {row['high']:.0%})"
    if row["low"] <= 0.5 <= row["high"]:
        return f"{between}: no claim beyond these problems."
    return f"{between}."


def target_sentences(outcomes: Sequence[Outcome], profiles: pl.DataFrame) -> list[str]:
    """A sentence for each optimizer: on how many problems its median reaches the target, and first;
    and whether other targets tell another story."""
    said = []
    count, main = len(outcomes), outcomes[0].main
    others = [t.share for t in outcomes[0].targets if t.share != main]
    for label in outcomes[0].labels:
        mine = profiles.filter(pl.col("optimizer") == label)
        first, ever = {}, {}
        for share in (main, *others):
            parts = mine.filter(pl.col("share") == share)["problems"]
            first[share], ever[share] = round(parts[0] * count), round(parts[-1] * count)
        sentence = (
            f"{label}'s median reaches the target on {ever[main]} of {count}, on {first[main]} of "
            "them no later than any other"
        )
        if others:
            counts = ", ".join(f"{ever[share]} and {first[share]}" for share in others)
            sentence += f" (targets at {', '.join(f'{s:g}' for s in others)} of the way: {counts})"
        said.append(sentence)
    return said


def failure_sentences(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each optimizer and kind of setting that diverged on fresh seeds."""
    said = []
    for place, label in enumerate(outcomes[0].labels):
        for k, kind in enumerate(SETTINGS):
            seen = [(o, o.reported[place]) for o in outcomes if len(o.reported[place].score) > k]
            failed = [(o, int(s.failed[k].sum())) for o, s in seen]
            runs = sum(s.failed[k].size for _, s in seen)
            total = sum(count for _, count in failed)
            if not total:
                continue
            where = [f"{o.case.name} ({count})" for o, count in failed if count]
            first = [int(b) for _, s in seen for b in s.first_bad_step[k] if b >= 0]
            at = f", the earliest at step {min(first)}" if first else ""
            said.append(
                f"{label} ({kind}) diverged in {total} of {runs} runs, on {len(where)} of "
                f"{len(seen)} problems{at}: {listed(where)}. "
                "Each counts as never reaching the target."
            )
    return said


def default_sentences(table: pl.DataFrame) -> list[str]:
    """A sentence for each optimizer: what the choice among trials did to its default."""
    said = []
    for part in table.partition_by("optimizer", maintain_order=True):
        rows = [row for row in part.to_dicts() if row["default_median"] is not None]
        if not rows:
            continue
        found = [
            verdict(_interval(row), _interval(row, "default_"), row["resolution"]) for row in rows
        ]
        label, of = rows[0]["optimizer"], len(rows)
        sentence = (
            f"{label}: the chosen setting's median is lower than the default's on "
            f"{found.count('lower')} of {of}"
        )
        if higher := found.count("higher"):
            sentence += f", higher on {higher}"
        if overlap := found.count("overlap") + found.count("none"):
            sentence += f"; on {overlap} no claim"
        said.append(sentence)
    return said
