"""What a fresh process measures: ``python _fresh.py WHAT ENGINE RUNS`` prints one number or two.

first     the process's first call after imports, for a net of 301 parameters, and what torch's
          own traces take of it (seconds)
second    the same after a call for another net, so that torch's tracing has been imported
cached    the same again; run it where the folder of compiled programs has both nets
memory    the peak of memory in a call for RUNS runs of the straight line above what was there
          before it, and the size of its results (bytes)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _cases import line_one_by_one, net, rows
from torch import nn, optim

import downslope as ds


def compile_time(problem: ds.Problem, engine: str) -> float:
    """Seconds of a call that does next to nothing: 16 runs of one step."""
    start = time.perf_counter()
    ds.descend(
        problem, optim.SGD, lr=ds.log_range(1e-3, 1e-2, 16), steps=1, engine=engine,
        progress=False,
    )  # fmt: skip
    return time.perf_counter() - start


def problem_of(*sizes: int) -> ds.Problem:
    return ds.Problem.from_model(net(nn.Tanh, *sizes), *rows(64, sizes[0]), loss=nn.MSELoss())


@contextmanager
def traces() -> Iterator[list[float]]:
    """Seconds of each of torch's traces meanwhile."""
    from downslope.engines.fused import trace

    make_fx, took = trace.make_fx, []

    def timed(*given: Any, **named: Any) -> Callable[..., Any]:
        traced = make_fx(*given, **named)

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            made = traced(*arguments)
            took.append(time.perf_counter() - start)
            return made

        return call

    trace.make_fx = timed
    yield took
    trace.make_fx = make_fx


def status_bytes(field: str) -> int:
    """VmHWM (the peak) or VmRSS of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def memory(engine: str, count: int) -> tuple[int, int]:
    line_one_by_one(False, 1000).ours(engine)  # imports, tracing, compiling
    case = line_one_by_one(False, count)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_bytes("VmRSS")
    runs = case.ours(engine)
    above = status_bytes("VmHWM") - before
    arrays = (runs.status, runs.first_bad_step, runs.steps_done, runs.steps, runs.loss)
    tensors = runs.parameters.values()
    results = sum(a.nbytes for a in arrays) + sum(t.nbytes for t in tensors)
    return above, results + int(runs.table.estimated_size())


def main(what: str, engine: str, count: str) -> None:
    if what == "memory":
        print(json.dumps(memory(engine, int(count))))
        return
    assert callable(ds.descend)  # downslope imports its parts when they are first named
    if what != "first":
        compile_time(problem_of(2, 3, 1), engine)
    problem = problem_of(10, 25, 1)
    with traces() as traced:
        took = compile_time(problem, engine)
    print(json.dumps((took, sum(traced))))


if __name__ == "__main__":
    main(*sys.argv[1:])
