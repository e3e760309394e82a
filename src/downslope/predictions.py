"""A model's predictions for new rows, in the form in which the rows were given."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from downslope.data import as_tensor
from downslope.errors import DownslopeError, InputError
from downslope.problem import Problem
from downslope.tables import read_table
from downslope.tabular import decode


def predictions(problem: Problem, model: nn.Module, X: Any) -> Any:
    """What `Run.predict` returns.

    Args:
        problem: what the model was trained on.
        X: rows as a file or dataframe with the same columns, for a problem from a table; otherwise
            a tensor, array or dataframe.
    """
    if problem.table is not None:
        schema = problem.table.schema
        frame = read_table(X, as_text=schema.text_columns)
        encoded = schema.encode(frame, require_all_rows=True)
        for note in encoded.notes:
            warnings.warn(note, stacklevel=3)
        return decode(schema, model, encoded.X)
    if problem.train is None:
        raise DownslopeError("a function without data predicts nothing: see run.parameters")
    inputs = as_tensor(X, "X")
    dtype = problem.dtype if inputs.is_floating_point() else None
    if dtype is None and problem.train.x.is_floating_point():
        dtype = problem.dtype
    inputs = inputs.to(device=problem.device, dtype=dtype)
    with torch.no_grad():
        try:
            made = model(inputs.clone() if problem.template.copies_input else inputs)
        except RuntimeError as error:
            wanted = ", ".join(["rows", *map(str, problem.train.x.shape[1:])])
            said = " ".join(str(error).split())
            raise InputError(
                f"the model was trained on X of shape ({wanted}) and cannot take "
                f"{tuple(inputs.shape)}: {said}"
            ) from error
    return made if isinstance(X, Tensor) else made.cpu().numpy()
