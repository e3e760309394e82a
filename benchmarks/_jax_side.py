"""The JAX side of the comparison: jit(vmap(scan)), written as JAX's users write it, and its chunks.

A program takes a chunk of per-run inputs and what all runs share, and gives the final losses of the
chunk's runs. The state of the descents is made inside, so there is nothing to donate and nothing to
transfer but the rates and the losses. How a layer is written matters to XLA, and so does how many
runs stand side by side: `calibrated` tries the writings and chunk sizes and takes the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _timing import seconds
from jax import lax

Arrays = tuple[Any, ...]
Layers = list[tuple[Any, Any]]
Program = Callable[[Arrays, Arrays], Any]
"""(a chunk of per-run inputs, what is shared) -> final losses of the chunk's runs."""

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": lambda value: jax.nn.gelu(value, approximate=False),
}

CHUNKS = (16, 64, 256, 1024, 4096, 16384)
MOST_CHUNKS = 4096
"""More than these many calls cost more than they can save."""


def _prepared(writing: str, start: Layers, X: Any, y: Any) -> tuple[Layers, Any, Any]:
    """Torch's weights (out, in) and rows as a writing wants them."""
    if writing == "x @ w":
        return [(weight.T, bias) for weight, bias in start], X, y
    if writing == "w @ x":
        return [(weight, bias[:, None]) for weight, bias in start], X.T, y.T
    return start, X, y


def _mean_squared_error(writing: str, activation: str, layers: Layers, x: Any, y: Any) -> Any:
    for place, (weight, bias) in enumerate(layers):
        if writing == "x @ w":
            x = x @ weight + bias
        elif writing == "w @ x":
            x = weight @ x + bias
        else:
            x = x @ weight.T + bias
        if place < len(layers) - 1:
            x = ACTIVATIONS[activation](x)
    return jnp.mean((x - y) ** 2)


def full_batch(activation: str, steps: int, writing: str, unroll: int = 1) -> Program:
    """SGD on all rows: inputs are one rate a run, or one for each layer; shared (layers, X, y)."""

    def each(rates: Arrays, layers: int) -> Arrays:
        return rates if len(rates) > 1 else rates * layers

    def descend(rates: Arrays, shared: Arrays) -> Any:
        layers, X, y = _prepared(writing, *shared)

        def loss(layers: Layers) -> Any:
            return _mean_squared_error(writing, activation, layers, X, y)

        def step(layers: Layers, _: None) -> tuple[Layers, None]:
            gradient = jax.grad(loss)(layers)
            moved = [
                (weight - rate * to_weight, bias - rate * to_bias)
                for (weight, bias), (to_weight, to_bias), rate in zip(
                    layers, gradient, each(rates, len(layers)), strict=True
                )
            ]
            return moved, None

        layers, _ = lax.scan(step, layers, None, length=steps, unroll=unroll)
        return loss(layers)

    return jax.jit(jax.vmap(descend, in_axes=(0, None)))


def adam(activation: str, steps: int, writing: str, unroll: int = 1) -> Program:
    """Adam on batches: inputs are a rate a run; shared are (layers, X, y, order), the order
    (steps, batch) being the rows of each step, the same for all runs."""

    def descend(rates: Arrays, shared: Arrays) -> Any:
        (rate,), (start, rows, targets, order) = rates, shared
        layers, X, y = _prepared(writing, start, rows, targets)

        def loss(layers: Layers, x: Any, y: Any) -> Any:
            return _mean_squared_error(writing, activation, layers, x, y)

        def step(state: Arrays, chosen: Any) -> tuple[Arrays, None]:
            layers, mean, square, count = state
            if writing == "w @ x":
                gradient = jax.grad(loss)(layers, X[:, chosen], y[:, chosen])
            else:
                gradient = jax.grad(loss)(layers, X[chosen], y[chosen])
            count = count + 1
            mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
            square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradient)
            size = rate / (1 - 0.9**count)
            scale = 1 / jnp.sqrt(1 - 0.999**count)
            layers = jax.tree.map(
                lambda p, m, v: p - size * m / (jnp.sqrt(v) * scale + 1e-8), layers, mean, square
            )
            return (layers, mean, square, count), None

        zeros = jax.tree.map(jnp.zeros_like, layers)
        state = (layers, zeros, zeros, jnp.float32(0))
        (layers, *_), _ = lax.scan(step, state, order[:steps], unroll=unroll)
        return loss(layers, X, y)

    return jax.jit(jax.vmap(descend, in_axes=(0, None)))


def _line_loss(line: tuple[Any, Any], x: Any, y: Any) -> Any:
    return jnp.mean((line[0] * x + line[1] - y) ** 2)


def _line_step(line: tuple[Any, Any], rate: Any, x: Any, y: Any) -> tuple[Any, Any]:
    slope, offset = jax.grad(_line_loss)(line, x, y)
    return line[0] - rate * slope, line[1] - rate * offset


