"""Fits: curves, residuals, regions of classes, counts; rows kept apart drawn apart."""

import numpy as np
import polars as pl
import pytest
import torch
from drawn import png, words_in
from torch import nn, optim

import downslope as ds
from downslope.errors import DownslopeError, InputError
from downslope.views.data.classes import counts
from downslope.views.data.fits import fit
from downslope.views.drawing.fits import draw_fit


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


@pytest.fixture(scope="module")
def line():
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    noise = 0.1 * torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    problem = ds.Problem.from_model(
        lambda: nn.Linear(1, 1), x, 3 * x + 1 + noise, loss=nn.MSELoss()
    )
    return descend(problem, lr=[0.01, 0.1, 1e3], batch_size=5, epochs=6, validation=0.25)


class TestNumbers:
    def test_one_feature(self, line):
        data = fit(line)
        w, b = (float(v) for v in line.best.parameters.values())
        assert data.kind == "curve" and len(data.x) == 15
        np.testing.assert_allclose(data.made_y, w * data.made_x + b, rtol=1e-5)
        np.testing.assert_array_equal(data.y, line.plan.problem.train.y[:, 0].double())

    def test_rows_kept_apart_are_drawn_apart(self, line):
        data = fit(line)
        (apart,) = data.apart
        assert apart.label == "validation rows" and len(apart.x) == 5
        np.testing.assert_array_equal(apart.y, line.plan.problem.validation.y[:, 0].double())
        # the curve reaches them too
        assert data.made_x[0] == min(data.x.min(), apart.x.min())
        assert " validation rows" in words_in(draw_fit(data))

    def test_a_table_is_drawn_in_its_own_units(self):
        frame = pl.DataFrame({"rooms": np.arange(40.0) + 10, "price": 100 * np.arange(40.0) + 5})
        problem = ds.Problem.from_table(frame, target="price")
        data = fit(descend(problem, lr=0.1, epochs=300))
        assert data.names == ("rooms", "price")
        np.testing.assert_allclose(data.y, 100 * (data.x - 10) + 5, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(data.made_y, 100 * (data.made_x - 10) + 5, rtol=1e-2, atol=1)
        assert [part.label for part in data.apart] == ["validation rows", "test rows"]
        for part in data.apart:
            np.testing.assert_allclose(part.y, 100 * (part.x - 10) + 5, rtol=1e-4, atol=1e-2)

    def test_several_features(self):
        x = np.arange(30.0)
        frame = pl.DataFrame({"a$": x, "b": np.sin(x), "price": 2 * x + np.sin(x)})
        runs = descend(ds.Problem.from_table(frame, target="price"), lr=0.3, epochs=300)
        data = fit(runs)
        assert data.kind == "numbers" and data.names == ("True price", "Predicted price")
        for part in (data, *data.apart):
            np.testing.assert_allclose(part.y, part.x, atol=1e-2)
        by_name, by_place = fit(runs, "b"), fit(runs, 1)
        np.testing.assert_array_equal(by_name.x, by_place.x)
        assert by_name.kind == "feature" and np.abs(by_name.x).max() <= 1
        for unknown in ("c", 2, -1, True):
            with pytest.raises(InputError, match=f"no feature {unknown!r}"):
                runs.plot.fit(unknown)
        assert png(runs.plot.fit("a$")) and png(runs.plot.fit())

    def test_residuals_are_true_less_predicted(self):
        x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
        y = torch.tensor([[1.0], [2.0], [3.0]])
        zero = nn.Linear(2, 1)
        zero.weight.data, zero.bias.data = torch.zeros(1, 2), torch.tensor([0.5])
        runs = descend(ds.Problem.from_model(zero, x, y, loss=nn.MSELoss()), lr=0.0, epochs=1)
        figure = draw_fit(fit(runs))
        left, right = figure.axes
        np.testing.assert_allclose(
            left.collections[0].get_offsets(), [[1, 0.5], [2, 0.5], [3, 0.5]]
        )
        np.testing.assert_allclose(
            right.collections[0].get_offsets(), [[0.5, 0.5], [0.5, 1.5], [0.5, 2.5]]
        )

    def test_what_cannot_be_drawn_is_told(self, line):
        bowl = ds.Problem.from_function(lambda x: x**2, start=1.0)
        with pytest.raises(InputError, match="no data"):
            descend(bowl, steps=1).plot.fit()
        x = torch.linspace(-1, 1, 8).reshape(-1, 1)
        two = ds.Problem.from_model(nn.Linear(1, 2), x, torch.cat([x, x], dim=1), loss=nn.MSELoss())
        with pytest.raises(InputError, match="one output"):
            descend(two, epochs=1).plot.fit()
        with pytest.raises(DownslopeError, match="none of the 1 runs"):
            line[2:].plot.fit()


class TestClasses:
    @pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
    def test_classes_are_counted(self, loss):
        x = np.linspace(-1, 1, 50)
        frame = pl.DataFrame({"x": x, "kind": np.where(x > 0, "_up$", "down")})
        problem = ds.Problem.from_table(frame, target="kind", loss=loss)
        data = fit(descend(problem, lr=1.0, epochs=100))
        assert data.kind == "classes" and data.classes == ("_up$", "down")
        assert data.counts.sum() == len(problem.train)
        assert np.trace(data.counts) >= len(problem.train) - 2
        assert png(draw_fit(data))

    def test_counts(self):
        true, made = np.array([0, 1, 1, 2, -100]), np.array([0, 1, 0, 2, 1])
        np.testing.assert_array_equal(
            counts(true, made, 3, ignored=-100), [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
        )
        with pytest.raises(InputError, match="counted from 0, but the target holds -100"):
            counts(true, made, 3)

    def test_one_output_cannot_tell_more_than_two_classes(self):
        x = torch.linspace(-1, 1, 8).reshape(-1, 1)
        counted = ds.Problem.from_model(
            nn.Linear(1, 1), x, torch.arange(8).reshape(-1, 1) * 1_000_000,
            loss=lambda made, y: ((made - y) ** 2).mean(),
        )  # fmt: skip
        assert fit(descend(counted, lr=0.0, epochs=1)).kind == "curve"

    def test_a_model_that_gives_no_tensor_is_told(self):
        class Pair(nn.Linear):
            def forward(self, x):
                made = super().forward(x)
                return made, made

        x = torch.linspace(-1, 1, 8).reshape(-1, 1)
        pair = ds.Problem.from_model(
            Pair(1, 1), x, x, objective=lambda model, x, y: (model(x)[0] - y).square().mean()
        )
        with pytest.raises(InputError, match="gives a tensor, but it gives a tuple"):
            descend(pair, epochs=1).plot.fit()

    def test_classes_have_no_feature_to_be_drawn_against(self):
        x = torch.linspace(-1, 1, 8).reshape(-1, 1)
        problem = ds.Problem.from_model(
            nn.Linear(1, 2), x, (x[:, 0] > 0).long(), loss=nn.CrossEntropyLoss()
        )
        with pytest.raises(InputError, match="holds classes: leave it out"):
            descend(problem, epochs=1).plot.fit(0)


def known_classifier(weights, bias, loss, y):
    """A linear classifier that stays where it is."""
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0], [1.0, 3.0], [3.0, 1.0]])
    model = nn.Linear(2, len(bias))
    model.weight.data, model.bias.data = torch.tensor(weights), torch.tensor(bias)
    return descend(ds.Problem.from_model(model, x, y, loss=loss), lr=0.0, epochs=1)


