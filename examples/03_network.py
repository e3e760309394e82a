"""A network of ten hidden units learns a line, then a parabola; pictures show it at some stages.

Why the rate 0.05 is safe, and where it would break. Run: python examples/03_network.py [OUT_DIR]
"""

# %% [markdown]
# # A small network learns a line, then a parabola
#
# One number goes in, ten hidden units with ReLU, one number comes out. Full batches of 200 points,
# a rate of 0.05. We look at what the network says at some stages, and then at the question that
# every user of such a network has: why does 0.05 work, and what would another rate do?

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "network")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## Data and model

# %%
torch.manual_seed(0)
x = torch.linspace(-1, 1, 200).reshape(-1, 1)
tasks = {  # name: (targets, steps, steps between two records)
    "line": (2 * x + 0.5 * torch.rand(x.shape) + 5, 100, 20),
    "parabola": (x**2 + 0.2 * torch.rand(x.shape), 5000, 100),
}


def network():
    return nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))


def draw(axes, y, parameters, loss, step):
    """The data, and in red what the network with these parameters says."""
    model = network()
    model.load_state_dict(parameters)
    axes.plot(x, y, "o", markersize=2, color="#0072B2")
    axes.plot(x, model(x).detach(), linewidth=3, color="#E00000")
    axes.set(title=f"step {step}: Loss={loss:.4f}", xlabel="x", ylabel="y")
    axes.grid(True, color="#E4E4E4")


print(network())

# %% [markdown]
# ## Two descents, at some stages
#
# `keep=("loss", "parameters")` keeps where the network stood at every record, so that it can be
# drawn as it was then. `every=` says how many steps lie between two records.

# %%
found = {}
for name, (y, steps, every) in tasks.items():
    problem = ds.Problem.from_model(network, x, y, loss=nn.MSELoss())
    kept = ("loss", "parameters")
    runs = ds.descend(problem, optim.SGD, lr=0.05, steps=steps, every=every, keep=kept)
    run = found[name] = runs.best
    print(f"\n{name}\n{'step':>5} {'loss':>9}")
    for step, loss in zip(run.steps, run.loss, strict=True):
        print(f"{step:5} {loss:9.6f}")
    stages = Figure(figsize=(7.6, 4.8), layout="constrained")
    shown = [0, 1, 2, 3, 4, 5] if name == "line" else [0, 1, 3, 10, 25, 50]
    panels = stages.subplots(2, 3, sharex=True, sharey=True)
    for axes, record in zip(panels.ravel(), shown, strict=True):
        parameters = {key: values[record] for key, values in run.path.items()}
        draw(axes, y, parameters, run.loss[record], run.steps[record])
        axes.label_outer()
    end = Figure(figsize=(5.6, 4), layout="constrained")
    draw(end.subplots(), y, run.parameters, run.loss[-1], run.steps[-1])
    show(stages, f"{name}_stages")
    show(end, f"{name}_end")

# %% [markdown]
# ## Why 0.05 is safe
#
# A network's loss is no bowl: its curvature changes from place to place. But around each place it
# looks like one, and there the rule is the same: a step is stable while the rate is below
# 2 / (largest curvature). So we measure the largest curvature along the way, and compare it
# with 2 / rate. While it stays below that line, all is well.

# %%
for name, run in found.items():
    bent = run.runs.curvature(places=6)
    print(f"\n{name}: 2 / rate is {2 / 0.05:g}")
    print(f"{'after':>6} {'largest curvature':>18} {'rates stable there':>20}")
    for row in bent.iter_rows(named=True):
        largest = row["largest_curvature"]
        print(f"{row['step']:6} {largest:18.3f} {f'below {2 / largest:.3f}':>20}")
    print("Verdict:", run.explain())

# %% [markdown]
# ## Where it breaks
#
# So a rate four times as large should still do, for these places. We try 33 rates, each from five
# random starts, and mark the limit that was measured at 0.05.

# %%
y = tasks["parabola"][0]
problem = ds.Problem.from_model(network, x, y, loss=nn.MSELoss())
sweep = ds.descend(problem, optim.SGD, lr=ds.log_range(0.01, 3, 33), seed=range(5), steps=1000)
asked = {"seed": range(3), "steps": 1000, "every": 20, "keep": ("loss", "parameters")}
watched = ds.descend(problem, optim.SGD, lr=[0.05, 0.4], **asked)
bent = watched.curvature(places=26).join(watched.settings.select("run", "lr", "seed"), on="run")
limit = 2 / float(bent.filter(bent["lr"] == 0.05)["largest_curvature"].max())
constant = float(y.var(correction=0))
picture = sweep.plot.sensitivity()
axes = picture.axes[0]
axes.axvline(limit, color="black", linestyle=(0, (4, 3)), linewidth=1)
axes.axhline(constant, color="black", linestyle=":", linewidth=1)
axes.text(0.95 * limit, 0.85, "2 / curvature\nat rate 0.05", ha="right", va="top", fontsize=8,
          transform=axes.get_xaxis_transform())  # fmt: skip
axes.text(0.02, 1.05 * constant, "the best constant", va="bottom", fontsize=8,
          transform=axes.get_yaxis_transform())  # fmt: skip
show(picture, "parabola_sensitivity")
rates = np.unique(sweep.settings["lr"].to_numpy())
final = [np.median(np.nan_to_num(sweep.where(lr=r).score, nan=np.inf)) for r in rates]
lost = [rate for rate, loss in zip(rates, final, strict=True) if not loss < 0.9 * constant]
print(f"2 / (largest curvature met at rate 0.05): {limit:.3f}")
print(f"best rate of the 33: {rates[int(np.argmin(final))]:.3f}")
print(f"the median run learns nothing from a rate of {min(lost):.3f} on")

# %% [markdown]
# Two things are to be seen. Beyond the limit nothing bad happens at first: rates up to 0.5 do as
# well, or better. A network is no bowl. Where a step is too long for the place where it stands,
# descent is thrown about until it comes to a *flatter* place, and there the rate is small enough.
# The next picture shows that: at 0.4 the curvature falls below 2 / rate within the first steps.
# (Lewkowycz et al. 2020, arXiv 2003.02218, call it a catapult. The example `edge` shows what comes
# later: a curvature that grows back until it meets 2 / rate.)
#
# And where it fails, it does not always explode: ReLU units are thrown so far that they answer 0
# to everything (they are *dead*), and the network says the same number everywhere. Its loss is
# then what the best constant leaves, which is the variance of y.

# %%
show(watched.plot.sharpness(places=26), "parabola_sharpness")
ends = bent.filter((bent["lr"] == 0.4) & (bent["step"] == 1000))["largest_curvature"]
print("largest curvature at the end, at rate 0.4:", *(f"{value:.2f}" for value in ends))
print(f"2 / 0.4 = {2 / 0.4:g}")
