"""The picture of a finding: its run found and looked at, its plain data, drawn."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from downslope.errors import InputError
from downslope.explain.again import closer
from downslope.explain.findings import Finding
from downslope.run import Run
from downslope.runs import Runs
from downslope.views.data.findings import finding_data
from downslope.views.drawing.findings import draw_finding


def figure_of(finding: Finding, runs: Any = None) -> Figure:
    """See `Finding.plot`."""
    return draw_finding(finding_data(finding, closer(_run_of(finding, runs))))


def _run_of(finding: Finding, runs: Any) -> Run:
    if isinstance(runs, Run):
        return runs
    if isinstance(runs, Runs):
        own = runs.where(run=finding.run)
        if not len(own):
            raise InputError(f"the finding is about run {finding.run}, which is not among {runs!r}")
        return own[0]
    if runs is not None:
        raise InputError(f"runs must be Runs or a Run, got {type(runs).__name__}")
    if finding.of is None:
        raise InputError("this finding does not know its run: give it, as finding.plot(runs)")
    run: Run = finding.of
    return run
