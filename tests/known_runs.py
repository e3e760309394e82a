"""Runs whose verdict and cause are known by construction, from rules alone.

Each rule states in words why its runs must come out so: from closed forms of quadratics, from the
exact second-moment recursion, from data with a planted fault, or from a Hessian made by autograd
here. None of the package's theory is used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from math import ceil, log, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn, optim

import downslope as ds

SHIFT = 0
"""Added to every seed: another number makes another set by the same rules."""


def draws(*key):
    return np.random.default_rng([SHIFT, *key])


@dataclass(frozen=True)
class Case:
    """One run: what it is asked, and what it must be found to be."""

    name: str
    problem: Any
    settings: dict[str, Any]
    verdict: str
    cause: str
    optimizer: Any = optim.SGD


# -- quadratics of chosen spectrum -----------------------------------------------------------------


@cache
def quadratic(seed, least, largest, size, level=False):
    """½ (θ − θ*)ᵀ H (θ − θ*) + 1; at the start every direction of H is as far from the minimum as
    the others, or (level) has as much of the loss."""
    rng = draws(1, seed, size)
    values = np.geomspace(least, largest, size)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    hessian = torch.tensor(turn @ np.diag(values) @ turn.T)
    middle = torch.tensor(rng.normal(size=size))
    far = np.sqrt(largest / values) if level else np.ones(size)
    start = middle + torch.tensor(turn @ (far * rng.choice([-1.0, 1.0], size)))

    def loss(x):
        away = x - middle
        return 0.5 * away @ hessian @ away + 1.0

    return ds.Problem.from_function(loss, start=start)


def steps_for(factor, shrink):
    """Updates in which an error shrinks by `shrink`."""
    return max(4, ceil(log(1 / shrink) / -log(factor)))


def on_quadratics():
    """Plain descent multiplies the error along λ by 1 − ηλ; heavy ball and Nesterov by the roots of
    their characteristic polynomials."""
    for seed in range(6):
        size = 2 + seed % 3
        span = [2.0, 5.0, 12.0, 30.0, 8.0, 20.0][seed]
        largest = [1.0, 4.0, 50.0, 0.2, 1000.0, 10.0][seed]
        problem, least = quadratic(seed, largest / span, largest, size), largest / span
        slow = 1 - 1 / span
        yield Case(
            "done",
            problem,
            {"lr": 1 / largest, "steps": steps_for(slow, 1e-5)},
            "converged",
            "minimum",
        )
        yield Case(
            "not yet",
            problem,
            {"lr": 1 / largest, "steps": steps_for(slow, 0.1)},
            "converging",
            "budget-too-short",
        )
        tiny = 0.005 / largest  # one part in two hundred of the steepest error an update
        yield Case("tiny rate", problem, {"lr": tiny, "steps": 40}, "creeping", "rate-too-small")
        near = [0.01, 0.03, 0.02, 0.04, 0.015, 0.025][seed]
        done = max(steps_for(max(abs(1 - 2 * least / largest), 0.3), 1e-3), 12)
        yield Case(
            "near 2 / λ",
            problem,
            {"lr": (2 - near) / largest, "steps": min(ceil(1.5 / near), 2 * done)},
            "ringing",
            "rate-near-threshold",
        )
        yield Case(
            "at 2 / λ",
            problem,
            {"lr": 2 / largest, "steps": 4 * done},
            "cycling",
            "rate-at-threshold",
        )
        above = [2.05, 2.5, 3.0, 2.2, 4.0, 8.0][seed]
        yield Case(
            "above 2 / λ",
            problem,
            {"lr": above / largest, "steps": 3000},
            "diverged",
            "rate-above-threshold",
        )
        yield Case(
            "above, and short",
            problem,
            {"lr": 2.1 / largest, "steps": 25},
            "diverged",
            "rate-above-threshold",
        )
        momentum = [0.5, 0.9, 0.8, 0.95, 0.9, 0.6][seed]
        limit = 2 * (1 + momentum) / largest
        yield Case(
            "heavy ball above",
            problem,
            {"lr": 1.2 * limit, "momentum": momentum, "steps": 3000},
            "diverged",
            "momentum-above-threshold",
        )
        ahead = (2 + 2 * momentum) / (1 + 2 * momentum)
        yield Case(
            "Nesterov between",
            problem,
            {
                "lr": (0.3 * ahead + 0.7 * 2) / largest,
                "momentum": momentum,
                "nesterov": True,
                "steps": 4000,
            },
            "diverged",
            "momentum-above-threshold",
        )
        # √0.98 an update: a hundred updates leave a third of it.
        yield Case(
            "much momentum",
            problem,
            {"lr": 0.3 / largest, "momentum": 0.98, "steps": 120},
            "ringing",
            "momentum-rings",
        )
        clip = 0.5 * largest
        yield Case(
            "clipped",
            problem,
            {"lr": 3 / largest, "clip_norm": clip, "steps": 400},
            "cycling",
            "clipping-cycle",
        )
        best = ((sqrt(span) - 1) / (sqrt(span) + 1)) ** 2
        rate = 4 / (sqrt(largest) + sqrt(least)) ** 2
        yield Case(
            "best heavy ball",
            problem,
            {"lr": rate, "momentum": best, "steps": 3 * steps_for(max(sqrt(best), 0.3), 1e-5) + 20},
            "converged",
            "minimum",
        )
    for seed in range(8):  # turned, so that no scale of a parameter is to blame
        span = [1e4, 1e5, 3e4, 1e6, 1e4, 1e5, 2e4, 5e4][seed]
        problem = quadratic(100 + seed, 10 / span, 10.0, 2 + seed % 3, level=True)
        yield Case(
            "long valley",
            problem,
            {"lr": 0.1, "steps": 150 + 50 * seed},
            "creeping",
            "ill-conditioned",
        )


# -- functions -------------------------------------------------------------------------------------


def on_functions():
    """Functions of one or two variables whose descents can be followed by hand."""
    for start, power in ((0.0, 4), (0.0, 6), (0.0, 8), (0.0, 10)):
        problem = ds.Problem.from_function(lambda x, p=power: x**p - x**2, start=start)
        yield Case("hilltop", problem, {"lr": 0.1, "steps": 50}, "stuck", "stationary-start")
    for scale in (1.0, 3.0):
        problem = ds.Problem.from_function(
            lambda x, y, s=scale: s * x**2 - y**2 + y**4, start={"x": 1.0, "y": 1e-18}
        )
        yield Case("saddle", problem, {"lr": 0.1 / scale, "steps": 100}, "plateau", "saddle")
    for slope, start in ((1.0, 5.3), (3.0, -2.2), (0.5, 1.7), (2.0, 0.77), (10.0, -8.1)):
        problem = ds.Problem.from_function(lambda x, s=slope: s * abs(x), start=start)
        yield Case("kink", problem, {"lr": 0.3 / slope, "steps": 200}, "cycling", "kink")
    for start in (2.0, -1.0):
        problem = ds.Problem.from_function(lambda x: (x - 2) ** 2 + 1, start=start)
        if start == 2.0:
            yield Case("at the minimum", problem, {"lr": 0.1, "steps": 20}, "converged", "minimum")
        yield Case(
            "Adam, tiny rate",
            problem,
            {"lr": 1e-5, "steps": 100},
            "converged" if start == 2.0 else "creeping",
            "minimum" if start == 2.0 else "rate-too-small",
            optim.Adam,
        )
    # (u · v)² / 2n with one sample: λ at the start is (|u|² + |v|²) / n; between 2 / λ and 4 / λ
    # the product grows first, until u and v have shrunk (Lewkowycz et al. 2020).
    for seed in range(8):
        rng = draws(3, seed)
        n = 50
        u, v = (torch.tensor(rng.normal(size=n)) for _ in range(2))
        sharp = float((u @ u + v @ v) / n)
        problem = ds.Problem.from_function(
            lambda u, v, n=n: (u @ v) ** 2 / (2 * n), start={"u": u, "v": v}
        )
        times = [2.4, 2.6, 2.8, 3.0, 3.2, 2.5, 2.7, 3.1][seed]
        yield Case(
            "catapult", problem, {"lr": times / sharp, "steps": 400}, "catapult", "start-too-sharp"
        )


# -- regressions -----------------------------------------------------------------------------------


@cache
def regression(seed, rows=60, columns=2, noise=0.3, heavy=False):
    """Standard columns (or of heavy tails), a linear model without bias from 0."""
    rng = draws(7, seed)
    x = rng.standard_t(3, (rows, columns)) if heavy else rng.normal(size=(rows, columns))
    y = x @ rng.normal(size=columns) * 2 + noise * rng.normal(size=rows)
    return x, y, linear(x, y)


def linear(x, y, dtype=torch.float64):
    model = nn.Linear(x.shape[1], 1, bias=False, dtype=dtype)
    with torch.no_grad():
        model.weight.zero_()
    return ds.Problem.from_model(
        model, torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)[:, None],
        loss=nn.MSELoss(),
    )  # fmt: skip


def mean_square(x, rate, batch, momentum=0.0):
    """What E[M ⊗ M] of one update has for its largest eigenvalue, from all single samples' M and
    the mean, for batches of different samples drawn anew."""
    rows, size = x.shape
    hessians = 2 * x[:, :, None] * x[:, None]
    one = np.eye(size)

    def update(hessian):
        return np.block([[one - rate * hessian, -rate * momentum * one], [hessian, momentum * one]])

    share = (rows - batch) / (batch * (rows - 1))
    mean = update(hessians.mean(0))
    single = sum(np.kron(update(h), update(h)) for h in hessians) / rows
    total = (1 - share) * np.kron(mean, mean) + share * single
    return float(np.abs(np.linalg.eigvals(total)).max())


def edge_of_mean_square(x, batch, momentum=0.0):
    low, high = 1e-6, 10.0
    for _ in range(60):
        middle = sqrt(low * high)
        low, high = (middle, high) if mean_square(x, middle, batch, momentum) < 1 else (low, middle)
    return low


def epoch_in_order(x, rate):
    """Largest gain within an epoch of single samples in stored order, and the epoch's factor."""
    product, gain = np.eye(x.shape[1]), 1.0
    for row in x:
        product = (np.eye(x.shape[1]) - 2 * rate * np.outer(row, row)) @ product
        gain = max(gain, np.linalg.norm(product, 2))
    return gain, np.abs(np.linalg.eigvals(product)).max()


