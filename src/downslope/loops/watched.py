"""What was recorded of a loop, and the same as runs and on disk, like any other study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from downslope.engines.work import Status
from downslope.errors import DownslopeError, StudyError
from downslope.explain.findings import Finding
from downslope.folder import Lock, write_json, write_whole
from downslope.loops.observed import Observed
from downslope.runs import Runs
from downslope.shards import frame_of
from downslope.study import FORMAT, outcome_of_runs, versions

ENGINE = "watched"
"""What the column ``engine`` says of a loop that was not Downslope's own."""

STEPS_FILE, FINDINGS_FILE = "steps.parquet", "findings.json"


@dataclass(frozen=True, eq=False)
class Watched:
    """The records of a loop.

    Attributes:
        table: a row a step, see `downslope.watching.Watch.table`.
        optimizer: its class's name; settings: its hyperparameters at the start, as columns.
        parameters, buffers: the model's, as they ended; empty where there are too many.
        maximize: whether the optimizer goes up.
        observed: what was seen of the loop itself.
        notes: what could not be measured, in words.
    """

    table: pl.DataFrame
    optimizer: str
    settings: Mapping[str, Any]
    parameters: Mapping[str, Tensor] = field(repr=False)
    buffers: Mapping[str, Tensor] = field(repr=False)
    maximize: bool
    observed: Observed
    notes: tuple[str, ...] = ()


def runs_of(watched: Watched, finding: Finding) -> Runs:
    """One run whose records are the steps.

    Its loss is the batch's before each update, since a loop of one's own has no other; NaN where
    none was given, and from the first bad step.

    Raises:
        DownslopeError: if no step was made.
    """
    table = watched.table
    if not table.height:
        raise DownslopeError("no step of the optimizer was seen: there is no run")
    bad = finding.evidence.get("first bad step")
    first_bad = -1 if bad is None else int(bad.value)
    loss, norm = (
        table[name].fill_null(np.nan).to_numpy()[None].copy() for name in ("loss", "gradient_norm")
    )
    steps = np.arange(table.height, dtype=np.int64)[None]
    if first_bad >= 0:
        loss[:, first_bad - 1 :] = norm[:, first_bad - 1 :] = np.nan
    return Runs(
        settings=_settings(watched),
        status=np.array([Status.diverged if first_bad >= 0 else Status.finished], dtype=np.int8),
        first_bad_step=np.array([first_bad]),
        steps_done=np.array([table.height if first_bad < 0 else first_bad - 1]),
        steps=steps,
        loss=loss,
        validation_loss=None,
        batch_loss=loss,
        gradient_norm=norm,
        parameters={name: value[None] for name, value in watched.parameters.items()},
        buffers={name: value[None] for name, value in watched.buffers.items()},
        path=None,
    )


def _settings(watched: Watched) -> pl.DataFrame:
    row = {"run": 0, "optimizer": watched.optimizer, **watched.settings}
    frame = pl.DataFrame({name: [value] for name, value in row.items()})
    return frame.with_columns(
        batch_size=pl.lit(None, pl.String),
        order=pl.lit(None, pl.String),
        seed=pl.lit(None, pl.Int64),
        engine=pl.lit(ENGINE),
    )


def save(watched: Watched, findings: Sequence[Finding], folder: str | Path) -> None:
    """Write a study: ``study.json`` and a shard with the run, as `load` reads them; every step's
    numbers in ``steps.parquet``, the findings in ``findings.json``.

    Raises:
        StudyError: if the folder holds something already, or cannot be written.
        DownslopeError: if no step was made.
    """
    runs = runs_of(watched, findings[0])
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StudyError(f"{str(folder)!r} is there already: give a new folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"cannot make {str(folder)!r}: {error.strerror or error}") from error
    lock = Lock(path / "study.lock")
    try:
        frame = frame_of(runs.settings, outcome_of_runs(runs))
        write_whole(path / STEPS_FILE, lambda part: watched.table.write_parquet(part))
        told = json.loads(json.dumps([_plain(finding) for finding in findings]))
        write_json(path / FINDINGS_FILE, told)
        write_json(path / "study.json", _described(watched, runs))
        write_whole(path / "runs-00000.parquet", lambda part: frame.write_parquet(part))
    finally:
        lock.release()


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict,
        "cause": finding.cause,
        "confidence": finding.confidence,
        "sentence": finding.sentence,
        "evidence": {name: asdict(evidence) for name, evidence in finding.evidence.items()},
        "advice": None if finding.advice is None else asdict(finding.advice),
    }


def _described(watched: Watched, runs: Runs) -> dict[str, Any]:
    def shapes(kind: Mapping[str, Tensor]) -> dict[str, list[int]]:
        return {name: list(value.shape[1:]) for name, value in kind.items()}

    return {
        "format": FORMAT,
        "versions": versions(),
        "runs": 1,
        "shapes": {"parameters": shapes(runs.parameters), "buffers": shapes(runs.buffers)},
        "watched": {"steps": watched.table.height, "notes": list(watched.notes)},
    }
