"""Runs put in order: settings ranked by their median over seeds, and what diverged where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from downslope.runs import Runs

_NOT_SETTINGS = ("run", "seed", "engine", "start")


@dataclass(frozen=True)
class Ranked:
    """One setting, over its seeds.

    Attributes:
        settings: what sets it apart, by column; optimizer first. A tuple is a list here.
        loss: median final (validation) loss over the seeds that did not diverge.
        low, high: the smallest and largest of them.
        seeds, diverged: how many seeds there were, and how many of them diverged.
        best_run: the number of its best run.
    """

    settings: dict[str, object]
    loss: float
    low: float
    high: float
    seeds: int
    diverged: int
    best_run: int


@dataclass(frozen=True)
class Diverged:
    """How many runs of one optimizer diverged, and at which rates."""

    optimizer: str
    runs: int
    of: int
    lowest_lr: float | None
    highest_lr: float | None
    stable_lr: float | None
    """The highest rate at which no run diverged."""


def varying(runs: Runs) -> list[str]:
    """The columns of the settings that differ within an optimizer; "optimizer" and "lr" always."""
    frame = runs.settings
    names = ["optimizer"]
    for name in frame.columns:
        if name in (*_NOT_SETTINGS, "optimizer"):
            continue
        parts = [part[name].drop_nulls() for part in frame.partition_by("optimizer")]
        if name == "lr" or any(_differs(part) for part in parts):
            names.append(name)
    return names


def _differs(column: pl.Series) -> bool:
    return len(column) > 1 and len({str(v) for v in column.unique().to_list()}) > 1


def setting_columns(runs: Runs) -> list[str]:
    """The columns that set a setting apart: what is varying, and where it started from several
    places that were given, which one (counted from 0)."""
    starts = runs.settings["start"].n_unique() if "start" in runs.settings.columns else 1
    return [*varying(runs), *(["start"] if starts > 1 else [])]


def rank(runs: Runs) -> list[Ranked]:
    """All settings, the best first: by the median, with those that diverged on any seed last.

    Among equals in number of diverged seeds the median decides.
    """
    names = setting_columns(runs)
    scores = runs.score
    frame = runs.settings.select(names).with_columns(
        score=pl.Series(np.where(runs.diverged, np.nan, scores)), run=runs.settings["run"]
    )
    ranked = []
    for part in frame.partition_by(names, maintain_order=True):
        values = part["score"].to_numpy()
        finite = values[np.isfinite(values)]
        first = part.row(0, named=True)
        best = int(np.nanargmin(np.where(np.isfinite(values), values, np.inf)))
        ranked.append(
            Ranked(
                settings={n: first[n] for n in names if first[n] is not None},
                loss=float(np.median(finite)) if len(finite) else float("nan"),
                low=float(finite.min()) if len(finite) else float("nan"),
                high=float(finite.max()) if len(finite) else float("nan"),
                seeds=len(values),
                diverged=len(values) - len(finite),
                best_run=int(part["run"][best]),
            )
        )
    return sorted(ranked, key=lambda r: (r.diverged, np.nan_to_num(r.loss, nan=np.inf)))


def best_per_optimizer(ranked: list[Ranked]) -> list[Ranked]:
    """The first setting of each optimizer, in the order of the ranking."""
    first: dict[object, Ranked] = {}
    for one in ranked:
        first.setdefault(one.settings["optimizer"], one)
    return list(first.values())


def divergence(runs: Runs) -> list[Diverged]:
    """For each optimizer: how many runs diverged, and the rates at which they did."""
    found = []
    lr = runs.settings["lr"].to_numpy() if "lr" in runs.settings.columns else None
    optimizers = runs.settings["optimizer"].to_numpy()
    for name in runs.settings["optimizer"].unique(maintain_order=True):
        mine = optimizers == name
        bad = mine & runs.diverged
        if lr is None:
            found.append(Diverged(name, int(bad.sum()), int(mine.sum()), None, None, None))
            continue
        stable = [rate for rate in np.unique(lr[mine]) if not bad[lr == rate].any()]
        found.append(
            Diverged(
                optimizer=name,
                runs=int(bad.sum()),
                of=int(mine.sum()),
                lowest_lr=float(lr[bad].min()) if bad.any() else None,
                highest_lr=float(lr[bad].max()) if bad.any() else None,
                stable_lr=float(max(stable)) if stable else None,
            )
        )
    return found
