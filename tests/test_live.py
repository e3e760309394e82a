"""Live views: what they show while runs are carried out, and that the runs do not notice."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import types
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from torch import nn, optim

import downslope as ds
from downslope.engines.fused.glimpses import complete
from downslope.engines.work import some_of
from downslope.errors import InputError
from downslope.views import live
from downslope.views.data.live import Live, LiveLine, of_losses
from downslope.views.drawing.live import LivePicture
from downslope.views.drawing.style import Picture
from downslope.views.live import LiveView, LiveViewWarning, Notebook, Terminal, Window
from downslope.views.live_chart import live_rows

BOTH = ("loss", "parameters")


class Screen:
    """A screen that keeps what it is shown."""

    fits = True

    def __init__(self, shown=None):
        self.shown, self.closed, self.on_show = [], 0, shown or (lambda data: None)

    def show(self, data):
        self.shown.append(data)
        self.on_show(data)

    def close(self):
        self.closed += 1


@pytest.fixture
def screen(monkeypatch):
    """A view on this screen at every record, whatever is asked for."""
    made = Screen()
    monkeypatch.setattr(live, "where_to_show", lambda asked: "notebook")
    monkeypatch.setattr(live, "screen_for", lambda where: made)
    monkeypatch.setattr(live, "_OFTEN", 0.0)
    monkeypatch.setattr(live, "_SHARE", 1e9)
    return made


def net_problem():
    x = torch.linspace(-1, 1, 40).reshape(-1, 1)
    return ds.Problem.from_model(
        lambda: nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), x, x**2,
        loss=nn.MSELoss(),
    )  # fmt: skip


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


def same_bits(one, other):
    for name in ("status", "first_bad_step", "steps_done", "steps", "loss"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for kind in ("parameters", "path"):
        for name, value in (getattr(one, kind) or {}).items():
            assert torch.equal(value.nan_to_num(), getattr(other, kind)[name].nan_to_num())


class TestRuns:
    @pytest.mark.parametrize(
        ("engine", "rates", "steps"),
        [("looped", [0.05, 0.5, 1e4], 60), ("stacked", [0.05, 0.5, 1e4] * 3, 200),
         ("fused", [0.05, 0.5, 1e4] * 40, 40_000)],
    )  # fmt: skip
    @pytest.mark.parametrize("keep", [("loss",), BOTH])
    def test_a_view_changes_no_bit_and_shows_nothing_but_the_records(
        self, screen, engine, rates, steps, keep
    ):
        asked = {"lr": rates, "steps": steps, "every": steps // 20, "keep": keep,
                 "batch_size": 7, "engine": engine}  # fmt: skip
        state = torch.get_rng_state()
        plain, seen = (descend(net_problem(), **asked, live=view) for view in (None, True))
        assert torch.equal(torch.get_rng_state(), state)
        same_bits(plain, seen)
        assert seen.diverged.any() and screen.closed == 1
        shown = np.unique(np.linspace(0, len(seen) - 1, 6).round().astype(int))
        for data in screen.shown:
            for line in data.lines:
                matching = [
                    run for run in shown
                    if np.array_equal(self.at(seen, run, line.steps), line.losses)
                ]  # fmt: skip
                assert matching, "a loss that no run has at this step"
        for run, line in zip(shown, screen.shown[-1].lines, strict=True):
            np.testing.assert_array_equal(line.losses, seen.loss[run][np.isfinite(seen.loss[run])])
            assert line.diverged == seen.diverged[run]
        count = f"{len(seen)} of {len(seen)} runs done, {seen.diverged.sum()} diverged"
        assert count in screen.shown[-1].words
        assert f"best loss {seen.best.loss[-1]:.4g}" in screen.shown[-1].words
        assert (screen.shown[-1].made is not None) == (keep == BOTH)

    @staticmethod
    def at(runs, run, steps):
        places = np.searchsorted(runs.plan.work(runs.plan.chunks[0]).record_at, steps)
        return runs.loss[run][places]

    def test_the_prediction_is_that_of_the_recorded_parameters(self, screen):
        problem = ds.Problem.from_function(
            lambda x, w, b: w * x + b, X=torch.linspace(-1, 1, 9).double(),
            y=torch.linspace(-1, 1, 9).double(), loss=nn.MSELoss(),
            start={"w": torch.tensor(3.0).double(), "b": torch.tensor(1.0).double()},
        )  # fmt: skip
        runs = descend(problem, lr=0.3, steps=12, every="step", keep=BOTH, live=True)
        seen = [data for data in screen.shown if data.made is not None]
        assert len(seen) >= 12
        for data in seen:
            record = int(data.lines[0].steps[-1])
            w, b = (float(runs.path[name][0, record]) for name in ("w", "b"))
            np.testing.assert_allclose(data.made, w * data.ground.at + b)
            assert data.of_fit == f"step {record}, loss {runs.loss[0, record]:.4g}"

    def test_nothing_is_forked_and_a_study_is_resumed(self, screen, tmp_path, monkeypatch):
        monkeypatch.setattr(ds.execution, "WORTH_PROCESSES", 0.0)
        monkeypatch.setattr("multiprocessing.get_context", None)
        asked = {"lr": [0.01 * k for k in range(1, 40)], "steps": 4, "engine": "looped"}
        runs = descend(net_problem(), **asked, live=True, study=tmp_path / "a")
        assert "39 of 39 runs done" in screen.shown[-1].words
        again = descend(net_problem(), **asked, live=True, study=tmp_path / "a")
        same_bits(runs, again)

    def test_a_study_that_is_whole_shows_no_empty_picture(self, screen, tmp_path):
        asked = {"lr": [0.1, 0.2], "steps": 4, "study": tmp_path / "whole"}
        descend(net_problem(), **asked)
        assert len(descend(net_problem(), **asked, live=True)) == 2
        assert not screen.shown and screen.closed == 1

    def test_more_steps_than_a_picture_can_show(self):
        assert some_of(5).tolist() == [0, 1, 2, 3, 4]
        many = some_of(10**7)
        assert len(many) == 2000 and many[0] == 0 and many[-1] == 10**7 - 1

    def test_a_view_that_fails_costs_no_run(self, screen):
        def fail(data):
            raise BrokenPipeError("the reader has gone")

        screen.on_show = fail
        plain = descend(net_problem(), lr=[0.1, 0.2], steps=20)
        with pytest.warns(LiveViewWarning, match="BrokenPipeError: the reader has gone"):
            seen = descend(net_problem(), lr=[0.1, 0.2], steps=20, live=True)
        same_bits(plain, seen)
        assert len(screen.shown) == 1 and "looped" in seen.settings["engine"][0]

    def test_a_model_that_takes_other_rows_only_is_shown_without_prediction(self, screen):
        class Picky(nn.Linear):
            def forward(self, x):
                if len(x) == 201:
                    raise ValueError("not so many")
                return super().forward(x)

        x = torch.linspace(-1, 1, 12).reshape(-1, 1)
        problem = ds.Problem.from_model(lambda: Picky(1, 1), x, x, loss=nn.MSELoss())
        with pytest.warns(LiveViewWarning, match="no prediction is shown: ValueError: not so many"):
            runs = descend(problem, lr=0.1, steps=3, keep=BOTH, live=True)
        assert len(runs) == 1 and screen.shown[-1].made is None and screen.shown[-1].lines

    def test_ctrl_c_keeps_what_was_finished(self, screen):
        once = []

        def stop(data):
            if "20 of" in data.words and not once:
                once.append(data)
                signal.raise_signal(signal.SIGINT)

        screen.on_show = stop
        rates = [0.001 * k for k in range(1, 41)]
        with pytest.warns(ds.InterruptedWarning):
            runs = descend(net_problem(), lr=rates, steps=3, engine="looped", live=True)
        assert 0 < len(runs) <= 20 and screen.closed == 1

    def test_ctrl_c_while_the_last_is_drawn_keeps_every_run(self, screen):
        """Drawing begins when the outcome of what is drawn is held."""

        def stop(data):
            if "3 of 3 runs done" in data.words:
                raise KeyboardInterrupt

        screen.on_show = stop
        asked = {"lr": [0.1, 0.2, 0.3], "steps": 5, "engine": "looped"}
        with pytest.warns(ds.InterruptedWarning, match="3 of 3 runs were finished"):
            runs = descend(net_problem(), **asked, live=True)
        same_bits(runs, descend(net_problem(), **asked))
        assert screen.closed == 1 and "3 of 3 runs done" in screen.shown[-1].words

    def test_a_failing_view_is_told_when_the_study_is_whole(self, screen, tmp_path):
        """Where warnings are errors, they are not taken for the descent's own."""

        def fail(data):
            raise BrokenPipeError("gone")

        screen.on_show = fail
        asked = {"lr": [0.1, 0.2], "steps": 5, "study": tmp_path / "kept", "live": True}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(LiveViewWarning, match="BrokenPipeError: gone"):
                descend(net_problem(), **asked)
        assert len(ds.load(tmp_path / "kept")) == 2

    @pytest.mark.parametrize("engine", ["looped", "stacked", "fused"])
    def test_runs_that_end_early_are_told_with_their_own_last_loss(self, screen, engine):
        x = torch.linspace(-1, 1, 40).reshape(-1, 1)
        line = ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 2 * x, loss=nn.MSELoss())
        runs = descend(line, lr=[0.01, 0.05, 0.3], epochs=2000, tolerance=1e-3, engine=engine,
                       live=True)  # fmt: skip
        assert (runs.table["status"] == "converged").all() and runs.steps_done.max() < 2000
        last, best = screen.shown[-1], runs.best.row
        assert last.words == (
            f"step {runs.steps_done.max():,} of 2,000, 3 of 3 runs done, "
            f"best loss {best['final_loss']:.4g} (SGD, lr {best['lr']})"
        )
        for run, shown_ in enumerate(last.lines):
            assert shown_.steps[-1] == runs.steps_done[run]

    def test_the_longest_run_counts_where_it_has_no_line(self, screen):
        rates = [0.3, 0.001, *[0.3] * 30]  # the slow one is none of the six that are drawn
        x = torch.linspace(-1, 1, 40).reshape(-1, 1)
        line = ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 2 * x, loss=nn.MSELoss())
        runs = descend(line, lr=rates, epochs=500, tolerance=1e-3, live=True)
        assert runs.steps_done[1] > 3 * max(runs.steps_done[0], runs.steps_done[2:].max())
        assert screen.shown[-1].words.startswith(f"step {runs.steps_done[1]:,} of 500, 32 of 32")

    def test_the_longest_runs_count_where_batches_differ(self, screen):
        descend(net_problem(), lr=0.1, batch_size=[20, "full"], epochs=30, live=True)
        last = screen.shown[-1]
        assert last.words.startswith("step 60 of 60, 2 of 2 runs done") and last.until == 60

    def test_maximising_looks_for_the_highest(self, screen):
        problem = ds.Problem.from_function(lambda x: -((x - 1) ** 2), start=3.0)
        runs = descend(problem, lr=[0.1, 0.01], steps=9, maximize=True, live=True)
        assert f"best loss {runs.best.loss[-1]:.4g} (SGD, lr 0.1)" in screen.shown[-1].words

    def test_the_loss_must_be_kept(self, screen):
        with pytest.raises(InputError, match="add 'loss' to keep="):
            descend(net_problem(), steps=3, keep=("parameters",), live=True)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(-1, 100), st.integers(1, 99)
)
def test_only_whole_records_of_a_compiled_program_are_counted(gaps, progress, edge):
    """Records at most up to the progress; the one at the end of a call only when passed."""
    at = np.concatenate([[0], np.cumsum(gaps)])
    progress = min(progress, int(at[-1]))
    edges = {edge} if 0 < edge < at[-1] else set()
    (count,) = complete(at, np.array([progress]), edges)
    assert count == sum(
        step < progress or (step == progress and step not in edges) for step in at.tolist()
    )


