"""`lr="auto"` in `descend`: the word replaced by numbers before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from downslope.engines.work import Options, Start
from downslope.errors import DownslopeError, InputError
from downslope.grid import RUN_SETTINGS, Grid, is_many
from downslope.plan import TunedRate
from downslope.problem import Problem
from downslope.ranges import AUTO, asks_auto
from downslope.searching.search import LAST_RECORD
from downslope.searching.words import shown
from downslope.tuning import tune


def tuned(
    problem: Problem,
    grids: Sequence[Grid],
    shared: Mapping[str, Any],
    options: Options,
    starts: Sequence[Start | None],
    engine: str,
    progress: bool,
) -> tuple[list[Grid], dict[str, Any], tuple[TunedRate, ...]]:
    """The grids and shared settings with a number for each rate that was "auto".

    Each combination of an optimizer's other settings, batch size, order and clipping gets a rate
    of its own, tuned for the whole length of the runs. It is tuned with the seeds of `tune`, not
    with those of the runs, so that a run does not depend on which seeds stand beside it; several
    starts share one rate.

    Returns:
        Grids of rows, in the order in which the values were given, where a rate was "auto"; the
        others as they were. The shared settings without a rate that was "auto". The rates.

    Raises:
        DownslopeError: if there is no stable rate for some combination.
    """
    horizon: dict[str, Any] = {
        "steps": options.updates,
        "epochs": options.epochs,
        "schedule": options.schedule,
        "tolerance": options.tolerance,
        "patience": options.patience,
        "divergence": options.divergence,
        "gradient": options.gradient,
        "start": None if list(starts) == [None] else list(starts),
        "every": LAST_RECORD,
    }
    if options.tolerance is not None or options.patience is not None:
        horizon["every"] = options.every
    made = []
    rates: list[TunedRate] = []
    for grid in grids:
        given = {**{n: v for n, v in shared.items() if n not in grid.settings}, **grid.settings}
        rows = [dict(row) for row in grid.rows or ({},)]
        given = {name: value for name, value in given.items() if name not in rows[0]}
        if problem.loader is not None:  # it has them of its own
            given = {n: v for n, v in given.items() if n not in ("batch_size", "order")}
        if not any(asks_auto(settings.get("lr")) for settings in (given, *rows)):
            made.append(grid)
            continue
        if isinstance(given.get("lr"), Mapping):
            raise InputError(
                "lr='auto' finds one rate for all parameters; by parameter-name pattern, give "
                "numbers"
            )
        names = [n for n in given if n not in RUN_SETTINGS] + list(RUN_SETTINGS)
        many = {n: given[n] for n in names if n in given and n != "seed" and is_many(given[n])}
        if asks_auto(given.get("lr")):
            many.setdefault("lr", [AUTO])
        fixed = {n: v for n, v in given.items() if n not in many and n != "seed"}
        for name, value in fixed.items():
            if isinstance(value, Mapping) and any(is_many(v) for v in value.values()):
                raise InputError(
                    f"lr='auto' finds no rate for a grid of {name} by parameter-name pattern: "
                    "give one value for each pattern"
                )
        combinations = [
            {**row, **dict(zip(many, values, strict=True))}
            for row in rows
            for values in product(*many.values())
        ]
        known: dict[str, float] = {}  # rows may differ in their seeds alone
        for settings in combinations:
            if asks_auto(settings.get("lr")):
                asked = {**fixed, **{n: v for n, v in settings.items() if n != "seed"}, **horizon}
                key = repr(sorted(asked.items(), key=lambda item: item[0]))
                if key not in known:
                    rates.append(_rate(problem, grid, asked, engine, progress))
                    known[key] = rates[-1].lr
                settings["lr"] = known[key]
        whole = Grid(grid.optimizer, **{n: v for n, v in grid.settings.items() if n not in many})
        whole.rows = tuple(combinations)
        made.append(whole)
    if asks_auto(shared.get("lr")):
        shared = {name: value for name, value in shared.items() if name != "lr"}
    return made, dict(shared), tuple(rates)


def _rate(
    problem: Problem, grid: Grid, asked: dict[str, Any], engine: str, progress: bool
) -> TunedRate:
    found = tune(problem, grid.optimizer, engine=engine, progress=progress, **asked)
    settings = {
        n: v for n, v in found.settings.items() if v is not None and n not in ("order", "lr")
    }
    of = f"{grid.optimizer.__name__}{' with ' if settings else ''}{shown(settings)}"
    if found.lr is None:
        raise DownslopeError(f"lr='auto' found no rate for {of}: {found.notes[0]}")
    stable = [line for line in found.summary.splitlines() if line.startswith("Stable: ")]
    return TunedRate(of, found.lr, (*stable, *found.notes))
