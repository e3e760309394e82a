"""Runs that differ in nothing but their seed make one line of a picture: which, and its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from downslope.runs import Runs

MOST_LINES = 12
"""Settings that get a line and a name of their own; the others are drawn thin and counted."""

_FEW_LOST = 4
"""Settings of which every run diverged that still get a name each."""

_LONGEST = 24
"""Letters of an optimizer's name in a label."""

_NO_SETTING = ("run", "seed", "engine")
_OF_RUNS = ("clip_norm", "start", "batch_size", "order")


@dataclass(frozen=True, eq=False)
class Setting:
    """The runs that differ in nothing but their seed.

    Attributes:
        label: the optimizer and what tells this setting from the others.
        rows: their places among the runs, (seeds,).
        score: their median score (smaller is better); infinite if most of them diverged.
        diverged: how many of them diverged.
    """

    label: str
    optimizer: str
    rows: NDArray[np.int64]
    score: float
    diverged: int

    @property
    def counted_label(self) -> str:
        """The label with how many seeds there are, and how many of them diverged."""
        seeds = len(self.rows)
        said = [f"{seeds} seeds"] if seeds > 1 else []
        if self.diverged:
            count = "all " if self.diverged == seeds else f"{self.diverged} "
            said.append(f"{count if seeds > 1 else ''}diverged")
        return f"{self.label} ({', '.join(said)})" if said else self.label


class _Scored(Protocol):
    @property
    def setting(self) -> Setting: ...


_Line = TypeVar("_Line", bound=_Scored)


def settings_of(runs: Runs, without: Sequence[str] = ()) -> list[Setting]:
    """The settings among runs, in their order; `without` names columns that do not count."""
    frame = runs.settings
    names = [n for n in frame.columns if n not in _NO_SETTING and n not in without]
    rows: dict[tuple[Any, ...], list[int]] = {}
    columns = [[_hashable(v) for v in frame[name].to_list()] for name in names]
    for place, key in enumerate(zip(*columns, strict=True)):
        rows.setdefault(key, []).append(place)
    named = [dict(zip(names, key, strict=True)) for key in rows]
    varying = {
        optimizer: {
            name
            for name in names
            if len({n[name] for n in named if n["optimizer"] == optimizer or name in _OF_RUNS}) > 1
        }
        for optimizer in {n["optimizer"] for n in named}
    }
    score = np.where(np.isfinite(runs.score), runs.score, np.inf)
    return [
        Setting(
            label=_label(setting, varying[setting["optimizer"]]),
            optimizer=setting["optimizer"],
            rows=np.asarray(places),
            score=float(np.sort(score[places])[[(len(places) - 1) // 2, len(places) // 2]].mean()),
            diverged=int(runs.diverged[places].sum()),
        )
        for setting, places in zip(named, rows.values(), strict=True)
    ]


def thinned(lines: Sequence[_Line]) -> tuple[tuple[_Line, ...], tuple[_Line, ...]]:
    """All lines if they are few, but many that diverged throughout; else each optimizer's best
    one, and the others."""
    if len(lines) <= MOST_LINES:
        lost = [line for line in lines if line.setting.diverged == len(line.setting.rows)]
        if not _FEW_LOST < len(lost) < len(lines):
            return tuple(lines), ()
        return tuple(line for line in lines if line not in lost), tuple(lost)
    by_score = sorted(lines, key=lambda line: line.setting.score)
    best = {line.setting.optimizer: line for line in reversed(by_score)}
    chosen = sorted(best.values(), key=lambda line: line.setting.score)[:MOST_LINES]
    taken = {id(line) for line in chosen}
    return (
        tuple(line for line in lines if id(line) in taken),
        tuple(line for line in lines if id(line) not in taken),
    )


def _label(setting: dict[str, Any], varying: set[str]) -> str:
    named = [
        f"{name.replace('_', ' ')} {said(value)}"
        for name, value in setting.items()
        if name != "optimizer" and value is not None and (name in varying or name == "lr")
    ]
    optimizer = setting["optimizer"]
    if len(optimizer) > _LONGEST:  # else pictures would cut off what sets it apart
        optimizer = f"{optimizer[: _LONGEST - 1]}…"
    return ", ".join([optimizer, *named])


def said(value: Any) -> str:
    """A setting's value in few letters."""
    if isinstance(value, tuple):
        return f"({', '.join(map(said, value))})"
    if isinstance(value, float):
        return "none" if value == inf else f"{value:.4g}"  # a clip norm that cuts nothing
    return str(value)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
