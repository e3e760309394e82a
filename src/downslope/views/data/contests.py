"""What the pictures of optimizers against each other show: performance profiles, shares of wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from downslope.errors import InputError, listed
from downslope.views.data.losses import Floats

MOST_ROWS = 36
"""Rows of wins up to which each problem has one of its own."""


@dataclass(frozen=True, eq=False)
class Profile:
    """One optimizer's profile.

    Attributes:
        tau: factors over the steps of the fastest, rising from 1, (k,).
        solved: share of the problems that it solves within each, (k,).
    """

    optimizer: str
    tau: Floats
    solved: Floats


@dataclass(frozen=True, eq=False)
class Profiles:
    """Dolan and Moré's performance profiles.

    Attributes:
        share: of the baseline's way, which is the target.
        problems: how many; one is solved where the median over `seeds` reaches the target.
        seeds: how many fresh seeds, on the problem with the fewest and with the most.
        right: where the axis ends; every profile goes on level to there.
    """

    profiles: tuple[Profile, ...]
    share: float
    problems: int
    seeds: tuple[int, int]
    right: float


@dataclass(frozen=True, eq=False)
class WinRow:
    """How often one optimizer ended lower than another.

    Attributes:
        problem: None over all problems.
        share: wins and half of the ties; low, high: its bounds, NaN where there are none.
        single: the problems' shares, where they have no rows of their own, (problems,).
    """

    problem: str | None
    optimizer: str
    against: str
    n: int
    wins: int
    ties: int
    share: float
    low: float
    high: float
    single: Floats


@dataclass(frozen=True, eq=False)
class Wins:
    """Rows of wins, each pair's together; with more pairs than there is room for, the first."""

    rows: tuple[WinRow, ...]
    pairs: int
    drawn_pairs: int
    problems: int


def profiles(frame: pl.DataFrame, table: pl.DataFrame, share: float) -> Profiles:
    """Profiles for the target at a share of the baseline's way.

    Args:
        frame, table: `Comparison.profiles` and `.table`.

    Raises:
        InputError: for a share that the comparison does not have.
    """
    shares = frame["share"].unique().sort().to_list()
    if isinstance(share, bool) or not isinstance(share, int | float) or share not in shares:
        raise InputError(f"share must be one of {listed(map(str, shares))}, got {share!r}")
    own = frame.filter(pl.col("share") == share)
    made = [
        Profile(
            part["optimizer"][0],
            part["tau"].to_numpy().astype(np.float64),
            part["problems"].to_numpy().astype(np.float64),
        )
        for part in own.partition_by("optimizer", maintain_order=True)
    ]
    last = max(float(one.tau[-1]) for one in made)
    n = table["n"].to_list()
    return Profiles(
        profiles=tuple(made),
        share=float(share),
        problems=table["problem"].n_unique(),
        seeds=(min(n), max(n)),
        right=max(last * 1.15, 2.0),
    )


def wins(frame: pl.DataFrame) -> Wins:
    """Each pair once, the optimizer that was given first against the other.

    A pair's row over all problems comes first. Each problem has a row where there is room for
    all; else the problems' shares stand in the pair's row.

    Args:
        frame: `Comparison.wins`.

    Raises:
        InputError: if there is one optimizer alone.
    """
    names = list(dict.fromkeys([*frame["optimizer"], *frame["against"]])) if frame.height else []
    if len(names) < 2:
        raise InputError("wins are of one optimizer against another: compare at least two")
    order = {name: place for place, name in enumerate(names)}
    once = [row for row in frame.to_dicts() if order[row["optimizer"]] < order[row["against"]]]
    pairs = list(dict.fromkeys((row["optimizer"], row["against"]) for row in once))
    of_pair: dict[tuple[str, str], list[WinRow]] = {pair: [] for pair in pairs}
    for row in once:
        names_of_row = ("problem", "optimizer", "against", "n", "wins", "ties", "share", "low",
                        "high")  # fmt: skip
        made = WinRow(**{name: row[name] for name in names_of_row}, single=np.empty(0))
        of_pair[made.optimizer, made.against].append(made)
    problems = len({row["problem"] for row in once if row["problem"] is not None})
    drawn = pairs[:MOST_ROWS]
    rows: list[WinRow] = []
    for pair in drawn:
        overall, singles = _apart(of_pair[pair])
        if problems == 1:
            rows += singles
        elif len(pairs) * (problems + 1) <= MOST_ROWS:
            rows += [overall, *singles]
        else:
            rows.append(_with_singles(overall, singles))
    return Wins(tuple(rows), len(pairs), len(drawn), problems)


def _apart(rows: Sequence[WinRow]) -> tuple[WinRow, list[WinRow]]:
    overall = next(row for row in rows if row.problem is None)
    return overall, [row for row in rows if row.problem is not None]


def _with_singles(overall: WinRow, singles: Sequence[WinRow]) -> WinRow:
    shares = np.array([row.share for row in singles])
    return WinRow(**{**vars(overall), "single": shares})
