"""One number rolls down x² - 4x + 5 at five learning rates; then a line, fitted in two ways.

The gradient of the line is written by hand first, and left to autograd after that: the numbers
are the same. Run: python examples/02_function.py [OUT_DIR]
"""

import sys
from pathlib import Path

import torch
from torch import nn, optim

import downslope as ds

out = Path(sys.argv[1] if len(sys.argv) > 1 else "function")
out.mkdir(parents=True, exist_ok=True)

# (The article's caption names x² - 5x + 5; its derivative 2x - 4 is that of x² - 4x + 5.)
bowl = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=torch.tensor(7.0).double())
rates = [0.1, 0.01, 0.3, 0.7, 1.0]
rolls = ds.descend(bowl, optim.SGD, lr=rates, steps=12, keep=("loss", "parameters"))
print("x and f(x) = x² - 4x + 5 after t steps, at five rates")
print("  t" + "".join(f"{f'lr {rate:g}':>20}" for rate in rates))
for t in range(13):
    print(f"{t:3}" + "".join(f"{r.path['x'][t]:11.6f}{r.loss[t]:9.5f}" for r in rolls))

# A line y = m x + c from m = c = 0, on data for which the first gradient is (433.65, 18.26).
x = torch.linspace(-20, 20, 81, dtype=torch.float64)
y = 8 * torch.rand(81, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
y += -9.1297 - y.mean()
y += x * (-216.82425 - (x * y).mean()) / (x * x).mean()


def gradient(x, y, m, c):
    """The article's loss has + c; such a slip is found here, by comparison with autograd."""
    error = y - (m * x + c)
    return {"m": -2 * (x * error).mean(), "c": -2 * error.mean()}


zero = torch.tensor(0.0, dtype=x.dtype)
print("\ngradient at m = c = 0: ({m:.4f}, {c:.4f})".format(**gradient(x, y, zero, zero)))
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
# The curvatures are 2 mean x² = 273 and 2: at the rate that suits m, c takes 137 times as long.
print(f"lr 0.01: {hand[1].status} at step {hand[1].row['first_bad_step']}")
pictures = {"path": rolls.plot.path(), "line": auto.plot.fit(), "line_losses": auto.plot.losses()}
for name, figure in {**pictures, "line_path": auto.plot.path()}.items():
    figure.savefig(out / f"{name}.png")
    print("wrote", out / f"{name}.png")
