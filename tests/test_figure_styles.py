"""Every picture looks the same whatever style the user has set, and touches nothing global."""

import io

import matplotlib
import matplotlib.style
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.views.comparison_figures import ComparisonPlots
from downslope.views.figures import Plots, fit_figure


def line():
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    return ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x + 1, loss=nn.MSELoss())


@pytest.fixture(scope="module")
def runs():
    """SGD at 1e3 diverges."""
    return ds.descend(
        line(), optim.SGD, lr=[0.01, 0.1, 1e3], momentum=[0, 0.9], epochs=5, seed=range(2),
        batch_size=10, keep=("loss", "parameters", "gradient_norm"), validation=0.25,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tuning():
    return ds.tune(line(), optim.SGD, lr=[0.01, 0.1, 0.4, 1e3], epochs=5, progress=False)


@pytest.fixture(scope="module")
def comparison():
    return ds.compare(
        {"价格 $x_1$": line(), "other": line()},
        [ds.Space(optim.SGD, lr=ds.Range(1e-3, 1e3)), optim.Adam],
        epochs=4, batch_size=5, budget=4, seeds=5, divergence=100.0, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def watch():
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer, probe=lambda: nn.functional.mse_loss(model(x), x)) as seen:
        for _ in range(30):
            optimizer.zero_grad()
            seen.loss(nn.functional.mse_loss(model(x), x)).backward()
            optimizer.step()
    return seen


@pytest.fixture(scope="module")
def finding(runs):
    return runs[4].explain()


def pictures_of(kind):
    """The names of the methods that draw."""
    return sorted(
        name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")
    )


PICTURES = [
    *(("runs", lambda runs, name=name: getattr(runs.plot, name)(), name)
      for name in pictures_of(Plots)),
    *(("comparison", lambda found, name=name: getattr(found.plot, name)(), name)
      for name in pictures_of(ComparisonPlots)),
    ("tuning", lambda tuning: tuning.plot(), "plot"),
    ("finding", lambda finding: finding.plot(), "plot"),
    ("watch", lambda watch: watch.plot(), "plot"),
    ("watch", lambda watch: watch.findings[0].plot(), "finding"),
    ("runs", fit_figure, "side by side"),
]  # fmt: skip


def test_all_pictures_are_among_them():
    assert pictures_of(Plots) == [
        "fit", "gradient_norm", "losses", "map", "parameters", "path", "sensitivity", "sharpness",
    ]  # fmt: skip
    assert pictures_of(ComparisonPlots) == [
        "expected_best", "profiles", "results", "sensitivity", "targets", "wins",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "draw"),
    [pytest.param(of, draw, id=f"{of}-{name}") for of, draw, name in PICTURES],
)
def test_pixels_are_the_same_in_a_dark_style(of, draw, request):
    """What is made and saved in the user's style does not differ in a pixel."""
    drawn = request.getfixturevalue(of)

    def pixels():
        buffer = io.BytesIO()
        draw(drawn).savefig(buffer, format="png", dpi=60)
        with matplotlib.style.context("default"):
            return matplotlib.image.imread(io.BytesIO(buffer.getvalue()))

    before, state = dict(matplotlib.rcParams), torch.get_rng_state()
    plain = pixels()
    assert dict(matplotlib.rcParams) == before and torch.equal(torch.get_rng_state(), state)
    with matplotlib.style.context("dark_background"):
        dark = dict(matplotlib.rcParams)
        styled = pixels()
        assert dict(matplotlib.rcParams) == dark != before
    assert plain.shape == styled.shape and (plain == styled).all()
    assert plain[0, 0, :3].min() > 0.99  # on white
