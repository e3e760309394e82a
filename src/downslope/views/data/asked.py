"""What a map was asked for: which two settings, and which outcome."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from downslope.errors import InputError, listed, nearest
from downslope.ranking import varying as differing
from downslope.runs import Runs
from downslope.views.data.settings import said

OUTCOMES = ("final_loss", "final_validation_loss", "best_loss", "sum")

NOT_AXES = ("run", "engine")


def pair_of(runs: Runs, x: str, y: str | None) -> tuple[str, str]:
    """The columns of both axes.

    Raises:
        InputError: for a setting that does not differ, or no second one to be taken by itself.
    """
    frame = runs.settings
    varying = [n for n in frame.columns if n not in NOT_AXES and varies(frame[n])]
    patterned = [name for name in varying if name.startswith("lr[")]
    if x == "lr" and "lr" not in varying and patterned:
        x = patterned[0]
    _check(runs, "x", x, varying)
    if y is None:
        within = set(differing(runs))  # what differs between optimizers alone goes with them
        others = [name for name in varying if name in within and name != x]
        if len(others) != 1:
            rest = [name for name in varying if name != x]
            told = f"choose y among {listed(rest)}" if rest else "nothing else varies"
            raise InputError(
                f"a map over {x} needs a second setting: {told}; runs.plot.sensitivity() draws "
                "the final loss against the rate alone"
            )
        y = others[0]
    _check(runs, "y", y, varying)
    if x == y:
        raise InputError(f"the axes of a map must be two settings, got {x!r} for both")
    return x, y


def varies(column: pl.Series) -> bool:
    """Whether a column of the settings holds more than one value, what is not there aside."""
    known = column.drop_nulls()
    if len(known) < 2:
        return False
    return bool(known.n_unique() > 1)


def _check(runs: Runs, which: str, name: str, varying: Sequence[str]) -> None:
    if name in varying:
        return
    differ = f"those that do are {listed(varying)}" if varying else "none does"
    if name in runs.settings.columns and name not in NOT_AXES:
        value = runs.settings[name].drop_nulls()
        same = f" ({said(value[0])})" if len(value) else ""
        raise InputError(f"{which}={name!r} does not differ between these runs{same}; {differ}")
    raise InputError(
        f"{which} must be a setting that differs between these runs, got {name!r}"
        f"{nearest(str(name), varying)}; {differ}"
    )


def outcome_of(runs: Runs, of: str | None) -> str:
    """The outcome by its name: without one the final validation loss, if there is one.

    Raises:
        InputError: for an unknown one, or one that these runs do not have.
    """
    if of is None:
        return "final_loss" if runs.validation_loss is None else "final_validation_loss"
    if of not in OUTCOMES:
        hint = nearest(str(of), OUTCOMES)
        raise InputError(f"of must be one of {listed(OUTCOMES)}, got {of!r}{hint}")
    if of == "final_validation_loss" and runs.validation_loss is None:
        raise InputError("these runs have no validation loss: descend with validation=0.2")
    return of
