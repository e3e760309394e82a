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
from torch import nn

from downslope.descent import descend
from downslope.errors import StudyError
from downslope.explain.findings import Finding
from downslope.folder import write_json, write_whole
from downslope.grid import Grid
from downslope.models import model_factory
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.run import Run
from downslope.runs import Runs
from downslope.scoring import Scores, on_test_rows
from downslope.study import read_description
from downslope.tables import Schema, read_table
from downslope.tabular import decode
from downslope.telling import findings_of

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found.

    Attributes:
        chosen, plain: scores on the test rows of the chosen run and of a plain linear fit to the
            same training rows, in the target's units; empty without test rows.
        findings: of the best run and of an instructive failure: what it is, the run, its finding.
    """

    problem: Problem
    runs: Runs
    chosen: Scores
    plain: Scores
    findings: list[tuple[str, Run, Finding]]
    files: tuple[Path, ...]


def fit_table(
    problem: Problem,
    grids: Sequence[Grid],
    folder: str | Path,
    *,
    command: Sequence[str] | None = None,
    **options: Any,
) -> Fit:
    """Descend, choose by validation, score on the test rows, and write study, model, figure and
    report.

    Args:
        problem: made by `Problem.from_table`.
        grids: what to carry out.
        folder: the study's folder; one that holds the same study is resumed.
        command: the words of the shell command that asks for this, to be told in the report.
        **options: as `descend` takes them.
    """
    from downslope.views.report import About, write_report

    assert problem.table is not None
    runs = descend(problem, list(grids), study=folder, **options)
    path = Path(folder)
    write_schema(path, problem, command)
    files = [path / "study.json", path / "schema.json"]
    chosen: Scores = {}
    plain: Scores = {}
    if np.isfinite(runs.score).any():
        files.append(path / "model.safetensors")
        chosen, plain = on_test_rows(problem, runs.best)
    files.append(_draw(runs, path / "figure.png"))
    findings = findings_of(runs)
    about = About(
        command=None if command is None else tuple(command), study=str(folder), findings=findings
    )
    write_report(runs, path / REPORT, about)
    files.append(path / REPORT)
    return Fit(problem, runs, chosen, plain, findings, tuple(files))


def _draw(runs: Runs, path: Path) -> Path:
    from downslope.views.figures import fit_figure

    figure = fit_figure(runs)
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path


def write_schema(folder: Path, problem: Problem, command: Sequence[str] | None = None) -> None:
    """What new rows need to be treated alike, the model's name, and the command that was given."""
    assert problem.table is not None
    target = problem.table.schema.target
    one = not target.classes or isinstance(problem.template.loss, nn.BCEWithLogitsLoss)
    described = {
        "schema": problem.table.schema.to_json(),
        "model": problem.table.model,
        "outputs": 1 if one else len(target.classes),
        "loss": type(problem.template.loss).__name__,
        "asked": dict(problem.table.asked),
        "command": None if command is None else list(command),
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
