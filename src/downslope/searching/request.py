"""What a call of `tune` asks for, checked: what is searched, and what is given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import optim

from downslope.errors import InputError, OptimizerError, listed, nearest
from downslope.grid import RUN_SETTINGS, Grid, is_many, settled
from downslope.optimizers import check_names, check_optimizer, hyperparameters, is_number
from downslope.problem import Problem
from downslope.problem_rows import checked
from downslope.ranges import Range
from downslope.searching.search import LAST_RECORD, WIDE, Asked

OPTIONS = ("epochs", "steps", "start", "every", "keep", "schedule", "validation", "tolerance",
           "patience", "divergence", "gradient", "dtype", "device")  # fmt: skip
"""What `descend` takes besides settings that can be searched."""

MOST_RANGES = 4


def asked_of(
    problem: Problem,
    optimizer: Any,
    lr: Any,
    seed: Any,
    engine: str,
    progress: bool,
    settings: Mapping[str, Any],
) -> Asked:
    """The search that a call of `tune` asks for.

    Raises:
        InputError: one sentence on what is wrong.
    """
    problem = checked(problem)
    if isinstance(optimizer, list | tuple):
        raise InputError("tune takes one optimizer at a time, got a list; compare() takes several")
    if isinstance(optimizer, Grid):
        if optimizer.rows is not None:
            raise InputError("tune takes a Grid of values, not one of rows (Grid.of)")
        own = dict(optimizer.settings)
        lr, seed = own.pop("lr", lr), own.pop("seed", seed)
        settings, optimizer = {**settings, **own}, optimizer.optimizer
    kind = check_optimizer(optimizer)
    if settings.get("live") not in (None, False):
        raise InputError(
            "tune has no live view: it makes many descents, one after another; descend(..., "
            "live=True) with the rate that was found shows one"
        )
    settings = {name: value for name, value in settings.items() if name != "live"}
    if "study" in settings:
        raise InputError("tune writes no study; save its runs with tuning.runs.save(folder)")
    options = {name: value for name, value in settings.items() if name in OPTIONS}
    if options.get("tolerance") is None and options.get("patience") is None:
        options.setdefault("every", LAST_RECORD)
    given = settled({name: v for name, v in settings.items() if name not in OPTIONS})
    try:
        check_names(kind, [name for name in given if name not in RUN_SETTINGS])
    except OptimizerError as error:
        unknown = [name for name in given if repr(name) in str(error)]
        hint = nearest(unknown[0], [*OPTIONS, *RUN_SETTINGS]) if unknown else ""
        raise OptimizerError(f"{error}{'' if 'did you mean' in str(error) else hint}") from error
    axes = {name: value for name, value in given.items() if _searched(name, value)}
    for name, axis in axes.items():
        if isinstance(axis, Range) and takes_whole_numbers(kind, name):
            axes[name] = replace(axis, whole=True)
    if "maximize" in axes:
        raise InputError(
            f"maximize must be True or False for a search, got {given['maximize']!r}: a loss to be "
            "lowered and one to be raised have no common best"
        )
    for name in ("steps", "epochs"):
        if is_number(options.get(name)) and options[name] == 0:
            raise InputError(f"{name} must be at least 1 to find a rate by training, got 0")
    spans = [name for name, axis in axes.items() if isinstance(axis, Range)]
    if len(spans) > MOST_RANGES:
        raise InputError(
            f"at most {MOST_RANGES} ranges besides the rate can be searched, got {listed(spans)}: "
            "give single values for some"
        )
    fixed = {name: value for name, value in given.items() if name not in axes}
    rates, free = _rates(kind, lr)
    if isinstance(rates, float):
        fixed["lr"], rates = rates, None
    if rates is None and not axes:
        known = hyperparameters(kind)
        raise InputError(
            f"there is nothing to search: {kind.__name__} has "
            + ("one rate given" if "lr" in fixed else "no hyperparameter 'lr'")
            + f", and no other of its {listed(n for n in known.shown if n != 'lr')} is a Range "
            "or a list"
        )
    return Asked(
        problem=problem,
        optimizer=kind,
        rates=rates,
        free=free,
        axes=axes,
        fixed=fixed,
        options=options,
        seeds=_seeds(seed),
        engine=engine,
        progress=progress,
    )


def _rates(
    optimizer: type[optim.Optimizer], lr: Any
) -> tuple[Range | tuple[float, ...] | float | None, bool]:
    """What of the rates is searched, and whether the search may leave it."""
    known = hyperparameters(optimizer)
    if isinstance(lr, str) and lr == "auto":
        return (WIDE, True) if "lr" in known.defaults or known.open else (None, False)
    if isinstance(lr, Mapping):
        raise InputError(
            "tune searches one rate for all parameters, got lr by parameter-name pattern: tune "
            "without patterns, or compare such rates with descend"
        )
    check_names(optimizer, ["lr"])
    if isinstance(lr, Range):
        if lr.low <= 0:
            raise InputError(f"a Range of lr starts above 0, got {lr.low}")
        return lr, False
    values = settled({"lr": lr})["lr"]
    many = list(values) if is_many(values) else [values]
    for value in many:
        if not is_number(value) or not 0 < float(value) < float("inf"):
            raise InputError(
                "lr must be 'auto', a Range, or numbers above 0 (a list of them), "
                f"got {value!r}{nearest(value, ['auto']) if isinstance(value, str) else ''}"
            )
    rates = tuple(sorted({float(value) for value in many}))
    return (rates, False) if is_many(values) else (rates[0], False)


def takes_whole_numbers(optimizer: type[optim.Optimizer], name: str) -> bool:
    """Whether a hyperparameter is a count: its signature says int, or nothing and its default is
    a whole number above 1 (a default of 0 or 1 is often written for a real number).

    >>> takes_whole_numbers(optim.LBFGS, "history_size"), takes_whole_numbers(optim.SGD, "momentum")
    (True, False)
    """
    known = inspect.signature(optimizer).parameters.get(name)
    if known is None:
        return False
    if known.annotation is not inspect.Parameter.empty:
        said = getattr(known.annotation, "__name__", str(known.annotation))
        return re.search(r"\bint\b", said) is not None and "float" not in said
    return type(known.default) is int and known.default > 1


def _searched(name: str, value: Any) -> bool:
    if isinstance(value, Range):
        if name in ("batch_size", "order"):
            raise InputError(f"{name} takes a list of values to search, not a Range")
        return True
    if isinstance(value, Mapping) and any(isinstance(v, Range) or is_many(v)
                                          for v in value.values()):  # fmt: skip
        raise InputError(
            f"{name} by parameter-name pattern can be given, but not searched: give one value for "
            "each pattern"
        )
    return is_many(value)


def _seeds(seed: Any) -> tuple[int, ...] | None:
    if seed is None:
        return None
    values = settled({"seed": seed})["seed"]
    return tuple(dict.fromkeys(values)) if is_many(values) else (values,)
