"""Pictures of findings: what is marked, against theory and what the runs recorded."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from drawn import png, words_in
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.cells import cell_len
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.explain.again import closer
from downslope.explain.findings import Advice, Evidence, Finding
from downslope.views.data.findings import finding_data
from downslope.views.data.rulers import ruler_of
from downslope.views.drawing.findings import draw_finding, wrapped

X = torch.arange(-5, 5, 0.1).double()
Y = -5 * X + 0.4 * torch.randn(100, generator=torch.Generator().manual_seed(1)).double()
LARGEST = 16.670681  # of the line's Hessian: 2 λmax of [x, 1]ᵀ[x, 1] / n


def descend(lr, problem=None, **asked):
    line = ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=X, y=Y, loss=nn.MSELoss(), start={"w": -10.0, "b": -20.0}
    )
    return ds.descend(problem or line, optim.SGD, lr=lr, progress=False, **asked)


def bowl():
    return ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=7.0)


@pytest.fixture(scope="module")
def exploded():
    """One sample a step in stored order, at a rate that full batches could bear."""
    runs = descend(0.1, batch_size=1, order="cyclic", epochs=3)
    return runs, runs.explain()[0]


class TestRuler:
    def test_thresholds_of_samples_in_order(self, exploded):
        runs, finding = exploded
        ruler = ruler_of(finding, runs[0])
        assert ruler is not None
        marks = {mark.words: mark.rate for mark in ruler.marks}
        assert list(marks.values()) == sorted(marks.values())
        assert marks["safe in every order below"] == pytest.approx(2 / 52)  # 2 / (2 (25 + 1))
        assert marks["full batches: stable up to"] == pytest.approx(2 / LARGEST, rel=1e-6)
        assert marks["this run's"] == 0.1
        assert marks["advised"] == finding.advice.change["lr"]
        assert ruler.stable == pytest.approx(2 / 52) and ruler.stable_words == "certain to be safe"

    def test_momentum_has_thresholds_with_and_without(self):
        runs = descend(0.3, momentum=0.9, epochs=60)
        ruler = ruler_of(runs.explain()[0], runs[0])
        marks = {mark.words: mark for mark in ruler.marks}
        assert marks["stable up to"].rate == pytest.approx(2 * 1.9 / LARGEST, rel=1e-6)
        other = marks["without momentum: up to"]
        assert other.rate == pytest.approx(2 / LARGEST, rel=1e-6) and other.kind == "otherwise"
        assert ruler.stable == marks["stable up to"].rate  # not by what other settings bear

    def test_momentum_in_batches_shows_what_is_safe_without_it(self):
        """Above the threshold of full batches, with its momentum."""
        runs = descend(0.3, momentum=0.9, batch_size=5, epochs=20)
        finding = runs.explain()[0]
        assert finding.verdict == "diverged" and finding.cause == "momentum-above-threshold"
        assert finding.evidence["safe in every order"].value == pytest.approx(2 / 52)
        assert "without momentum, rates would be certain to be safe below 0.038" in finding.sentence
        ruler = ruler_of(finding, runs[0])
        marks = {mark.words: mark for mark in ruler.marks}
        safe = marks["without momentum: safe in every order below"]
        assert safe.rate == pytest.approx(2 / 52) and safe.kind == "otherwise"
        full = marks["full batches: stable up to"].rate
        assert full == pytest.approx(2 * 1.9 / LARGEST, rel=1e-6)
        assert ruler.stable == full and ruler.stable_words == "stable for full batches"

    def test_batches_above_the_full_threshold_show_what_is_safe(self):
        runs = descend(0.3, batch_size=5, epochs=20)
        ruler = ruler_of(runs.explain()[0], runs[0])
        marks = {mark.words: mark.rate for mark in ruler.marks}
        assert marks["safe in every order below"] == pytest.approx(2 / 52) == ruler.stable
        assert ruler.stable_words == "certain to be safe"

    def test_a_curvature_gives_the_threshold(self):
        runs = descend(0.97, bowl(), steps=40)
        ruler = ruler_of(runs.explain()[0], runs[0])
        marks = {mark.words: mark.rate for mark in ruler.marks}
        assert marks["the curvature bears up to"] == pytest.approx(1.0)  # 2 / 2
        assert ruler.stable_words == "stable"

    def test_a_share_of_the_limit_gives_it_for_any_optimizer(self):
        runs = ds.descend(bowl(), optim.Adam, lr=0.1, steps=5, progress=False)
        found = Finding(0, "edge-of-stability", "edge-of-stability", "…",
                        {"curvature": Evidence(400.0, "at the end"),
                         "rate against the threshold": Evidence(1.25, "at the end")},
                        "likely")  # fmt: skip
        ruler = ruler_of(found, runs[0])
        assert [mark.rate for mark in ruler.marks] == pytest.approx([0.08, 0.1])
        assert ruler_of(replace(found, evidence={}), runs[0]) is None


class TestData:
    def test_the_run_is_seen_closely(self, exploded):
        runs, finding = exploded
        assert np.isfinite(runs.loss).sum() == 1  # an epoch is longer than it lived
        data = finding_data(finding, closer(runs[0]))
        assert data.bad_step == runs.first_bad_step[0] == 10
        assert data.steps[0] == 0 and len(data.steps) >= 2 and data.steps[-1] < 10
        assert data.batch_steps.tolist() == list(range(10))
        w, b = -10.0, -20.0  # by hand: the first sample's loss, and the second's after a step
        for k in range(2):
            miss = w * float(X[k]) + b - float(Y[k])
            assert data.batch_losses[k] == pytest.approx(miss**2)
            w, b = w - 0.1 * 2 * miss * float(X[k]), b - 0.1 * 2 * miss
        assert data.losses[0] == pytest.approx(runs.loss[0, 0])
        assert data.measured == (0.0,) and data.log
        assert "diverged, fixed order amplification (certain)" in data.title
        assert data.loss_words == "loss over all rows"

    def test_a_climb_is_cut_off(self):
        runs = descend(3.0, bowl(), steps=400, divergence=None)
        data = finding_data(runs.explain()[0], closer(runs[0]))
        assert data.losses.max() > 1e30 and data.limits[1] < 1e12

    def test_the_floor_and_its_theory(self):
        runs = descend(0.02, batch_size=1, epochs=20)
        finding = runs.explain()[0]
        assert finding.verdict == "noise-floor"
        data = finding_data(finding, closer(runs[0]))
        mean, lowest, theory = data.levels
        fitted = np.polyval(np.polyfit(X, Y, 1), X)
        least = float(((fitted - Y.numpy()) ** 2).mean())
        assert lowest.loss == pytest.approx(least, rel=1e-3)
        half = data.losses[len(data.losses) // 2 :]
        assert mean.loss == pytest.approx(half.mean())
        expected = finding.evidence["expected by theory"].value
        assert theory.loss == pytest.approx(least + expected, rel=1e-3)
        assert data.window == (1000.0, 2000.0)

    def test_waves_have_a_length(self):
        runs = descend(0.02, momentum=0.98, epochs=300)
        finding = runs.explain()[0]
        data = finding_data(finding, closer(runs[0]))
        assert data.wave == 150 / finding.evidence["waves of the loss"].value
        period = 2 * np.pi / np.arccos((1 + 0.98 - 0.02 * LARGEST) / (2 * np.sqrt(0.98)))
        assert data.wave == pytest.approx(period / 2, rel=0.2)  # the loss swings twice as fast

    def test_what_is_maximised_has_its_level_above(self):
        problem = ds.Problem.from_function(lambda x: 3 - x**2, start=2.0)
        runs = descend(0.01, problem, steps=40, maximize=True)
        data = finding_data(runs.explain()[0], closer(runs[0]))
        (level,) = data.levels
        assert level.loss == pytest.approx(3.0, rel=1e-3) and level.words.startswith("maximum")

    def test_closer_does_not_change_what_happened(self, exploded):
        runs, _ = exploded
        seen = closer(runs[0])
        assert seen.status == runs[0].status and seen.number == runs[0].number
        assert seen.runs.parameters["w"][0] == runs.parameters["w"][0]
        assert not np.isfinite(seen.loss[seen.steps > runs.steps_done[0]]).any()

    def test_loaded_runs_are_drawn_as_recorded(self, tmp_path):
        descend(0.1, epochs=5).save(tmp_path / "study")
        loaded = ds.load(tmp_path / "study")
        assert closer(loaded[0]).loss is not None
        data = finding_data(loaded.explain()[0], closer(loaded[0]))
        np.testing.assert_array_equal(data.losses, loaded.loss[0])
        assert png(loaded.explain()[0].plot())


class TestDrawing:
    def test_users_reach_it(self, exploded):
        runs, finding = exploded
        before = dict(matplotlib.rcParams)
        figure = finding.plot()
        assert isinstance(figure, Figure) and png(figure)
        assert dict(matplotlib.rcParams) == before
        assert finding == runs[0].explain()  # still plain data
        said = words_in(figure)
        assert " first bad step: 10" in said and "this run's 0.1" in said
        assert any(words.startswith("Diverged at step 10.") for words in said)

    def test_nothing_overlaps(self, exploded):
        figure = exploded[1].plot()
        png(figure)
        boxes = [axes.get_tightbbox() for axes in figure.findobj(matplotlib.axes.Axes)]
        boxes += [one.get_window_extent() for one in figure.findobj(matplotlib.legend.Legend)]
        boxes.append(figure.texts[-1].get_window_extent())
        assert len(boxes) == 4
        for place, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[place + 1 :])
        width = figure.bbox.width
        assert all(box.x0 >= -1 and box.x1 <= width + 1 for box in boxes)

    def test_its_run_is_known_or_asked_for(self, exploded):
        runs, finding = exploded
        alone = replace(finding, of=None)
        with pytest.raises(InputError, match=r"give it, as finding.plot\(runs\)"):
            alone.plot()
        assert png(alone.plot(runs)) and png(alone.plot(runs[0]))
        with pytest.raises(InputError, match="about run 7, which is not among"):
            replace(alone, run=7).plot(runs)
        with pytest.raises(InputError, match="must be Runs or a Run, got str"):
            alone.plot("runs")

    def test_a_watched_loop(self):
        model = nn.Linear(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=3.0)
        x = torch.linspace(-1, 1, 20)[:, None]
        with ds.watch(model, optimizer, probe=lambda: nn.functional.mse_loss(model(x), x)) as watch:
            for _ in range(60):
                optimizer.zero_grad()
                watch.loss(nn.functional.mse_loss(model(x), x)).backward()
                optimizer.step()
        finding = watch.findings[0]
        ruler = ruler_of(finding, watch.runs[0])
        assert ruler.stable == pytest.approx(1.0, rel=1e-3)  # 2 / λ, λ = 2 for the bias
        assert finding.plot()._repr_png_() == finding.plot(watch.runs)._repr_png_()
        assert " batch's loss" in words_in(finding.plot())
        assert all(one.of.number == 0 for one in watch.findings) and finding == watch.findings[0]

    def test_a_loop_without_a_step_has_no_picture(self):
        model = nn.Linear(1, 1)
        with ds.watch(model, optim.SGD(model.parameters(), lr=3.0)) as watch:
            pass
        with pytest.raises(InputError, match="does not know its run"):
            watch.findings[0].plot()

    def test_nothing_finite(self):
        problem = ds.Problem.from_function(lambda x: x**2, start=float("nan"))
        runs = descend(0.1, problem, steps=3)
        figure = runs.explain()[0].plot()
        assert png(figure) and "no finite loss was recorded" in words_in(figure)

    def test_hostile_sentences(self, exploded):
        runs, finding = exploded
        name = "价格 $x_1$ " * 20
        hostile = replace(finding, sentence=f"The column {name} is large.",
                          advice=Advice({"lr": 1e-30}, "stable", "…"))  # fmt: skip
        figure = draw_finding(finding_data(hostile, runs[0]))
        assert png(figure) and any(r"\$x_1\$" in words for words in words_in(figure))

    @given(st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=200),
           st.integers(2, 60))  # fmt: skip
    def test_wrapped_keeps_every_letter(self, words, cells):
        lines = wrapped(words, cells)
        assert "".join(lines).replace(" ", "") == "".join(words.split())
        assert all(cell_len(line) <= cells for line in lines)
