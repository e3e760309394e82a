"""Runs on disk: a folder of Parquet shards, each there whole or not at all, that can be resumed.

``study.json`` says what was asked and of which problem; ``runs-00000.parquet`` and so on hold a
chunk of runs each; ``model.safetensors`` (with ``schema.json``, for a table) holds the best run's
model. Nothing in it is code.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from downslope import __version__, fingerprint
from downslope.engines.work import Options, Outcome
from downslope.errors import DownslopeError, StudyError, listed
from downslope.folder import TEMPORARY, Lock, write_json, write_whole
from downslope.plan import Chunk, Plan
from downslope.problem import Problem
from downslope.problem_rows import with_validation
from downslope.records import settings_table
from downslope.runs import Runs, assemble
from downslope.shards import (
    LISTS,
    NAMED,
    frame_of,
    group_of,
    outcome_of,
    read_shard,
    settings_of,
    shapes_of,
    shards,
)

FORMAT = 1


class Study:
    """A study's folder, held for writing."""

    def __init__(self, folder: Path, plan: Plan, lock: Lock) -> None:
        self.folder, self.plan, self.lock = folder, plan, lock
        self.settings = settings_table(plan)

    @classmethod
    def open(cls, folder: str | Path, plan: Plan) -> Study:
        """Make the folder, or take it up again where the same was asked of the same problem.

        Raises:
            StudyError: if it holds something else, and what differs.
            StudyLockedError: if another process is writing to it.
        """
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise StudyError(f"study {str(folder)!r} is a file, it must be a folder")
        begun = (path / "study.json").exists()
        if path.is_dir() and not begun and any(p.name != "study.lock" for p in path.iterdir()):
            raise StudyError(
                f"folder {str(folder)!r} holds other files and is no study: give a new folder"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"cannot make {str(folder)!r}: {error.strerror or error}") from error
        lock = Lock(path / "study.lock")
        try:
            study = cls(path, plan, lock)
            for left in path.glob(f"*{TEMPORARY}"):
                left.unlink()
            if (path / "study.json").exists():
                study._check()
            else:
                write_json(path / "study.json", study._described())
        except BaseException:
            lock.release()
            raise
        return study

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def finished(self) -> dict[int, Outcome]:
        """The chunks that are on disk, by their place in the plan."""
        shapes = shapes_of(self._described())
        return {
            place: outcome_of(read_shard(path), shapes)
            for place, path in shards(self.folder).items()
            if place < len(self.plan.chunks)
        }

    def write(self, place: int, chunk: Chunk, outcome: Outcome) -> None:
        """Put a chunk's runs on disk."""
        settings = self.settings[self.plan.index(chunk)]
        frame = frame_of(settings, outcome)
        path = self.folder / f"runs-{place:05d}.parquet"
        write_whole(path, lambda temporary: frame.write_parquet(temporary))

    def finish(self, runs: Runs) -> None:
        """Put the best run's model beside the runs."""
        if np.isfinite(runs.score).any():
            write_model(self.folder, runs)

    def _described(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": FORMAT,
            "versions": versions(),
            "runs": plan.runs,
            "shapes": {
                "parameters": {n: list(s) for n, s in plan.problem.shapes.items()},
                "buffers": {n: list(s) for n, s in plan.problem.shapes_of_others.items()},
            },
            "dtype": str(plan.problem.dtype).removeprefix("torch."),
            "options": fingerprint.of_options(plan.options),
            "tuned": {rate.of: rate.lr for rate in plan.tuned},
            "starts": len(plan.starts) if plan.starts != (None,) else 0,
            "chunks": [[c.group, c.rows.start, c.rows.stop, c.engine] for c in plan.chunks],
            "fingerprint": {
                **fingerprint.of_problem(plan.problem, plan.options),
                "settings": fingerprint.text_hash(self.settings.drop("engine").write_json()),
                "starts": fingerprint.text_hash(repr(plan.starts)),
            },
        }

    def _check(self) -> None:
        found, wanted = read_description(self.folder), self._described()
        # Through JSON, so that tuples and lists compare alike.
        wanted = json.loads(json.dumps(wanted))
        same_versions = _same_versions(found["versions"])
        differing = fingerprint.differing(
            {**wanted["fingerprint"], "chunks": wanted["chunks"]},
            {**found["fingerprint"], "chunks": found["chunks"]},
            same_versions,
        )
        if differing and differing != [fingerprint.PARTS["chunks"]]:
            differing = [d for d in differing if d != fingerprint.PARTS["chunks"]]
        options = [n for n, v in wanted["options"].items() if v != found["options"].get(n)]
        if options:
            differing.append(f"the options {listed(options)}")
        if wanted["fingerprint"]["starts"] != found["fingerprint"].get("starts"):
            differing.append("the starts given")
        before = found.get("tuned", {})  # lr="auto" need not find the same by another engine
        moved = [
            f"; lr='auto' was {before[of]:.6g} for {of}, and is {lr:.6g} now"
            for of, lr in wanted["tuned"].items()
            if before.get(of, lr) != lr
        ]
        if differing:
            raise StudyError(
                f"study {str(self.folder)!r} is of something else: {listed(differing)} differ"
                f"{''.join(moved)}; "
                "give another folder, or ask for the same again"
            )


