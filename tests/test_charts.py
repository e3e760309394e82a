"""Charts in text, as exact strings; and that nothing is wider than where it is printed."""

import io

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from torch import optim
from typer.testing import CliRunner

import downslope as ds
from downslope import cli
from downslope.views.charts import MARKS, Axis, Line, chart, print_chart
from downslope.views.run_charts import print_curve, print_losses, print_rates

FALLING = Line("falls", np.arange(5.0), np.array([16.0, 8.0, 4.0, 2.0, 1.0]))
RISING = Line("rises", np.arange(5.0), np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
STEPS, LOSS = Axis(0, 4, False, "step"), Axis(1, 16, True, "Loss")


def drawn(*lines, x=STEPS, y=LOSS, width=30, height=5, **more):
    return "\n".join(row.plain for row in chart(lines, x, y, width=width, height=height, **more))


def printed(draw, *args, width=80, encoding="utf-8", terminal=False, no_color=False):
    """What a console of this width shows."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    colours = "standard" if terminal else None
    out = Console(file=file, width=width, force_terminal=terminal, color_system=colours,
                  no_color=no_color, _environ={})  # fmt: skip
    draw(*args, out)
    file.flush()
    return raw.getvalue().decode(encoding)


def test_two_lines_have_a_mark_each():
    """Straight in the logarithm; the first has the even columns, the second the odd ones."""
    assert (
        drawn(FALLING, RISING)
        == """\
Loss
      16 │o o              + +
         │    o o      + +
       4 │        o+o+
         │   + + +    o o o
       1 │++                oo
         └────────────────────
          0       step       4
  o falls
  + rises"""
    )


def test_one_line_in_plain_ascii():
    assert (
        drawn(FALLING, plain=True)
        == """\
Loss
      16 |o o
         |    o o
       4 |        o o
         |            o o o
       1 |                  oo
         +--------------------
          0       step       4"""
    )


def test_one_line_in_braille():
    assert (
        drawn(FALLING, height=3, width=20)
        == """\
Loss
      16 │⠑⠢⢄⡀
       4 │   ⠈⠒⠤⡀
       1 │      ⠈⠑⠢⢄
         └──────────
          0  step  4"""
    )


def test_what_diverged_is_crossed():
    rates = Axis(1e-3, 1.0, True, "rate")
    line = Line("SGD", np.array([1e-3, 1e-2, 1e-1]), np.array([4.0, 1.0, np.nan]),
                lost=np.array([0.1, 1.0]))  # fmt: skip
    assert (
        drawn(line, x=rates, plain=True)
        == """\
Loss
diverged |             x     x
      16 |
         |
       4 |o
         |  o o
       1 |      o
         +--------------------
          0.001   rate       1"""
    )
    level = Line("Adam", np.array([1e-3, 1.0]), np.array([16.0, 16.0]))
    both = drawn(level, line, x=rates, plain=True).splitlines()
    assert both[1:3] == ["  + div. |             x     x", "      16 |o o o o o o o o o oo"]
    ended = Line("ends", FALLING.x, FALLING.y, ends=np.array([[4.0, 16.0]]))
    assert drawn(ended, plain=True).splitlines()[1] == "      16 |o o                x"


def test_gaps_and_what_lies_above_are_left_out():
    gap = Line("", np.arange(5.0), np.array([1.0, 1.0, np.nan, 1.0, 1.0]))
    floor = drawn(gap, plain=True).splitlines()[5][10:]
    assert floor[:5].strip() and floor[16:].strip() and not floor[6:14].strip()
    high = Line("", np.arange(5.0), np.array([1e9, 1e9, 16.0, 16.0, 16.0]))
    top = drawn(high, plain=True).splitlines()[1][10:]
    assert not top[:8].strip() and top[10:].strip()


def test_a_rate_is_pointed_at():
    foot = drawn(FALLING, plain=True, pointer=4.0).splitlines()[-2]
    assert foot == "         +-------------------^"


def test_of_many_lines_the_first_are_drawn():
    many = [Line(f"line {k}", FALLING.x, FALLING.y * (k + 1)) for k in range(9)]
    said = drawn(*many).splitlines()
    assert [row for row in said if "line" in row] == [
        f"  {mark} line {k}" for k, mark in enumerate(MARKS)
    ]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30),
    width=st.integers(24, 90),
    plain=st.booleans(),
    log=st.booleans(),
    name=st.text(max_size=80).filter(lambda words: words.isprintable()),
)
def test_whatever_the_numbers_it_keeps_its_size(values, width, plain, log, name):
    line = Line(name, np.arange(len(values), dtype=float), np.array(values))
    other = Line("梯度下降" * 20, line.x, -line.y)
    for lines in ([line], [line, other]):
        rows = chart(lines, Axis(0, 30, False, "steps"), Axis(1e-3, 1e3, log, name), width=width,
                     plain=plain)  # fmt: skip
        assert all(cell_len(row.plain) <= width for row in rows)
        assert len(rows) == 12 + (2 if len(lines) > 1 else 0)


@pytest.fixture(scope="module")
def runs():
    """Two optimizers, four rates, two seeds; SGD's highest rate diverges."""
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    frame = pl.DataFrame({"价格 这是一个很长的列名": x[:, 0].numpy(), "y": 3 * x[:, 0].numpy()})
    problem = ds.Problem.from_table(frame, target="y")
    rates = [0.001, 0.01, 0.1, 1e3]
    grids = [ds.Grid(optim.SGD, lr=rates), ds.Grid(optim.Adam, lr=rates[:3])]
    return ds.descend(problem, grids, seed=range(2), epochs=8, progress=False)


@pytest.mark.parametrize("width", [80, 40, 24])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "gbk"])
def test_runs_in_any_console(runs, width, encoding):
    for draw in (print_losses, print_rates):
        said = printed(draw, runs, width=width, encoding=encoding)
        assert said and all(cell_len(line) <= width for line in said.splitlines())
        assert "\x1b" not in said
        assert ("|" in said) == (encoding != "utf-8")
    assert "div." in said and ("learning rate" in said) == (width > 24)


