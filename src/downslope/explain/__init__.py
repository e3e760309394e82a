"""Why runs did what they did: curvature measured, theory applied, findings told.

The package is the function of its name, too: ``downslope.explain(run)`` gives a run's finding,
``downslope.explain(runs)`` the list of theirs.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downslope.explain.findings import Finding
    from downslope.run import Run
    from downslope.runs import Runs


class _Explain(ModuleType):
    """A package that can be called: a plain function of this name would hide it."""

    def __call__(self, run: Run | Runs) -> Finding | list[Finding]:
        """The finding of one run, or those of many; see `explaining.explain_runs`."""
        from downslope.explain.explaining import explain_run, explain_runs
        from downslope.run import Run
        from downslope.runs import Runs

        if isinstance(run, Run):
            return explain_run(run)
        if isinstance(run, Runs):
            return explain_runs(run)
        given: Any = type(run).__name__
        from downslope.errors import InputError

        raise InputError(f"explain takes a Run or Runs, as descend returns them, got {given}")


sys.modules[__name__].__class__ = _Explain
