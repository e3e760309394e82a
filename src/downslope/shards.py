"""A chunk of runs as a Parquet table, and back: settings, what happened, records as lists."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.work import Outcome, Status
from downslope.errors import StudyError
from downslope.groups import Group
from downslope.optimizers import hyperparameters, optimizer_by_name
from downslope.records import status_names

LISTS = ("steps", "loss", "validation_loss", "batch_loss", "gradient_norm")
NAMED = ("parameters", "buffers", "path")


def shards(folder: Path) -> dict[int, Path]:
    """The shards of a study by their number."""
    return {int(p.stem.split("-")[1]): p for p in sorted(folder.glob("runs-*.parquet"))}


def read_shard(path: Path) -> pl.DataFrame:
    """A shard as it was written.

    Raises:
        StudyError: if it is damaged.
    """
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        said = " ".join(str(error).split())
        raise StudyError(
            f"{str(path)!r} is damaged ({said[:100]}): remove it to compute its runs again"
        ) from error


def shapes_of(description: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of parameters, buffers and paths, from ``study.json``."""
    shapes = description["shapes"]
    named = {kind: {n: tuple(s) for n, s in shapes[kind].items()} for kind in shapes}
    return {**named, "path": named["parameters"]}


def frame_of(settings: pl.DataFrame, outcome: Outcome) -> pl.DataFrame:
    """A chunk as a table: settings, what happened, and records and parameters as lists."""
    columns: dict[str, pl.Series] = {
        "status": status_names(outcome.status),
        "first_bad_step": pl.Series(outcome.first_bad_step).replace(-1, None),
        "steps_done": pl.Series(outcome.steps_done),
    }
    for name in LISTS:
        if (values := getattr(outcome, name)) is not None:
            columns[name] = _lists(values)
    for kind in NAMED:
        for name, tensor in (getattr(outcome, kind) or {}).items():
            columns[f"{kind}.{name}"] = _lists(_numpy(tensor.reshape(len(tensor), -1)))
    return settings.with_columns([s.alias(name) for name, s in columns.items()])


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


def _lists(values: NDArray[Any]) -> pl.Series:
    inner = pl.Series(values[:0].reshape(-1)).dtype
    if not values.shape[1]:
        return pl.Series([[]] * len(values), dtype=pl.List(inner))
    return pl.Series(np.ascontiguousarray(values)).cast(pl.List(inner))


def _array(series: pl.Series, shape: tuple[int, ...]) -> NDArray[Any]:
    flat = series.explode(empty_as_null=False).to_numpy()
    return np.array(flat).reshape(len(series), *shape)


def settings_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that say how the runs were set."""
    return frame.select(frame.columns[: frame.columns.index("status")])


def outcome_of(frame: pl.DataFrame, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Outcome:
    """The columns that say what happened."""
    codes = {known.name: known.value for known in Status}
    values: dict[str, Any] = {
        "status": frame["status"].replace_strict(codes, return_dtype=pl.Int8).to_numpy(),
        "first_bad_step": frame["first_bad_step"].fill_null(-1).to_numpy().astype(np.int64),
        "steps_done": frame["steps_done"].to_numpy(),
    }
    for name in LISTS:
        values[name] = _array(frame[name], (-1,)) if name in frame.columns else None
    for kind in NAMED:
        found = {n: f"{kind}.{n}" for n in shapes[kind] if f"{kind}.{n}" in frame.columns}
        lead = (-1,) if kind == "path" else ()
        values[kind] = {
            n: torch.from_numpy(_array(frame[column], (*lead, *shapes[kind][n])))
            for n, column in found.items()
        }
    if not any(c.startswith("path.") for c in frame.columns):
        values["path"] = None
    return Outcome(**values)


def group_of(settings: pl.DataFrame) -> Group:
    """A chunk's runs as they were asked for."""
    optimizer = optimizer_by_name(settings["optimizer"][0])
    numbers: dict[str, NDArray[Any]] = {}
    patterned: dict[str, dict[str, NDArray[Any]]] = {}
    switches: dict[str, Any] = {}
    for name in settings.columns:
        base, bracket, pattern = name.partition("[")
        if base not in hyperparameters(optimizer).defaults:
            continue
        column = settings[name]
        if isinstance(column.dtype, pl.List):
            numbers[name] = _array(column, (-1,))
        elif column.dtype.is_numeric() and not column.has_nulls():
            if bracket:
                patterned.setdefault(base, {})[pattern[:-1]] = column.to_numpy()
            else:
                numbers[name] = column.to_numpy()
        elif not bracket:
            value, default = column[0], hyperparameters(optimizer).defaults[name]
            written = isinstance(value, str) and isinstance(default, tuple)
            switches[name] = ast.literal_eval(value) if written else value
    size = settings["batch_size"][0]
    runs = settings.height
    clips = "clip_norm" in settings.columns
    return Group(
        optimizer=optimizer,
        switches=switches,
        numbers=numbers,
        patterned=patterned,
        batch_size=None if size == "full" else int(size),
        order=settings["order"][0],
        index=settings["run"].to_numpy(),
        start=np.zeros(runs, dtype=np.int64),
        seed=settings["seed"].to_numpy(),
        clip_norm=settings["clip_norm"].to_numpy() if clips else np.full(runs, np.inf),
    )
