"""The examples by short names: which there are, and how to run one. Imports nothing heavy."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from downslope.errors import DownslopeError, InputError, listed, nearest

EXAMPLES: dict[str, tuple[str, str]] = {
    "line": ("01_line.py", "batch against stochastic descent on a straight line"),
    "function": ("02_function.py", "x² - 4x + 5 at five rates; a line by hand and by autograd"),
    "network": ("03_network.py", "a small network learns a line, then a parabola"),
    "slope": ("04_slope.py", "one weight by hand and by autograd, then a prediction"),
    "optimizers": ("05_optimizers.py", "SGD against Adam through a Dataset and a DataLoader"),
}
"""Short name to the file's name and what the example shows."""


def list_examples() -> list[tuple[str, str]]:
    """Each example's short name and what it shows.

    >>> list_examples()[0]
    ('line', 'batch against stochastic descent on a straight line')
    """
    return [(name, words) for name, (_, words) in EXAMPLES.items()]


def example_path(name: str) -> Path:
    """The file of an example, inside the installed package or in the repository.

    Raises:
        InputError: for a name that no example has.
        DownslopeError: if the installation came without the examples.
    """
    if name not in EXAMPLES:
        raise InputError(
            f"there is no example {name!r}{nearest(name, EXAMPLES)}; "
            f"the examples are {listed(EXAMPLES)}"
        )
    package = Path(__file__).resolve().parent
    for folder in (package / "_examples", package.parents[1] / "examples"):
        path = folder / EXAMPLES[name][0]
        if path.is_file():
            return path
    raise DownslopeError(f"the example {name!r} is missing from this installation of downslope")


def run_example(name: str, out_dir: str | Path | None = None) -> None:
    """Run an example in this process, as ``python examples/… OUT_DIR`` would.

    Args:
        name: its short name.
        out_dir: where it writes its pictures; by default a folder of its name in the current one.

    Raises:
        InputError: for a name that no example has, or an `out_dir` that is a file.
    """
    path = example_path(name)
    folder = Path(name if out_dir is None else out_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the pictures need a folder, but {str(folder)!r} is a file")
    before = sys.argv
    sys.argv = [str(path), str(folder)]
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before
