"""A report on some runs: one HTML file that needs nothing besides itself."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from downslope.errors import InputError, listed
from downslope.explain.findings import Finding
from downslope.folder import new_file, write_whole
from downslope.ranking import rank
from downslope.run import Run, watched
from downslope.runs import Runs
from downslope.study import versions
from downslope.views.reporting.asked_words import asked_rows, column_rows
from downslope.views.reporting.code import python_of
from downslope.views.reporting.figures import figures_of, shown_figure
from downslope.views.reporting.findings import explained
from downslope.views.reporting.page import Content, page_of
from downslope.views.reporting.ranked import ranked_table
from downslope.views.reporting.words import NO_PROBLEM, result_of, title_of

ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class About:
    """What only the caller knows of the runs.

    Attributes:
        title: in place of the report's own.
        command: the words of the shell command that made the runs.
        study: their folder, as the user names it.
        source: the path of the problem's table, as the user names it.
        remarks: more sentences on what is lacking.
        findings: what each is of, its run, and the finding; by default those of the best run and
            of an instructive failure.
        figures: title, caption and figure of more pictures, shown first.
        written_with: versions that the study was written with.
    """

    title: str | None = None
    command: tuple[str, ...] | None = None
    study: str | None = None
    source: str | None = None
    remarks: tuple[str, ...] = ()
    findings: Sequence[tuple[str, Run | None, Finding]] | None = None
    figures: tuple[tuple[str, str, Figure], ...] = ()
    written_with: Mapping[str, str] | None = None


def write_report(runs: Runs, path: str | Path, about: About | None = None) -> Path:
    """Write a report, whole or not at all.

    Returns:
        Where it lies.

    Raises:
        InputError: if there are no runs, or the path cannot be a report's.
        StudyError: if it cannot be written.
    """
    place = checked_path(path)
    if not len(runs):
        raise InputError("there are no runs to report on: a report needs at least one")
    page = page_of(content_of(runs, about or About()))
    write_whole(place, lambda temporary: _write(temporary, page))
    return place


def checked_path(path: str | Path) -> Path:
    """The path of a report.

    Raises:
        InputError: if it is no path or a folder, has another ending, or its folder is not there.
    """
    return new_file(path, "report", ENDINGS)


def content_of(runs: Runs, about: About) -> Content:
    """What the report says."""
    ranked = rank(runs)
    plan = runs.plan
    figures, not_drawn = figures_of(runs)
    findings, counted = explained(runs, about.findings)
    given = [shown_figure(*one) for one in about.figures]
    return Content(
        title=about.title or title_of(runs),
        result=tuple(result_of(runs, ranked)),
        notices=tuple(_notices(runs, about)),
        table=None if watched(runs) else ranked_table(runs, ranked),
        figures=(*given, *figures),
        not_drawn=tuple(not_drawn),
        findings=tuple(findings),
        counted=counted,
        asked=tuple(asked_rows(runs, about.study)),
        columns=tuple(column_rows(runs)),
        notes=() if plan is None else plan.problem.notes,
        command=None if about.command is None else shlex.join(about.command),
        python=python_of(runs, about.source, about.study),
        versions=_versions(about.written_with),
    )


def _notices(runs: Runs, about: About) -> list[str]:
    told = list(about.remarks)
    if watched(runs):
        told.append(
            "This loop was not Downslope's own: its losses are those of its batches, before each "
            "update, and its data and code are not known here."
        )
    elif runs.plan is None:
        told.append(NO_PROBLEM)
    elif runs.plan.unknown:
        told.append(
            f"The study does not hold {listed(runs.plan.unknown)}: its runs are judged by their "
            "losses alone."
        )
    return told


def _versions(written_with: Mapping[str, str] | None) -> dict[str, str]:
    here = {**versions(), "matplotlib": matplotlib.__version__}
    here["platform"] = f"{platform.system()}, {platform.machine()}"
    if written_with is None:
        return here
    return {
        name: version
        if written_with.get(name, version) == version
        else f"{version} (the runs were made with {written_with[name]})"
        for name, version in here.items()
    }


def _write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8", newline="\n")
