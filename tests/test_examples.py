"""The examples run as they stand; their numbers are those of the tutorials, or of closed forms."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from example_runs import ran_example
from torch import nn, optim
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import downslope as ds
from downslope.cli import app
from downslope.errors import DownslopeError, InputError
from downslope.gallery import EXAMPLES, example_path, list_examples, run_example

EXAMPLES_FOLDER = Path(__file__).parents[1] / "examples"
LIMIT = 120
EXPLODING = "line, one sample a step"
ENGINES = ("looped", "stacked")
# So that they find this very package, wherever the tests are started.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ds.__file__).parents[1])}

# Machine Learning Mastery, "Implementing gradient descent in PyTorch": loss before the update, w
# and b after it.
PUBLISHED_LINE = [
    (596.7191, -1.852747, -16.06207), (343.4265, -7.247586, -12.83026),
    (202.7098, -3.61691, -10.29876), (122.1665, -6.013255, -8.237251),
    (74.85094, -4.394279, -6.612008), (46.45096, -5.457883, -5.295623),
    (29.11161, -4.735295, -4.253151), (18.38621, -5.206837, -3.411948),
    (11.68706, -4.883906, -2.743701), (7.472857, -5.092618, -2.205874),
    (4.808232, -4.94803, -1.7777), (3.117233, -5.040188, -1.433714),
    (2.041327, -4.975279, -1.159447), (1.355531, -5.015831, -0.9393847),
    (0.9178377, -4.986582, -0.7637402), (0.6382413, -5.004334, -0.6229321),
    (0.4595241, -4.991086, -0.5104632), (0.3452395, -4.998797, -0.4203555),
    (0.2721353, -4.992753, -0.3483466), (0.2253635, -4.996064, -0.2906789),
]  # fmt: skip
PUBLISHED_STOCHASTIC = [
    (24.7376, -5.0263, -20.9947),
    (455.0947, -25.9326, -16.7281),
    (6968.83, 54.2077, -33.4240),
    (97112.9, -238.724, 28.9018),
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Runs an example once; gives what it printed and its folder."""

    def run(name):
        made = ran_example(name, tmp_path_factory)
        return made.printed, made.out

    return run


