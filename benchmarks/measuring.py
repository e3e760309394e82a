"""What measuring curvature along the way costs: descents with and without, in turn.

Five places a run (the start, three between, the end), 32 runs of 1,000 updates of small problems,
in each engine. The runs must be the same to the bit with and without. At most 1.5 times the
descent alone is the goal, for engines that take torch's steps; a compiled descent is often faster
than a single Hessian, and what it costs there is printed, too.
"""

from __future__ import annotations

import platform

import numpy as np
import torch
from _timing import OthersLoad, in_turn, median_ratio, seconds
from torch import nn, optim

import downslope as ds

STEPS, RUNS, REPEATS = 1_000, 32, 5


def problems() -> dict[str, ds.Problem]:
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    wide = torch.randn(256, 8, generator=generator)
    labels = (wide[:, :1] + torch.randn(256, 1, generator=generator) > 0).float()
    torch.manual_seed(0)
    tanh = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    return {
        "line, 2 parameters": ds.Problem.from_model(nn.Linear(1, 1), x, 2 * x, loss=nn.MSELoss()),
        "tanh 1-16-1, 49": ds.Problem.from_model(tanh, x, (3 * x).sin(), loss=nn.MSELoss()),
        "logistic, 9": ds.Problem.from_model(
            nn.Linear(8, 1), wide, labels, loss=nn.BCEWithLogitsLoss()
        ),
    }


def main() -> None:
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{RUNS} runs of {STEPS:,} updates (looped: 4 runs), 5 places each; medians of "
          f"{REPEATS} turns")  # fmt: skip
    load = OthersLoad()
    for name, problem in problems().items():
        for engine in ("looped", "stacked", "fused"):
            rates = ds.log_range(1e-3, 0.1, 4 if engine == "looped" else RUNS)

            def descend(keep: tuple[str, ...]) -> ds.Runs:
                return ds.descend(
                    problem, optim.SGD, lr=rates, steps=STEPS, every=100, keep=keep,  # noqa: B023
                    engine=engine, progress=False,  # noqa: B023
                )  # fmt: skip

            def measured() -> ds.Runs:
                runs = descend(("loss", "parameters"))
                runs.curvature(5)
                return runs

            plain, with_it = descend(("loss",)), measured()
            assert np.array_equal(plain.loss, with_it.loss, equal_nan=True)
            for key, value in plain.parameters.items():
                assert torch.equal(value, with_it.parameters[key])
            times = in_turn(
                {"with": measured, "without": lambda: descend(("loss",))},
                REPEATS,
            )
            ratio = median_ratio(times, "with", "without")
            alone = 1e3 * float(np.median(times["without"]))
            goal = (
                ""
                if engine == "fused"
                else f"  (goal <= 1.5: {'met' if ratio <= 1.5 else 'missed'})"
            )
            print(f"{name:20} {engine:8} {alone:8.1f} ms alone, {ratio:5.2f} times with{goal}")
    explaining()
    print(f"others took {load.share():.0%} of the machine meanwhile")


def explaining() -> None:
    """How long it takes to explain many runs, a second time in a process."""
    some = problems()
    for name, problem, rates, batches in (
        ("line, 2 parameters", some["line, 2 parameters"], 500, [1, "full"]),
        ("tanh 1-16-1, 49", some["tanh 1-16-1, 49"], 100, [16, "full"]),
    ):
        runs = ds.descend(
            problem, optim.SGD, lr=ds.log_range(1e-4, 1, rates), batch_size=batches, epochs=20,
            progress=False,
        )  # fmt: skip
        runs.explain()
        took = np.median([seconds(runs.explain) for _ in range(3)])
        print(f"{name:20} {len(runs):,} runs explained in {took:.1f} s")


if __name__ == "__main__":
    main()
