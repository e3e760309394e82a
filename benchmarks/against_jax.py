"""The fused engine beside JAX, the plain torch loop and the machine's own limits.

Both sides run in one process, in turn; medians are printed, for the first call (with tracing and
compiling) and for the next ones, and how far the final losses of both are apart. JAX is
jit(vmap(scan)) in float32, its way of writing a layer and its chunk size being the fastest of those
tried on this machine; both sides give losses at the end only (ours at the start, too). "Ours" is
the whole call of `descend`. Cases 8 to 12 need no JAX. Where other processes took a good share of
the machine, times mean little: that share is the last column.

    pip install -r benchmarks/requirements.txt
    python benchmarks/against_jax.py --case 1 --case 7
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import _alone as alone
import torch
from _cases import BESIDE_JAX
from _peak import Peak, lanes
from _report import HEADINGS, Row, markdown, text

import downslope as ds

ALONE = {
    8: alone.known_problem,
    9: alone.compiling,
    10: alone.many_runs,
    11: alone.least_squares,
    12: alone.two_threads,
}
CASES = (*BESIDE_JAX, *ALONE)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="fused", help="ours: fused (the default), stacked …")
    parser.add_argument(
        "--case", type=int, action="append", choices=CASES, help="only this one; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; goals are not judged")
    parser.add_argument("--repeats", type=int, default=5, help="measurements a side (default 5)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    return parser.parse_args(given)


def machine() -> str:
    """The machine, the versions and the peak, as a sentence or two."""
    names = ("downslope", "torch", "llvmlite", "jax")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    rates = {count: Peak().rate(count) / 1e9 for count in sorted({1, torch.get_num_threads()})}
    peaks = ", ".join(f"{rate:.0f} on {count}" for count, rate in rates.items())
    return (
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}. "
        f"{torch.get_num_threads()} threads. Float32 multiply-adds of a bare kernel "
        f"({lanes()} lanes), thousand millions a second by threads: {peaks}."
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measured(number: int, engine: str, quick: bool, repeats: int) -> list[Row]:
    """The lines of a case."""
    if number in ALONE:
        found = ALONE[number](engine, quick, repeats)
        return found if isinstance(found, list) else [found]
    try:
        import jax  # noqa: F401
    except ImportError:
        raise SystemExit(
            "JAX is not installed: pip install -r benchmarks/requirements.txt"
        ) from None
    from _beside_jax import compared

    return [compared(number, engine, quick, repeats)]


def main() -> None:
    options = arguments()
    said = machine()
    print(said)
    print(f"engine {options.engine}, medians of {options.repeats}", flush=True)
    print(" | ".join(HEADINGS), flush=True)
    rows: list[Row] = []
    assert callable(ds.descend)  # imported now: downslope imports its parts when first named
    with tempfile.TemporaryDirectory() as folder:
        os.environ[alone.CACHE] = folder  # so that cold is cold
        for number in options.case or CASES:
            for row in measured(number, options.engine, options.quick, options.repeats):
                print(text(row, judged=not options.quick), flush=True)
                rows.append(row)
    if options.markdown is not None:
        table = markdown(rows, judged=not options.quick)
        options.markdown.write_text(f"{said}\n\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
