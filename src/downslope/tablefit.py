"""`downslope fit` without its printing: a table in, a study, a model and honest scores out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from downslope.data import Rows
from downslope.descent import descend
from downslope.errors import StudyError
from downslope.folder import write_json, write_whole
from downslope.grid import Grid
from downslope.models import model_factory
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.runs import Runs
from downslope.study import read_description
from downslope.tables import Schema, read_table
from downslope.tabular import decode

Scores = dict[str, float]


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found.

    Attributes:
        chosen, plain: scores on the test rows of the chosen run and of a plain linear fit to the
            same training rows, in the target's units; empty without test rows.
    """

    problem: Problem
    runs: Runs
    chosen: Scores
    plain: Scores
    files: tuple[Path, ...]


def fit_table(problem: Problem, grids: Sequence[Grid], folder: str | Path, **options: Any) -> Fit:
    """Descend, choose by validation, score on the test rows, and write study, model and figure.

    Args:
        problem: made by `Problem.from_table`.
        grids: what to carry out.
        folder: the study's folder; one that holds the same study is resumed.
        **options: as `descend` takes them.
    """
    assert problem.table is not None
    runs = descend(problem, list(grids), study=folder, **options)
    path = Path(folder)
    write_schema(path, problem)
    files = [path / "study.json", path / "schema.json"]
    chosen: Scores = {}
    plain: Scores = {}
    if np.isfinite(runs.score).any():
        files.append(path / "model.safetensors")
        if problem.test is not None:
            chosen = scores(problem, problem.test, _outputs(runs.best.model, problem.test))
            plain = scores(problem, problem.test, plain_fit(problem, problem.test))
    files.append(_draw(runs, path / "figure.png"))
    return Fit(problem, runs, chosen, plain, tuple(files))


def scores(problem: Problem, rows: Rows, outputs: NDArray[np.float64]) -> Scores:
    """How good outputs are on some rows.

    Args:
        outputs: (rows, 1) standardised predictions, or (rows, classes) scores before softmax.

    Returns:
        rmse, mae (in the target's units) and r2; or accuracy and cross_entropy (in nats).
    """
    assert problem.table is not None and rows.y is not None
    schema, y = problem.table.schema, rows.y.double().numpy()
    if schema.target.task == "regression":
        wanted, given = schema.to_own_units(y.ravel()), schema.to_own_units(outputs.ravel())
        error = given - wanted
        spread = ((wanted - wanted.mean()) ** 2).sum()
        return {
            "rmse": float(np.sqrt((error**2).mean())),
            "mae": float(np.abs(error).mean()),
            "r2": float(1 - (error**2).sum() / spread) if spread > 0 else float("nan"),
        }
    if outputs.shape[1] == 1:  # one score for the second of two classes
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    classes = y.ravel().astype(np.int64)
    logits = torch.from_numpy(outputs)
    cross_entropy = nn.functional.cross_entropy(logits, torch.from_numpy(classes))
    return {
        "accuracy": float((outputs.argmax(1) == classes).mean()),
        "cross_entropy": float(cross_entropy),
    }


def plain_fit(problem: Problem, rows: Rows) -> NDArray[np.float64]:
    """Outputs for `rows` of ordinary least squares, or of logistic regression (scikit-learn's,
    with its default penalty), fitted to the training rows."""
    train = problem.train
    assert problem.table is not None and train is not None and train.y is not None
    X, new = train.x.double().numpy(), rows.x.double().numpy()
    y = train.y.double().numpy()
    if problem.table.schema.target.task == "regression":
        with_one = np.column_stack([X, np.ones(len(X))])
        weights = np.linalg.lstsq(with_one, y, rcond=None)[0]
        outputs: NDArray[np.float64] = np.column_stack([new, np.ones(len(new))]) @ weights
        return outputs
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(y.ravel())
    scores = np.full((len(new), len(problem.table.schema.target.classes)), -1e3)
    if len(seen) == 1:  # nothing to learn from: always that class
        scores[:, int(seen[0])] = 0.0
        return scores
    fitted = LogisticRegression(max_iter=10_000).fit(X, y.ravel())
    scores[:, fitted.classes_.astype(np.int64)] = fitted.predict_log_proba(new)
    return scores


def _outputs(model: nn.Module, rows: Rows) -> NDArray[np.float64]:
    with torch.no_grad():
        made: NDArray[np.float64] = model(rows.x).double().cpu().numpy()
    return made


def _draw(runs: Runs, path: Path) -> Path:
    from downslope.views.figures import fit_figure

    figure = fit_figure(runs)
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path


def write_schema(folder: Path, problem: Problem) -> None:
    """What new rows need to be treated alike, and the model's name."""
    assert problem.table is not None
    target = problem.table.schema.target
    one = not target.classes or isinstance(problem.template.loss, nn.BCEWithLogitsLoss)
    described = {
        "schema": problem.table.schema.to_json(),
        "model": problem.table.model,
        "outputs": 1 if one else len(target.classes),
        "loss": type(problem.template.loss).__name__,
        "asked": dict(problem.table.asked),
    }
    write_json(folder / "schema.json", described)


def predict_table(
    folder: str | Path, rows: Any, model: str | None = None
) -> tuple[pl.Series, tuple[str, ...]]:
    """Predictions for new rows by a study's best model.

    Args:
        folder: a study written by `fit_table`.
        rows: a file or dataframe with the same columns.
        model: ``file.py:ClassName``, for a study of the user's own class: a study holds no code.

    Returns:
        The target, in its own units or as class names, in the order of the rows; and sentences
        on what was done to the rows (unknown categories, values filled in).

    Raises:
        StudyError: if the folder holds no model, or the file's class is another.
        TableError: if the rows lack a column, or hold what cannot be used.
    """
    path = Path(folder)
    read_description(path)
    if not (path / "model.safetensors").exists() or not (path / "schema.json").exists():
        raise StudyError(
            f"study {str(folder)!r} holds no model of a table: write one with downslope fit"
        )
    described = json.loads((path / "schema.json").read_text(encoding="utf-8"))
    schema = Schema.from_json(described["schema"])
    frame = read_table(rows, as_text=schema.text_columns)
    encoded = schema.encode(frame, require_all_rows=True)
    name = model or described["model"]
    if ".py:" in name and model is None:
        raise StudyError(
            f"study {str(folder)!r} used the class {name!r}, and holds no code: "
            "name the file again with --model file.py:ClassName"
        )
    made = _loaded(path, name, len(schema.feature_names), described["outputs"])
    return pl.Series(schema.target.name, decode(schema, made, encoded.X)), encoded.notes


def _loaded(folder: Path, name: str, inputs: int, outputs: int) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: Mapping[str, torch.Tensor] = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{str(folder / 'model.safetensors')!r} is damaged: {error}") from error
    made = model_factory(name, inputs, outputs)
    model = made if isinstance(made, nn.Module) else made()
    dtype = next(iter(state.values())).dtype
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    if shapes != {n.removeprefix(MODEL_PREFIX): tuple(t.shape) for n, t in state.items()}:
        raise StudyError(f"the model {name!r} has other parameters than the study's")
    model.load_state_dict(dict(state))
    return model.to(dtype=dtype).eval()
