"""Learning rate against batch size on a linear regression: what is stable, and what theory says.

Run: python examples/06_rates_and_batches.py [OUT_DIR]
"""

# %% [markdown]
# # Rate against batch size
#
# The larger the batch, the larger the rate that it bears. How much larger? For a linear regression
# theory has the whole answer, and here it stands beside 4,860 descents.

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.explain import minibatches, stability

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "rates_and_batches")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## A regression, and all combinations
#
# 256 samples with four features, drawn at random; the targets have a little noise. Batches are
# drawn with replacement, so that theory is exact: each step's batch is independent of all others.

# %%
generator = torch.Generator().manual_seed(0)
x = torch.randn(256, 4, generator=generator, dtype=torch.float64)
truth = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=x.dtype)
y = x @ truth + 0.1 * torch.randn(256, generator=generator, dtype=x.dtype)
problem = ds.Problem.from_function(
    lambda x, w: x @ w, X=x, y=y, loss=nn.MSELoss(), start={"w": torch.zeros(4, dtype=x.dtype)}
)
sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
rates = ds.log_range(0.01, 2, 60)
grid = {"lr": rates, "batch_size": sizes, "order": "replacement", "seed": range(9), "steps": 600}
runs = ds.descend(problem, optim.SGD, every=600, **grid)
print(runs)

# %% [markdown]
# ## What theory says
#
# For each batch size b there are two limits. Below the **mean-square threshold** the squared
# distance from the best weights shrinks on average. The full batch's own limit, 2 / λ, is what it
# tends to as b grows. In between, 1 / threshold is very nearly a straight line in 1 / b:
# twice the samples, half the way to go. At the batch size called `critical` below, both matter
# alike.

# %%
hessians = (2 * x[:, :, None] * x[:, None, :]).numpy()
curvatures = np.linalg.eigvalsh(hessians.mean(0))
full = float(stability.threshold(curvatures[-1]))
thresholds = [minibatches.mean_square_threshold(hessians, b, replacement=True) for b in sizes]
critical = full / thresholds[0] - 1
print(f"curvatures of the mean loss: {', '.join(f'{value:.3f}' for value in curvatures)}")
print(f"threshold of the full batch without noise: {full:.4f}; critical batch size {critical:.1f}")


# %%
def share_lost(batch_size):
    """The share of the runs that end above their start, at each rate."""
    part = runs.where(batch_size=batch_size)
    lost = ~(part.table["final_loss"].to_numpy() < part.table["initial_loss"].to_numpy())
    return lost.reshape(len(rates), -1).mean(1)


def half_lost(batch_size):
    """The rate at which half of the runs are lost: between the last few and the first many."""
    shares = share_lost(batch_size)
    first = int(np.argmax(shares > 0.5))
    return float(np.sqrt(rates[first - 1] * rates[first]))


edges = [half_lost(size) for size in sizes]
print(f"{'batch':>6} {'threshold':>10} {'half are lost at':>17} {'ratio':>7}")
for size, threshold, edge in zip(sizes, thresholds, edges, strict=True):
    print(f"{size:6} {threshold:10.4f} {edge:17.4f} {edge / threshold:7.2f}")

# %% [markdown]
# ## The map
#
# Colour is the median **excess loss**: how far above the least possible loss the runs end, after
# 600 steps. Black is where half of the runs or more ended above their start, or diverged. The white
# line is the mean-square threshold. It is a limit *on average of squares*: few runs, growing fast,
# can carry such a mean, so that with small batches a typical run holds out somewhat beyond it. It
# is still the rate to stay below: the unlucky run is yours.
#
# Well inside the stable region a large rate still costs something. The loss does not sink below a
# floor of noise, which for small rates is (rate / 4 b) · tr N: N is the mean of the squared
# gradients gᵢ gᵢᵀ of single samples at the best weights. Twice the batch bears twice the rate
# for the same floor: the bands of colour run diagonally.

# %%
best_weights = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
least_loss = float(((x @ best_weights - y) ** 2).mean())
single_gradients = 2 * (x @ best_weights - y)[:, None] * x
noise = float((single_gradients**2).sum(1).mean())
print(f"least possible loss {least_loss:.6f}; tr N = {noise:.5f}")
print(f"{'rate':>7} {'batch':>6} {'excess loss':>12} {'(rate / 4 b) tr N':>18}")
longer = {**grid, "lr": [0.01, 0.02], "batch_size": [1, 8, 64], "seed": range(50), "steps": 2000}
floors = ds.descend(problem, optim.SGD, every=2000, **longer)
for rate in (0.01, 0.02):
    for size in (1, 8, 64):
        final = floors.where(lr=rate, batch_size=size).table["final_loss"].mean()
        print(f"{rate:7g} {size:6} {final - least_loss:12.3e} {rate / (4 * size) * noise:18.3e}")


# %%
def draw_map(runs):
    """Median excess loss by rate and batch size; black where half of the runs are lost."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    final = runs.table["final_loss"].to_numpy()
    final = np.where(final < runs.table["initial_loss"].to_numpy(), final, np.inf)
    # The settings come in the order in which they were given: rates, sizes, seeds.
    table = np.median(final.reshape(len(rates), len(sizes), -1), axis=2)
    shown = np.ma.masked_invalid(table.T - least_loss)
    drawn = axes.pcolormesh(
        rates, sizes, shown, norm=LogNorm(1e-6, 1), cmap="cividis", shading="nearest"
    )
    axes.set(xscale="log", facecolor="black")
    axes.set_yscale("log", base=2)
    axes.set_yticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="Learning rate", ylabel="Batch size (samples)")
    figure.colorbar(drawn, label="Median excess mean squared error", extend="both")
    return figure


figure = draw_map(runs)
figure.axes[0].plot(thresholds, sizes, color="white", linewidth=2, label="mean-square threshold")
figure.axes[0].axvline(full, color="white", linewidth=1.2, linestyle="--", label="2 / λ")
figure.axes[0].legend(loc="lower right", labelcolor="white", facecolor="black", fontsize=8)
show(figure, "map")
show(runs.where(batch_size=[1, 8, 256]).plot.sensitivity(), "sensitivity")
