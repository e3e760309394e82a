"""One number rolls down x² - 4x + 5 at five learning rates; then a line, fitted in two ways.

What 0.7 and 1.0 do, which rate is best, and what becomes of a gradient that is wrong.
Run: python examples/02_function.py [OUT_DIR]
"""

# %% [markdown]
# # One number, five rates
#
# The function f(x) = x² − 4x + 5 has its minimum, 1, at x = 2. We start at x = 7, and descend at
# five learning rates. Then we fit a line in two ways: with a gradient written by hand, and with
# the one that torch finds by itself.

# %%
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.explain import stability

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "function")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## Five descents in one call
#
# (The article's caption names x² − 5x + 5; its derivative, 2x − 4, is that of x² − 4x + 5.)

# %%
bowl = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=torch.tensor(7.0).double())
rates = [0.1, 0.01, 0.3, 0.7, 1.0]
rolls = ds.descend(bowl, optim.SGD, lr=rates, steps=12, keep=("loss", "parameters"))
print("x and f(x) = x² - 4x + 5 after t steps, at five rates")
print("  t" + "".join(f"{f'lr {rate:g}':>20}" for rate in rates))
for t in range(13):
    print(f"{t:3}" + "".join(f"{r.path['x'][t]:11.6f}{r.loss[t]:9.5f}" for r in rolls))
show(rolls.plot.path(), "path")

# %% [markdown]
# ## Why: one factor says it all
#
# The slope of f is 2x − 4 = 2 (x − 2): its **curvature** λ is 2 everywhere. So an update turns the
# distance from the minimum, x − 2, into (1 − rate · 2) times itself. That one factor tells the
# whole story:
#
# - between 0 and 1: it comes closer from one side, slowly where the factor is near 1;
# - below 0: it overshoots to the other side; at −0.4 it still comes closer;
# - at −1 it swings for ever: 7, −3, 7, −3 …; beyond that it leaves.
# - at 0, it arrives in one step. That is the best rate: 1 / λ.

# %%
curvature = float(rolls[:1].curvature(places=2)["largest_curvature"][0])
print(f"curvature {curvature:.6f}: stable below a rate of {stability.threshold(curvature):g},")
best = stability.best_rate(curvature, curvature).rate
print(f"best at {best:g}")
print(f"{'rate':>6} {'factor':>8} {'measured':>9} {'steps to a thousandth':>22}  verdict")
more = ds.descend(bowl, optim.SGD, lr=[*rates, best, 1.02], steps=12, keep=("loss", "parameters"))
for run, finding in zip(more, more.explain(), strict=True):
    rate, away = run.row["lr"], run.path["x"] - 2
    factor = float(stability.signed_factor(rate, curvature))
    steps = stability.steps_to(1e-3, abs(factor))
    print(f"{rate:6g} {factor:8.2f} {away[1] / away[0]:9.2f} {steps:22.1f}  {finding.verdict}")

# %% [markdown]
# On a logarithmic axis every descent is a straight line, whose slope is its factor. Note that 0.3
# and 0.7 share one line: −0.4 and 0.4 shrink alike.

# %%
figure = Figure(figsize=(5.6, 3.8), layout="constrained")
axes = figure.subplots()
looks = {0.01: ("#0072B2", "o"), 0.1: ("#56B4E9", "s"), 0.3: ("#009E73", "^"),
         0.7: ("#E69F00", "v"), 1.0: ("#D55E00", "D"), 1.02: ("#000000", "x")}  # fmt: skip
for run in more:
    if run.row["lr"] in looks:
        colour, marker = looks[run.row["lr"]]
        axes.semilogy(
            run.steps, abs(run.path["x"] - 2), marker=marker, markersize=4, color=colour,
            linestyle=":" if run.row["lr"] == 0.7 else "-", label=f"rate {run.row['lr']:g}",
        )  # fmt: skip
