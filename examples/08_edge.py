"""The edge of stability: a network's curvature rises to 2 / rate, and stays there.

Run: python examples/08_edge.py [OUT_DIR]
"""

# %% [markdown]
# # The edge of stability
#
# On a bowl of curvature λ, descent with a rate above 2 / λ explodes. A network's loss has no one
# curvature: it changes as the parameters move. Cohen et al. (2021, arXiv 2103.00065) found that
# full-batch descent drives it *up*, step after step, until it has reached 2 / rate. There one
# would expect an explosion. Instead the curvature stops rising and hovers at that value; the loss
# no longer falls at every step, and yet it falls in the long run.
#
# A small tanh network shows all of it in a few seconds.

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim

import downslope as ds

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "edge")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## Problem
#
# 20 points on the Chebyshev polynomial T₅(x) = 16x⁵ − 20x³ + 5x, which wiggles five times; a
# network 1-10-10-1. Double precision, so that what we see is no matter of rounding. Three
# rates from one and the same start; the parameters are kept every 10 steps.

# %%
x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(-1, 1)
y = 16 * x**5 - 20 * x**3 + 5 * x


def network():
    layers = [nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1)]
    return nn.Sequential(*layers).double()


problem = ds.Problem.from_model(network, x, y, loss=nn.MSELoss())
rates = [0.05, 0.1, 0.2]
runs = ds.descend(problem, optim.SGD, lr=rates, steps=8000, every=10, keep=("loss", "parameters"))

# %% [markdown]
# ## How the loss is bent along the way
#
# `runs.curvature` measures the extreme curvatures at places along each run.

# %%
bent = runs.curvature(places=161)
print(f"{'rate':>5} {'2 / rate':>9}   largest curvature after 0, 1000, 2000 … steps")
for number, rate in enumerate(rates):
    mine = bent.filter((bent["run"] == number) & (bent["step"] % 1000 == 0))
    values = " ".join(f"{value:6.2f}" for value in mine["largest_curvature"])
    print(f"{rate:5} {2 / rate:9.2f}   {values}")

# %% [markdown]
# ## Pictures
#
# Dashed is 2 / rate. Dotted is the *least* curvature: where it lies below 0, the loss bends down.

# %%
show(runs.plot.sharpness(places=161), "sharpness")
show(runs.plot.losses(axis="step"), "losses")

# %% [markdown]
# ## What the loss does meanwhile
#
# Before the edge every record lies below the one before. At the edge the loss rises now and then:
# each rise is the steep direction swinging up, until the third-order terms of the loss push
# descent to a place that is less steep (Damian, Nichani and Lee 2022, arXiv 2209.15594: descent
# stabilises itself). So a loss that rises for a few steps is no reason to lower the rate.

# %%
for number, rate in enumerate(rates):
    mine = bent.filter(bent["run"] == number)
    near = mine["step"].to_numpy()[mine["largest_curvature"].to_numpy() >= 0.98 * 2 / rate]
    arrives = int(near[0]) if len(near) else int(runs.steps[number, -1]) + 1
    rises = runs.steps[number, 1:][np.diff(runs.loss[number]) > 0]
    late = mine.filter(mine["step"] >= 6000)["largest_curvature"] / (2 / rate)
    print(f"rate {rate}: comes within 2 % of 2 / rate after {arrives} steps;")
    print(
        f"    the loss rose {(rises < arrives).sum()} times before and {(rises >= arrives).sum()}"
        f" times since, from {runs.loss[number, 0]:.3f} to {runs.loss[number, -1]:.6f} in all;"
    )
    print(f"    curvature / (2 / rate) from step 6000 on: {late.min():.3f} to {late.max():.3f}")
for finding in runs.explain():
    print(finding)