def line_one_by_one(steps: int, writing: str, unroll: int = 1) -> Program:
    """SGD on a straight line, a row a step as stored; shared are (start, X, y)."""

    def descend(rates: Arrays, shared: Arrays) -> Any:
        (rate,), (start, X, y) = rates, shared

        def step(line: tuple[Any, Any], row: Arrays) -> tuple[tuple[Any, Any], None]:
            return _line_step(line, rate, *row), None

        def epoch(line: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            return lax.scan(step, line, (X, y), unroll=unroll)

        epochs, rest = divmod(steps, len(X))
        line, _ = lax.scan(epoch, start, None, length=epochs)
        line, _ = lax.scan(step, line, (X[:rest], y[:rest]), unroll=unroll)
        return _line_loss(line, X, y)

    return jax.jit(jax.vmap(descend, in_axes=(0, None)))


def line_shuffled(steps: int, writing: str, unroll: int = 1) -> Program:
    """SGD on a straight line in batches, for every seed and rate: losses (seeds, rates).

    Inputs are a seed's orders (epochs, rows), or ("own permutations") its random key; shared are
    (start, X, y, rates, batch size as an array of that length).
    """

    def descend(inputs: Arrays, shared: Arrays) -> Any:
        start, X, y, rates, batch = shared
        per_epoch = len(X) // len(batch)

        def step(lines: tuple[Any, Any], chosen: Any) -> tuple[tuple[Any, Any], None]:
            return jax.vmap(_line_step, in_axes=(0, 0, None, None))(
                lines, rates, X[chosen], y[chosen]
            ), None

        def epoch(lines: tuple[Any, Any], order: Any) -> tuple[tuple[Any, Any], None]:
            if writing == "own permutations":
                order = jax.random.permutation(order, len(X))
            return lax.scan(step, lines, order.reshape(per_epoch, -1), unroll=unroll)

        lines = jax.tree.map(lambda value: jnp.broadcast_to(value, rates.shape), start)
        orders = inputs[0][: steps // per_epoch]
        if writing == "own permutations":
            orders = jax.random.split(inputs[0], steps // per_epoch)
        lines, _ = lax.scan(epoch, lines, orders)
        return jax.vmap(_line_loss, in_axes=(0, None, None))(lines, X, y)

    return jax.jit(jax.vmap(descend, in_axes=(0, None)))


# -- chunks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How JAX is to do it: the program's writing and unrolling, and how many inputs in a chunk."""

    writing: str
    unroll: int
    chunk: int

    def __str__(self) -> str:
        unrolled = "" if self.unroll == 1 else f", unrolled {self.unroll}"
        return f"{self.writing}{unrolled}, chunks of {self.chunk:,}"


def dividing(runs: int, size: int) -> int:
    """The largest chunk of at most `size` runs that divides them, so that one program serves."""
    return next(n for n in range(min(size, runs), 0, -1) if runs % n == 0)


def chunked(inputs: Arrays, size: int) -> list[Arrays]:
    """Per-run inputs on JAX's device, cut along their first axis."""
    runs = len(inputs[0])
    return [
        tuple(jnp.asarray(each[first : first + size]) for each in inputs)
        for first in range(0, runs, size)
    ]


def carry_out(program: Program, parts: Sequence[Arrays], shared: Arrays, callers: int) -> Any:
    """Losses of all chunks, waited for; called one after another, or by several threads."""
    if callers == 1:
        return jax.block_until_ready([program(part, shared) for part in parts])

    def one(part: Arrays) -> Any:
        return jax.block_until_ready(program(part, shared))

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(one, parts))


def calibrated(
    build: Callable[[str, int], Program],
    writings: Sequence[str],
    unrolls: Sequence[int],
    inputs: Callable[[str], Arrays],
    shared: Arrays,
    callers: int,
    trials: int = 3,
) -> Way:
    """The fastest way of a short descent, over all writings, chunk sizes and unrollings."""
    found: dict[Way, float] = {}
    for writing in writings:
        given = inputs(writing)
        runs = len(given[0])
        sizes = {dividing(runs, chunk) for chunk in (*CHUNKS, runs)}
        for size in sorted(n for n in sizes if n * MOST_CHUNKS >= runs):
            parts = chunked(given, size)
            for unroll in unrolls:
                program = build(writing, unroll)
                carry_out(program, parts[:callers], shared, callers)
                times = [
                    seconds(lambda program=program, parts=parts: carry_out(
                        program, parts, shared, callers
                    ))
                    for _ in range(trials)
                ]  # fmt: skip
                found[Way(writing, unroll, size)] = min(times)
    return min(found, key=found.__getitem__)


def losses(made: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Chunks of losses on top of each other."""
    return np.concatenate([np.asarray(part) for part in made])
