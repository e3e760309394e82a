"""Momentum's best value on a narrow valley, and what too little and too much of it do.

Run: python examples/07_momentum.py [OUT_DIR]
"""

# %% [markdown]
# # Momentum on a narrow valley
#
# f(x, y) = (x² + 100 y²) / 2 is a valley a hundred times as steep across as along. Its **condition
# number** κ is 100. The rate must suit the steep direction, so plain descent creeps along the flat
# one. Momentum helps, and on such a bowl theory says exactly which value is best.

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from torch import optim

import downslope as ds
from downslope.explain import stability

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "momentum")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %%
def valley(x, y):
    return 0.5 * (x**2 + 100 * y**2)


start = {"x": torch.tensor(1.0).double(), "y": torch.tensor(0.05).double()}
problem = ds.Problem.from_function(valley, start=start)

# %% [markdown]
# ## The best settings, by theory
#
# With curvatures from m to L: plain descent is fastest at 2 / (m + L), and leaves
# (κ − 1) / (κ + 1) of the error at each step. With momentum the best rate is 4 / (√L + √m)², the
# best momentum ((√κ − 1) / (√κ + 1))², and what is left is the square root of that (Polyak, 1964).
# In effect κ is replaced by its square root.

# %%
bent = ds.descend(problem, optim.SGD, lr=0.01, steps=1, keep=("loss", "parameters")).curvature(2)
least, largest = bent["least_curvature"][0], bent["largest_curvature"][0]
plain = stability.best_rate(least, largest)
heavy = stability.best_heavy_ball(least, largest)
print(f"curvatures {least:.6g} and {largest:.6g}")
print(f"{'':14}{'rate':>9} {'momentum':>9} {'left at a step':>15} {'steps to a millionth':>21}")
for name, best in {"plain descent": plain, "with momentum": heavy}.items():
    steps = stability.steps_to(1e-6, best.factor)
    print(f"{name:14}{best.rate:9.6f} {best.momentum:9.6f} {best.factor:15.6f} {steps:21.1f}")

# %% [markdown]
# ## Four descents
#
# The best without momentum; the best with it; and that rate with too little and too much.

# %%
settings = [
    {"lr": plain.rate, "momentum": 0.0},
    {"lr": heavy.rate, "momentum": heavy.momentum},
    {"lr": plain.rate, "momentum": 0.3},
    {"lr": heavy.rate, "momentum": 0.95},
]
four = ds.descend(problem, ds.Grid.of(optim.SGD, settings), steps=150, keep=("loss", "parameters"))
for run, finding in zip(four, four.explain(), strict=True):
    rate, momentum = run.row["lr"], run.row["momentum"]
    both = stability.contraction(rate, [least, largest], momentum=momentum)
    left = (run.loss[150] / run.loss[100]) ** (1 / 100)  # the loss is a square: half the exponent
    print(f"lr {rate:.4f}, momentum {momentum:.3f}: {finding.verdict}")
    print(f"    theory leaves {max(both):.4f} of the error at a step; measured {left:.4f}")
show(four.plot.losses(axis="step"), "losses")
show(four.plot.path(), "path")

# %% [markdown]
# ## The whole map
#
# 60 rates and 50 values of momentum, 100 steps each. `plot.map` draws any two settings, and rings
# the best run; we draw theory onto it. The black line is the limit of stability, rate
# = 2 (1 + momentum) / L, beyond which runs diverge. The star is the theory's best. Note how far
# down the deep valley of this map lies from "no momentum", and how the limit itself moves to
# larger rates.

# %%
rates = ds.log_range(0.002, 0.06, 60)
momenta = np.linspace(0, 0.98, 50)
sweep = ds.descend(problem, optim.SGD, lr=rates, momentum=momenta, steps=100, every=100)
figure = sweep.plot.map("lr", "momentum")
axes = figure.axes[0]
limits = [float(stability.threshold(largest, momentum=momentum)) for momentum in momenta]
axes.plot(limits, momenta, color="black", linewidth=1.6, label="limit of stability")
axes.plot(heavy.rate, heavy.momentum, "*", color="#E69F00", markeredgecolor="black",
          markersize=13, linestyle="none", zorder=6, label="theory's best")  # fmt: skip
axes.plot(plain.rate, 0, "o", color="#E69F00", markeredgecolor="black", markersize=8,
          linestyle="none", clip_on=False, zorder=6, label="best without momentum")  # fmt: skip
axes.legend(loc="upper left", framealpha=0.9, fontsize=8)
show(figure, "map")
best = sweep.best.row
print(f"best of the {len(sweep):,}: rate {best['lr']:.4f}, momentum {best['momentum']:.2f},")
print(f"where theory says {heavy.rate:.4f} and {heavy.momentum:.4f}")
stable = np.array([best < limit for best, limit in zip(sweep.settings["lr"].to_numpy(),
                   np.tile(limits, len(rates)), strict=True)])  # fmt: skip
print(f"runs within the limit that diverged: {int((stable & sweep.diverged).sum())}")

# %% [markdown]
# The best run of the map may have a little more or less momentum than theory's best: theory speaks
# of the long run, and at its optimum two modes coincide, so that the error falls like t · √μᵗ: a
# bad start, which 100 steps still show.
