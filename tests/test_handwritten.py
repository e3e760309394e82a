"""Gradients by hand: right ones trusted, wrong ones named, and the same runs as autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.errors import ProblemError

DOUBLE = torch.float64
X = torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
Y = -5 * X + 2 + 0.1 * torch.sin(9 * X)


def double(**values):
    return {name: torch.tensor(value, dtype=DOUBLE) for name, value in values.items()}


def line(w=-10.0, b=-20.0):
    return ds.Problem.from_function(
        lambda x, w, b: w * x + b, X, Y, loss=nn.MSELoss(), start=double(w=w, b=b)
    )


def line_gradient(x, y, w, b):
    r = w * x + b - y
    return {"w": 2 * (r * x).mean(), "b": 2 * r.mean()}


def parabola(start=7.0):
    return ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=start)


def valley(start=None):
    """Rosenbrock's."""
    return ds.Problem.from_function(
        lambda a, b: (1 - a) ** 2 + 100 * (b - a**2) ** 2, start=start or double(a=-1.0, b=1.5)
    )


def valley_gradient(a, b):
    return {"a": -2 * (1 - a) - 400 * a * (b - a**2), "b": 200 * (b - a**2)}


def bowl(start=(1.0, -2.0)):
    """A vector; the matrix is float32, as a person's would be."""
    A = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    p = ds.Problem.from_function(lambda v: 0.5 * v @ A @ v, start=list(start))
    return p, lambda v: {"v": A @ v}


def descended(problem, gradient, **changes):
    asked = {"lr": 0.01, "steps": 4, "progress": False, "gradient": gradient, **changes}
    return ds.descend(problem, optim.SGD, **asked)


# -- right ones ------------------------------------------------------------------------------