def on_regressions():
    for seed in range(8):
        x, _, problem = regression(seed)
        batch = [1, 2, 4, 1, 8, 2, 1, 4][seed]
        edge = edge_of_mean_square(x, batch)
        yield Case(
            "noise",
            problem,
            {"lr": 0.4 * edge, "batch_size": batch, "epochs": 240},
            "noise-floor",
            "gradient-noise",
        )
        yield Case(
            "noise, less",
            problem,
            {"lr": 0.2 * edge, "batch_size": batch, "epochs": 240},
            "noise-floor",
            "gradient-noise",
        )
        curvature = np.linalg.eigvalsh(2 * x.T @ x / len(x))
        yield Case(
            "all rows", problem, {"lr": 1 / curvature[-1], "epochs": 200}, "converged", "minimum"
        )
        # The rate of plain descent that is safe by half, with a momentum that makes it unsafe.
        momentum = 0.95
        fast = 0.5 * edge_of_mean_square(x, 1)
        if mean_square(x, fast, 1, momentum) > 1.02 and fast < 1.9 * 1.95 / curvature[-1]:
            yield Case(
                "momentum in batches",
                problem,
                {
                    "lr": fast,
                    "momentum": momentum,
                    "batch_size": 1,
                    "epochs": 400,
                    "divergence": 1e4,
                },
                "diverged",
                "momentum-above-threshold",
            )
    for seed in range(8):  # a few rows far out: full batches can bear what single samples cannot
        x, _, problem = regression(20 + seed, heavy=True)
        full = 2 / np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1]
        edge = edge_of_mean_square(x, 1)
        rate = 0.95 * full
        if rate > 2.2 * edge:
            yield Case(
                "single samples",
                problem,
                {"lr": rate, "batch_size": 1, "epochs": 200, "divergence": 1e4},
                "diverged",
                "rate-above-sample-threshold",
            )
    # Orders in which an epoch shrinks errors that it first blows up: points along a line, in order.
    for seed, (far, rows, share) in enumerate(
        [(5, 100, 0.83), (3, 100, 0.7), (4, 80, 0.83), (8, 100, 0.83), (5, 60, 0.95), (5, 100, 0.7)]
    ):
        rng = draws(11, seed)
        x = np.linspace(-far, far, rows, endpoint=False)[:, None]
        x = np.hstack([x, np.ones_like(x)])
        rate = share * 2 / np.linalg.eigvalsh(2 * x.T @ x / rows)[-1]
        gain, radius = epoch_in_order(x, rate)
        assert gain > 1e5 and radius < 0.9
        y = x @ np.array([3.0, -1.0]) + 0.3 * rng.normal(size=rows)
        yield Case(
            "stored order",
            linear(x, y),
            {"lr": rate, "batch_size": 1, "order": "cyclic", "epochs": 10, "divergence": 1e3},
            "diverged",
            "fixed-order-amplification",
        )
    for seed in range(6):  # columns of very different size, independent of each other
        rng = draws(13, seed)
        x = rng.normal(size=(80, 3)) * np.array([1.0, 10.0 ** -(1 + seed % 2), 30.0])
        y = x @ (np.array([1.0, 1.0, 1.0]) / np.abs(x).mean(0)) + 0.1 * rng.normal(size=80)
        top = np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1]
        yield Case(
            "scales", linear(x, y), {"lr": 1 / top, "steps": 150}, "creeping", "feature-scales"
        )
    for seed in range(6):  # one column in the hundreds: a rate that fits standard columns explodes
        rng = draws(17, seed)
        x = rng.normal(size=(50, 3))
        x[:, seed % 3] *= [100.0, 300.0, 1000.0][seed // 2]
        y = x @ np.array([1.0, -1.0, 0.5]) + 0.1 * rng.normal(size=50)
        yield Case(
            "large column", linear(x, y), {"lr": 0.1, "steps": 200}, "diverged", "exploding-start"
        )


# -- faults of the data ----------------------------------------------------------------------------


def on_faulty_data():
    for seed in range(6):
        rng = draws(19, seed)
        x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
        bad = [np.nan, np.inf, -np.inf][seed % 3]
        if seed < 4:
            x[7 + seed, seed % 3] = bad
        else:
            y[11 + seed] = bad
        yield Case(
            "not finite", linear(x, y), {"lr": 0.1, "steps": 20}, "diverged", "non-finite-data"
        )
    for seed in range(6):
        rng = draws(23, seed)
        x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
        x[5 + seed, seed % 2] = 1e30  # its square overflows float32
        problem = linear(x, y, torch.float32)
        start = {"weight": torch.ones(1, 2)}
        yield Case(
            "overflow", problem, {"lr": 0.01, "steps": 20, "start": start}, "diverged", "overflow"
        )


# -- classifiers -----------------------------------------------------------------------------------


def on_classifiers():
    for seed in range(12):
        rng = draws(29, seed)
        x = rng.normal(size=(60, 2))
        side = x @ np.array([1.0, -0.5])
        apart = seed % 2 == 0
        if apart:
            x += 0.5 * np.sign(side)[:, None] * np.array([1.0, -0.5])
            y = (side > 0).astype(float)
        else:
            y = (side + 1.5 * rng.normal(size=60) > 0).astype(float)
        model = nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        problem = ds.Problem.from_model(
            model, torch.tensor(x), torch.tensor(y)[:, None], loss=nn.BCEWithLogitsLoss()
        )
        if apart:
            yield Case(
                "separable",
                problem,
                {"lr": [0.5, 2.0, 1.0][seed // 4], "steps": 300},
                "creeping",
                "separable-data",
            )
        else:
            yield Case("not separable", problem, {"lr": 1.0, "steps": 1500}, "converged", "minimum")


# -- small networks --------------------------------------------------------------------------------


def network(seed, activation, width=8, inputs=1, bias=True):
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed + SHIFT)
    model = nn.Sequential(nn.Linear(inputs, width), activation,
                          nn.Linear(width, 1, bias=bias)).double()  # fmt: skip
    torch.set_rng_state(torch_state)
    return model


def on_networks():
    for seed in range(6):
        rng = draws(31, seed)
        x = np.linspace(-1, 1, 30)[:, None]
        y = np.sin(3 * x) + 0.05 * rng.normal(size=x.shape)
        x, y = torch.tensor(x), torch.tensor(y)
        dead = network(seed, nn.ReLU(), bias=seed % 2 == 0)
        with torch.no_grad():
            dead[0].bias.fill_(-50.0)  # every unit is off for every row
        # With a bias behind them the mean is still learnt, and then nothing.
        yield Case(
            "dead",
            ds.Problem.from_model(dead, x, y + 1, loss=nn.MSELoss()),
            {"lr": 0.05, "steps": 400},
            "plateau" if seed % 2 == 0 else "stuck",
            "dead-units",
        )
        flat = network(seed, nn.Tanh() if seed % 2 else nn.Sigmoid())
        with torch.no_grad():  # far out on the level ends, for every row
            flat[0].weight.mul_(1e-3)
            flat[0].bias.copy_(
                1e4 * torch.sign(torch.randn(8, generator=torch.Generator().manual_seed(seed)))
            )
        yield Case(
            "saturated",
            ds.Problem.from_model(flat, x, y, loss=nn.MSELoss()),
            {"lr": 0.02, "steps": 1500},
            "plateau",
            "saturation",
        )
        huge = network(seed, nn.Tanh() if seed % 2 else nn.ReLU(), width=16)
        with torch.no_grad():
            for parameter in huge.parameters():
                parameter.mul_(60)
        problem = ds.Problem.from_model(huge, x, y, loss=nn.MSELoss())
        for rate in (0.02, 0.05):
            settings = {"lr": rate, "steps": 200}  # stable with weights as torch draws them
            if ds.descend(problem, optim.SGD, progress=False, **settings).status[0] == 2:
                yield Case("large weights", problem, settings, "diverged", "exploding-start")
    for seed in range(4):  # all weights 0: a stationary point of a deep linear network
        model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 1, bias=False)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        rng = draws(37, seed)
        x = torch.tensor(rng.normal(size=(30, 2)))
        y = x @ torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        yield Case(
            "all zero",
            ds.Problem.from_model(model, x, y, loss=nn.MSELoss()),
            {"lr": 0.1, "steps": 100},
            "stuck",
            "stationary-start",
        )
    yield from on_the_edge()


def on_the_edge():
    """Full-batch descent of tanh networks until their sharpness, by a whole Hessian made here, has
    come to 2 / η from below (Cohen et al. 2021). A run that has not is left out."""
    for seed in range(6):
        rng = draws(41, seed)
        x = torch.tensor(np.linspace(-1, 1, 20)[:, None])
        y = torch.sign(torch.sin(4 * x)) + torch.tensor(0.1 * rng.normal(size=(20, 1)))
        problem = ds.Problem.from_model(network(seed, nn.Tanh(), width=10), x, y,
                                        loss=nn.MSELoss())  # fmt: skip
        rates = [0.12, 0.15, 0.18, 0.22, 0.26]
        runs = ds.descend(problem, optim.SGD, lr=rates, steps=12_000, every="step", progress=False)
        for run in runs:
            rate, tail = run.row["lr"], run.loss[6000:]
            if run.status == "diverged":
                continue
            at_end, at_start = sharpness(problem, run.state), sharpness(problem, None)
            rises = float((np.diff(tail) > 0).mean())
            near = 0.95 < at_end * rate / 2 < 1.2 and at_start * rate / 2 < 0.8
            if near and rises > 0.1 and tail[-1] < 0.5 * run.loss[0]:
                yield Case(
                    "edge",
                    problem,
                    {"lr": rate, "steps": 12_000},
                    "edge-of-stability",
                    "edge-of-stability",
                )


def sharpness(problem, state):
    objective = problem.fresh(0)
    named = {n.removeprefix("model."): p for n, p in objective.named_parameters()}
    names = list(named)
    values = [named[n].detach() if state is None else state[n] for n in names]
    sizes = [v.numel() for v in values]

    def loss(flat):
        parts = dict(
            zip(
                names,
                (p.reshape(v.shape) for p, v in zip(flat.split(sizes), values, strict=True)),
                strict=True,
            )
        )
        made = torch.func.functional_call(objective.model, parts, (problem.train.x,))
        return ((made - problem.train.y) ** 2).mean()

    flat = torch.cat([v.reshape(-1) for v in values])
    return float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1])


