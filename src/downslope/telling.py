"""Which runs of a study are worth explaining first, and a study's table opened again for that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from downslope.errors import DownslopeError, InputError, StudyError
from downslope.explain.explaining import explain_runs
from downslope.explain.findings import Finding
from downslope.problem import Problem
from downslope.run import Run
from downslope.runs import Runs
from downslope.study import load, read_description


def instructive_failure(runs: Runs) -> Run | None:
    """The failure that teaches most: what diverged at the lowest rate, of the best run's optimizer
    if any of its runs did; where none diverged, what ended worst. None if there is no other run
    than the best."""
    score = runs.score
    if not np.isfinite(score).any():
        best = None
    else:
        best = int(np.argmin(np.where(np.isfinite(score), score, np.inf)))
    optimizers = runs.settings["optimizer"].to_numpy()
    candidates = runs.diverged
    if best is not None and (candidates & (optimizers == optimizers[best])).any():
        candidates = candidates & (optimizers == optimizers[best])
    if candidates.any():
        places = np.flatnonzero(candidates)
        if "lr" not in runs.settings.columns:
            return runs[int(places[0])]
        rates = runs.settings["lr"].fill_null(np.inf).to_numpy()[places]
        return runs[int(places[int(np.argmin(rates))])]
    if best is None or len(runs) < 2:
        return None
    worst = int(np.argmax(np.where(np.isfinite(score), score, -np.inf)))
    return None if worst == best else runs[worst]


def worth_telling(runs: Runs) -> list[tuple[str, Run]]:
    """The best run and the most instructive failure: what it is, and the run."""
    chosen: list[tuple[str, Run]] = []
    if np.isfinite(runs.score).any():
        chosen.append(("the best run", runs.best))
    failure = instructive_failure(runs)
    if failure is not None:
        chosen.append(("an instructive failure", failure))
    return chosen


def findings_of(runs: Runs) -> list[tuple[str, Run, Finding]]:
    """What is worth telling of first: what it is, the run, and its finding."""
    chosen = worth_telling(runs)
    places = [run.place for _, run in chosen]
    found = explain_runs(runs[places]) if places else []
    return [(what, run, one) for (what, run), one in zip(chosen, found, strict=True)]


def as_plain(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    return {
        "run": finding.run,
        "verdict": finding.verdict,
        "cause": finding.cause,
        "confidence": finding.confidence,
        "sentence": finding.sentence,
        "evidence": {name: asdict(one) for name, one in finding.evidence.items()},
        "advice": None if finding.advice is None else dict(finding.advice.change),
    }


def load_with_table(
    folder: str | Path, table: str | None = None, model: str | None = None
) -> tuple[Runs, str | None]:
    """A study's runs with their problem, if its table can be had, and else why not.

    Args:
        table: the table that the study was made of; by default where it was then.
        model: ``file.py:ClassName``, for a study of the user's own class.

    Raises:
        StudyError: if there is no study, or a table that was given is not the study's.
    """
    path = Path(folder)
    read_description(path)
    asked = _asked(path)
    if asked is None:
        if table is not None:
            raise StudyError(f"study {str(folder)!r} was not made of a table")
        return load(folder), "it was not made of a table: give its problem to downslope.load"
    source = table or asked["source"]
    if source is None or not Path(source).exists():
        if table is not None:
            raise InputError(f"there is no file {table!r}")
        return load(folder), "its table is not where it was: name it with --table"
    name = model or asked["model"]
    if model is None and ".py:" in name and not Path(name.split(".py:")[0] + ".py").exists():
        return load(folder), f"it used the class {name!r}: name the file again with --model"
    try:
        problem = Problem.from_table(source, **{**_arguments(asked), "model": name})
        return load(folder, problem=problem), None
    except DownslopeError as error:
        if table is not None:
            raise
        return load(folder), str(error)


def _asked(path: Path) -> Mapping[str, Any] | None:
    try:
        described = json.loads((path / "schema.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    asked = described.get("asked")
    return None if asked is None else {**asked, "model": described["model"]}


def _arguments(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name != "source"}