class TestWatch:
    def test_losses_come_as_they_are_given(self, screen):
        model = nn.Linear(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        x = torch.linspace(-1, 1, 16).reshape(-1, 1)
        given_losses = []
        with ds.watch(model, optimizer, live=True) as watch:
            for _ in range(60):
                optimizer.zero_grad()
                loss = watch.loss(nn.functional.mse_loss(model(x), 2 * x))
                given_losses.append(loss.item())
                loss.backward()
                optimizer.step()
        assert len(screen.shown) >= 60 and screen.closed == 1
        for data in screen.shown:
            np.testing.assert_array_equal(
                data.lines[0].losses, given_losses[: len(data.lines[0].losses)]
            )
        assert screen.shown[-1].words.startswith("step 60, loss ")

    def test_ctrl_c_while_the_last_is_drawn_loses_no_step(self, screen):
        ended = []

        def stop(data):
            if ended:
                raise KeyboardInterrupt

        screen.on_show = stop
        model = nn.Linear(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        with ds.watch(model, optimizer, live=True) as watch:
            for _ in range(5):
                watch.loss(model(torch.ones(1, 1)).square().mean()).backward()
                optimizer.step()
            ended.append(True)
        assert watch.table.height == 5 and screen.closed == 1

    def test_losses_that_are_not_finite_are_counted(self):
        data = of_losses([1.0, None, 0.5, float("nan"), float("inf")])
        assert data.lines[0].steps.tolist() == [1, 3] and data.words.endswith("2 losses not finite")
        assert of_losses([]).words == "step 0"
        assert "last finite loss 0.5 at step 3" in data.words
        assert of_losses([1.0, None]).words == "step 2, loss 1"

    def test_without_losses_it_says_how_to_give_them(self):
        data = of_losses([None] * 20)
        assert data.words == "step 20, no loss was given: loss = watch.loss(loss)"
        assert rows_in(60, 20, data) == [data.words]
        assert not LivePicture(data).axes.get_visible()
        assert LivePicture(shown()).axes.get_visible()

    def test_many_losses_are_drawn_as_means_and_one_spike_spoils_no_other(self):
        losses = np.linspace(2.0, 1.0, 100_001)
        spiked = losses.copy()
        spiked[5] = 1e35
        plain, odd = of_losses(losses.tolist()), of_losses(spiked.tolist())
        assert len(plain.lines[0].losses) <= 2_000 and plain.until == 100_001
        for one, other in zip(plain.lines, odd.lines, strict=True):
            same = one.losses == other.losses
            assert same[-1] and (~same).sum() <= 40
        first = plain.lines[0]
        assert first.losses[0] == pytest.approx(losses[:51].mean(), rel=1e-14)
        assert first.steps[0] == 51 and first.steps[-1] == 100_001
        recent = losses[-(38 * 51 + 41) :]  # 39 of 1,961 blocks, of which the last holds 41
        assert plain.words == f"step 100,001, loss {recent.mean():.4g} (mean of the last 1,979)"
        assert plain.lines[1].losses[-1] == pytest.approx(recent.mean(), rel=1e-3)


def shown(**changed):
    """Two lines: from 1 to 0.01 in two decades, and one that stays at 1."""
    steps = np.arange(0.0, 101.0)
    lines = (LiveLine("falling", steps, 10.0 ** (-steps / 50)),
             LiveLine("价格 $x$", steps[:51], np.ones(51)))  # fmt: skip
    given_ = {"lines": lines, "of_lines": 2, "words": "step 100 of 100, loss 0.01",
              "until": 100.0, "limits": (0.01, 1.0), "log": True}  # fmt: skip
    return Live(**{**given_, **changed})


def rows_in(width, height, data=None, encoding="utf-8"):
    """What a terminal of this size and encoding shows."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    out = Console(file=file, width=width, height=height, force_terminal=True, _environ={})
    return [row.plain for row in live_rows(shown() if data is None else data, out)]


class TestChart:
    def test_lines_have_marks_and_their_names_stand_below_with_their_losses(self):
        words, title, *rows = rows_in(60, 20)
        assert words == "step 100 of 100, loss 0.01" and title == "Loss"
        drawn = [row.partition("│")[2] for row in rows if "│" in row]
        falling = [[at for at, mark in enumerate(row) if mark == "o"] for row in drawn]
        assert falling[0][0] == 0 and falling[-1][-1] == 60 - 1 - 10 - 1  # from corner to corner
        assert all(above[-1] < below[0] for above, below in pairwise(falling))
        assert 20 < len(drawn[0]) < 30 and not any("+" in row for row in drawn[1:])  # half way
        assert rows[0].split()[0] == "1" and rows[len(drawn) - 1].split()[0] == "0.01"
        assert rows[-3].split() == ["0", "step", "100"]
        assert rows[-2:] == ["  o falling: 0.01", "  + 价格 $x$: 1"]

    def test_a_single_line_is_drawn_in_dots(self):
        rows = rows_in(60, 20, shown(lines=shown().lines[:1], of_lines=1))
        assert rows[1] == "Loss, falling: 0.01" and rows[-1].split() == ["0", "step", "100"]
        assert any("\u2801" <= letter <= "\u28ff" for row in rows for letter in row)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
    def test_an_encoding_without_the_letters_gets_ascii(self, encoding):
        for lines in (shown().lines[:1], shown().lines):
            rows = rows_in(60, 20, shown(lines=lines), encoding)
            assert all(row.isascii() for row in rows) and any("|o" in row for row in rows)

    @pytest.mark.parametrize("width", [1, 2, 10, 24, 32, 40, 41, 80, 300])
    @pytest.mark.parametrize("height", [1, 3, 6, 10, 11, 24, 60])
    @pytest.mark.parametrize("label", ["lr[a\n$x_1$]", "learning rate 价格 " * 9])
    def test_it_fits(self, width, height, label):
        line = LiveLine(label, np.arange(9.0), np.geomspace(9, 1, 9))
        for count in (1, 2, 6):
            rows = rows_in(width, height, shown(lines=(line,) * count))
            assert max(map(cell_len, rows)) <= max(width - 1, 1)
            assert len(rows) <= height
            assert any("│" in row for row in rows) == (
                width > 40 and height >= 9 + (count if count > 1 else 0)
            )
            named = [row for row in rows if ": 1" in row]
            if width >= 24 and height > 3 + count:
                assert len(named) == count and all(row.endswith(": 1") for row in named)

    def test_narrow_terminals_are_told_names_alone(self):
        assert rows_in(32, 20) == [
            "step 100 of 100, loss 0.01", "  o falling: 0.01", "  + 价格 $x$: 1",
        ]  # fmt: skip
        assert rows_in(24, 3) == ["step 100 of 100, loss…"]

    def test_nothing_to_show_and_what_is_outside(self):
        empty = shown(lines=(LiveLine("a", np.empty(0), np.empty(0)),))
        assert "Loss, a: not begun" in rows_in(60, 20, empty)
        wild = LiveLine("a", np.arange(2.0), np.array([1.0, 1e30]), diverged=True)
        rows = rows_in(60, 20, shown(lines=(wild, shown().lines[0])))
        top = next(row for row in rows if "│" in row)
        assert "  o a: diverged" in rows and top.index("×") == 10  # step 1 of 100


class TestScreens:
    def test_a_notebook_updates_one_output(self):
        class Handle:
            def __init__(self):
                self.pictures = []

            def __call__(self, first):
                self.pictures.append(first)
                return self

            def update(self, next_):
                self.pictures.append(next_)

        handle = Handle()
        view = Notebook(handle)
        for count in (1, 2):
            view.show(shown(lines=shown().lines[:count]))
        view.close()
        first, second = (p._repr_png_() for p in handle.pictures)
        assert first.startswith(b"\x89PNG") and first != second
        assert repr(handle.pictures[0]) == "<step 100 of 100, loss 0.01>"

    def test_pictures_are_drawn_in_their_own_style(self):
        with matplotlib.rc_context({"figure.facecolor": "black", "lines.color": "white"}):
            dark = LivePicture(shown()).png()
        assert dark == LivePicture(shown()).png()

    def test_a_picture_follows_what_it_is_shown(self):
        drawn = LivePicture(shown(lines=shown().lines[:1]))
        drawn.show(shown(log=False, limits=(0.0, 2.0)))
        assert drawn.axes.get_ylim() == (0, 2) and drawn.axes.get_yscale() == "linear"
        np.testing.assert_array_equal(drawn.lines[1].get_ydata(), np.ones(51))
        assert [t.get_text() for t in drawn.legend.get_texts()] == [" falling", " □□ \\$x\\$"] or [
            t.get_text() for t in drawn.legend.get_texts()
        ] == [" falling", " 价格 \\$x\\$"]

    def test_a_terminal_of_any_size(self):
        for width, height in ((80, 24), (40, 12), (12, 5), (3, 2)):
            out = Console(force_terminal=True, width=width, height=height, file=io.StringIO())
            view = Terminal(out)
            view.show(shown())
            view.show(shown())
            view.close()
            assert len(out.file.getvalue()) > 20

    def test_a_window_by_pyplot(self):
        asked = []

        class Numbered(Picture):
            number = 1

        figure = Numbered()
        figure.canvas.flush_events = lambda: asked.append("flush")
        plt = types.SimpleNamespace(
            get_backend=lambda: "TkAgg", figure=lambda: figure,
            show=lambda block: asked.append(("show", block)), close=lambda f: None,
            fignum_exists=lambda number: "closed" not in asked,
        )  # fmt: skip
        view = Window(plt)
        view.show(shown())
        view.show(shown(limits=(0.001, 1.0)))
        assert asked == [("show", False), "flush", "flush"]
        assert figure.axes[0].get_ylim() == (0.001, 1.0)
        asked.append("closed")
        view.show(shown(limits=(1.0, 2.0)))
        assert figure.axes[0].get_ylim() == (0.001, 1.0)  # closed by hand: left alone

    def test_it_redraws_seldom_where_that_takes_long(self):
        now = [0.0]

        def slow(data):
            now[0] += 0.1

        view = LiveView(Screen(slow), clock=lambda: now[0])
        view.look_at(lambda: [1.0])
        assert not view.due()
        now[0] += 0.9
        assert not view.due()
        now[0] += 0.2
        assert view.due()


class TestWhere:
    def test_where_nobody_looks_on_there_is_none(self, capfd):
        assert live.where_to_show(True) is None
        assert live.where_to_show(None) is None and live.where_to_show(False) is None
        descend(net_problem(), lr=0.1, steps=2, live=True)
        assert capfd.readouterr() == ("", "")

    def test_a_kernel_shows_a_notebook(self, monkeypatch):
        shell = types.SimpleNamespace(kernel=object())
        fake = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", fake)
        assert live.where_to_show(True) == "notebook"
        shell.kernel = None  # IPython in a terminal, here without one
        assert live.where_to_show(True) is None

    @pytest.mark.parametrize(
        ("asked", "words"),
        [("terminals", "did you mean 'terminal'"), (3, "True, False or one of"),
         ("terminal", "needs a terminal, and stderr is none")],
    )  # fmt: skip
    def test_what_is_not_possible_is_told_before_anything_is_computed(
        self, asked, words, monkeypatch
    ):
        monkeypatch.setattr("downslope.descent.make_plan", None)
        with pytest.raises(InputError, match=words):
            descend(net_problem(), lr=0.1, steps=2, live=asked)
        model = nn.Linear(1, 1)
        with pytest.raises(InputError, match=words):
            ds.watch(model, optim.SGD(model.parameters(), lr=0.1), live=asked)

    def test_where_many_descents_are_made_there_is_none(self):
        problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
        with pytest.raises(InputError, match="tune has no live view: it makes many descents"):
            ds.tune(problem, lr=[0.1, 0.2], steps=3, live=True)
        with pytest.raises(InputError, match="compare has no live view: it makes many descents"):
            ds.compare("booth", steps=3, live="notebook")
        assert ds.tune(problem, lr=[0.1, 0.4], steps=3, live=False, progress=False).lr == 0.4

    def test_true_and_false_of_numpy_are_those_of_python(self):
        assert live.where_to_show(np.False_) is None
        assert live.where_to_show(np.True_) == live.where_to_show(True)

    def test_without_ipython(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match="needs IPython, which is not installed"):
            live.where_to_show("notebook")

    def test_what_draws_to_files_has_no_windows(self):
        with pytest.raises(InputError, match=r"display and a window toolkit .* draws by 'agg'"):
            Window(types.SimpleNamespace(get_backend=lambda: "agg"))

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there may be a display")
    def test_without_a_display_there_is_no_window(self):
        code = (
            "import downslope as ds\n"
            "p = ds.Problem.from_function(lambda x: x**2, start=1.0)\n"
            "try:\n    ds.descend(p, steps=3, live='window')\n"
            "except ds.InputError as error:\n    print(error)"
        )
        hidden = {"DISPLAY", "WAYLAND_DISPLAY"}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
            env={**kept, "MPLBACKEND": "TkAgg"},
        )  # fmt: skip
        assert said.stdout.startswith("live='window' needs a display and a window toolkit")
        assert said.stdout.count("\n") == 1, said.stderr


SCRIPT = """
import downslope as ds
import torch
from torch import nn
x = torch.linspace(-1, 1, 40).reshape(-1, 1)
problem = ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 2 * x, loss=nn.MSELoss())
print("first line")
runs = ds.descend(problem, lr=[0.001, 0.1, 1e5], steps=STEPS, every=20, engine="looped", live=True)
print("runs:", len(runs))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals are Linux's here")
class TestPseudoTerminal:
    def run(self, steps, interrupt=False):
        """What a real terminal of 70 × 24 is sent."""
        import fcntl
        import pty
        import struct
        import termios

        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.replace("STEPS", str(steps))],
            stdin=child, stdout=child, stderr=child, start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        os.close(child)
        sent, end = b"", time.monotonic() + 90
        while time.monotonic() < end:
            try:
                part = os.read(parent, 65536)
            except OSError:  # Linux's way to say that the other side was closed
                break
            if not part:
                break
            sent += part
            if interrupt and b"0 of 3 runs done" in sent:
                process.send_signal(signal.SIGINT)
                interrupt = False
        os.close(parent)
        process.wait(timeout=30)
        return sent.decode(), process.returncode

    def test_a_chart_redraws_itself_in_place(self):
        sent, code = self.run(6000)
        assert code == 0
        assert "\x1b[1A" in sent and "\x1b[2K" in sent  # up a line, and clear it
        assert sent.count("6,000\r\n") > 2  # the axis, drawn again and again
        last = sent[sent.rindex("step 6,000 of 6,000") :]
        assert "3 of 3 runs done" in last and "1 diverged" in last
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
        assert re.search(r"│ *o", plain) and re.search(r"│ *o? *\+", plain) and "×" in plain
        assert "  o SGD, lr 0.001: " in plain and "  * SGD, lr 1e+05: diverged" in plain
        assert last.rstrip().endswith("runs: 3") and "\x1b[?25h" in last  # the cursor is back

    def test_ctrl_c_gives_the_cursor_back(self):
        sent, code = self.run(10**6, interrupt=True)
        assert sent.rstrip().endswith("KeyboardInterrupt") and code != 0
        assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")
