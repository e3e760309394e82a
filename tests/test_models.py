"""Models by name: their very layers, and a sentence for every way to get a name wrong."""

from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn

import downslope as ds
from downslope.errors import ProblemError
from downslope.models import ACTIVATIONS, model_factory


def made(model, inputs=3, outputs=2):
    return model_factory(model, inputs, outputs)()


def layers(net):
    return [type(layer).__name__ for layer in net]


def test_linear():
    net = made("linear")
    assert type(net) is nn.Linear and (net.in_features, net.out_features) == (3, 2)


@pytest.mark.parametrize("degree", [1, 2, 5])
def test_a_polynomial_has_each_features_powers_and_no_products(degree):
    net = made(f"poly:{degree}", inputs=2, outputs=1).double()
    x = torch.randn(7, 2, dtype=torch.float64)
    weight, bias = net[-1].weight[0], net[-1].bias[0]
    assert weight.shape == (2 * degree,)
    wanted = [
        bias + sum(weight[2 * k + j] * row[j] ** (k + 1) for k in range(degree) for j in (0, 1))
        for row in x
    ]
    torch.testing.assert_close(net(x)[:, 0], torch.stack(wanted))


def test_a_polynomial_finds_a_cubic():
    X = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(-1, 1)
    net = made("poly:3", 1, 1).double()
    p = ds.Problem.from_model(net, X, 2 * X**3 - X + 0.5, loss="mse")
    runs = ds.descend(p, torch.optim.LBFGS, lr=1.0, steps=40, progress=False)
    torch.testing.assert_close(
        runs.parameters["1.weight"][0, 0], torch.tensor([-1.0, 0, 2], dtype=torch.float64),
        rtol=0, atol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wanted", "widths"),
    [
        ("mlp:8", ["Linear", "ReLU", "Linear"], [3, 8, 2]),
        ("mlp:32,16", ["Linear", "ReLU", "Linear", "ReLU", "Linear"], [3, 32, 16, 2]),
        ("mlp:32, 16:tanh", ["Linear", "Tanh", "Linear", "Tanh", "Linear"], [3, 32, 16, 2]),
        ("mlp:1,1,1:gelu", ["Linear", "GELU"] * 3 + ["Linear"], [3, 1, 1, 1, 2]),
        ("mlp:8:", ["Linear", "ReLU", "Linear"], [3, 8, 2]),
    ],
)
def test_a_multilayer_perceptron(name, wanted, widths):
    net = made(name)
    assert layers(net) == wanted
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths
    assert net(torch.zeros(5, 3)).shape == (5, 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    layer = made(f"mlp:4:{name}")[1]
    by_torch = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    x = torch.linspace(-3, 3, 11)
    torch.testing.assert_close(layer(x), by_torch(x))


def test_each_call_draws_anew():
    factory = model_factory("mlp:4", 3, 1)
    assert not torch.equal(factory()[0].weight, factory()[0].weight)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lnear", "unknown model 'lnear' (did you mean 'linear'?); known are linear, poly:DEGREE"),
        ("Linear", "did you mean 'linear'?"),
        ("linear:3", "unknown model 'linear:3'"),
        ("ploy:3", "did you mean 'poly'?"),
        ("MLP:8", "did you mean 'mlp'?"),
        ("", "unknown model ''"),
        ("transformer", "unknown model 'transformer'; known are"),
        ("poly", "'' is no whole number of at least 1"),
        ("poly:", "'' is no whole number"),
        ("poly:0", "'0' is no whole number of at least 1"),
        ("poly:-2", "'-2' is no whole number"),
        ("poly:2.5", "'2.5' is no whole number"),
        ("poly:two", "'two' is no whole number"),
        ("poly:3:4", "'3:4' is no whole number"),
        ("mlp", "'' is no whole number"),
        ("mlp:", "'' is no whole number"),
        ("mlp:8,,8", "'' is no whole number"),
        ("mlp:8,", "'' is no whole number"),
        ("mlp:0", "'0' is no whole number"),
        ("mlp:tanh", "'tanh' is no whole number"),
        ("mlp:8:tahn", "unknown activation 'tahn' (did you mean 'tanh'?)"),
        ("mlp:8:tanh:relu", "unknown activation 'tanh:relu'"),
        (3, "model must be a name"),
        (None, "model must be a name"),
    ],
)
def test_bad_names(name, said):
    with pytest.raises(ProblemError) as caught:
        model_factory(name, 3, 1)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# -- modules and callables -------------------------------------------------------------------


def test_a_module_is_taken_as_it_is():
    net = nn.Linear(3, 2)
    assert model_factory(net, 9, 9) is net