def all_cases():
    """Every run of every rule."""
    return [
        *on_quadratics(),
        *on_functions(),
        *on_regressions(),
        *on_faulty_data(),
        *on_classifiers(),
        *on_networks(),
    ]


def first_of_each_rule(cases, most):
    """At most so many cases of each rule, those that were made first."""
    met = Counter()
    for case in cases:
        met[case.name] += 1
        if met[case.name] <= most:
            yield case


_SHARED = ("steps", "epochs", "batch_size", "order", "divergence", "clip_norm", "start")


def together(cases):
    """Cases as (runs, their cases): those that one call of descend can hold share one."""
    parts = {}
    for case in cases:
        shared = {n: case.settings[n] for n in _SHARED if n in case.settings}
        key = (id(case.problem), case.optimizer, repr(shared))
        parts.setdefault(key, (shared, []))[1].append(case)
    for shared, some in parts.values():
        rows = [{n: v for n, v in c.settings.items() if n not in _SHARED} for c in some]
        names = dict.fromkeys(name for row in rows for name in row)
        nothing = {"momentum": 0.0, "nesterov": False}
        rows = [{n: row.get(n, nothing.get(n)) for n in names} for row in rows]
        grid = ds.Grid.of(some[0].optimizer, rows)
        yield ds.descend(some[0].problem, grid, progress=False, **shared), some


def confusion(found):
    """Counts of (true verdict and cause, found verdict and cause), as a table in text."""
    counts = Counter(found)
    lines = []
    for (case, judged), count in sorted(counts.items()):
        mark = "   " if case == judged else " ! "
        lines.append(f"{count:4}{mark}{' / '.join(case):45} -> {' / '.join(judged)}")
    return "\n".join(lines)
