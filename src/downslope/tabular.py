"""A table as rows of tensors, split and encoded; a model's outputs in the target's units again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from downslope.data import Rows
from downslope.errors import ProblemError
from downslope.losses import loss_by_name, wants_classes
from downslope.tables import Schema, Split, fit_schema, read_table, split_rows, target_rows

Task = Literal["regression", "classification"]
Missing = Literal["mean", "drop", "error"]


@dataclass(frozen=True, eq=False)
class TableRows:
    """What a table gives a problem.

    Attributes:
        loss: the one asked for, or the one that fits the target.
        outputs: how many outputs a model of it needs.
        notes: what was done to the rows.
    """

    schema: Schema
    split: Split
    loss: Any
    outputs: int
    train: Rows
    validation: Rows | None
    test: Rows | None
    notes: tuple[str, ...]


def read_rows_of_table(
    source: Any,
    target: str,
    loss: Any,
    task: Task | None,
    missing: Missing,
    split_seed: int,
    validation: float,
    test: float,
) -> TableRows:
    """Read, split and encode; the arguments are those of `Problem.from_table`."""
    loss = loss_by_name(loss) if isinstance(loss, str) else loss
    if isinstance(loss, nn.PoissonNLLLoss):
        raise ProblemError(
            "loss poisson needs counts, but a table's target is standardised: "
            "make tensors of the table and use Problem.from_model"
        )
    if wants_classes(loss) or isinstance(loss, nn.BCEWithLogitsLoss):
        task = task or "classification"
    frame = read_table(source)
    usable = np.arange(frame.height)
    notes: list[str] = []
    if target in frame.columns and missing != "error":
        usable = np.flatnonzero(target_rows(frame, target))
        if left_out := frame.height - len(usable):
            notes.append(f"{left_out} rows without a target were left out")
    split = split_rows(len(usable), split_seed, validation=validation, test=test)
    schema = fit_schema(frame, target, missing=missing, task=task, rows=usable[split.train])
    classes = schema.target.classes
    if loss is None:
        loss = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    binary = isinstance(loss, nn.BCEWithLogitsLoss)
    if binary and len(classes) != 2:
        raise ProblemError(f"loss bce needs a target of two classes, got {len(classes)}")
    encoded = schema.encode(frame)
    notes.extend(encoded.notes)
    place = np.cumsum(encoded.kept) - 1  # of a row of the frame among the encoded ones

    def rows_of(part: NDArray[np.int64]) -> Rows | None:
        rows = usable[part][encoded.kept[usable[part]]]
        if not len(rows):
            return None
        x = torch.from_numpy(encoded.X[place[rows]]).to(torch.get_default_dtype())
        y = torch.tensor(schema.encode_target(frame[rows]))
        if binary or not classes:
            y = y.to(x.dtype).reshape(-1, 1)
        return Rows(x, y)

    train = rows_of(split.train)
    if train is None:
        raise ProblemError("no training row is left")
    return TableRows(
        schema=schema,
        split=split,
        loss=loss,
        outputs=len(classes) if classes and not binary else 1,
        train=train,
        validation=rows_of(split.validation),
        test=rows_of(split.test),
        notes=tuple(notes),
    )


def file_path(source: Any) -> str | None:
    """Where a table lies, if it is a file."""
    return str(Path(source).absolute()) if isinstance(source, str | Path) else None


def decode(schema: Schema, model: nn.Module, X: NDArray[np.float64]) -> NDArray[Any]:
    """A table model's outputs in the target's own units, or as class names."""
    parameter = next(model.parameters())
    with torch.no_grad():
        out = model(torch.from_numpy(X).to(device=parameter.device, dtype=parameter.dtype)).cpu()
    if schema.target.task == "regression":
        values: NDArray[Any] = schema.to_own_units(out.reshape(-1).double().numpy())
        return values
    one_output = out.ndim == 1 or out.shape[-1] == 1
    chosen = (out.reshape(-1) > 0).long() if one_output else out.argmax(-1)
    names: NDArray[Any] = schema.class_names(chosen.numpy())
    return names