RIGHT = {
    "number": (parabola, lambda x: {"x": 2 * x - 4}, {}),
    "number, a tensor alone": (parabola, lambda x: 2 * x - 4, {}),
    "two numbers": (valley, valley_gradient, {"lr": [1e-4, 3e-4, 5e-4, 1e-3]}),
    "data": (line, line_gradient, {}),
    "data, keywords": (
        line, lambda **g: line_gradient(g["x"], g["y"], g["w"], g["b"]), {},
    ),
    "data, one at a time": (line, line_gradient, {"batch_size": 1, "steps": None, "epochs": 2}),
    "data, mini-batches": (
        line, line_gradient,
        {"batch_size": 5, "steps": None, "epochs": 3, "order": ["shuffle", "cyclic"]},
    ),
    "data, momentum and clipping": (
        line, line_gradient, {"momentum": [0.0, 0.9], "clip_norm": [1.0, None]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["looped", "stacked"])
@pytest.mark.parametrize("name", RIGHT)
def test_the_same_runs_as_autograds(name, engine):
    make, gradient, changes = RIGHT[name]
    asked = {"lr": [0.003, 0.01, 0.03, 0.1], "seed": [0, 1], "engine": engine, **changes}
    asked["keep"] = ("loss", "batch_loss", "gradient_norm")
    by_hand = descended(make(), gradient, **asked)
    by_torch = descended(make(), None, **asked)
    assert set(by_hand.table["engine"]) == {engine}
    assert by_hand.status.tolist() == by_torch.status.tolist()
    rtol = 1e-9 if make is not parabola else 1e-5
    for what in ("loss", "batch_loss", "gradient_norm"):
        np.testing.assert_allclose(getattr(by_hand, what), getattr(by_torch, what), rtol=rtol)
    for key, value in by_torch.parameters.items():
        torch.testing.assert_close(by_hand.parameters[key], value, rtol=rtol, atol=1e-12)


def test_it_is_the_one_that_is_used():
    """A difference below what the check sees, made visible by a huge rate."""
    off = 5e-7
    p = ds.Problem.from_function(lambda x: x**2, start=torch.tensor(0.0, dtype=DOUBLE))
    for engine in ("looped", "stacked"):
        runs = descended(p, lambda x: {"x": 2 * x + off}, lr=[1e6] * 4, steps=1, engine=engine)
        np.testing.assert_allclose(runs.parameters["x"], -1e6 * off, rtol=1e-12)


@pytest.mark.parametrize("engine", ["looped", "stacked"])
@pytest.mark.parametrize(
    "constant",
    [2.0, torch.tensor(2.0), torch.tensor(2.0, dtype=DOUBLE)],
    ids=["number", "tensor", "float64"],
)
def test_a_gradient_that_is_the_same_everywhere(constant, engine):
    p = ds.Problem.from_function(lambda x: 2 * x, start=1.0)
    runs = descended(p, lambda x: {"x": constant}, lr=[0.5] * 4, steps=3, engine=engine)
    assert runs.parameters["x"].tolist() == [-2.0] * 4
    assert runs.parameters["x"].dtype == torch.float32


def test_numbers_of_numpy():
    p = parabola(torch.tensor(7.0, dtype=DOUBLE))
    runs = descended(p, lambda x: {"x": np.float64(2 * x.item() - 4)}, lr=0.25, steps=1)
    assert runs.parameters["x"].item() == 4.5


@pytest.mark.parametrize("engine", ["looped", "stacked"])
def test_a_function_with_a_float32_matrix_of_its_own(engine):
    p, gradient = bowl()
    runs = descended(p, gradient, lr=[0.1] * 4, steps=1, engine=engine)
    wanted = np.array([1, -2]) - 0.1 * np.array([[3.0, 1], [1, 2]]) @ [1, -2]
    np.testing.assert_allclose(runs.parameters["v"], [wanted] * 4, rtol=1e-6)
    with pytest.raises(ProblemError, match="'v' differs from autograd's"):
        descended(p, lambda v: {"v": 1.01 * gradient(v)["v"]})


def test_a_parameter_the_loss_does_not_depend_on_has_gradient_zero():
    p = ds.Problem.from_function(lambda a, b: a**2, start={"a": 1.0, "b": 2.0})
    runs = descended(p, lambda a, b: {"a": 2 * a, "b": torch.zeros_like(b)}, lr=0.25, steps=1)
    assert (runs.parameters["a"].item(), runs.parameters["b"].item()) == (0.5, 2.0)
    with pytest.raises(ProblemError, match="'b' differs from autograd's by 1 "):
        descended(p, lambda a, b: {"a": 2 * a, "b": torch.ones_like(b)})


def test_autograd_may_be_used_by_hand():
    def gradient(x, y, w, b):
        w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
        with torch.enable_grad():
            loss = ((w * x + b - y) ** 2).mean()
        return dict(zip("wb", torch.autograd.grad(loss, [w, b]), strict=True))

    by_hand = descended(line(), gradient, engine="looped")
    np.testing.assert_allclose(by_hand.loss, descended(line(), None, engine="looped").loss)


def test_checking_leaves_everything_alone():
    p, before = line(), torch.get_rng_state()
    descended(p, line_gradient)
    assert torch.equal(before, torch.get_rng_state())
    assert p.template.get_parameter("model.w").item() == -10.0


# -- wrong ones ------------------------------------------------------------------------------


def test_the_size_of_a_difference_is_said():
    with pytest.raises(ProblemError) as caught:
        descended(parabola(), lambda x: {"x": 2 * x - 3})
    assert str(caught.value) == (
        "the gradient by hand of parameter 'x' differs from autograd's by 1 "
        "(autograd's largest element is 10)"
    )
    r = (-10 * X - 20 - Y).numpy()
    size = abs(np.mean(r * X.numpy()))  # of the factor 2 that is forgotten
    with pytest.raises(ProblemError, match=rf"'w' differs from autograd's by {size:.6g} "):
        descended(line(), lambda x, y, w, b: {"w": ((w * x + b - y) * x).mean(),
                                              "b": 2 * (w * x + b - y).mean()})  # fmt: skip


WRONG = {
    "of another sign": lambda x, y, w, b: {k: -v for k, v in line_gradient(x, y, w, b).items()},
    "a sum": lambda x, y, w, b: {k: v * len(x) for k, v in line_gradient(x, y, w, b).items()},
    "swapped": lambda x, y, w, b: dict(
        zip("wb", reversed(line_gradient(x, y, w, b).values()), strict=True)
    ),
    "slightly off": lambda x, y, w, b: {
        k: v * (1 + 1e-5) for k, v in line_gradient(x, y, w, b).items()
    },
    "not a number": lambda x, y, w, b: {
        k: v * torch.nan for k, v in line_gradient(x, y, w, b).items()
    },
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("engine", ["auto", "looped", "stacked"])
def test_wrong_ones_are_refused_before_anything_runs(name, engine, tmp_path):
    with pytest.raises(ProblemError, match=r"of parameter '[wb]' differs from autograd's by"):
        descended(line(), WRONG[name], engine=engine, study=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("function", "gradient"),
    [
        (lambda x: x**2, lambda x: {"x": 3 * x}),
        (lambda x: x**2 + x**3, lambda x: {"x": 2 * x}),
        (lambda x: torch.exp(x), lambda x: {"x": torch.ones_like(x)}),
        (lambda x: torch.sin(x), lambda x: {"x": 1 - x}),
    ],
)
def test_one_that_is_only_right_at_a_start_of_zero(function, gradient):
    with pytest.raises(ProblemError, match="'x' differs from autograd's"):
        descended(ds.Problem.from_function(function, start=0.0), gradient)


def test_one_that_is_only_right_for_all_rows_at_once():
    """Divides by the number of all rows, or looks at them, whatever the batch is."""
    count = len(X)

    def fixed_count(x, y, w, b):
        r = w * x + b - y
        return {"w": 2 * (r * x).sum() / count, "b": 2 * r.sum() / count}

    def all_rows(x, y, w, b):
        return line_gradient(X.to(w.dtype), Y.to(w.dtype), w, b)

    for gradient in (fixed_count, all_rows):
        with pytest.raises(ProblemError, match="differs from autograd's"):
            descended(line(), gradient, batch_size=4)


@pytest.mark.parametrize(
    ("gradient", "said"),
    [
        (lambda x, y, w: {"w": w, "b": w}, "must take w, b, x and y, it takes x, y and w"),
        (lambda w, b: {"w": w, "b": w}, "must take w, b, x and y, it takes w and b"),
        (lambda: {}, "must take w, b, x and y, it takes nothing"),
        (lambda x, target, w, b: {}, "it takes x, target, w and b"),
        (lambda x, y, w, bb: {}, r"it takes x, y, w and bb \(did you mean 'b'\?\)"),
        (lambda x, y, w, b, more: {}, "it takes x, y, w, b and more"),
        (lambda x, y, w, b: {"w": line_gradient(x, y, w, b)["w"]}, "none for parameter 'b'"),
        (lambda x, y, w, b: {"W": w, "b": b}, "none for parameter 'w'"),
        (
            lambda x, y, w, b: {k: v[None] for k, v in line_gradient(x, y, w, b).items()},
            r"'w' has shape \(1,\), the parameter \(\)",
        ),
        (
            lambda x, y, w, b: {"w": 2 * (w * x + b - y) * x, "b": b},
            r"'w' has shape \(24,\), the parameter \(\)",
        ),
        (lambda x, y, w, b: 1.0, "the gradient by hand fails with TypeError"),
        (lambda x, y, w, b: None, "the gradient by hand fails with TypeError"),
        (lambda x, y, w, b: w.undefined, "the gradient by hand fails with AttributeError"),
        (lambda x, y, w, b: {"w": "steep", "b": b}, "gradient by hand"),
        ({"w": 1.0, "b": 2.0}, "gradient"),
        (3.0, "gradient"),
    ],
)
def test_what_a_gradient_cannot_be(gradient, said):
    with pytest.raises(ProblemError, match=said) as caught:
        descended(line(), gradient)
    assert "\n" not in str(caught.value)


def test_a_module_has_autograds():
    p = ds.Problem.from_model(nn.Linear(1, 1), X[:, None].float(), Y[:, None], loss=nn.MSELoss())
    with pytest.raises(ProblemError, match="functions of loose tensors"):
        descended(p, lambda x, y, weight, bias: {})