def test_colours_on_a_terminal_alone(runs):
    assert "\x1b[" in printed(print_rates, runs, terminal=True)
    without = printed(print_rates, runs, terminal=True, no_color=True)
    assert "\x1b[3" not in without
    assert printed(print_rates, runs, width=20) == ""


def test_a_search_is_drawn_with_its_choice():
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    found = ds.tune(problem, optim.SGD, steps=3, lr=[0.01, 0.1, 0.4, 1e9], progress=False)
    said = printed(print_curve, found.curve, found.runs, found.lr, width=60)
    rows = said.splitlines()
    assert rows[0] == "Median loss against the rate" and rows[1].startswith("diverged │")
    share = np.log(0.4 / 0.01) / np.log(1e9 / 0.01)
    assert rows[-2].index("^") == 10 + round(share * 49)
    assert "(^ take this)" in rows[-1]
    few = found.curve.head(2)
    assert printed(print_curve, few, found.runs, None) == ""


def test_what_cannot_be_drawn():
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    runs = ds.descend(problem, optim.SGD, lr=1e30, steps=3, progress=False)
    assert printed(print_losses, runs) == ""  # a start and nothing after it
    assert printed(print_rates, runs) == ""
    thin = ds.descend(problem, optim.SGD, lr=0.1, steps=9, keep=("batch_loss",), progress=False)
    assert "was not kept" in printed(print_losses, thin)


def test_nothing_is_printed_without_lines():
    assert printed(lambda out: print_chart(out, [], STEPS, LOSS)) == ""


def test_show_draws_below_its_table(runs, tmp_path):
    runs.save(tmp_path / "study")
    command = ["show", str(tmp_path / "study")]
    done = CliRunner().invoke(cli.app, command, env={"COLUMNS": "80"})
    assert done.exit_code == 0 and "learning rate" in done.output and "div." in done.output
    assert max(map(cell_len, done.output.splitlines())) <= 80 and "\x1b" not in done.output
    without = CliRunner().invoke(cli.app, [*command, "--no-chart"], env={"COLUMNS": "80"})
    assert done.output.startswith(without.output) and "learning rate" not in without.output
