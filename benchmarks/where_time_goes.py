"""Where the fused engine's time goes: the figures behind docs/performance.md's reasons.

Prints, as medians: what a sample costs in case 1, in multiply-adds of a bare kernel; cases 1 and 3
with 1, 4 and 8 samples worked on together; how much of case 5's call is the program; and, from
fresh processes, what a first call and a cold program are made of, with and without garbage
collections meanwhile.

    python benchmarks/where_time_goes.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from _cases import Case, line_one_by_one, relu_net, two_rates
from _peak import Peak, lanes
from _timing import seconds

TIMES = 5


def median(call: Callable[[], object]) -> float:
    call()
    return statistics.median(seconds(call) for _ in range(TIMES))


@contextmanager
def timed(module: Any, name: str, into: dict[str, float]) -> Iterator[None]:
    """Seconds in a function of a module, summed."""
    original = getattr(module, name)

    def call(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        made = original(*given, **named)
        into[name] = into.get(name, 0.0) + time.perf_counter() - start
        return made

    setattr(module, name, call)
    yield
    setattr(module, name, original)


def sample_cost() -> str:
    case, threads = relu_net(False), torch.get_num_threads()
    each = median(lambda: case.ours("fused")) * threads / (1024 * 2000 * 200) * lanes()
    return (
        f"case 1: {each * 1e9:.3g} ns a sample and vector, the time of "
        f"{each * Peak().rate(1) / lanes():.0f} bare multiply-adds"
    )


def together(make: Callable[[bool], Case], number: int) -> str:
    from downslope.engines.fused import graphs

    original, took = graphs.block_of, {}
    for block in (4, 1, 8):
        graphs.block_of = lambda *_, block=block: block
        case = make(False)  # a new problem: what it was traced for is remembered
        took[block] = median(lambda case=case: case.ours("fused"))
    graphs.block_of = original
    ratios = ", ".join(f"{block}: {took[block] / took[4]:.2f} ×" for block in (1, 8))
    return f"case {number}, samples together, against 4: {ratios}"


def program_share() -> str:
    from downslope.engines.fused.run import _Descent

    case = line_one_by_one(False)
    case.ours("fused")
    shares, calls = [], []
    for _ in range(TIMES):
        spent: dict[str, float] = {}
        with timed(_Descent, "_on_threads", spent):
            calls.append(seconds(lambda: case.ours("fused")))
        shares.append(spent["_on_threads"])
    call, program = statistics.median(calls), statistics.median(shares)
    return f"case 5: {program:.2f} s of {call:.2f} s are the program"


def first_calls(collects: bool) -> dict[str, float]:
    """In a fresh process: the first call, and a cold program's parts."""
    from _fresh import compile_time, problem_of

    from downslope.engines.fused import agreement, compile, coupling, graphs, prepare, trace

    assert agreement and coupling
    if collects:
        for module in (prepare, __import__("downslope.optimizers", fromlist=["uncollected"])):
            module.uncollected = _nothing
        prepare._material = prepare._material.__wrapped__
        prepare._program = prepare._program.__wrapped__
    found: dict[str, float] = {"first call": compile_time(problem_of(2, 3, 1), "fused")}
    parts: dict[str, float] = {}
    with (
        timed(trace, "_made", parts), timed(graphs, "is_mean", parts),
        timed(graphs, "agrees", parts), timed(prepare, "written", parts),
        timed(compile, "compiled", parts), timed(compile, "_link", parts),
    ):  # fmt: skip
        found["cold"] = compile_time(problem_of(10, 25, 1), "fused")
    return {**found, **parts}


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def fresh(collects: bool) -> dict[str, float]:
    """Medians over processes, each with an empty folder of programs."""
    made = []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, __file__, "fresh", str(int(collects))],
                check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "DOWNSLOPE_CACHE": folder},
            )  # fmt: skip
        made.append(json.loads(done.stdout))
    return {name: statistics.median(one[name] for one in made) for name in made[0]}


def main() -> None:
    if sys.argv[1:2] == ["fresh"]:
        print(json.dumps(first_calls(sys.argv[2] == "1")))
        return
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    plain = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, torch._dynamo"], check=True)
    print(f"importing torch's compiler: {time.perf_counter() - start - plain:.2f} s", flush=True)
    names = {"_made": "torch's traces", "is_mean": "are samples independent",
             "agrees": "does the trace compute the same", "written": "writing the program",
             "compiled": "LLVM", "_link": "loading"}  # fmt: skip
    for collects, how in ((False, "as it is"), (True, "with garbage collections")):
        told = ", ".join(f"{names.get(n, n)} {t:.3f} s" for n, t in fresh(collects).items())
        print(f"{how}: {told}", flush=True)
    print(program_share(), flush=True)
    print(sample_cost(), flush=True)
    print(together(relu_net, 1), flush=True)
    print(together(two_rates, 3), flush=True)


if __name__ == "__main__":
    main()
