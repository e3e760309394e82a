"""The ranking of settings, and how it is told."""

import json
import re
from dataclasses import asdict
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import nn, optim
from typer.testing import CliRunner

import downslope as ds
from downslope import cli
from downslope.fit_report import plain
from downslope.ranking import Diverged, rank
from downslope.views import terminal
from downslope.views.terminal import diverged_lines


@pytest.fixture(scope="module")
def runs():
    """Adam on x² for two steps: the lower the first moment's share, the further it comes."""
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    betas = [(0.9, 0.99), (0.5, 0.99)]
    return ds.descend(problem, optim.Adam, lr=0.1, betas=betas, steps=3, seed=range(2),
                      progress=False)  # fmt: skip


def test_a_tuple_is_a_list_in_a_ranking(runs, tmp_path):
    ranked = rank(runs)
    expected = sorted(zip(runs.score[::2].tolist(), [[0.9, 0.99], [0.5, 0.99]], strict=True))
    assert [one.settings["betas"] for one in ranked] == [betas for _, betas in expected]
    told = json.loads(json.dumps(plain([asdict(one) for one in ranked])))
    assert told[0]["settings"]["betas"] == expected[0][1]
    runs.save(tmp_path / "study")
    shown = CliRunner().invoke(cli.app, ["show", str(tmp_path / "study"), "--no-chart"])
    assert shown.exit_code == 0 and "(0.9, 0.99)" in shown.output and "Series" not in shown.output
    page = runs.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "(0.9, 0.99)" in page


def test_rates_are_told_one_or_many():
    one = Diverged("SGD", 1, 3, 1000.0, 1000.0, 0.1)
    many = Diverged("SGD", 2, 3, 1.0, 1000.0, None)
    assert diverged_lines([one, many]) == [
        "SGD: 1 of 3 runs diverged, at rate 1000 (none up to 0.1)",
        "SGD: 2 of 3 runs diverged, at rates 1 to 1000",
    ]


@pytest.mark.parametrize(("length", "label"), [({"epochs": 6}, "epoch"), ({"steps": 25}, "record")])
def test_a_chart_of_a_study_tells_epochs_where_records_are_those(length, label, tmp_path):
    """25 steps in epochs of 4 end within one."""
    x = torch.linspace(-1, 1, 32).reshape(-1, 1)
    problem = ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 2 * x, loss=nn.MSELoss())
    ds.descend(problem, lr=[0.1, 0.2], batch_size=8, **length, study=tmp_path / "s", progress=False)
    said = CliRunner().invoke(cli.app, ["show", str(tmp_path / "s")])
    assert said.exit_code == 0 and re.search(rf"^ *0 +{label} +[67]$", said.output, re.MULTILINE)


@pytest.mark.parametrize("width", [24, 40, 60, 80])
def test_a_narrow_terminal_loses_nothing(width):
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    runs = ds.descend(
        problem, optim.SGD, lr=[0.1, 0.012345], momentum=[0, 0.9], steps=5, progress=False
    )
    made = StringIO()
    out = Console(file=made, width=width)
    terminal.print_ranking(
        rank(runs), out, title="All", measure="validation loss", units=lambda value: value
    )
    printed = made.getvalue()
    assert max(map(len, printed.splitlines())) <= width and "…" not in printed
    words = " ".join(printed.split())
    for one in rank(runs):
        assert f"{one.loss:.4g}" in words and f"{one.settings['lr']:.4g}" in words