class TestRegions:
    def test_those_of_a_known_binary_classifier(self):
        y = torch.tensor([[0.0], [1], [0], [1], [0], [1]])
        runs = known_classifier([[2.0, -1.0]], [-1.0], nn.BCEWithLogitsLoss(), y)
        data = fit(runs)
        assert data.kind == "regions" and data.names == ("x[0]", "x[1]")
        u, v = np.meshgrid(*data.regions.axes)
        np.testing.assert_array_equal(data.regions.predicted, 2 * u - v - 1 > 0)
        assert data.regions.axes[0][0] < 0 and data.regions.axes[0][-1] > 4
        np.testing.assert_array_equal(data.of_class, [0, 1, 0, 1, 0, 1])
        assert data.counts.tolist() == [[3, 0], [0, 3]]

    def test_those_of_a_known_classifier_of_three(self):
        weights, bias = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [0.0, 0.5, 4.0]
        y = torch.tensor([2, 0, 1, 1, 1, 0])
        data = fit(known_classifier(weights, bias, nn.CrossEntropyLoss(), y))
        u, v = np.meshgrid(*data.regions.axes)
        scores = np.stack([u, v + 0.5, 4 - u - v])
        away = np.sort(scores, axis=0)[-1] - np.sort(scores, axis=0)[-2] > 1e-5
        np.testing.assert_array_equal(data.regions.predicted[away], scores.argmax(0)[away])
        assert data.classes == ("0", "1", "2")

    def test_a_table_in_its_own_units(self):
        rng = np.random.default_rng(0)
        height, mass = rng.uniform(150, 200, 120), rng.uniform(50, 100, 120)
        frame = pl.DataFrame(
            {"height (cm)": height, "mass $": mass,
             "kind": np.where(height - 100 > mass, "light", "heavy")}
        )  # fmt: skip
        problem = ds.Problem.from_table(frame, target="kind")
        data = fit(descend(problem, optim.Adam, lr=0.1, epochs=300))
        assert data.names == ("height (cm)", "mass $")
        cm, kg = data.regions.axes
        assert 140 < cm[0] < 151 and 199 < cm[-1] < 210 and 40 < kg[0] < 51
        u, v = np.meshgrid(cm, kg)
        sure = np.abs(u - 100 - v) > 6
        light = data.classes.index("light")
        np.testing.assert_array_equal(data.regions.predicted[sure] == light, (u - 100 > v)[sure])
        away = np.hypot(data.x[:, None] - height, data.y[:, None] - mass)
        assert away.min(1).max() < 1e-3
        assert [part.label for part in data.apart] == ["validation rows", "test rows"]
        shown = words_in(draw_fit(data))
        assert " kind: light" in shown and " test rows" in shown and " shaded: predicted" in shown
        assert png(draw_fit(data))

    def test_shapes_and_colours_tell_classes_apart(self):
        y = torch.tensor([2, 0, 1, 1, 1, 0])
        data = fit(
            known_classifier([[1.0, 0], [0, 1.0], [0.0, 0]], [0.0, 0, 0], nn.CrossEntropyLoss(), y)
        )
        drawn = [c for c in draw_fit(data).axes[0].collections if hasattr(c, "get_sizes")]
        points = [c for c in drawn if len(c.get_offsets()) and len(c.get_sizes())]
        assert sorted(len(c.get_offsets()) for c in points) == [1, 2, 3]
        assert len({c.get_paths()[0].vertices.tobytes() for c in points}) == 3
        assert len({tuple(c.get_facecolor()[0]) for c in points}) == 3

    def test_one_predicted_class_is_drawn(self):
        y = torch.tensor([[0.0], [1], [0], [1], [0], [1]])
        runs = known_classifier([[0.0, 0.0]], [-1.0], nn.BCEWithLogitsLoss(), y)
        assert not fit(runs).regions.predicted.any()
        assert png(draw_fit(fit(runs)))

    def test_probabilities_are_told_apart_at_a_half(self):
        x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        line = nn.Linear(2, 1)
        line.weight.data, line.bias.data = torch.tensor([[1.0, 0.0]]), torch.tensor([-2.0])
        problem = ds.Problem.from_model(
            nn.Sequential(line, nn.Sigmoid()), x, torch.tensor([[0.0], [1.0], [0.0]]),
            loss=nn.BCELoss(),
        )  # fmt: skip
        data = fit(descend(problem, lr=0.0, epochs=1))
        assert data.counts.tolist() == [[2, 0], [0, 1]]
        u, _ = np.meshgrid(*data.regions.axes)
        np.testing.assert_array_equal(data.regions.predicted, u > 2)

    def test_categories_and_many_classes_are_counted(self):
        frame = pl.DataFrame({"city": ["a", "b"] * 20, "kind": ["x", "y"] * 20})
        assert fit(descend(ds.Problem.from_table(frame, target="kind"), epochs=1)).kind == "classes"
        x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        many = ds.Problem.from_model(
            lambda: nn.Linear(2, 9), x, torch.arange(40) % 9, loss=nn.CrossEntropyLoss()
        )
        assert fit(descend(many, epochs=1)).kind == "classes"