axes.set(xlabel="Step (updates of x)", ylabel="Distance from the minimum, |x − 2|")
axes.grid(True, color="#E4E4E4")
figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
show(figure, "factors")

# %% [markdown]
# ## A line, by hand and by autograd
#
# Now ŷ = m x + c, from m = c = 0, on data for which the first gradient is the article's,
# (433.65, 18.26). A gradient written by hand is a function of x, y and the parameters; Downslope
# compares it with autograd's before it is trusted.

# %%
x = torch.linspace(-20, 20, 81, dtype=torch.float64)
y = 8 * torch.rand(81, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
y += -9.1297 - y.mean()
y += x * (-216.82425 - (x * y).mean()) / (x * x).mean()


def gradient(x, y, m, c):
    error = y - (m * x + c)
    return {"m": -2 * (x * error).mean(), "c": -2 * error.mean()}


zero = torch.tensor(0.0, dtype=x.dtype)
print("gradient at m = c = 0: ({m:.4f}, {c:.4f})".format(**gradient(x, y, zero, zero)))
data = {"X": x, "y": y, "loss": nn.MSELoss()}
by_hand = ds.Problem.from_function(lambda x, m, c: m * x + c, start={"m": zero, "c": zero}, **data)
both = {"line": torch.zeros(2, dtype=x.dtype)}
by_autograd = ds.Problem.from_function(lambda x, line: line[0] * x + line[1], start=both, **data)
asked = {"lr": [1e-4, 1e-2], "epochs": 6000, "every": 600, "keep": ("loss", "parameters")}
hand = ds.descend(by_hand, optim.SGD, gradient=gradient, **asked)
auto = ds.descend(by_autograd, optim.SGD, **asked)
print(f"{'epoch':>5}{'loss':>12}{'m':>11}{'c':>11}{'by autograd: m':>17}{'c':>11}   (lr 0.0001)")
for record, epoch in enumerate(hand[0].steps):
    m, c = (float(hand[0].path[name][record]) for name in ("m", "c"))
    line = auto[0].path["line"][record]
    print(f"{epoch:5}{hand.loss[0, record]:12.5f}{m:11.6f}{c:11.6f}{line[0]:17.6f}{line[1]:11.6f}")
print(f"lr 0.01: {hand[1].status} at step {hand[1].row['first_bad_step']}")
show(auto.plot.fit(), "line")
show(auto.plot.losses(), "line_losses")
show(auto[:1].plot.path(), "line_path")

# %% [markdown]
# ## Why c takes so long
#
# The bowl of this loss is a valley: in the direction of m it bends by 2 · (mean of x²), in that of
# c by 2. The rate that suits m is far too small for c. (Scaling x to a mean of x² near 1 would cure
# that.)

# %%
bent = auto[:1].curvature(places=2)
flat, steep = bent["least_curvature"][0], bent["largest_curvature"][0]
print(f"curvatures {steep:.2f} and {flat:.2f}: c takes {steep / flat:.0f} times as long as m")
print(f"stable below a rate of {stability.threshold(steep):.6f}: 0.0001 is, 0.01 is not")

# %% [markdown]
# ## A wrong gradient is refused
#
# The article's own loop computes its loss as (y − m x + c)²: the sign of c is wrong. Whoever
# derives the gradient of *that* gets one that is wrong for c everywhere, and right for m only where
# c = 0 (which is where we start: a look at the first number would not have shown it). Another
# of its functions returns a name that is nowhere defined. Both slips end in one sentence, before
# anything is computed.


# %%
def wrong_sign(x, y, m, c):
    error = y - m * x + c
    return {"m": -2 * (x * error).mean(), "c": 2 * error.mean()}


def undefined_name(x, y, m, c):
    return {"m": slope, "c": c}  # noqa: F821


for mistake in (wrong_sign, undefined_name):
    try:
        ds.descend(by_hand, optim.SGD, lr=1e-4, epochs=10, gradient=mistake)
    except ds.InputError as error:
        print(f"{mistake.__name__}: {error}")
