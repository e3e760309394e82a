"""Cases 1 to 7: ours and JAX in one process, in turn, and that both found the same losses."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import _jax_side as jax_side
import jax
import numpy as np
import torch
from _cases import BESIDE_JAX, Case
from _peak import Peak
from _report import Goal, Row, warm_and_cold
from _timing import OthersLoad, in_turn, median_ratio, seconds

import downslope as ds

LOOP_STEPS = 300
"""Steps of the plain torch loop that are timed; its time is proportional to them."""


class JaxSide:
    """A case's best program for a number of callers: calibrated, cold-started, ready to repeat."""

    def __init__(self, case: Case, callers: int, writings: tuple[str, ...] = ()) -> None:
        self.case, self.callers = case, callers
        self.shared = jax.device_put(case.shared)  # once, outside of all times
        name, given = case.jax
        make = getattr(jax_side, name)
        short = max(20, case.steps // 10)

        def build(steps: int) -> Callable[[str, int], jax_side.Program]:
            return lambda writing, unroll: make(*given, steps, writing, unroll)

        self.build = build(case.steps)
        self.way = jax_side.calibrated(
            build(short), writings or case.writings, case.unrolls, case.inputs, self.shared,
            callers,
        )  # fmt: skip
        jax.clear_caches()
        self.cold = seconds(self.first)

    def first(self) -> None:
        """Cut, traced, compiled and carried out."""
        self.program = self.build(self.way.writing, self.way.unroll)
        self.parts = jax_side.chunked(self.case.inputs(self.way.writing), self.way.chunk)
        self()

    def __call__(self) -> Any:
        return jax_side.carry_out(self.program, self.parts, self.shared, self.callers)

    def losses(self) -> np.ndarray[Any, Any]:
        """Final losses in our order."""
        found = jax_side.losses(self())
        return found.T.ravel() if self.case.across else found

    def described(self, times: list[float]) -> str:
        unit = " seeds" if self.case.across else ""
        return f"{warm_and_cold(times, self.cold)}, {self.way}{unit}"


def differences(ours: ds.Runs, theirs: np.ndarray[Any, Any]) -> str:
    """The largest relative difference of final losses over the runs that stay finite in both."""
    own = ours.table["final_loss"].to_numpy().astype(np.float64)
    both = np.isfinite(own) & np.isfinite(theirs)
    if not both.any():
        return "no run is finite on both sides"
    relative = np.abs(own[both] - theirs[both]) / np.abs(theirs[both])
    lost = "" if both.all() else f", {np.count_nonzero(~both):,} runs not finite"
    return f"losses differ by {relative.max():.0e} at most (median {np.median(relative):.0e}){lost}"


def compared(number: int, engine: str, quick: bool, repeats: int) -> Row:
    """A row of the table.

    JAX is measured more than once, each in its own best way: "JAX" hands chunk after chunk to XLA
    from one thread, in the fastest of all writings, and is what is judged; "JAX, N callers" hands
    the chunks out to as many Python threads as torch has; "JAX, x @ w" is a layer as most people
    write it. Where samples are shuffled, JAX draws the orders itself, as ours does; "JAX, orders
    given" has them made outside of its time, and is compared with ours run by run.
    """
    case = BESIDE_JAX[number](quick)
    callers = torch.get_num_threads()
    cold = seconds(lambda: case.ours(engine))
    plain = JaxSide(case, 1)
    sides: dict[str, Callable[[], object]] = {"ours": lambda: case.ours(engine), "jax": plain}
    others = {}
    if callers > 1 and case.runs > 1 and "orders given" not in case.also:
        others[f"JAX, {callers} callers"] = JaxSide(case, callers)
    for writing in case.also:
        others[f"JAX, {writing}"] = JaxSide(case, 1, (writing,))
    sides |= others
    if case.loop_goal:
        sides["loop"] = lambda: torch_loop(case)
    if case.multiply_adds:
        peak = Peak()
        sides["peak"] = lambda: peak.work(callers)
    load = OthersLoad()
    times = in_turn(sides, repeats)
    others_load = load.share()
    goals = [Goal(median_ratio(times, "jax", "ours"), case.goal, "× JAX")]
    peers = [f"JAX {plain.described(times['jax'])}"]
    same = others.get("JAX, orders given", plain)
    notes = [differences(case.ours(engine), same.losses())]
    for name, side in others.items():
        peers.append(f"{name} {side.described(times[name])}")
        notes.append(f"{median_ratio(times, name, 'ours'):.3g} × {name}")
    if case.loop_goal:
        longer = case.runs * case.steps / LOOP_STEPS
        goals.append(
            Goal(longer * median_ratio(times, "loop", "ours"), case.loop_goal, "× torch loop")
        )
        step = statistics.median(times["loop"]) / LOOP_STEPS
        peers.append(f"torch loop {step * 1e6:.3g} µs a step")
    if case.multiply_adds:
        share = case.multiply_adds / peak.multiply_adds(callers)
        share *= median_ratio(times, "peak", "ours") * 100
        goals.append(Goal(share, 40.0, "% of the multiply-add peak"))
        each = statistics.median(times["ours"]) / case.runs / case.steps
        notes.append(f"{each * 1e6:.3g} µs a run and step")
    return Row(
        number, case.title, warm_and_cold(times["ours"], cold), "; ".join(peers), tuple(goals),
        "; ".join(notes), others_load,
    )  # fmt: skip


def torch_loop(case: Case) -> None:
    """One run on one thread, where steps of this size are fastest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    case.torch_loop(LOOP_STEPS)
    torch.set_num_threads(threads)
