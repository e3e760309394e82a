"""The examples by short names: which there are, and how to run one. Imports nothing heavy."""

from __future__ import annotations

import runpy
import sys
import tempfile
from pathlib import Path

from downslope.errors import DownslopeError, InputError, listed, nearest

EXAMPLES: dict[str, tuple[str, str]] = {
    "line": ("01_line.py", "batch against stochastic descent on a straight line"),
    "function": ("02_function.py", "x² - 4x + 5 at five rates; a line by hand and by autograd"),
    "network": ("03_network.py", "a small network learns a line, then a parabola"),
    "slope": ("04_slope.py", "one weight by hand and by autograd, then a prediction"),
    "optimizers": ("05_optimizers.py", "SGD against Adam through a Dataset and a DataLoader"),
    "rates_and_batches": ("06_rates_and_batches.py", "rate × batch size: where it is stable"),
    "momentum": ("07_momentum.py", "momentum's best value on a narrow valley"),
    "edge": ("08_edge.py", "the edge of stability: curvature rises to 2 / rate and stays"),
    "boundary": ("09_boundary.py", "the fractal boundary of trainability (a minute or two)"),
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
        InputError: for a name that no example has, or an `out_dir` that cannot be written to;
            nothing has been computed then.
        DownslopeError: if a picture cannot be written after all.
    """
    path = example_path(name)
    folder = Path(name if out_dir is None else out_dir)
    _check_writable(folder)
    before = sys.argv
    sys.argv = [str(path), str(folder)]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except BrokenPipeError:  # the reader of what is printed has gone
        raise
    except OSError as error:
        raise DownslopeError(f"the example {name!r} could not go on: {error}") from error
    finally:
        sys.argv = before


def _check_writable(folder: Path) -> None:
    """Make the folder, and a file in it, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the pictures need a folder, but {str(folder)!r} is a file")
    missing = [made for made in (folder, *folder.parents) if not made.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        for made in missing:  # what was made on the way, from below to above
            if made.is_dir():
                made.rmdir()
        raise InputError(
            f"the pictures cannot be written to {str(folder)!r} ({error.strerror}); "
            "name another folder with --out"
        ) from error