@pytest.mark.parametrize(
    "make",
    [nn.Linear, lambda i, o: nn.Linear(i, o), lambda i, o, bias=True: nn.Linear(i, o, bias),
     lambda: nn.Linear(3, 2), lambda inputs=3, outputs=2: nn.Linear(inputs, outputs)],
)  # fmt: skip
def test_a_callable_takes_inputs_and_outputs_or_nothing(make):
    net = made(make)
    assert (net.in_features, net.out_features) == (3, 2)


def one(inputs):
    return nn.Linear(inputs, 1)


def three(a, b, c):
    return nn.Linear(a, b)


def number():
    return 5


def failing():
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (one, "one needs 1 arguments; a model for a table takes two"),
        (three, "three needs 3 arguments"),
        (number, "number must make a torch.nn.Module, got int"),
        (failing, "failing() fails with RuntimeError: no luck"),
    ],
)
def test_bad_callables(make, said):
    with pytest.raises(ProblemError) as caught:
        made(make)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# -- files -----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


NET = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.inner = nn.Linear(inputs, outputs)

        def forward(self, x):
            return self.inner(x)

    class Fixed(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)

    class One(nn.Linear):
        def __init__(self, inputs):
            super().__init__(inputs, 2)

    class Failing(nn.Module):
        def __init__(self, inputs, outputs):
            raise ValueError("out of luck")

    class Plain:
        pass

    def build(inputs, outputs):
        return nn.Linear(inputs, outputs)

    WIDTH = 5
"""


def test_a_class_from_a_file(file):
    path = file(NET)
    net = made(f"{path}:Net")
    assert type(net).__name__ == "Net" and net.inner.weight.shape == (2, 3)
    assert made(f"{path}:Fixed").weight.shape == (2, 3)
    assert made(f"{path}:build").weight.shape == (2, 3)


def test_a_class_from_a_file_in_a_folder_with_colons_and_spaces(file, tmp_path):
    folder = tmp_path / "a: b"
    folder.mkdir()
    path = file(NET, "a: b/my net.py")
    assert made(f"{path}:Net").inner.weight.shape == (2, 3)


def test_a_file_relative_to_where_one_is(file, monkeypatch, tmp_path):
    file(NET)
    monkeypatch.chdir(tmp_path)
    assert made("mine.py:Net").inner.weight.shape == (2, 3)


def test_a_file_that_uses_dataclasses(file):
    path = file("""
        from __future__ import annotations
        from dataclasses import dataclass
        from torch import nn

        @dataclass
        class Size:
            inputs: int
            outputs: int

        def build(inputs, outputs):
            size = Size(inputs, outputs)
            return nn.Linear(size.inputs, size.outputs)
    """)
    assert made(f"{path}:build").weight.shape == (2, 3)


def test_a_file_does_not_stand_in_for_a_module_of_its_name(file):
    import json

    path = file(NET, "json.py")
    made(f"{path}:Net")
    import json as again

    assert again is json and hasattr(json, "dumps")


def test_a_table_with_a_model_from_a_file(file):
    import polars as pl

    path = file(NET)
    frame = pl.DataFrame({"a": [1.0, 2, 3, 4, 5, 6], "price": [2.0, 4, 6, 8, 10, 12]})
    p = ds.Problem.from_table(frame, target="price", model=f"{path}:Net")
    assert p.draws_start and p.names == ("inner.weight", "inner.bias")
    runs = ds.descend(p, torch.optim.SGD, lr=0.3, epochs=200, progress=False)
    assert abs(runs.best.predict(pl.DataFrame({"a": [10.0]}))[0] - 20) < 0.01


@pytest.mark.parametrize(
    ("cls_name", "said"),
    [
        ("Nett", "has no 'Nett' (did you mean 'Net'?)"),
        ("Other", "has no 'Other'"),
        ("One", "One needs 1 arguments; a model for a table takes two"),
        ("Failing", "Failing(3, 2) fails with ValueError: out of luck"),
        ("Plain", "Plain must make a torch.nn.Module, got Plain"),
        ("WIDTH", "WIDTH"),
        ("", "names no class: write file.py:ClassName"),
    ],
)
def test_bad_classes(file, cls_name, said):
    with pytest.raises(ProblemError) as caught:
        made(f"{file(NET)}:{cls_name}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "fails with ZeroDivisionError: division by zero"),
        ("class Net(:\n    pass", "fails with SyntaxError"),
        ("import nowhere_to_be_found", "fails with ModuleNotFoundError"),
    ],
)
def test_bad_files(file, text, said):
    with pytest.raises(ProblemError) as caught:
        made(f"{file(text)}:Net")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_no_class(file, tmp_path):
    path = file(NET)
    for name, said in (
        (f"{tmp_path}/gone.py:Net", "there is no file"),
        (f"{tmp_path}:Net", "unknown model"),
        (str(path), "names no class: write file.py:ClassName"),
    ):
        with pytest.raises(ProblemError) as caught:
            made(name)
        assert said in str(caught.value)
