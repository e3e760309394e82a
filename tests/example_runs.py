"""Each example is carried out once for all tests of a process."""

import contextlib
import io
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from downslope.gallery import example_path

ARGUMENTS = {"boundary": ["16"]}
"""What an example takes besides its folder, to be quick."""

_done: dict[str, Any] = {}


@dataclass(frozen=True)
class Ran:
    """What an example printed, its folder, and the names it ended with."""

    printed: str
    out: Path
    names: dict[str, Any]


def ran_example(name: str, folders: pytest.TempPathFactory) -> Ran:
    """Run it as a script, in this process; torch's random state stays as it was."""
    if name not in _done:
        out, path = folders.mktemp(name) / "out", str(example_path(name))
        printed = io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            torch.random.fork_rng(),
        ):
            patch.setattr(sys, "argv", [path, str(out), *ARGUMENTS.get(name, [])])
            names = runpy.run_path(path, run_name="__main__")
        _done[name] = Ran(printed.getvalue(), out, names)
    return _done[name]
