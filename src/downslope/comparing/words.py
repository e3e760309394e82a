"""What a comparison says in sentences: no more than its intervals allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import polars as pl

from downslope.comparing.frames import SETTINGS, Outcome
from downslope.comparing.stats import Interval, Resolution, verdict
from downslope.errors import listed

MOST_PAIRS = 10
"""With more pairs of optimizers than these, the sentences keep to the baseline's."""


def _interval(row: dict[str, Any], which: str = "") -> Interval:
    return Interval(row[f"{which}low"], row[f"{which}high"], row["coverage"])


def _resolution(row: dict[str, Any]) -> Resolution:
    return Resolution(row["resolution"], row["relative_resolution"])


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
            verdict(_interval(rows[p, a]), _interval(rows[p, b]), _resolution(rows[p, a]))
            for p in problems
        ]
        lower, higher = found.count("lower"), found.count("higher")
        if higher > lower:
            a, b, lower, higher = b, a, higher, lower
        of = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        sentence = f"{a}'s median is lower than {b}'s on {lower} of {of}"
        sentence += f", higher on {higher}"
        if equal := found.count("equal"):
            sentence += f"; on {equal} the medians are equal within resolution"
        if near := found.count("near"):
            sentence += f"; on {near} they are apart by less than the resolution: no claim"
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
    share = f"{row['share']:.0%} of the paired runs, a tie counted as half"
    if row["low"] != row["low"]:
        return f"It wins {share}; problems are too few to claim more."
    share = f"Over all problems it wins {share}"
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
            f"{label}'s median reaches the target on {ever[main]} of {count}, no later than any "
            f"other on {first[main]}"
        )
        if others:
            counts = [f"{s:g} of the way {ever[s]} and {first[s]}" for s in others]
            sentence += f" (with targets at {listed(counts)})"
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
            at = ""
            if first:
                when = f"at step {min(first)}" if min(first) else "before the first step"
                at = f", {'the earliest ' if total > 1 else ''}{when}"
            said.append(
                f"{label} ({kind}) diverged in {total} of {runs} run{'s' if runs > 1 else ''}, on "
                f"{len(where)} of {len(seen)} problem{'s' if len(seen) > 1 else ''}{at}: "
                f"{listed(where)}. "
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
            verdict(_interval(row), _interval(row, "default_"), _resolution(row)) for row in rows
        ]
        label, of = rows[0]["optimizer"], len(rows)
        sentence = (
            f"{label}: the chosen setting's median is lower than the default's on "
            f"{found.count('lower')} of {of}"
        )
        if higher := found.count("higher"):
            sentence += f", higher on {higher}"
        if equal := found.count("equal"):
            sentence += f"; on {equal} equal within resolution"
        if overlap := sum(found.count(word) for word in ("near", "overlap", "none")):
            sentence += f"; on {overlap} no claim"
        said.append(sentence)
    return said