def load(folder: str | Path, problem: Problem | None = None) -> Runs:
    """Read a study's runs.

    Args:
        folder: where `descend(study=…)`, `Runs.save` or ``downslope fit`` wrote them.
        problem: the same problem, for models, predictions and replays; without it the numbers.

    Raises:
        StudyError: if there is no study, or it is of another problem.

    >>> load("nowhere")
    Traceback (most recent call last):
    downslope.errors.StudyError: there is no study at 'nowhere'
    """
    path = Path(folder)
    description = read_description(path)
    if problem is not None and "watched" in description:
        raise StudyError(
            f"study {str(folder)!r} was watched in a training loop that is not Downslope's own: it "
            "has no problem; load it without"
        )
    frames = {place: read_shard(shard) for place, shard in shards(path).items()}
    if not frames:
        raise StudyError(f"study {str(folder)!r} holds no finished runs yet")
    shapes = shapes_of(description)
    parts = [(f["run"].to_numpy(), outcome_of(f, shapes)) for f in frames.values()]
    missing = description["runs"] - sum(len(index) for index, _ in parts)
    settings = pl.concat([settings_of(f) for f in frames.values()], how="diagonal_relaxed")
    plan = None if problem is None else _plan(path, description, problem, frames)
    runs = assemble(settings.sort("run"), parts, plan)
    return replace(runs, interrupted=missing)


def save(runs: Runs, folder: str | Path) -> None:
    """Write finished runs as a study.

    Raises:
        DownslopeError: if they are a part of what was carried out, or have no problem.
    """
    if runs.plan is None or len(runs) != runs.plan.runs:
        raise DownslopeError(
            "only the runs of a whole call of descend can be saved, with their problem; "
            f"these are {len(runs)} of them: save the whole, and select after loading"
        )
    with Study.open(folder, runs.plan) as study:
        for place, chunk in enumerate(runs.plan.chunks):
            study.write(place, chunk, outcome_of_runs(runs[runs.plan.index(chunk)]))
        study.finish(runs)


def write_model(folder: Path, runs: Runs) -> None:
    """The best run's parameters and buffers, as safetensors."""
    from safetensors.torch import save

    best = runs.best
    state = {name: value.clone() for name, value in best.model.state_dict().items()}
    about = {"run": str(best.number), "downslope": __version__}
    write_whole(folder / "model.safetensors", lambda path: _write_bytes(path, save(state, about)))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read_description(folder: Path) -> dict[str, Any]:
    """``study.json``.

    Raises:
        StudyError: if there is none, or it cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(f"there is no study at {str(folder)!r}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{str(folder / 'study.json')!r} cannot be read: {error}") from error
    if found.get("format") != FORMAT:
        raise StudyError(
            f"study {str(folder)!r} has format {found.get('format')!r}, this version reads {FORMAT}"
        )
    return found


def _same_versions(found: Mapping[str, str]) -> bool:
    """Whether torch and Python are those that wrote a study."""
    return all(found[name] == versions()[name] for name in ("torch", "python"))


def versions() -> dict[str, str]:
    """What a study was written with."""
    return {
        "downslope": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
    }


def outcome_of_runs(runs: Runs) -> Outcome:
    """The other way: runs as the outcome they were made of."""
    return Outcome(
        **{
            name: getattr(runs, name) for name in ("status", "first_bad_step", "steps_done", *LISTS)
        },
        **{kind: getattr(runs, kind) for kind in NAMED},
    )


def _plan(
    folder: Path,
    description: Mapping[str, Any],
    problem: Problem,
    frames: Mapping[int, pl.DataFrame],
) -> Plan:
    """What was asked, from the study and the problem, for replays of its runs."""
    said = description["options"]
    problem = problem.to(dtype=getattr(torch, description["dtype"]))
    unknown = []
    if said["validation"] is not None:
        problem = with_validation(problem, said["validation"])
    options = Options(
        **{
            n: said[n]
            for n in ("updates", "epochs", "every", "tolerance", "patience", "divergence")
        },
        keep=frozenset(said["keep"]),
        schedule=fingerprint.schedule_from(said["schedule"]),
        validation=said["validation"],
    )
    wanted = fingerprint.of_problem(problem, options)
    if said["gradient"] is not None:
        unknown.append("the gradient by hand")
        del wanted["program"]
    if said["schedule"] is not None and options.schedule is None:
        unknown.append("the schedule")
    if description["starts"]:
        unknown.append("the starts given to descend")
    if wanted["validation"] != description["fingerprint"]["validation"]:
        unknown.append("the validation rows")
        del wanted["validation"]
    same_versions = _same_versions(description["versions"])
    if differing := fingerprint.differing(wanted, description["fingerprint"], same_versions):
        raise StudyError(f"study {str(folder)!r} is of another problem: {listed(differing)} differ")
    groups, chunks = [], []
    for number, frame in enumerate(frames.values()):
        try:
            groups.append(group_of(settings_of(frame)))
        except DownslopeError:
            unknown.append(f"the class {frame['optimizer'][0]}")
            continue
        chunks.append(Chunk(number, slice(0, frame.height), frame["engine"][0]))
    return Plan(
        problem, options, (None,), tuple(groups), tuple(chunks), (), tuple(dict.fromkeys(unknown))
    )