def numbers(text, start, rows):
    """The numbers in the lines after the one that starts with `start`, (rows, columns)."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip().startswith(start)) + 1
    found = [re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", line) for line in lines[first : first + rows]]
    return np.array(found, dtype=float)


@pytest.mark.parametrize("name", EXAMPLES)
def test_writes_the_pictures_it_names(printed, name):
    text, out = printed(name)
    named = {Path(line.removeprefix("wrote ")) for line in text.splitlines() if "wrote" in line}
    assert named == set(out.iterdir())
    assert len(named) >= 2
    for file in named:
        image = matplotlib.image.imread(file)
        assert min(image.shape[:2]) >= 300, file
        assert image[..., :3].std() > 0.03, file
        eight_bits = np.ascontiguousarray(np.round(255 * image).astype(np.uint8))
        assert len(np.unique(eight_bits.view(np.uint32))) > 20, file  # RGBA as one number


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_short_and_uses_public_names_only(name):
    source = (EXAMPLES_FOLDER / EXAMPLES[name][0]).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 210
    tree = ast.parse(source)
    words = ast.get_docstring(tree)
    assert words and 2 <= len(words.splitlines()) <= 5
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if (node.module or "").startswith("downslope"):  # the theory, as pure functions
                assert node.module == "downslope.explain"
                assert {a.name for a in node.names} <= {"stability", "minibatches"}
        if isinstance(node, ast.Import):
            ours = [a for a in node.names if a.name.startswith("downslope")]
            assert all(a.name == "downslope" and a.asname == "ds" for a in ours)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.startswith("__")
            if isinstance(node.value, ast.Name) and node.value.id == "ds":
                assert node.attr in ds.__all__


def test_runs_as_a_script_without_a_warning(tmp_path):
    path = EXAMPLES_FOLDER / EXAMPLES["slope"][0]
    made = subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=LIMIT,
        cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "wrote slope/fit.png" in made.stdout.replace(os.sep, "/")
    assert (tmp_path / "slope" / "fit.png").is_file()


def test_every_numbered_example_is_in_the_gallery():
    files = {file.name for file in EXAMPLES_FOLDER.glob("[0-9][0-9]_*.py")}
    assert files == {file for file, _ in EXAMPLES.values()}
    assert [name for name, _ in list_examples()] == list(EXAMPLES)


class TestLine:
    def test_batch_table_is_the_published_one(self, printed):
        table = numbers(printed("line")[0], "epoch", 20)
        assert table[:, 0].tolist() == list(range(20))
        np.testing.assert_allclose(table[:, 1:], PUBLISHED_LINE, rtol=5e-6)

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 5e-6), (torch.float32, 5e-5)])
    def test_the_published_rows_on_every_engine(self, tmp_path_factory, engine, dtype, close):
        names = ran_example("line", tmp_path_factory).names
        batch = ds.descend(
            names["problem"], optim.SGD, lr=0.1, epochs=20, keep=("loss", "parameters"),
            engine=engine, dtype=dtype,
        )[0]  # fmt: skip
        rows = np.stack([batch.loss[:20], batch.path["w"][1:], batch.path["b"][1:]], axis=1)
        np.testing.assert_allclose(rows, PUBLISHED_LINE, rtol=close)

    def test_first_stochastic_updates_are_the_published_ones(self, printed):
        table = numbers(printed("line")[0], "step", 4)
        for row, (loss, w, b) in zip(table, PUBLISHED_STOCHASTIC, strict=True):
            assert row[1] == pytest.approx(loss, abs=0.5 * 10 ** -(6 - len(str(int(loss)))))
            assert row[2] == pytest.approx(w, abs=5.1e-4 if abs(w) > 100 else 5.1e-5)
            assert row[3] == pytest.approx(b, abs=5.1e-5)

    def test_stochastic_descent_explodes_and_batch_descent_does_not(self, printed):
        text = printed("line")[0]
        epochs = numbers(text, "Stochastic descent: the loss over", 21)[:, 1]
        assert epochs[0] == pytest.approx(596.7191, rel=1e-6)
        assert (epochs[1:] > 1e12).all()


def test_function_follows_the_closed_form(printed):
    text, _ = printed("function")
    table = numbers(text, "t   ", 13)
    for column, rate in enumerate([0.1, 0.01, 0.3, 0.7, 1.0]):
        x = 2 + 5 * (1 - 2 * rate) ** table[:, 0]
        np.testing.assert_allclose(table[:, 1 + 2 * column], x, atol=5.1e-7)
        np.testing.assert_allclose(table[:, 2 + 2 * column], (x - 2) ** 2 + 1, atol=5.1e-6)


def test_line_by_hand_and_by_autograd_are_the_same(printed):
    text, _ = printed("function")
    assert "gradient at m = c = 0: (433.6485, 18.2594)" in text
    table = numbers(text, "epoch", 11)
    np.testing.assert_array_equal(table[:, 2:4], table[:, 4:6])
    assert (np.diff(table[:, 1]) < 0).all()
    # m and c do not meet, since mean x = 0: m -> mean xy / mean x², c = mean y (1 - 0.9998^t).
    np.testing.assert_allclose(table[-1, 2], -216.82425 / (400 * 82 / 240), rtol=1e-6)
    np.testing.assert_allclose(table[:, 3], -9.1297 * (1 - (1 - 2e-4) ** table[:, 0]), atol=1e-6)
    assert "lr 0.01: diverged" in text


def test_network_learns_both_tasks(printed):
    text, _ = printed("network")
    assert text.startswith("Sequential(")
    line, parabola = numbers(text, "step", 6), numbers(text.partition("parabola")[2], "step", 51)
    assert line[:, 0].tolist() == list(range(0, 101, 20))
    assert parabola[:, 0].tolist() == list(range(0, 5001, 100))
    # The least mean squared error is the noise's: a²/12 for noise between 0 and a.
    assert 0.8 * 0.5**2 / 12 < line[-1, 1] < 1.25 * 0.5**2 / 12
    assert 0.8 * 0.2**2 / 12 < parabola[-1, 1] < 2 * 0.2**2 / 12


def test_slope_has_the_published_weights_and_prediction(printed):
    text, _ = printed("slope")
    table = numbers(text, "epoch", 5)
    assert table[:, 0].tolist() == [1, 21, 41, 61, 81]
    assert table[:, 1].tolist() == [0.142, 1.639, 2.024, 2.123, 2.148]
    np.testing.assert_array_equal(table[:, 1:3], table[:, 3:5])
    assert (np.diff(table[:, 2]) < 0).all()  # the tutorial's printed loss stands still
    assert "prediction at x = 7: 15.084" in text


def test_optimizers_end_where_plain_torch_does(printed):
    text, _ = printed("optimizers")
    assert "SGD: 2000 steps" in text and "Adam: 2000 steps" in text
    table = numbers(text, "epoch", 21)
    noise = 0.4 * torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    x = torch.arange(-50, 50).reshape(-1, 1) / 10
    y = -5 * x + 1 + noise
    generator = torch.Generator().manual_seed(5)
    for column, optimizer in ((1, optim.SGD), (2, optim.Adam)):
        w, b = torch.tensor(-10.0, requires_grad=True), torch.tensor(-20.0, requires_grad=True)
        made = optimizer([w, b], lr=0.01)
        losses = [float(((w * x + b - y) ** 2).mean().detach())]
        for _ in range(20):
            for row in torch.randperm(100, generator=generator).tolist():
                made.zero_grad()
                ((w * x[row] + b - y[row]) ** 2).mean().backward()
                made.step()
            losses.append(float(((w * x + b - y) ** 2).mean().detach()))
        assert table[0, column] == pytest.approx(losses[0], abs=1e-3)
        # Another order of samples: the loss is alike, not equal.
        assert table[-1, column] == pytest.approx(losses[-1], rel=0.3, abs=0.1)
    assert (table[1:, 1] < table[1:, 2]).all()


class TestGallery:
    def test_runs_an_example_in_this_process(self, tmp_path, capsys):
        before = sys.argv
        run_example("slope", tmp_path / "here")
        assert sys.argv is before
        assert "prediction at x = 7" in capsys.readouterr().out
        assert {file.suffix for file in (tmp_path / "here").iterdir()} == {".png"}

    def test_an_unknown_name_is_told_with_the_nearest(self):
        with pytest.raises(InputError, match=r"no example 'slop'.*did you mean 'slope'"):
            run_example("slop")

    def test_a_folder_that_cannot_be_made_is_told_and_nothing_stays(self, tmp_path, capsys):
        (tmp_path / "taken").write_text("")
        with pytest.raises(InputError, match=r"cannot be written to .*name another folder"):
            run_example("slope", tmp_path / "taken" / "sub" / "folder")
        assert [file.name for file in tmp_path.iterdir()] == ["taken"]
        assert capsys.readouterr().out == ""

    def test_a_folder_that_cannot_be_written_to_is_told(self, tmp_path, monkeypatch, capsys):
        def refuse(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        with pytest.raises(InputError, match=r"cannot be written to .*\(Permission denied\)"):
            run_example("slope", tmp_path / "new" / "folder")
        assert not list(tmp_path.iterdir())
        assert capsys.readouterr().out == ""

    def test_a_picture_that_cannot_be_written_is_one_sentence(self, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
        with pytest.raises(DownslopeError, match=r"'slope' could not go on: .*No space left"):
            run_example("slope", tmp_path)

    def test_a_file_in_the_place_of_the_folder_is_told(self, tmp_path):
        (tmp_path / "taken").write_text("")
        with pytest.raises(InputError, match="is a file"):
            run_example("line", tmp_path / "taken")

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_finds_every_file(self, name):
        assert example_path(name).is_file()

    def test_the_command_lists_them_all_with_room_between(self):
        listed = CliRunner().invoke(app, ["gallery"])
        assert listed.exit_code == 0
        lines = [re.split(r" {2,}", line) for line in listed.output.splitlines()]
        assert [tuple(line) for line in lines] == list_examples()

    def test_needs_no_torch_to_list(self):
        code = (
            "import sys, downslope.gallery as g; g.list_examples(); print('torch' in sys.modules)"
        )
        made = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT,
            env=ENVIRONMENT,
        )  # fmt: skip
        assert made.stdout.strip() == "False", made.stderr


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(double(7.0))

    def forward(self, rows):
        return (self.x**2 - 4 * self.x + 5).expand(len(rows))


def linear(weight, bias):
    made = nn.Linear(1, 1, bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        made.weight.fill_(weight)
        if bias is not None:
            made.bias.fill_(bias)
    return made


def twins():
    """For each tutorial a function, a module that computes the same, and how to descend."""
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(-50, 50, dtype=torch.float64) / 10
    y = -5 * x + 0.4 * torch.randn(100, generator=generator, dtype=torch.float64)
    mse = nn.MSELoss()
    column, target = x.reshape(-1, 1), y.reshape(-1, 1)
    line = ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=x, y=y, loss=mse,
        start={"w": double(-10.0), "b": double(-20.0)},
    )  # fmt: skip
    line_module = ds.Problem.from_model(linear(-10, -20), column, target, loss=mse)
    dataset = ds.Problem.from_model(linear(-10, -20), TensorDataset(column, target), loss=mse)
    slope = ds.Problem.from_function(lambda x, w: w * x, X=x, y=y, loss=mse, start={"w": double(0)})
    slope_module = ds.Problem.from_model(linear(0, None), column, target, loss=mse)
    bowl = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=double(7.0))
    bowl_module = ds.Problem.from_model(
        Bowl(),
        torch.zeros(3, 1, dtype=torch.float64),
        objective=lambda model, x, y: model(x).mean(),
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1)).double()
    a, b, c, d = (p.detach().clone() for p in net.parameters())
    network = ds.Problem.from_function(
        lambda x, a, b, c, d: torch.relu(x @ a.T + b) @ c.T + d, X=column / 5, y=column**2 / 25,
        loss=mse, start={"a": a, "b": b, "c": c, "d": d},
    )  # fmt: skip
    network_module = ds.Problem.from_model(net, column / 5, column**2 / 25, loss=mse)
    sgd = {"optimizer": optim.SGD, "epochs": 20}
    cyclic = {**sgd, "order": "cyclic", "divergence": None}
    return {
        "line": (line, line_module, {**sgd, "lr": [0.1, 0.01]}),
        EXPLODING: (line, line_module, {**cyclic, "batch_size": 1, "lr": 0.1}),
        "function": (bowl, bowl_module, {**sgd, "lr": [0.1, 0.01, 0.3, 0.7, 1.0]}),
        "network": (network, network_module, {**sgd, "lr": [0.05, 0.1]}),
        "slope": (slope, slope_module, {**sgd, "lr": [0.001, 0.01]}),
        "optimizers": (line, dataset, {"optimizer": [optim.SGD, optim.Adam], "lr": [0.01, 0.02],
                                       "batch_size": 1, "epochs": 5}),
    }  # fmt: skip


@pytest.mark.parametrize("name", twins())
def test_a_module_gives_the_function_s_numbers_on_every_engine(name):
    function, module, asked = twins()[name]
    found = [
        ds.descend(problem, **asked, engine=engine, progress=False)
        for problem in (function, module)
        for engine in ENGINES
    ]
    assert not found[0].diverged.any()
    # At 0.1 a sample's update magnifies every rounding error up to 4.2 times.
    close = 1e-6 if name == EXPLODING else 1e-9
    for other in found[1:]:
        np.testing.assert_allclose(other.loss, found[0].loss, rtol=close)
        for left, right in zip(
            found[0].parameters.values(), other.parameters.values(), strict=True
        ):
            np.testing.assert_allclose(
                right.reshape(len(found[0]), -1), left.reshape(len(found[0]), -1),
                rtol=close, atol=1e-12,
            )  # fmt: skip
